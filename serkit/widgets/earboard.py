"""The listening view's widgets at work: what happens when something is chosen or clicked."""

import functools
from html import escape

import matplotlib.pyplot as plt
from ipywidgets import HTML, Button, Dropdown, HBox, VBox

from serkit.constants import HOP_LENGTH, N_FFT, SAMPLE_RATE
from serkit.errors import ParameterError, RunError, SerkitError
from serkit.experiment import show_path
from serkit.features.audio import preemphasise, read
from serkit.features.views import log_spectrogram
from serkit.figures import MAX_PANELS, panel_grid, paper_style, plot_attention, plot_spectrogram
from serkit.predict.predictor import Predictor
from serkit.widgets import listening
from serkit.widgets.earparts import STYLE, MatrixGrid, UtterancePane, UtteranceTable, probability_table
from serkit.widgets.earsummary import picture, player
from serkit.widgets.listening import ALL, ORDERS

NARROW = {"description_width": "initial"}  # no wider than its text


def _spoken(handler):
    """A handler that says in the view what is wrong; the notebook goes on."""

    @functools.wraps(handler)
    def safe(self, *arguments):
        self.say("")
        try:
            handler(self, *arguments)
        except SerkitError as error:
            self.say(str(error))

    return safe


class EarBoard:
    """The view that can be clicked: choose, click a cell, select an utterance, hear it, mark it.

    Nothing is read but prediction tables and the manifest, until an utterance is selected: then its
    own sound, and the model of the fold that tested it, which is kept for the next one.

    Parameters
    ----------
    run : str
        What is shown first; other runs can be chosen in the view.
    variant : str, optional
        Default: the first there is.

    Attributes
    ----------
    box : ipywidgets.VBox
        To be displayed.
    said : str
        The sentence at the top; empty if there is nothing to say.
    """

    def __init__(self, run, variant=""):
        self.run, self.variant, self.corpus = run, variant, ""
        self.utterances = self.chosen = None  # tables: of the variant, and what the dropdowns leave of it
        self.cell = None  # (truth, prediction)
        self.row = None  # the selected utterance
        self._lists = {}  # run -> key -> marked row
        self._opened = (None, None)  # what a model was read from, and the model
        self._build()
        self._load(run)

    @property
    def marked(self):
        """Rows that are marked in the run shown: a dict by (variant, fold, seed, utterance)."""
        return self._lists.setdefault(self.run, {})

    def say(self, text):
        """Show a sentence at the top of the view; empty removes it."""
        self.said = text
        self.message.value = "" if not text else f"<div class='serkit-said'>{escape(text)}</div>"

    def _build(self):
        self.message = HTML().add_class("serkit-message")
        self.choices = {
            name: Dropdown(description=name, layout={"width": width}, style=NARROW).add_class(f"serkit-choose-{name}")
            for name, width in (("run", "160px"), ("variant", "350px"), ("fold", "110px"),
                                ("seed", "110px"), ("speaker", "140px"))
        }  # fmt: skip
        self.order = Dropdown(
            description="sort by", options=list(ORDERS), layout={"width": "270px"}, style=NARROW
        )
        self.order.add_class("serkit-choose-order")
        self.export = Button(layout={"width": "220px"}, tooltip="write the marked utterances as a table")
        self.export.add_class("serkit-export")
        self.matrix = MatrixGrid(self.pick)
        self.table = UtteranceTable(self.select)
        self.pane = UtterancePane(self.mark)
        self.choices["run"].observe(self._run_chosen, "value")
        self.choices["variant"].observe(self._variant_chosen, "value")
        for name in ("fold", "seed", "speaker"):
            self.choices[name].observe(self._choose, "value")
        self.order.observe(self._sort, "value")
        self.export.on_click(self._export)
        row = {"flex_flow": "row wrap"}
        right = VBox([HBox([self.order, self.export], layout=row), self.table.box], layout={"min_width": "0"})
        self.box = VBox([
            HTML(STYLE), HBox(list(self.choices.values()), layout=row), self.message,
            HBox([self.matrix.box, right], layout={**row, "grid_gap": "12px"}), self.pane.box,
        ]).add_class("serkit-view")  # fmt: skip
        self._quiet = False  # whether dropdowns are being filled and not chosen from
        self.say("")
        self._count_marked()

    @_spoken
    def _load(self, run, variant=""):
        """Read a run's tables, and offer what can be chosen from them."""
        self.utterances = self.chosen = None
        self._clear()
        self.run = run
        self._fill("run", sorted({*listening.runs_on_disk(), run}), run)
        self._fill("variant", [variant or self.variant], variant or self.variant)
        for name in ("fold", "seed", "speaker"):
            self._fill(name, [ALL], ALL)
        self._count_marked()
        variants = listening.variants_on_disk(run)
        self.variant = next((name for name in (variant, self.variant) if name in variants), variants[0])
        self._fill("variant", variants, self.variant)
        self.utterances, self.corpus, missing = listening.load_utterances(run, self.variant)
        for name in ("fold", "seed", "speaker"):
            values = sorted(self.utterances[name].unique())
            self._fill(name, [ALL, *((str(value), value) for value in values)], ALL)
        self._narrow()
        self.say(missing)

    def _fill(self, name, options, value):
        """Offer other options without taking that for a choice."""
        self._quiet = True
        try:
            self.choices[name].options = [one if isinstance(one, tuple) else (one, one) for one in options]
            self.choices[name].value = value
        finally:
            self._quiet = False

    def _clear(self):
        self.cell = self.row = None
        self.matrix.show(None)
        self.table.show(None)
        self.pane.clear()

    def _run_chosen(self, change):
        if not self._quiet:
            self._load(change["new"])

    def _variant_chosen(self, change):
        if not self._quiet:
            self._load(self.run, change["new"])

    def _choose(self, change):
        if not self._quiet:
            self._narrow_spoken()

    @_spoken
    def _narrow_spoken(self):
        self._narrow()

    def _narrow(self):
        """The matrix of what the dropdowns leave; the picked cell stays picked."""
        cell, self.chosen = self.cell, None
        self._clear()
        if self.utterances is None:
            return
        wanted = {name: self.choices[name].value for name in ("fold", "seed", "speaker")}
        self.chosen = listening.choose(self.utterances, **wanted)
        self.matrix.show(listening.counts_of(self.chosen))
        if cell:
            self._pick(*cell)

    @_spoken
    def pick(self, truth, prediction):
        """List the utterances that a cell of the matrix counts."""
        self._pick(truth, prediction)

    def _pick(self, truth, prediction):
        self.cell, self.row = (truth, prediction), None
        self.table.show(None)
        self.pane.clear()
        self.matrix.pick(self.cell)
        if self.chosen is None:
            raise RunError(
                f"run {self.run!r} could not be read, so there is nothing behind this cell; choose another run"
            )
        rows = listening.behind_cell(self.chosen, truth, prediction)
        self.table.show(listening.in_order(rows, self.order.value), set(self.marked))

    @_spoken
    def _sort(self, change):
        if self.table.rows is not None:
            self.row = None
            self.pane.clear()
            self.table.show(listening.in_order(self.table.rows, change["new"]), set(self.marked))

    @_spoken
    def select(self, row):
        """Sound, spectrogram, co-attention and probabilities of one utterance (a row of the table).

        What can't be had is said in its place.
        """
        self.row = row
        self.pane.describe(row)
        self.pane.marked(listening.key_of(row) in self.marked)
        try:
            waveform = read(listening.sound_path(row))
        except SerkitError as error:
            self.pane.say(f"No sound to play: {error}")
            return
        self.pane.sound(player(waveform).data)
        self.pane.say("The model looks at it ...")
        try:
            attention = self._predictor(listening.model_folder(self.run, row)).attend(waveform)
        except SerkitError as error:
            self.pane.say(f"No co-attention to show, the spectrogram alone: {error}")
            self.pane.show_picture(_spectrogram(waveform), wide=True)
            return
        more = len(attention.weights) - MAX_PANELS
        self.pane.say(f"{more} more segments are not drawn." if more > 0 else "")
        self.pane.table.value = probability_table(attention, row["truth"])
        self.pane.show_picture(_attention(attention), wide=len(attention.weights) > 1)

    def _predictor(self, folder):
        """The model in a folder; the last one is kept, until its file changes."""
        weights = folder / "model.safetensors"
        origin = (folder, weights.stat().st_mtime_ns if weights.is_file() else None)
        if self._opened[0] != origin:
            self._opened = (None, None)  # or there would be two in memory
            self._opened = (origin, Predictor(folder))
        return self._opened[1]

    @_spoken
    def mark(self):
        """Put the selected utterance on the list, or take it off."""
        if self.row is None:
            raise ParameterError(
                "no utterance is selected, expected one to mark; click a row of the table first"
            )
        key = listening.key_of(self.row)
        if self.marked.pop(key, None) is None:
            self.marked[key] = self.row
        self.pane.marked(key in self.marked)
        self.table.mark(set(self.marked))
        self._count_marked()

    def _count_marked(self):
        self.export.description = f"Export {len(self.marked)} marked"
        self.export.disabled = not self.marked

    @_spoken
    def _export(self, _):
        written = listening.save_marked(self.run, list(self.marked.values()), corpus=self.corpus)
        (table,) = (path for path in written if path.suffix == ".csv")
        self.say(f"the list is in {show_path(table)} (marked: {len(self.marked)})")


def _attention(attention):
    _, n_columns, height = panel_grid(len(attention.weights))
    with paper_style(columns=n_columns, height=height), plt.ioff():
        return picture(plot_attention(attention, plt.figure()), "co-attention weights over the spectrogram")


def _spectrogram(waveform):
    with paper_style(columns=2, height=2.1), plt.ioff():
        figure, ax = plt.subplots()
        level = log_spectrogram(preemphasise(waveform))
        plot_spectrogram(level, hop_length=HOP_LENGTH, sample_rate=SAMPLE_RATE, n_fft=N_FFT, ax=ax)
        return picture(figure, "spectrogram")
