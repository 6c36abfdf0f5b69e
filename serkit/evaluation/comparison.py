"""Variants set side by side: paired tests, what a setting is worth, and rules of choosing the epoch.

All is compared on the same folds, seeds and test utterances. Tests exchange whole speakers, for the reason given in
:mod:`serkit.evaluation.intervals`. Training with ``keep_epochs`` writes ``epochs.parquet``, the rows of
``predictions.parquet`` once for each epoch: rules of choosing the epoch are compared on the same trainings, so they
differ in the epoch they choose and in nothing else.
"""

from contextlib import suppress
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from serkit import runs
from serkit.constants import FUSIONS, SEED, VIEW_SETS
from serkit.errors import ParameterError, RunError, SerkitError, check_choice
from serkit.evaluation.intervals import MIN_CLUSTERS, Estimate, percent, score_interval, score_of, tally
from serkit.evaluation.predictions import check_predictions, scored_rows, tested_folds, with_selection
from serkit.experiment import ACROSS
from serkit.folds import SELECTIONS
from serkit.metrics import PROBABILITY, UNIT, labels_of, score_table

# Settings that are taken apart: their values in the order of figures, and what all are compared with.
AXES = {
    "views": (tuple(reversed(VIEW_SETS)), "all"),
    "fusion": (FUSIONS, "coattention"),
    "encoder_layers": (("weighted", "last"), "last"),
    "encoder_training": (("frozen", "transformer", "all"), "all"),
    "recipe": ((), "corrected"),
    "selection": (SELECTIONS, "clean"),
}
# Rules of choosing the epoch: who is looked at, and whether for the highest WA + UA or the lowest loss.
RULES = ("published", "published_loss", "clean", "clean_loss", "last")
SPLIT_OF = {"published": "test", "clean": "validation"}  # who they are
EXCHANGES = 10_000  # at most, of a permutation test: all of up to 13 speakers
RULE_PAIRS = (*combinations(RULES[::2], 2), *zip(RULES[:4:2], RULES[1:4:2], strict=True))


def compare_variants(predictions_a, predictions_b, score="ua", *, average="pooled", folds=None):
    """Compare two variants that were tested on the same utterances, folds and seeds.

    The permutation test exchanges A and B for any set of speakers: exact, over all 2^n sets, if
    there are no more of these than 10,000, else on as many random ones. Its smallest p is 2/2^n:
    2/1024 with ten speakers, and 0.0625, never significant, with five.

    Parameters
    ----------
    predictions_a, predictions_b : pd.DataFrame
        Prediction tables of one variant each.
    score, average
        As in :func:`serkit.evaluation.score_interval`.
    folds : sequence of str, optional
        See :func:`serkit.evaluation.predictions.check_predictions`.

    Returns
    -------
    dict
        ``variant_a, variant_b``; ``difference, low, high`` (A - B, fractions); ``p_permutation`` (two-sided).

    Raises
    ------
    ParameterError
        If the two were not tested on the same utterances, folds and seeds, or on fewer than 5 speakers.
    RunError, FoldError
        As :func:`serkit.evaluation.predictions.check_predictions`.
    """
    pair = [scored_rows(table, folds) for table in (predictions_a, predictions_b)]
    check_same_utterances(*pair)
    variant_a, variant_b = (rows["variant"].iloc[0] for rows in pair)
    if (n := pair[0]["speaker"].nunique()) < MIN_CLUSTERS:
        few = f"{n} speakers are too few for an interval, expected at least {MIN_CLUSTERS}"
        raise ParameterError(f"{variant_a}: {few}; finish more folds, or take speakers")
    difference, low, high = score_interval(*pair, score=score, average=average)
    about, p = {"variant_a": variant_a, "variant_b": variant_b}, _p_permutation(pair, score, average)
    return about | {"difference": difference, "low": low, "high": high, "p_permutation": p}


