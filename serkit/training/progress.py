"""How far training has come: position, running sums, history; the checkpoint rule; lines that say so."""

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from serkit.constants import LABELS
from serkit.metrics import unweighted_accuracy, weighted_accuracy
from serkit.training.checkpoints import position


def new_progress(dataset, experiment):
    """Where training stands before its first step."""
    progress = {"epoch": 0, "batches": -(-len(dataset) // experiment.batch_size), "history": [], "timing": []}
    begin_epoch(progress)
    return progress


def begin_epoch(progress):
    """Move on to the first batch of the next epoch."""
    progress |= {"epoch": progress["epoch"] + 1, "batch": 0, "seconds": 0.0}
    progress |= {"loss": 0.0, "counts": [0] * len(LABELS) ** 2}


def train_scores(progress):
    """Loss, WA and UA of the training set over the epoch, as it was trained on."""
    counts = np.array(progress["counts"])
    truth, guess = np.divmod(np.repeat(np.arange(len(counts)), counts), len(LABELS))
    return {
        "train_loss": progress["loss"] / len(truth),
        "train_wa": weighted_accuracy(truth, guess),
        "train_ua": unweighted_accuracy(truth, guess),
    }


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


def is_at_best(progress):
    """Whether the weights are those of the best epoch so far: it has ended and no batch came after it.

    >>> is_at_best({"history": [{"epoch": 1}], "batch": 0}), is_at_best({"history": [{"epoch": 1}], "batch": 3})
    (True, False)
    """
    history = progress["history"]
    return bool(history) and progress["batch"] == 0 and best_epoch(history) == history[-1]["epoch"]


def is_finished(history, experiment):
    """Whether ``epochs`` or ``patience`` are used up."""
    if not history:
        return False
    waited = len(history) - best_epoch(history)
    return len(history) >= experiment.epochs or (
        waited >= experiment.patience and len(history) >= experiment.min_epochs
    )


def epoch_line(progress, experiment, better):
    """One finished epoch in a line."""
    row, timing = progress["history"][-1], progress["timing"]
    line = f"epoch {row['epoch']:3d}/{experiment.epochs}  loss {row['train_loss']:.3f}"
    line += f"  train WA {row['train_wa']:6.1%} UA {row['train_ua']:6.1%}"
    if "validation_wa" in row:
        line += f"  validation WA {row['validation_wa']:6.1%} UA {row['validation_ua']:6.1%}"
    left = (experiment.epochs - row["epoch"]) * float(np.mean([epoch["seconds"] for epoch in timing]))
    return (
        line + f"  {timing[-1]['seconds']:.1f} s, at most {left:.0f} s left" + ("  <- best" if better else "")
    )


def batch_line(progress):
    """A long epoch on its way."""
    left = progress["seconds"] / progress["batch"] * (progress["batches"] - progress["batch"])
    loss = progress["loss"] / sum(progress["counts"])
    return f"{position(progress)}  loss {loss:.3f}  {left / 60:.0f} min left in this epoch"


def log_scalars(folder, progress):
    """The last epoch for TensorBoard."""
    row, timing = progress["history"][-1], progress["timing"][-1]
    with SummaryWriter(folder / "tensorboard", purge_step=row["epoch"]) as writer:
        for name, value in (row | timing).items():
            if name != "epoch":
                writer.add_scalar(name.replace("_", "/", 1), value, row["epoch"])
