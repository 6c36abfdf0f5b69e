"""A recording of one's own: what the model says about it, what it sounds like, and what to make of that.

Everything that notebook 08_predict shows, for a path, for an upload and for the microphone alike.
"""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from serkit import runs
from serkit.constants import LABELS, SAMPLE_RATE, SILENCE_DBFS
from serkit.errors import AudioError
from serkit.features import audio
from serkit.predict.command import describe_training, newest_model
from serkit.predict.predictor import PROBABILITIES, Prediction, Predictor

PLAYER_S = 60  # s that a player holds; an hour would make the notebook 150 MB
OUTLINE_HZ = 20  # of a longer recording: its lowest and highest sample in each twentieth of a second
QUIET_DBFS = -36.0  # peak; 16 bits have 10 left here: 96 dB of range less 36
MODEL_FILES = ("config.json", "features.json", "model.safetensors")

ADVICE = {  # first words of a warning -> what to do about it
    "silence": "Don't read the probabilities: there is nothing behind them. Is the right microphone on?",
    "quiet": "Go nearer to the microphone or turn its level up; the model counts loudness as evidence.",
    "clipping": "Turn the level down or step back, and record again; what was cut off can't be put back.",
    "too short": "Record a whole sentence: three seconds fill a segment.",
    "incomplete": "Copy or record the file again.",
    "long": "Read the timeline and not the one answer for the whole.",
    "sample rate": "Record at 16 kHz or more; nothing brings back what was not recorded.",
    "channels": "Nothing to do, unless each channel is another voice: then give one channel only.",
}

LIMITS = (
    "It can't say what you feel. It compares a sound with acted speech.",
    "It always answers, also to music, a dog or an empty room, and knows only four words for it.",
    "Its percentages are not calibrated: 90 % does not mean right in nine of ten cases.",
    "It is no basis for any decision about a person.",
)


@dataclass(frozen=True, eq=False)
class Analysis:
    """One recording as it was heard and judged."""

    name: str
    prediction: Prediction
    sound: np.ndarray = field(repr=False)  # (num_samples,) float32, 16 kHz mono: its first minute at most
    outline: np.ndarray = field(repr=False)  # to draw: the sound itself, or lows and highs of a longer one
    outline_rate: float  # values of the outline in a second

    @property
    def faults(self):
        """What is wrong with the recording, and what to do: list of (str, str)."""
        found = [*_quietness(self.prediction), *self.prediction.warnings]
        return [(text, next(ADVICE[key] for key in ADVICE if key in text.split(":")[0])) for text in found]

    @property
    def silent(self):
        """Whether nothing was heard from beginning to end."""
        return self.prediction.segments["peak_dbfs"].max() < SILENCE_DBFS

    @property
    def verdict(self):
        """The answer in a line."""
        if self.silent:
            return "no answer: the recording is silent"
        order = sorted(LABELS, key=self.prediction.utterance.get, reverse=True)
        first, second = (f"{label} {self.prediction.utterance[label]:.0%}" for label in order[:2])
        return f"{first}, then {second}"

    @property
    def segments(self):
        """Table of segments for reading: times in s, level in dBFS, probabilities in %."""
        table = self.prediction.segments
        percent = (100 * table[PROBABILITIES]).rename(columns=dict(zip(PROBABILITIES, LABELS, strict=True)))
        about = table[["start_s", "end_s", "peak_dbfs"]].set_axis(
            ["from (s)", "to (s)", "peak (dBFS)"], axis=1
        )
        return pd.concat([about, percent], axis=1).round(1).assign(likeliest=table["emotion"])


