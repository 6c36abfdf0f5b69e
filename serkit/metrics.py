"""Scores of predicted emotions, from (truth, prediction) or from a prediction table.

All scores are fractions in [0, 1]; multiply by 100 when printing. WA is the share of utterances
that are right, so frequent classes weigh more; UA is the mean recall of the classes, so each class
weighs the same.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn import metrics as sk

from serkit.constants import LABELS
from serkit.errors import FoldError, ParameterError

REPEAT = ["variant", "seed"]  # one pass over the corpus
UNIT = ["variant", "seed", "fold"]  # one trained model
SCORES = ("wa", "ua", "macro_f1")


def weighted_accuracy(truth, prediction, labels: Sequence[str] = LABELS) -> float:
    """Share of utterances whose label is right (WA).

    Parameters
    ----------
    truth, prediction : sequence of str or of int, length n
        Labels, or class indices ``0 .. len(labels) - 1``; the same kind in both. Compared by
        position: the index of a Series is not looked at.
    labels : sequence of str
        Class names in class order.

    Returns
    -------
    float in [0, 1]

    Raises
    ------
    ParameterError
        If the lengths differ, nothing is given, or a value is not one of the classes.

    Examples
    --------
    Three of four are right:

    >>> weighted_accuracy(["sad", "sad", "sad", "happy"], ["sad", "sad", "sad", "sad"])
    0.75
    """
    truth, prediction = _pair(truth, prediction, labels)
    return float(sk.accuracy_score(truth, prediction))


def unweighted_accuracy(truth, prediction, labels: Sequence[str] = LABELS) -> float:
    """Mean recall over the classes that occur in ``truth`` (UA, also called UAR).

    A class without utterances has no recall and does not count. Parameters and errors as in
    :func:`weighted_accuracy`.

    Returns
    -------
    float in [0, 1]

    Examples
    --------
    Recall is 3/3 for sad and 0/1 for happy; angry and neutral do not occur:

    >>> unweighted_accuracy(["sad", "sad", "sad", "happy"], ["sad", "sad", "sad", "sad"])
    0.5
    """
    return float(recall_per_class(truth, prediction, labels).mean(skipna=True))


def macro_f1(truth, prediction, labels: Sequence[str] = LABELS) -> float:
    """Mean F1 over the classes that occur in ``truth`` or in ``prediction``.

    A class that is predicted but never true, or true but never predicted, has an F1 of 0.
    Parameters and errors as in :func:`weighted_accuracy`.

    Returns
    -------
    float in [0, 1]

    Examples
    --------
    Sad: precision 2/4, recall 2/2, F1 2/3. Happy: never predicted, F1 0.

    >>> round(macro_f1(["sad", "sad", "happy", "happy"], ["sad", "sad", "sad", "sad"]), 4)
    0.3333
    """
    truth, prediction = _pair(truth, prediction, labels)
    occurring = np.union1d(truth, prediction)
    return float(sk.f1_score(truth, prediction, labels=occurring, average="macro", zero_division=0.0))


def recall_per_class(truth, prediction, labels: Sequence[str] = LABELS) -> pd.Series:
    """Share of each class's utterances that are recognised.

    Parameters and errors as in :func:`weighted_accuracy`.

    Returns
    -------
    pd.Series of float in [0, 1], indexed by label in class order
        NaN where the class does not occur in ``truth``.

    Examples
    --------
    >>> recall_per_class(["sad", "sad", "happy"], ["sad", "neutral", "happy"]).to_dict()
    {'angry': nan, 'sad': 0.5, 'happy': 1.0, 'neutral': nan}
    """
    truth, prediction = _pair(truth, prediction, labels)
    classes = list(range(len(labels)))
    recall = sk.recall_score(truth, prediction, labels=classes, average=None, zero_division=np.nan)
    return pd.Series(recall, index=pd.Index(labels, name="label"), name="recall")


def confusion_matrix(truth, prediction, labels: Sequence[str] = LABELS) -> pd.DataFrame:
    """Number of utterances for each pair of true (row) and predicted (column) label.

    Parameters and errors as in :func:`weighted_accuracy`.

    Returns
    -------
    pd.DataFrame of int, shape (len(labels), len(labels))
        Rows and columns in the order of ``labels``.

    Examples
    --------
    >>> counts = confusion_matrix(["sad", "sad", "happy"], ["sad", "neutral", "happy"])
    >>> int(counts.loc["sad", "neutral"]), int(counts.loc["neutral", "sad"])
    (1, 0)
    """
    truth, prediction = _pair(truth, prediction, labels)
    counts = sk.confusion_matrix(truth, prediction, labels=list(range(len(labels))))
    return pd.DataFrame(
        counts, index=pd.Index(labels, name="truth"), columns=pd.Index(labels, name="prediction")
    )


def score_table(predictions: pd.DataFrame, by: str | list[str]) -> pd.DataFrame:
    """WA, UA and macro-F1 for each value of one or more columns of a prediction table.

    Test rows only, unless ``split`` is one of ``by``.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table: ``utterance_id, speaker, session, truth, prediction, p_angry, p_sad,
        p_happy, p_neutral, fold, seed, variant, split``. Rows of several seeds are pooled unless
        ``seed`` is one of ``by``; variants are never pooled.
    by : str or list of str
        Columns to group by, such as ``"speaker"`` or ``["variant", "fold"]``.

    Returns
    -------
    pd.DataFrame
        The columns of ``by``, sorted, then ``n`` (rows) and ``wa, ua, macro_f1`` (fractions).

    Raises
    ------
    ParameterError
        If columns or test rows are missing, rows repeat, or several variants would be pooled.
    FoldError
        If a speaker is in train and test of the same fold, seed and variant.

    Examples
    --------
    >>> rows = pd.DataFrame({
    ...     "utterance_id": ["a", "b", "c"], "speaker": ["1F", "1F", "1M"], "fold": ["1", "1", "2"],
    ...     "truth": ["sad", "sad", "happy"], "prediction": ["sad", "angry", "happy"],
    ...     "seed": 111, "variant": "corrected", "split": "test"})
    >>> score_table(rows, by="speaker")[["speaker", "n", "wa"]].to_dict("list")
    {'speaker': ['1F', '1M'], 'n': [2, 1], 'wa': [0.5, 1.0]}
    """
    by = [by] if isinstance(by, str) else list(by)
    rows = _checked_rows(predictions, by)
    if "split" not in by:
        rows = _test_rows(rows)
    if "variant" not in by:
        _check_one_variant(rows)
    return pd.DataFrame(
        [(*key, *_scores(group)) for key, group in rows.groupby(by, sort=True, dropna=False)],
        columns=[*by, "n", *SCORES],
    )


def pooled_and_fold_mean(predictions: pd.DataFrame) -> dict[str, float | int]:
    """WA and UA over all test utterances at once, and as the mean over folds.

    The two differ when folds differ in size (WA) or in their classes (UA); the paper reports the
    mean over folds. With several seeds, pooled means all rows of all seeds, and the fold mean
    runs over every pair of fold and seed.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of one variant, see :func:`score_table`; only test rows are used.

    Returns
    -------
    dict
        ``wa_pooled, ua_pooled, wa_fold_mean, ua_fold_mean`` (fractions), ``n_utterances`` and
        ``n_folds`` (distinct, whatever the number of seeds).

    Raises
    ------
    ParameterError, FoldError
        As in :func:`score_table`.

    Examples
    --------
    Fold 1 has 1 of 2 right, fold 2 has 1 of 1: pooled 2/3, mean over folds 3/4.

    >>> rows = pd.DataFrame({
    ...     "utterance_id": ["a", "b", "c"], "speaker": ["1F", "1F", "1M"], "fold": ["1", "1", "2"],
    ...     "truth": ["sad", "sad", "happy"], "prediction": ["sad", "angry", "happy"],
    ...     "seed": 111, "variant": "corrected", "split": "test"})
    >>> scores = pooled_and_fold_mean(rows)
    >>> round(scores["wa_pooled"], 4), scores["wa_fold_mean"]
    (0.6667, 0.75)
    """
    rows = _test_rows(_checked_rows(predictions, UNIT))
    _check_one_variant(rows)
    folds = score_table(rows, by=UNIT)
    return {
        "wa_pooled": weighted_accuracy(rows["truth"], rows["prediction"]),
        "ua_pooled": unweighted_accuracy(rows["truth"], rows["prediction"]),
        "wa_fold_mean": float(folds["wa"].mean()),
        "ua_fold_mean": float(folds["ua"].mean()),
        "n_utterances": int(rows["utterance_id"].nunique()),
        "n_folds": int(rows["fold"].nunique()),
    }


def _scores(rows):
    pair = rows["truth"], rows["prediction"]
    return len(rows), weighted_accuracy(*pair), unweighted_accuracy(*pair), macro_f1(*pair)


def _pair(truth, prediction, labels):
    """Truth and prediction as class indices, checked."""
    labels = list(labels)
    if not labels or len(set(labels)) != len(labels):
        raise ParameterError(f"labels={labels}: expected distinct class names, such as {list(LABELS)}")
    truth, truth_kind = _class_indices(truth, "truth", labels)
    prediction, prediction_kind = _class_indices(prediction, "prediction", labels)
    if len(truth) != len(prediction):
        raise ParameterError(
            f"truth has {len(truth)} utterances and prediction has {len(prediction)}, expected as many; "
            "take both from the same rows of one prediction table"
        )
    if truth_kind != prediction_kind:
        raise ParameterError(
            f"truth holds {truth_kind} values and prediction {prediction_kind} values, expected one kind; "
            "give labels in both or class indices in both"
        )
    return truth, prediction


def _class_indices(values, name, labels):
    expected = f"expected labels {labels} or class indices 0 to {len(labels) - 1}"
    if isinstance(values, str) or np.ndim(values) != 1:
        raise ParameterError(f"{name}={values!r}: {expected}, in a one-dimensional sequence")
    values = pd.Series(list(values), dtype=object)
    if values.empty:
        raise ParameterError(f"{name} is empty: {expected}, at least one; was every row filtered out?")
    kind = pd.api.types.infer_dtype(values, skipna=False)
    known = labels if kind == "string" else range(len(labels)) if kind == "integer" else ()
    indices = pd.Index(known, dtype=object).get_indexer(values)
    if (indices < 0).any():
        at = int(np.argmax(indices < 0))
        detail = "" if len(known) else f" (the sequence is of kind {kind!r})"
        raise ParameterError(
            f"{name}[{at}]={values[at]!r}{detail}: {expected}, of one kind; "
            "drop utterances outside the task before scoring"
        )
    return indices, kind


def _checked_rows(predictions, by):
    """The table, once its columns are there, no row repeats and no speaker leaks."""
    needed = ["utterance_id", "speaker", "truth", "prediction", *UNIT, "split", *by]
    missing = [column for column in dict.fromkeys(needed) if column not in predictions.columns]
    if missing or not by:
        raise ParameterError(
            f"by={by}: prediction table lacks {missing}, has {list(predictions.columns)}; "
            "read predictions.parquet of a run and group by one of its columns"
        )
    identity = [*UNIT, *({"epoch"} & set(by)), "split", "utterance_id"]  # epochs.parquet: once an epoch
    repeated = predictions.duplicated(identity)
    if repeated.any():
        row = predictions.loc[repeated, identity].iloc[0]
        raise ParameterError(
            f"utterance {row['utterance_id']}: more than one {row['split']} row in fold {row['fold']}, "
            f"seed {row['seed']} ({int(repeated.sum())} repeated rows in all), expected one; "
            "was the same predictions.parquet read twice?"
        )
    _check_no_leak(predictions)
    return predictions


def _check_no_leak(predictions):
    counts = (
        predictions.groupby([*UNIT, "speaker", "split"], dropna=False).size().unstack("split", fill_value=0)
    )
    counts = counts.reindex(columns=["train", "test"], fill_value=0)
    leaks = counts[(counts["train"] > 0) & (counts["test"] > 0)]
    if not leaks.empty:
        _, _, fold, speaker = leaks.index[0]
        raise FoldError(
            f"fold {fold}: speaker {speaker} is in train ({leaks['train'].iloc[0]} utterances) and in test "
            f"({leaks['test'].iloc[0]}); was the table edited? Build folds with serkit.folds.make_folds "
            "and predict again"
        )


def _test_rows(rows):
    test = rows[rows["split"] == "test"]
    if test.empty:
        raise ParameterError(
            f"prediction table has no test rows (split is {sorted(map(str, rows['split'].unique()))}), "
            "expected at least one; read predictions.parquet of a finished fold"
        )
    repeated = test.duplicated([*REPEAT, "utterance_id"])
    if repeated.any():
        row = test[repeated].iloc[0]
        raise ParameterError(
            f"utterance {row['utterance_id']}: test row in more than one fold of seed {row['seed']}, "
            "expected one; do not mix runs by speaker and by session in one table"
        )
    return test


def _check_one_variant(rows):
    variants = sorted(map(str, rows["variant"].unique()))
    if len(variants) > 1:
        raise ParameterError(
            f"prediction table mixes variants {variants}, expected one; filter it to one variant, "
            'or use score_table(predictions, by=["variant", ...])'
        )


def utterance_probabilities(mean_log_probability):
    """Probabilities from an utterance's score, the mean of its segments' log-softmax.

    A mean of log-probabilities is a geometric mean, which does not sum to 1: it is divided by its sum.

    Parameters
    ----------
    mean_log_probability : np.ndarray, shape (..., n_classes), float64

    Returns
    -------
    np.ndarray, shape (..., n_classes), float64, summing to 1 over the last axis

    Examples
    --------
    Two segments of which one gives (0.8, 0.2) and the other (0.5, 0.5) speak for 2 to 1:

    >>> score = np.log([[0.8, 0.2], [0.5, 0.5]]).mean(axis=0)
    >>> utterance_probabilities(score).round(4).tolist()
    [0.6667, 0.3333]
    """
    probability = np.exp(mean_log_probability - mean_log_probability.max(axis=-1, keepdims=True))
    return probability / probability.sum(axis=-1, keepdims=True)
