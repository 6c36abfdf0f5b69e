"""What a prediction table must be before anything is averaged over it, and what its protocol is called.

A variant is called ``<recipe>_<selection>_<by>_<profile>...`` (:attr:`serkit.experiment.Experiment.variant`); whoever
has only a prediction table reads its protocol from that name, here and nowhere else.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from serkit.errors import FoldError, ParameterError, RunError, shown
from serkit.experiment import ACROSS
from serkit.files import read_toml
from serkit.folds import GROUPINGS, SELECTIONS, SPLITS, check_speakers
from serkit.metrics import PROBABILITY, REPEAT, UNIT, check_one_variant, labels_of

COLUMNS = ("utterance_id", "speaker", "session", "truth", "prediction", *UNIT, "split")  # beside p_...
ROUNDING = 2e-3  # four probabilities written with three digits may miss 1 by this much
WORDS = read_toml(__file__, "words.toml")


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
        If columns or values are missing, a label is not of the task, rows repeat, an utterance has two
        speakers or two truths, or probabilities do not sum to 1 or disagree with the prediction.
    FoldError
        If a speaker is in two splits of a fold, or tested in two folds.
    """
    if not isinstance(predictions, pd.DataFrame) or predictions.empty:
        raise RunError("prediction table has no rows; train a fold with notebook 05 or `serkit reproduce`")
    needed = [*COLUMNS, *(PROBABILITY + label for label in labels_of(predictions))]
    if missing := [column for column in needed if column not in predictions.columns]:
        there = list(predictions.columns)
        raise ParameterError(f"prediction table lacks {missing}, has {there}; read predictions.parquet")
    for values, wrong, expected in _rules(predictions):
        if (wrong := np.asarray(wrong)).any():
            row = predictions[wrong].iloc[0]
            about = "utterance {utterance_id} (variant {variant}, seed {seed}, fold {fold})".format(**row)
            fault = f"{values.name}={shown(values[wrong].iloc[0])}, expected {expected}; rows like it: {wrong.sum()}"
            cure = "Was a table edited, or read twice? Read predictions.parquet again"
            raise ParameterError(f"{about}: {fault}. {cure}")
    _check_runs(predictions, folds)
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
    return predictions[predictions["split"] == "test"].sort_values([*UNIT, "utterance_id"], ignore_index=True)


def tested_folds(predictions):
    """Names of the folds that a prediction table tests, sorted."""
    return sorted(predictions.loc[predictions["split"] == "test", "fold"].astype(str).unique())


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


def _rules(table):
    """What every row must be: a column, which rows are wrong, what was expected; later rules build on earlier ones."""
    labels = list(labels_of(table))
    probabilities = [PROBABILITY + label for label in labels]
    expected = dict.fromkeys(COLUMNS, "a value in every row")
    expected |= dict.fromkeys(probabilities, "a probability in every row, of the same classes everywhere")
    for column, what in expected.items():
        yield table[column], table[column].isna(), what
    yield table["split"], ~table["split"].isin(SPLITS), f"one of {', '.join(SPLITS)}"
    for column in ("truth", "prediction"):
        yield table[column], ~table[column].isin(labels), f"one of {', '.join(labels)}"
    yield table["split"], table.duplicated([*UNIT, "split", "utterance_id"]), "one such row of this utterance"
    for column in ("speaker", "session", "truth"):
        first = table.drop_duplicates("utterance_id").set_index("utterance_id")[column]
        differs = table[column] != table["utterance_id"].map(first)
        yield table[column], differs, "the same in all rows of an utterance, in every fold, seed and variant"
    values = table[probabilities].to_numpy(float)
    total = pd.Series(values.sum(axis=1), table.index, name="sum of probabilities")
    wrong = ~(np.abs(total - 1) <= ROUNDING) | (values < 0).any(axis=1)
    yield total, wrong, "1, and none negative or missing"
    predicted = values[np.arange(len(table)), table["prediction"].map(labels.index)]
    yield table["prediction"], predicted < values.max(axis=1) - ROUNDING, "the likeliest label"


def _check_runs(table, folds):
    """Every variant and seed keeps speakers apart, has its folds, and tests what the others test."""
    everything = table[table["split"] == "test"]
    folds_of = {key: set(rows["fold"].map(str)) for key, rows in everything.groupby(REPEAT)}
    for (variant, seed), rows in table.groupby(REPEAT):
        about, by = f"variant {variant}, seed {seed}", grouping_of(variant)
        check_speakers(rows, selection_of(variant), about=f"{about}, ")
        test, validates = (rows[rows["split"] == split] for split in ("test", "validation"))
        folds_of_speaker = test.groupby("speaker")["fold"].unique()
        for speaker, both in folds_of_speaker[folds_of_speaker.map(len) > 1].items():
            both = f"folds {' and '.join(map(str, both))}, expected one"
            raise FoldError(f"{about}: speaker {speaker} is tested in {both}; read predictions.parquet again")
        present = folds_of.get((variant, seed), set())
        if folds is None:
            # who validates is tested too, in a fold that is called after its session or itself; not in a corpus's own
            untested = validates[~validates["speaker"].isin(test["speaker"])]
            lost = set() if by == "split" else set(untested[by or "speaker"].map(str))
            alike = (names for (other, _), names in folds_of.items() if grouping_of(other) == by)
            expected = lost.union(*alike)
        else:
            expected = {str(getattr(fold, "name", fold)) for fold in folds}
        if missing := sorted(expected - present):
            absent = f"missing folds: {', '.join(missing)}; found {', '.join(sorted(present)) or 'none'}"
            part = "ask for a part: partial = True in notebook 06, `serkit report --partial`"
            raise RunError(f"{about}: {absent}; finish them with `serkit reproduce`, or {part}")
        if extra := sorted(present - expected):
            known = ", ".join(sorted(expected))
            raise RunError(f"{about}: fold {extra[0]} is not one of {known}; filter the table to those")
        untested = everything[~everything["utterance_id"].isin(test["utterance_id"])]
        if len(untested):
            row = untested.sort_values("utterance_id").iloc[0]
            absent = f"utterance {row['utterance_id']} of speaker {row['speaker']} has no test row"
            others = f"other variants or seeds have one ({untested['utterance_id'].nunique()} missing in all)"
            raise RunError(f"{about}: {absent}, {others}; predict that fold again")


