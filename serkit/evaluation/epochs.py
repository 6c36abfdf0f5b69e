"""The predictions of every epoch, and what another rule of choosing one would have reported.

Training with ``keep_epochs`` writes ``epochs.parquet``: the rows of ``predictions.parquet`` once for each
epoch. Rules can then be compared on the same trainings: they differ in the epoch they choose and in
nothing else.
"""

import pandas as pd

from serkit import runs
from serkit.errors import ParameterError, RunError
from serkit.folds import SELECTIONS
from serkit.metrics import UNIT, score_table

SPLIT_OF = {"published": "test", "clean": "validation"}  # whose scores a rule looks at


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
    if rule not in SELECTIONS:
        raise ParameterError(f"rule={rule!r}, expected one of {', '.join(SELECTIONS)}")
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
    chosen = choose_epochs(epoch_scores(epochs), rule).rename("chosen").reset_index()
    rows = epochs.merge(chosen, on=UNIT)
    rows = rows[rows["epoch"] == rows["chosen"]].drop(columns=["epoch", "chosen"])
    parts = rows["variant"].str.split("_", n=2, expand=True)
    return rows.assign(variant=parts[0] + f"_{rule}_" + parts[2]).reset_index(drop=True)
