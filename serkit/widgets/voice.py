"""A recording from a file, an upload or the microphone: what the model says about it, and what it sounds like.

Everything that notebook 08_predict shows. ipywidgets' FileUpload sends a file in one message, and Jupyter
cuts the connection, without a word to the reader, at 10 MiB: two minutes of a CD. `SoundInput` sends
pieces, each after the kernel has written the one before to disk.
"""

import os
import tempfile
from html import escape
from pathlib import Path
from typing import NamedTuple

import anywidget
import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from serkit import figures, runs
from serkit.errors import AudioError, SerkitError, WeightsError
from serkit.features import audio
from serkit.predict import Prediction, describe_training, newest_model, open_predictor
from serkit.widgets.lecture import CSS, PAGES, STYLE, picture, player, segment_table, wav_bytes

PLAYER_S = 60  # s that a player holds; an hour would make the notebook 150 MB
STRETCHES_PER_S = 50  # of sound as it is read, at most
MAX_ROWS = 40  # segments shown as a table: two minutes


class Analysis(NamedTuple):
    """One recording as it was heard and judged."""

    name: str
    prediction: Prediction
    sound: np.ndarray  # (num_samples,) float32, 16 kHz mono: its first minute at most
    outline: np.ndarray  # to draw: lows and highs of short stretches, in turns
    outline_rate: float  # values of the outline in a second

    @property
    def verdict(self):
        """The answer in a line; none for a recording that is silent from beginning to end."""
        if any(notice.kind == "silence" for notice in self.prediction.notices):
            return "no answer: the recording is silent"
        likeliest = pd.Series(self.prediction.utterance).nlargest(2)
        first, second = (f"{label} {100 * share:.0f} %" for label, share in likeliest.items())
        return f"{first}, then {second}"

    @property
    def segments(self):
        """Table of segments for reading, as `serkit.widgets.lecture.segment_table`."""
        return segment_table(self.prediction.segments)


class Recogniser:
    """A trained model that listens to recordings; one trained anew or deleted meanwhile is noticed.

    Parameters
    ----------
    folder : path
        Model folder.
    device : str, optional
        As in `serkit.predict.Predictor`.

    Raises
    ------
    WeightsError, ParameterError
        If the model or the device can't be used.
    """

    def __init__(self, folder, device="auto"):
        self.folder, self.device = Path(folder), device
        opened = open_predictor(folder, device)
        self.experiment, self.labels = opened.experiment, opened.model.config.labels  # of its training

    def describe(self):
        """Folder and training in a line."""
        return f"model {runs.show_path(self.folder)}, trained on {describe_training(self.experiment)}"

    def analyse(self, content, name):
        """Recognise the emotions in the bytes of a sound file, called ``name`` in messages; as `analyse_file`."""
        with tempfile.TemporaryDirectory(prefix="serkit-") as folder:
            path = Path(folder) / "sound"
            path.write_bytes(content)
            return self.analyse_file(path, name)

    def analyse_file(self, path, name="", *, progress=False):
        """Recognise the emotions in a sound file.

        Parameters
        ----------
        path : path
            Relative to the project or absolute; any format that soundfile reads.
        name : str, optional
            What messages call it; default: the path.
        progress : bool, optional
            Show a bar when it takes long.

        Returns
        -------
        Analysis

        Raises
        ------
        AudioError
            If it is missing, empty, no audio, or can't be analysed.
        WeightsError
            If the model is gone.
        """
        name = name or str(path)
        path = runs.project_home() / os.path.expanduser(path)
        try:
            if path.is_file() and not path.stat().st_size:
                raise AudioError(f"{path}: the file is empty (0 bytes), expected a sound; copy it again")
            prediction = open_predictor(self.folder, self.device).predict(path, progress=progress)
            return Analysis(name, prediction, *_listen(path))
        except AudioError as error:
            raise AudioError(str(error).replace(str(path), name)) from None
        except OSError as error:
            raise AudioError(f"{name}: can't be read ({error.strerror or error}); check the path") from error


def open_recogniser(run, model="", device="auto"):
    """The model in a folder (relative to the project or absolute), or that of a run's newest finished fold.

    Raises
    ------
    RunError
        If the run has no finished fold.
    WeightsError, ParameterError
        If the model or the device can't be used.
    """
    runs.quiet_libraries()
    if not model:
        return Recogniser(newest_model(getattr(run, "name", run)), device)
    folder = runs.project_home() / os.path.expanduser(str(model))
    if folder.is_dir() and not (folder / "config.json").is_file():
        inside = [runs.show_path(path.parent) for path in sorted(folder.rglob("model/config.json"))]
        example = (*inside, "runs/<run>/<variant>/fold=<f>/seed=<s>/model")[0]
        newest = 'model = "" for the newest one of the run'
        raise WeightsError(f'{model} is not the folder of a model; set model = "{example}", or {newest}')
    return Recogniser(folder, device)


def compare(analyses):
    """One row for each analysis: its probabilities in %, and what was noticed.

    Parameters
    ----------
    analyses : dict of str to Analysis

    Returns
    -------
    pd.DataFrame
    """
    shares = {name: analysis.prediction.utterance for name, analysis in analyses.items()}
    table = (100 * pd.DataFrame(shares).T).round(1).rename_axis("recording")
    kinds = [[notice.kind for notice in analysis.prediction.notices] for analysis in analyses.values()]
    return table.assign(noticed=["; ".join(names) or "nothing" for names in kinds])


