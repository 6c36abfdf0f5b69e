"""What a prediction table must be before anything is averaged over it."""

from itertools import combinations

import numpy as np
import pandas as pd

from serkit.constants import LABELS
from serkit.errors import FoldError, ParameterError, RunError
from serkit.folds import GROUPINGS, SELECTIONS, SPLITS
from serkit.metrics import REPEAT, UNIT

PROBABILITIES = tuple(f"p_{label}" for label in LABELS)
COLUMNS = ("utterance_id", "speaker", "session", "truth", "prediction", *PROBABILITIES, *UNIT, "split")
ROUNDING = 2e-3  # four probabilities written with three digits may miss 1 by this much


def check_predictions(predictions, folds=None):
    """Refuse a prediction table whose scores would be wrong or could not be compared.

    Tables may hold several variants and seeds. Validation and test rows may share speakers only
    where the variant names the published selection (``<recipe>_published_<by>_...``), which
    chooses its checkpoint on the test speakers by design.

    Parameters
    ----------
    predictions : pd.DataFrame
        As ``serkit.runs.load_predictions`` gives it; rows of train are allowed.
    folds : sequence of str or of Fold, optional
        The folds that every variant and seed must have. Without it they are taken from the table:
        what one variant or seed tests, all must test, and who validates must be tested in some
        fold. A lone run without validation rows, or with the published selection, can only be
        found incomplete with ``folds`` given.

    Returns
    -------
    pd.DataFrame
        The same table.

    Raises
    ------
    RunError
        If there are no predictions or no test rows, or a fold or an utterance is missing.
    ParameterError
        If columns or values are missing, label sets differ, rows repeat, an utterance has two
        speakers or two truths, or probabilities do not sum to 1 or disagree with the prediction.
    FoldError
        If a speaker is in two splits of a fold, or tested in two folds.
    """
    if not isinstance(predictions, pd.DataFrame) or predictions.empty:
        raise RunError(
            "prediction table has no rows, expected one for each tested utterance; train a fold with "
            "notebook 05_train_coattention or `serkit reproduce`"
        )
    _check_columns(predictions)
    check_labels(predictions)
    _check_rows(predictions)
    _check_probabilities(predictions)
    _check_speakers(predictions)
    _check_folds(predictions, folds)
    return predictions


def scored_rows(predictions, folds=None):
    """Test rows of a checked table of one variant, in a fixed order.

    Parameters, errors: as :func:`check_predictions`.

    Raises
    ------
    ParameterError
        If there are several variants.
    """
    check_predictions(predictions, folds)
    variants = sorted(predictions["variant"].unique())
    if len(variants) > 1:
        raise ParameterError(f"prediction table mixes variants {variants}, expected one; filter it first")
    test = predictions[predictions["split"] == "test"]
    return test.sort_values([*UNIT, "utterance_id"], ignore_index=True)


def grouping_of(variant):
    """What a variant holds out, ``session`` or ``speaker``; empty if its name does not say.

    Examples
    --------
    >>> grouping_of("corrected_clean_session_paper"), grouping_of("trial")
    ('session', '')
    """
    return next((part for part in variant.split("_")[2:3] if part in GROUPINGS), "")


def selection_of(variant):
    """Who chose a variant's checkpoint; empty if its name does not say.

    Examples
    --------
    >>> selection_of("published+D2_clean_session_paper"), selection_of("trial")
    ('clean', '')
    """
    return next((part for part in variant.split("_")[1:2] if part in SELECTIONS), "")


def _place(row):
    return f"variant {row['variant']}, seed {row['seed']}, fold {row['fold']}"


def _check_columns(table):
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise ParameterError(
            f"prediction table lacks {missing}, has {list(table.columns)}; read predictions.parquet of a run"
        )
    identity = [column for column in COLUMNS if column not in PROBABILITIES]
    for column in identity:
        if table[column].isna().any():
            at = int(np.argmax(table[column].isna()))
            raise ParameterError(
                f"prediction table, row {at}: {column} is missing, expected a value in every row; "
                "read predictions.parquet again"
            )
    unknown = sorted(set(table["split"]) - set(SPLITS))
    if unknown:
        raise ParameterError(f"split={unknown[0]!r}, expected one of {', '.join(SPLITS)}")


def check_labels(table):
    """Refuse variants, seeds or runs that were not tested on the same labels, those of the task.

    Raises
    ------
    ParameterError
        Naming the labels of both.
    """
    for variant, rows in table.groupby("variant"):
        given = sorted(
            column[2:] for column in table.columns if column.startswith("p_") and rows[column].notna().any()
        )
        if given != sorted(LABELS):
            raise ParameterError(
                f"variant {variant}: probabilities are of the labels {given}, expected {sorted(LABELS)}; "
                "runs with different label sets can't be scored together"
            )
    for column in ("truth", "prediction"):
        strange = ~table[column].isin(LABELS)
        if strange.any():
            row = table[strange].iloc[0]
            raise ParameterError(
                f"utterance {row['utterance_id']} ({_place(row)}): {column}={row[column]!r}, expected one of "
                f"{list(LABELS)}; runs with different label sets can't be scored together"
            )
    test = table[table["split"] == "test"]
    sets = {key: set(rows) for key, rows in test.groupby(REPEAT)["truth"]}
    most = max(sets, key=lambda key: len(sets[key]), default=None)
    for (variant, seed), labels in sets.items():
        if labels != sets[most]:
            raise ParameterError(
                f"variant {variant}, seed {seed}: tested on the labels {sorted(labels)}, but variant "
                f"{most[0]}, seed {most[1]} on {sorted(sets[most])}; compare runs of the same utterances"
            )


