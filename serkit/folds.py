"""Cross-validation folds as explicit lists of utterances, disjoint in speakers by construction."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from serkit.errors import FoldError, ParameterError

GROUPINGS = ("speaker", "session")
SELECTIONS = ("published", "clean", "last")
SPLITS = ("train", "validation", "test")


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


def make_folds(manifest, by="session", selection="clean"):
    """Split the four-class utterances of a manifest, one fold for each speaker or session.

    Parameters
    ----------
    manifest : pd.DataFrame
        As ``serkit.corpora.load`` gives it; utterances without a label are left out.
    by : {"speaker", "session"}
        What is held out for testing.
    selection : {"published", "clean", "last"}
        Which data choose the checkpoint. ``published``: the test data themselves, as the paper's
        code does (a leak, D6). ``clean``: speakers that are in neither training nor test: by
        speaker the others of the tested speaker's session, by session the next session (the last
        is followed by the first). ``last``: none, training runs for a fixed number of epochs.

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
    if by not in GROUPINGS:
        raise ParameterError(f"by={by!r}, expected one of {', '.join(GROUPINGS)}")
    if selection not in SELECTIONS:
        raise ParameterError(f"selection={selection!r}, expected one of {', '.join(SELECTIONS)}")
    rows = task_rows(manifest)
    names = sorted(rows[by].unique())
    sessions = sorted(rows["session"].unique())
    needed = 3 if by == "session" and selection == "clean" else 2
    if len(names) < needed or len(sessions) < 2:
        raise FoldError(
            f"by={by!r}, selection={selection!r}: found {len(names)} {by}s in {len(sessions)} sessions, "
            f"expected at least {needed} in 2; use a larger part of the corpus or selection='last'"
        )
    folds = [_fold(rows, name, by, selection, sessions) for name in names]
    for fold in folds:
        if selection == "clean" and not len(fold.validation):
            raise FoldError(
                f"fold {fold.name}: its session has no other speaker to validate on; "
                "use by='session' or selection='last'"
            )
    check_folds(folds, rows, selection)
    return folds


def _fold(rows, name, by, selection, sessions):
    test = rows[by] == name
    if selection == "published":
        validation, train = test, ~test
    elif selection == "last":
        validation, train = test & False, ~test
    elif by == "speaker":
        session = rows["session"][test].iloc[0]
        validation = (rows["session"] == session) & ~test
        train = rows["session"] != session
    else:
        following = sessions[(sessions.index(name) + 1) % len(sessions)]
        validation = rows["session"] == following
        train = ~test & ~validation
    ids = rows["utterance_id"].to_numpy(str)
    return Fold(str(name), ids[train], ids[validation], ids[test])


def check_folds(folds, manifest, selection="clean"):
    """Leak guard: no speaker on two sides of a fold.

    Parameters
    ----------
    folds : list of Fold
    manifest : pd.DataFrame
    selection : str
        Only ``"published"``, asked for by name, lets validation and test share speakers.

    Raises
    ------
    FoldError
        Naming fold, speaker and the two parts, or an empty or unknown part.
    """
    speaker_of = manifest.set_index("utterance_id")["speaker"]
    for fold in folds:
        for split in ("train", "test"):
            if not len(getattr(fold, split)):
                raise FoldError(
                    f"fold {fold.name}: {split} is empty; build folds with serkit.folds.make_folds"
                )
        unknown = set(np.concatenate([fold.train, fold.validation, fold.test])) - set(speaker_of.index)
        if unknown:
            raise FoldError(f"fold {fold.name}: utterance {sorted(unknown)[0]} is not in the manifest")
        counts = {split: speaker_of.loc[getattr(fold, split)].value_counts() for split in SPLITS}
        for first, second in (("train", "test"), ("train", "validation"), ("validation", "test")):
            if selection == "published" and first == "validation":
                continue
            for speaker in sorted(set(counts[first].index) & set(counts[second].index)):
                raise FoldError(
                    f"fold {fold.name}: speaker {speaker} is in {first} ({counts[first][speaker]} utterances) "
                    f"and in {second} ({counts[second][speaker]}); build folds with serkit.folds.make_folds"
                )


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
    """The fold of that name; the message of the ParameterError lists the names there are."""
    for fold in folds:
        if fold.name == str(name):
            return fold
    raise ParameterError(f"fold={name!r}, expected one of {', '.join(fold.name for fold in folds)}")
