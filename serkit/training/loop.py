"""Training one fold: the loop, and going on after an interruption.

The rules are those of the published code (``serkit/profiles.toml``): AdamW with one learning rate for
everything, cross-entropy on segments, the best epoch by WA + UA of the selection set, stop after
``patience`` epochs without a better one but never before ``min_epochs`` (idle there: 7 with a patience of 8). Its first
upload, before the paper, kept the epoch of lowest loss instead: which of the two made the paper's numbers is not known,
so both are there (``checkpoint_rule``).

Every random draw follows from seed, epoch and batch: whoever goes on from a checkpoint draws the
same. On a GPU sums are not always added in the same order, so there the same seed gives the same
numbers to about four digits only.
"""

import gc
import math
import resource
import sys
import time
import timeit
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from transformers import get_scheduler

from serkit import metrics, runs
from serkit.constants import LABELS
from serkit.errors import RunError
from serkit.experiment import Experiment
from serkit.features.views import SpectrogramScaler
from serkit.folds import make_folds, task_rows
from serkit.model import coattention, storage
from serkit.model.encoders import RANDOM
from serkit.training import checkpoints, scoring
from serkit.training.batches import SegmentDataset, fit_scaler, load_batches, model_inputs
from serkit.training.encoder_states import build_states, fit_states

LINE_S = 60.0  # s between signs of life inside a long epoch
MB = 1e6


@dataclass(frozen=True)
class FoldResult:
    """What training one fold leaves behind."""

    folder: Path
    history: pd.DataFrame  # one row per epoch; equal for equal experiments
    timing: pd.DataFrame  # seconds and memory of each epoch
    predictions: pd.DataFrame  # one row per utterance of validation and test
    metrics: dict
    best_epoch: int


@dataclass
class Learner:
    """A model in training, with everything that a step needs."""

    experiment: Experiment
    accelerator: Accelerator
    model: coattention.CoAttentionModel
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: SpectrogramScaler


def train_fold(experiment, store, manifest, fold, folder, *, report=print):
    """Train, choose the best epoch, predict validation and test, write the run folder.

    An interrupted call (Ctrl-C, SIGTERM, SIGKILL, a full disk) is continued after its last finished
    epoch and gives the same numbers as an uninterrupted one. A finished one is read back.

    Parameters
    ----------
    experiment : Experiment
    store : FeatureStore
    manifest : pd.DataFrame
    fold : Fold
    folder : path
        Run folder, see ``Experiment.folder``.
    report : callable, optional
        Called with one line per epoch.

    Returns
    -------
    FoldResult

    Raises
    ------
    RunError
        If the loss is no longer a number, memory or disk are exhausted, or the folder belongs to
        another experiment.
    Stopped
        On Ctrl-C and SIGTERM, saying what is kept.
    """
    folder = Path(folder)
    with checkpoints.interruptible(folder):
        if runs.is_finished(folder):
            runs.check_folder(folder, experiment)
            result = read_result(folder)
            if not runs.is_done(folder, experiment):  # the mark was lost
                runs.mark_done(folder, experiment)
            (folder / runs.CHECKPOINT).unlink(missing_ok=True)  # where the process ended right after DONE
            report(f"already done: {runs.show_path(folder)}")
            return result
        _claim(folder, experiment, manifest)
        accelerator = scoring.make_accelerator(experiment.precision, experiment.profile)
        set_seed(experiment.seed)
        labels = metrics.classes_of(manifest)
        model = coattention.create_model(model_config(experiment, labels))
        _report_start(experiment, model, accelerator, report)
        store = store.through(model.config.hears(store.recipe))
        data = _make_datasets(experiment, store, manifest, fold, model, accelerator)
        if experiment.encoder_training == "frozen":
            fit_states(model, data["train"], accelerator)
        scaler = fit_scaler(store, data["train"].rows)
        learner = make_learner(experiment, accelerator, model, scaler, len(data["train"]))

        progress = checkpoints.load_checkpoint(folder, learner)
        if progress.epoch:
            report(f"resumed after epoch {progress.epoch}: {runs.show_path(folder)}")
        if progress.is_at_best:  # it may have ended between its checkpoint and its model
            storage.save_model(model, folder / "model")

        while not progress.is_finished(experiment):
            epoch, started = progress.epoch + 1, time.perf_counter()
            trained, learning_rate = train_epoch(learner, data["train"], epoch)
            validated = _validate(learner, data, manifest, folder, epoch)
            progress.history.append({"epoch": epoch} | trained | validated | {"learning_rate": learning_rate})
            seconds, peak_mb = time.perf_counter() - started, peak_memory(accelerator.device) / MB
            progress.timing.append({"epoch": epoch, "seconds": seconds, "peak_memory_mb": peak_mb})
            _log_scalars(folder, progress)
            checkpoints.save_checkpoint(folder, learner, progress)
            if progress.is_at_best:  # after its checkpoint: the model kept is always of an epoch that counts
                storage.save_model(model, folder / "model")
            report(_epoch_line(progress, experiment))

        best = storage.load_model(folder / "model").to(accelerator.device)
        scored = _predict(learner, best, data, ["validation", "test"])
        _write_result(folder, learner, manifest, progress, scored)
        if warning := metrics.hardly_learned(pd.DataFrame(progress.history), labels):
            report(f"WARNING: {warning}")
    return read_result(folder)


