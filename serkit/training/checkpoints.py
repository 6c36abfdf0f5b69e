"""How far a training has come, kept so that it can go on: the last finished epoch in one file.

``checkpoint.pt`` holds weights, optimiser, learning rate and history. Random numbers need no place in it:
every step draws from its own seed (`serkit.training.loop.seed_of_step`). Only tensors, numbers and texts
are read from it: no code.
"""

import errno
import signal
import threading
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
import torch

from serkit.errors import RunError, Stopped, reported_as
from serkit.experiment import show_path
from serkit.files import replacing
from serkit.runs import CHECKPOINT, EPOCHS, read_table

LOSS_STEP = 1e-6  # nats
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.EFBIG)


def best_epoch(history, rule="wa+ua"):
    """Epoch with the highest WA + UA of the selection set, or its lowest loss, the first of equals; without one, the last.

    The authors' code has had both rules: the loss when it was first uploaded, before the paper, the sum of scores since.
    A lower loss counts there from 1e-6 on.

    >>> best_epoch([{"epoch": 1, "validation_wa": 0.5, "validation_ua": 0.4},
    ...             {"epoch": 2, "validation_wa": 0.6, "validation_ua": 0.3}])
    1
    """
    if "validation_wa" not in history[0]:
        return history[-1]["epoch"]
    if rule == "loss":
        best = history[0]
        for row in history[1:]:
            best = row if row["validation_loss"] < best["validation_loss"] - LOSS_STEP else best
        return best["epoch"]
    scores = [round(row["validation_wa"] + row["validation_ua"], 9) for row in history]
    return history[scores.index(max(scores))]["epoch"]


@dataclass
class Progress:
    """What the finished epochs brought and took."""

    history: list = field(default_factory=list)  # scores and learning rate, a dict for each epoch
    timing: list = field(default_factory=list)  # seconds and memory, a dict for each epoch
    rule: str = "wa+ua"  # by which an epoch is best

    @property
    def epoch(self):
        """The last finished epoch; 0 before the first."""
        return len(self.history)

    @property
    def is_at_best(self):
        """Whether the last epoch is the best one so far."""
        return bool(self.history) and best_epoch(self.history, self.rule) == self.epoch

    def is_finished(self, experiment):
        """Whether ``epochs`` or ``patience`` are used up."""
        if not self.history:
            return False
        patient = self.epoch - best_epoch(self.history, self.rule) < experiment.patience
        return self.epoch >= experiment.epochs or (self.epoch >= experiment.min_epochs and not patient)


def _parts(learner):
    """What moves on with every step beside the model; the accelerator's scaler is there with fp16 only."""
    parts = {"optimizer": learner.optimizer, "scheduler": learner.scheduler}
    loss_scaler = learner.accelerator.scaler
    return parts | {"loss_scale": loss_scaler} if loss_scaler else parts


def _named_encoder(config):
    """SHA-256 of the speech encoder that a checkpoint names and doesn't hold; None if it holds it."""
    return config.sources["speech_encoder"]["sha256"] if config.names_encoder else None


def save_checkpoint(folder, learner, progress):
    """Write the state after an epoch; that of the epoch before stays until this one is whole."""
    states = {name: part.state_dict() for name, part in _parts(learner).items()}
    states |= {"model": learner.model.saved_state(), "encoder": _named_encoder(learner.model.config)}
    with replacing(Path(folder) / CHECKPOINT) as partial, open(partial, "wb") as file:
        try:
            torch.save(states | {"progress": asdict(progress)}, file)
        except RuntimeError as error:  # how torch ends a file that the disk has no room for
            raise error.__context__ or error from None


def load_checkpoint(folder, learner):
    """Put a learner where its checkpoint was; returns the progress, none where there is no checkpoint.

    Raises
    ------
    RunError
        If the file is damaged, belongs to another model, or the frozen speech encoder is another one by now.
    """
    path = Path(folder) / CHECKPOINT
    if not path.is_file():
        return Progress(rule=learner.experiment.checkpoint_rule)
    about, cure = f"{show_path(path)}: damaged, or of another model", "delete it to train from the beginning"
    with reported_as(RunError, about, cure):
        states = torch.load(path, map_location="cpu", weights_only=True)
        if states["encoder"] != _named_encoder(learner.model.config):
            raise ValueError("its speech encoder was another one")
        learner.model.load_saved_state(states["model"])
        for name, part in _parts(learner).items():
            part.load_state_dict(states[name])
        return Progress(**states["progress"])


def kept_epochs(folder):
    """What an interrupted training has kept, in words."""
    path = Path(folder) / CHECKPOINT
    if not path.is_file():
        return "no epoch was finished"
    last = Progress(**torch.load(path, mmap=True, weights_only=True)["progress"]).epoch
    return f"everything up to epoch {last} is kept in {show_path(folder)}"


@contextmanager
def interruptible(folder):
    """End on Ctrl-C, SIGTERM (a cluster's time limit) and a full disk with what is kept, in one sentence.

    Raises
    ------
    Stopped
        On Ctrl-C and SIGTERM, at once: an unfinished epoch is lost.
    RunError
        If the disk is full or write-protected.
    """
    in_main = threading.current_thread() is threading.main_thread()  # elsewhere signals can't be caught
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if in_main else None
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(f"stopped; {kept_epochs(folder)}: run again to go on") from None
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        about = f"{show_path(folder)}: results can't be written ({error}); {kept_epochs(folder)}"
        cure = "make room, or mend the folder's permissions, and run again to go on"
        raise RunError(f"{about}: {cure}") from error
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def keep_predictions(folder, epoch, predictions):
    """Add the predictions of an epoch to those of the epochs before; done again, it changes nothing."""
    path = Path(folder) / EPOCHS
    cure = f"delete it and {CHECKPOINT} to train from the beginning"
    before = [read_table(path, cure).query("epoch < @epoch")] if epoch > 1 else []
    with replacing(path) as partial:
        table = pd.concat([*before, predictions.assign(epoch=epoch)], ignore_index=True)
        table.to_parquet(partial, index=False, write_page_checksum=True)
