"""What the work costs on this machine: the real code on a handful of utterances, with a clock.

Runs in a process of its own (``python -m serkit.probe``, see ``serkit.estimate``): its peak memory
is then that of the work and of nothing else.
"""

import importlib
import json
import resource
import sys
import tempfile
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import psutil
import torch

from serkit import training
from serkit.batches import SegmentDataset, fit_scaler
from serkit.estimate import extrapolate
from serkit.extraction import extract
from serkit.model import PROFILES, CoAttentionModel
from serkit.recipe import named
from serkit.runs import Experiment, quiet_libraries
from serkit.store import build_store

SIZES = (2, 4)  # segments in a batch; two points make a line
BUDGET_S = 6.0  # s, that a step of the real batch size may take to be measured itself
STEPS = {"cpu": 1, "cuda": 20}  # timed steps; on a GPU the start of the readers must be spread out
PROCESS_STATUS = "/proc/self/status"  # Linux


def measure(experiment, manifest, *, train=True):
    """Time and memory of extraction and training.

    Parameters
    ----------
    experiment : Experiment
        Its model, with random weights: they don't matter for time, and nothing is downloaded.
    manifest : pd.DataFrame
        A few utterances of different length.
    train : bool, optional
        Whether to measure training too.

    Returns
    -------
    dict
        ``extraction`` (s for a second of speech on one core); ``device``; ``steps``: for each
        batch size s of a training step, bytes at the peak; ``forward`` (s for a segment);
        ``model_bytes`` (weights), ``process_bytes`` (before there is a model), ``free`` and
        ``total`` (bytes of the machine, or of the GPU).
    """
    recipe = named(experiment.recipe)
    free = psutil.virtual_memory().available + psutil.Process().memory_info().rss  # this process will be gone
    with tempfile.TemporaryDirectory() as folder:
        result = {"extraction": _time_extraction(manifest, recipe, folder)}
        if train:
            store = build_store(manifest, recipe, folder, skip_broken=True)
            result |= _measure_training(experiment, store, free)
    return result


def _time_extraction(manifest, recipe, folder):
    """Seconds for a second of speech on one core, files written."""
    with tempfile.TemporaryDirectory(dir=folder) as first, tempfile.TemporaryDirectory(dir=folder) as then:
        for place in (first, then):  # the first time windows and filters are made
            rows = manifest.iloc[:1] if place == first else manifest
            started = time.perf_counter()
            extract(rows.reset_index(drop=True), recipe, place, workers=1, skip_broken=True)
    return (time.perf_counter() - started) / float((manifest["num_samples"] / manifest["sample_rate"]).sum())


def _measure_training(experiment, store, free):
    for name in ("serkit.figures", "ipykernel.ipkernel"):  # training runs in a notebook that has them
        importlib.import_module(name)
    accelerator = training.make_accelerator(experiment.precision)
    result = {"device": accelerator.device.type, "process_bytes": _peak_bytes(accelerator.device)}
    if result["device"] == "cuda":
        result["free"], result["total"] = torch.cuda.mem_get_info()
    else:
        result["free"], result["total"] = free, psutil.virtual_memory().total
    model = CoAttentionModel(PROFILES[experiment.profile])
    result["model_bytes"] = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    optimizer = torch.optim.AdamW(model.parameters(), lr=experiment.learning_rate)
    model, optimizer = accelerator.prepare(model, optimizer)
    scaler = fit_scaler(store, np.arange(len(store)))

    def dataset(n):
        return SegmentDataset(
            store, np.resize(np.arange(len(store)), n), dict.fromkeys(store.utterances["utterance_id"], 0)
        )

    steps = {}
    n_steps = STEPS.get(result["device"], 1)
    sizes = [size for size in SIZES if size < experiment.batch_size] or [experiment.batch_size]
    while sizes:
        size = sizes.pop(0)
        _reset_peak(accelerator.device)
        for epoch, n in enumerate((1, n_steps), start=1):  # the first step allocates
            started = time.perf_counter()
            training._train_epoch(
                accelerator, model, optimizer, dataset(n * size), scaler, store.recipe,
                replace(experiment, batch_size=size), epoch,
            )  # fmt: skip
        steps[size] = ((time.perf_counter() - started) / n_steps, _peak_bytes(accelerator.device))
        if not sizes and size < experiment.batch_size:
            step_s, peak = extrapolate(steps, experiment.batch_size)
            affordable = step_s < BUDGET_S and peak < result["free"] / 2
            sizes = [experiment.batch_size] if affordable else []
    for _ in range(2):
        started = time.perf_counter()
        training.predict(accelerator, model, dataset(n_steps * size), scaler, size)
    forward = (time.perf_counter() - started) / (n_steps * size)
    return result | {"steps": steps, "forward": forward}


def _peak_bytes(device):
    """Most memory that this process, or its part of the GPU, has held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        # not getrusage: on Linux a new program inherits the peak of the process that started it
        with open(PROCESS_STATUS) as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def _reset_peak(device):
    """Forget peaks of before; where the system can't, they stay and the estimate is the higher for it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        with open("/proc/self/clear_refs", "w") as switch:
            switch.write("5")
    except OSError:
        pass


def main():
    """Answer one request on standard input (JSON) with the last line of standard output (JSON)."""
    quiet_libraries()
    request = json.load(sys.stdin)
    experiment = Experiment(**request["experiment"])
    answer = measure(experiment, pd.DataFrame(request["rows"]), train=request["train"])
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