def train_epoch(learner, dataset, epoch):
    """One pass over a training set, optimiser step by optimiser step; a long one tells every minute how far it is.

    Parameters
    ----------
    learner : Learner
        Its model, optimiser and schedule move on.
    dataset : SegmentDataset
    epoch : int
        From 1; order of the segments and all random draws follow from it and the experiment's seed.

    Returns
    -------
    scores : dict
        ``train_loss``, ``train_wa`` and ``train_ua`` of the segments as they were trained on.
    learning_rate : float
        Of the last step.
    """
    experiment, on_gpu = learner.experiment, learner.accelerator.device.type == "cuda"
    batches = load_batches(dataset, experiment.batch_size, experiment.seed + epoch, on_gpu=on_gpu)
    classes, weight = learner.model.config.labels, np.ones(len(learner.model.config.labels))
    if experiment.class_weights:
        weight = class_weights(dataset.labels, len(classes))
    loss, truth, guesses = 0.0, [], []
    progress = tqdm(
        batches, f"epoch {epoch}", mininterval=LINE_S, maxinterval=LINE_S, delay=LINE_S, leave=False
    )
    learner.model.train()
    for number, batch in enumerate(progress, start=1):
        set_seed(seed_of_step(experiment.seed, epoch, number))
        learning_rate = learner.optimizer.param_groups[-1]["lr"]
        with _explained(f"epoch {epoch}, batch {number}", experiment):
            step_loss, guess = train_step(learner, batch, dataset.store.recipe, weight)
        loss += step_loss * len(guess)
        truth.append(batch["label"])
        guesses.append(guess)
    truth, guess = torch.cat(truth).numpy(), torch.cat(guesses).cpu().numpy()
    wa = metrics.weighted_accuracy(truth, guess, classes)
    ua = metrics.unweighted_accuracy(truth, guess, classes)
    return {"train_loss": loss / len(truth), "train_wa": wa, "train_ua": ua}, learning_rate