def compare_many(predictions, pairs=None, score="ua", *, average="pooled", folds=None):
    """Compare several pairs of variants, with Holm's correction for their number.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of the variants.
    pairs : sequence of (str, str), optional
        Variants A and B; default every pair. Name beforehand the pairs that matter: the correction
        is for as many as are given.
    score, average, folds
        As in :func:`compare_variants`.

    Returns
    -------
    pd.DataFrame
        One row per pair: what :func:`compare_variants` gives, and ``p_holm``, its p corrected.

    Raises
    ------
    ParameterError, RunError, FoldError
        As :func:`compare_variants`.
    """
    check_predictions(predictions, folds)
    tables = dict(list(predictions.groupby("variant")))
    pairs = combinations(tables, 2) if pairs is None else pairs
    about = {"score": score, "average": average, "folds": folds}
    table = pd.DataFrame([compare_variants(tables[a], tables[b], **about) for a, b in pairs])
    return table.assign(p_holm=multipletests(table["p_permutation"], method="holm")[1])


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
        seed, fold, utterance, speaker, truth = row = min(only)
        has, lacks = (rows["variant"].iloc[0] for rows in ((a, b) if row in rows_a else (b, a)))
        about = f"utterance {utterance} ({truth}, speaker {speaker}) in fold {fold}, seed {seed} is tested"
        cure = "expected the same folds, seeds and utterances in both; filter them to what they share"
        raise ParameterError(f"{about} in {has} and not in {lacks}, {cure}")


