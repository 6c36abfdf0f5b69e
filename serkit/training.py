"""Training one fold: the loop, the checkpoint rule, and resuming.

The rules are the published ones (DESIGN of the experiment: ``serkit.runs.TRAINING``): AdamW with
one learning rate for everything, cross-entropy on segments, the best epoch by WA + UA of the
selection set, stop after ``patience`` epochs without a better one but never before ``min_epochs``.
"""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch.nn import functional as F

from serkit import recipe as recipes
from serkit import runs
from serkit.batches import SegmentDataset, fit_scaler, make_loader, model_inputs
from serkit.constants import IMAGE_SIZE, LABELS, N_MFCC, SEGMENT_FRAMES, SEGMENT_SAMPLES
from serkit.corpora.manifest import task_rows
from serkit.errors import RunError
from serkit.metrics import pooled_and_fold_mean, unweighted_accuracy, weighted_accuracy
from serkit.model import PROFILES, CoAttentionModel, create_model, load_model, save_model
from serkit.modelfolder import describe_model
from serkit.pooling import utterance_probabilities

CHECKPOINT = "checkpoint.pt"  # last finished epoch; removed when the fold is done


@dataclass(frozen=True)
class FoldResult:
    """What training one fold leaves behind."""

    folder: Path
    history: pd.DataFrame  # one row per epoch
    predictions: pd.DataFrame  # one row per utterance of validation and test
    metrics: dict
    best_epoch: int


def train_fold(experiment, store, manifest, fold, folder, *, report=print):
    """Train, choose the best epoch, predict validation and test, write the run folder.

    An interrupted call is continued from its last finished epoch and gives the same numbers as
    an uninterrupted one. A finished one is read back.

    Parameters
    ----------
    experiment : Experiment
    store : FeatureStore
    manifest : pd.DataFrame
    fold : Fold
    folder : path
        Run folder; see DESIGN of ``serkit.runs.Experiment.folder``.
    report : callable, optional
        Called with one line per epoch.

    Returns
    -------
    FoldResult

    Raises
    ------
    RunError
        If the loss is no longer a number, or the folder belongs to another experiment.
    """
    folder = Path(folder)
    if runs.is_done(folder, experiment):
        report(f"already done: {runs.show_path(folder)}")
        return read_result(folder)
    _claim(folder, experiment)
    accelerator = make_accelerator(experiment.precision)
    labelled = task_rows(manifest)
    label_of = dict(zip(labelled["utterance_id"], labelled["label"].map(LABELS.index), strict=True))
    sets = {
        split: SegmentDataset(store, store.rows_of(getattr(fold, split)), label_of)
        for split in ("train", "validation", "test")
        if len(getattr(fold, split))
    }
    scaler = fit_scaler(store, sets["train"].rows)
    set_seed(experiment.seed)
    model = create_model(PROFILES[experiment.profile])
    optimizer = torch.optim.AdamW(model.parameters(), lr=experiment.learning_rate)
    model, optimizer = accelerator.prepare(model, optimizer)
    state = _resume(folder, accelerator, model, optimizer, report)

    while not _finished(state["history"], experiment):
        epoch = len(state["history"]) + 1
        started = time.perf_counter()
        row = {"epoch": epoch} | _train_epoch(
            accelerator, model, optimizer, sets["train"], scaler, store.recipe, experiment, epoch
        )
        if "validation" in sets:
            scores = score_utterances(
                predict(accelerator, model, sets["validation"], scaler, experiment.batch_size)
            )
            row |= {f"validation_{name}": value for name, value in scores.items()}
        row |= {"learning_rate": optimizer.param_groups[0]["lr"], "seconds": time.perf_counter() - started}
        state["history"].append(row)
        better = best_epoch(state["history"]) == epoch
        if better:
            save_model(accelerator.unwrap_model(model), folder / "model")
        _save_checkpoint(folder, accelerator.unwrap_model(model), optimizer, state)
        report(_epoch_line(state["history"], experiment, better))

    best = accelerator.prepare(load_model(folder / "model"))
    tables = []
    for split in ("validation", "test"):
        if split in sets:
            scored = predict(accelerator, best, sets[split], scaler, experiment.batch_size)
            tables.append(_prediction_table(scored, manifest, experiment, split))
    return _write_result(folder, experiment, state["history"], pd.concat(tables, ignore_index=True), scaler)


