"""Cross-validation folds as explicit lists of utterances, disjoint in speakers by construction."""

import filecmp
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd

from serkit.errors import FoldError, check_choice

GROUPINGS = ("speaker", "session", "split")
SELECTIONS = ("published", "clean", "clean9", "last")
CLEAN9_SHARE = 8  # of the other sessions' utterances one in so many chooses the checkpoint
SPLITS = ("train", "validation", "test")
MAY_SHARE = {"published": ("validation", "test"), "clean9": ("train", "validation")}  # speakers, by selection
COMPARED = 20  # files of equal size and middle, on each side of a fold, that are compared whole


@dataclass(frozen=True)
class Fold:
    """One fold: who trains, who chooses the checkpoint, who is tested."""

    name: str  # the speaker or session that is tested
    train: np.ndarray  # utterance ids
    validation: np.ndarray  # utterance ids; empty for "last", equal to test for "published"
    test: np.ndarray  # utterance ids


def task_rows(manifest):
    """The utterances of the four-class task (those with a label), index 0, 1, ..."""
    return manifest[manifest["label"].notna()].reset_index(drop=True)


def seconds_of(rows):
    """Length of each utterance of a manifest in s."""
    return (rows["num_samples"] / rows["sample_rate"]).astype(float)


def make_folds(manifest, by="session", selection="clean", unseen_text=False):
    """Split the four-class utterances of a manifest, one fold for each speaker or session.

    Parameters
    ----------
    manifest : pd.DataFrame
        As ``serkit.corpora.load`` gives it; utterances without a label are left out.
    by : {"speaker", "session", "split"}
        What is held out for testing. ``split``: one fold, as the corpus itself says in its column ``split``.
    selection : {"published", "clean", "clean9", "last"}
        Which data choose the checkpoint. ``published``: the test data themselves, as the paper's
        code does (a leak, D6). ``clean``: speakers that are in neither training nor test: by
        speaker the others of the tested speaker's session, by session the next session (the last
        is followed by the first), by split the corpus's own. ``last``: none, training runs for a fixed number of
        epochs. ``clean9``: by speaker only; as in the published code all nine others train, the tested speaker's
        dialogue partner too, but every eighth of their utterances from other sessions chooses the checkpoint in place
        of the tested speaker.
    unseen_text : bool
        Whether no sentence that is tested may be trained on: of those on both sides, every second leaves the training,
        the others leave the test.

    Returns
    -------
    list of Fold
        Sorted by name.

    Raises
    ------
    ParameterError
        If ``by`` or ``selection`` is unknown.
    FoldError
        If there are too few speakers or sessions, or a tested speaker is alone in its session.

    Examples
    --------
    >>> table = pd.DataFrame({"utterance_id": list("abcd"), "label": "sad",
    ...                       "speaker": list("wxyz"), "session": list("1122")})
    >>> fold = make_folds(table, by="speaker", selection="clean")[0]
    >>> fold.name, fold.train.tolist(), fold.validation.tolist(), fold.test.tolist()
    ('w', ['c', 'd'], ['b'], ['a'])
    """
    check_choice("by", by, GROUPINGS)
    check_choice("selection", selection, SELECTIONS)
    if selection == "clean9" and by != "speaker":
        raise FoldError(f"selection='clean9' with by={by!r}, expected by='speaker': it is about partners")
    rows, names = task_rows(manifest), ["test"]
    if by == "split":  # utterances without one are in no part
        rows = rows[rows["split"].isin(SPLITS if selection == "clean" else ("train", "test"))]
    else:
        names, n_sessions = sorted(rows[by].unique()), rows["session"].nunique()
        needed = 3 if by == "session" and selection == "clean" else 2
        if len(names) < needed or n_sessions < 2:
            about = f"by={by!r}, selection={selection!r}: found {len(names)} {by}s in {n_sessions} sessions"
            cure = "use a larger part of the corpus or selection='last'"
            raise FoldError(f"{about}, expected at least {needed} in 2; {cure}")
    folds = [_fold(rows, name, by, selection) for name in names]
    folds = [_without_texts(fold, rows, n) for n, fold in enumerate(folds)] if unseen_text else folds
    for fold in folds:
        if selection == "clean" and not len(fold.validation):
            alone = "its session has no other speaker to validate on; use by='session'"
            lacks = "nothing is in validation; name some" if by == "split" else alone
            raise FoldError(f"fold {fold.name}: {lacks} or selection='last'")
    check_folds(folds, rows, selection)
    return folds


def _without_texts(fold, rows, number):
    """The fold without training utterances that say what is tested; ``number`` says which half of the sentences is.

    Sentences are compared by their words. Where there is no transcript, the name of the dialogue stands for it: in
    corpora that are read from scripts it is that of the sentence.
    """
    texts = rows["transcript"].fillna(rows["dialogue"]).str.lower().str.replace(r"[^\w ]", "", regex=True)
    texts = texts.set_axis(rows["utterance_id"])
    shared = sorted({*texts[fold.train]} & {*texts[fold.test]})
    tested, trained = shared[number % 2 :: 2], shared[1 - number % 2 :: 2]
    train, test = fold.train[~texts[fold.train].isin(tested)], fold.test[~texts[fold.test].isin(trained)]
    if not (len(train) and len(test)):
        few = f"unseen_text=True with {len(shared)} sentences on both sides"
        raise FoldError(f"fold {fold.name}: {few} leaves nothing to train on or to test, expected at least 2")
    return Fold(fold.name, train, test if fold.validation is fold.test else fold.validation, test)


