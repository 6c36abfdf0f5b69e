"""Scores with their intervals; the speaker is the unit of chance.

Utterances of one speaker are recognised well or badly together, so the number of speakers, not of
utterances, says how much is known. An interval therefore asks how the score moves when one speaker is left
out (the jackknife), and :mod:`serkit.evaluation.comparison` exchanges whole speakers.

Intervals and tests take the trained models as they are. Folds share most of their training
data, which nothing computed from predictions can see; with several seeds, at least the chance in
training counts as well. None of this mends a leak: scores of the published selection, whose
checkpoint is chosen on the test speakers, are too high, and so are both ends of their intervals.

WA, UA and macro-F1 follow from confusion matrices. So a prediction table is counted once, a matrix for each
speaker, and a speaker left out or two variants exchanged for a speaker is nothing but another vector of weights on
those matrices.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from serkit.constants import SEGMENT_S
from serkit.errors import check_choice, check_range
from serkit.evaluation.predictions import scored_rows
from serkit.folds import seconds_of
from serkit.metrics import PROBABILITY, SCORES, labels_of

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

    def signed(self, unit=""):
        """A difference as text.

        >>> Estimate(-3.0, -5.0, 1.0).signed(" points")
        '−3.0 points [−5.0, +1.0]'
        """
        interval = f" [{self.low:+.1f}, {self.high:+.1f}]" if self.low <= self.high else ""
        return f"{self.value:+.1f}{unit}{interval}".replace("-", "−")


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
        Fractions; without interval for fewer than 5 speakers, NaN without rows.

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
    if tables[0].empty:
        return Estimate(float("nan"))
    counts = [tally(rows, average) for rows in tables]
    value, low, high, _ = interval_limits(counts, score, tables[0]["utterance_id"].nunique())
    return Estimate(value, low, high) if len(counts[0]) >= MIN_CLUSTERS else Estimate(value)


def percent(*tables, score="ua", average="fold_mean"):
    """As :func:`score_interval`, in percent or percentage points."""
    return Estimate(*(100 * value for value in score_interval(*tables, score=score, average=average)))


def mean_over_speakers(values):
    """Mean of one value of each speaker, with its 95 % interval by Student's t; without it for fewer than 5.

    Parameters
    ----------
    values : pd.Series

    Returns
    -------
    Estimate
    """
    if len(values) < MIN_CLUSTERS:
        return Estimate(values.mean())
    reach = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.sem()
    return Estimate(values.mean(), values.mean() - reach, values.mean() + reach)


def class_recall(predictions, folds=None):
    """Recall of each class in class order, between which values it lies, and on how much it rests.

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
    folds : sequence of str or of Fold, optional
        See :func:`serkit.evaluation.predictions.check_predictions`.

    Returns
    -------
    pd.DataFrame
        One row per class, whether it occurs or not: ``label, n_utterances, n_speakers, recall, low, high``
        (fractions). In a class of fewer than 5 speakers, ``low`` and ``high`` are NaN: nothing can be said.

    Raises
    ------
    RunError, ParameterError, FoldError
        As :func:`serkit.evaluation.predictions.check_predictions`.
    """
    rows, records = scored_rows(predictions, folds), []
    for label in labels_of(rows):
        part = rows[rows["truth"] == label]
        n_utterances, n_speakers = part["utterance_id"].nunique(), part["speaker"].nunique()
        record = {"label": label, "n_utterances": n_utterances, "n_speakers": n_speakers}
        records.append(record | _share_right(part, "recall"))
    return pd.DataFrame(records)


def _share_right(rows, name):
    """Share of the rows that are right, under a name, and its interval."""
    return dict(zip((name, "low", "high"), score_interval(rows, score="wa"), strict=True))


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
    confidence = rows.filter(regex=f"^{PROBABILITY}").max(axis=1)
    edges = np.linspace(0, 1, n_bins + 1)
    bins = np.clip(np.searchsorted(edges, confidence) - 1, 0, n_bins - 1)
    values = pd.DataFrame({"confidence": confidence, "accuracy": rows["truth"] == rows["prediction"]})
    n = np.bincount(bins, minlength=n_bins)
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "n": n}).join(values.groupby(bins).mean())


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
        intervals are those of :func:`class_recall`.
    """
    rows = scored_rows(predictions, folds)
    sure = rows.filter(regex=f"^{PROBABILITY}").max(axis=1).rank(pct=True, ascending=False, method="first")
    shares = {share: _share_right(rows[sure <= share], "accuracy") for share in np.arange(1, 11) / 10}
    return pd.DataFrame.from_dict(shares, orient="index").rename_axis("coverage").reset_index()