def _train_epoch(accelerator, model, optimizer, dataset, scaler, recipe, experiment, epoch):
    """One pass over the training segments; every random draw depends on seed and epoch only."""
    set_seed(experiment.seed + 100_003 * epoch)
    model.train()
    loader = make_loader(
        dataset,
        experiment.batch_size,
        shuffle_seed=experiment.seed + epoch,
        on_gpu=accelerator.device.type == "cuda",
    )
    total, truth, guess = 0.0, [], []
    for number, batch in enumerate(loader, start=1):
        label = batch["label"].to(accelerator.device)
        with accelerator.autocast():
            logits = model(**model_inputs(batch, scaler, recipe, accelerator.device)).logits
        loss = F.cross_entropy(logits.float(), label)
        if not torch.isfinite(loss):
            raise RunError(
                f"epoch {epoch}, batch {number}: the loss is {loss.item()}; the last good checkpoint is that of "
                f"epoch {epoch - 1}. Lower learning_rate={experiment.learning_rate}, or set precision='float32'"
            )
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        total += loss.item() * len(label)
        # labels in the order of the shuffled batches, so that these scores mean something
        truth.append(batch["label"].numpy())
        guess.append(logits.argmax(dim=1).cpu().numpy())
    truth, guess = np.concatenate(truth), np.concatenate(guess)
    return {
        "train_loss": total / len(dataset),
        "train_wa": weighted_accuracy(truth, guess),
        "train_ua": unweighted_accuracy(truth, guess),
    }


@torch.no_grad()
def predict(accelerator, model, dataset, scaler, batch_size):
    """Score every utterance of a dataset: mean over its segments of log-softmax.

    Returns
    -------
    pd.DataFrame
        Index ``utterance_id``; ``loss`` (mean cross-entropy of its segments), ``truth`` (class
        index) and one column of mean log-probability for each label.
    """
    model.eval()
    parts = []
    for batch in make_loader(dataset, batch_size, on_gpu=accelerator.device.type == "cuda"):
        with accelerator.autocast():
            output = model(**model_inputs(batch, scaler, dataset.store.recipe, accelerator.device))
        parts.append(F.log_softmax(output.logits.float(), dim=1).cpu().numpy())
    scores = np.concatenate(parts)
    table = pd.DataFrame(scores.astype(np.float64), columns=list(LABELS))
    table["loss"] = -scores[np.arange(len(scores)), dataset.labels]
    table["truth"] = dataset.labels
    utterances = dataset.store.segments["utterance_id"].to_numpy()[dataset.rows]
    return table.groupby(utterances, sort=False).mean().astype({"truth": int}).rename_axis("utterance_id")


def score_utterances(scored):
    """WA, UA and loss of a table that ``predict`` made."""
    guess = scored[list(LABELS)].to_numpy().argmax(axis=1)
    return {
        "loss": float(scored["loss"].mean()),
        "wa": weighted_accuracy(scored["truth"].to_numpy(), guess),
        "ua": unweighted_accuracy(scored["truth"].to_numpy(), guess),
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


def _finished(history, experiment):
    if not history:
        return False
    waited = len(history) - best_epoch(history)
    return len(history) >= experiment.epochs or (
        waited >= experiment.patience and len(history) >= experiment.min_epochs
    )


def _epoch_line(history, experiment, better):
    row = history[-1]
    line = f"epoch {row['epoch']:3d}/{experiment.epochs}  loss {row['train_loss']:.3f}"
    line += f"  train WA {row['train_wa']:6.1%} UA {row['train_ua']:6.1%}"
    if "validation_wa" in row:
        line += f"  validation WA {row['validation_wa']:6.1%} UA {row['validation_ua']:6.1%}"
    left = (experiment.epochs - len(history)) * float(np.mean([r["seconds"] for r in history]))
    return line + f"  {row['seconds']:.1f} s, at most {left:.0f} s left" + ("  <- best" if better else "")


def resolve_precision(precision):
    """accelerate's name of a precision; ``auto`` is bf16 or fp16 on a GPU and float32 on a CPU."""
    if precision == "auto":
        if not torch.cuda.is_available():
            return "no"
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "no" if precision == "float32" else precision


def make_accelerator(precision):
    """accelerate's view of device and precision; a notebook may change its precision and go on."""
    AcceleratorState._reset_state(reset_partial_state=True)
    only_cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    return Accelerator(mixed_precision=resolve_precision(precision), cpu=only_cpu)


def _claim(folder, experiment):
    """Make the folder this experiment's; remains of another one are refused, never overwritten."""
    runs.check_folder(folder, experiment)
    record = folder / "experiment.json"
    if not record.exists():
        runs.write_json(
            record, {"key": experiment.key, "parameters": asdict(experiment), **runs.provenance()}
        )


def _save_checkpoint(folder, model, optimizer, state):
    record = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": json.dumps(state["history"]),
    }
    partial = folder / (CHECKPOINT + ".partial")
    try:
        torch.save(record, partial)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise RunError(
            f"{runs.show_path(folder)}: the checkpoint of epoch {len(state['history'])} can't be written ({error}); "
            "make room and start again: the epoch before is kept"
        ) from error
    os.replace(partial, folder / CHECKPOINT)