def train_step(learner, batch, recipe, weight):
    """One optimiser step, its batch in pieces: the gradient is that of the whole batch.

    Parameters
    ----------
    learner : Learner
    batch : dict of str to torch.Tensor
        From ``load_batches``.
    recipe : Recipe
        Of its features.
    weight : np.ndarray, shape (K,)
        Of each class.

    Returns
    -------
    loss : float
    guesses : torch.Tensor, shape (B,)
        The class that every segment was taken for.
    """
    accelerator, experiment = learner.accelerator, learner.experiment
    size = experiment.micro_batch or experiment.batch_size
    total = weight[batch["label"].numpy()].sum()
    weight = torch.tensor(weight, dtype=torch.float32, device=accelerator.device)
    loss, guesses = 0.0, []
    for start in range(0, len(batch["label"]), size):
        piece = {name: value[start : start + size] for name, value in batch.items()}
        with accelerator.autocast():
            logits = learner.model(**model_inputs(piece, learner.scaler, recipe, accelerator.device)).logits
        losses = F.cross_entropy(
            logits.float(), piece["label"].to(accelerator.device), weight=weight,
            label_smoothing=experiment.label_smoothing, reduction="sum",
        )  # fmt: skip
        accelerator.backward(losses / total)
        loss += (losses / total).item()
        guesses.append(logits.argmax(dim=1))
    if not np.isfinite(loss):
        raise FloatingPointError(loss)
    if experiment.max_grad_norm:
        accelerator.clip_grad_norm_(learner.model.parameters(), experiment.max_grad_norm)
    learner.optimizer.step()
    learner.optimizer.zero_grad()
    learner.scheduler.step()
    return loss, torch.cat(guesses)


def seed_of_step(seed, epoch, batch):
    """Seed of the random draws of one optimiser step."""
    return int(np.random.SeedSequence([seed, epoch, batch]).generate_state(1)[0])


def class_weights(labels, n_classes):
    """Weight of each class, N / (K n): all classes count alike.

    >>> class_weights(np.array([0, 1, 1, 2, 3, 3, 3, 3]), 4).tolist()
    [2.0, 1.0, 2.0, 0.5]
    """
    counts = np.bincount(labels, minlength=n_classes)
    return len(labels) / (n_classes * np.maximum(counts, 1))


@contextmanager
def _explained(where, experiment):
    """Say what to change where the loss is no number, or where the memory of a GPU or CPU is exhausted."""
    try:
        yield
    except FloatingPointError as error:
        cure = (
            f"lower learning_rate={experiment.learning_rate}, or set precision='float32' or max_grad_norm=1.0"
        )
        about = f"{where}: the loss is {error}, expected a number"
        raise RunError(f"{about}; {cure}; under a new run name") from error
    except (RuntimeError, MemoryError) as error:
        text = str(error).lower()
        if not (isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text):
            raise
        size = experiment.micro_batch or experiment.batch_size
        smaller = f"micro_batch={max(size // 2, 1)} (the batch stays {experiment.batch_size})"
        cure = f"set {smaller}, gradient_checkpointing=True, or precision='bf16'; under a new run name"
        raise RunError(f"{where}: out of memory with {size} segments at once; {cure}") from error


def make_learner(experiment, accelerator, model, scaler, n_segments):
    """A learner before its first step: AdamW, and its learning-rate schedule.

    The speech encoder is a parameter group of its own. The schedule counts on all ``epochs``:
    stopping early leaves its end out.
    """
    if experiment.gradient_checkpointing and "speech" in model.views:
        model.speech_encoder.activation_checkpointing_enable()
    encoder, other = [], []
    for name, value in model.named_parameters():
        if value.requires_grad:
            (encoder if name.startswith("speech_encoder.") else other).append(value)
    rate = experiment.learning_rate
    groups = [(encoder, experiment.encoder_learning_rate or rate), (other, rate)]
    groups = [{"params": values, "lr": rate} for values, rate in groups if values]
    optimizer = torch.optim.AdamW(groups, weight_decay=experiment.weight_decay)
    steps = math.ceil(n_segments / experiment.batch_size) * experiment.epochs
    schedule = "constant_with_warmup" if experiment.schedule == "constant" else experiment.schedule
    scheduler = get_scheduler(schedule, optimizer, round(experiment.warmup * steps), steps)
    if experiment.compile:
        model.compile()
    model, optimizer = accelerator.prepare(model, optimizer)
    return Learner(experiment, accelerator, model, optimizer, scheduler, scaler)


