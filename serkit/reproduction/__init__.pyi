from . import cluster, estimate, jobs, page, plan, report, reproduce, verify
