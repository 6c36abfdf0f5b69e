"""Training one fold: the loop, the checkpoint rule, and going on after an interruption.

The rules are the published ones (``serkit.experiment.TRAINING``): AdamW with one learning rate for
everything, cross-entropy on segments, the best epoch by WA + UA of the selection set, stop after
``patience`` epochs without a better one but never before ``min_epochs``.

Every random draw follows from seed, epoch, batch and process: whoever goes on from a checkpoint
draws the same. On a GPU sums are not always added in the same order, so there the same seed gives
the same numbers to about four digits only.
"""

import json
import signal
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate.utils import set_seed
from torch.nn import functional as F

from serkit import recipe as recipes
from serkit import runs
from serkit.constants import LABELS
from serkit.errors import RunError
from serkit.files import replacing
from serkit.folds import make_folds, task_rows
from serkit.metrics import pooled_and_fold_mean
from serkit.model.coattention import PROFILES, create_model, load_model, save_model
from serkit.model.encoders import RANDOM
from serkit.model.storage import describe_model
from serkit.training.batches import SegmentDataset, fit_scaler, load_batches, model_inputs, plan_batches
from serkit.training.checkpoints import (
    good_checkpoint,
    join_epochs,
    keep_epoch,
    load_checkpoint,
    position,
    remove_checkpoint,
    save_checkpoint,
    writing,
)
from serkit.training.devices import MB, is_out_of_memory, make_accelerator, peak_memory
from serkit.training.encoder_states import build_states
from serkit.training.interrupts import STOP, Interrupts
from serkit.training.optimisation import class_weights, make_optimizer, seed_of_step
from serkit.training.progress import (
    batch_line,
    begin_epoch,
    best_epoch,
    epoch_line,
    is_at_best,
    is_finished,
    log_scalars,
    new_progress,
    train_scores,
)
from serkit.training.scoring import predict, prediction_table, score_utterances, vector_table

CHECKPOINT_MIN = 10.0  # minutes between checkpoints inside an epoch; there is one after each epoch
LINE_S = 60.0  # s between lines inside a long epoch


@dataclass(frozen=True)
class FoldResult:
    """What training one fold leaves behind."""

    folder: Path
    history: pd.DataFrame  # one row per epoch; equal for equal experiments
    timing: pd.DataFrame  # seconds and memory of each epoch
    predictions: pd.DataFrame  # one row per utterance of validation and test
    metrics: dict
    best_epoch: int


