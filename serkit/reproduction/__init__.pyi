from . import cluster, estimate, gpu_memory, jobs, page, plan, report, reproduce, verify
