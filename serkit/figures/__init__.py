"""Plots and tables for print: each plot takes ``ax`` and returns it, ``save_figure`` writes it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
