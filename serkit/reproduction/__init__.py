"""From one command to a finished, checked report."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "catalogue", "cluster", "estimate", "figurechecks", "foldchecks", "jobs",
        "page", "plan", "report", "reproduce", "runfigures", "verify",
    ],
)  # fmt: skip