def _check_rows(table):
    identity = [*UNIT, "split", "utterance_id"]
    repeated = table.duplicated(identity)
    if repeated.any():
        row = table[repeated].iloc[0]
        raise ParameterError(
            f"utterance {row['utterance_id']} ({_place(row)}): more than one {row['split']} row "
            f"({int(repeated.sum())} repeated rows in all), expected one; was a table read twice?"
        )
    for column in ("speaker", "session", "truth"):
        facts = table[["utterance_id", column]].drop_duplicates()
        twice = facts["utterance_id"][facts["utterance_id"].duplicated()]
        if len(twice):
            values = sorted(map(str, facts[column][facts["utterance_id"] == twice.iloc[0]]))
            raise ParameterError(
                f"utterance {twice.iloc[0]}: {column} is {' and '.join(values)}, expected one value in all "
                "folds, seeds and variants; was a table edited? Read predictions.parquet again"
            )


def _check_probabilities(table):
    values = table[list(PROBABILITIES)].to_numpy(float)
    wrong = ~(np.abs(values.sum(axis=1) - 1) <= ROUNDING) | (values < 0).any(axis=1)
    if wrong.any():
        row, total = table[wrong].iloc[0], values[wrong][0].sum()
        raise ParameterError(
            f"utterance {row['utterance_id']} ({_place(row)}): probabilities sum to {total:.4g}, expected 1 "
            f"(none negative or missing); {int(wrong.sum())} such rows. Was a table edited?"
        )
    chosen = values[np.arange(len(table)), table["prediction"].map(LABELS.index)]
    wrong = chosen < values.max(axis=1) - ROUNDING
    if wrong.any():
        row = table[wrong].iloc[0]
        likeliest = LABELS[int(values[wrong][0].argmax())]
        raise ParameterError(
            f"utterance {row['utterance_id']} ({_place(row)}): prediction={row['prediction']!r}, but the "
            f"likeliest label is {likeliest!r}; {int(wrong.sum())} such rows. Was a table edited?"
        )


def _check_speakers(table):
    """No speaker in two splits of a fold, none tested in two folds."""
    counts = table.groupby([*UNIT, "speaker", "split"]).size().unstack("split", fill_value=0)
    counts = counts.reindex(columns=list(SPLITS), fill_value=0)
    leaks_by_design = counts.index.get_level_values("variant").map(selection_of) == "published"
    for first, second in combinations(SPLITS, 2):
        both = (counts[first] > 0) & (counts[second] > 0)
        if (first, second) == ("validation", "test"):
            both &= ~leaks_by_design
        if both.any():
            variant, seed, fold, speaker = both.index[both][0]
            row = counts.loc[(variant, seed, fold, speaker)]
            raise FoldError(
                f"variant {variant}, seed {seed}, fold {fold}: speaker {speaker} is in {first} "
                f"({row[first]} utterances) and in {second} ({row[second]}), expected one split; was the "
                "table edited? Read predictions.parquet again"
            )
    tested = counts[counts["test"] > 0].reset_index()
    twice = tested.duplicated([*REPEAT, "speaker"])
    if twice.any():
        row = tested[twice].iloc[0]
        same = (tested[[*REPEAT, "speaker"]] == row[[*REPEAT, "speaker"]]).all(axis=1)
        raise FoldError(
            f"variant {row['variant']}, seed {row['seed']}: speaker {row['speaker']} is tested in folds "
            f"{' and '.join(map(str, tested['fold'][same]))}, expected one; was the table edited? "
            "Read predictions.parquet again"
        )


def _check_folds(table, folds):
    test = table[table["split"] == "test"]
    passes = {key: rows for key, rows in table.groupby(REPEAT)}
    found = {key: set(rows["fold"][rows["split"] == "test"].map(str)) for key, rows in passes.items()}
    for (variant, seed), names in found.items():
        if folds is not None:
            expected = {str(getattr(fold, "name", fold)) for fold in folds}
        else:
            alike = [key for key in found if grouping_of(key[0]) == grouping_of(variant)]
            expected = set().union(*(found[key] for key in alike))
        _raise_missing(variant, seed, sorted(expected - names), sorted(names))
        if names - expected:
            raise RunError(
                f"variant {variant}, seed {seed}: fold {min(names - expected)} is not one of "
                f"{', '.join(sorted(expected))}; filter the table to the folds asked for"
            )
        rows = passes[variant, seed]
        validates = rows[rows["split"] == "validation"].drop_duplicates("speaker")
        lost = validates[~validates["speaker"].isin(rows["speaker"][rows["split"] == "test"])]
        if folds is None and len(lost):
            column = grouping_of(variant) or "speaker"
            _raise_missing(variant, seed, sorted(lost[column].map(str).unique()), sorted(names))
    utterances = {key: set(ids) for key, ids in test.groupby(REPEAT)["utterance_id"]}
    everything = set().union(*utterances.values())
    for (variant, seed), ids in utterances.items():
        if everything - ids:
            one = min(everything - ids)
            speaker = test["speaker"][test["utterance_id"] == one].iloc[0]
            raise RunError(
                f"variant {variant}, seed {seed}: utterance {one} of speaker {speaker} has no test row, other "
                f"variants or seeds have one ({len(everything - ids)} missing in all); predict that fold again"
            )


def _raise_missing(variant, seed, missing, names):
    if missing:
        raise RunError(
            f"variant {variant}, seed {seed}: fold {', '.join(missing)} is missing, found "
            f"{', '.join(names) or 'none'}; finish it with `serkit reproduce`, or give folds= (`serkit report --partial`) to score a part"
        )
