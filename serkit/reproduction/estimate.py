"""What a plan costs in time, memory and disk on this machine, measured before the work starts.

``serkit.reproduction.probe`` measures, in a process of its own; here its numbers are scaled to the corpus and
compared with what the machine has.
"""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import lru_cache

from serkit import runs
from serkit.errors import RunError
from serkit.files import allocated_bytes
from serkit.folds import task_rows
from serkit.recipe import named

NOTEBOOK_S = 15  # s, start of a kernel, imports and pictures
NOTEBOOK_BYTES = 5_000_000  # executed notebook, figures and tables of one step
UTTERANCES = 8  # that are measured
TIMEOUT_S = 300  # s, for all measuring
CHECKPOINT_WEIGHTS = 3  # a checkpoint holds the weights and AdamW's two moments of each
# settings that change neither the time of a step nor memory nor disk
FREE_OF_COST = (
    "recipe", "selection", "by", "fold", "seed", "epochs", "patience", "min_epochs", "learning_rate",
    "encoder_learning_rate", "weight_decay", "warmup", "schedule", "class_weights", "label_smoothing", "max_grad_norm",
)  # fmt: skip
END_WEIGHTS = 6  # in memory at the end of a fold: weights, gradients, moments; the best model and its file


@dataclass(frozen=True)
class Memory:
    """What training needs at its peak, and what there is, in bytes."""

    peak: float
    free: int
    total: int
    place: str  # "this machine" or "the GPU"


@dataclass(frozen=True)
class Cost:
    """What one step of a plan takes at most."""

    seconds: float = NOTEBOOK_S
    store: int = 0  # bytes of the feature store
    model: int = 0  # bytes of the trained model
    checkpoint: int = 0  # bytes of checkpoints, until the step is done
    memory: Memory | None = None  # of training


@dataclass(frozen=True)
class Measured:
    """This machine's numbers for an experiment of any fold and seed."""

    experiment: runs.Experiment
    store: int = 0  # bytes still to be written
    extraction_s: float = 0.0  # s, of the whole store on all cores
    step_s: float = 0.0  # s, of training on one batch
    forward_s: float = 0.0  # s, of predicting one segment
    model: int = 0  # bytes of the weights
    memory: Memory | None = None
    encoder_s: float = 0.0  # s for a segment of what a frozen encoder computes once
    state_bytes: int = 0  # of its output for a segment
    random_encoder: bool = False

    def encoder_of(self, experiment):
        """Whose output is computed once: None, a pretrained encoder, or the random one of a seed."""
        if experiment is None or not self.state_bytes:
            return None
        return experiment.seed if self.random_encoder else "pretrained"

    def encoding(self, counts):
        """Cost of what a frozen encoder computes once, from the segments in the parts of a fold."""
        clean = self.experiment.selection != "published"  # there validation and test are the same
        n = counts["train"] + counts["test"] + clean * counts["validation"]
        return Cost(n * self.encoder_s, store=n * self.state_bytes)

    def preparation(self):
        """Cost of the step that builds the feature store."""
        return Cost(NOTEBOOK_S + self.extraction_s, self.store)

    def fold(self, counts, epochs, folder):
        """Cost of training one fold.

        Parameters
        ----------
        counts : dict of str to int
            Segments in ``train``, ``validation`` and ``test``.
        epochs : int
            At most.
        folder : Path
            Run folder of the fold. What an interrupted call left there needs no new room.

        Returns
        -------
        Cost

        Examples
        --------
        >>> from pathlib import Path
        >>> measured = Measured(runs.Experiment(batch_size=10), step_s=2.0, forward_s=0.1)
        >>> cost = measured.fold({"train": 95, "validation": 20, "test": 30}, 3, Path("none"))
        >>> round(cost.seconds - NOTEBOOK_S, 6)  # 3 epochs of 10 steps, both sets after each and at the end
        80.0
        """
        n_steps = math.ceil(counts["train"] / self.experiment.batch_size)
        predicted = counts["validation"] + self.experiment.keep_epochs * counts["test"]
        epoch_s = n_steps * self.step_s + predicted * self.forward_s
        end_s = (counts["validation"] + counts["test"]) * self.forward_s
        return Cost(
            NOTEBOOK_S + epochs * epoch_s + end_s,
            model=max(0, self.model - allocated_bytes(folder / "model" / "model.safetensors")),
            # a new checkpoint is complete before the old one goes
            checkpoint=max(
                0, 2 * CHECKPOINT_WEIGHTS * self.model - allocated_bytes(folder / runs.CHECKPOINT)
            ),
            memory=self.memory,
        )


