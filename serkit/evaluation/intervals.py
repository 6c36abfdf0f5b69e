"""Scores of variants with their intervals; the speaker is the unit of chance.

Utterances of one speaker are recognised well or badly together, so the number of speakers, not of
utterances, says how much is known. So whole speakers are drawn here, and exchanged in
:mod:`serkit.evaluation.comparison`; what comes out if utterances are taken as independent stands beside it, as a
warning.

Intervals and tests take the trained models as they are. Folds share most of their training
data, which no resampling of predictions can see; with several seeds, at least the chance in
training is drawn as well. None of this mends a leak: scores of the published selection, whose
checkpoint is chosen on the test speakers, are too high, and so are both ends of their intervals.
"""

from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from serkit.errors import ParameterError
from serkit.evaluation.predictions import check_predictions, scored_rows
from serkit.evaluation.resampling import METHODS, cluster_limits, row_limits, score_of, tally
from serkit.metrics import SCORES, UNIT, pooled_and_fold_mean, recall_per_class, score_table

AVERAGES = ("pooled", "fold_mean")
CLUSTERS = ("speaker", "session", None)
MIN_CLUSTERS = 5  # below, no method comes near its level
RESAMPLES = 10_000
SEED = 20220522  # any number: with it every interval is the same in each call


class Estimate(NamedTuple):
    """A cell of a table: a number and between which values it lies.

    Markdown and LaTeX show ``64.1 [58.0, 70.2]``, the CSV three columns: ``<name>, <name>_low, <name>_high``.
    """

    value: float
    low: float = float("nan")  # NaN: no interval is known, and none is shown
    high: float = float("nan")


@dataclass(frozen=True)
class Interval:
    """A score or difference of scores, and between which values it lies."""

    estimate: float  # fraction
    low: float
    high: float
    standard_error: float  # jackknife; of the resamples for utterances
    level: float  # 0.95: of 100 such intervals, 95 should hold the true value
    cluster: str  # what was drawn: speaker, session or utterance
    n_clusters: int
    n_seeds: int  # seeds that were drawn too; 1: seeds taken as they are
    method: str


def summary_table(predictions, folds=None):
    """WA, UA and macro-F1 of each variant: fold mean and pooled, and how far folds and seeds spread.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of any number of variants and seeds.
    folds : sequence of str or of Fold, optional
        See :func:`serkit.evaluation.predictions.check_predictions`.

    Returns
    -------
    pd.DataFrame
        One row per variant and score: ``variant, score, fold_mean, pooled, fold_sd`` (standard
        deviation between folds, each averaged over seeds), ``seed_sd`` (between the fold means of
        the seeds; NaN with one seed), ``n_folds, n_seeds, n_utterances``. Fractions.

    Raises
    ------
    ParameterError, RunError, FoldError
        As :func:`serkit.evaluation.predictions.check_predictions`.
    """
    check_predictions(predictions, folds)
    pooled = score_table(predictions, by="variant").set_index("variant")
    units = score_table(predictions, by=UNIT)
    records = []
    for variant, rows in predictions.groupby("variant"):
        counts, mine = pooled_and_fold_mean(rows), units[units["variant"] == variant]
        for score in SCORES:
            records.append({
                "variant": variant, "score": score,
                "fold_mean": mine[score].mean(), "pooled": pooled.loc[variant, score],
                "fold_sd": mine.groupby("fold")[score].mean().std(ddof=1),
                "seed_sd": mine.groupby("seed")[score].mean().std(ddof=1),
                "n_folds": counts["n_folds"], "n_seeds": mine["seed"].nunique(),
                "n_utterances": counts["n_utterances"],
            })  # fmt: skip
    return pd.DataFrame(records)


def class_table(predictions, by="variant", folds=None):
    """Recall of each class for each value of one or more columns, such as ``["variant", "speaker"]``.

    Parameters
    ----------
    predictions : pd.DataFrame
        As in :func:`summary_table`; rows of several seeds are pooled unless ``seed`` is in ``by``.
    by : str or list of str
        Must contain ``variant`` if there are several.
    folds : sequence of str or of Fold, optional

    Returns
    -------
    pd.DataFrame
        The columns of ``by``, ``label, n`` (rows of that truth) and ``recall`` (NaN where n is 0).

    Raises
    ------
    ParameterError, RunError, FoldError
        As :func:`serkit.metrics.score_table` and :func:`serkit.evaluation.predictions.check_predictions`.
    """
    check_predictions(predictions, folds)
    by = [by] if isinstance(by, str) else list(by)
    score_table(predictions, by)  # refuses what can't be grouped
    parts = []
    for key, rows in predictions[predictions["split"] == "test"].groupby(by):
        recall = recall_per_class(rows["truth"], rows["prediction"])
        n = rows["truth"].value_counts().reindex(recall.index, fill_value=0)
        part = pd.DataFrame({"label": recall.index, "n": n.to_numpy(), "recall": recall.to_numpy()})
        parts.append(pd.DataFrame([key] * len(part), columns=by).join(part))
    return pd.concat(parts, ignore_index=True)


