"""Speech emotion recognition with co-attention (Zou et al., ICASSP 2022), rebuilt from raw audio.

    from serkit import corpora, features, folds, model, training, evaluation, figures
    from serkit import PUBLISHED, CORRECTED, start_run

Rooms and files are loaded when they are first used: importing serkit costs milliseconds.
"""

import getpass
import os
from importlib.metadata import version

import lazy_loader

__version__ = version("serkit")

try:
    getpass.getuser()
except (KeyError, OSError):  # a user without a name, as in a container: torch would stop at its import
    os.environ["USER"] = f"user{os.getuid()}"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
