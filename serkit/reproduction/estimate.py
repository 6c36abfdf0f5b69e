"""What a plan costs in time, memory and disk on this machine, measured before the work starts.

A few utterances are extracted and a few steps trained in a process of its own: its peak of memory is then
that of the work and of nothing else.
"""

import io
import math
import multiprocessing
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np
import psutil

from serkit import folds
from serkit.errors import WeightsError
from serkit.experiment import project_home
from serkit.recipe import named

NOTEBOOK_S = 15  # s, start of a kernel, imports and pictures
NOTEBOOK_BYTES = 5_000_000  # executed notebook, figures and tables of one step
UTTERANCES = 8  # that are measured
REPEATS = 3  # of a step, unless they take longer than that; the fastest counts
ENOUGH_S = 3.0
CHECKPOINTS = 2 * 3  # weights and AdamW's two moments of each; the next checkpoint is written beside the last
# trainings that agree in these take the same time for a segment, and are measured once
KIND = attrgetter(
    "profile", "views", "speech_encoder", "encoder_training", "encoder_layers", "encoder_cache", "batch_size",
    "micro_batch", "precision", "gradient_checkpointing",
)  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What one step of a plan takes at most."""

    seconds: float = NOTEBOOK_S
    disk: int = NOTEBOOK_BYTES  # bytes that stay
    checkpoints: int = 0  # bytes until the step is done
    memory: float = 0.0  # bytes at the peak of training
    free: int = 0  # bytes of memory that are free: of this machine, or of the GPU


def estimate(todo, manifest, threads=0):
    """What each step takes at most, measured where anything is to be trained.

    Parameters
    ----------
    todo : list of Step
        Those that are to be done.
    manifest : pd.DataFrame
    threads : int, optional
        That each training may use; 0: all cores.

    Returns
    -------
    dict of str to Cost
        By title of the step. What can't be measured is said, and counts as a notebook that only starts.
    """
    rows, measured, costs = folds.task_rows(manifest), {}, {step.title: Cost() for step in todo}
    for step in [step for step in todo if step.experiment is not None]:
        kind = KIND(step.experiment)
        first = kind not in measured
        if first:
            measured[kind] = measure(step.experiment, rows, threads)
        if measured[kind]:
            segments = _count_segments(rows, step.experiment)
            costs[step.title] = training_cost(step.experiment, segments, measured[kind], first)
            if len(measured) == 1 and first and todo[0].experiment is None:
                speech_s = float((rows["num_samples"] / rows["sample_rate"]).sum())
                builds = costs[todo[0].title]  # notebook 01, the store
                seconds = builds.seconds + speech_s * measured[kind]["extraction_s"]
                size = builds.disk + int(speech_s * measured[kind]["store_bytes"])
                costs[todo[0].title] = replace(builds, seconds=seconds, disk=size)
    return costs


def _count_segments(rows, experiment):
    """Segments in each part of a fold."""
    from serkit.features.audio import resampled_length  # here and below: torch is slow to import
    from serkit.features.segments import count_segments

    fold = folds.find_fold(folds.make_folds(rows, experiment.by, experiment.selection), experiment.fold)
    lengths = resampled_length(rows["num_samples"], rows["sample_rate"]).set_axis(rows["utterance_id"])
    n_segments = lengths.map(lambda n: count_segments(int(n), named(experiment.recipe)))
    return {split: int(n_segments[getattr(fold, split)].sum()) for split in folds.SPLITS}


def training_cost(experiment, segments, measured, first=True):
    """Cost of training one fold.

    Parameters
    ----------
    experiment : Experiment
    segments : dict of str to int
        How many there are in ``train``, ``validation`` and ``test``.
    measured : dict
        As :func:`measure` gives it.
    first : bool, optional
        Whether it is the first of its kind: it computes what a frozen encoder says, once for all.

    Returns
    -------
    Cost

    Examples
    --------
    >>> from serkit.experiment import Experiment
    >>> measured = {"step_s": 2.0, "forward_s": 0.1, "states_s": 0, "states_bytes": 0, "model_bytes": 1000,
    ...             "memory": 1e9, "free": 2e9}
    >>> experiment = Experiment(batch_size=10, epochs=3)
    >>> cost = training_cost(experiment, {"train": 95, "validation": 20, "test": 30}, measured)
    >>> round(cost.seconds - NOTEBOOK_S, 6)  # 3 epochs of 10 steps, both sets after each and at the end
    80.0
    """
    tested = segments["validation"] + segments["test"]
    looked_at = segments["validation"] + experiment.keep_epochs * segments["test"]
    n_steps = math.ceil(segments["train"] / experiment.batch_size)
    encoded = first * (segments["train"] + tested)
    seconds = experiment.epochs * (n_steps * measured["step_s"] + looked_at * measured["forward_s"])
    seconds += NOTEBOOK_S + tested * measured["forward_s"] + encoded * measured["states_s"]
    disk = NOTEBOOK_BYTES + measured["model_bytes"] + encoded * measured["states_bytes"]
    return Cost(seconds, disk, CHECKPOINTS * measured["model_bytes"], measured["memory"], measured["free"])


def measure(experiment, rows, threads=0):
    """What a training of this kind takes here, for one step or one segment; None, and said why, if that fails.

    Parameters
    ----------
    experiment : Experiment
        Fold, seed and epochs don't matter.
    rows : pd.DataFrame
        Utterances; a few are used, spread evenly over the lengths.
    threads : int, optional

    Returns
    -------
    dict of str to float or None
    """
    print(f"measuring {experiment.variant} on this machine ...", flush=True)
    ordered = rows.sort_values("num_samples", kind="stable")
    some = ordered.iloc[sorted({int((k + 0.5) * len(ordered) / UTTERANCES) for k in range(UTTERANCES)})]
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(_measure, experiment, some, threads).result()
    except BrokenProcessPool:
        print("it can't be measured: the process was killed, perhaps for want of memory", flush=True)
    except Exception as error:  # the work itself will tell more, when its time comes
        print(f"it can't be measured: {error}", flush=True)


def _measure(experiment, rows, threads):
    """The work on a few utterances, in a process of its own."""
    import torch

    from serkit.features import audio
    from serkit.features.extraction import usable_cores
    from serkit.features.store import build_store
    from serkit.features.views import segment_features

    free = psutil.virtual_memory().available + psutil.Process().memory_info().rss  # this process will be gone
    if torch.cuda.is_available():
        free = torch.cuda.mem_get_info()[0]
    threads = threads or torch.get_num_threads()
    with (
        tempfile.TemporaryDirectory() as folder,
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        store = build_store(rows, named(experiment.recipe), folder, skip_broken=True)
        rows = rows[rows["utterance_id"].isin(store.utterances["utterance_id"])]
        speech_s = float((rows["num_samples"] / rows["sample_rate"]).sum())
        torch.set_num_threads(1)
        seconds = _fastest(
            lambda: [segment_features(audio.read(path), store.recipe) for path in rows["path"]]
        )
        torch.set_num_threads(threads)
        size = sum(path.stat().st_size for path in store.folder.glob("*.npy"))
        answer = {
            "extraction_s": seconds / usable_cores() / speech_s,
            "store_bytes": size / speech_s,
            "free": free,
        }
        return answer | _measure_training(experiment, store)


def _measure_training(experiment, store):
    """Training on this store, with random weights: nothing is downloaded."""
    import torch

    from serkit.model.coattention import CoAttentionModel, resolve_structure
    from serkit.training.batches import SegmentDataset, fit_scaler, model_inputs
    from serkit.training.devices import make_accelerator, peak_memory
    from serkit.training.encoder_states import build_states
    from serkit.training.loop import model_config
    from serkit.training.scoring import predict

    accelerator, config = make_accelerator(experiment.precision, experiment.profile), model_config(experiment)
    with suppress(WeightsError):  # said when training asks for them
        config = resolve_structure(config)
    model = CoAttentionModel(config)
    model_bytes = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    if experiment.gradient_checkpointing and "speech" in model.views:
        model.speech_encoder.activation_checkpointing_enable()
    began, states = time.perf_counter(), None
    if experiment.reads_states:
        states = build_states(store, model, accelerator.device, accelerator.autocast)
    states_s = (time.perf_counter() - began) / len(store)
    optimizer = torch.optim.AdamW(weight for weight in model.parameters() if weight.requires_grad)
    model, optimizer = accelerator.prepare(model, optimizer)
    scaler, label_of = (
        fit_scaler(store, np.arange(len(store))),
        dict.fromkeys(store.utterances["utterance_id"], 0),
    )

    def step():
        model.train()
        batch = data.__getitems__(np.arange(len(data)))
        with accelerator.autocast():
            logits = model(**model_inputs(batch, scaler, store.recipe, accelerator.device)).logits
        accelerator.backward(logits.float().logsumexp(1).mean())
        optimizer.step()
        optimizer.zero_grad()
        return logits.sum().item()  # a GPU has computed it by then

    at_once, measured = experiment.micro_batch or experiment.batch_size, []
    slow = accelerator.device.type == "cpu" and experiment.profile == "paper"
    sizes = (2, 4) if slow else (max(at_once // 2, 1), at_once)
    for n in sizes:  # two make a line
        rows = np.resize(np.arange(len(store)), n)
        data = SegmentDataset(store, rows, label_of, states, experiment.views)
        measured.append((_fastest(step), peak_memory(accelerator.device)))
    forward_s = _fastest(lambda: predict(accelerator, model, data, scaler, n)) / n
    (seconds, memory), growth = measured[1], np.maximum(np.subtract(*measured[::-1]), 0)
    more = max(at_once - sizes[1], 0) / max(sizes[1] - sizes[0], 1)
    return {
        "step_s": float(seconds + more * growth[0]) * experiment.batch_size / at_once,
        "memory": float(memory + more * growth[1]),
        "forward_s": forward_s,
        "states_s": states_s if states else 0.0,
        "states_bytes": 2 * math.prod(states.shape[1:]) if states else 0,
        "model_bytes": model_bytes,
    }


def _fastest(work):
    """Seconds of a piece of work once all runs in: the first time memory is touched, and tables are made."""
    work()
    seconds = []
    while len(seconds) < REPEATS and sum(seconds) < ENOUGH_S:
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def describe(costs, experiment, at_once=1, sharing=1):
    """Lines about memory and disk, and what is wrong with them.

    Parameters
    ----------
    costs : list of Cost
        Of the steps that are to be done.
    experiment : Experiment
        Any of the plan.
    at_once : int, optional
        Trainings that run side by side.
    sharing : int, optional
        How many of them share one memory: that of the machine, or of one GPU.

    Returns
    -------
    list of str
    """
    lines, worst = [], max(costs, key=lambda cost: cost.memory)
    if worst.memory:
        needed, several = worst.memory * sharing, f" of {sharing} trainings" if sharing > 1 else ""
        lines.append(
            f"memory: about {show_bytes(needed)} at the peak{several}, {show_bytes(worst.free)} free"
        )
        if needed > worst.free:
            fewer = "use fewer jobs, " if sharing > 1 else ""
            half = max((experiment.micro_batch or experiment.batch_size) // 2, 1)
            lines.append(
                f"WARNING: batch_size={experiment.batch_size} does not fit into the free memory; end other programs, "
                f"{fewer}set micro_batch={half} (the batch stays as it is), or gradient_checkpointing=True"
            )
    needed, free = _disk(costs, at_once)
    lines.append(f"disk:   about {show_bytes(needed)}, {show_bytes(free)} free")
    return lines + [f"WARNING: {fault}" for fault in disk_faults(costs, at_once)]


def _disk(costs, at_once):
    """Bytes that a plan writes at most, and bytes that are free."""
    checkpoints = sorted((cost.checkpoints for cost in costs), reverse=True)[:at_once]
    return sum(cost.disk for cost in costs) + sum(checkpoints), shutil.disk_usage(project_home()).free


def disk_faults(costs, at_once=1):
    """What is wrong with a plan that does not fit on the disk; nothing if it does."""
    needed, free = _disk(costs, at_once)
    if needed > free:
        yield (
            f"the disk of {project_home()} has {show_bytes(free)} free, this plan needs {show_bytes(needed)}; "
            "make room, or choose fewer folds or seeds"
        )


def show_bytes(n):
    """A size as a reader wants it.

    >>> show_bytes(2_234_000_000), show_bytes(740_000_000)
    ('2.2 GB', '740 MB')
    """
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB"
