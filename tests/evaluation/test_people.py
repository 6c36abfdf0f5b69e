"""People as a yardstick, on made-up annotators whose errors are known."""

import numpy as np
import pandas as pd
import pytest

from serkit.constants import LABELS
from serkit.evaluation import annotator_rows, people_table, soft_distance

SPEAKERS = [f"{number}{sex}" for number in range(1, 6) for sex in "FM"]


def simulate(error, n_annotators=15, n_each=200):
    """Manifest and predictions of a model that is always right; annotators err at a known rate."""
    rng = np.random.default_rng(7)
    truth = np.tile(LABELS, len(SPEAKERS) * n_each // 4)
    wrong = rng.random((len(truth), n_annotators)) < error
    others = np.array([[label for label in LABELS if label != right] for right in truth])
    said = np.where(
        wrong, np.take_along_axis(others, rng.integers(0, 3, wrong.shape), axis=1), truth[:, None]
    )
    ids = [f"u{number}" for number in range(len(truth))]
    manifest = pd.DataFrame({"utterance_id": ids, "ratings": [";".join(row) for row in said]})
    speakers = np.repeat(SPEAKERS, n_each)
    predictions = pd.DataFrame({
        "utterance_id": ids, "speaker": speakers, "session": [name[0] for name in speakers], "truth": truth,
        "prediction": truth, "fold": [name[0] for name in speakers], "seed": 111, "variant": "v", "split": "test",
    } | {f"p_{label}": (truth == label).astype(float) for label in LABELS})  # fmt: skip
    return manifest, predictions


@pytest.mark.parametrize("error", [0.1, 0.3])
def test_the_ceiling_of_people_is_one_minus_their_error(error):
    table, _ = people_table(*simulate(error))
    person, model = (
        table[(table["who"] == who) & (table["agreement"] == "all")].iloc[0] for who in ("person", "model")
    )
    assert person["wa"].value == pytest.approx(100 * (1 - error), abs=0.5)
    assert person["ua"].value == pytest.approx(100 * (1 - error), abs=0.5)
    assert person["ua"].low < person["ua"].value < person["ua"].high
    assert model["ua"].value > 99.5


def test_by_agreement_the_model_alone_is_compared():
    table, _ = people_table(*simulate(0.1, n_annotators=3))
    by = table.set_index(["who", "agreement"])
    assert ("person", "all agree") not in by.index and ("person", "some differ") not in by.index
    n = by["n_utterances"]
    assert n["model", "all agree"] + n["model", "some differ"] == n["model", "all"]


def test_a_model_that_is_the_annotators_distribution_has_no_distance():
    manifest, predictions = simulate(0.3, n_annotators=4)
    rows = annotator_rows(manifest, predictions)
    same = rows.assign(**{f"p_{label}": rows[f"share_{label}"] for label in LABELS})
    assert soft_distance(same).value == pytest.approx(0, abs=1e-7)
    assert soft_distance(rows).value > 0.2


def test_nobody_rated():
    manifest, predictions = simulate(0.1)
    table, distance = people_table(manifest.assign(ratings=None), predictions)
    assert table.empty and distance is None


def test_ties_and_two_annotators_are_left_out():
    manifest, predictions = simulate(0.0, n_each=4)
    manifest["ratings"] = ["sad;angry", "sad;sad;angry", "fru;fru;sad"] + [None] * (len(manifest) - 3)
    rows = annotator_rows(manifest, predictions)
    # of the second utterance only the one who said angry has others that agree; frustrated is no class
    assert rows[["utterance_id", "person", "truth"]].to_numpy().tolist() == [["u1", "angry", "sad"]]


@pytest.mark.parametrize("n_speakers", [2, 10])
def test_a_choice_outside_of_the_task_is_a_wrong_one(n_speakers):
    """Of three annotators one always says frustrated: two of three are right; with two speakers no interval is known."""
    manifest, predictions = simulate(0.0, n_annotators=3, n_each=8)
    manifest["ratings"] = [";".join([*text.split(";")[:2], "fru"]) for text in manifest["ratings"]]
    few = predictions[predictions["speaker"].isin(SPEAKERS[:n_speakers])]
    table, _ = people_table(manifest, few)
    # for either of the two who agree, the others are split; only the third has a majority against it
    assert table[table["who"] == "person"]["wa"].iloc[0].value == 0
