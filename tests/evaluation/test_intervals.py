"""Intervals, tables of scores, reliability: by hand, published, against other code, by simulation."""

import numpy as np
import pandas as pd
import pytest
from benchmarks.interval_coverage import SETTINGS, coverage, seed_coverage
from prediction_tables import manifest, predict, with_counts, with_probabilities
from scipy import stats

from serkit import metrics
from serkit.errors import FoldError, ParameterError, RunError
from serkit.evaluation.intervals import (
    AVERAGES,
    bootstrap_interval,
    cluster_limits,
    expected_calibration_error,
    reliability_table,
    score_of,
    standard_error,
    summary_table,
    tally,
)
from serkit.evaluation.predictions import scored_rows

RIGHT = [12, 14, 9, 15, 11, 17, 13, 8, 16, 14]  # of 20, by speaker
FINE = [121, 143, 92, 155, 108, 177, 134, 83, 166, 139]  # of 200, so that means have steps of 0.0005


def mean_of(values):
    """The mean as a statistic of weights; 0 where nothing is drawn."""
    values = np.asarray(values, float)
    return lambda weights: (weights @ values) / np.maximum(weights.sum(axis=-1), 1)


def score_by_metrics(rows, score, average):
    if score == "macro_f1":
        by = "variant" if average == "pooled" else metrics.UNIT
        return metrics.score_table(rows, by)["macro_f1"].mean()
    return metrics.pooled_and_fold_mean(rows)[f"{score}_{average}"]


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
    @pytest.mark.parametrize("by_seed", [True, False])
    def test_weights_of_one_are_the_score(self, two_seeds, score, average, by_seed):
        rows = scored_rows(two_seeds)
        counts = tally(rows, score, average, rows["speaker"], by_seed)
        value = score_of(np.ones(len(counts.share)), counts)
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
        value = score_of(weights.astype(float), tally(rows, score, average, rows["speaker"]))
        assert value == pytest.approx(score_by_metrics(pd.concat(parts), score, average), abs=1e-12)


class TestKnownAnswers:
    def test_jackknife_error_of_a_mean_is_the_standard_error(self):
        # equal numbers for each speaker: WA is the mean of their WAs
        interval = bootstrap_interval(with_counts(RIGHT, 20), "wa", n_resamples=200)
        assert interval.standard_error == pytest.approx(stats.sem(np.array(RIGHT) / 20), abs=1e-12)
        assert interval.estimate == pytest.approx(0.645)
        assert (interval.cluster, interval.n_clusters, interval.n_seeds) == ("speaker", 10, 1)

    def test_published_bootstrap_t_of_the_mouse_data(self):
        # Efron and Tibshirani, section 12.5: survival of nine mice, 90 % interval 35.82 to 116.74 days from
        # 1,000 resamples; repeated with other draws, such ends move by 0.4 and 3 days (one sd)
        days = [52, 104, 146, 10, 51, 30, 40, 27, 46]
        options = {"level": 0.9, "n_resamples": 10_000, "rng": np.random.default_rng(0)}
        estimate, low, high, _ = cluster_limits(mean_of(days), 9, 1, **options)
        assert estimate == pytest.approx(56.22, abs=0.005)
        assert low == pytest.approx(35.82, abs=1.5) and high == pytest.approx(116.74, abs=9)

    def test_naive_interval_is_the_binomial_one(self):
        # 129 of 200 right: sd sqrt(p (1 - p) / n) = 0.03384; quantiles of 10,000 draws are good to 0.001
        one = bootstrap_interval(with_counts(RIGHT, 20), "wa", cluster=None)
        assert one.standard_error == pytest.approx(np.sqrt(0.645 * 0.355 / 200), rel=0.03)
        low, high = stats.binom.ppf([0.025, 0.975], 200, 0.645) / 200
        assert (one.low, one.high) == (pytest.approx(low, abs=0.0051), pytest.approx(high, abs=0.0051))
        assert (one.cluster, one.n_clusters) == ("utterance", 200)

    def test_jackknife_over_speakers_and_seeds_by_hand(self):
        # cells of 2 speakers x 2 seeds: 0 2 / 4 6; speakers' means 1 and 5, seeds' 2 and 4: variances 4 and 1
        error = standard_error(mean_of([0, 2, 4, 6]), np.ones((1, 2)), np.ones((1, 2)))
        assert error == pytest.approx([np.sqrt(4 + 1)])

    def test_alike_speakers_leave_no_doubt(self):
        one = bootstrap_interval(with_counts([14] * 10, 20), "wa")
        assert (one.estimate, one.low, one.high, one.standard_error) == (0.7, 0.7, 0.7, 0.0)


class TestAgainstOtherCode:
    def test_bootstrap_t(self):
        # the same by a loop over resamples and their sample deviations
        speakers, rng = np.array(FINE) / 200, np.random.default_rng(3)
        drawn = speakers[rng.integers(0, 10, (40_000, 10))]
        t = (drawn.mean(axis=1) - speakers.mean()) / (drawn.std(axis=1, ddof=1) / np.sqrt(10))
        error = speakers.std(ddof=1) / np.sqrt(10)
        expected = speakers.mean() - error * np.quantile(t, [0.975, 0.025])
        one = bootstrap_interval(with_counts(FINE, 200), "wa", n_resamples=40_000)
        assert (one.low, one.high) == pytest.approx(tuple(expected), abs=0.004)


