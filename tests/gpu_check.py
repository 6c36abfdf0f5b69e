"""What only a real GPU can show: ``make gpu-check`` takes its measures in ten minutes and prints one table.

One fold of the demo corpus is trained with the small model and with the paper's, both from random weights. Each
line of the table has a limit that was set beforehand. ``--rehearse`` runs the same code on a CPU, with the small
model only, to see that it works; what it measures says nothing.
"""

import argparse
import gc
import sys
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from tabulate import tabulate

from serkit import corpora, runs
from serkit.constants import LABELS
from serkit.errors import RunError
from serkit.experiment import Experiment, project_home
from serkit.features.store import build_store
from serkit.folds import make_folds, task_rows
from serkit.model.coattention import create_model
from serkit.predict import Predictor
from serkit.recipe import CORRECTED
from serkit.reproduction.estimate import CUDA, GAPS, show_bytes
from serkit.reproduction.gpu_memory import step_memory
from serkit.training import loop
from serkit.training.batches import SegmentDataset, fit_scaler, load_batches

# at 1e-3, half of a demo's own, ten steps make 10 % of rounding to bf16
RATES = {"demo": 1e-4, "paper": 1e-5}
RANDOM = {"speech_encoder": "random", "cnn_weights": "random"}
MEMORY = {  # settings whose time and memory are measured
    "float32": {"precision": "float32"},
    "bf16": {"precision": "bf16"},
    "bf16, micro_batch 8, checkpointing": {
        "precision": "bf16",
        "micro_batch": 8,
        "gradient_checkpointing": True,
    },
    "bf16, frozen encoder": {"precision": "bf16", "encoder_training": "frozen"},
}
QUIET = ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout")
# largest relative difference of a loss. bf16 has 8 bits, a relative error of 0.4 %, and every step of AdamW starts
# from what the one before made of it: on a CPU, ten steps of the small model stay within 0.9 %, three of the paper's
# with 4 segments within 1.7 %. Convolutions on a GPU take TF32, with an eighth of bf16's error
BF16_BANDS, DEVICE_BAND = {"demo": 0.02, "paper": 0.05}, 0.005
RESUME_BAND = 0.01  # a GPU does not always add in the same order
PROBABILITY_BAND = 0.005  # of one recording, GPU against CPU, both in float32
MEMORY_BAND = 0.15  # of what was predicted


