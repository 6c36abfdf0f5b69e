"""Recall of classes and accuracy of subsets, with their intervals."""

import numpy as np
import pandas as pd
import prediction_tables as tables
import pytest
from benchmarks.interval_coverage import SAMPLES, share_coverage
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from serkit.constants import LABELS
from serkit.errors import ParameterError
from serkit.evaluation import class_recall, subset_accuracy
from serkit.metrics import recall_per_class


@pytest.fixture(scope="module")
def predictions():
    """Ten speakers, 8 utterances each."""
    return tables.predict(tables.manifest())


class TestSubsets:
    def test_recall_is_that_of_metrics(self, predictions):
        test = predictions[predictions["split"] == "test"]
        found = class_recall(predictions).set_index("label")
        assert list(found.index) == list(LABELS)
        assert np.allclose(found["recall"], recall_per_class(test["truth"], test["prediction"]))
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
            subset_accuracy(predictions, pd.Series({"other": "a"}, dtype="category"))


def ends_of(predictions):
    """Low and high of the recall of the only class."""
    return class_recall(predictions).set_index("label").loc["sad", ["low", "high"]].astype(float)


def interval_of(right, n):
    """Low and high for speakers with so many of ``n`` right, all of one class."""
    return ends_of(tables.with_counts(right, n)).tolist()


class TestIntervalsOfShares:
    @pytest.mark.parametrize("right", [0, 1, 6, 8])
    def test_speakers_alike_give_wilsons_interval(self, right):
        expected = proportion_confint(5 * right, 40, method="wilson")
        assert np.allclose(interval_of([right] * 5, 8), np.clip(expected, 0, 1), atol=1e-12)

    def test_ends_are_t_errors_away_at_their_own_error(self):
        right, n = np.array([8, 8, 7, 8, 6, 8, 8, 3, 8, 7]), 8
        share = right.sum() / (10 * n)
        left_out = (right.sum() - right) / (9 * n)
        error = np.sqrt(0.9 * np.square(left_out - share).sum())  # the jackknife's
        for end in interval_of(right, n):
            error_there = error * np.sqrt(end * (1 - end) / (share * (1 - share)))
            assert np.isclose(abs(share - end), stats.t.ppf(0.975, 9) * error_there)

    def test_one_speaker_does_not_stretch_it_over_everything(self):
        """One of ten at 0 %, nine at 90 %."""
        low, high = interval_of([0, *[7, 8] * 4, 7], 8)
        assert 0.5 < low < 0.6 and 0.9 < high < 0.97

    def test_a_copied_seed_adds_nothing_to_what_is_known(self):
        table = tables.with_counts([1, 2, 3, 4, 5], 6)
        both = pd.concat([table, table.assign(seed=211)])
        assert np.allclose(ends_of(table), ends_of(both))

    def test_seeds_that_differ_make_it_wider(self):
        first, second = (
            tables.with_counts([4, 5, 4, 5, 4], 8),
            tables.with_counts([7, 8, 7, 8, 7], 8, seed=211),
        )
        low, high = ends_of(pd.concat([first, second]))
        apart = [interval_of([4, 5, 4, 5, 4], 8), interval_of([7, 8, 7, 8, 7], 8)]
        assert high - low > max(end - start for start, end in apart)

    @pytest.mark.parametrize(
        ("share", "spread", "sample"), [(0.95, 0.4, SAMPLES[0]), (0.98, 0.8, SAMPLES[3])]
    )
    def test_coverage(self, share, spread, sample):
        n = 500
        held = share_coverage(share, spread, sample, n)
        # 93 to 97 % in the long run, each bound with 99.9 % of the draws of a binomial
        assert stats.binom.ppf(0.001, n, 0.93) <= n * held <= stats.binom.ppf(0.999, n, 0.97)