def slice_table(predictions, manifest, folds=None):
    """UA and recall in parts of the test utterances, and by how much each part differs from the rest of its kind.

    Kinds are gender, session, scene, duration and agreement of the annotators, as far as the corpus knows them. A
    difference is tested by Student's t with the jackknife's error over speakers (and seeds), and all of them are
    corrected together (Holm). Of two parts one difference is tested: the other is the same with another sign.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of one variant; test rows of all seeds count.
    manifest : pd.DataFrame
    folds : sequence of str or of Fold, optional
        See :func:`serkit.evaluation.predictions.check_predictions`.

    Returns
    -------
    pd.DataFrame
        One row per part, the first one all of them: ``slice, part, n_utterances, n_speakers, UA``, the recall of each class, ``difference`` (each an
        :class:`Estimate` in percent or points), ``p_holm``. Fewer than 5 speakers have no interval, and no difference.
    """
    rows = scored_rows(predictions, folds)
    about = manifest.set_index("utterance_id").loc[rows["utterance_id"]].set_index(rows.index)
    names, edges = ["0 to 3 s", "3 to 6 s", "6 s and more"], [0, SEGMENT_S, 2 * SEGMENT_S, np.inf]
    kinds = {
        "gender": about["gender"].map({"F": "female", "M": "male"}),
        "session": about["session"],
        "scene": about["scripted"].map({True: "scripted", False: "improvised"}),
        "duration": pd.cut(seconds_of(about), edges, right=False, labels=names),
        "annotators": pd.cut(about["agreement"], [0, 0.999, np.inf], labels=["disagree", "agree"]),
    }
    records = [{"slice": "all", "part": "utterances"} | _part(rows, np.ones(len(rows), bool), False)]
    for kind, members in kinds.items():
        members = members.dropna().astype(str)
        parts = sorted(members.unique())
        for part in parts if len(parts) > 1 else []:
            tested = len(parts) > 2 or part == parts[0]
            about_part = _part(rows.loc[members.index], (members == part).to_numpy(), tested)
            records.append({"slice": kind, "part": part} | about_part)
    table = pd.DataFrame(records)
    if (known := table["p_holm"].notna()).any():
        table.loc[known, "p_holm"] = multipletests(table.loc[known, "p_holm"], method="holm")[1]
    return table


def _part(rows, inside, tested):
    """A row of :func:`slice_table`, its p not yet corrected: of those of some rows that are ``inside``."""
    part, speakers = rows[inside], [rows.loc[chosen, "speaker"].nunique() for chosen in (inside, ~inside)]
    record = {"n_utterances": part["utterance_id"].nunique(), "n_speakers": speakers[0]}
    record["UA"] = percent(part, average="pooled")
    for label in labels_of(rows):
        record[label] = percent(part[part["truth"] == label], score="wa", average="pooled")
    difference, p = Estimate(float("nan")), float("nan")
    if tested and min(speakers) >= MIN_CLUSTERS:
        # each seed of a part is a unit: first those of the rest, then those of the part
        counts = np.split(tally(rows.assign(fold=inside), "fold_mean"), 2, axis=2)
        *ends, error = interval_limits(counts[::-1], "ua", len(rows))
        difference = Estimate(*(100 * end for end in ends))
        p = 2 * stats.t.sf(abs(ends[0]) / max(error, 1e-12), len(counts[0]) - 1)
    return record | {"difference": difference, "p_holm": p}


