"""The state of an unfinished training run in one file, replaced in one step.

``checkpoint.safetensors`` holds the weights, AdamW's moments, and in its header everything else:
position, history, learning rate, loss scale. Random numbers need no place in it: every step draws
from its own seed (`serkit.training.optimisation.seed_of_step`). Nothing is pickled.
"""

import errno
import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from serkit.errors import RunError
from serkit.experiment import show_path
from serkit.files import replacing
from serkit.runs import CHECKPOINT, EPOCHS


def save_checkpoint(folder, model, optimizer, progress):
    """Write a checkpoint; the one before stays until this one is whole.

    Parameters
    ----------
    folder : path
    model : torch.nn.Module
    optimizer : torch.optim.Optimizer
    progress : dict
        Whatever JSON can hold; ``epoch`` and ``batch`` are named in messages.

    Raises
    ------
    RunError
        If it can't be written, saying which checkpoint is still good.
    """
    folder = Path(folder)
    tensors = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    state = optimizer.state_dict()
    for number, moments in state["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    header = {"progress": json.dumps(progress), "groups": json.dumps(state["param_groups"])}
    with (
        writing(folder, f"the checkpoint of {position(progress)}"),
        replacing(folder / CHECKPOINT) as partial,
    ):
        save_file(tensors, partial, metadata=header)


@contextmanager
def writing(folder, what):
    """Turn a full disk or a folder that is write-protected into a message: which checkpoint is still good."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        protected = getattr(error, "errno", None) in (errno.EACCES, errno.EPERM, errno.EROFS)
        cure = "mend the folder's permissions" if protected else "make room"
        raise RunError(
            f"{show_path(folder)}: {what} can't be written ({error}); {cure} and start again: "
            f"{good_checkpoint(folder)}"
        ) from error


def load_checkpoint(folder, model, optimizer):
    """Continue from a checkpoint; returns its ``progress``, or None where there is none.

    Raises
    ------
    RunError
        If the file is damaged or belongs to another model.
    """
    path = Path(folder) / CHECKPOINT
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        weights, moments = {}, {}
        for name, value in tensors.items():
            kind, rest = name.split(".", 1)
            if kind == "model":
                weights[rest] = value
            else:
                number, what = rest.split(".", 1)
                moments.setdefault(int(number), {})[what] = value
        model.load_state_dict(weights)
        optimizer.load_state_dict({"state": moments, "param_groups": json.loads(header["groups"])})
        return json.loads(header["progress"])
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(
            f"{show_path(path)}: damaged, or of another model ({reason}); delete it to train from the beginning"
        ) from error


def remove_checkpoint(folder):
    """Of a finished fold nothing but its best model is kept."""
    (Path(folder) / CHECKPOINT).unlink(missing_ok=True)


def good_checkpoint(folder):
    """Which checkpoint is there to go on from, in words."""
    path = Path(folder) / CHECKPOINT
    if not path.is_file():
        return "there is no checkpoint yet"
    with safe_open(path, framework="pt") as file:
        return f"the checkpoint of {position(json.loads(file.metadata()['progress']))} is good"


def position(progress):
    """Where a run is: after so many batches of an epoch.

    >>> position({"epoch": 3, "batch": 17, "batches": 40})
    'epoch 3, batch 17 of 40'
    """
    return f"epoch {progress['epoch']}, batch {progress['batch']} of {progress['batches']}"


def keep_epoch(folder, epoch, tables):
    """Keep the predictions of one epoch while training goes on; done again, it changes nothing."""
    parts = folder / "epochs"
    parts.mkdir(exist_ok=True)
    with replacing(parts / f"{epoch:04d}.parquet") as partial:
        pd.concat(tables, ignore_index=True).assign(epoch=epoch).to_parquet(partial, index=False)


def join_epochs(folder, n_epochs):
    """One table of all epochs in place of a file for each."""
    parts = folder / "epochs"
    if parts.is_dir():
        tables = [pd.read_parquet(parts / f"{epoch:04d}.parquet") for epoch in range(1, n_epochs + 1)]
        pd.concat(tables, ignore_index=True).to_parquet(folder / EPOCHS, index=False)
        shutil.rmtree(parts)