def cost_class(experiment):
    """What all experiments have in common that cost the same for a step of training: it is measured once.

    Examples
    --------
    >>> kinds = [cost_class(runs.Experiment(**changed)) for changed in ({}, {"seed": 7}, {"batch_size": 8})]
    >>> kinds[0] == kinds[1], kinds[0] == kinds[2]
    (True, False)
    """
    usual = asdict(runs.Experiment(profile=experiment.profile))
    same = {name: usual[name] for name in FREE_OF_COST}
    return runs.Experiment(**asdict(experiment) | same)


def measure(experiment, manifest, *, train=True, threads=0):
    """Measure what an experiment's extraction and training cost, and print what was measured.

    Where that fails the reason is printed, and only the notebooks themselves are counted.

    Parameters
    ----------
    experiment : Experiment
        Fold, seed and epochs don't matter.
    manifest : pd.DataFrame
    train : bool, optional
        Whether anything is to be trained.
    threads : int, optional
        That a training may use; 0: as many as it likes.

    Returns
    -------
    Measured
    """
    # here: a plan of finished steps needs no torch
    from serkit.features.store import store_bytes_left, usable_cores

    store = store_bytes_left(manifest, named(experiment.recipe), runs.processed_folder(experiment.corpus))
    if not (store or train):
        return Measured(experiment)
    rows = task_rows(manifest)
    rows = rows.assign(speech_s=rows["num_samples"] / rows["sample_rate"])
    request = {
        "experiment": asdict(experiment) | {"fold": "1", "seed": 111, "epochs": 1},
        "rows": _some(rows).to_dict("records"),
        "train": train,
        "threads": threads,
    }
    try:
        answer = _ask(json.dumps(request))
    except RunError as error:
        print(f"it can't be measured: {error}", flush=True)
        return Measured(experiment, store)
    about = f"{len(request['rows'])} utterances"
    if train:
        sizes = " and ".join(", ".join(answer["steps"]).rsplit(", ", 1))
        about += f", training steps of {sizes} segments on {answer['device']}"
    print(f"measured: {about}", flush=True)
    extraction_s = answer["extraction"] * float(rows["speech_s"].sum()) / usable_cores() if store else 0.0
    if not train:
        return Measured(experiment, store, extraction_s)
    step_s, _ = extrapolate(answer["steps"], experiment.batch_size)
    _, peak = extrapolate(answer["steps"], experiment.micro_batch or experiment.batch_size)
    memory = Memory(
        max(peak, answer["process_bytes"] + END_WEIGHTS * answer["model_bytes"]),
        answer["free"],
        answer["total"],
        "the GPU" if answer["device"] == "cuda" else "this machine",
    )
    return Measured(
        experiment, store, extraction_s, step_s, answer["forward"], answer["model_bytes"], memory,
        answer["encoder"], answer["state_bytes"], answer["random_encoder"],
    )  # fmt: skip


def _some(rows):
    """A few utterances, spread evenly over the lengths in the corpus; the columns that matter."""
    ordered = rows.sort_values("speech_s", kind="stable")
    n = min(UTTERANCES, len(ordered))
    places = [int((number + 0.5) * len(ordered) / n) for number in range(n)]
    return ordered.iloc[places][["utterance_id", "path", "label", "num_samples", "sample_rate"]]