def as_html(analysis):
    """An analysis as a piece of a page that needs nothing else.

    Parameters
    ----------
    analysis : Analysis

    Returns
    -------
    str
        Verdict, player, notices with advice, pictures, segments, limits.
    """
    table = analysis.segments
    segments = table.head(MAX_ROWS).to_html(index=False, border=0, classes="serkit-segments")
    return PAGES.get_template("analysis.html").render(
        analysis=analysis, player=player(analysis.sound)._repr_html_(), held_s=PLAYER_S, picture=_draw(analysis),
        style=STYLE, segments=segments, n_segments=len(table), most=MAX_ROWS,
    )  # fmt: skip


class SoundInput(anywidget.AnyWidget):
    """Two buttons, *Choose a file* and *Record*: a sound from the reader's browser.

    Parameters
    ----------
    on_sound : callable
        Called with the path of the sound, which is deleted afterwards, and the name that the reader knows.
        Its SerkitError is shown beside the buttons.

    Notes
    -----
    Classes for style sheets and tests: ``serkit-sound`` around ``serkit-file`` (the input),
    ``serkit-record`` (the button) and ``serkit-note`` (what is going on).
    """

    _esm = Path(__file__).with_suffix(".js")
    _css = CSS

    def __init__(self, on_sound):
        super().__init__()
        self._on_sound = on_sound
        self._folder = None  # of the sound that is on its way
        self.add_class("serkit-sound")
        self.on_msg(lambda _, content, buffers: self.send(self.receive(content, buffers)))

    def receive(self, content, buffers=()):
        """Take in the next piece of a sound.

        Parameters
        ----------
        content : dict
            ``name``, ``size`` in bytes, ``start`` of the piece, and ``rate`` in Hz if these are the
            microphone's own samples (32-bit floats) and no file.
        buffers : sequence of bytes
            The piece.

        Returns
        -------
        dict
            The answer: empty, or why this sound is ``refused``.
        """
        try:
            if content["start"] == 0:
                self._forget()
                self._folder = tempfile.TemporaryDirectory(prefix="serkit-")
            if self._folder is None:
                lost = "the beginning of this sound is lost; was the cell run again? Choose it again"
                raise SerkitError(lost)
            path = Path(self._folder.name) / "sound"
            with open(path, "ab") as file:
                file.writelines(buffers)
                if file.tell() < content["size"]:
                    return {}
            if "rate" in content:
                path.write_bytes(wav_bytes(np.fromfile(path, "<f4"), content["rate"]))
            self._on_sound(path, content["name"])
            return self._forget()
        except SerkitError as error:
            return self._forget(refused=str(error))
        except OSError as error:
            return self._forget(refused=f"can't be stored ({error.strerror})")

    def _forget(self, **answer):
        if self._folder is not None:
            self._folder.cleanup()
        self._folder = None
        return answer


class VoicePanel(widgets.VBox):
    """Upload, microphone and path, and below them the answer.

    Parameters
    ----------
    recogniser : Recogniser

    Notes
    -----
    Classes for style sheets and tests: ``serkit-panel``, ``serkit-answer`` and in it ``serkit-verdict`` or
    ``serkit-problem``; those of `SoundInput`.
    """

    def __init__(self, recogniser):
        self.recogniser = recogniser
        self.path = widgets.Text(placeholder="or the path of a sound file", layout={"flex": "1 1 auto"})
        self.button = widgets.Button(description="Analyse")
        self.sound, self.answer = SoundInput(self.analyse_file), widgets.HTML().add_class("serkit-answer")
        self.button.on_click(lambda _: self.analyse_file(self.path.value.strip()))
        super().__init__([self.sound, widgets.HBox([self.path, self.button]), self.answer])
        self.add_class("serkit-panel")

    def __repr__(self):
        # what a page shows that has no kernel behind it
        return "Buttons to choose a sound file or to record one: they need a running notebook."

    def analyse_file(self, path, name=""):
        """Show what the model says about a sound file, or why it can't."""
        try:
            if not str(path):
                raise AudioError("no path given; write one into the field, or choose a file above")
            self.answer.value = as_html(self.recogniser.analyse_file(path, name))
        except (SerkitError, KeyboardInterrupt) as error:
            said = escape(str(error) or "interrupted; nothing was kept")
            self.answer.value = f'<p class="serkit-problem"><b>Not possible:</b> {said}</p>'


def _draw(analysis):
    """Waveform, timeline and probabilities of the whole, as an image."""
    with figures.paper_style(columns=2, height=3.6):
        figure = plt.Figure()
        left, right = figure.subfigures(1, 2, width_ratios=(5, 3))
        top, bottom = left.subplots(2, 1, sharex=True, height_ratios=(1, 2))
        figures.plot_waveform(analysis.outline, analysis.outline_rate, top)
        figures.plot_timeline(analysis.prediction.segments, ax=bottom)
        top.set_xlabel("")
        figures.plot_class_probabilities(analysis.prediction.utterance, right.subplots())
        return picture(figure, "waveform, timeline and probabilities")


def _listen(path):
    """The sound for a player, at most its first minute; the outline for a picture, and its rate."""
    head, outline = [], []
    with audio.open_sound(path) as sound:
        rate = sound.samplerate
        num_samples = -(-rate // STRETCHES_PER_S)
        while len(channels := audio.read_channels(sound, num_samples)):
            mono = audio.downmix(channels)
            head += [mono] if len(head) < PLAYER_S * STRETCHES_PER_S else []
            outline += [mono.min(), mono.max()]
    return audio.resample(np.concatenate(head), rate), np.array(outline), 2 * rate / num_samples
