"""Paired comparisons: published and enumerable cases first."""

import numpy as np
import pandas as pd
import pytest
from prediction_tables import manifest, predict, with_counts
from scipy import stats

from serkit.errors import FoldError, ParameterError, RunError
from serkit.evaluation import comparison
from serkit.evaluation.comparison import compare_many, compare_variants
from serkit.metrics import score_table, unweighted_accuracy

DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]  # eighths of an inch
TEN = [10] * 10


def variant(name, right, n=20, seed=111):
    return with_counts(right, n, variant=f"{name}_last_speaker_paper", seed=seed)


def shifted(by):
    """Ten speakers with 10 of 20 right, moved by as much as given."""
    return [10 + step for step in by]


class TestKnownAnswers:
    def test_fishers_permutation_test_of_darwins_maize(self, monkeypatch):
        # Fisher, The Design of Experiments, section 21: 863 of 32,768 sums are at least 314, so 1,726 two-sided
        a = variant("corrected", [70 + d for d in DARWIN], 150)
        b = variant("published", [70] * 15, 150)
        monkeypatch.setattr(comparison, "EXCHANGES", 40_000)
        one = compare_variants(a, b, "wa")
        assert one["p_permutation"] == pytest.approx(2 * 863 / 2**15, abs=1e-12)
        assert one["difference"] == pytest.approx(sum(DARWIN) / 15 / 150)
        assert one["variant_a"] == "corrected_last_speaker_paper"

    @pytest.mark.parametrize(
        ("by", "p"),
        [
            ([1] * 10, 2 / 1024),  # the smallest there is
            ([1] * 9 + [-1], 2 * (1 + 10) / 1024),
            ([1] * 8 + [-1] * 2, 2 * (1 + 10 + 45) / 1024),
            ([1] * 5 + [-1] * 5, 1.0),
            ([0] * 10, 1.0),
        ],
    )
    def test_ten_speakers_by_enumeration(self, by, p):
        one = compare_variants(variant("corrected", shifted(by)), variant("published", TEN), "wa")
        assert one["p_permutation"] == pytest.approx(p, abs=1e-12)

    def test_a_copied_seed_changes_nothing(self):
        a, b = variant("corrected", shifted([1] * 9 + [-1])), variant("published", TEN)
        two = compare_variants(*(pd.concat([t, t.assign(seed=211)]) for t in (a, b)), "wa")
        assert two["p_permutation"] == pytest.approx(22 / 1024)

    def test_five_speakers_are_never_below_5_percent(self):
        one = compare_variants(
            variant("corrected", [11, 12, 13, 14, 15]), variant("published", [10] * 5), "wa"
        )
        assert one["p_permutation"] == pytest.approx(2 / 32)

    def test_holm_by_hand(self):
        table = pd.concat([
            variant("published", TEN), variant("corrected", shifted([1] * 10)),
            variant("corrected-D1", shifted([1] * 9 + [-1])), variant("corrected-D2", shifted([1] * 8 + [-1] * 2)),
        ])  # fmt: skip
        names = [f"{name}_last_speaker_paper" for name in ("corrected-D2", "corrected", "corrected-D1")]
        found = compare_many(table, [(name, "published_last_speaker_paper") for name in names], score="wa")
        assert (found["p_permutation"] * 1024).tolist() == pytest.approx([112, 2, 22])
        assert (found["p_holm"] * 1024).tolist() == pytest.approx([112, 3 * 2, 2 * 22])


class TestAgainstOtherCode:
    def test_sign_flips_of_a_mean_over_folds(self):
        about = manifest(per_speaker=16).drop(index=[*range(10), 20, 37])  # else pooled would be the same
        a, b = predict(about), predict(about, recipe="published+D2", right=0.55)
        one = compare_variants(a, b, average="fold_mean")
        speakers = (score_table(table, "speaker").set_index("speaker")["ua"] for table in (a, b))
        differences = np.subtract(*speakers).to_numpy()
        signs = 1 - 2 * ((np.arange(1024)[:, None] >> np.arange(10)) & 1)
        means = (signs * differences).mean(axis=1)
        expected = np.mean(np.abs(means) >= abs(differences.mean()) - 1e-12)
        assert one["p_permutation"] == pytest.approx(expected, abs=1e-12)
        assert one["difference"] == pytest.approx(differences.mean(), abs=1e-12)

    def test_pooled_exchange_is_done_on_the_rows(self):
        about = manifest(per_speaker=8, speakers=["1F", "1M", "2F", "2M", "3F"])
        a, b = (predict(about, selection="last", recipe=name) for name in ("corrected", "published"))
        rows = [t.sort_values("utterance_id", ignore_index=True) for t in (a, b)]
        speaker = pd.factorize(rows[0]["speaker"])[0]
        truth, differences = rows[0]["truth"], []
        for flips in range(32):
            swap = (flips >> speaker & 1).astype(bool)
            first = rows[0]["prediction"].where(~swap, rows[1]["prediction"])
            second = rows[1]["prediction"].where(~swap, rows[0]["prediction"])
            differences.append(unweighted_accuracy(truth, first) - unweighted_accuracy(truth, second))
        expected = np.mean(np.abs(differences) >= abs(differences[0]) - 1e-12)
        assert compare_variants(a, b)["p_permutation"] == pytest.approx(expected, abs=1e-12)

    def test_random_exchanges_come_close_to_all(self):
        a, b = variant("corrected", [70 + d for d in DARWIN], 150), variant("published", [70] * 15, 150)
        p = compare_variants(a, b, "wa")["p_permutation"]
        # sd of a share of 10,000 near 0.053, twice one tail: 2 sqrt(0.026 * 0.974 / 10,000) = 0.0032
        assert p == pytest.approx(1726 / 32768, abs=0.013) and p != 1726 / 32768

    def test_interval_of_equal_speakers_is_students(self):
        right = [70 + d for d in DARWIN]
        one = compare_variants(variant("corrected", right, 150), variant("published", [70] * 15, 150), "wa")
        expected = stats.ttest_1samp(np.array(DARWIN) / 150, 0).confidence_interval()
        assert (one["low"], one["high"]) == pytest.approx(tuple(expected), abs=1e-12)

    def test_no_false_alarms_without_a_difference(self):
        rng, p = np.random.default_rng(8), []
        for _ in range(20):
            both = rng.binomial(40, np.clip(rng.normal(0.6, 0.1, (10, 1)), 0, 1), (10, 2))
            pair = [variant(name, both[:, i], 40) for i, name in enumerate(("corrected", "published"))]
            p.append(compare_variants(*pair, "wa")["p_permutation"])
        assert np.sum(np.array(p) <= 0.05) <= stats.binom.ppf(0.999, 20, 0.05)
        assert 0.3 < np.mean(p) < 0.7  # uniform: 0.5, sd 0.065


