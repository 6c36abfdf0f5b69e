"""How well parts of the tested utterances are recognised, each with its interval: classes, durations, ..."""

import pandas as pd

from serkit.errors import ParameterError
from serkit.evaluation.intervals import MIN_CLUSTERS, bootstrap_interval
from serkit.evaluation.predictions import scored_rows
from serkit.metrics import recall_per_class


def subset_accuracy(predictions, subsets, *, level=0.95, folds=None):
    """Share of right utterances in each subset, between which values it lies, and on how much it rests.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of one variant; test rows of all seeds count.
    subsets : pd.Series, or str
        Subset of each utterance, indexed by utterance id; or a column of the predictions. Of a
        categorical series, categories without utterances keep their row.
    level : float
        As in :func:`serkit.evaluation.intervals.bootstrap_interval`, which draws speakers.
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
    member = rows[subsets] if isinstance(subsets, str) else rows["utterance_id"].map(subsets)
    lost = rows["utterance_id"][member.isna()]
    if len(lost):
        raise ParameterError(
            f"utterance {lost.iloc[0]} is in no subset ({lost.nunique()} such utterances), expected one for each; "
            "give the manifest that the run was made with"
        )
    categorical = not isinstance(subsets, str) and isinstance(subsets.dtype, pd.CategoricalDtype)
    names = list(subsets.cat.categories) if categorical else sorted(member.unique())
    records = [{"subset": name} | _accuracy(rows[member == name], level) for name in names]
    return pd.DataFrame(records)


def class_recall(predictions, *, level=0.95, folds=None):
    """Recall of each class with its interval, in class order.

    Parameters, errors: as :func:`subset_accuracy`.

    Returns
    -------
    pd.DataFrame
        As :func:`subset_accuracy`, with ``label`` and ``recall`` in place of ``subset`` and ``accuracy``.
    """
    rows = scored_rows(predictions, folds)
    order = recall_per_class(rows["truth"], rows["prediction"]).index
    table = subset_accuracy(predictions, "truth", level=level, folds=folds)
    table = table.rename(columns={"subset": "label", "accuracy": "recall"})
    table = table.set_index("label").reindex(list(order)).reset_index()
    return table.fillna({"n_utterances": 0, "n_speakers": 0}).astype({"n_utterances": int, "n_speakers": int})


def _accuracy(rows, level):
    counts = {"n_utterances": rows["utterance_id"].nunique(), "n_speakers": rows["speaker"].nunique()}
    nan = float("nan")
    accuracy = (rows["truth"] == rows["prediction"]).mean() if len(rows) else nan
    low, high = nan, nan
    # not every fold, nor every seed, has to have utterances of a subset that came about afterwards
    if counts["n_speakers"] >= MIN_CLUSTERS:
        found = bootstrap_interval(rows, "wa", level=level)
        low, high = found.low, found.high
    return counts | {"accuracy": accuracy, "low": low, "high": high}
