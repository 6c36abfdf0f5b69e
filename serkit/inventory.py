"""What a finished fold consists of: ``files.json`` names each file with its size and SHA-256.

It finds what was cut short, edited or mixed up on its way to another machine. It is no
protection against somebody who means to deceive: whoever edits a file can edit this record too.
"""

import hashlib
from pathlib import Path

from serkit.files import sync
from serkit.runs import write_json

FILES = "files.json"
RESULTS = ("experiment.json", "history.csv", "timing.csv", "predictions.parquet", "metrics.json")
FURTHER = ("epochs.parquet", "embedding.parquet")  # not of every fold
MODEL = ("model/config.json", "model/model.safetensors", "model/features.json", "model/README.md")


def sha256_of(path):
    """SHA-256 of a file, as 64 hexadecimal digits.

    Parameters
    ----------
    path : path

    Returns
    -------
    str
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_inventory(folder):
    """Write ``files.json`` of a run folder whose results are all there.

    The executed notebook, the log and the TensorBoard events are left out: they are still being
    written when a fold is finished, and no number is read from them. What is recorded is on the disk,
    so that a power cut after ``DONE`` takes nothing of it.

    Parameters
    ----------
    folder : path
    """
    folder = Path(folder)
    present = [
        name for name in (*RESULTS, *MODEL, *FURTHER) if name not in FURTHER or (folder / name).is_file()
    ]
    for name in present:
        sync(folder / name)
    sync(folder / "model")
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}
        for name in present
    }
    write_json(folder / FILES, {"files": files})