def _p_permutation(pair, score, average):
    """Two-sided p of exchanging the variants speaker by speaker."""
    # speakers of A, then of B; what is right with one seed or another is added up
    both = np.concatenate([tally(rows, average).sum(axis=1, keepdims=True) for rows in pair])

    def difference(signs, axis=-1):
        keep = (np.moveaxis(np.asarray(signs, float), axis, -1)[..., None] + 1) / 2
        a, b = (score_of(np.concatenate([part, 1 - part], axis=-2), both, score) for part in (keep, 1 - keep))
        return np.round(a - b, 12)  # equal by symmetry, then equal to the last digit

    test = stats.permutation_test(
        (np.ones(len(both) // 2),), difference, permutation_type="samples", vectorized=True, batch=1000,
        n_resamples=EXCHANGES, alternative="two-sided", rng=np.random.default_rng(SEED),
    )  # fmt: skip
    return float(test.pvalue)


def families(run, setting):
    """Groups of variants of a run that differ in one setting and in nothing else.

    With ``encoder_training``, learning rates may differ too: a head on a frozen encoder has its own.

    Parameters
    ----------
    run : str
    setting : str
        A key of ``AXES``.

    Returns
    -------
    list of dict of str to str
        For each group of two or more: value of the setting -> variant, in the order of ``AXES``.

    Raises
    ------
    RunError
        If the run has no finished fold, or folds of a variant differ.
    """
    groups = {}
    for variant in sorted(set(map(runs.variant_of, runs.finished_folders(run)))):
        parameters = runs.shared_parameters(run, variant)
        value = str(parameters.pop(setting))
        parameters.pop("learning_rate" if setting == "encoder_training" else None, None)
        groups.setdefault(repr(sorted(parameters.items())), {})[value] = variant
    order = [*AXES[setting][0], *sorted({value for group in groups.values() for value in group})]
    in_order = (sorted(group.items(), key=lambda item: order.index(item[0])) for group in groups.values())
    return [dict(group) for group in in_order if len(group) > 1]


def reference_of(setting, value, values):
    """What a value is compared with: the default, for a deviation its own recipe; empty for the default.

    >>> reference_of("recipe", "published+D2", ["corrected", "published", "published+D2"])
    'published'
    >>> reference_of("views", "all", ["all", "mfcc"])
    ''
    """
    default = AXES[setting][1]
    plain = value.replace("-", "+").split("+")[0]
    if setting == "recipe" and plain != value and plain in values:
        return plain
    return default if value != default and default in values else ""


def ablation_table(predictions, family, setting, score="ua", *, folds=None):
    """Score of every variant of a family, and its difference from what it is compared with.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table that holds the variants.
    family : dict of str to str
        One of those that ``families`` gives.
    setting : str
        What the family differs in.
    score : {"ua", "wa", "macro_f1"}
    folds : sequence of str, optional
        See :func:`serkit.evaluation.predictions.check_predictions`.

    Returns
    -------
    pd.DataFrame
        Percent and percentage points: the setting, ``<score>, low, high`` (fold mean), ``seeds``
        (those that all variants have), ``against, difference, difference_low, difference_high,
        p_holm`` (permutation of speakers, corrected for all pairs of the table).

    Raises
    ------
    RunError, FoldError, ParameterError
        As :func:`serkit.evaluation.score_interval` and :func:`serkit.evaluation.comparison.compare_many`.
    """
    rows = at_shared_seeds(predictions[predictions["variant"].isin(family.values())])
    against = {value: reference_of(setting, value, list(family)) for value in family}
    scores = [_percent(rows[rows["variant"] == variant], score, folds) for variant in family.values()]
    table = pd.DataFrame(scores).assign(seeds=rows["seed"].nunique(), against=list(against.values()))
    table.insert(0, setting, list(family))
    pairs = [(family[value], family[other]) for value, other in against.items() if other]
    if not pairs:
        return table
    differences = _differences(rows, pairs, score, folds).set_index(table.index[table["against"] != ""])
    return table.join(differences.rename(columns={"low": "difference_low", "high": "difference_high"}))


def _percent(rows, score, folds):
    """Fold mean of one variant's score and its interval, in percent."""
    return dict(zip((score, "low", "high"), percent(scored_rows(rows, folds), score=score), strict=True))


def _differences(rows, pairs, score, folds):
    """Differences of the fold means of pairs of variants and their intervals, in percentage points."""
    table = compare_many(rows, pairs, score, average="fold_mean", folds=folds)
    return table[["difference", "low", "high"]].mul(100).join(table["p_holm"])


def compare_settings(run, predictions, setting, score="ua"):
    """Tables of all families of a run that differ in one setting; says so where there is none.

    Parameters
    ----------
    run : str
    predictions : pd.DataFrame
        Of all its variants.
    setting : str
        A key of ``AXES``.
    score : {"ua", "wa", "macro_f1"}

    Returns
    -------
    list of pd.DataFrame
        As ``ablation_table`` gives them; those of fewer than five speakers are left out.
    """
    groups, tables = families(run, setting), []
    if not groups:
        name = "demo" if getattr(run, "name", run) == runs.EXAMPLE else getattr(run, "name", run)
        value = (*(value for value in AXES[setting][0] if value != AXES[setting][1]), "published")[0]
        command = f"`serkit reproduce --run {name} --{setting.replace('_', '-')} {value}`"
        missing = f"one more of the run {name!r}, with its other settings: {command}"
        print(f"no two variants differ in {setting} alone; {missing}")
    for family in groups:
        folds = tested_folds(predictions[predictions["variant"].isin(family.values())])
        try:
            tables.append(ablation_table(predictions, family, setting, score, folds=folds))
        except SerkitError as error:
            print(f"{setting} {', '.join(family)}: {error}")
    return tables


def across_corpora(*names, score="ua"):
    """A score of runs by the corpora that were trained on and the one that was tested.

    Parameters
    ----------
    *names : str
        Runs; where they hold several variants, each has a row.
    score : {"ua", "wa", "macro_f1"}

    Returns
    -------
    pd.DataFrame
        ``trained_on, tested_on``, the score (percent, mean over folds, with its interval over the tested speakers),
        ``n_speakers, run, variant``. Within one corpus the folds keep speakers apart.

    Raises
    ------
    RunError
        If a run has no finished folds, or was made with different parameters.
    """
    records = []
    for name in names:
        for variant, rows in runs.load_predictions(name).groupby("variant"):
            corpus = runs.shared_parameters(name, variant)["corpus"]
            trained, _, tested = corpus.rpartition(ACROSS)
            tested_rows = scored_rows(rows)
            trained_on = {"trained_on": trained or corpus, "tested_on": tested}
            about = {"n_speakers": tested_rows["speaker"].nunique(), "run": name, "variant": variant}
            records.append(trained_on | {score: percent(tested_rows, score=score)} | about)
    return pd.DataFrame(records)


def load_epochs(run, variant=""):
    """Predictions of every epoch of all finished folds of a run.

    Parameters
    ----------
    run : str
    variant : str, optional
        Default all variants.

    Returns
    -------
    pd.DataFrame
        Columns of ``predictions.parquet`` and ``epoch``.

    Raises
    ------
    RunError
        If a fold was trained without ``keep_epochs``, naming it.
    """
    tables = []
    for folder in runs.finished_folders(run, variant):
        if not (folder / runs.EPOCHS).is_file():
            cure = "train with keep_epochs=True (--keep-epochs) under a new run name"
            raise RunError(f"{runs.show_path(folder)} kept no predictions of its epochs; {cure}")
        tables.append(runs.read_table(folder / runs.EPOCHS, runs.FOLD_CURE))
    return pd.concat(tables, ignore_index=True)


def kept_epochs(run):
    """Predictions of every epoch of each variant whose folds all kept them; says so where none did.

    Parameters
    ----------
    run : str

    Returns
    -------
    list of pd.DataFrame
        As :func:`load_epochs` gives them, the variant with most trainings first.
    """
    tables = []
    for variant in runs.variants_of(run):
        with suppress(RunError):
            tables.append(load_epochs(run, variant))
    if not tables:
        print("no variant kept the predictions of its epochs; train one with keep_epochs")
    return sorted(tables, key=lambda table: -table.groupby(UNIT).ngroups)


def read_differences(table, setting="rule"):
    """What a table of differences shows, a line for each: no more than its intervals and p values carry.

    A difference is shown if its interval leaves out 0 and its corrected p is at most 0.05.

    Parameters
    ----------
    table : pd.DataFrame
        From :func:`ablation_table`, or the second of :func:`rule_table`.
    setting : str
        Column that names what is compared.

    Returns
    -------
    str

    Examples
    --------
    >>> table = pd.DataFrame({"rule": ["published"], "against": ["clean"], "difference": [-3.0], "low": [-5.0],
    ...                       "high": [1.0], "p_holm": [0.3]})
    >>> read_differences(table)
    'published against clean: −3.0 points [−5.0, +1.0], p = 0.300 (Holm): no difference is shown'
    """
    lines = []
    compared = table.dropna(subset="difference") if "difference" in table else table[:0]
    for row in compared.to_dict("records"):
        low, high = (row.get(f"difference_{end}", row.get(end)) for end in ("low", "high"))
        shown = "higher" if low > 0 else "lower" if high < 0 else ""
        verdict = shown if shown and row["p_holm"] <= 0.05 else "no difference is shown"
        points = Estimate(row["difference"], low, high).signed(" points")
        pair = f"{row[setting]} against {row['against']}"
        lines.append(f"{pair}: {points}, p = {row['p_holm']:.3f} (Holm): {verdict}")
    return "\n".join(lines)


def epoch_scores(epochs):
    """WA, UA and loss of each split after every epoch.

    Parameters
    ----------
    epochs : pd.DataFrame
        As ``load_epochs`` gives it.

    Returns
    -------
    pd.DataFrame
        ``variant, seed, fold, epoch, split, wa, ua`` (fractions), ``loss``: mean over utterances of -log of the
        probability of the truth, in nats.
    """
    keys = [*UNIT, "epoch", "split"]
    probabilities = epochs[[PROBABILITY + label for label in labels_of(epochs)]].to_numpy()
    truth = epochs["truth"].map(labels_of(epochs).index)
    loss = -np.log(np.maximum(probabilities[np.arange(len(epochs)), truth], np.finfo(float).tiny))
    losses = epochs[keys].assign(loss=loss).groupby(keys)["loss"].mean().reset_index()
    return score_table(epochs, keys)[[*keys, "wa", "ua"]].merge(losses, on=keys)


def choose_epochs(scores, rule):
    """The epoch that a rule chooses in every fold and seed.

    Parameters
    ----------
    scores : pd.DataFrame
        As ``epoch_scores`` gives it.
    rule : {"published", "published_loss", "clean", "clean_loss", "last"}
        Highest WA + UA, or lowest loss, on the test speakers or on the validation speakers (the first of equals);
        or the last epoch.

    Returns
    -------
    pd.Series
        Epoch, index ``variant, seed, fold``.

    Raises
    ------
    ParameterError
        If the rule is unknown, or looks at a split that was not kept.

    Examples
    --------
    >>> scores = pd.DataFrame({"variant": "v", "seed": 1, "fold": "1", "epoch": [1, 2, 1, 2],
    ...     "split": ["validation", "validation", "test", "test"], "wa": [0.5, 0.4, 0.3, 0.6], "ua": 0.5})
    >>> choose_epochs(scores, "clean").tolist(), choose_epochs(scores, "published").tolist()
    ([1], [2])
    """
    check_choice("rule", rule, RULES)
    if rule == "last":
        return scores.groupby(UNIT)["epoch"].max()
    selection, _, criterion = rule.partition("_")
    seen = scores[scores["split"] == SPLIT_OF[selection]]
    if len(seen.groupby(UNIT)) != len(scores.groupby(UNIT)):
        cure = "train with selection='clean'"
        raise ParameterError(f"rule={rule!r} needs predictions of the {SPLIT_OF[selection]} speakers; {cure}")
    rank = seen["loss"].round(6) if criterion else -(seen["wa"] + seen["ua"]).round(9)
    return seen.assign(rank=rank).sort_values(["rank", "epoch"], kind="stable").groupby(UNIT)["epoch"].first()


def rule_scores(epochs):
    """Test scores of the epoch that each rule chooses, in every fold and seed.

    In each of them the published rule has the highest WA + UA, because that is what it looks for; WA or
    UA alone may be lower than another rule's, and so may their means.

    Parameters
    ----------
    epochs : pd.DataFrame
        As ``load_epochs`` gives it.

    Returns
    -------
    pd.DataFrame
        ``rule``, and the columns of :func:`serkit.metrics.score_table` for each fold and seed. A rule whose split was
        not kept is left out.
    """
    scores, parts = epoch_scores(epochs), []
    for rule in RULES:
        with suppress(ParameterError):  # no validation speakers were kept
            parts.append(score_table(apply_rule(epochs, rule, scores), UNIT).assign(rule=rule))
    return pd.concat(parts, ignore_index=True)


def apply_rule(epochs, rule, scores=None):
    """What a run would have reported, had its checkpoints been chosen by this rule.

    Parameters
    ----------
    epochs : pd.DataFrame
        As ``load_epochs`` gives it.
    rule : str
        One of ``RULES``.
    scores : pd.DataFrame, optional
        What ``epoch_scores`` gives of them, where it is known: it takes time.

    Returns
    -------
    pd.DataFrame
        A prediction table; the rule stands in the variant's name in place of the selection that
        training used.
    """
    selection, _, criterion = rule.partition("_")
    chosen = choose_epochs(epoch_scores(epochs) if scores is None else scores, rule).reset_index()
    rows = epochs.merge(chosen, on=[*UNIT, "epoch"]).drop(columns="epoch")
    suffix = criterion and "_loss"
    return rows.assign(variant=[with_selection(name, selection) + suffix for name in rows["variant"]])


def rule_table(epochs, score="ua", *, folds=None):
    """What each rule of choosing the epoch reports, and by how much one reports more than another.

    Parameters
    ----------
    epochs : pd.DataFrame
        Of one variant, as :func:`load_epochs` gives it.
    score : {"ua", "wa", "macro_f1"}
    folds : sequence of str, optional
        See :func:`serkit.evaluation.predictions.check_predictions`.

    Returns
    -------
    scores : pd.DataFrame
        ``rule, <score>, low, high``; percent, fold mean.
    differences : pd.DataFrame
        ``rule, against, difference, low, high`` (percentage points), ``p_holm``.

    Raises
    ------
    RunError, FoldError, ParameterError
        As :func:`choose_epochs` and :func:`serkit.evaluation.comparison.compare_many`.
    """
    by_epoch = epoch_scores(epochs)
    tables = {rule: apply_rule(epochs, rule, by_epoch) for rule in RULES}
    scores = pd.DataFrame([{"rule": rule, **_percent(table, score, folds)} for rule, table in tables.items()])
    name = {rule: table["variant"].iloc[0] for rule, table in tables.items()}
    pairs = [(name[a], name[b]) for a, b in RULE_PAIRS]
    differences = _differences(pd.concat(tables.values(), ignore_index=True), pairs, score, folds)
    return scores, pd.DataFrame(RULE_PAIRS, columns=["rule", "against"]).join(differences)