def speakers_of(corpus):
    """Who speaks in a corpus, in words; across corpora, in the one that is tested.

    >>> speakers_of("ravdess-to-demo"), speakers_of("mine")
    ('synthetic speakers', 'speakers of mine')
    """
    tested = corpus.rpartition(ACROSS)[2]
    return WORDS["speakers"].get(tested, f"speakers of {tested}")


def protocol_in_words(settings, predictions, planned=None):
    """Whom, how many and how: the part of a caption that begins "over ...".

    Parameters
    ----------
    settings : mapping
        Of the experiment, such as :func:`serkit.runs.shared_parameters` gives them; what is not there (because
        variants differ in it) is not said, nor what is as in a default run.
    predictions : pd.DataFrame
        Prediction table; test rows count.
    planned : sequence of str, optional
        Names of all folds of the protocol, from :func:`serkit.runs.planned_folds`: says whether these are all.

    Returns
    -------
    str

    Examples
    --------
    >>> rows = pd.DataFrame({"split": "test", "fold": ["1", "2"], "seed": 111, "utterance_id": ["a", "b"],
    ...                      "speaker": ["1F", "2M"], "variant": "a"})
    >>> settings = {"corpus": "demo", "by": "session", "recipe": "corrected", "selection": "clean"}
    >>> protocol_in_words(settings, rows, ["1", "2"])  # doctest: +NORMALIZE_WHITESPACE
    'both leave-one-session-out folds (2 utterances of 2 synthetic speakers; corrected features, checkpoint chosen
    on other speakers)'
    >>> protocol_in_words({"corpus": "iemocap"}, rows[:1], ["1", "2"])
    'fold 1 of two folds (1 utterance of 1 IEMOCAP speaker)'
    >>> protocol_in_words({"corpus": "emodb+ravdess-to-iemocap", "by": "split"}, rows[:1])
    'trained on emodb and ravdess (1 utterance of 1 IEMOCAP speaker)'
    """
    test, names = predictions[predictions["split"] == "test"], tested_folds(predictions)
    n_folds, by = len(planned or names), f"leave-one-{settings['by']}-out " if "by" in settings else ""
    folds = f"{_number(n_folds)} {by}fold{'s' * (n_folds > 1)}"
    if planned and len(names) == n_folds:
        folds = f"all {folds}".replace("all two", "both")
    elif planned:
        few = f"fold{'s' * (len(names) > 1)} {', '.join(names)}"
        folds = f"{few if len(names) <= 5 else _number(len(names))} of {folds}"
    trained, _, tested = settings["corpus"].rpartition(ACROSS)
    if settings.get("by") == "split":
        folds = f"trained on {trained.replace('+', ' and ')}" if trained else "the corpus's own test split"
    n, seeds = test[["utterance_id", "speaker"]].nunique(), test.groupby("variant")["seed"].nunique()
    who = f"{_count(n['utterance_id'], 'utterances')} of {_count(n['speaker'], speakers_of(tested))}"
    who += f", {' to '.join(map(str, sorted({seeds.min(), seeds.max()})))} seeds" if seeds.max() > 1 else ""
    return f"{folds} ({'; '.join(filter(None, [who, settings_in_words(settings)]))})"


def settings_in_words(settings):
    """Recipe, selection and model in words; of the model only what is not as in a default run.

    >>> settings_in_words({"recipe": "published+D2", "views": "mfcc+speech", "selection": "last"})
    'published features, D2 mended, MFCC and waveform only, last epoch kept'
    """
    base, *changes = re.split("(?=[+-]D)", settings.get("recipe", ""))
    views, encoder = settings.get("views", "all"), settings.get("speech_encoder")
    learns, layer = settings.get("encoder_training", "all"), settings.get("encoder_layers", "last")
    words = [
        base and f"{base} features",
        *(f"{change[1:]} {'mended' if change[0] == '+' else 'as published'}" for change in changes),
        views != "all" and " and ".join(map(WORDS["views"].get, views.split("+"))) + " only",
        settings.get("profile") == "paper" and "the paper's model",
        encoder and f"speech encoder {Path(encoder).name}",
        learns != "all" and f"encoder training: {learns}",
        layer != "last" and (f"layer {layer}" if layer.isdigit() else f"{layer} sum of layers"),
        WORDS["fusion"].get(settings.get("fusion")),
        WORDS["selection"].get(settings.get("selection")),
        settings.get("unseen_text") and "no tested sentence trained on",
    ]
    return ", ".join(filter(None, words))


def _number(n):
    return WORDS["numbers"][n] if n < len(WORDS["numbers"]) else f"{n:,}"


def _count(n, plural):
    singular = re.sub(r"s\b", "", plural, count=1)
    return f"{n:,} {plural if n != 1 else singular}"