class TestCoverage:
    def test_speakers_drawn_come_close_to_95_and_utterances_do_not(self):
        n = 600
        held = coverage(SETTINGS[0], n, 500)
        # 99.9 % of the draws of a binomial with 0.95: 0.918 to 0.977
        low, high = stats.binom.interval(0.999, n, 0.95)
        assert low <= n * held["bootstrap-t"] <= high
        assert n * held["percentile"] < low  # 0.90 in the long run
        assert held["naive"] < 0.52  # 0.44 in the long run, binomial deviation 0.02

    def test_seeds_that_matter_must_be_drawn(self):
        drawn, kept = seed_coverage(n_seeds=3, seed_sd=0.03, n_tables=200, n_resamples=400)
        # in the long run 0.94 and 0.74; each bound is 99.9 % of a binomial a little on the safe side
        assert 200 * drawn >= stats.binom.ppf(0.001, 200, 0.93)
        assert 200 * kept <= stats.binom.ppf(0.999, 200, 0.75)


class TestIntervals:
    def test_same_call_same_interval_in_any_order(self, two_seeds):
        first = bootstrap_interval(two_seeds, n_resamples=500)
        assert first == bootstrap_interval(two_seeds.sample(frac=1, random_state=1), n_resamples=500)
        assert first != bootstrap_interval(two_seeds, n_resamples=500, seed=1)
        assert first.n_seeds == 2 and first.low < first.estimate < first.high

    @pytest.mark.parametrize("average", AVERAGES)
    @pytest.mark.parametrize("score", metrics.SCORES)
    def test_estimate_is_the_score(self, two_seeds, score, average):
        for cluster in ("speaker", "session", None):
            one = bootstrap_interval(two_seeds, score, average=average, cluster=cluster, n_resamples=200)
            assert one.estimate == pytest.approx(score_by_metrics(two_seeds, score, average), abs=1e-12)
            assert one.n_clusters == {"speaker": 10, "session": 5, None: 114}[cluster]

    def test_a_copied_seed_adds_nothing_to_what_is_known(self):
        one = with_counts(RIGHT, 20)
        both = pd.concat([one, one.assign(seed=211)])
        for cluster in ("speaker", None):
            options = {"cluster": cluster, "resample_seeds": False, "n_resamples": 500}
            a, b = (bootstrap_interval(table, "wa", **options) for table in (one, both))
            assert (a.low, a.high) == pytest.approx((b.low, b.high), abs=1e-12)

    def test_ends_stay_in_range(self):
        one = bootstrap_interval(with_counts([20] * 8 + [19, 5], 20), "wa", n_resamples=500)
        assert (one.low, one.high) == (0.0, 1.0)  # without a cut: below any number, and 1.02

    def test_higher_level_is_wider(self, two_seeds):
        a, b = (bootstrap_interval(two_seeds, level=level, n_resamples=500) for level in (0.8, 0.95))
        assert b.low < a.low < a.high < b.high

    def test_published_selection_is_scored(self):
        table = predict(manifest(), selection="published")
        assert bootstrap_interval(table, n_resamples=200).n_clusters == 10


class TestTables:
    def test_summary_by_hand(self):
        # seed 1: speakers 3/4, 1/4 and five of 2/4; seed 2: all 3/4
        first, second = with_counts([3, 1, 2, 2, 2, 2, 2], 4, seed=1), with_counts([3] * 7, 4, seed=2)
        table = summary_table(pd.concat([first, second])).set_index("score")
        wa = table.loc["wa"]
        assert (wa["fold_mean"], wa["pooled"]) == (pytest.approx(0.625), pytest.approx(0.625))
        assert wa["seed_sd"] == pytest.approx(np.std([0.5, 0.75], ddof=1))
        assert wa["fold_sd"] == pytest.approx(np.std([0.75, 0.5] + [0.625] * 5, ddof=1))
        assert (wa["n_folds"], wa["n_seeds"], wa["n_utterances"]) == (7, 2, 28)
        # one class is true and two are predicted: F1 = (2 r / (r + 1) + 0) / 2 for recall r
        assert table.loc["macro_f1", "pooled"] == pytest.approx(0.625 / 1.625)
        assert np.isnan(summary_table(first)["seed_sd"]).all()


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
            ({"cluster": "gender"}, "cluster='gender', expected one of speaker, session, None"),
            ({"level": 95}, "level=95, expected a number from 0.5 to 0.999"),
            ({"n_resamples": 10}, "n_resamples=10, expected a whole number from 200"),
            ({"n_resamples": 1e4}, "n_resamples=10000.0, expected a whole number"),
            ({"seed": -1}, "seed=-1, expected"),
        ],
    )
    def test_arguments(self, arguments, message):
        with pytest.raises(ParameterError, match=message):
            bootstrap_interval(with_counts(RIGHT, 20), **arguments)

    def test_too_few_speakers(self):
        with pytest.raises(
            ParameterError, match="4 speakers are too few for an interval, expected at least 5"
        ):
            bootstrap_interval(with_counts(RIGHT[:4], 20))

    def test_damaged_tables_are_not_averaged(self):
        table = predict(manifest())
        leak = table.copy()
        leak.loc[leak.index[leak["split"] == "test"][0], "split"] = "validation"
        for function in (bootstrap_interval, summary_table):
            with pytest.raises(FoldError, match="fold 1F: speaker 1F is in validation"):
                function(leak)
            with pytest.raises(RunError, match="fold 4F is missing"):
                function(table[table["fold"] != "4F"])
