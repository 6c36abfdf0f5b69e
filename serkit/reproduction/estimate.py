"""What a plan costs in time, memory and disk on this machine, measured before the work starts.

A few utterances are extracted and a few steps trained in a process of its own: its peak of memory is then
that of the work and of nothing else.
"""

import io
import multiprocessing
import shutil
import sys
import tempfile
import time
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace

import numpy as np
import psutil

from serkit import features, folds, model, runs, training
from serkit.errors import ParameterError, WeightsError
from serkit.features import count_segments, resampled_length
from serkit.recipe import named
from serkit.reproduction.jobs import threads_per_job

NOTEBOOK_S = 15  # s, start of a kernel, imports and pictures
NOTEBOOK_BYTES = 5_000_000  # executed notebook, figures and tables of one step
UTTERANCES = 8  # that are measured, about
# of the time of training on a segment, at most: a step goes once forward, and back in twice that
PREDICTED = 0.5
CHECKPOINTS = 2 * 3  # weights and AdamW's two moments of each; the next checkpoint is written beside the last
CARDS = (8, 12, 16, 24)  # GiB of memory that GPUs have
CUDA, GAPS = 2**30, 0.1  # assumed beside what is predicted: bytes for CUDA and a screen, share that lies idle
# trainings that differ in nothing else take the same time for a segment, and are measured once
UNTIMED = ("recipe", "selection", "by", "unseen_text", "fold", "seed")


