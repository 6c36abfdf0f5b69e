"""What a part is worth: variants that differ in one setting, and rules that differ in the chosen epoch.

Each comparison is made on the same folds, seeds and test utterances. Training with ``keep_epochs`` writes
``epochs.parquet``: the rows of ``predictions.parquet`` once for each epoch. Rules of choosing the epoch are
compared on the same trainings: they differ in the epoch they choose and in nothing else.
"""

from itertools import combinations

import pandas as pd

from serkit import runs
from serkit.constants import FUSIONS, VIEW_SETS
from serkit.errors import ParameterError, RunError, SerkitError, check_choice
from serkit.evaluation.comparison import at_shared_seeds, compare_many
from serkit.evaluation.intervals import bootstrap_interval
from serkit.evaluation.predictions import with_selection
from serkit.folds import SELECTIONS
from serkit.metrics import UNIT, score_table

# Settings that are taken apart: their values in the order of figures, and what all are compared with.
AXES = {
    "views": (tuple(reversed(VIEW_SETS)), "all"),
    "fusion": (FUSIONS, "coattention"),
    "encoder_training": (("frozen", "transformer", "all"), "all"),
    "recipe": ((), "corrected"),
    "selection": (SELECTIONS, "clean"),
}
SPLIT_OF = {"published": "test", "clean": "validation"}  # whose scores a rule looks at
RULE_PAIRS = tuple(combinations(SELECTIONS, 2))


def families(run, setting):
    """Groups of variants of a run that differ in one setting and in nothing else.

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
        groups.setdefault(repr(sorted(parameters.items())), {})[value] = variant
    order = AXES[setting][0]

    def rank(value):  # values without an order of their own come last
        return (order.index(value) if value in order else len(order)), value

    return [
        {value: group[value] for value in sorted(group, key=rank)}
        for group in groups.values()
        if len(group) > 1
    ]


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
        As :func:`serkit.evaluation.intervals.bootstrap_interval` and :func:`serkit.evaluation.comparison.compare_many`.
    """
    rows = at_shared_seeds(predictions[predictions["variant"].isin(family.values())])
    records = []
    for value, variant in family.items():
        scores = _percent(rows[rows["variant"] == variant], score, folds)
        against = reference_of(setting, value, list(family))
        records.append({setting: value, **scores, "seeds": rows["seed"].nunique(), "against": against})
    table = pd.DataFrame(records)
    compared = table[table["against"] != ""]
    if compared.empty:
        return table
    pairs = [(family[value], family[other]) for value, other in compared[[setting, "against"]].to_numpy()]
    columns = ["difference", "difference_low", "difference_high", "p_holm"]
    table.loc[compared.index, columns] = _differences(rows, pairs, score, folds).to_numpy()
    return table


def _percent(rows, score, folds):
    """Fold mean of one variant's score and its interval, in percent."""
    interval = bootstrap_interval(rows, score, average="fold_mean", folds=folds)
    return {score: 100 * interval.estimate, "low": 100 * interval.low, "high": 100 * interval.high}


def _differences(rows, pairs, score, folds):
    """Differences of the fold means of pairs of variants and their intervals, in percentage points."""
    table = compare_many(rows, pairs, score=score, average="fold_mean", folds=folds)
    points = ["difference", "low", "high"]
    return (100 * table[points]).assign(p_holm=table["p_permutation_holm"])


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
        print(
            f"run {run!r} holds no two variants that differ in {setting} alone: a grid trains them, such as "
            "`serkit reproduce --grid notebooks/grids/ablations.toml --run ablations`"
        )
    for family in groups:
        tested = predictions[predictions["variant"].isin(family.values()) & (predictions["split"] == "test")]
        folds = sorted(tested["fold"].unique())
        try:
            tables.append(ablation_table(predictions, family, setting, score, folds=folds))
        except SerkitError as error:
            print(f"{setting} {', '.join(family)}: {error}")
    return tables


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
            raise RunError(
                f"{runs.show_path(folder)} kept no predictions of its epochs; train with keep_epochs=True "
                "(--keep-epochs) under a new run name"
            )
        tables.append(runs.read_table(folder / runs.EPOCHS, runs.FOLD_CURE))
    return pd.concat(tables, ignore_index=True)


def epoch_scores(epochs):
    """WA and UA of each split after every epoch.

    Parameters
    ----------
    epochs : pd.DataFrame
        As ``load_epochs`` gives it.

    Returns
    -------
    pd.DataFrame
        ``variant, seed, fold, epoch, split, wa, ua``; fractions.
    """
    keys = [*UNIT, "epoch", "split"]
    return score_table(epochs, keys)[[*keys, "wa", "ua"]]


def choose_epochs(scores, rule):
    """The epoch that a rule chooses in every fold and seed.

    Parameters
    ----------
    scores : pd.DataFrame
        As ``epoch_scores`` gives it.
    rule : {"published", "clean", "last"}
        Highest WA + UA on the test speakers, on the validation speakers (the first of equals), or
        the last epoch.

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
    check_choice("rule", rule, SELECTIONS)
    if rule == "last":
        return scores.groupby(UNIT)["epoch"].max()
    seen = scores[scores["split"] == SPLIT_OF[rule]]
    if len(seen.groupby(UNIT)) != len(scores.groupby(UNIT)):
        raise ParameterError(
            f"rule={rule!r} needs predictions of the {SPLIT_OF[rule]} speakers in every fold; train with "
            "selection='clean'"
        )
    total = (seen["wa"] + seen["ua"]).round(9)
    ranked = seen.assign(total=total).sort_values(["total", "epoch"], ascending=[False, True], kind="stable")
    return ranked.groupby(UNIT)["epoch"].first()


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
        ``rule, variant, seed, fold, epoch, wa, ua`` (fractions). A rule whose split was not kept is left out.
    """
    scores = epoch_scores(epochs)
    tested = scores[scores["split"] == "test"].drop(columns="split")
    parts = []
    for rule in SELECTIONS:
        try:
            chosen = choose_epochs(scores, rule).reset_index()
        except ParameterError:  # no validation speakers were kept
            continue
        parts.append(chosen.merge(tested, on=[*UNIT, "epoch"]).assign(rule=rule))
    return pd.concat(parts, ignore_index=True)[["rule", *UNIT, "epoch", "wa", "ua"]]


def apply_rule(epochs, rule):
    """What a run would have reported, had its checkpoints been chosen by this rule.

    Parameters
    ----------
    epochs : pd.DataFrame
        As ``load_epochs`` gives it.
    rule : {"published", "clean", "last"}

    Returns
    -------
    pd.DataFrame
        A prediction table; the rule stands in the variant's name in place of the selection that
        training used.
    """
    chosen = choose_epochs(epoch_scores(epochs), rule).reset_index()
    rows = epochs.merge(chosen, on=[*UNIT, "epoch"]).drop(columns="epoch")
    return rows.assign(variant=[with_selection(name, rule) for name in rows["variant"]])


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
    tables = {rule: apply_rule(epochs, rule) for rule in SELECTIONS}
    scores = pd.DataFrame([{"rule": rule, **_percent(table, score, folds)} for rule, table in tables.items()])
    name = {rule: table["variant"].iloc[0] for rule, table in tables.items()}
    pairs = [(name[a], name[b]) for a, b in RULE_PAIRS]
    differences = _differences(pd.concat(tables.values(), ignore_index=True), pairs, score, folds)
    return scores, pd.DataFrame(RULE_PAIRS, columns=["rule", "against"]).join(differences)