def train_fold(experiment, store, manifest, fold, folder, *, report=print, checkpoint_min=CHECKPOINT_MIN):
    """Train, choose the best epoch, predict validation and test, write the run folder.

    An interrupted call (Ctrl-C, SIGTERM, SIGKILL, a full disk) is continued from its last
    checkpoint and gives the same numbers as an uninterrupted one. A finished one is read back.

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
    checkpoint_min : float, optional
        Minutes between checkpoints inside an epoch.

    Returns
    -------
    FoldResult

    Raises
    ------
    RunError
        If the loss is no longer a number, memory or disk are exhausted, the process is asked to
        end, or the folder belongs to another experiment.
    """
    folder = Path(folder)
    if runs.is_done(folder, experiment):
        remove_checkpoint(folder)  # where the process ended right after DONE
        report(f"already done: {runs.show_path(folder)}")
        return read_result(folder)
    accelerator = make_accelerator(experiment.precision, experiment.profile)
    main = accelerator.is_main_process
    report = report if main else _silent
    with accelerator.main_process_first():
        _claim(folder, experiment, manifest)
    set_seed(experiment.seed)
    model = create_model(model_config(experiment))
    _report_start(model, accelerator, report)
    sets = _make_datasets(experiment, store, manifest, fold, model, accelerator)
    scaler = fit_scaler(store, sets["train"].rows)
    if experiment.gradient_checkpointing and "speech" in model.views:
        model.speech_encoder.activation_checkpointing_enable()
    progress = new_progress(sets["train"], experiment)
    optimizer, scheduler = make_optimizer(model, experiment, progress["batches"])
    progress = load_checkpoint(folder, model, optimizer) or progress
    if progress["history"] or progress["batch"]:
        scheduler.load_state_dict(progress["scheduler"])
        report(f"resumed after {position(progress)}: {runs.show_path(folder)}")
    if experiment.compile:
        model.compile()
    model, optimizer = accelerator.prepare(model, optimizer)
    plain = accelerator.unwrap_model(model)
    if progress.get("loss_scale"):
        accelerator.scaler.load_state_dict(progress["loss_scale"])

    def save():
        progress["scheduler"] = scheduler.state_dict()
        progress["loss_scale"] = accelerator.scaler.state_dict() if accelerator.scaler else None  # fp16
        if main:
            save_checkpoint(folder, plain, optimizer, progress)

    def keep_if_best():
        # after its checkpoint and never before: the one kept is always of the best epoch that counts
        if main and is_at_best(progress):
            with writing(folder, f"the model of epoch {progress['history'][-1]['epoch']}"):
                save_model(plain, folder / "model")

    keep_if_best()  # whoever was here before may have ended between the two
    with Interrupts(accelerator, every_s=60 * checkpoint_min) as interrupts:
        while not is_finished(progress["history"], experiment):
            started = time.perf_counter() - progress["seconds"]
            line_due = time.perf_counter() + LINE_S
            for _ in train_steps(
                accelerator, model, optimizer, scheduler, sets["train"], scaler, experiment, progress, folder
            ):
                progress["seconds"] = time.perf_counter() - started
                asked = interrupts.due()
                if asked:
                    save()
                if asked == STOP:
                    _stop(interrupts.signal, progress, folder)
                if time.perf_counter() >= line_due:
                    report(batch_line(progress))
                    line_due = time.perf_counter() + LINE_S
            row = {"epoch": progress["epoch"]} | train_scores(progress)
            looked_at = ["validation"] * ("validation" in sets) + ["test"] * experiment.keep_epochs
            scored = {
                split: predict(accelerator, plain, sets[split], scaler, _piece(experiment))
                for split in looked_at
            }
            if "validation" in scored:
                scores = score_utterances(scored["validation"])
                row |= {f"validation_{name}": value for name, value in scores.items()}
            if experiment.keep_epochs and main:
                with writing(folder, f"the predictions of epoch {progress['epoch']}"):
                    keep_epoch(folder, progress["epoch"], _prediction_tables(scored, manifest, experiment))
            progress["history"].append(row | {"learning_rate": progress["learning_rate"]})
            progress["timing"].append({
                "epoch": progress["epoch"],
                "seconds": time.perf_counter() - started,
                "peak_memory_mb": peak_memory(accelerator.device) / MB,
            })  # fmt: skip
            if main:
                with writing(folder, f"the curves of epoch {progress['epoch']}"):
                    log_scalars(folder, progress)
            begin_epoch(progress)
            save()
            keep_if_best()
            report(epoch_line(progress, experiment, is_at_best(progress)))

    accelerator.wait_for_everyone()
    best = load_model(folder / "model").to(accelerator.device)
    scored = {
        split: predict(accelerator, best, sets[split], scaler, _piece(experiment), vectors=split == "test")
        for split in ("validation", "test")
        if split in sets
    }
    if main:
        with writing(folder, "the result"):
            _write_result(folder, experiment, manifest, progress, scored, scaler, best)
    accelerator.wait_for_everyone()
    return read_result(folder)


