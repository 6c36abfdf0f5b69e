"""Intervals, tables of scores, reliability: by hand, against other code, by simulation."""

import numpy as np
import pandas as pd
import pytest
from benchmarks.interval_coverage import SETTINGS, coverage, seed_coverage
from prediction_tables import manifest, predict, with_counts, with_probabilities
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from serkit import metrics
from serkit.errors import ParameterError, RunError
from serkit.evaluation.intervals import (
    AVERAGES,
    expected_calibration_error,
    interval_limits,
    percent,
    reliability_table,
    score_interval,
    score_of,
    tally,
)
from serkit.evaluation.predictions import scored_rows
from serkit.reproduction.report import score_intervals

RIGHT = [12, 14, 9, 15, 11, 17, 13, 8, 16, 14]  # of 20, by speaker


def score_by_metrics(rows, score, average):
    if score == "macro_f1":
        by = "variant" if average == "pooled" else metrics.UNIT
        return metrics.score_table(rows, by)["macro_f1"].mean()
    return metrics.pooled_and_fold_mean(rows)[f"{score}_{average}"]


def limits_of(predictions, score, average):
    """Estimate, low, high, standard error."""
    rows = scored_rows(predictions)
    return interval_limits([tally(rows, average)], score, rows["utterance_id"].nunique())


def predicted(confidences, right):
    """One speaker; each prediction is "sad" with the confidence given."""
    truth = np.where(right, "sad", "happy")
    table = pd.DataFrame({"utterance_id": [f"{i:05d}" for i in range(len(truth))], "truth": truth})
    table = table.assign(speaker="1F", session="1", prediction="sad", fold="1", seed=1, split="test")
    return with_probabilities(table, np.asarray(confidences, float)).assign(
        variant="corrected_last_session_demo"
    )


@pytest.fixture(scope="module")
def two_seeds():
    about = manifest(per_speaker=12).drop(index=[0, 1, 2, 13, 27, 40])  # folds of unequal size
    return pd.concat([predict(about, "session", "last", seed=seed) for seed in (111, 211)], ignore_index=True)


class TestScoresOfWeights:
    @pytest.mark.parametrize("average", AVERAGES)
    @pytest.mark.parametrize("score", metrics.SCORES)
    def test_weights_of_one_are_the_score(self, two_seeds, score, average):
        rows = scored_rows(two_seeds)
        counts = tally(rows, average)
        value = score_of(np.ones(counts.shape[:2]), counts, score)
        assert value == pytest.approx(score_by_metrics(rows, score, average), abs=1e-12)

    @pytest.mark.parametrize("score", metrics.SCORES)
    @pytest.mark.parametrize("average", AVERAGES)
    def test_weights_are_copies_of_speakers(self, score, average):
        rows = scored_rows(predict(manifest(), selection="last"))
        weights = np.random.default_rng(4).multinomial(10, np.full(10, 0.1))
        assert weights.max() > 1 and weights.min() == 0
        parts = [
            rows[rows["speaker"] == speaker].assign(
                fold=f"{speaker}.{copy}", utterance_id=lambda t, c=copy: t["utterance_id"] + f".{c}"
            )
            for speaker, weight in zip(sorted(rows["speaker"].unique()), weights, strict=True)
            for copy in range(weight)
        ]
        value = score_of(weights[:, None].astype(float), tally(rows, average), score)
        assert value == pytest.approx(score_by_metrics(pd.concat(parts), score, average), abs=1e-12)


