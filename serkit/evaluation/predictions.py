"""What a prediction table must be before anything is averaged over it, and what a variant's name says.

A variant is called ``<recipe>_<selection>_<by>_<profile>...`` (:attr:`serkit.experiment.Experiment.variant`); whoever
has only a prediction table reads its protocol from that name, here and nowhere else.
"""

from itertools import combinations

import numpy as np
import pandas as pd

from serkit.constants import LABELS
from serkit.errors import FoldError, ParameterError, RunError, check_choice
from serkit.folds import GROUPINGS, SELECTIONS, SPLITS
from serkit.metrics import REPEAT, UNIT, check_one_variant

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
    check_one_variant(predictions)
    test = predictions[predictions["split"] == "test"]
    return test.sort_values([*UNIT, "utterance_id"], ignore_index=True)


def selection_of(variant):
    """Who chose a variant's checkpoint; empty if its name does not say.

    Examples
    --------
    >>> selection_of("published+D2_clean_session_paper"), selection_of("trial")
    ('clean', '')
    """
    return _part(variant, 1, SELECTIONS)


def grouping_of(variant):
    """What a variant holds out, ``session`` or ``speaker``; empty if its name does not say.

    Examples
    --------
    >>> grouping_of("corrected_clean_session_paper"), grouping_of("trial")
    ('session', '')
    """
    return _part(variant, 2, GROUPINGS)


def with_selection(variant, selection):
    """Name of the variant that differs in nothing but who chooses the checkpoint.

    Examples
    --------
    >>> with_selection("published_published_session_paper", "clean")
    'published_clean_session_paper'
    """
    return variant.replace(f"_{selection_of(variant)}_", f"_{selection}_", 1)


def _part(variant, position, known):
    parts = variant.split("_")
    return parts[position] if len(parts) > position and parts[position] in known else ""


def _check_columns(table):
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise ParameterError(
            f"prediction table lacks {missing}, has {list(table.columns)}; read predictions.parquet of a run"
        )
    absent = table[[column for column in COLUMNS if column not in PROBABILITIES]].isna()
    if absent.to_numpy().any():
        column = absent.any().idxmax()
        raise ParameterError(
            f"prediction table, row {int(np.argmax(absent[column]))}: {column} is missing, expected a value in "
            "every row; read predictions.parquet again"
        )
    for split in sorted(set(table["split"])):
        check_choice("split", split, SPLITS)


def check_labels(table):
    """Refuse variants, seeds or runs that were not tested on the same labels, those of the task.

    Raises
    ------
    ParameterError
        Naming the variant or utterance and its labels.
    """
    for variant, rows in table.groupby("variant"):
        given = sorted(
            name[2:] for name in table.columns if name.startswith("p_") and rows[name].notna().any()
        )
        if given != sorted(LABELS):
            raise ParameterError(
                f"variant {variant}: probabilities are of the labels {given}, expected {sorted(LABELS)}; "
                "runs with different label sets can't be scored together"
            )
    for column in ("truth", "prediction"):
        unknown = ~table[column].isin(LABELS)
        if unknown.any():
            row = table[unknown].iloc[0]
            raise ParameterError(
                f"{_name(row)}: {column}={row[column]!r}, expected one of {list(LABELS)}; runs with different "
                "label sets can't be scored together"
            )
    test = table[table["split"] == "test"]
    sets = {key: sorted(set(truth)) for key, truth in test.groupby(REPEAT)["truth"]}
    most = max(sets, key=lambda key: len(sets[key]), default=None)
    for (variant, seed), labels in sets.items():
        if labels != sets[most]:
            raise ParameterError(
                f"variant {variant}, seed {seed}: tested on the labels {labels}, but variant "
                f"{most[0]}, seed {most[1]} on {sets[most]}; compare runs of the same utterances"
            )


def _check_rows(table):
    repeated = table.duplicated([*UNIT, "split", "utterance_id"])
    if repeated.any():
        row = table[repeated].iloc[0]
        raise ParameterError(
            f"{_name(row)}: more than one {row['split']} row ({int(repeated.sum())} repeated rows in all), "
            "expected one; was a table read twice?"
        )
    for column in ("speaker", "session", "truth"):
        facts = table[["utterance_id", column]].drop_duplicates()
        repeated = facts["utterance_id"].duplicated()
        if repeated.any():
            utterance = facts["utterance_id"][repeated].iloc[0]
            values = sorted(map(str, facts[column][facts["utterance_id"] == utterance]))
            raise ParameterError(
                f"utterance {utterance}: {column} is {' and '.join(values)}, expected one value in all folds, "
                "seeds and variants; was a table edited? Read predictions.parquet again"
            )


