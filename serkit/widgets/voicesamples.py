"""Recordings to try a model on: an utterance it has not heard, one voice in four emotions, and bad recordings."""

import io

import numpy as np
import pandas as pd
import soundfile
import soxr

from serkit import corpora, runs
from serkit.constants import SAMPLE_RATE
from serkit.features import audio
from serkit.widgets.examples import one_per_emotion, utterance_near

EXAMPLE_S = 6.0  # s, length of the utterance that is shown when no recording is given
FAR_AWAY = 0.01  # peak of a voice far from the microphone: -40 dBFS
TOO_LOUD = 8  # times what the recorder can hold
CUT_OFF_S = 0.5  # s that are left when the recorder was stopped too early
TELEPHONE_HZ = 8000


def unheard_utterances(experiment, root=""):
    """Labelled utterances of the demo corpus that a model has not been trained on.

    Parameters
    ----------
    experiment : dict
        Of the model: ``corpus``, ``by`` and ``fold``.
    root : path, optional
        Of the demo corpus; it is spoken there if it is missing.

    Returns
    -------
    pd.DataFrame
        Rows of the manifest: those of the tested fold, or all for a model of another corpus.
    """
    manifest = corpora.load("demo", runs.corpus_root("demo", root))
    manifest = manifest[manifest["label"].notna()]
    unheard = manifest[manifest[experiment["by"]] == experiment["fold"]]
    return (manifest if experiment["corpus"] != "demo" else unheard).reset_index(drop=True)


def choose_recording(recording, experiment, root=""):
    """The recording that was asked for, or an utterance that the model has not heard.

    Parameters
    ----------
    recording : path
        Empty: the utterance of the demo corpus whose length is nearest to 6 s.
    experiment : dict
    root : path, optional
        As in `unheard_utterances`.

    Returns
    -------
    path : str
    origin : str
        What is known about it, for a caption.
    """
    if recording:
        return str(recording), "your recording"
    row = utterance_near(unheard_utterances(experiment, root), EXAMPLE_S)
    return row[
        "path"
    ], f"{row['utterance_id']} of the demo corpus, a machine speaking in a {row['label']} voice"


def four_emotions(experiment, root=""):
    """One voice in four emotions, one after the other in one recording.

    Returns
    -------
    content : bytes
        A wav file, 16 kHz.
    parts : pd.DataFrame
        ``label, start_s, end_s`` of each.
    """
    rows = one_per_emotion(unheard_utterances(experiment, root))
    sounds = [audio.read(path) for path in rows["path"]]
    ends = np.cumsum([len(sound) for sound in sounds]) / SAMPLE_RATE
    parts = pd.DataFrame({"label": rows["label"], "start_s": np.append(0, ends[:-1]), "end_s": ends})
    return wav_bytes(np.concatenate(sounds)), parts


def spoil(waveform):
    """The same speech, recorded badly in five ways.

    Parameters
    ----------
    waveform : np.ndarray, shape (num_samples,)
        16 kHz.

    Returns
    -------
    dict of str to bytes
        What was done -> wav file.
    """
    loudest = max(np.abs(waveform).max(), 1e-9)  # silence stays silence
    telephone = soxr.resample(waveform, SAMPLE_RATE, TELEPHONE_HZ, quality=audio.SOXR_QUALITY)
    return {
        "as it is": wav_bytes(waveform),
        "far away": wav_bytes(FAR_AWAY * waveform / loudest),
        "too loud": wav_bytes(np.clip(TOO_LOUD * waveform / loudest, -1, 1)),
        "telephone": wav_bytes(telephone, TELEPHONE_HZ),
        "cut off": wav_bytes(waveform[: int(CUT_OFF_S * SAMPLE_RATE)]),
        "muted": wav_bytes(0 * waveform),
    }


def wav_bytes(waveform, sample_rate=SAMPLE_RATE):
    """A mono waveform as a 16-bit wav file."""
    file = io.BytesIO()
    soundfile.write(file, waveform, sample_rate, "PCM_16", format="WAV")
    return file.getvalue()