def tally(rows, average):
    """Confusion matrices of a prediction table, of which any score follows.

    Parameters
    ----------
    rows : pd.DataFrame
        Test rows of one variant.
    average : {"pooled", "fold_mean"}

    Returns
    -------
    np.ndarray, shape (speakers, seeds, units, classes, classes)
        Truth in rows. A unit is what is scored by itself before averaging: the whole table (pooled), or one fold and
        seed (fold mean).
    """
    labels = labels_of(rows)
    speaker, speakers = pd.factorize(rows["speaker"], sort=True)
    seed, seeds = pd.factorize(rows["seed"], sort=True)
    unit = np.zeros(len(rows), dtype=int)
    if average == "fold_mean":
        unit = pd.factorize(rows["fold"], sort=True)[0] * len(seeds) + seed
    truth, prediction = (rows[column].map(labels.index) for column in ("truth", "prediction"))
    counts = np.zeros((len(speakers), len(seeds), unit.max() + 1, len(labels), len(labels)))
    np.add.at(counts, (speaker, seed, unit, truth, prediction), 1)
    return counts


def score_of(weights, counts, score):
    """The score after giving every speaker, in every seed, a weight.

    A fold counts as much as its speakers weigh: without the only speaker of a fold, the fold does not count. A
    class or fold that is left without utterances does not count, as in :mod:`serkit.metrics`.

    Parameters
    ----------
    weights : np.ndarray, shape (..., speakers, seeds)
    counts : np.ndarray, shape (speakers, seeds, units, classes, classes)
        From :func:`tally`.
    score : {"wa", "ua", "macro_f1"}

    Returns
    -------
    np.ndarray, shape (...)
    """
    matrices = np.tensordot(weights, counts, axes=2)  # (..., units, classes, classes)
    right = np.diagonal(matrices, axis1=-2, axis2=-1)
    true, predicted = matrices.sum(axis=-1), matrices.sum(axis=-2)
    if score == "wa":
        right, whole = right.sum(axis=-1, keepdims=True), true.sum(axis=-1, keepdims=True)
    else:  # recall of each class, or F1 = TP / mean of true and predicted
        whole = true if score == "ua" else (true + predicted) / 2
    ratio = np.divide(right, whole, out=np.zeros(whole.shape), where=whole > 0)
    scores = ratio.sum(axis=-1) / np.maximum((whole > 0).sum(axis=-1), 1)
    member = counts.any(axis=(3, 4))  # (speakers, seeds, units)
    share = np.tensordot(weights, member / np.maximum(member.sum(axis=(0, 1)), 1), axes=2)
    with np.errstate(invalid="ignore"):  # NaN where nobody is left
        return (share * scores).sum(axis=-1) / share.sum(axis=-1)


def interval_limits(counts, score, n_utterances):
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
    counts : list of np.ndarray
        From :func:`tally`; one, or two for a difference.
    score : {"wa", "ua", "macro_f1"}
    n_utterances : int

    Returns
    -------
    tuple of float
        Estimate, low, high, standard error.

    Examples
    --------
    Five speakers with eight of eight right: nothing differs, so it is Wilson's interval of 40 right of 40.

    >>> counts = np.full((5, 1, 1, 1, 1), 8)
    >>> [round(value, 3) for value in interval_limits([counts], "wa", 40)]
    [1.0, 0.912, 1.0, 0.0]
    """

    def value(weights):
        first, *second = (score_of(weights, matrices, score) for matrices in counts)
        return first - sum(second)

    def variance(weights):  # of a score, from those with every speaker, or every seed, left out in turn
        values = value(weights)
        return (len(values) - 1) * values.var()

    n_speakers, n_seeds = counts[0].shape[:2]
    everything = np.ones((n_speakers, n_seeds))
    estimate = value(everything)
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
