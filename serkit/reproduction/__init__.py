"""From one command to a finished, checked report."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "cluster", "estimate", "jobs", "page", "plan", "report", "reproduce", "verify",
    ],
)  # fmt: skip