class TestKnownAnswers:
    def test_jackknife_error_of_a_mean_is_the_standard_error(self):
        # equal numbers for each speaker: WA is the mean of their WAs
        value, _, _, error = limits_of(with_counts(RIGHT, 20), "wa", "pooled")
        assert error == pytest.approx(stats.sem(np.array(RIGHT) / 20), abs=1e-12)
        assert value == pytest.approx(0.645)

    def test_jackknife_over_speakers_and_seeds_by_hand(self):
        # cells of 2 speakers x 2 seeds: 0 2 / 4 6; speakers' means 1 and 5, seeds' 2 and 4: variances 4 and 1
        counts = np.array([[[right, 10 - right], [0, 0]] for right in (0, 2, 4, 6)])
        estimate, _, _, error = interval_limits([counts.reshape(2, 2, 1, 2, 2)], "wa", 100)
        assert (estimate, error) == pytest.approx((0.3, np.sqrt(4 + 1) / 10))

    @pytest.mark.parametrize("right", [14, 20])
    def test_alike_speakers_give_wilsons_interval(self, right):
        _, *ends, error = limits_of(with_counts([right] * 10, 20), "wa", "pooled")
        expected = proportion_confint(10 * right, 200, method="wilson")
        assert ends == pytest.approx(expected, abs=1e-12) and error == 0

    @pytest.mark.parametrize("score", ["wa", "ua"])
    def test_ends_are_t_errors_away_at_their_own_error(self, score):
        p, *ends, error = limits_of(predict(manifest(per_speaker=40)), score, "fold_mean")
        for end in ends:
            error_there = error * np.sqrt(end * (1 - end) / (p * (1 - p)))
            assert abs(p - end) == pytest.approx(stats.t.ppf(0.975, 9) * error_there)


class TestCoverage:
    def test_speakers_drawn_come_close_to_95_and_utterances_do_not(self):
        n = 600
        held = coverage(SETTINGS[0], n)
        # 99.9 % of the draws of a binomial with 0.95: 0.918 to 0.977
        low, high = stats.binom.interval(0.999, n, 0.95)
        assert low <= n * held["speakers"] <= high
        assert held["naive"] < 0.52  # 0.43 in the long run, binomial deviation 0.02

    def test_a_difference_comes_close_to_95(self):
        n, setting = 600, next(setting for setting in SETTINGS if setting.variants == 2)
        low, high = stats.binom.interval(0.999, n, 0.95)
        assert low <= n * coverage(setting, n)["speakers"] <= high

    def test_seeds_that_matter_must_count(self):
        counted, kept = seed_coverage(n_seeds=3, seed_sd=0.03, n_tables=200)
        # in the long run 0.93 and 0.73; each bound is 99.9 % of a binomial a little on the safe side
        assert 200 * counted >= stats.binom.ppf(0.001, 200, 0.92)
        assert 200 * kept <= stats.binom.ppf(0.999, 200, 0.75)


class TestIntervals:
    def test_same_call_same_interval_in_any_order(self, two_seeds):
        first = score_interval(scored_rows(two_seeds))
        assert first == score_interval(scored_rows(two_seeds.sample(frac=1, random_state=1)))
        assert first.low < first.value < first.high

    @pytest.mark.parametrize("average", AVERAGES)
    @pytest.mark.parametrize("score", metrics.SCORES)
    def test_estimate_is_the_score(self, two_seeds, score, average):
        one = score_interval(scored_rows(two_seeds), score=score, average=average)
        assert one.value == pytest.approx(score_by_metrics(two_seeds, score, average), abs=1e-12)
        assert percent(scored_rows(two_seeds), score=score, average=average) == tuple(100 * x for x in one)

    def test_a_copied_seed_adds_nothing_to_what_is_known(self):
        one = with_counts(RIGHT, 20)
        both = pd.concat([one, one.assign(seed=211)])
        a, b = (score_interval(scored_rows(table), score="wa") for table in (one, both))
        assert tuple(a) == pytest.approx(tuple(b), abs=1e-12)

    def test_seeds_that_differ_make_it_wider(self):
        tables = [with_counts(RIGHT, 20), with_counts([k - 5 for k in RIGHT], 20, seed=211)]
        as_one = pd.concat(
            table.assign(seed=1, fold=table["fold"] + str(i)) for i, table in enumerate(tables)
        )
        a, b = (score_interval(rows, score="wa") for rows in (scored_rows(pd.concat(tables)), as_one))
        assert a.low < b.low < b.high < a.high

    def test_a_speaker_without_utterances_of_a_seed(self, two_seeds):
        """As among the surest answers of all; what is known of the others counts."""
        rows = scored_rows(two_seeds)
        one = score_interval(rows[(rows["speaker"] != "5M") | (rows["seed"] == 111)])
        assert one.low < one.value < one.high

    def test_one_odd_speaker_does_not_stretch_it_over_everything(self):
        one = score_interval(scored_rows(with_counts([20] * 8 + [19, 5], 20)), score="wa")
        assert 0.6 < one.low < 0.65 and 0.98 < one.high < 1

    @pytest.mark.parametrize("n_speakers", [1, 4])
    def test_too_few_speakers_have_no_interval(self, n_speakers):
        one = score_interval(scored_rows(with_counts(RIGHT[:n_speakers], 20)), score="wa")
        assert one.value == pytest.approx(np.mean(RIGHT[:n_speakers]) / 20)
        assert np.isnan([one.low, one.high]).all()


