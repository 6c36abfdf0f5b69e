"""Reliability and calibration error, by hand and by simulation."""

import numpy as np
import pandas as pd
import pytest
from prediction_tables import with_probabilities

from serkit.errors import ParameterError, RunError
from serkit.evaluation.calibration import expected_calibration_error, reliability_table


def rows(confidences, right):
    """One speaker; each prediction is "sad" with the confidence given."""
    truth = np.where(right, "sad", "happy")
    table = pd.DataFrame({"utterance_id": [f"{i:05d}" for i in range(len(truth))], "truth": truth})
    table = table.assign(speaker="1F", session="1", prediction="sad", fold="1", seed=1, split="test")
    return with_probabilities(table, np.asarray(confidences, float)).assign(
        variant="corrected_last_session_demo"
    )


def test_by_hand():
    # (0.4, 0.6]: confidences 0.5 and 0.6, one of two right; (0.8, 1]: 0.9, 0.9 and 1.0, two of three right
    table = rows([0.5, 0.6, 0.9, 0.9, 1.0], [True, False, True, False, True])
    found = reliability_table(table, n_bins=5)
    assert found["n"].tolist() == [0, 0, 2, 0, 3]
    assert found["confidence"].tolist()[2::2] == pytest.approx([0.55, 2.8 / 3])
    assert found["accuracy"].tolist()[2::2] == pytest.approx([0.5, 2 / 3])
    assert found["confidence"][[0, 1, 3]].isna().all()
    assert found["low"].tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    expected = (2 * (0.55 - 0.5) + 3 * (2.8 / 3 - 2 / 3)) / 5
    assert expected_calibration_error(table, n_bins=5) == pytest.approx(expected)


def test_one_bin_compares_the_means():
    table = rows([0.5, 0.7, 0.9, 0.9], [True, True, True, False])
    assert expected_calibration_error(table, n_bins=1) == pytest.approx(0)  # 0.75 against 3/4


def test_calibrated_predictions_have_next_to_no_error():
    rng = np.random.default_rng(6)
    confidence = rng.uniform(0.3, 1, 20_000)
    table = rows(confidence, rng.random(20_000) < confidence)
    # each of 7 bins misses by about 0.8 sqrt(p (1 - p) / 2857) <= 0.0075
    assert expected_calibration_error(table) < 0.015
    assert expected_calibration_error(
        rows(confidence, rng.random(20_000) < confidence - 0.2)
    ) == pytest.approx(0.2, abs=0.015)


@pytest.mark.parametrize("n_bins", [0, 101, 2.5, True])
def test_bins_out_of_range(n_bins):
    with pytest.raises(ParameterError, match="expected a whole number from 1 to 100"):
        reliability_table(rows([0.5], [True]), n_bins)


def test_nothing_to_calibrate():
    with pytest.raises(RunError, match="has no rows"):
        reliability_table(rows([], []).iloc[:0])