def train_steps(accelerator, model, optimizer, scheduler, dataset, scaler, experiment, progress, folder):
    """The rest of an epoch, optimiser step by optimiser step; yields after each.

    A step's batch is cut into what is computed at once, and shared out among the processes; the
    gradient is that of the whole batch.
    """
    rank, world = accelerator.process_index, accelerator.num_processes
    epoch, done = progress["epoch"], progress["batch"]
    plan = plan_batches(len(dataset), experiment.batch_size, experiment.seed + epoch)[done:]
    # a last batch smaller than the number of processes: who has nothing to do takes a row for nothing
    shares = [places[rank::world] if rank < len(places) else places[:1] for places in plan]
    pieces = [
        [share[i : i + _piece(experiment)] for i in range(0, len(share), _piece(experiment))]
        for share in shares
    ]
    flat = [piece for share in pieces for piece in share]
    stream = iter(load_batches(dataset, flat, on_gpu=accelerator.device.type == "cuda"))
    weight = class_weights(dataset.labels) if experiment.class_weights else np.ones(len(LABELS))
    model.train()
    for number, (places, share) in enumerate(zip(plan, pieces, strict=True), start=done + 1):
        set_seed(seed_of_step(experiment.seed, epoch, number, rank))
        total = weight[dataset.labels[places]].sum() if rank < len(places) else np.inf
        outcome = np.zeros(1 + len(LABELS) ** 2)  # loss, then counts of truth x prediction
        try:
            for i, _ in enumerate(share, start=1):
                together = nullcontext() if i == len(share) else accelerator.no_sync(model)
                with together:
                    outcome += _forward_backward(
                        accelerator,
                        model,
                        next(stream),
                        scaler,
                        dataset.store.recipe,
                        experiment,
                        weight,
                        total,
                    )
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise RunError(_out_of_memory(experiment, epoch, number, folder)) from error
            raise
        if world > 1:
            outcome = accelerator.reduce(torch.tensor(outcome, device=accelerator.device)).cpu().numpy()
        if not np.isfinite(outcome[0]):
            raise RunError(
                f"epoch {epoch}, batch {number}: the loss is {outcome[0]}; {good_checkpoint(folder)}. Lower "
                f"learning_rate={experiment.learning_rate}, or set precision='float32' or max_grad_norm=1.0"
            )
        if experiment.max_grad_norm:
            accelerator.clip_grad_norm_(model.parameters(), experiment.max_grad_norm)
        progress["learning_rate"] = optimizer.param_groups[-1]["lr"]
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        progress["batch"] = number
        progress["loss"] += float(outcome[0]) * len(places)
        progress["counts"] = (np.array(progress["counts"]) + outcome[1:].astype(int)).tolist()
        yield number


def _forward_backward(accelerator, model, batch, scaler, recipe, experiment, weight, total):
    """One piece of a batch: adds to the gradients; returns its part of the loss, and counts."""
    label = batch["label"].to(accelerator.device)
    with accelerator.autocast():
        logits = model(**model_inputs(batch, scaler, recipe, accelerator.device)).logits
    losses = F.cross_entropy(
        logits.float(), label, weight=torch.tensor(weight, dtype=torch.float32, device=label.device),
        label_smoothing=experiment.label_smoothing, reduction="sum",
    )  # fmt: skip
    loss = losses / total
    accelerator.backward(loss * accelerator.num_processes)  # processes average their gradients
    # labels in the order of the shuffled batches, so that scores of the training set mean something
    pair = len(LABELS) * label + logits.argmax(dim=1)
    counts = torch.bincount(pair, minlength=len(LABELS) ** 2).cpu().numpy() * np.isfinite(total)
    return np.concatenate([[loss.item()], counts])


def model_config(experiment):
    """The model that an experiment asks for: its profile with what is changed by name."""
    changes = {
        name: getattr(experiment, name) for name in ("encoder_training", "encoder_layers", "views", "fusion")
    }
    changes |= {
        n: getattr(experiment, n) for n in ("speech_encoder", "cnn_weights") if getattr(experiment, n)
    }
    return replace(PROFILES[experiment.profile], **changes)


def _make_datasets(experiment, store, manifest, fold, model, accelerator):
    """Train, validation and test; with what a frozen encoder makes of them, if it is to be kept."""
    labelled = task_rows(manifest)
    label_of = dict(zip(labelled["utterance_id"], labelled["label"].map(LABELS.index), strict=True))
    states = None
    if experiment.reads_states:
        with accelerator.main_process_first():
            states = build_states(store, model, accelerator.device, accelerator.autocast)
    return {
        split: SegmentDataset(store, store.rows_of(getattr(fold, split)), label_of, states, experiment.views)
        for split in ("train", "validation", "test")
        if len(getattr(fold, split))
    }


