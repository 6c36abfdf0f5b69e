"""Scores of predicted emotions, from (truth, prediction) or from a prediction table.

All scores are fractions in [0, 1]; multiply by 100 when printing. WA is the share of utterances
that are right, so frequent classes weigh more; UA is the mean recall of the classes, so each class
weighs the same.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn import metrics as sk

from serkit.constants import CORPORA, LABELS
from serkit.errors import ParameterError, shown

REPEAT = ["variant", "seed"]  # one pass over the corpus
UNIT = ["variant", "seed", "fold"]  # one trained model
SCORES = ("wa", "ua", "macro_f1")
PROBABILITY = "p_"  # begins the columns of a prediction table that hold probabilities, one for each class


def in_order(labels):
    """Classes in the order that everything keeps: the paper's first, then others by name.

    >>> in_order({"bored", "sad", "angry"})
    ('angry', 'sad', 'bored')
    """
    present = set(labels)
    return (*(label for label in LABELS if label in present), *sorted(present - set(LABELS)))


def classes_of(manifest):
    """Classes of a corpus: the paper's four, or those of a table of one's own, in order.

    Parameters
    ----------
    manifest : pd.DataFrame
        Columns ``label`` and ``corpus``.

    Returns
    -------
    tuple of str
    """
    released = manifest["corpus"].isin(CORPORA).all()
    return LABELS if released else in_order(manifest["label"].dropna())


def labels_of(predictions):
    """Classes of a prediction table, in the order of its columns ``p_...``; without any, the paper's four.

    >>> labels_of(pd.DataFrame(columns=["truth", "p_sad", "p_bored"]))
    ('sad', 'bored')
    """
    named = tuple(name.removeprefix(PROBABILITY) for name in predictions if name.startswith(PROBABILITY))
    return named or LABELS


def chance_ua(labels=LABELS):
    """UA of guessing, in percent.

    >>> chance_ua()
    25.0
    """
    return 100.0 / len(labels)


def weighted_accuracy(truth, prediction, labels: Sequence[str] = LABELS) -> float:
    """Share of utterances whose label is right (WA).

    Parameters
    ----------
    truth, prediction : sequence of str or of int, length n
        Labels, or class indices ``0 .. len(labels) - 1``. Compared by position: the index of a
        Series is not looked at.
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
    return pd.DataFrame(counts, pd.Index(labels, name="truth"), pd.Index(labels, name="prediction"))


