"""Prediction tables for tests: every protocol, from the folds that the kit itself makes."""

import numpy as np
import pandas as pd

from serkit.constants import LABELS
from serkit.folds import make_folds

SPEAKERS = [f"{session}{letter}" for session in range(1, 6) for letter in "FM"]


def manifest(per_speaker=8, speakers=SPEAKERS):
    """As many utterances of each class as of any other."""
    rows = [
        {
            "utterance_id": f"{speaker}_{i:03d}",
            "speaker": speaker,
            "session": speaker[:-1],
            "label": LABELS[i % 4],
        }
        for speaker in speakers
        for i in range(per_speaker)
    ]
    return pd.DataFrame(rows)


def with_probabilities(table, confidence=0.7):
    """0.7 on the predicted label, the rest shared by the others."""
    for label in LABELS:
        share = np.where(table["prediction"] == label, confidence, (1 - confidence) / 3)
        table[f"p_{label}"] = share
    return table


def predict(about, by="speaker", selection="clean", recipe="corrected", seed=111, right=0.7):
    """Predictions of validation and test of every fold, right by chance."""
    rng = np.random.default_rng([seed, len(recipe)])
    parts = []
    for fold in make_folds(about, by, selection):
        guess = {}
        for split in ("validation", "test"):
            rows = about.set_index("utterance_id").loc[getattr(fold, split)].reset_index()
            for one, label in zip(rows["utterance_id"], rows["label"], strict=True):
                other = LABELS[(LABELS.index(label) + int(rng.integers(1, 4))) % 4]
                guess.setdefault(one, label if rng.random() < right else other)
            rows = rows.assign(prediction=rows["utterance_id"].map(guess), fold=fold.name, split=split)
            parts.append(rows.rename(columns={"label": "truth"}))
    variant = f"{recipe}_{selection}_{by}_paper"
    return with_probabilities(pd.concat(parts, ignore_index=True).assign(seed=seed, variant=variant))


def with_counts(right, n, variant="corrected_last_speaker_paper", seed=111):
    """Each speaker with so many of ``n`` right, all of one class: WA of a speaker is right / n."""
    parts = []
    for i, k in enumerate(right):
        guess = np.where(np.arange(n) < k, "sad", "happy")
        table = pd.DataFrame({"utterance_id": [f"{i:02d}_{j:03d}" for j in range(n)], "prediction": guess})
        parts.append(table.assign(speaker=f"{i:02d}", session=str(i // 2), truth="sad", fold=f"{i:02d}"))
    table = pd.concat(parts, ignore_index=True)
    return with_probabilities(table.assign(seed=seed, variant=variant, split="test"))
