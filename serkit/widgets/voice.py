"""The panel of notebook 08_predict: choose a file, record, or give a path, and see what the model says."""

import base64
import io
from html import escape

import ipywidgets as widgets
import matplotlib.pyplot as plt
from IPython.display import Audio

from serkit import runs
from serkit.constants import SAMPLE_RATE
from serkit.errors import AudioError, RunError, SerkitError
from serkit.figures import paper_style, plot_class_probabilities, plot_timeline, plot_waveform
from serkit.widgets.ownvoice import LIMITS, PLAYER_S, Recogniser
from serkit.widgets.soundinput import SoundInput

SCREEN_DPI = 110  # a page of 7 inches fits beside JupyterLab's file browser
MAX_ROWS = 40  # segments shown as a table: two minutes
STYLE = """<style>
.serkit-segments { border-collapse: collapse; line-height: 1.5; }
.serkit-segments th, .serkit-segments td { padding: 0 8px; text-align: right;
  border-bottom: 1px solid var(--jp-border-color2, #ddd); }
</style>"""


class VoicePanel(widgets.VBox):
    """Upload, microphone and path, and below them the answer.

    Parameters
    ----------
    recogniser : Recogniser
        The model that answers first.
    models : dict of str to path, optional
        Others to choose from, with the names that are shown; see `finished_models`.

    Notes
    -----
    Classes for style sheets and tests: ``serkit-model``, ``serkit-path``, ``serkit-analyse`` (button),
    ``serkit-answer`` and in it ``serkit-verdict`` or ``serkit-problem``; those of
    `serkit.widgets.soundinput.SoundInput`.
    """

    def __init__(self, recogniser, models=None):
        self.recogniser = recogniser
        choices = {str(runs.show_path(recogniser.folder)): recogniser.folder} | dict(models or {})
        choices = {
            name: folder for folder, name in {folder: name for name, folder in choices.items()}.items()
        }
        self.model = widgets.Dropdown(
            options=choices, value=recogniser.folder, description="model", layout={"width": "auto"}
        )
        self.path = widgets.Text(placeholder="or the path of a sound file", layout={"flex": "1 1 auto"})
        self.button = widgets.Button(description="Analyse")
        self.sound = SoundInput(self.analyse_file)
        self.answer = widgets.HTML()
        for part, name in (
            (self.model, "model"),
            (self.path, "path"),
            (self.button, "analyse"),
            (self.answer, "answer"),
        ):
            part.add_class(f"serkit-{name}")
        self.model.observe(self._change_model, "value")
        self.button.on_click(lambda _: self.analyse_path())
        super().__init__([self.model, self.sound, widgets.HBox([self.path, self.button]), self.answer])
        self.add_class("serkit-panel")

    def __repr__(self):
        # what a page shows that has no kernel behind it
        return "Buttons to choose a sound file or to record one: they need a running notebook."

    def analyse(self, content, name):
        """Show what the model says about the bytes of a sound file, or why it can't."""
        self._show(lambda: self.recogniser.analyse(content, name))

    def analyse_file(self, path, name=""):
        """The same for a file on this machine."""
        self._show(lambda: self.recogniser.analyse_file(path, name))

    def analyse_path(self):
        """The same for what stands in the text field."""
        path = self.path.value.strip()
        if path:
            self.analyse_file(path)
        else:
            self._refuse(AudioError("no path given; write one into the field, or choose a file above"))

    def _change_model(self, change):
        self.recogniser = Recogniser(change["new"], self.recogniser.device)
        self.answer.value = ""  # it was another model's

    def _show(self, judge):
        try:
            self.answer.value = as_html(judge())
        except SerkitError as error:
            self._refuse(error)
        except KeyboardInterrupt:
            self._refuse(RunError("interrupted; nothing was kept"))

    def _refuse(self, error):
        self.answer.value = f'<p class="serkit-problem"><b>Not possible.</b> {escape(str(error))}</p>'


def finished_models():
    """Model folders of all finished folds of all runs: dict of name to path, sorted."""
    home = runs.project_home() / "runs"
    found = sorted(home.glob(f"*/*/fold=*/seed=*/{runs.DONE}"))
    return {str(runs.show_path(done.parent / "model")): done.parent / "model" for done in found}


def as_html(analysis):
    """An analysis as a piece of a page that needs nothing else.

    Parameters
    ----------
    analysis : Analysis

    Returns
    -------
    str
        Verdict, player, warnings with advice, pictures, segments, limits.
    """
    warnings = "".join(
        f"<li>{escape(text)}. <b>{escape(advice)}</b></li>" for text, advice in analysis.faults
    )
    table = analysis.segments
    rest = len(table) - MAX_ROWS
    more = f"<p>and {rest} more; the timeline shows all of them.</p>" if rest > 0 else ""
    first = (
        f"<p>The player holds the first {PLAYER_S} s.</p>" if analysis.sound is not analysis.outline else ""
    )
    picture = base64.b64encode(draw(analysis)).decode()
    return "".join((
        f'<h3 class="serkit-verdict">{escape(analysis.name)}: {escape(analysis.verdict)}</h3>',
        f'<audio controls src="{player(analysis.sound).src_attr()}"></audio>{first}',
        f'<ul class="serkit-warnings">{warnings}</ul>',
        f'<img alt="waveform, timeline and probabilities" style="max-width: 100%" src="data:image/png;base64,{picture}">',
        f"{STYLE}<details><summary>{len(table)} segment{'s' if len(table) > 1 else ''}</summary>",
        f'{table.head(MAX_ROWS).to_html(index=False, border=0, classes="serkit-segments")}{more}</details>',
        f"<p><b>What it can't say.</b> {' '.join(map(escape, LIMITS))}</p>",
    ))  # fmt: skip


def player(sound):
    """A player for a waveform at 16 kHz, as loud as it is: faults of the level stay audible."""
    return Audio(sound.clip(-1, 1), rate=SAMPLE_RATE, normalize=False)


def draw(analysis):
    """Waveform, timeline and probabilities of the whole, as a PNG file for the screen."""
    with paper_style(columns=2, height=3.6):
        figure = plt.Figure()
        left, right = figure.subfigures(1, 2, width_ratios=(5, 3))
        top, bottom = left.subplots(2, 1, sharex=True, height_ratios=(1, 2))
        plot_waveform(analysis.outline, analysis.outline_rate, top)
        plot_timeline(analysis.prediction.segments, ax=bottom)
        top.set_xlabel("")
        plot_class_probabilities(analysis.prediction.utterance, right.subplots())
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=SCREEN_DPI)
    return file.getvalue()