@lru_cache(maxsize=8)  # of one call, not of one machine: nothing is kept on disk
def _ask(request):
    """The probe's answer to a request, both as it takes them."""
    print("measuring on this machine ...", flush=True)
    command = [sys.executable, "-m", "serkit.reproduction.probe"]
    try:
        done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise RunError(f"no answer after {TIMEOUT_S} s; the machine may be too busy or too small") from None
    if done.returncode < 0:
        raise RunError(f"the process was ended by signal {-done.returncode}, probably for want of memory")
    if done.returncode:
        raise RunError((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def extrapolate(steps, batch_size):
    """Seconds and peak bytes of a training step: measured, or on the line through the largest two.

    Parameters
    ----------
    steps : dict of int or str to pair of float
        Batch size (segments) to seconds and bytes.
    batch_size : int

    Returns
    -------
    tuple of float
        Never less than those of the largest measured batch.

    Examples
    --------
    >>> extrapolate({2: (1.5, 600), 4: (2.5, 700)}, 64)
    (32.5, 3700.0)
    """
    steps = {int(size): values for size, values in steps.items()}
    if batch_size in steps:
        return tuple(float(value) for value in steps[batch_size])
    low, high = sorted(steps)[-2:]
    share = (batch_size - high) / (high - low)
    return tuple(float(b + share * max(0, b - a)) for a, b in zip(steps[low], steps[high], strict=True))


def describe(costs, experiment, n_jobs=1, sharing=1):
    """Lines about memory and disk, and what is wrong with them.

    Parameters
    ----------
    costs : list of Cost
        Of the steps that are to be done.
    experiment : Experiment
        Any of the plan.
    n_jobs : int, optional
        Trainings that run side by side.
    sharing : int, optional
        How many of them share one memory: that of the machine, or of one GPU.

    Returns
    -------
    list of str
    """
    lines = []
    memory = max((cost.memory for cost in costs if cost.memory), key=lambda one: one.peak, default=None)
    if memory:
        have = f"{memory.place} has {show_bytes(memory.total)}, {show_bytes(memory.free)} of them free"
        each = f" of each of {sharing} trainings" if sharing > 1 else " of training"
        lines.append(f"memory: about {show_bytes(memory.peak)} at the peak{each}; {have}")
        if memory.peak * sharing > memory.free:
            several, verb = (f"{sharing} trainings", "do") if sharing > 1 else ("training", "does")
            fewer = "use fewer jobs, " if sharing > 1 else ""
            lines.append(
                f"WARNING: {several} with batch_size={experiment.batch_size} {verb} not fit into the free memory of "
                f"{memory.place}; end other programs, {fewer}set micro_batch={_half(experiment)} (the batch stays as it is), or gradient_checkpointing=True"
            )
    lines.append(f"disk:   {_disk_line(costs, experiment, n_jobs)}")
    return lines + [f"WARNING: {fault}" for fault in _full_disks(costs, experiment, n_jobs)]


def _half(experiment):
    return max((experiment.micro_batch or experiment.batch_size) // 2, 1)


def _disk_line(costs, experiment, n_jobs):
    models = [cost.model for cost in costs if cost.model]
    parts = [f"store {show_bytes(sum(cost.store for cost in costs))}"] if any(c.store for c in costs) else []
    if models:
        parts.append(f"{len(models)} models x {show_bytes(max(models))}")
        n_folds = "one fold" if n_jobs == 1 else f"{n_jobs} folds"
        parts.append(f"checkpoints of {n_folds} {show_bytes(_checkpoints(costs, n_jobs))}")
    parts.append(f"notebooks and figures {show_bytes(NOTEBOOK_BYTES * len(costs))}")
    needs = _disk_needs(costs, experiment, n_jobs)
    free = " and ".join(show_bytes(shutil.disk_usage(folder).free) for folder in needs)
    return f"{' + '.join(parts)} = {show_bytes(sum(needs.values()))}; {free} free"


def _checkpoints(costs, n_jobs):
    """Bytes of all checkpoints that are there at the same time."""
    return sum(sorted((cost.checkpoint for cost in costs), reverse=True)[:n_jobs])


def check_disk(costs, experiment, n_jobs=1):
    """Refuse a plan that does not fit on the disk.

    Raises
    ------
    RunError
        With what is needed and what is free.
    """
    for fault in _full_disks(costs, experiment, n_jobs):
        raise RunError(fault)


def _full_disks(costs, experiment, n_jobs):
    for folder, needed in _disk_needs(costs, experiment, n_jobs).items():
        free = shutil.disk_usage(folder).free
        if needed > free:
            yield (
                f"the disk of {folder} has {show_bytes(free)} free, this plan needs {show_bytes(needed)}; "
                "make room, or choose fewer folds or seeds"
            )


def _disk_needs(costs, experiment, n_jobs):
    """Bytes to be written on each disk, named by a folder on it."""
    wanted = {
        runs.processed_folder(experiment.corpus): sum(cost.store for cost in costs),
        runs.project_home() / "runs": sum(cost.model + NOTEBOOK_BYTES for cost in costs)
        + _checkpoints(costs, n_jobs),
    }
    disks = {}
    for folder, needed in wanted.items():
        there = next(place for place in (folder, *folder.parents) if place.exists())
        _, total = disks.get(there.stat().st_dev, (there, 0))
        disks[there.stat().st_dev] = (there, total + needed)
    return dict(disks.values())


def show_bytes(n):
    """A size as a reader wants it.

    >>> show_bytes(2_234_000_000), show_bytes(740_000_000)
    ('2.2 GB', '740 MB')
    """
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB"
