"""Speech emotion recognition with co-attention (Zou et al., ICASSP 2022), rebuilt from raw audio.

::

    from serkit import corpora, features, folds, model, training, evaluation, figures
    from serkit import PUBLISHED, CORRECTED, start_run

Rooms and files are loaded when they are first used: importing serkit costs milliseconds.
"""

import os
from importlib.metadata import version

import lazy_loader

__version__ = version("serkit")
# torch asks for a name while it is imported; in a container a user may have none
os.environ.setdefault("USER", f"user{getattr(os, 'getuid', int)()}")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
