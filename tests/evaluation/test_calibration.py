"""Temperatures, on probabilities whose miscalibration is known, and what withholding answers brings."""

import numpy as np
import pandas as pd
import pytest

from serkit import figures
from serkit.constants import LABELS
from serkit.evaluation import expected_calibration_error, risk_coverage
from serkit.metrics import at_temperature, calibrated, certainty, fit_temperature

COLUMNS = [f"p_{label}" for label in LABELS]


def table(temperature=3.0, n=400):
    """Predictions of one fold that claim too much: right probabilities, sharpened by ``temperature``."""
    rng = np.random.default_rng(3)
    right = rng.dirichlet(np.full(4, 0.7), size=2 * n)
    truth = np.array([rng.choice(4, p=p) for p in right])
    rows = pd.DataFrame(at_temperature(right, 1 / temperature), columns=COLUMNS)
    speakers = np.repeat([f"{number}F" for number in range(1, 11)], n // 5)
    return rows.assign(
        utterance_id=[f"u{number}" for number in range(2 * n)], speaker=speakers, session=[s[0] for s in speakers],
        truth=np.array(LABELS)[truth], prediction=np.array(LABELS)[right.argmax(axis=1)], fold="1", seed=111,
        variant="corrected_clean_session_demo", split=np.repeat(["validation", "test"], n),
    )  # fmt: skip


def test_the_known_temperature_is_found():
    rows = table()
    truth = rows["truth"].map(LABELS.index).to_numpy()
    assert fit_temperature(rows[COLUMNS].to_numpy(), truth) == pytest.approx(3.0, rel=0.15)


def test_only_validation_speakers_fit_it():
    rows = table()
    known = certainty(rows)
    tested = rows["split"] == "test"
    changed = rows.assign(truth=rows["truth"].where(~tested, "sad"))
    assert certainty(changed) == known
    assert certainty(rows[tested]) == {}
    assert (
        certainty(rows.assign(speaker="1F")) == {}
    )  # the published selection validates on the tested speakers


def test_the_error_on_unseen_speakers_shrinks_and_answers_stay():
    rows = table()
    after, before = calibrated(rows), rows[rows["split"] == "test"]
    assert expected_calibration_error(after) < 0.4 * expected_calibration_error(before)
    np.testing.assert_array_equal(
        after[COLUMNS].to_numpy().argmax(axis=1), before[COLUMNS].to_numpy().argmax(axis=1)
    )
    np.testing.assert_allclose(after[COLUMNS].sum(axis=1), 1)


def test_the_surest_answers_are_right_more_often():
    risk = risk_coverage(calibrated(table()))
    assert risk["coverage"].tolist() == pytest.approx(np.arange(1, 11) / 10)
    assert risk["accuracy"].iloc[0] > risk["accuracy"].iloc[-1] + 0.15
    before = table()[lambda rows: rows["split"] == "test"]
    assert risk["accuracy"].iloc[-1] == pytest.approx((before["truth"] == before["prediction"]).mean())
    assert (risk["low"] <= risk["accuracy"]).all() and (risk["accuracy"] <= risk["high"]).all()


def test_the_picture_says_what_the_table_says():
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    figures.plot_risk(calibrated(table()), ax)
    line = next(line for line in ax.lines if line.get_label() == "accuracy")
    np.testing.assert_allclose(line.get_ydata(), 100 * risk_coverage(calibrated(table()))["accuracy"])


@pytest.mark.filterwarnings("error")
def test_a_mistake_that_is_quite_sure_is_no_division_by_zero():
    probabilities = np.array([[1.0, 0.0]] * 10)
    largest = pytest.approx(20, rel=1e-3)
    assert fit_temperature(probabilities, np.array([0] * 9 + [1])) == largest
