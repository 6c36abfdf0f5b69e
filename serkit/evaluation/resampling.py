"""Scores as functions of weights on speakers: what every interval and test here is computed from.

WA, UA and macro-F1 are means of ratios of counts. So a prediction table is counted once, by speaker,
and a resample, a speaker left out or two variants exchanged for a speaker is nothing but another
vector of weights on those counts: ten thousand resamples are one matrix product.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from serkit.constants import LABELS

METHODS = ("bootstrap-t", "jackknife-t", "percentile", "basic", "bca")
BLOCK = 250  # resamples at a time; with 24 speakers, 2 seeds and 6 folds some 30 MB


@dataclass(frozen=True)
class Tally:
    """Counts of a prediction table, one cell for each cluster (or each cluster and seed).

    A unit is what is scored by itself before averaging: the whole table (pooled), or one fold and
    seed (fold mean).
    """

    numerator: np.ndarray  # (cells, units, ratios)
    denominator: np.ndarray  # (cells, units, ratios)
    share: np.ndarray  # (cells, units), of a unit's cells; sums to 1 over the cells


def tally(rows, score, average, clusters, by_seed=False):
    """Count test rows for one score.

    Parameters
    ----------
    rows : pd.DataFrame
        Test rows of one variant.
    score : {"wa", "ua", "macro_f1"}
    average : {"pooled", "fold_mean"}
    clusters : sequence, length len(rows)
        What each row is resampled with, such as its speaker.
    by_seed : bool
        Whether each seed of a cluster gets a cell of its own; cells are ordered by cluster, then
        seed, and every cluster must have every seed.

    Returns
    -------
    Tally
    """
    cell, _ = pd.factorize(np.asarray(clusters), sort=True)
    seed, seeds = pd.factorize(rows["seed"], sort=True)
    if by_seed:
        cell = cell * len(seeds) + seed
    unit = np.zeros(len(rows), dtype=int)
    if average == "fold_mean":
        unit = pd.factorize(rows["fold"], sort=True)[0] * len(seeds) + seed
    numerator, denominator = _ratios_of_rows(rows, score)
    shape = (cell.max() + 1, unit.max() + 1, numerator.shape[1])
    sums = [np.zeros(shape), np.zeros(shape)]
    np.add.at(sums[0], (cell, unit), numerator)
    np.add.at(sums[1], (cell, unit), denominator)
    member = np.zeros(shape[:2])
    member[cell, unit] = 1.0
    return Tally(sums[0], sums[1], member / np.maximum(member.sum(axis=0), 1.0))


def _ratios_of_rows(rows, score):
    """What each row adds to the ratios whose mean is the score."""
    labels = np.array(LABELS)
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

    A fold counts as much as its cells weigh: a speaker drawn twice who is a fold is two folds. A
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
    with np.errstate(invalid="ignore", divide="ignore"):  # a cell that is not drawn can't be left out
        return (share * scores).sum(axis=-1) / share.sum(axis=-1)


def standard_error(statistic, clusters, seeds):
    """Jackknife over the drawn clusters and, where there are several, over the drawn seeds.

    Parameters
    ----------
    statistic : callable
        Takes weights of shape (..., cells).
    clusters, seeds : np.ndarray, shapes (n, n_clusters) and (n, n_seeds)
        How often each is drawn; a cell weighs their product.

    Returns
    -------
    np.ndarray, shape (n,)
        The variances of the two are added, which counts what is peculiar to a pair of speaker and
        seed twice: on the safe side.
    """
    variance = _left_out(lambda left: statistic(_product(left, seeds[:, None])), clusters)
    if seeds.shape[1] > 1:
        variance = variance + _left_out(lambda left: statistic(_product(clusters[:, None], left)), seeds)
    return np.sqrt(variance)


def _left_out(value, weights):
    """Jackknife variance of resamples: each draw left out in turn."""
    n = weights.shape[1]
    values = np.where(weights > 0, value(weights[:, None, :] - np.eye(n)), 0.0)
    mean = (weights * values).sum(axis=1, keepdims=True) / n
    return (n - 1) / n * (weights * (values - mean) ** 2).sum(axis=1)


def _product(clusters, seeds):
    cells = clusters[..., :, None] * seeds[..., None, :]
    return cells.reshape(*cells.shape[:-2], -1)


def cluster_limits(statistic, n_clusters, n_seeds, *, method, level, n_resamples, rng):
    """Estimate and interval of a statistic of weights, clusters (and seeds) drawn with replacement.

    Parameters
    ----------
    statistic : callable
        Takes weights of shape (..., n_clusters * n_seeds).
    n_clusters, n_seeds : int
        With ``n_seeds=1`` seeds are not resampled.
    method : {"bootstrap-t", "jackknife-t", "percentile", "basic", "bca"}
    level : float
    n_resamples : int
    rng : np.random.Generator

    Returns
    -------
    tuple of float
        Estimate, low, high, standard error (jackknife).
    """
    clusters, seeds = np.ones((1, n_clusters)), np.ones((1, n_seeds))
    estimate = float(statistic(_product(clusters, seeds))[0])
    error = float(standard_error(statistic, clusters, seeds)[0])
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if error < 1e-12:  # all clusters alike: nothing to resample
        return estimate, estimate, estimate, 0.0
    if method == "jackknife-t":
        low, high = estimate + error * stats.t.ppf(tails, n_clusters - 1)
        return estimate, float(low), float(high), error
    values, errors = _resample(statistic, n_clusters, n_seeds, n_resamples, rng, method == "bootstrap-t")
    if method == "bootstrap-t":
        # one cluster drawn every time has no error: as far out as can be, on the side it fell
        distance = values - estimate
        with np.errstate(invalid="ignore", divide="ignore"):
            t = np.where(errors > 1e-12, distance / errors, np.sign(distance) * np.finfo(float).max)
        low, high = estimate - error * np.quantile(t, tails, method="inverted_cdf")[::-1]
    elif method == "basic":
        low, high = 2 * estimate - np.quantile(values, tails)[::-1]
    else:
        if method == "bca":
            tails = _bca_tails(statistic, values, estimate, tails, n_clusters)
        low, high = np.quantile(values, tails)
    return estimate, float(low), float(high), error


def _resample(statistic, n_clusters, n_seeds, n_resamples, rng, with_errors):
    values, errors = np.empty(n_resamples), np.empty(n_resamples)
    for start in range(0, n_resamples, BLOCK):
        block = slice(start, min(start + BLOCK, n_resamples))
        clusters, seeds = (
            rng.multinomial(n, np.full(n, 1 / n), size=block.stop - start).astype(float)
            for n in (n_clusters, n_seeds)
        )
        values[block] = statistic(_product(clusters, seeds))
        if with_errors:
            errors[block] = standard_error(statistic, clusters, seeds)
    return values, errors


def _bca_tails(statistic, values, estimate, tails, n_clusters):
    """Percentiles corrected for median bias and for an error that changes with the score."""
    below = np.mean(values < estimate) + np.mean(values == estimate) / 2
    bias = stats.norm.ppf(np.clip(below, 1 / len(values), 1 - 1 / len(values)))
    left_out = statistic(np.ones((n_clusters, n_clusters)) - np.eye(n_clusters))
    distance = left_out.mean() - left_out
    acceleration = (distance**3).sum() / (6 * (distance**2).sum() ** 1.5)
    z = bias + stats.norm.ppf(tails)
    return stats.norm.cdf(bias + z / (1 - acceleration * z))


def row_limits(counts, combine, *, level, n_resamples, rng):
    """Estimate and percentile interval with utterances drawn one by one, as if independent.

    Utterances with the same counts are drawn together, which is the same and far cheaper.

    Parameters
    ----------
    counts : list of Tally
        One cell for each utterance; two tallies for a difference, of the same utterances.
    combine : callable
        Takes one score for each tally.
    level, n_resamples, rng
        As in :func:`cluster_limits`.

    Returns
    -------
    tuple of float
        Estimate, low, high, standard error (of the resamples).
    """
    n = len(counts[0].share)
    parts = [part for one in counts for part in (one.numerator, one.denominator, one.share)]
    flat = np.concatenate([part.reshape(n, -1) for part in parts], axis=1)
    _, first, times = np.unique(flat, axis=0, return_index=True, return_counts=True)
    kinds = [Tally(one.numerator[first], one.denominator[first], one.share[first]) for one in counts]
    estimate = float(combine(*(score_of(times[None].astype(float), kind) for kind in kinds))[0])
    values = np.empty(n_resamples)
    for start in range(0, n_resamples, BLOCK):
        block = slice(start, min(start + BLOCK, n_resamples))
        drawn = rng.multinomial(n, times / n, size=block.stop - start).astype(float)
        values[block] = combine(*(score_of(drawn, kind) for kind in kinds))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return estimate, float(low), float(high), float(values.std(ddof=1))
