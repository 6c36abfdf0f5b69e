"""Recall of classes and accuracy of subsets, with their intervals."""

import numpy as np
import pandas as pd
import prediction_tables as tables
import pytest

from serkit.constants import LABELS
from serkit.errors import ParameterError
from serkit.evaluation import bootstrap_interval, class_recall, subset_accuracy
from serkit.metrics import recall_per_class


@pytest.fixture(scope="module")
def predictions():
    """Ten speakers, 8 utterances each."""
    return tables.predict(tables.manifest())


class TestSubsets:
    def test_recall_is_that_of_metrics_with_the_interval_of_its_rows(self, predictions):
        test = predictions[predictions["split"] == "test"]
        found = class_recall(predictions).set_index("label")
        assert list(found.index) == list(LABELS)
        assert np.allclose(found["recall"], recall_per_class(test["truth"], test["prediction"]))
        interval = bootstrap_interval(test[test["truth"] == "sad"], "wa")
        assert tuple(found.loc["sad", ["low", "high"]]) == (interval.low, interval.high)
        assert set(found["n_utterances"]) == {20}

    def test_four_speakers_get_no_interval(self):
        about = tables.manifest(speakers=["1F", "1M", "2F", "2M"])
        found = class_recall(tables.predict(about))
        assert found[["low", "high"]].isna().all(axis=None) and found["recall"].notna().all()

    def test_a_class_without_utterances_keeps_its_row(self):
        found = class_recall(tables.with_counts([1, 2, 3, 4, 5], 6)).set_index("label")
        assert np.isclose(found.loc["sad", "recall"], 15 / 30)
        assert found.loc["angry", "n_utterances"] == 0 and np.isnan(found.loc["angry", "recall"])

    def test_an_utterance_outside_all_subsets_is_named(self, predictions):
        with pytest.raises(ParameterError, match=r"utterance 1F_000 is in no subset \(80"):
            subset_accuracy(predictions, pd.Series({"other": "a"}))