def model_config(experiment, labels=LABELS):
    """The model that an experiment asks for, with these classes: its profile with what is changed by name."""
    names = ["encoder_training", "encoder_layers", "views", "fusion"]
    names += [name for name in ("speech_encoder", "cnn_weights") if getattr(experiment, name)]
    changes = {name: getattr(experiment, name) for name in names}
    return replace(coattention.PROFILES[experiment.profile], labels=labels, **changes)


def peak_memory(device):
    """Most memory in use so far, in bytes: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":  # not getrusage: a new program inherits the peak of the one that started it
        with open("/proc/self/status") as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes


def time_steps(experiment, store, n_steps=2):
    """What training costs on this machine: real steps on a store's segments, with random weights.

    Parameters
    ----------
    experiment : Experiment
    store : FeatureStore
        A few utterances suffice: their segments are repeated.
    n_steps : int, optional
        Steps in each of two passes; the faster pass counts, as the first one allocates.

    Returns
    -------
    seconds : float
        Of one step, reading included.
    peak_bytes : int
        Most memory in use: of the GPU, or of this process.
    """
    gc.collect()  # a model that was measured before takes memory until then
    accelerator = scoring.make_accelerator(experiment.precision, experiment.profile)
    model = coattention.CoAttentionModel(coattention.resolve_structure(model_config(experiment)))
    store = store.through(model.config.hears(store.recipe))
    rows = np.resize(np.arange(len(store)), n_steps * experiment.batch_size)
    labels = dict.fromkeys(store.utterances["utterance_id"], 0)
    states = build_states(store, model, accelerator) if experiment.reads_states else None
    dataset = SegmentDataset(store, rows, labels, states, experiment.views)
    learner = make_learner(experiment, accelerator, model, fit_scaler(store, rows), len(rows))
    seconds = timeit.repeat(lambda: train_epoch(learner, dataset, 1), repeat=2, number=1)
    return min(seconds) / n_steps, peak_memory(accelerator.device)


def _claim(folder, experiment, manifest):
    """Make the folder this experiment's; remains of another one are refused, never overwritten."""
    runs.check_folder(folder, experiment)
    path = folder / "experiment.json"
    if not path.exists():
        # with the names of all folds a run knows what is missing, also where there is no corpus
        folds = [fold.name for fold in make_folds(manifest, *experiment.protocol)]
        record = {"key": experiment.key, "parameters": asdict(experiment), "folds": folds}
        runs.write_json(path, record | runs.provenance())


def _report_start(experiment, model, accelerator, report):
    """Where weights come from, what computes, and how fast it learns: random ones are never taken in silence."""
    for branch, source in model.config.sources.items():
        revision = f", revision {source['revision']}" if source["revision"] else ""
        known = f"{source['name']} ({source['from']}{revision})"
        report(f"{branch.replace('_', ' ')}: {'RANDOM weights' if source['name'] == RANDOM else known}")
    if "speech" in model.views:
        report(f"speech encoder: {model.describe_encoder()}")
    report(f"{accelerator.device.type}, {accelerator.mixed_precision.replace('no', 'float32')}")
    frozen, own = experiment.encoder_training == "frozen", experiment.encoder_learning_rate
    encoder = ", speech encoder frozen" if frozen else f", of the speech encoder {own:g}" if own else ""
    report(f"learning rate {experiment.learning_rate:g}{encoder}")


def _make_datasets(experiment, store, manifest, fold, model, accelerator):
    """Train, validation and test; with what a frozen encoder makes of them, if it is to be kept."""
    labels = task_rows(manifest).set_index("utterance_id")["label"].map(model.config.labels.index).to_dict()
    states = build_states(store, model, accelerator) if experiment.reads_states else None
    return {
        split: SegmentDataset(store, store.rows_of(utterances), labels, states, experiment.views)
        for split in ("train", "validation", "test")
        if len(utterances := getattr(fold, split))
    }