def bootstrap_interval(
    predictions, score="ua", *, average="pooled", cluster="speaker", method=None, resample_seeds=True,
    level=0.95, n_resamples=RESAMPLES, seed=SEED, folds=None,
):  # fmt: skip
    """Interval of a score, by drawing speakers with replacement.

    With ten speakers the percentiles of the resamples are too narrow: a bootstrap of n clusters
    misses a share of about 1/n of their variance and knows nothing of Student's t. Each resample
    is therefore divided by its own jackknife error (bootstrap-t [1]_), which stays within 1.5
    points of 95 % in every setting tried. The price: one odd speaker can stretch the interval far
    to that speaker's side. Simulated coverage of 95 % intervals in percent (1,000 tables each,
    binomial standard error 0.7; ``tests/benchmarks/interval_coverage.py`` computes it):

    =================================  ===========  ===========  ==========  =====  ====  =====
    score and setting                  bootstrap-t  jackknife-t  percentile  basic  BCa   naive
    =================================  ===========  ===========  ==========  =====  ====  =====
    UA, 10 speakers (IEMOCAP)          95.3         95.1         90.5        88.8   90.1  43.7
    WA, the same                       95.1         93.9         90.0        89.5   90.4  39.7
    macro-F1, the same                 94.9         94.3         90.3        90.3   90.0  42.1
    UA, mean over 10 speakers          93.6         94.1         87.8        87.8   87.9
    UA, mean over 5 sessions           93.8         94.5         87.9        88.4   87.4
    UA, speakers hardly differ         95.1         94.7         90.3        89.8   89.9  90.8
    UA near 93, speakers differ        95.0         93.1         88.6        87.5   89.1  34.3
    WA, the fluent talk more           94.7         93.5         86.5        84.8   87.2  24.1
    UA, 24 actors (RAVDESS)            95.4         94.5         92.2        91.7   92.3  87.7
    UA, 5 speakers only                93.6         94.2         82.3        82.3   82.5  45.5
    UA, difference of variants         94.3         95.0         89.6        89.4   90.2
    =================================  ===========  ===========  ==========  =====  ====  =====

    The naive interval takes utterances as independent. It is right only if speakers do not differ.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of one variant; test rows are used.
    score : {"ua", "wa", "macro_f1"}
    average : {"pooled", "fold_mean"}
        Over all rows at once, or the mean over folds (and seeds) that the paper reports.
    cluster : {"speaker", "session", None}
        What is drawn. None draws utterances one by one: the naive interval, for comparison only.
    method : {"bootstrap-t", "jackknife-t", "percentile", "basic", "bca"}, optional
        Default bootstrap-t; for ``cluster=None`` there is only percentile.
    resample_seeds : bool
        Whether seeds are drawn too, independently of speakers, if there are several: the interval
        is then of what training with any seed gives. Simulated with two seeds it covers 95.6 %
        where seeds matter a third as much as speakers and 89.8 % where as much (seeds as they are:
        91.2 and 67.0); with five 95.5 and 94.7. False: of these very seeds. A drawn speaker or
        utterance always brings the rows of all its seeds.
    level : float, 0.5 to 0.999
    n_resamples : int, 200 to 1,000,000
    seed : int
        Of the draws.
    folds : sequence of str or of Fold, optional
        See :func:`serkit.evaluation.predictions.check_predictions`.

    Returns
    -------
    Interval
        Ends are cut to [0, 1].

    Raises
    ------
    ParameterError
        If an argument is out of range or there are fewer than 5 clusters.
    RunError, FoldError
        As :func:`serkit.evaluation.predictions.check_predictions`.

    References
    ----------
    .. [1] Efron, Tibshirani: An Introduction to the Bootstrap, 1993, section 12.5.
    """
    check_choice(score=(score, SCORES), average=(average, AVERAGES), cluster=(cluster, CLUSTERS))
    rows = scored_rows(predictions, folds)
    return clustered_interval(
        [rows], score, average, cluster, method, resample_seeds, level, n_resamples, seed
    )