@dataclass(frozen=True)
class Cost:
    """What one step of a plan takes at most."""

    seconds: float = NOTEBOOK_S
    disk: int = NOTEBOOK_BYTES  # bytes that stay
    checkpoints: int = 0  # bytes until the step is done
    memory: float = 0.0  # bytes at the peak of training
    free: int = 0  # bytes of memory that are free: of this machine, or of the GPU
    gpu_memory: int = 0  # bytes at the peak of training on a GPU, predicted where there is none


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

    Raises
    ------
    WeightsError, ParameterError
        If a speech encoder can't be built as asked.
    """
    rows, measured, segments = folds.task_rows(manifest), {}, {}
    costs = {step.title: Cost() for step in todo}
    training = [step for step in todo if step.experiment is not None]
    for step in training:
        kind = tuple(value for name, value in asdict(step.experiment).items() if name not in UNTIMED)
        if kind not in measured:
            measured[kind] = measure(step.experiment, rows, threads)
        if measured[kind]:
            part = step.experiment.protocol, step.experiment.fold, step.experiment.recipe
            segments[part] = segments.get(part) or _count_segments(rows, step.experiment)
            costs[step.title] = training_cost(step.experiment, segments[part], measured[kind])
    # whatever comes first writes the store, or what is missing of it
    if answers := list(filter(None, measured.values())):
        largest = max(answers, key=lambda answer: answer["store_bytes"])
        seconds, size = _store_cost(rows, training[0].experiment, largest)
        first = costs[todo[0].title]
        costs[todo[0].title] = replace(first, seconds=first.seconds + seconds, disk=first.disk + size)
    return costs


def _store_cost(rows, experiment, measured):
    """Seconds and bytes that are missing of the feature store, with what a frozen encoder makes of it."""
    speech_s = folds.seconds_of(rows).sum()
    folder = runs.processed_folder(experiment.corpus) / features.store_key(rows, named(experiment.recipe))
    seconds = speech_s * measured["extraction_s"] / threads_per_job(1)
    missing = int(speech_s * measured["store_bytes"]) - _array_bytes(folder)
    return 0 if (folder / "store.json").exists() else seconds, max(missing, 0)


def _array_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*.npy"))


def _count_segments(rows, experiment):
    """Segments in each part of a fold."""
    fold = folds.find_fold(folds.make_folds(rows, *experiment.protocol), experiment.fold)
    lengths = resampled_length(rows["num_samples"], rows["sample_rate"]).set_axis(rows["utterance_id"])
    n_segments = lengths.map(lambda n: count_segments(int(n), named(experiment.recipe)))
    return {split: int(n_segments[getattr(fold, split)].sum()) for split in folds.SPLITS}


def training_cost(experiment, segments, measured):
    """Cost of training one fold.

    Parameters
    ----------
    experiment : Experiment
    segments : dict of str to int
        How many there are in ``train``, ``validation`` and ``test``.
    measured : dict
        As :func:`measure` gives it.

    Returns
    -------
    Cost

    Examples
    --------
    >>> from serkit.experiment import Experiment
    >>> measured = {"segment_s": 0.2, "model_bytes": 1000, "memory": 1e9, "free": 2e9, "gpu_memory": 0}
    >>> segments = {"train": 95, "validation": 20, "test": 30}
    >>> cost = training_cost(Experiment(batch_size=10, epochs=3), segments, measured)
    >>> round(cost.seconds - NOTEBOOK_S, 6)  # 3 epochs of 100 and half of 50, and the latter once more at the end
    80.0
    """
    n_trained = -(-segments["train"] // experiment.batch_size) * experiment.batch_size
    looked_at = segments["validation"] + experiment.keep_epochs * segments["test"]
    n_predicted = experiment.epochs * looked_at + segments["validation"] + segments["test"]
    seconds = NOTEBOOK_S + (experiment.epochs * n_trained + PREDICTED * n_predicted) * measured["segment_s"]
    size = measured["model_bytes"]
    memory = (measured[name] for name in ("memory", "free", "gpu_memory"))
    return Cost(seconds, NOTEBOOK_BYTES + size, CHECKPOINTS * size, *memory)


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
    step = max(len(rows) // UTTERANCES, 1)
    some = rows.sort_values("num_samples", kind="stable").iloc[step // 2 :: step]
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(_measure, experiment, some, threads).result()
    except (ParameterError, WeightsError):  # an encoder that can't be built: the work would end so too
        raise
    except Exception as error:  # the work itself will tell more, when its time comes
        killed = "the process was killed, perhaps for want of memory"
        print(f"it can't be measured: {killed if isinstance(error, BrokenExecutor) else error}", flush=True)


def _measure(experiment, rows, threads):
    """The work on a few utterances, in a process of its own, without a word."""
    import torch  # here: a plan of finished steps needs no torch, and what follows is timed without imports

    from serkit.features import build_store
    from serkit.reproduction.gpu_memory import step_memory

    sys.stdout = sys.stderr = io.StringIO()
    network = model.check_encoder(training.model_config(experiment))
    on_gpu = torch.cuda.is_available()
    free = torch.cuda.mem_get_info()[0] if on_gpu else psutil.virtual_memory().available
    torch.set_num_threads(threads or torch.get_num_threads())
    at_once = experiment.micro_batch or experiment.batch_size
    largest = min(at_once, 4) if experiment.profile == "paper" and not on_gpu else at_once
    sizes = max(largest // 2, 1), largest  # two make a line
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        store = build_store(rows, named(experiment.recipe), folder, workers=1, skip_broken=True)
        extraction_s = time.perf_counter() - began
        of_sizes = (replace(experiment, batch_size=n, micro_batch=None) for n in sizes)
        steps = [training.time_steps(of_size, store) for of_size in of_sizes]
        written, speech_s = _array_bytes(store.folder), folds.seconds_of(rows).sum()
    growth = np.maximum(np.subtract(steps[1], steps[0]), 0) / max(sizes[1] - sizes[0], 1)
    seconds, memory = steps[1] + growth * (at_once - largest)
    return {
        "segment_s": float(seconds) / at_once, "memory": float(memory), "free": free,
        "extraction_s": extraction_s / speech_s, "store_bytes": written / speech_s,
        "model_bytes": 4 * sum(network.count_parameters().values()),
        "gpu_memory": step_memory(experiment) if experiment.profile == "paper" and not on_gpu else 0,
    }  # fmt: skip


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
        lines = [f"memory: about {show_bytes(needed)} at the peak{several}, {show_bytes(worst.free)} free"]
        if needed > worst.free:
            half = max((experiment.micro_batch or experiment.batch_size) // 2, 1)
            cure = f"set micro_batch={half} (the batch stays as it is), or gradient_checkpointing=True"
            about = f"batch_size={experiment.batch_size} does not fit into the free memory"
            lines.append(f"WARNING: {about}; end other programs, use fewer jobs, {cure}")
    if predicted := max(cost.gpu_memory for cost in costs):
        cards = ", ".join(str(card) for card in CARDS if predicted * (1 + GAPS) + CUDA <= card * 2**30)
        fits = f"fits a GPU of {cards} GB" if cards else f"more than {CARDS[-1]} GB; micro_batch=8 needs less"
        assumed = " (auto is bf16 there)" if experiment.precision == "auto" else ""
        peak = f"about {show_bytes(predicted)} at the peak of a training"
        lines.append(f"GPU:    {peak}, predicted{assumed}: {fits}")
    needed, free = disk_use(costs, at_once)
    lines.append(f"disk:   about {show_bytes(needed)}, {show_bytes(free)} free")
    return lines + ["WARNING: it does not fit on the disk"] * (needed > free)


def disk_use(costs, at_once=1):
    """Bytes that a plan writes at most, and bytes that are free."""
    checkpoints = sorted((cost.checkpoints for cost in costs), reverse=True)[:at_once]
    return sum(cost.disk for cost in costs) + sum(checkpoints), shutil.disk_usage(runs.project_home()).free


def show_bytes(n):
    """A size as a reader wants it.

    >>> show_bytes(2_234_000_000), show_bytes(740_000_000)
    ('2.2 GB', '740 MB')
    """
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB"