def _predict(learner, model, data, splits):
    """Scores of every utterance in those of the splits that there are."""
    size = learner.experiment.micro_batch or learner.experiment.batch_size
    return {
        split: scoring.predict(learner.accelerator, model, data[split], learner.scaler, size)
        for split in splits
        if split in data
    }


def _validate(learner, data, manifest, folder, epoch):
    """Scores of the selection set, none without one; predictions are kept if they are asked for."""
    keep = learner.experiment.keep_epochs
    scored = _predict(learner, learner.model, data, ["validation", "test"] if keep else ["validation"])
    if keep:
        predictions = scoring.prediction_table(scored, manifest, learner.experiment)
        checkpoints.keep_predictions(folder, epoch, predictions)
    scores = scoring.score_utterances(scored["validation"]) if "validation" in scored else {}
    return {f"validation_{name}": value for name, value in scores.items()}


def _write_result(folder, learner, manifest, progress, scored):
    """Everything a reader needs, ``DONE`` last."""
    experiment, history = learner.experiment, progress.history
    vectors = scoring.vector_table(scored["test"])
    vectors.to_parquet(folder / runs.VECTORS, index=False, write_page_checksum=True)
    predictions = scoring.prediction_table(scored, manifest, experiment)
    predictions.to_parquet(folder / "predictions.parquet", index=False, write_page_checksum=True)
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    pd.DataFrame(progress.timing).to_csv(folder / "timing.csv", index=False)
    scores = metrics.pooled_and_fold_mean(predictions)
    best = checkpoints.best_epoch(history, experiment.checkpoint_rule)
    scores |= {"best_epoch": best, "epochs": len(history)}
    runs.write_json(folder / "metrics.json", scores | {"weights": learner.model.config.sources})
    known = predictions.merge(manifest[["utterance_id", "gender"]].dropna(), on="utterance_id")
    by_gender = metrics.score_table(known, "gender").to_dict("records")
    about = {"scaler": learner.scaler, "experiment": experiment, "metrics": scores | {"by_gender": by_gender}}
    storage.describe_model(folder / "model", **about, certainty=metrics.certainty(predictions))
    runs.write_inventory(folder)
    runs.mark_done(folder, experiment)
    (folder / runs.CHECKPOINT).unlink()


def read_result(folder):
    """Read a finished run folder back; a RunError names a file that is damaged."""
    names = ("history.csv", "timing.csv", "predictions.parquet", "metrics.json")
    *tables, scores = (runs.read_table(Path(folder) / name, runs.FOLD_CURE) for name in names)
    return FoldResult(Path(folder), *tables, scores, scores["best_epoch"])


def _log_scalars(folder, progress):
    """The last epoch for TensorBoard."""
    row = progress.history[-1] | progress.timing[-1]
    epoch = row.pop("epoch")
    with SummaryWriter(folder / "tensorboard", purge_step=epoch) as writer:
        for name, value in row.items():
            writer.add_scalar(name.replace("_", "/", 1), value, epoch)


def _epoch_line(progress, experiment):
    """One finished epoch in a line."""
    row, seconds = progress.history[-1], [timing["seconds"] for timing in progress.timing]
    line = f"epoch {row['epoch']:3d}/{experiment.epochs}  loss {row['train_loss']:.3f}"
    for split in ("train", "validation"):
        if f"{split}_wa" in row:
            line += f"  {split} WA {row[f'{split}_wa']:6.1%} UA {row[f'{split}_ua']:6.1%}"
    left_s = (experiment.epochs - row["epoch"]) * np.mean(seconds)
    return f"{line}  {seconds[-1]:.1f} s, at most {left_s:.0f} s left{'  <- best' * progress.is_at_best}"