def _resume(folder, accelerator, model, optimizer, report):
    path = folder / CHECKPOINT
    if not path.exists():
        return {"history": []}
    record = torch.load(path, map_location=accelerator.device, weights_only=True)
    accelerator.unwrap_model(model).load_state_dict(record["model"])
    optimizer.load_state_dict(record["optimizer"])
    history = json.loads(record["history"])
    report(f"resumed after epoch {len(history)}: {runs.show_path(path)}")
    return {"history": history}


def _prediction_table(scored, manifest, experiment, split):
    log_probability = scored[list(LABELS)].to_numpy()
    probability = utterance_probabilities(log_probability)
    about = manifest.set_index("utterance_id").loc[scored.index]
    table = pd.DataFrame({
        "utterance_id": scored.index,
        "speaker": about["speaker"].to_numpy(),
        "session": about["session"].to_numpy(),
        "truth": np.array(LABELS)[scored["truth"]],
        "prediction": np.array(LABELS)[log_probability.argmax(axis=1)],
    })  # fmt: skip
    for i, label in enumerate(LABELS):
        table[f"p_{label}"] = probability[:, i]
    return table.assign(fold=experiment.fold, seed=experiment.seed, variant=experiment.variant, split=split)


def _write_result(folder, experiment, history, predictions, scaler):
    """Everything a reader needs, ``DONE`` last."""
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    predictions.to_parquet(folder / "predictions.parquet", index=False)
    metrics = pooled_and_fold_mean(predictions) | {"best_epoch": best_epoch(history), "epochs": len(history)}
    runs.write_json(folder / "metrics.json", metrics)
    describe_model(
        folder / "model",
        recipe=recipes.named(experiment.recipe),
        scaler=scaler,
        experiment=experiment,
        metrics=metrics,
    )
    (folder / CHECKPOINT).unlink(missing_ok=True)
    (folder / runs.DONE).write_text(experiment.key + "\n")
    return read_result(folder)


def read_result(folder):
    """Read a finished run folder back."""
    folder = Path(folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    return FoldResult(
        folder,
        pd.read_csv(folder / "history.csv"),
        pd.read_parquet(folder / "predictions.parquet"),
        metrics,
        metrics["best_epoch"],
    )


def measure_step(experiment, batch_size=4):
    """Seconds of training per segment with this experiment's model on this machine.

    Weights don't matter for time: random ones are used, nothing is downloaded.
    """
    accelerator = make_accelerator(experiment.precision)
    model = accelerator.prepare(CoAttentionModel(PROFILES[experiment.profile])).train()
    inputs = {
        "spectrogram": torch.zeros(batch_size, 3, *IMAGE_SIZE, device=accelerator.device),
        "mfcc": torch.zeros(batch_size, SEGMENT_FRAMES, N_MFCC, device=accelerator.device),
        "waveform": torch.randn(batch_size, SEGMENT_SAMPLES, device=accelerator.device),
    }
    for _ in range(2):  # the first one allocates
        started = time.perf_counter()
        with accelerator.autocast():
            loss = model(**inputs).logits.float().square().mean()
        accelerator.backward(loss)
        loss.item()
    return (time.perf_counter() - started) / batch_size
