"""Recall of classes and scores of parts of the test, with their intervals."""

import numpy as np
import pandas as pd
import prediction_tables as tables
import pytest
from benchmarks.interval_coverage import SAMPLES, share_coverage
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from serkit import evaluation
from serkit.constants import LABELS
from serkit.evaluation import class_recall, intervals
from serkit.metrics import recall_per_class


@pytest.fixture(scope="module")
def predictions():
    """Ten speakers, 8 utterances each."""
    return tables.predict(tables.manifest())


class TestRecalls:
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


def known(about):
    """What a corpus may know beside: sex by the speaker's name, every other utterance scripted, all under 3 s."""
    number = about["utterance_id"].str[-3:].astype(int)
    sound = {"num_samples": 32_000, "sample_rate": 16_000}
    more = {"gender": about["speaker"].str[-1], "scripted": number % 2 == 0, "agreement": np.nan}
    return about.assign(**sound, **more)


class TestSlices:
    def test_counts_scores_and_difference_by_hand(self):
        about = known(tables.manifest())
        predictions = tables.predict(about, right=1.0)
        # of the men, half of the angry ones are taken for sad: their UA is 7/8
        wrong = (predictions["speaker"].str[-1] == "M") & predictions["utterance_id"].str.endswith("000")
        predictions.loc[wrong, "prediction"] = "sad"
        predictions = tables.with_probabilities(predictions)
        table = evaluation.slice_table(predictions, about).set_index(["slice", "part"])
        assert [*table.index.get_level_values(0).unique()] == ["all", "gender", "session", "scene"]
        men, women = table.loc["gender", "male"], table.loc["gender", "female"]
        assert (men["n_utterances"], men["n_speakers"], women["n_speakers"]) == (40, 5, 5)
        assert men["UA"].value == pytest.approx(87.5) and women["UA"].value == pytest.approx(100)
        assert men["angry"].value == pytest.approx(50) and men["sad"].value == pytest.approx(100)
        assert women["difference"].value == pytest.approx(12.5) and np.isnan(men["difference"].value)
        assert women["p_holm"] < 1e-6  # all men alike, all women alike
        assert np.isnan(table.loc["session"]["p_holm"]).all()  # two speakers each
        assert table.loc["all", "utterances"]["UA"].value == pytest.approx(93.75)

    def test_seeds_are_of_both_parts(self):
        about = known(tables.manifest())
        predictions = pd.concat([tables.predict(about, seed=seed) for seed in (111, 211)])
        table = evaluation.slice_table(predictions, about).set_index(["slice", "part"])
        assert table.loc["scene", "scripted"]["n_utterances"] == 40
        assert 0 < table.loc["scene", "improvised"]["p_holm"] <= 1

    def test_where_nothing_differs_few_are_found_different(self):
        """Of 200 tables of ten speakers who differ, but not by sex; 5 % would be 10, with a standard error of 3."""
        rng, rows = np.random.default_rng(0), tables.predict(tables.manifest(), right=1.0)
        rows = rows[rows["split"] == "test"].reset_index(drop=True)
        truth, found = rows["truth"].to_numpy(), 0
        for _ in range(200):
            right = dict(zip(tables.SPEAKERS, rng.uniform(0.4, 0.9, 10), strict=True))
            lost = rng.random(len(rows)) > rows["speaker"].map(right)
            rows["prediction"] = np.where(lost, rng.choice(LABELS, len(rows)), truth)
            rows = tables.with_probabilities(rows)
            found += intervals._part(rows, (rows["speaker"].str[-1] == "F").to_numpy(), True)["p_holm"] < 0.05
        assert 2 <= found <= 20
