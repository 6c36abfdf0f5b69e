"""Paired comparison of variants that were tested on the same utterances.

Speakers are exchanged and drawn, for the reason given in :mod:`serkit.evaluation.intervals`.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from serkit.errors import ParameterError, check_range
from serkit.evaluation.intervals import RESAMPLES, SEED, Tally, clustered_interval, score_of, tally
from serkit.evaluation.predictions import check_predictions, scored_rows
from serkit.metrics import score_table


@dataclass(frozen=True)
class Comparison:
    """Variant A against variant B on the same test utterances."""

    variant_a: str
    variant_b: str
    score: str
    average: str
    difference: float  # score of A minus score of B, a fraction
    low: float  # of the difference, speakers (and seeds) drawn
    high: float
    naive_low: float  # of the difference, utterances drawn as if independent
    naive_high: float
    p_permutation: float  # A and B exchanged speaker by speaker, two-sided
    p_mcnemar: float  # utterances taken as independent, two-sided
    only_a: int  # rows that only A has right
    only_b: int  # rows that only B has right
    odds_ratio: float  # only_a / only_b
    effect_size: float  # d_z: mean over speakers of A - B, over its standard deviation
    n_speakers: int


def compare_variants(
    predictions_a, predictions_b, score="ua", *, average="pooled", resample_seeds=True, level=0.95,
    n_resamples=RESAMPLES, seed=SEED, folds=None,
):  # fmt: skip
    """Compare two variants that were tested on the same utterances, folds and seeds.

    The permutation test exchanges A and B for any set of speakers: exact, over all 2^n sets, if
    there are no more of these than ``n_resamples``, else on random ones. Its smallest p is 2/2^n:
    2/1024 with ten speakers, and 0.0625, never significant, with five. McNemar's exact test takes
    utterances as independent, which they are not, and tests WA whatever ``score`` is: it is given
    because papers give it. With several seeds its p is twice the mean of those of the seeds [1]_,
    valid however they depend on each other. The effect size d_z is too large by about a tenth on
    average with ten speakers.

    Parameters
    ----------
    predictions_a, predictions_b : pd.DataFrame
        Prediction tables of one variant each.
    score, average, resample_seeds, level, n_resamples, seed, folds
        As in :func:`bootstrap_interval`; speakers are drawn.

    Returns
    -------
    Comparison
        Differences are A - B.

    Raises
    ------
    ParameterError
        If the two were not tested on the same utterances, folds and seeds, or an argument is out
        of range.
    RunError, FoldError
        As :func:`serkit.evaluation.predictions.check_predictions`.

    References
    ----------
    .. [1] Vovk, Wang: Combining p-values via averaging, Biometrika 107, 2020.
    """
    pair = [scored_rows(table, folds) for table in (predictions_a, predictions_b)]
    check_same_utterances(*pair)
    variant_a, variant_b = (rows["variant"].iloc[0] for rows in pair)
    interval, naive = (
        clustered_interval(pair, score, average, cluster, resample_seeds, level, n_resamples, seed)
        for cluster in ("speaker", None)
    )
    right = [(rows["truth"] == rows["prediction"]).to_numpy() for rows in pair]
    only_a, only_b = int(np.sum(right[0] > right[1])), int(np.sum(right[1] > right[0]))
    by_speaker = [score_table(rows, by="speaker").set_index("speaker")[score] for rows in pair]
    differences = by_speaker[0] - by_speaker[1]
    return Comparison(
        variant_a, variant_b, score, average,
        interval.estimate, interval.low, interval.high, naive.low, naive.high,
        p_permutation=_p_permutation(pair, score, average, n_resamples, seed),
        p_mcnemar=_p_mcnemar(*right, pair[0]["seed"].to_numpy()),
        only_a=only_a, only_b=only_b, odds_ratio=_ratio(only_a, only_b),
        effect_size=_ratio(differences.mean(), differences.std(ddof=1)), n_speakers=len(differences),
    )  # fmt: skip


def compare_many(predictions, pairs=None, *, alpha=0.05, folds=None, **settings):
    """Compare several pairs of variants, with Holm's correction for their number.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of the variants.
    pairs : sequence of (str, str), optional
        Variants A and B; default every pair. Name beforehand the pairs that matter: the correction
        is for as many as are given.
    alpha : float
        Share of families of comparisons in which one false difference is accepted.
    folds, **settings
        As in :func:`compare_variants`.

    Returns
    -------
    pd.DataFrame
        One row per pair: ``variant_a, variant_b, score, average, difference, low, high, naive_low,
        naive_high, p_permutation, p_permutation_holm, significant`` (corrected permutation test),
        ``p_mcnemar, p_mcnemar_holm, only_a, only_b, odds_ratio, effect_size, n_speakers``.

    Raises
    ------
    ParameterError
        If there are no pairs, a variant is unknown, or as :func:`compare_variants`.
    RunError, FoldError
        As :func:`serkit.evaluation.predictions.check_predictions`.
    """
    check_predictions(predictions, folds)
    check_range("alpha", alpha, 0.0001, 0.5)
    tables = dict(list(predictions.groupby("variant")))
    pairs = list(combinations(tables, 2)) if pairs is None else [tuple(pair) for pair in pairs]
    unknown = [name for pair in pairs for name in pair if name not in tables]
    if unknown or not pairs:
        raise ParameterError(
            f"pairs={pairs}: expected at least one pair of the variants {', '.join(tables)}"
            + (f"; there are no predictions of {unknown[0]!r}" if unknown else "")
        )
    table = pd.DataFrame([compare_variants(tables[a], tables[b], folds=folds, **settings) for a, b in pairs])
    for name in ("p_mcnemar", "p_permutation"):
        corrected = multipletests(table[name], alpha=alpha, method="holm")[1]
        table.insert(table.columns.get_loc(name) + 1, f"{name}_holm", corrected)
    table.insert(table.columns.get_loc("p_mcnemar"), "significant", table["p_permutation_holm"] <= alpha)
    return table


def at_shared_seeds(predictions):
    """What a comparison of variants can use: the seeds that all of them were trained with.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of the variants.

    Returns
    -------
    pd.DataFrame

    Raises
    ------
    ParameterError
        If they have no seed in common.

    Examples
    --------
    >>> rows = pd.DataFrame({"variant": ["a", "a", "b"], "seed": [111, 211, 111]})
    >>> at_shared_seeds(rows)["seed"].tolist()
    [111, 111]
    """
    seeds = predictions.groupby("variant")["seed"].agg(set)
    shared = set.intersection(*seeds)
    if not shared:
        listed = "; ".join(f"{variant}: {sorted(given)}" for variant, given in seeds.items())
        raise ParameterError(f"no seed is common to all variants ({listed}); train them with the same seeds")
    return predictions[predictions["seed"].isin(shared)]


def check_same_utterances(a, b):
    """Refuse two tables of ``scored_rows``, which are sorted alike, that are not of the same rows."""
    columns = ["seed", "fold", "utterance_id", "speaker", "truth"]
    rows_a, rows_b = (set(rows[columns].itertuples(index=False, name=None)) for rows in (a, b))
    if only := rows_a ^ rows_b:
        row = min(only)
        has, lacks = (rows["variant"].iloc[0] for rows in ((a, b) if row in rows_a else (b, a)))
        seed, fold, utterance, speaker, truth = row
        raise ParameterError(
            f"utterance {utterance} ({truth}, speaker {speaker}) in fold {fold}, seed {seed} is tested in {has} and not "
            f"in {lacks}, expected the same folds, seeds and utterances in both; compare variants of one protocol, "
            "or filter both to what they share"
        )


def _p_permutation(pair, score, average, n_resamples, seed):
    """Two-sided p of exchanging the variants speaker by speaker."""
    tallies = [vars(tally(rows, score, average, rows["speaker"])).values() for rows in pair]
    both = Tally(*map(np.concatenate, zip(*tallies, strict=True)))  # speakers of A, then of B

    def difference(signs, axis=-1):
        keep = (np.moveaxis(np.asarray(signs, float), axis, -1) + 1) / 2
        a, b = (score_of(np.concatenate([part, 1 - part], axis=-1), both) for part in (keep, 1 - keep))
        return np.round(a - b, 12)  # equal by symmetry, then equal to the last digit

    test = stats.permutation_test(
        (np.ones(len(both.share) // 2),), difference, permutation_type="samples", vectorized=True, n_resamples=n_resamples,
        batch=1000, alternative="two-sided", rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(test.pvalue)


def _p_mcnemar(right_a, right_b, seeds):
    values = []
    for seed in np.unique(seeds):
        a, b = right_a[seeds == seed], right_b[seeds == seed]
        table = [[np.sum(a & b), np.sum(a & ~b)], [np.sum(~a & b), np.sum(~a & ~b)]]
        values.append(mcnemar(table, exact=True).pvalue)
    return float(values[0] if len(values) == 1 else min(1.0, 2 * np.mean(values)))


def _ratio(value, by):
    """A quotient that may be infinite, and NaN for 0 / 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.float64(value) / np.float64(by))
