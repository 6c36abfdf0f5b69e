"""A corpus that trains in seconds: six speakers say four 'emotions', tones of different pitch.

Run as a program it trains one fold.
"""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import soundfile

from serkit.constants import LABELS
from serkit.corpora.manifest import make_manifest
from serkit.experiment import Experiment
from serkit.features.store import build_store
from serkit.folds import find_fold, make_folds
from serkit.model.coattention import DEMO
from serkit.recipe import CORRECTED

QUIET = dataclasses.replace(DEMO, dropout=0.0, lstm_dropout=0.0, speech=DEMO.speech | {
    "hidden_dropout": 0.0, "activation_dropout": 0.0, "feat_proj_dropout": 0.0, "final_dropout": 0.0,
})  # fmt: skip


def tones_manifest(folder):
    """Write the sounds; returns their manifest."""
    rng = np.random.default_rng(1)
    rows = []
    for speaker in ("1F", "1M", "2F", "2M", "3F", "3M"):
        for number in range(4):
            label = LABELS[number % 4]
            time_s = np.arange(16_000 + 12_000 * number) / 16_000
            pitch = 200 * (1 + LABELS.index(label))
            waveform = 0.3 * np.sin(2 * np.pi * pitch * time_s) + 0.01 * rng.standard_normal(len(time_s))
            path = folder / f"{speaker}_{number}.wav"
            soundfile.write(path, waveform, 16_000)
            rows.append({
                "utterance_id": path.stem, "path": str(path), "corpus": "tones", "speaker": speaker,
                "session": speaker[0], "gender": speaker[1], "dialogue": "d", "emotion": label, "label": label,
                "num_samples": len(time_s), "sample_rate": 16_000,
            })  # fmt: skip
    return make_manifest(rows)


def make_tones(folder):
    """Manifest and feature store."""
    manifest = tones_manifest(folder)
    return manifest, build_store(manifest, CORRECTED, folder / "store")


def train(tones, folder, lines=None, **settings):
    """Train one fold of the tones."""
    from serkit.training import loop as training

    manifest, store = tones
    experiment = Experiment(**{"epochs": 3, "batch_size": 8, "fold": "1", **settings})
    fold = find_fold(make_folds(manifest, experiment.by, experiment.selection), experiment.fold)
    lines = [] if lines is None else lines
    return training.train_fold(experiment, store, manifest, fold, folder, report=lines.append)


if __name__ == "__main__":
    tones_folder, run_folder, settings = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    train(make_tones(tones_folder), run_folder, **settings)
