"""How far a training has come, kept so that it can go on: the last finished epoch in one file.

``checkpoint.safetensors`` holds the weights, AdamW's moments, and in its header everything else:
history, learning rate, loss scale. Random numbers need no place in it: every step draws from its
own seed (`serkit.training.loop.seed_of_step`). Nothing is pickled.
"""

import errno
import json
import shutil
import signal
import threading
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from serkit.errors import RunError
from serkit.experiment import show_path
from serkit.files import replacing
from serkit.runs import CHECKPOINT, EPOCHS

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def best_epoch(history):
    """Epoch with the highest WA + UA of the selection set, the first of equals; without one, the last.

    >>> best_epoch([{"epoch": 1, "validation_wa": 0.5, "validation_ua": 0.4},
    ...             {"epoch": 2, "validation_wa": 0.6, "validation_ua": 0.3}])
    1
    """
    if "validation_wa" not in history[0]:
        return history[-1]["epoch"]
    return max(
        history, key=lambda row: (round(row["validation_wa"] + row["validation_ua"], 9), -row["epoch"])
    )["epoch"]


@dataclass
class Progress:
    """What the finished epochs brought and took."""

    history: list = field(default_factory=list)  # scores and learning rate, a dict for each epoch
    timing: list = field(default_factory=list)  # seconds and memory, a dict for each epoch

    @property
    def epoch(self):
        """The last finished epoch; 0 before the first."""
        return len(self.history)

    @property
    def is_at_best(self):
        """Whether the last epoch is the best one so far."""
        return bool(self.history) and best_epoch(self.history) == self.epoch

    def is_finished(self, experiment):
        """Whether ``epochs`` or ``patience`` are used up."""
        if not self.history:
            return False
        waited = self.epoch - best_epoch(self.history)
        return self.epoch >= experiment.epochs or (
            waited >= experiment.patience and self.epoch >= experiment.min_epochs
        )


def save_checkpoint(folder, learner, progress):
    """Write the state after an epoch; that of the epoch before stays until this one is whole.

    Parameters
    ----------
    folder : path
    learner : Learner
    progress : Progress
    """
    state = learner.optimizer.state_dict()
    tensors = {f"model.{name}": value.contiguous() for name, value in learner.model.state_dict().items()}
    for number, moments in state["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    loss_scaler = learner.accelerator.scaler  # of fp16
    header = {
        "progress": asdict(progress),
        "groups": state["param_groups"],
        "scheduler": learner.scheduler.state_dict(),
        "loss_scale": loss_scaler.state_dict() if loss_scaler else None,
    }
    with replacing(Path(folder) / CHECKPOINT) as partial:
        save_file(tensors, partial, metadata={name: json.dumps(value) for name, value in header.items()})


def load_checkpoint(folder, learner):
    """Put a learner where its checkpoint was; returns the progress, or None where there is no checkpoint.

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
            header = {name: json.loads(value) for name, value in file.metadata().items()}
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        weights, moments = {}, {}
        for name, value in tensors.items():
            kind, rest = name.split(".", 1)
            if kind == "model":
                weights[rest] = value
            else:
                number, what = rest.split(".", 1)
                moments.setdefault(int(number), {})[what] = value
        learner.model.load_state_dict(weights)
        learner.optimizer.load_state_dict({"state": moments, "param_groups": header["groups"]})
        learner.scheduler.load_state_dict(header["scheduler"])
        if header["loss_scale"]:
            learner.accelerator.scaler.load_state_dict(header["loss_scale"])
        return Progress(**header["progress"])
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(
            f"{show_path(path)}: damaged, or of another model ({reason}); delete it to train from the beginning"
        ) from error


def kept_epochs(folder):
    """What an interrupted training has kept, in words."""
    path = Path(folder) / CHECKPOINT
    if not path.is_file():
        return "no epoch was finished"
    with safe_open(path, framework="pt") as file:
        last = len(json.loads(file.metadata()["progress"])["history"])
    return f"{'epoch 1 is' if last == 1 else f'epochs 1 to {last} are'} kept in {show_path(folder)}"


@contextmanager
def interruptible(folder):
    """End on Ctrl-C, SIGTERM (a cluster's time limit) and a full disk with what is kept, in one sentence.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C and SIGTERM, at once: an unfinished epoch is lost.
    RunError
        If the disk is full or write-protected.
    """
    in_main = threading.current_thread() is threading.main_thread()  # elsewhere signals can't be caught
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if in_main else None
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; {kept_epochs(folder)}: run again to go on") from None
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", errno.ENOSPC) not in UNWRITABLE:  # safetensors gives no number
            raise
        raise RunError(
            f"{show_path(folder)}: results can't be written ({error}); {kept_epochs(folder)}: make room, or mend "
            "the folder's permissions, and run again to go on"
        ) from error
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def keep_predictions(folder, epoch, tables):
    """Keep the predictions of one epoch while training goes on; done again, it changes nothing."""
    parts = folder / "epochs"
    parts.mkdir(exist_ok=True)
    with replacing(parts / f"{epoch:04d}.parquet") as partial:
        pd.concat(tables, ignore_index=True).assign(epoch=epoch).to_parquet(partial, index=False)


def join_predictions(folder, n_epochs):
    """One table of all epochs, beside the file of each."""
    tables = [pd.read_parquet(folder / "epochs" / f"{epoch:04d}.parquet") for epoch in range(1, n_epochs + 1)]
    pd.concat(tables, ignore_index=True).to_parquet(folder / EPOCHS, index=False)


def remove_leftovers(folder):
    """Take away what a finished fold no longer needs: its checkpoint and the files of single epochs."""
    (folder / CHECKPOINT).unlink(missing_ok=True)
    shutil.rmtree(folder / "epochs", ignore_errors=True)
