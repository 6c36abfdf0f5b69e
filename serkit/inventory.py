"""What a finished fold consists of: ``files.json`` names each file with its size and SHA-256.

It finds what was cut short, edited or mixed up on its way to another machine. It is no
protection against somebody who means to deceive: whoever edits a file can edit this record too.
"""

import hashlib
import json
from pathlib import Path

from serkit.errors import RunError
from serkit.experiment import show_path
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


def check_inventory(folder):
    """Compare the files of a run folder with what ``files.json`` says of them.

    Parameters
    ----------
    folder : path

    Returns
    -------
    dict of str to str
        For each file that a fold must have or that is recorded: what is wrong with it; empty if nothing.

    Raises
    ------
    RunError
        If there is no record, or it can't be read.
    """
    folder = Path(folder)
    path = folder / FILES
    try:
        recorded = {
            name: (one["bytes"], one["sha256"]) for name, one in json.loads(path.read_text())["files"].items()
        }
    except FileNotFoundError:
        raise RunError(
            f"{show_path(path)} is missing: which bytes the fold had when it was finished is unknown"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{show_path(path)} can't be read ({error}); copy the folder again") from error
    return {
        name: _fault(folder / name, *recorded.get(name, (0, ""))) for name in {*RESULTS, *MODEL, *recorded}
    }


def _fault(path, n_bytes, sha256):
    try:
        size = path.stat().st_size
        if not sha256:
            return f"not listed in {FILES}"
        if size != n_bytes:
            return f"{size:,} bytes, {n_bytes:,} when the fold was finished: cut short or edited"
        return "" if sha256_of(path) == sha256 else "edited after the fold was finished (other SHA-256)"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"can't be read ({error.strerror or error})"