class TestTables:
    def test_summary_by_hand(self):
        # seed 1: speakers 3/4, 1/4 and five of 2/4; seed 2: all 3/4
        first, second = with_counts([3, 1, 2, 2, 2, 2, 2], 4, seed=1), with_counts([3] * 7, 4, seed=2)
        both = pd.concat([first, second])
        folds = {name: [f"{i:02d}" for i in range(7)] for name in both["variant"].unique()}
        table = score_intervals(both, folds).set_index("score")
        wa = table.loc["WA"]
        assert (wa["fold mean"].value, wa["pooled"].value) == pytest.approx((62.5, 62.5))
        assert wa["sd of seeds"] == pytest.approx(100 * np.std([0.5, 0.75], ddof=1))
        assert wa["sd of folds"] == pytest.approx(100 * np.std([0.75, 0.5] + [0.625] * 5, ddof=1))
        # one class is true and two are predicted: F1 = (2 r / (r + 1) + 0) / 2 for recall r
        assert table.loc["macro-F1", "pooled"].value == pytest.approx(62.5 / 1.625)
        assert score_intervals(first, folds)["sd of seeds"].isna().all()


class TestReliability:
    def test_by_hand(self):
        # (0.4, 0.6]: confidences 0.5 and 0.6, one of two right; (0.8, 1]: 0.9, 0.9 and 1.0, two of three right
        table = predicted([0.5, 0.6, 0.9, 0.9, 1.0], [True, False, True, False, True])
        found = reliability_table(table, n_bins=5)
        assert found["n"].tolist() == [0, 0, 2, 0, 3]
        assert found["confidence"].tolist()[2::2] == pytest.approx([0.55, 2.8 / 3])
        assert found["accuracy"].tolist()[2::2] == pytest.approx([0.5, 2 / 3])
        assert found["confidence"][[0, 1, 3]].isna().all()
        assert found["low"].tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
        expected = (2 * (0.55 - 0.5) + 3 * (2.8 / 3 - 2 / 3)) / 5
        assert expected_calibration_error(table, n_bins=5) == pytest.approx(expected)

    def test_one_bin_compares_the_means(self):
        table = predicted([0.5, 0.7, 0.9, 0.9], [True, True, True, False])
        assert expected_calibration_error(table, n_bins=1) == pytest.approx(0)  # 0.75 against 3/4

    def test_calibrated_predictions_have_next_to_no_error(self):
        rng = np.random.default_rng(6)
        confidence = rng.uniform(0.3, 1, 20_000)
        table = predicted(confidence, rng.random(20_000) < confidence)
        # each of 7 bins misses by about 0.8 sqrt(p (1 - p) / 2857) <= 0.0075
        assert expected_calibration_error(table) < 0.015
        assert expected_calibration_error(
            predicted(confidence, rng.random(20_000) < confidence - 0.2)
        ) == pytest.approx(0.2, abs=0.015)

    @pytest.mark.parametrize("n_bins", [0, 101, 2.5, True])
    def test_bins_out_of_range(self, n_bins):
        with pytest.raises(ParameterError, match="expected a whole number from 1 to 100"):
            reliability_table(predicted([0.5], [True]), n_bins)

    def test_nothing_to_calibrate(self):
        with pytest.raises(RunError, match="has no rows"):
            reliability_table(predicted([], []).iloc[:0])


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"score": "uar"}, "score='uar', expected one of wa, ua, macro_f1"),
            ({"average": "mean"}, "average='mean', expected one of pooled, fold_mean"),
        ],
    )
    def test_arguments(self, arguments, message):
        with pytest.raises(ParameterError, match=message):
            score_interval(scored_rows(with_counts(RIGHT, 20)), **arguments)
