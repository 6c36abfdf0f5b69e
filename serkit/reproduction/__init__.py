"""From one command to a finished, checked report."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "cluster", "estimate", "execution", "grid", "jobs", "lock", "page", "plan", "probe", "progress", "report",
        "reproduce", "verify",
    ],
)  # fmt: skip