def main(arguments=None):
    """Check, print; 0 if every line is within its limit."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, in small")
    parser.add_argument("--corpus", type=Path, default=project_home() / "data" / "demo", help="demo corpus")
    options = parser.parse_args(arguments)
    if not (options.rehearse or torch.cuda.is_available()):
        sys.exit(
            "no GPU that torch can use was found: nothing is checked; OPTIONS=--rehearse tries the code on the CPU"
        )
    began = time.perf_counter()
    manifest = corpora.load("demo", options.corpus)
    if options.rehearse:
        manifest = manifest.groupby("speaker").head(3)
    with tempfile.TemporaryDirectory() as folder:
        check = Check(manifest, Path(folder), on_gpu=not options.rehearse)
        profiles = ("demo", "paper") if check.on_gpu else ("demo",)
        for profile in profiles:
            check.losses(profile)
        check.memory(profiles[-1])
        check.interruption()
    print(f"\n{describe_machine(check.on_gpu)}; {(time.perf_counter() - began) / 60:.1f} min\n")
    names = ["what", "measured", "expected", ""]
    print(tabulate(check.lines, names, tablefmt="github", disable_numparse=True))
    return 0 if all(line[-1] != "DIFFERS" for line in check.lines) else 1


class Check:
    """A fold of the demo corpus, and the lines of the table so far."""

    def __init__(self, manifest, folder, on_gpu):
        self.manifest, self.folder, self.on_gpu, self.lines = manifest, folder, on_gpu, []
        self.steps, self.batch = (10, {}) if on_gpu else (2, {"batch_size": 4})
        self.fold = make_folds(manifest)[0]
        self.store = build_store(
            task_rows(manifest), CORRECTED, folder / "store", workers=None if on_gpu else 1
        )
        self.rows = self.store.rows_of(self.fold.train)
        labels = task_rows(manifest).set_index("utterance_id")["label"]
        self.data = SegmentDataset(self.store, self.rows, labels.map(LABELS.index).to_dict())
        self.scaler = fit_scaler(self.store, self.rows)

    def add(self, what, measured, expected, good):
        """A line of the table; a rehearsal on a CPU judges nothing."""
        self.lines.append(
            [what, measured, expected, ("ok" if good else "DIFFERS") if self.on_gpu else "rehearsed"]
        )
        print(" | ".join(self.lines[-1]), flush=True)

    def losses(self, profile):
        """The same steps in float32 and bf16; the small model's on the CPU too. Nothing is drawn at random."""
        full = self._train(profile, "float32")
        half = self._train(profile, "bf16")
        pairs = [("bf16 and float32", half, BF16_BANDS[profile])]
        if profile == "demo":
            pairs.append(("GPU and CPU", self._train(profile, "float32", cpu=True), DEVICE_BAND))
        for what, other, band in pairs:
            worst = np.abs(np.divide(other, full) - 1).max()
            told = f"{worst:.2%} apart at most ({full[0]:.4f} to {full[-1]:.4f})"
            self.add(
                f"{profile}: losses of {len(full)} steps, {what}", told, f"at most {band:.1%}", worst <= band
            )

    def _train(self, profile, precision, cpu=False):
        settings = RANDOM | self._pieces(profile) | self.batch | {"learning_rate": RATES[profile]}
        experiment = Experiment(profile=profile, precision=precision, **settings)
        config = loop.model_config(experiment)
        speech = config.speech | dict.fromkeys(QUIET, 0.0)
        config = replace(
            config, dropout=0.0, lstm_dropout=0.0, layerdrop=0.0, mask_time_prob=0.0, speech=speech
        )
        set_seed(1)
        model = create_model(config)
        AcceleratorState._reset_state(reset_partial_state=True)
        accelerator = Accelerator(
            mixed_precision="no" if precision == "float32" else precision, cpu=cpu or not self.on_gpu
        )
        learner = loop.make_learner(experiment, accelerator, model, self.scaler, len(self.data))
        learner.model.train()
        losses, epoch, on_gpu = [], 0, accelerator.device.type == "cuda"
        while len(losses) < self.steps:
            epoch += 1
            batches = load_batches(self.data, experiment.batch_size, epoch, on_gpu=on_gpu)
            for batch in islice(batches, self.steps - len(losses)):
                losses.append(loop.train_step(learner, batch, self.store.recipe, np.ones(len(LABELS)))[0])
        return losses

    def _pieces(self, profile):
        """Segments at once that this GPU has room for in float32."""
        whole = {"profile": profile, "precision": "float32"} | RANDOM
        for settings in ({}, {"micro_batch": 16}, {"micro_batch": 4}):
            if self._has_room(step_memory(Experiment(**whole, **settings))):
                return settings
        raise RunError("the GPU has too little free memory for 4 segments in float32; end other programs")

    def _has_room(self, predicted):
        if not self.on_gpu:
            return True
        gc.collect()
        torch.cuda.empty_cache()  # of what ran before
        return predicted * (1 + GAPS) + CUDA <= torch.cuda.mem_get_info()[0]

    def memory(self, profile):
        """Time of a step, and its peak of memory beside the one that ``serkit reproduce --dry-run`` tells."""
        for name, settings in MEMORY.items():
            experiment = Experiment(profile=profile, **settings, **RANDOM, **self.batch)
            predicted, what = step_memory(experiment), f"{profile}: step of {experiment.batch_size}, {name}"
            expected = f"{show_bytes(predicted)} ± {MEMORY_BAND:.0%}"
            if not self._has_room(predicted):
                self.add(what, "not tried: too little memory is free", expected, True)
                continue
            if self.on_gpu:
                torch.cuda.reset_peak_memory_stats()
            try:
                seconds, peak = loop.time_steps(experiment, self.store, 5 if self.on_gpu else 1)
            except RunError as error:
                self.add(what, str(error), expected, False)
                continue
            told = f"{seconds:.2f} s, {show_bytes(peak)}"
            if self.on_gpu:
                told += f" ({show_bytes(torch.cuda.max_memory_reserved())} reserved)"
            self.add(what, told, expected, abs(peak / predicted - 1) <= MEMORY_BAND)

    def interruption(self):
        """A fold that is interrupted after its first epoch goes on as if nothing had been; its model predicts."""
        experiment = Experiment(fold=self.fold.name, epochs=2, **self.batch)

        def train(name, report=lambda line: None):
            given = experiment, self.store, self.manifest, self.fold, self.folder / name
            return loop.train_fold(*given, report=report)

        def interrupt(line):
            if line.startswith("epoch   1/"):
                raise KeyboardInterrupt

        whole = train("whole").history["train_loss"]
        try:
            train("parts", interrupt)
        except KeyboardInterrupt as stopped:
            print(stopped)
        said = []
        parts = train("parts", said.append).history["train_loss"]
        worst, resumed = (
            np.abs(parts / whole - 1).max(),
            any("resumed after epoch 1" in line for line in said),
        )
        told = f"{'resumed' if resumed else 'NOT resumed'}, losses {worst:.2%} apart at most"
        expected = f"resumed, at most {RESUME_BAND:.1%}"
        self.add(
            "demo: a fold of 2 epochs, interrupted after one",
            told,
            expected,
            resumed and worst <= RESUME_BAND,
        )

        path, device = self.manifest["path"].iloc[0], "cuda" if self.on_gpu else "cpu"
        answers = [
            Predictor(self.folder / "whole/model", where, "float32").predict(path)
            for where in (device, "cpu")
        ]
        ours, theirs = (list(answer.utterance.values()) for answer in answers)
        worst = np.abs(np.subtract(ours, theirs)).max()
        band = f"at most {PROBABILITY_BAND}"
        self.add(
            "demo: probabilities, GPU and CPU", f"{worst:.5f} apart at most", band, worst <= PROBABILITY_BAND
        )


def describe_machine(on_gpu):
    """Hardware and versions, in a line."""
    known = runs.provenance()
    texts = [
        f"{name} {known['versions'][name]}" for name in ("torch", "transformers", "accelerate", "python")
    ]
    if on_gpu:
        gpu = torch.cuda.get_device_properties(0)
        texts = [
            f"{gpu.name}, {show_bytes(gpu.total_memory)}, compute capability {gpu.major}.{gpu.minor}",
            f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}", *texts,
        ]  # fmt: skip
    return "; ".join([*texts, known["machine"], f"commit {known['commit']}"])


if __name__ == "__main__":
    sys.exit(main())