class Recogniser:
    """A trained model that listens to recordings.

    The model is opened when it is first needed and again when its folder has changed since, so one that
    was deleted or trained anew meanwhile is noticed.

    Parameters
    ----------
    folder : path
        Model folder.
    device : str, optional
        As in `serkit.predict.predictor.Predictor`.
    """

    def __init__(self, folder, device="auto"):
        self.folder, self.device = Path(folder), device
        self._opened = self._stamp = None

    def open_model(self):
        """The opened model.

        Returns
        -------
        Predictor

        Raises
        ------
        WeightsError
            If its folder holds no complete model, or none any more.
        ParameterError
            If there is no such device.
        """
        stamp = _stamp(self.folder)
        if self._opened is None or stamp != self._stamp:
            self._opened, self._stamp = None, stamp  # an outdated model does not answer for a missing one
            self._opened = Predictor(self.folder, device=self.device)
        return self._opened

    @property
    def experiment(self):
        """What the model was trained on: dict."""
        return self.open_model().experiment

    def describe(self):
        """Folder, training and device in a line."""
        opened = self.open_model()
        return f"model {runs.show_path(self.folder)}, trained on {describe_training(opened.experiment)}, on {opened.device}"

    def analyse(self, content, name):
        """Recognise the emotions in the bytes of a sound file.

        Parameters
        ----------
        content : bytes
            The file as it is, in any format that soundfile reads.
        name : str
            What messages call it.

        Returns
        -------
        Analysis

        Raises
        ------
        AudioError
            If it is empty, no audio, or can't be analysed.
        WeightsError
            If the model is gone.
        """
        with tempfile.TemporaryDirectory(prefix="serkit-") as folder:
            path = Path(folder) / "sound"
            path.write_bytes(content)
            return self.analyse_file(path, name)

    def analyse_file(self, path, name="", *, progress=False):
        """Recognise the emotions in a sound file.

        Parameters
        ----------
        path : path
            Relative to the project or absolute.
        name : str, optional
            What messages call it; default: the path.
        progress : bool, optional
            Show a bar when it takes long.

        Returns
        -------
        Analysis

        Raises
        ------
        AudioError, WeightsError
            As `analyse`.
        """
        name = name or str(path)
        path = runs.project_home() / os.path.expanduser(path)
        try:
            if path.is_file() and not path.stat().st_size:
                raise AudioError(
                    f"{name}: the file is empty (0 bytes), expected a sound; record or copy it again"
                )
            prediction = self.open_model().predict(path, progress=progress)
            return Analysis(name, prediction, *_listen(path))
        except AudioError as error:
            raise AudioError(str(error).replace(str(path), name)) from None
        except OSError as error:
            raise AudioError(f"{name}: can't be read ({error.strerror or error}); check the path") from error


def open_recogniser(run, model="", device="auto"):
    """The model of a run, ready to listen.

    Parameters
    ----------
    run : str or serkit.runs.Run
    model : path, optional
        Model folder, relative to the project or absolute; default: that of the newest finished fold.
    device : str, optional

    Returns
    -------
    Recogniser

    Raises
    ------
    RunError
        If the run has no finished fold.
    WeightsError, ParameterError
        If the model or the device can't be used.
    """
    runs.quiet_libraries()
    folder = (
        runs.project_home() / Path(model).expanduser() if model else newest_model(getattr(run, "name", run))
    )
    recogniser = Recogniser(folder, device)
    recogniser.open_model()  # now, so that a mistake is said where it was made
    return recogniser


def compare(analyses):
    """One row for each analysis: its probabilities in %, and its warnings by their first words.

    Parameters
    ----------
    analyses : dict of str to Analysis

    Returns
    -------
    pd.DataFrame
    """
    rows = {
        name: {label: round(100 * p, 1) for label, p in each.prediction.utterance.items()}
        | {"warned of": "; ".join(text.split(":")[0] for text, _ in each.faults) or "nothing"}
        for name, each in analyses.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("recording")


def _quietness(prediction):
    """A warning about the level that is no fault of the file: soft, but there."""
    peak = prediction.segments["peak_dbfs"].max()
    if SILENCE_DBFS <= peak < QUIET_DBFS:
        yield f"quiet: the loudest sample is at {peak:.1f} dBFS, expected {QUIET_DBFS:g} or more"


def _stamp(folder):
    """What changes when a model is replaced or deleted."""
    found = [folder / name for name in MODEL_FILES]
    return [(path.stat().st_mtime_ns, path.stat().st_size) for path in found if path.is_file()]


def _listen(path):
    """The sound for a player, and the outline for a picture; what is held does not grow like the recording."""
    head, edges, heard = [], [], 0
    with audio.open_sound(path) as sound:
        rate = sound.samplerate
        step = max(1, rate // OUTLINE_HZ)
        while len(channels := audio.read_channels(sound, OUTLINE_HZ * step)):
            mono = audio.downmix(channels)
            if heard < PLAYER_S * rate:
                head.append(mono)
            heard += len(mono)
            starts = np.arange(0, len(mono), step)
            edges.append(
                np.stack([f.reduceat(mono, starts) for f in (np.minimum, np.maximum)], axis=1).ravel()
            )
    sound = audio.resample(np.concatenate(head)[: PLAYER_S * rate], rate)
    if heard <= PLAYER_S * rate:
        return sound, sound, SAMPLE_RATE
    return sound, np.concatenate(edges), 2 * rate / step
