"""Utterances to look at and listen to, chosen the same way every time, and checks that speak up."""

import numpy as np

from serkit.constants import LABELS, MIN_SAMPLES, SAMPLE_RATE
from serkit.errors import CorpusError, ParameterError, RunError
from serkit.features import audio
from serkit.folds import task_rows


def one_per_emotion(manifest, speaker=""):
    """One utterance of each class, as comparable as the corpus allows.

    All four come from one speaker, because two voices differ more than two emotions of one voice.
    Among the speakers the one is taken that says the same sentence in most emotions, and among
    utterances those on which the annotators agree most; ties go to the first in the alphabet.

    Parameters
    ----------
    manifest : pd.DataFrame
    speaker : str, optional
        The speaker to take; default: chosen as above.

    Returns
    -------
    pd.DataFrame
        Rows of the manifest in class order, index 0, 1, ..., and the column ``seconds``. A
        sentence is a transcript where there is one, otherwise what the corpus calls a dialogue.

    Raises
    ------
    ParameterError
        If the manifest has no such speaker.
    CorpusError
        If no speaker, or not the one asked for, has utterances of all four classes.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"utterance_id": list("abcde"), "label": [*LABELS, "sad"], "speaker": "x",
    ...                       "dialogue": "d", "transcript": ["Go.", "No.", "Go.", "Go.", "Go."],
    ...                       "agreement": 1.0, "num_samples": 16000, "sample_rate": 16000})
    >>> one_per_emotion(table)["utterance_id"].tolist()
    ['a', 'e', 'c', 'd']
    """
    rows = _with_seconds(task_rows(manifest))
    speakers = sorted(rows["speaker"].unique())
    if speaker and speaker not in speakers:
        raise ParameterError(f"speaker={speaker!r}, expected one of {', '.join(speakers)}, or nothing")
    rows["sentence"] = rows["transcript"].fillna(rows["dialogue"])
    rows["agreement"] = rows["agreement"].fillna(0.0)
    chosen = rows[rows["speaker"] == speaker] if speaker else rows
    complete = chosen.groupby("speaker")["label"].transform("nunique") == len(LABELS)
    if not complete.any():
        raise CorpusError(
            f"{f'speaker {speaker} has not' if speaker else 'no speaker has'} all of {', '.join(LABELS)}; "
            "choose another speaker or use a larger part of the corpus"
        )
    shared = chosen[complete].groupby(["speaker", "sentence"])["label"].nunique()
    best, sentence = shared.index[np.argmax(shared.to_numpy())]
    voice = chosen[chosen["speaker"] == best].assign(other=lambda table: table["sentence"] != sentence)
    voice = voice.sort_values(["other", "agreement", "utterance_id"], ascending=[True, False, True])
    firsts = voice.drop_duplicates("label").set_index("label", drop=False).loc[list(LABELS)]
    return firsts[[*manifest.columns, "seconds"]].reset_index(drop=True)


def utterance_near(manifest, seconds, *, speaker=""):
    """The four-class utterance whose length comes closest.

    Parameters
    ----------
    manifest : pd.DataFrame
    seconds : float
        Wanted length in s.
    speaker : str, optional
        Only this speaker's utterances.

    Returns
    -------
    pd.Series
        A row of the manifest, with its length as ``seconds``.

    Raises
    ------
    ParameterError
        If ``seconds`` is not positive or the speaker has no utterance.
    """
    if not seconds > 0:
        raise ParameterError(f"seconds={seconds!r}, expected a positive length such as 2.0")
    rows = _with_seconds(task_rows(manifest))
    rows = rows[rows["speaker"] == speaker] if speaker else rows
    if rows.empty:
        raise ParameterError(f"speaker={speaker!r} has no labelled utterance; choose one of the manifest")
    return rows.loc[(rows["seconds"] - seconds).abs().idxmin()]


def waveform_near(manifest, seconds, *, speaker=""):
    """A waveform of about the wanted length: whole where the corpus has one, otherwise cut.

    An utterance within a fifth of the wanted length is taken whole, a longer one is cut down to it.

    Returns
    -------
    utterance : pd.Series
        From :func:`utterance_near`.
    waveform : np.ndarray, shape (num_samples,), float32
        16 kHz.
    """
    utterance = utterance_near(manifest, seconds, speaker=speaker)
    waveform = audio.read(utterance["path"])
    if utterance["seconds"] > 1.2 * seconds:
        waveform = waveform[: max(round(seconds * SAMPLE_RATE), MIN_SAMPLES)]
    return utterance, waveform


def confident_mistakes(predictions, manifest, n=4):
    """The wrong predictions that were made with the highest probability.

    Parameters
    ----------
    predictions : pd.DataFrame
        Test rows of a prediction table.
    manifest : pd.DataFrame
    n : int
        How many; an utterance that is wrong with several seeds counts once.

    Returns
    -------
    pd.DataFrame
        ``utterance_id, speaker, truth, prediction, confidence, path, transcript``, the surest first;
        fewer than ``n`` rows, or none, where there are not so many mistakes.
    """
    if not 1 <= n <= 1000:
        raise ParameterError(f"n={n!r} mistakes, expected 1 to 1000")
    wrong = predictions[predictions["truth"] != predictions["prediction"]].copy()
    wrong["confidence"] = wrong[[f"p_{label}" for label in LABELS]].max(axis=1)
    wrong = wrong.sort_values(["confidence", "utterance_id"], ascending=[False, True])
    wrong = wrong.drop_duplicates("utterance_id").head(n)
    about = manifest[["utterance_id", "path", "transcript"]]
    columns = ["utterance_id", "speaker", "truth", "prediction", "confidence", "path", "transcript"]
    return wrong.merge(about, on="utterance_id", how="left")[columns]


def check_all(checks):
    """Print each check with its outcome, and stop if one fails.

    Parameters
    ----------
    checks : dict of str to bool
        What must hold, in words.

    Raises
    ------
    RunError
        Naming all that fail.

    Examples
    --------
    >>> check_all({"four classes": len(LABELS) == 4})
    ok    four classes
    """
    failed = [name for name, holds in checks.items() if not holds]
    for name in checks:
        print(f"{'FAIL' if name in failed else 'ok  '}  {name}")
    if failed:
        raise RunError(
            f"{len(failed)} of {len(checks)} checks failed: {'; '.join(failed)}; "
            "look at the cells above before using anything this notebook wrote"
        )


def _with_seconds(rows):
    return rows.assign(seconds=(rows["num_samples"] / rows["sample_rate"]).astype(float))