def score_table(predictions: pd.DataFrame, by: str | list[str]) -> pd.DataFrame:
    """WA, UA and macro-F1 for each value of one or more columns of a prediction table.

    Test rows only, unless ``split`` is one of ``by``. Whether the table is whole and free of leaks is
    not asked here: :func:`serkit.evaluation.predictions.check_predictions` does that.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table with ``truth, prediction, split, variant`` and the columns of ``by``. Rows of
        several seeds are pooled unless ``seed`` is one of ``by``; variants are never pooled.
    by : str or list of str
        Columns to group by, such as ``"speaker"`` or ``["variant", "fold"]``.

    Returns
    -------
    pd.DataFrame
        The columns of ``by``, sorted, then ``n`` (rows) and ``wa, ua, macro_f1`` (fractions).

    Raises
    ------
    ParameterError
        If a column is missing or several variants would be pooled.

    Examples
    --------
    >>> rows = pd.DataFrame({
    ...     "speaker": ["1F", "1F", "1M"], "truth": ["sad", "sad", "happy"],
    ...     "prediction": ["sad", "angry", "happy"], "variant": "corrected", "split": "test"})
    >>> score_table(rows, by="speaker")[["speaker", "n", "wa"]].to_dict("list")
    {'speaker': ['1F', '1M'], 'n': [2, 1], 'wa': [0.5, 1.0]}
    """
    by = [by] if isinstance(by, str) else list(by)
    missing = [column for column in by if column not in predictions.columns]
    if missing or not by:
        there = list(predictions.columns)
        raise ParameterError(f"by={by}: the prediction table lacks {missing}; group by some of {there}")
    rows = predictions if "split" in by else predictions[predictions["split"] == "test"]
    if "variant" not in by:
        check_one_variant(rows)
    records, labels = [], labels_of(predictions)
    for key, group in rows.groupby(by, dropna=False):
        pair = group["truth"], group["prediction"], labels
        scores = [score(*pair) for score in (weighted_accuracy, unweighted_accuracy, macro_f1)]
        records.append((*key, len(group), *scores))
    return pd.DataFrame(records, columns=[*by, "n", *SCORES])


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
    ParameterError
        If there are no test rows or several variants.

    Examples
    --------
    Fold 1 has 1 of 2 right, fold 2 has 1 of 1: pooled 2/3, mean over folds 3/4.

    >>> rows = pd.DataFrame({
    ...     "utterance_id": ["a", "b", "c"], "fold": ["1", "1", "2"], "truth": ["sad", "sad", "happy"],
    ...     "prediction": ["sad", "angry", "happy"], "seed": 111, "variant": "corrected", "split": "test"})
    >>> scores = pooled_and_fold_mean(rows)
    >>> round(scores["wa_pooled"], 4), scores["wa_fold_mean"]
    (0.6667, 0.75)
    """
    rows = predictions[predictions["split"] == "test"]
    check_one_variant(rows)
    folds, pair = score_table(rows, by=UNIT), (rows["truth"], rows["prediction"], labels_of(rows))
    return {
        "wa_pooled": weighted_accuracy(*pair),
        "ua_pooled": unweighted_accuracy(*pair),
        "wa_fold_mean": float(folds["wa"].mean()),
        "ua_fold_mean": float(folds["ua"].mean()),
        "n_utterances": int(rows["utterance_id"].nunique()),
        "n_folds": int(rows["fold"].nunique()),
    }


def check_one_variant(predictions):
    """Refuse a prediction table of several variants: their rows are never pooled."""
    variants = sorted(predictions["variant"].astype(str).unique())
    if len(variants) > 1:
        raise ParameterError(f"prediction table mixes variants {variants}, expected one; filter it to one")


def hardly_learned(history, labels=LABELS):
    """What there is to say of a training whose loss hardly moved, or whose accuracy stayed near chance.

    Its last training loss is above 95 % of that of a guess, or its best training UA less than 5 points above chance.

    Parameters
    ----------
    history : pd.DataFrame
        One row per epoch: ``train_loss``, ``train_ua`` and ``learning_rate`` at least.
    labels : sequence of str, optional
        The classes.

    Returns
    -------
    str
        A sentence; empty where the training learned.

    Examples
    --------
    >>> epochs = pd.DataFrame({"train_loss": [1.39, 1.38], "train_ua": [0.24, 0.31], "learning_rate": 1e-5})
    >>> hardly_learned(epochs).partition(";")[0]
    'it hardly learned: last training loss 1.380 (a guess: 1.386), best training UA 31.0% (a guess: 25.0%)'
    >>> hardly_learned(epochs.assign(train_loss=[1.39, 1.2]))
    ''
    """
    loss, ua, rate = history["train_loss"].iloc[-1], history["train_ua"].max(), history["learning_rate"].max()
    guess_loss, chance = float(np.log(len(labels))), chance_ua(labels)
    if not (loss > 0.95 * guess_loss or 100 * ua < chance + 5):
        return ""
    about = f"last training loss {loss:.3f} (a guess: {guess_loss:.3f}), best training UA {ua:.1%} (a guess: {chance / 100:.1%})"
    usual = "what begins from random weights wants about 1e-3, a pretrained encoder that is fine-tuned 1e-5"
    cure = f"allow more epochs, or change the learning rate, at most {rate:.2g} so far: {usual}; under a new run name"
    return f"it hardly learned: {about}; {cure}"


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
    return softmax(mean_log_probability, axis=-1)


def at_temperature(probabilities, temperature):
    """Probabilities of a softmax whose scores are divided by a temperature: above 1 they claim less, below 1 more.

    The likeliest class stays the likeliest.

    Parameters
    ----------
    probabilities : np.ndarray, shape (..., n_classes)
    temperature : float or np.ndarray that fits

    Returns
    -------
    np.ndarray, shape (..., n_classes)

    Examples
    --------
    >>> at_temperature(np.array([0.8, 0.2]), 2.0).round(4).tolist()
    [0.6667, 0.3333]
    """
    return utterance_probabilities(np.log(np.maximum(probabilities, np.finfo(float).tiny)) / temperature)


def fit_temperature(probabilities, truth):
    """The temperature at which probabilities fit the truth best: lowest mean cross-entropy [1]_.

    Parameters
    ----------
    probabilities : np.ndarray, shape (n, n_classes)
    truth : np.ndarray of int, shape (n,)
        Class indices.

    Returns
    -------
    float, 0.05 to 20

    Examples
    --------
    Always 0.9 sure and right in two of three cases: 0.9 becomes 0.667.

    >>> probabilities = np.array([[0.9, 0.1]] * 3)
    >>> temperature = fit_temperature(probabilities, np.array([0, 0, 1]))
    >>> at_temperature(probabilities[0], temperature).round(3).tolist()
    [0.667, 0.333]

    References
    ----------
    .. [1] Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017.
    """

    def cross_entropy(log_temperature):
        fitted = at_temperature(probabilities, np.exp(log_temperature))
        return -np.log(np.maximum(fitted[np.arange(len(truth)), truth], np.finfo(float).tiny)).mean()

    return float(np.exp(minimize_scalar(cross_entropy, bounds=np.log([0.05, 20]), method="bounded").x))


def certainty(predictions):
    """What the validation speakers say about how sure a model may be.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of one fold; its validation rows are used.

    Returns
    -------
    dict
        ``temperature``, and ``confidence``: of the validation utterances' probabilities at that temperature the 0, 5,
        ..., 100 % quantiles. Empty without validation speakers, or where they are the tested ones.
    """
    rows, tested = (predictions[predictions["split"] == split] for split in ("validation", "test"))
    if rows.empty or set(rows["speaker"]) & set(tested["speaker"]):
        return {}
    labels = labels_of(rows)
    probabilities = rows[[PROBABILITY + label for label in labels]].to_numpy(float)
    temperature = fit_temperature(probabilities, rows["truth"].map(labels.index).to_numpy())
    highest = at_temperature(probabilities, temperature).max(axis=1)
    return {"temperature": temperature, "confidence": np.quantile(highest, np.linspace(0, 1, 21)).tolist()}


def calibrated(predictions):
    """A prediction table whose test rows have probabilities at the temperature of their fold's validation speakers.

    Parameters
    ----------
    predictions : pd.DataFrame

    Returns
    -------
    pd.DataFrame
        Test rows. Without those of folds that no validation speakers speak for.
    """
    parts, columns = [], [PROBABILITY + label for label in labels_of(predictions)]
    for _, rows in predictions.groupby(UNIT):
        if known := certainty(rows):
            tested = rows[rows["split"] == "test"].copy()
            tested[columns] = at_temperature(tested[columns].to_numpy(float), known["temperature"])
            parts.append(tested)
    return pd.concat(parts, ignore_index=True) if parts else predictions[:0]


def _pair(truth, prediction, labels):
    """Truth and prediction as class indices, checked."""
    labels = list(labels)
    truth, prediction = _indices(truth, "truth", labels), _indices(prediction, "prediction", labels)
    if len(truth) != len(prediction):
        lengths = f"truth has {len(truth)} utterances and prediction has {len(prediction)}"
        raise ParameterError(f"{lengths}, expected as many; take both from the same rows")
    return truth, prediction


def _indices(values, name, labels):
    expected = f"expected labels {labels} or class indices 0 to {len(labels) - 1}"
    if isinstance(values, str) or np.ndim(values) != 1:
        raise ParameterError(f"{name}={shown(values)}: {expected}, in a one-dimensional sequence")
    values = pd.Series(list(values), dtype=object)
    if values.empty:
        raise ParameterError(f"{name} is empty: {expected}, at least one; was every row filtered out?")
    kind = pd.api.types.infer_dtype(values, skipna=False)
    known = {"string": labels, "integer": range(len(labels))}.get(kind, ())
    indices = pd.Index(known, dtype=object).get_indexer(values)
    if (indices < 0).any():
        at = int(np.argmax(indices < 0))
        given = f"{name}[{at}]={shown(values[at])} (the sequence holds values of kind {kind!r})"
        raise ParameterError(f"{given}: {expected}, all of one kind; drop utterances outside the task")
    return indices
