"""What a part is worth: variants that differ in one setting, and rules that differ in the chosen epoch.

Each comparison is made on the same folds, seeds and test utterances.
"""

import pandas as pd

from serkit import runs
from serkit.constants import FUSIONS, VIEW_SETS
from serkit.errors import RunError, SerkitError
from serkit.evaluation.comparison import at_shared_seeds, compare_many
from serkit.evaluation.epochs import apply_rule
from serkit.evaluation.intervals import bootstrap_interval
from serkit.folds import SELECTIONS

# Settings that are taken apart: their values in the order of figures, and what all are compared with.
AXES = {
    "views": (tuple(reversed(VIEW_SETS)), "all"),
    "fusion": (FUSIONS, "coattention"),
    "encoder_training": (("frozen", "transformer", "all"), "all"),
    "recipe": ((), "corrected"),
    "selection": (SELECTIONS, "clean"),
}
RULE_PAIRS = (("published", "clean"), ("published", "last"), ("clean", "last"))


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
        If the run has no finished fold, folds of a variant differ, or it is of a version that did not
        have the setting.
    """
    groups = {}
    for variant in sorted({folder.parts[-3] for folder in runs.finished_folders(run)}):
        parameters = runs.shared_parameters(run, variant)
        if setting not in parameters:
            raise RunError(
                f"run {run!r}: {variant} was trained by a version without the setting {setting!r}; "
                "train it again under a new run name"
            )
        value = str(parameters.pop(setting))
        groups.setdefault(repr(sorted(parameters.items())), {})[value] = variant
    order = AXES[setting][0]
    return [
        dict(sorted(group.items(), key=lambda item: (item[0] not in order, [*order, item[0]].index(item[0]))))
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
    rows = predictions[predictions["variant"].isin(family.values())]
    rows = at_shared_seeds(rows)
    records = []
    for value, variant in family.items():
        records.append(
            {
                setting: value,
                **_percent(rows[rows["variant"] == variant], score, folds),
                "seeds": rows["seed"].nunique(),
                "against": reference_of(setting, value, list(family)),
            }
        )
    table = pd.DataFrame(records)
    compared = table[table["against"] != ""]
    if compared.empty:
        return table
    pairs = [(family[value], family[other]) for value, other in compared[[setting, "against"]].to_numpy()]
    differences = compare_many(rows, pairs, score=score, average="fold_mean", folds=folds)
    columns = {"difference": "difference", "difference_low": "low", "difference_high": "high"}
    for name, column in columns.items():
        table.loc[compared.index, name] = 100 * differences[column].to_numpy()
    table.loc[compared.index, "p_holm"] = differences["p_permutation_holm"].to_numpy()
    return table


def _percent(rows, score, folds):
    """Fold mean of one variant's score and its interval, in percent."""
    found = bootstrap_interval(rows, score, average="fold_mean", folds=folds)
    return {score: 100 * found.estimate, "low": 100 * found.low, "high": 100 * found.high}


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
    tables, found = [], families(run, setting)
    for family in found:
        tested = predictions[predictions["variant"].isin(family.values()) & (predictions["split"] == "test")]
        try:
            tables.append(
                ablation_table(predictions, family, setting, score, folds=sorted(tested["fold"].unique()))
            )
        except SerkitError as error:
            print(f"{setting} {', '.join(family)}: {error}")
    if not found:
        print(
            f"run {run!r} holds no two variants that differ in {setting} alone: a grid trains them, such as "
            "`serkit reproduce --grid notebooks/grids/ablations.toml --run ablations`"
        )
    return tables


def rule_table(epochs, score="ua", *, folds=None):
    """What each rule of choosing the epoch reports, and by how much one reports more than another.

    Parameters
    ----------
    epochs : pd.DataFrame
        Of one variant, as :func:`serkit.training.epochs.load_epochs` gives it.
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
        As :func:`serkit.training.epochs.choose_epochs` and :func:`serkit.evaluation.comparison.compare_many`.
    """
    tables = {rule: apply_rule(epochs, rule) for rule in SELECTIONS}
    scores = [{"rule": rule, **_percent(table, score, folds)} for rule, table in tables.items()]
    name = {rule: table["variant"].iloc[0] for rule, table in tables.items()}
    together = pd.concat(tables.values(), ignore_index=True)
    pairs = [(name[a], name[b]) for a, b in RULE_PAIRS]
    found = compare_many(together, pairs, score=score, average="fold_mean", folds=folds)
    differences = pd.DataFrame(RULE_PAIRS, columns=["rule", "against"]).assign(
        **{column: 100 * found[column] for column in ("difference", "low", "high")},
        p_holm=found["p_permutation_holm"],
    )
    return pd.DataFrame(scores), differences
