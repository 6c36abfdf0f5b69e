"""Scores with their intervals; the speaker is the unit of chance.

Utterances of one speaker are recognised well or badly together, so the number of speakers, not of
utterances, says how much is known. An interval therefore asks how the score moves when one speaker is left
out (the jackknife), and :mod:`serkit.evaluation.comparison` exchanges whole speakers.

Intervals and tests take the trained models as they are. Folds share most of their training
data, which nothing computed from predictions can see; with several seeds, at least the chance in
training counts as well. None of this mends a leak: scores of the published selection, whose
checkpoint is chosen on the test speakers, are too high, and so are both ends of their intervals.

WA, UA and macro-F1 are means of ratios of counts. So a prediction table is counted once, by speaker,
and a speaker left out or two variants exchanged for a speaker is nothing but another vector of weights on
those counts.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from serkit.errors import ParameterError, check_choice, check_range
from serkit.evaluation.predictions import scored_rows
from serkit.metrics import PROBABILITY, SCORES, in_order, labels_of

AVERAGES = ("pooled", "fold_mean")
LEVEL = 0.95  # of 100 such intervals, 95 should hold the true value
MIN_CLUSTERS = 5  # speakers; below, no method comes near its level


class Estimate(NamedTuple):
    """A cell of a table: a number and between which values it lies.

    Markdown and LaTeX show ``64.1 [58.0, 70.2]``, the CSV three columns: ``<name>, <name>_low, <name>_high``.
    """

    value: float
    low: float = float("nan")  # NaN: no interval is known, and none is shown
    high: float = float("nan")


def score_interval(*tables, score="ua", average="pooled"):
    """A score, or the score of one table minus that of another with the same rows, with its 95 % interval over speakers.

    The interval has Wilson's form [1]_ with the jackknife's error, see :func:`interval_limits`. With several seeds
    these are a matter of chance too, independently of speakers: it is of what training with any seed gives. Simulated
    with two seeds it covers 95.4 % where seeds matter a third as much as speakers and 87.1 % where as much (seeds
    taken as they are: 90.8 and 64.5); with five 96.0 and 95.2.

    Simulated coverage of 95 % intervals in percent (1,000 tables each, binomial standard error 0.7;
    ``tests/benchmarks/interval_coverage.py`` computes it). The naive interval takes utterances as independent, which
    is right only if speakers do not differ.

    =================================  ========  =====
    score and setting                  speakers  naive
    =================================  ========  =====
    UA, 10 speakers (IEMOCAP)          94.6      42.7
    WA, the same                       94.9      41.2
    macro-F1, the same                 94.5
    UA, mean over 10 speakers          94.6
    UA, mean over 5 sessions           94.7
    UA, speakers hardly differ         96.1      91.8
    UA near 93, speakers differ        93.6      35.4
    WA, the fluent talk more           93.5      22.1
    UA, 24 actors (RAVDESS)            94.0      86.4
    UA, 5 speakers only                94.8      44.5
    UA, difference of variants         96.0
    =================================  ========  =====

    Parameters
    ----------
    *tables : pd.DataFrame
        One or two, as :func:`serkit.evaluation.predictions.scored_rows` gives them.
    score : {"ua", "wa", "macro_f1"}
    average : {"pooled", "fold_mean"}
        Over all rows at once, or the mean over folds (and seeds) that the paper reports.

    Returns
    -------
    Estimate
        Fractions; without interval for fewer than 5 speakers.

    Raises
    ------
    ParameterError
        If an argument is none of those.

    References
    ----------
    .. [1] Wilson: Probable Inference, the Law of Succession, and Statistical Inference, JASA 22, 1927.
    """
    check_choice("score", score, SCORES)
    check_choice("average", average, AVERAGES)
    rows = tables[0]
    n_speakers, n_seeds = rows["speaker"].nunique(), rows["seed"].nunique()
    counts = [tally(table, score, average, by_seed=True) for table in tables]
    value, low, high, _ = interval_limits(counts, n_speakers, n_seeds, rows["utterance_id"].nunique())
    return Estimate(value, low, high) if n_speakers >= MIN_CLUSTERS else Estimate(value)


def percent(*tables, score="ua", average="fold_mean"):
    """As :func:`score_interval`, in percent or percentage points."""
    return Estimate(*(100 * value for value in score_interval(*tables, score=score, average=average)))


def subset_accuracy(predictions, subsets, folds=None):
    """Share of right utterances in each subset, between which values it lies, and on how much it rests.

    The intervals are those of :func:`score_interval` for WA. Simulated coverage of 95 % intervals in percent, lowest
    and highest for shares of 50, 70, 80, 90, 95 and 98 % (4,000 tables each, binomial standard error 0.3;
    ``tests/benchmarks/interval_coverage.py --shares`` computes it); speakers' log-odds have the standard deviation on
    top:

    ==============================  ==========  ==========  ==========  ==========
    speakers, utterances of each    0           0.4         0.8         1.2
    ==============================  ==========  ==========  ==========  ==========
    10, about 110 (IEMOCAP)         96.9–97.5   94.4–96.5   93.0–94.6   90.0–95.0
    10, about 8 (demo corpus)       96.2–97.4   96.3–97.0   94.8–97.2   94.5–97.8
    24, about 110                   95.9–96.9   94.5–95.2   92.8–95.0   91.1–94.8
    24, about 8 (RAVDESS)           95.7–96.7   95.2–96.0   94.8–96.0   94.2–95.6
    ==============================  ==========  ==========  ==========  ==========

    It is too narrow only where speakers differ greatly and most of them are near 100 %: then those few who are not
    may be missing from a sample.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of one variant; test rows of all seeds count.
    subsets : pd.Series, categorical
        Subset of each utterance, indexed by utterance id. Categories without utterances keep their row.
    folds : sequence of str or of Fold, optional
        See :func:`serkit.evaluation.predictions.check_predictions`.

    Returns
    -------
    pd.DataFrame
        One row per subset: ``subset, n_utterances, n_speakers, accuracy, low, high`` (fractions). In
        a subset of fewer than 5 speakers, ``low`` and ``high`` are NaN: nothing can be said.

    Raises
    ------
    ParameterError
        If a tested utterance is in no subset.
    RunError, FoldError
        As :func:`serkit.evaluation.predictions.check_predictions`.
    """
    rows = scored_rows(predictions, folds)
    member = rows["utterance_id"].map(subsets)
    lost = rows["utterance_id"][member.isna()]
    if len(lost):
        about = f"utterance {lost.iloc[0]} is in no subset ({lost.nunique()} such utterances)"
        raise ParameterError(f"{about}, expected one for each; give the manifest of the run")
    records = []
    for name in subsets.cat.categories:
        part = rows[member == name]
        n_utterances, n_speakers = part["utterance_id"].nunique(), part["speaker"].nunique()
        record = {"subset": name, "n_utterances": n_utterances, "n_speakers": n_speakers}
        records.append(record | _accuracy(part))
    return pd.DataFrame(records)


def _accuracy(part):
    """Share of right rows with its interval."""
    accuracy, low, high = score_interval(part, score="wa") if len(part) else Estimate(float("nan"))
    return {"accuracy": accuracy, "low": low, "high": high}


def class_recall(predictions, folds=None):
    """Recall of each class with its interval, in class order.

    Parameters, errors: as :func:`subset_accuracy`.

    Returns
    -------
    pd.DataFrame
        As :func:`subset_accuracy`, with ``label`` and ``recall`` in place of ``subset`` and ``accuracy``.
    """
    truth = scored_rows(predictions, folds).drop_duplicates("utterance_id").set_index("utterance_id")["truth"]
    classes = truth.astype(pd.CategoricalDtype(labels_of(predictions)))
    table = subset_accuracy(predictions, classes, folds)
    return table.rename(columns={"subset": "label", "accuracy": "recall"})


def reliability_table(predictions, n_bins=10, folds=None):
    """How often predictions of a given confidence are right.

    Confidence is the probability of the predicted label. Bins are of equal width, open below and
    closed above, as in [1]_; with four classes those below 0.25 stay empty.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of one variant; test rows of all seeds count.
    n_bins : int, 1 to 100
    folds : sequence of str or of Fold, optional
        See :func:`serkit.evaluation.predictions.check_predictions`.

    Returns
    -------
    pd.DataFrame
        One row per bin: ``low, high`` (edges), ``n``, mean ``confidence`` and ``accuracy`` (both
        fractions, NaN in an empty bin).

    Raises
    ------
    ParameterError, RunError, FoldError
        If ``n_bins`` is out of range, or as :func:`serkit.evaluation.predictions.check_predictions`.

    References
    ----------
    .. [1] Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017.
    """
    check_range("n_bins", n_bins, 1, 100, whole=True)
    rows = scored_rows(predictions, folds)
    confidence = rows.filter(regex=f"^{PROBABILITY}").to_numpy(float).max(axis=1)
    edges = np.linspace(0, 1, n_bins + 1)
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, n_bins - 1)
    right = (rows["truth"] == rows["prediction"]).to_numpy(float)
    n = np.bincount(bins, minlength=n_bins)
    table = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "n": n})
    for name, values in (("confidence", confidence), ("accuracy", right)):
        table[name] = np.bincount(bins, weights=values, minlength=n_bins) / table["n"]
    return table


def expected_calibration_error(predictions, n_bins=10, folds=None):
    """Mean gap between confidence and accuracy over bins, each weighing as many rows as it holds.

    It is biased upward when bins hold few utterances and depends on ``n_bins``: give both with it.

    Parameters and errors as in :func:`reliability_table`.

    Returns
    -------
    float in [0, 1]

    Examples
    --------
    Two predictions with confidence 0.75, one right: the gap is 0.25.

    >>> rows = pd.DataFrame({
    ...     "utterance_id": ["a", "b"], "speaker": "1F", "session": "1", "truth": ["sad", "happy"],
    ...     "prediction": "sad", "p_angry": 0.0, "p_sad": 0.75, "p_happy": 0.25, "p_neutral": 0.0,
    ...     "fold": "1", "seed": 111, "variant": "corrected_last_session_demo", "split": "test"})
    >>> expected_calibration_error(rows)
    0.25
    """
    table = reliability_table(predictions, n_bins, folds)
    gap = (table["confidence"] - table["accuracy"]).abs()
    return float((gap * table["n"]).sum() / table["n"].sum())


def risk_coverage(predictions, folds=None):
    """How often a model is right if it answers only when it is surest.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of one variant; test rows of all seeds count.
    folds : sequence of str or of Fold, optional
        See :func:`serkit.evaluation.predictions.check_predictions`.

    Returns
    -------
    pd.DataFrame
        ``coverage`` (share of utterances that get an answer, from 10 to 100 %), ``accuracy, low, high``; fractions. The
        intervals are those of :func:`subset_accuracy`.
    """
    rows = scored_rows(predictions, folds)
    sure = rows.filter(regex=f"^{PROBABILITY}").max(axis=1).rank(pct=True, ascending=False, method="first")
    records = []
    for coverage in np.arange(1, 11) / 10:
        records.append({"coverage": coverage} | _accuracy(rows[sure <= coverage]))
    return pd.DataFrame(records)


class Tally(NamedTuple):
    """Counts of a prediction table, one cell for each speaker (or each speaker and seed).

    A unit is what is scored by itself before averaging: the whole table (pooled), or one fold and
    seed (fold mean).
    """

    numerator: np.ndarray  # (cells, units, ratios)
    denominator: np.ndarray  # (cells, units, ratios)
    share: np.ndarray  # (cells, units), of a unit's cells; sums to 1 over the cells


def tally(rows, score, average, by_seed=False):
    """Count test rows for one score.

    Parameters
    ----------
    rows : pd.DataFrame
        Test rows of one variant.
    score : {"wa", "ua", "macro_f1"}
    average : {"pooled", "fold_mean"}
    by_seed : bool
        Whether each seed of a speaker gets a cell of its own; cells are ordered by speaker, then seed.

    Returns
    -------
    Tally
    """
    cell, speakers = pd.factorize(rows["speaker"], sort=True)
    seed, seeds = pd.factorize(rows["seed"], sort=True)
    n_cells, unit = len(speakers), np.zeros(len(rows), dtype=int)
    if by_seed:
        cell, n_cells = cell * len(seeds) + seed, n_cells * len(seeds)
    if average == "fold_mean":
        unit = pd.factorize(rows["fold"], sort=True)[0] * len(seeds) + seed
    numerator, denominator = _ratios_of_rows(rows, score)
    sums = np.zeros((2, n_cells, unit.max() + 1, numerator.shape[1]))
    np.add.at(sums, (slice(None), cell, unit), np.stack([numerator, denominator]))
    member = np.zeros(sums.shape[1:3])
    member[cell, unit] = 1.0
    return Tally(*sums, member / np.maximum(member.sum(axis=0), 1.0))


def _ratios_of_rows(rows, score):
    """What each row adds to the ratios whose mean is the score."""
    labels = np.array(in_order({*rows["truth"], *rows["prediction"]}))
    truth = rows["truth"].to_numpy(str)[:, None] == labels
    prediction = rows["prediction"].to_numpy(str)[:, None] == labels
    right = truth & prediction
    if score == "wa":  # right / all
        return right.any(axis=1, keepdims=True).astype(float), np.ones((len(rows), 1))
    if score == "ua":  # recall of each class
        return right.astype(float), truth.astype(float)
    return 2.0 * right, truth.astype(float) + prediction  # F1 = 2 TP / (true + predicted)


def score_of(weights, counts):
    """The score after giving every cell a weight.

    A fold counts as much as its cells weigh: without the only speaker of a fold, the fold does not count. A
    class or fold that is left without utterances does not count, as in :mod:`serkit.metrics`.

    Parameters
    ----------
    weights : np.ndarray, shape (..., cells)
    counts : Tally

    Returns
    -------
    np.ndarray, shape (...)
    """
    cells, units, ratios = counts.numerator.shape
    shape = (*weights.shape[:-1], units, ratios)
    numerator = (weights @ counts.numerator.reshape(cells, -1)).reshape(shape)
    denominator = (weights @ counts.denominator.reshape(cells, -1)).reshape(shape)
    occurs = denominator > 0
    ratio = np.divide(numerator, denominator, out=np.zeros(shape), where=occurs)
    scores = ratio.sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1)
    share = (weights @ counts.share) * occurs.any(axis=-1)
    with np.errstate(invalid="ignore"):  # NaN where nobody is left
        return (share * scores).sum(axis=-1) / share.sum(axis=-1)


def interval_limits(counts, n_speakers, n_seeds, n_utterances):
    """A score, or the difference of two, with its interval and standard error.

    The error is the jackknife's over speakers and, where there are several, seeds. The variances of the two are
    added, which counts what is peculiar to a pair of speaker and seed twice: on the safe side. The quantile is that
    of Student's t with one degree of freedom less than speakers.

    The interval of a difference is the estimate plus and minus t errors, cut to [-1, 1]. That of a score has
    Wilson's form: it holds every value p from which the measured one is at most t errors away, at the error that p
    would have, which goes down to 0 and 1 as p (1 - p) does. So it stays inside [0, 1] and is not empty where all
    are right. It is never narrower than for a share of as many independent utterances.

    Parameters
    ----------
    counts : list of Tally
        One, or two for a difference, whose cells are ordered by speaker, then seed.
    n_speakers, n_seeds, n_utterances : int
        With ``n_seeds=1`` there is a cell for each speaker.

    Returns
    -------
    tuple of float
        Estimate, low, high, standard error.

    Examples
    --------
    Five speakers with eight of eight right: nothing differs, so it is Wilson's interval of 40 right of 40.

    >>> counts = Tally(np.full((5, 1, 1), 8.0), np.full((5, 1, 1), 8.0), np.full((5, 1), 0.2))
    >>> [round(value, 3) for value in interval_limits([counts], 5, 1, 40)]
    [1.0, 0.912, 1.0, 0.0]
    """

    def value(weights):
        first, *second = (score_of(weights, tallied) for tallied in counts)
        return first - sum(second)

    def variance(weights):  # of a score, from those with every speaker, or every seed, left out in turn
        values = value(weights.reshape(len(weights), -1))
        return (len(values) - 1) * values.var()

    everything = np.ones((n_speakers, n_seeds))
    estimate = value(everything.ravel())
    squared = variance(everything - np.eye(n_speakers)[:, :, None])
    if n_seeds > 1:
        squared += variance(everything - np.eye(n_seeds)[:, None, :])
    error, upper = np.sqrt(squared), (1 + LEVEL) / 2
    t = stats.t.ppf(upper, n_speakers - 1)
    if len(counts) > 1:
        middle, reach, lowest = estimate, t * error, -1.0
    else:
        scale, spread, lowest = stats.norm.ppf(upper) ** 2 / n_utterances, estimate * (1 - estimate), 0.0
        if spread > 1e-12:
            scale = max(scale, (t * error) ** 2 / spread)
        middle = (estimate + scale / 2) / (1 + scale)
        reach = np.sqrt(scale * spread + scale**2 / 4) / (1 + scale)
    low, high = np.clip([middle - reach, middle + reach], lowest, 1.0)
    return float(estimate), float(low), float(high), float(error)