def _fold(rows, name, by, selection):
    test = rows[by] == name
    if selection == "published":
        validation = test
    elif selection == "last":
        validation = test & False
    elif by == "split":
        validation = rows["split"] == "validation"
    elif selection == "clean9":
        others = rows.index[rows["session"] != rows["session"][test].iloc[0]]
        validation = rows.index.isin(others[::CLEAN9_SHARE])
    elif by == "speaker":
        validation = (rows["session"] == rows["session"][test].iloc[0]) & ~test
    else:
        sessions = sorted(rows["session"].unique())
        validation = rows["session"] == sessions[(sessions.index(name) + 1) % len(sessions)]
    ids = rows["utterance_id"].to_numpy(str)
    train, tested = ids[~test & ~validation], ids[test]
    return Fold(str(name), train, tested if validation is test else ids[validation], tested)


def check_folds(folds, manifest, selection="clean"):
    """Leak guard: no speaker on two sides of a fold.

    Parameters
    ----------
    folds : list of Fold
    manifest : pd.DataFrame
    selection : str
        Only ``"published"``, asked for by name, lets validation and test share speakers, and ``"clean9"`` validation
        and training.

    Raises
    ------
    FoldError
        Naming fold, speaker and the two parts, or an empty or unknown part.
    """
    for fold in folds:
        for split in ("train", "test"):
            if not len(getattr(fold, split)):
                raise FoldError(f"fold {fold.name}: {split} is empty; build folds with folds.make_folds")
    table = fold_table(folds)
    table["speaker"] = table["utterance_id"].map(manifest.set_index("utterance_id")["speaker"])
    unknown = table[table["speaker"].isna()]
    if len(unknown):
        row = unknown.iloc[0]
        raise FoldError(f"fold {row['fold']}: utterance {row['utterance_id']} is not in the manifest")
    check_speakers(table, selection)
    if {"digest", "path"} <= {*manifest}:
        _check_sounds(table, manifest)


def _check_sounds(table, manifest):
    """Leak guard: no sound in training that is heard again in the test, under whatever name or speaker.

    Digests say where to look, the files whether they are the same.
    """
    about = manifest.loc[manifest["digest"].duplicated(keep=False), ["utterance_id", "digest", "path"]]
    table = table.merge(about, on="utterance_id")
    trained = table["split"] == "train"
    sides = [rows.groupby(["fold", "digest"]).head(COMPARED) for rows in (table[trained], table[~trained])]
    pairs = sides[0].merge(sides[1], on=["fold", "digest"], suffixes=("", "_again"))
    for pair in pairs.itertuples():
        with suppress(OSError):  # files that have gone can't be compared
            if filecmp.cmp(pair.path, pair.path_again, shallow=False):
                both = f"{pair.utterance_id} in train and {pair.utterance_id_again} in {pair.split_again}"
                cure = "take one of them out of the corpus"
                raise FoldError(f"fold {pair.fold}: {both} are the same sound; {cure}")


def check_speakers(table, selection="clean", about=""):
    """Leak guard of a table of folds or predictions: its columns ``fold``, ``split`` and ``speaker``.

    Parameters
    ----------
    table : pd.DataFrame
    selection : str
        As in :func:`check_folds`.
    about : str, optional
        Begins the message.

    Raises
    ------
    FoldError
        Naming fold, speaker and the two splits.
    """
    counts = table.groupby(["fold", "speaker", "split"]).size().unstack("split", fill_value=0)
    counts = counts.reindex(columns=list(SPLITS), fill_value=0)
    for first, second in (("train", "test"), ("train", "validation"), ("validation", "test")):
        if MAY_SHARE.get(selection) == (first, second):
            continue
        for (fold, speaker), n in counts[(counts[first] > 0) & (counts[second] > 0)].iterrows():
            both = f"in {first} ({n[first]} utterances) and in {second} ({n[second]})"
            cure = "build folds with serkit.folds.make_folds"
            raise FoldError(f"{about}fold {fold}: speaker {speaker} is {both}; {cure}")


def fold_table(folds):
    """Folds as one table that can be saved and compared.

    Returns
    -------
    pd.DataFrame
        Columns ``fold, split, utterance_id``; in a ``published`` fold the tested utterances stand
        twice, as validation and as test.
    """
    parts = [
        pd.DataFrame({"fold": fold.name, "split": split, "utterance_id": getattr(fold, split)})
        for fold in folds
        for split in SPLITS
    ]
    return pd.concat(parts, ignore_index=True)


def find_fold(folds, name):
    """The fold of that name; the message of the ParameterError lists the names there are.

    papermill makes a number of ``01``: zeros in front may be missing.
    """
    named = {fold.name: fold for fold in folds}
    wanted = next((full for full in named if full.lstrip("0") == str(name).lstrip("0")), str(name))
    check_choice("fold", wanted, named)
    return named[wanted]