def _piece(experiment):
    """Segments computed at once in one process."""
    return experiment.micro_batch or experiment.batch_size


def _report_start(model, accelerator, report):
    """Where weights come from, and what computes: random ones are never taken in silence."""
    for branch, source in model.config.sources.items():
        revision = f", revision {source['revision']}" if source["revision"] else ""
        text = (
            "RANDOM weights" if source["name"] == RANDOM else f"{source['name']} ({source['from']}{revision})"
        )
        report(f"{branch.replace('_', ' ')}: {text}")
    precision = "float32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision
    report(f"{accelerator.device.type}, {precision}, {accelerator.num_processes} process(es)")


def _silent(_):
    """What the other processes report."""


def _stop(number, progress, folder):
    """End an interrupted run: its checkpoint is written."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt(f"stopped; {good_checkpoint(folder)}: run again to go on")
    raise RunError(
        f"{runs.show_path(folder)}: asked to end (SIGTERM) after {position(progress)}; {good_checkpoint(folder)}, "
        "start again to go on"
    )


def _out_of_memory(experiment, epoch, number, folder):
    smaller = max(_piece(experiment) // 2, 1)
    return (
        f"epoch {epoch}, batch {number}: out of memory with {_piece(experiment)} segments at once; "
        f"{good_checkpoint(folder)}. Set micro_batch={smaller} (the batch stays {experiment.batch_size}), "
        "gradient_checkpointing=True, or precision='bf16'; under a new run name"
    )


def _claim(folder, experiment, manifest):
    """Make the folder this experiment's; remains of another one are refused, never overwritten."""
    runs.check_folder(folder, experiment)
    path = folder / "experiment.json"
    if not path.exists():
        # with the names of all folds a run knows what is missing, also where there is no corpus
        folds = [fold.name for fold in make_folds(manifest, experiment.by, experiment.selection)]
        record = {"key": experiment.key, "parameters": asdict(experiment), "folds": folds}
        with writing(folder, path.name):
            runs.write_json(path, record | runs.provenance())


def _write_result(folder, experiment, manifest, progress, scored, scaler, model):
    """Everything a reader needs, ``DONE`` last."""
    vector_table(scored["test"]).to_parquet(folder / runs.VECTORS, index=False)
    tables = _prediction_tables(scored, manifest, experiment)
    predictions = pd.concat(tables, ignore_index=True)
    history = progress["history"]
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    pd.DataFrame(progress["timing"]).to_csv(folder / "timing.csv", index=False)
    predictions.to_parquet(folder / "predictions.parquet", index=False)
    if experiment.keep_epochs:
        join_epochs(folder, len(history))
    metrics = pooled_and_fold_mean(predictions) | {"best_epoch": best_epoch(history), "epochs": len(history)}
    runs.write_json(folder / "metrics.json", metrics | {"weights": model.config.sources})
    describe_model(
        folder / "model",
        recipe=recipes.named(experiment.recipe),
        scaler=scaler,
        experiment=experiment,
        metrics=metrics,
    )
    runs.write_inventory(folder)
    with replacing(folder / runs.DONE) as partial:
        partial.write_text(experiment.key + "\n")
    remove_checkpoint(folder)


def _prediction_tables(scored, manifest, experiment):
    return [prediction_table(table, manifest, experiment, split) for split, table in scored.items()]


def read_result(folder):
    """Read a finished run folder back."""
    folder = Path(folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    return FoldResult(
        folder,
        pd.read_csv(folder / "history.csv"),
        pd.read_csv(folder / "timing.csv"),
        pd.read_parquet(folder / "predictions.parquet"),
        metrics,
        metrics["best_epoch"],
    )