def _check_probabilities(table):
    values = table[list(PROBABILITIES)].to_numpy(float)
    wrong = ~(np.abs(values.sum(axis=1) - 1) <= ROUNDING) | (values < 0).any(axis=1)
    if wrong.any():
        raise ParameterError(
            f"{_name(table[wrong].iloc[0])}: probabilities sum to {values[wrong][0].sum():.4g}, expected 1 "
            f"(none negative or missing); {int(wrong.sum())} such rows. Was a table edited?"
        )
    predicted = values[np.arange(len(table)), table["prediction"].map(LABELS.index)]
    wrong = predicted < values.max(axis=1) - ROUNDING
    if wrong.any():
        row = table[wrong].iloc[0]
        raise ParameterError(
            f"{_name(row)}: prediction={row['prediction']!r}, but the likeliest label is "
            f"{LABELS[int(values[wrong][0].argmax())]!r}; {int(wrong.sum())} such rows. Was a table edited?"
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
            (variant, seed, fold, speaker), row = next(counts[both].iterrows())
            raise FoldError(
                f"variant {variant}, seed {seed}, fold {fold}: speaker {speaker} is in {first} ({row[first]} "
                f"utterances) and in {second} ({row[second]}), expected one split; build folds with "
                "serkit.folds.make_folds and predict again, or read predictions.parquet again if the table was edited"
            )
    tested = counts[counts["test"] > 0].reset_index()
    for (variant, seed, speaker), rows in tested.groupby([*REPEAT, "speaker"]):
        if len(rows) > 1:
            raise FoldError(
                f"variant {variant}, seed {seed}: speaker {speaker} is tested in folds "
                f"{' and '.join(map(str, rows['fold']))}, expected one; was the table edited? "
                "Read predictions.parquet again"
            )


def _check_folds(table, folds):
    """Every variant and seed has its folds, and tests what the others test."""
    test = table[table["split"] == "test"]
    names = {key: set(rows["fold"][rows["split"] == "test"].map(str)) for key, rows in table.groupby(REPEAT)}
    for (variant, seed), rows in table.groupby(REPEAT):
        present = names[variant, seed]
        if folds is not None:
            expected = {str(getattr(fold, "name", fold)) for fold in folds}
        else:
            expected = set().union(
                *(names[key] for key in names if grouping_of(key[0]) == grouping_of(variant))
            )
            validates = rows[rows["split"] == "validation"]
            lost = validates[~validates["speaker"].isin(rows["speaker"][rows["split"] == "test"])]
            # a speaker's fold is called after its session or itself
            expected |= set(lost[grouping_of(variant) or "speaker"].map(str))
        if missing := sorted(expected - present):
            raise RunError(
                f"variant {variant}, seed {seed}: fold {', '.join(missing)} is missing, found "
                f"{', '.join(sorted(present)) or 'none'}; finish it with `serkit reproduce`, or give folds= "
                "(`serkit report --partial`) to score a part"
            )
        if present - expected:
            raise RunError(
                f"variant {variant}, seed {seed}: fold {min(present - expected)} is not one of "
                f"{', '.join(sorted(expected))}; filter the table to the folds asked for"
            )
    utterances = {key: set(ids) for key, ids in test.groupby(REPEAT)["utterance_id"]}
    everything = set().union(*utterances.values())
    for (variant, seed), ids in utterances.items():
        if missing := everything - ids:
            utterance = min(missing)
            speaker = test["speaker"][test["utterance_id"] == utterance].iloc[0]
            raise RunError(
                f"variant {variant}, seed {seed}: utterance {utterance} of speaker {speaker} has no test row, other "
                f"variants or seeds have one ({len(missing)} missing in all); predict that fold again"
            )


def _name(row):
    return (
        f"utterance {row['utterance_id']} (variant {row['variant']}, seed {row['seed']}, fold {row['fold']})"
    )