def interval_table(predictions, scores=SCORES, averages=AVERAGES, *, folds=None, **settings):
    """Every score of every variant with its interval, and the naive interval beside it.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of any number of variants.
    scores, averages : sequence of str
    folds, **settings
        As in :func:`bootstrap_interval`.

    Returns
    -------
    pd.DataFrame
        ``variant, score, average``, the fields of :class:`Interval`, ``naive_low, naive_high``.

    Raises
    ------
    ParameterError, RunError, FoldError
        As :func:`bootstrap_interval`.
    """
    check_predictions(predictions, folds)
    records = []
    for variant, rows in predictions.groupby("variant"):
        for score in scores:
            for average in averages:
                one = bootstrap_interval(rows, score, average=average, folds=folds, **settings)
                plain = settings | {"cluster": None, "method": None}
                naive = bootstrap_interval(rows, score, average=average, folds=folds, **plain)
                records.append(
                    {"variant": variant, "score": score, "average": average}
                    | asdict(one)
                    | {"naive_low": naive.low, "naive_high": naive.high}
                )
    return pd.DataFrame(records)


def clustered_interval(tables, score, average, cluster, method, resample_seeds, level, n_resamples, seed):
    """Interval of the score of one table, or of the difference of two with the same rows.

    Parameters
    ----------
    tables : list of pd.DataFrame
        One or two, as ``serkit.evaluation.predictions.scored_rows`` gives them.
    score, average, cluster, method, resample_seeds, level, n_resamples, seed
        As in :func:`bootstrap_interval`.

    Returns
    -------
    Interval

    Raises
    ------
    ParameterError
        If an argument is out of range or there are too few clusters.
    """
    method = method or ("bootstrap-t" if cluster else "percentile")
    check_choice(method=(method, METHODS if cluster else ("percentile",)))
    check_range("level", level, 0.5, 0.999)
    check_range("n_resamples", n_resamples, 200, 1_000_000, whole=True)
    check_range("seed", seed, 0, 2**32 - 1, whole=True)
    rows, rng = tables[0], np.random.default_rng(seed)
    combine = (lambda a: a) if len(tables) == 1 else (lambda a, b: a - b)
    clusters = rows[cluster or "utterance_id"]
    n_clusters, n_seeds = clusters.nunique(), rows["seed"].nunique()
    by_seed = bool(cluster and resample_seeds and n_seeds > 1)
    counts = [tally(table, score, average, clusters, by_seed) for table in tables]
    if cluster is None:
        found = row_limits(counts, combine, level=level, n_resamples=n_resamples, rng=rng)
    else:
        if n_clusters < MIN_CLUSTERS:
            raise ParameterError(
                f"{rows['variant'].iloc[0]}: {n_clusters} {cluster}s are too few for an interval, expected at "
                f"least {MIN_CLUSTERS}; finish more folds, or draw speakers instead of sessions"
            )
        if by_seed and method in ("bca", "jackknife-t"):
            raise ParameterError(
                f"method={method!r} does not draw seeds and there are {n_seeds}, expected bootstrap-t, percentile "
                "or basic; or give resample_seeds=False"
            )
        found = cluster_limits(
            lambda weights: combine(*(score_of(weights, one) for one in counts)),
            n_clusters, n_seeds if by_seed else 1,
            method=method, level=level, n_resamples=n_resamples, rng=rng,
        )  # fmt: skip
    lowest = 0.0 if len(tables) == 1 else -1.0
    low, high = np.clip(found[1:3], lowest, 1.0).tolist()
    kind = cluster or "utterance"
    return Interval(found[0], low, high, found[3], level, kind, n_clusters, n_seeds if by_seed else 1, method)


def check_choice(**arguments):
    """Refuse arguments, given as name = (value, allowed values), that are none of the allowed."""
    for name, (value, allowed) in arguments.items():
        if value not in allowed:
            raise ParameterError(f"{name}={value!r}, expected one of {', '.join(map(str, allowed))}")


def check_range(name, value, low, high, whole=False):
    """Refuse an argument that is no number from ``low`` to ``high``."""
    kind = (int, np.integer) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        raise ParameterError(
            f"{name}={value!r}, expected {'a whole number' if whole else 'a number'} from {low} to {high}"
        )
