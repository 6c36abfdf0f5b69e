"""Scores: by hand, by property, against scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

from serkit import metrics
from serkit.constants import LABELS
from serkit.errors import ParameterError

# Angry 2/2, sad 1/2, happy 0/1, neutral 3/4 recognised: 6 of 9.
TRUTH = ["angry"] * 2 + ["sad"] * 2 + ["happy"] + ["neutral"] * 4
PREDICTION = ["angry", "angry", "sad", "neutral", "angry", "neutral", "neutral", "neutral", "happy"]
INDEX = {label: i for i, label in enumerate(LABELS)}

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


def prediction_table(rows):
    """Rows of (utterance_id, speaker, fold, seed, split, truth, prediction)."""
    columns = ["utterance_id", "speaker", "fold", "seed", "split", "truth", "prediction"]
    return pd.DataFrame(rows, columns=columns).assign(session=1, variant="corrected")


def two_folds():
    return prediction_table(
        [
            ("a", "1F", "1", 111, "test", "sad", "sad"),
            ("b", "1F", "1", 111, "test", "sad", "angry"),
            ("c", "1F", "1", 111, "test", "happy", "happy"),
            ("d", "1M", "2", 111, "test", "neutral", "neutral"),
            ("d", "1M", "1", 111, "train", "neutral", "angry"),
            ("a", "1F", "2", 111, "train", "sad", "happy"),
        ]
    )


class TestByHand:
    def test_scores(self):
        assert metrics.weighted_accuracy(TRUTH, PREDICTION) == pytest.approx(6 / 9)
        assert metrics.unweighted_accuracy(TRUTH, PREDICTION) == pytest.approx((1 + 0.5 + 0 + 0.75) / 4)
        # F1 = 2 TP / (2 TP + FP + FN): angry 4/5, sad 2/3, happy 0, neutral 6/8
        assert metrics.macro_f1(TRUTH, PREDICTION) == pytest.approx((4 / 5 + 2 / 3 + 0 + 6 / 8) / 4)

    def test_recall_and_confusion(self):
        recall = metrics.recall_per_class(TRUTH, PREDICTION)
        assert recall.to_dict() == {"angry": 1.0, "sad": 0.5, "happy": 0.0, "neutral": 0.75}
        counts = metrics.confusion_matrix(TRUTH, PREDICTION)
        assert counts.to_numpy().tolist() == [[2, 0, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 1, 3]]
        assert list(counts.index) == list(counts.columns) == list(LABELS)
        assert (counts.index.name, counts.columns.name) == ("truth", "prediction")

    def test_absent_class_has_no_recall_and_no_weight(self):
        recall = metrics.recall_per_class(["sad", "sad"], ["sad", "angry"])
        assert np.isnan(recall["angry"]) and recall["sad"] == 0.5
        assert metrics.unweighted_accuracy(["sad", "sad"], ["sad", "angry"]) == 0.5
        assert metrics.macro_f1(["sad", "sad"], ["sad", "angry"]) == pytest.approx((2 / 3 + 0) / 2)

    def test_other_labels_keep_their_order(self):
        counts = metrics.confusion_matrix(["b", "a"], ["b", "b"], labels=("b", "a", "c"))
        assert counts.to_numpy().tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]

    @pytest.mark.parametrize("container", [list, tuple, np.array, pd.Series, pd.Categorical])
    def test_containers_and_indices_score_alike(self, container):
        truth, prediction = container(TRUTH), container(PREDICTION)
        assert metrics.unweighted_accuracy(truth, prediction) == pytest.approx(0.5625)
        truth, prediction = (container([INDEX[v] for v in values]) for values in (TRUTH, PREDICTION))
        assert metrics.unweighted_accuracy(truth, prediction) == pytest.approx(0.5625)
        assert metrics.unweighted_accuracy(TRUTH, prediction) == pytest.approx(0.5625)  # one of each kind

    def test_series_are_compared_by_position(self):
        truth = pd.Series(["sad", "angry"], index=[7, 8])
        assert metrics.weighted_accuracy(truth, pd.Series(["sad", "angry"], index=[8, 7])) == 1.0


class TestProperties:
    @given(st.integers(1, 8), st.data())
    @settings(max_examples=40, deadline=None)
    def test_ua_is_wa_on_balanced_classes(self, per_class, data):
        truth = np.repeat(np.arange(4), per_class)
        size = len(truth)
        prediction = data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
        ua, wa = metrics.unweighted_accuracy(truth, prediction), metrics.weighted_accuracy(truth, prediction)
        assert ua == pytest.approx(wa, abs=1e-12)  # rounding of a mean of four fractions

    @given(pairs, st.integers(0, 3), st.integers(2, 4))
    @settings(max_examples=40, deadline=None)
    def test_ua_ignores_copies_of_one_class(self, rows, label, copies):
        more = rows + [row for row in rows if row[0] == label] * (copies - 1)
        before, after = (metrics.unweighted_accuracy(*zip(*each, strict=True)) for each in (rows, more))
        assert before == pytest.approx(after, abs=1e-12)

    @given(pairs)
    @settings(max_examples=60, deadline=None)
    @pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
    @pytest.mark.filterwarnings("ignore:A single label was found")
    def test_against_scikit_learn(self, rows):
        truth, prediction = zip(*rows, strict=True)
        ua = metrics.unweighted_accuracy(truth, prediction)
        assert ua == pytest.approx(balanced_accuracy_score(truth, prediction), abs=1e-12)
        f1 = f1_score(truth, prediction, average="macro", zero_division=0.0)
        assert metrics.macro_f1(truth, prediction) == pytest.approx(f1, abs=1e-12)

    @given(pairs)
    @settings(max_examples=30, deadline=None)
    def test_confusion_matrix_holds_the_other_scores(self, rows):
        truth, prediction = zip(*rows, strict=True)
        counts = metrics.confusion_matrix(truth, prediction).to_numpy()
        assert counts.sum() == len(rows)
        assert np.trace(counts) / len(rows) == pytest.approx(metrics.weighted_accuracy(truth, prediction))


class TestErrors:
    @pytest.mark.parametrize(
        ("truth", "prediction", "message"),
        [
            (["sad"], ["sad", "sad"], r"truth has 1 utterances and prediction has 2"),
            ([], [], r"truth is empty"),
            (["sad"], ["bored"], r"prediction\[0\]='bored'"),
            (["sad", "fru"], ["sad", "sad"], r"truth\[1\]='fru'.*class indices 0 to 3"),
            ([0, 4], [0, 0], r"truth\[1\]=4"),
            ([0, -1], [0, 0], r"truth\[1\]=-1"),
            (["sad", 1], ["sad", "sad"], r"truth\[0\]='sad'.*mixed"),
            (["sad", None], ["sad", "sad"], r"truth\[0\]='sad'.*mixed"),
            ([True, False], [0, 0], r"kind 'boolean'"),
            ([0.0, 1.0], [0, 1], r"kind 'floating'"),
            ("sad", "sad", r"one-dimensional"),
            (3, 3, r"one-dimensional"),
            (np.zeros((2, 2), int), [0, 0], r"one-dimensional"),
        ],
    )
    def test_bad_pairs(self, truth, prediction, message):
        for score in (metrics.weighted_accuracy, metrics.macro_f1, metrics.confusion_matrix):
            with pytest.raises(ParameterError, match=message):
                score(truth, prediction)


class TestTables:
    def test_score_table_uses_test_rows(self):
        scores = metrics.score_table(two_folds(), by="speaker")
        assert list(scores.columns) == ["speaker", "n", "wa", "ua", "macro_f1"]
        assert scores["speaker"].tolist() == ["1F", "1M"] and scores["n"].tolist() == [3, 1]
        assert scores["wa"].tolist() == pytest.approx([2 / 3, 1])
        assert scores["ua"].tolist() == pytest.approx([(1 / 2 + 1) / 2, 1])

    def test_score_table_by_split_and_fold(self):
        scores = metrics.score_table(two_folds(), by=["split", "fold"]).set_index(["split", "fold"])
        assert scores["n"].to_dict() == {
            ("test", "1"): 3, ("test", "2"): 1, ("train", "1"): 1, ("train", "2"): 1,
        }  # fmt: skip
        assert scores.loc[("train", "1"), "wa"] == 0.0

    def test_pooled_and_fold_mean(self):
        scores = metrics.pooled_and_fold_mean(two_folds())
        assert scores == pytest.approx(
            {
                "wa_pooled": 3 / 4,
                "ua_pooled": (1 / 2 + 1 + 1) / 3,
                "wa_fold_mean": (2 / 3 + 1) / 2,
                "ua_fold_mean": (3 / 4 + 1) / 2,
                "n_utterances": 4,
                "n_folds": 2,
            }
        )

    def test_a_second_seed_counts_no_utterance_twice(self):
        table = pd.concat([two_folds(), two_folds().assign(seed=211)], ignore_index=True)
        assert metrics.pooled_and_fold_mean(table) == pytest.approx(metrics.pooled_and_fold_mean(two_folds()))

    def test_refusals(self):
        table = two_folds()
        with pytest.raises(ParameterError, match=r"lacks \['dialect'\]"):
            metrics.score_table(table, by="dialect")
        with pytest.raises(ParameterError, match="by="):
            metrics.score_table(table, by=[])
        with pytest.raises(ParameterError, match="truth is empty"):
            metrics.pooled_and_fold_mean(table[table["split"] == "train"])

    def test_variants_are_not_pooled(self):
        table = pd.concat([two_folds(), two_folds().assign(variant="published")], ignore_index=True)
        with pytest.raises(ParameterError, match=r"mixes variants \['corrected', 'published'\]"):
            metrics.pooled_and_fold_mean(table)
        with pytest.raises(ParameterError, match="mixes variants"):
            metrics.score_table(table, by="speaker")
        assert len(metrics.score_table(table, by=["variant", "speaker"])) == 4
