"""What a notebook shows beside plots: players, things to click, your own recording."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