class TestProperties:
    def test_exchanged_variants_change_the_sign_only(self):
        about = manifest()
        tables = predict(about), predict(about, recipe="published+D2")
        one, other = compare_variants(*tables), compare_variants(*tables[::-1])
        assert one["difference"] == pytest.approx(-other["difference"])
        assert (one["low"], one["high"]) == pytest.approx((-other["high"], -other["low"]), abs=1e-12)
        assert one["p_permutation"] == other["p_permutation"]
        assert compare_variants(*tables) == one

    def test_a_variant_against_its_copy(self):
        table = predict(manifest())
        one = compare_variants(table, table)
        assert (one["difference"], one["low"], one["high"], one["p_permutation"]) == (0, 0, 0, 1)

    def test_published_against_clean_selection(self):
        about = manifest()
        pair = [predict(about, selection=name) for name in ("published", "clean")]
        assert 0 < compare_variants(*pair)["p_permutation"] <= 1

    def test_all_pairs(self):
        about = manifest()
        table = pd.concat(
            [predict(about, recipe=name) for name in ("corrected", "published", "published+D2")]
        )
        found = compare_many(table, average="fold_mean")
        assert len(found) == 3 and (found["p_holm"] >= found["p_permutation"]).all()


class TestRefusals:
    def test_other_folds(self):
        about = manifest()
        with pytest.raises(ParameterError, match=r"in fold .* is tested in .*, expected the same folds"):
            compare_variants(predict(about, "speaker"), predict(about, "session"))

    def test_other_seeds(self):
        about = manifest()
        message = (
            "seed 111 is tested in corrected_clean_speaker_paper and not in published_clean_speaker_paper"
        )
        with pytest.raises(ParameterError, match=message):
            compare_variants(predict(about), predict(about, recipe="published", seed=211))

    def test_other_utterances(self):
        with pytest.raises(ParameterError, match=r"utterance .*_008 .* is tested in published"):
            compare_variants(predict(manifest(8)), predict(manifest(12), recipe="published"))

    def test_other_truth(self):
        a, b = variant("corrected", TEN), variant("published", TEN)
        b.loc[3, "truth"] = "angry"
        with pytest.raises(
            ParameterError,
            match=r"utterance 00_003 \(angry, .* is tested in published.* and not in corrected",
        ):
            compare_variants(a, b)

    def test_an_end_stays_in_range(self):
        one = compare_variants(
            variant("corrected", [20] * 9 + [0]), variant("published", [0] * 9 + [20]), "wa"
        )
        assert one["high"] == 1.0 and one["low"] > -1.0

    def test_too_few_speakers(self):
        with pytest.raises(
            ParameterError, match="4 speakers are too few for an interval, expected at least 5"
        ):
            compare_variants(variant("corrected", TEN[:4]), variant("published", TEN[:4]))

    def test_other_labels(self):
        a, b = variant("corrected", TEN), variant("published", TEN).rename(columns={"p_happy": "p_calm"})
        with pytest.raises(ParameterError, match="'happy', expected one of angry, sad, calm, neutral"):
            compare_variants(a, b)

    def test_damaged_tables(self):
        about = manifest()
        a, b = predict(about), predict(about, recipe="published")
        with pytest.raises(RunError, match="published_clean_speaker_paper, seed 111: missing folds: 2M"):
            compare_variants(a, b[b["fold"] != "2M"])
        b.loc[b.index[b["split"] == "test"][0], "split"] = "validation"
        with pytest.raises(FoldError, match="fold 1F: speaker 1F is in validation"):
            compare_variants(a, b)
