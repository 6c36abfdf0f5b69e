"""What the work costs on this machine: the real code on a handful of utterances, with a clock.

Runs in a process of its own (``python -m serkit.reproduction.probe``, see ``serkit.reproduction.estimate``): its peak memory
is then that of the work and of nothing else.
"""

import contextlib
import importlib
import json
import math
import sys
import tempfile
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import psutil
import torch

from serkit.errors import WeightsError
from serkit.experiment import Experiment
from serkit.features.store import build_store
from serkit.model.coattention import CoAttentionModel, resolve_structure
from serkit.model.encoders import RANDOM
from serkit.recipe import named
from serkit.reproduction.estimate import extrapolate
from serkit.runs import quiet_libraries
from serkit.training import loop as training
from serkit.training.batches import SegmentDataset, fit_scaler
from serkit.training.encoder_states import build_states
from serkit.training.scoring import make_accelerator, predict

SIZES = (2, 4)  # segments in a batch; two points make a line
BUDGET_S = 6.0  # s, that a step of the real batch size may take to be measured itself
STEPS = {"cpu": 5, "cuda": 20}  # timed steps; on a GPU the start of the readers must be spread out
ENOUGH_S = 4.0  # s, after which no further step is timed on a CPU


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
            build_store(rows, recipe, place, workers=1, skip_broken=True)
    return (time.perf_counter() - started) / float((manifest["num_samples"] / manifest["sample_rate"]).sum())


def _measure_training(experiment, store, free):
    for name in ("serkit.figures.plots", "ipykernel.ipkernel"):  # training runs in a notebook that has them
        importlib.import_module(name)
    accelerator = make_accelerator(experiment.precision, experiment.profile)
    result = {"device": accelerator.device.type, "process_bytes": training.peak_memory(accelerator.device)}
    if result["device"] == "cuda":
        result["free"], result["total"] = torch.cuda.mem_get_info()
    else:
        result["free"], result["total"] = free, psutil.virtual_memory().total
    config = training.model_config(experiment)
    with contextlib.suppress(WeightsError):  # said when training asks for them
        config = resolve_structure(config)
    model = CoAttentionModel(config)
    result["model_bytes"] = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    result["random_encoder"] = config.speech_encoder == RANDOM
    states, result["encoder"], result["state_bytes"] = None, 0.0, 0
    if experiment.reads_states:
        started = time.perf_counter()
        states = build_states(store, model, accelerator)
        result["encoder"] = (time.perf_counter() - started) / len(store)
        result["state_bytes"] = 2 * math.prod(states.shape[1:])
    scaler = fit_scaler(store, np.arange(len(store)))
    learner = training.make_learner(experiment, accelerator, model, scaler, 1)

    def dataset(n):
        label_of = dict.fromkeys(store.utterances["utterance_id"], 0)
        return SegmentDataset(store, np.resize(np.arange(len(store)), n), label_of, states, experiment.views)

    steps = {}
    on_cpu = result["device"] == "cpu"
    n_steps = STEPS.get(result["device"], 1)
    sizes = [size for size in SIZES if size < experiment.batch_size] or [experiment.batch_size]
    while sizes:
        size = sizes.pop(0)
        _reset_peak(accelerator.device)
        for n in (1, n_steps):  # the first step allocates
            each = replace(learner, experiment=replace(experiment, batch_size=size, micro_batch=None))
            work = (training.train_epoch(each, dataset(size), epoch) for epoch in range(n))
            step_s = _seconds_each(work, on_cpu)
        steps[size] = (step_s, training.peak_memory(accelerator.device))
        if not sizes and size < experiment.batch_size:
            step_s, peak = extrapolate(steps, experiment.batch_size)
            affordable = step_s < BUDGET_S and peak < result["free"] / 2
            sizes = [experiment.batch_size] if affordable else []
    n = size if on_cpu else n_steps * size
    predict(accelerator, model, dataset(n), scaler, size)
    work = (predict(accelerator, model, dataset(n), scaler, size) for _ in range(3))
    return result | {"steps": steps, "forward": _seconds_each(work, on_cpu) / n}


def _seconds_each(work, on_cpu):
    """How long a piece of work takes once all runs in: on a CPU the first ones touch memory for the first time."""
    ends = [time.perf_counter()]
    for _ in work:
        ends.append(time.perf_counter())
        if on_cpu and ends[-1] - ends[0] > ENOUGH_S:
            break
    each = np.diff(ends)
    return float(each.min() if on_cpu else each.mean())


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
    if request.get("threads"):
        torch.set_num_threads(request["threads"])
    experiment = Experiment(**request["experiment"])
    answer = measure(experiment, pd.DataFrame(request["rows"]), train=request["train"])
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
