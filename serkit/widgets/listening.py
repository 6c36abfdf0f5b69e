"""Confusion-matrix analysis by ear: click a cell and hear its utterances, or hear them first and guess the label."""

from html import escape

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display
from ipywidgets import HTML, Button, Dropdown, GridBox, HBox, Select, ToggleButton, VBox

from serkit import features, figures, runs
from serkit.constants import HOP_LENGTH, N_FFT, SAMPLE_RATE
from serkit.errors import CorpusError, RunError, SerkitError, check_range
from serkit.folds import seconds_of
from serkit.metrics import PROBABILITY, labels_of
from serkit.predict import open_predictor
from serkit.widgets.lecture import PAGES, STYLE, is_live, picture, player, segment_table

ALL = "all"  # no choice made
MOST = 20  # players in a summary
ROUND = 10  # utterances of a blind round
FILTERS = ("fold", "seed", "speaker")
ORDERS = {"confidence": "confidence", "duration": "seconds"}  # what a list can be sorted by, highest first
LISTED = {"utterance_id": str, "speaker": str, "fold": str, "seed": str, "seconds": "{:.2f}".format,
          "confidence": lambda share: f"{100 * share:.1f} %"}  # fmt: skip
WRAPPED = {"flex_flow": "row wrap", "grid_gap": "12px"}
NO_WIDGETS = "The matrix to click is left out: it needs a notebook page with a running kernel."
UTTERANCE = PAGES.get_template("utterance.html")
IN_PLAIN = "A matrix to click stands here in JupyterLab, while the kernel runs."


def listen(run, *, variant="", mistakes=4):
    """Show the mistakes of a run: a view to click, and below it a summary for a page without a kernel.

    The view is shown if the cell was run from a notebook page: papermill and nbconvert run it from nowhere, and
    would keep a picture of dead buttons.
    Whatever is missing on disk is said in a sentence.

    Parameters
    ----------
    run : serkit.runs.Run or str
    variant : str, optional
        Default: the only one there is.
    mistakes : int, 0 to 20, optional
        How many of the surest mistakes get a player in the summary.

    Returns
    -------
    ListeningView or None
        None where there is nothing to click.

    Raises
    ------
    ParameterError
        If ``mistakes`` is out of range.

    Examples
    --------
    ``view = listen(run)``, as the last line of a cell.
    """
    check_range("mistakes", mistakes, 0, MOST, whole=True)
    name, live, view = getattr(run, "name", run), is_live(), None
    try:
        table, parameters, heading = load_utterances(name, variant)
    except SerkitError as error:
        display({"text/plain": str(error)}, raw=True)
        return None
    if live:
        view = ListeningView(name, table, parameters, heading)
        display(view.box._repr_mimebundle_() | {"text/plain": IN_PLAIN}, raw=True)
    display(summary(table, heading, mistakes, live), raw=True)
    return view


class ListeningView:
    """The view that can be clicked: choose, click a cell, select an utterance, hear it, mark it.

    With *hide labels* on, ten utterances are drawn from what the dropdowns leave, and nothing but a player is shown
    of each until its emotion has been guessed. No sound and no model is read before it is needed.

    Parameters
    ----------
    run : str
    table : pd.DataFrame
        From :func:`utterance_table`.
    parameters : dict
        Of the run's folds, for the exported table.
    heading : str

    Attributes
    ----------
    box : ipywidgets.VBox
        To be displayed. Classes for style sheets and tests: ``serkit-view``, ``serkit-cell``,
        ``serkit-list``, ``serkit-mark``, ``serkit-export``, ``serkit-message``, ``serkit-seen``,
        ``serkit-blind``, ``serkit-guess``, ``serkit-next``, ``serkit-score``.
    """

    def __init__(self, run, table, parameters, heading=""):
        self.run, self.table, self.parameters = run, table, parameters
        self.chosen = self.rows = table  # what the dropdowns leave; what the picked cell counts of it
        self.cell, self.row = ("", ""), None  # the picked (truth, prediction); the selected utterance
        self.marked = set()  # numbers of rows of the table
        values = {name: sorted(table[name].unique().tolist()) for name in FILTERS}
        self.filters = {name: Dropdown(options=[ALL, *values[name]], description=name) for name in values}
        self.order = Dropdown(options=ORDERS, description="sort by")
        self.labels = labels_of(table)
        self.list = Select(rows=10, layout={"width": "auto", "min_width": "420px"})
        self.message, self.words, self.seen, self.score = HTML(_said(heading)), HTML(), HTML(), HTML()
        self.mark = _button("mark", self._toggle_mark)
        self.export = _button("export", self._export, tooltip="write a table of the marked utterances")
        self.blind = ToggleButton(description="hide labels", tooltip="guess each emotion before it is shown")
        self.guesses = {name: _button("guess", self._guess, name, description=name) for name in self.labels}
        self.next = _button("next", self._next)
        self.box = self._arrange()
        for choice in self.filters.values():
            choice.observe(self._narrow, "value")
        self.order.observe(self._list, "value")
        self.list.observe(self._look, "index")
        self.blind.observe(self._switch, "value")
        self._narrow()

    def _arrange(self):
        items = [HTML("true ↓<br>predicted →"), *(HTML(f"<b>{label}</b>") for label in self.labels)]
        self.cells = {}
        for truth in self.labels:
            items.append(HTML(f"<b>{truth}</b>"))
            for guess in self.labels:
                tooltip = f"utterances of {truth} that were predicted {guess}"
                self.cells[truth, guess] = _button("cell", self._pick, (truth, guess), tooltip=tooltip)
                items.append(self.cells[truth, guess])
        for name in ("message", "list", "seen", "blind", "score"):
            getattr(self, name).add_class(f"serkit-{name}")
        columns = f"84px repeat({len(self.labels)}, 64px)"
        matrix = GridBox(items, layout={"grid_template_columns": columns, "align_content": "flex-start"})
        choices = HBox([*self.filters.values(), self.order, self.export, self.blind], layout=WRAPPED)
        self.pane = VBox([self.words, self.mark, self.seen])
        self.listed = HBox([matrix, self.list], layout=WRAPPED)
        self.game = HBox([*self.guesses.values(), self.next, self.score], layout=WRAPPED)
        parts = [HTML(STYLE), choices, self.message, self.listed, self.game, self.pane]
        return VBox(parts).add_class("serkit-view")

    def _narrow(self, _=None):
        """Count what the dropdowns leave: shares of the row, coloured by share; the picked cell stays picked."""
        self.chosen = self.table
        for name, choice in self.filters.items():
            if choice.value != ALL:
                self.chosen = self.chosen[self.chosen[name] == choice.value]
        counts = pd.crosstab(self.chosen["truth"], self.chosen["prediction"])
        counts = counts.reindex(index=self.labels, columns=self.labels, fill_value=0)
        shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
        for cell, button in self.cells.items():
            colour = mpl.colormaps["Blues"](shares.loc[cell])
            button.description = f"{100 * shares.loc[cell]:.1f} %\n({counts.loc[cell]})"
            button.style.button_color = mpl.colors.to_hex(colour)
            button.style.text_color = figures.readable_on(colour)
        self._switch()

    def _switch(self, _=None):
        """Show the matrix and its list, or begin a blind round without them."""
        blind = self.order.disabled = self.blind.value
        self.listed.layout.display, self.game.layout.display = ("none", "") if blind else ("", "none")
        self.deck = []
        if blind:
            self._next()
        else:
            self._list()

    def _pick(self, cell):
        self.cell = cell
        for name, button in self.cells.items():
            button.layout.border = "3px solid #D55E00" if name == cell else ""
        self._list()

    def _list(self, _=None):
        """The utterances that the picked cell counts, under a line of headings; none of them is selected."""
        picked = (self.chosen["truth"] == self.cell[0]) & (self.chosen["prediction"] == self.cell[1])
        order = [self.order.value, "utterance_id"]
        self.rows = self.chosen[picked].sort_values(order, ascending=[False, True])
        self.list.options = [(line, number) for number, line in enumerate(text_lines(self.rows))]
        self.list.index = 0  # the headings
        self.list.layout.display = "none" if self.rows.empty else ""

    def _look(self, _=None):
        """Whatever is known of the selected utterance."""
        self._select(self.rows.iloc[self.list.index - 1] if self.list.index else None)
        if self.row is not None:
            self._explain(self._play(UTTERANCE.render(row=self.row)))

    def _select(self, row, known=True):
        """Make it the selected utterance; it can be marked if its label is ``known``."""
        self.row = row
        self.pane.layout.display = "none" if row is None else ""
        self.mark.layout.display = "" if known else "none"
        self.words.value = self.seen.value = ""
        self._count_marks()

    def _play(self, title):
        """Title and player of the selected utterance; returns its waveform, or None if there is none."""
        self.words.value = title
        try:
            waveform = read_sound(self.row)
        except SerkitError as error:
            self.seen.value = _said(f"No sound to play: {error}")
            return None
        self.words.value += player(waveform, equal_peaks=True)._repr_html_()
        return waveform

    def _explain(self, waveform):
        """Spectrogram, co-attention and probabilities of the selected utterance.

        What can't be had is said in its place.
        """
        if waveform is None:
            return
        self.seen.value = _said("Computing segment scores…")
        folder = "{variant}/fold={fold}/seed={seed}/model".format(**self.row)
        try:
            attention = open_predictor(runs.project_home() / "runs" / self.run / folder).attend(waveform)
        except SerkitError as error:
            why = _said(f"No co-attention, the spectrogram alone: {error}")
            self.seen.value = why + _spectrogram(waveform)
            return
        whole = ", ".join(f"{label} {100 * share:.1f} %" for label, share in attention.utterance.items())
        table = segment_table(attention.segments).to_html(index=False, border=0)
        self.seen.value = f"<p>The whole utterance: {whole}</p>{table}{_attention(attention)}"

    def _deal(self):
        """Begin a blind round: utterances in random order, each once, whatever the number of seeds."""
        drawn = self.chosen.sample(frac=1).drop_duplicates("utterance_id").head(ROUND)
        self.deck = [row for _, row in drawn.iterrows()]
        self.right, self.heard = {"you": 0, "the model": 0}, 0
        self.score.value = f"{len(drawn)} utterances: which emotion do you hear?"

    def _next(self):
        """Show the next utterance, or the first of another round, and nothing of it but a player."""
        if not self.deck:
            self._deal()
        self._select(self.deck.pop() if self.deck else None, known=False)
        heard = self.row is not None and self._play("") is not None
        for button in self.guesses.values():
            button.disabled, button.button_style = not heard, ""
        self.next.description = "next" if self.deck else "another round"
        self.next.disabled = heard

    def _guess(self, label):
        """Count the listener's guess and the model's, and show what was hidden."""
        truth = self.row["truth"]
        self.heard += 1
        self.right["you"] += int(label == truth)
        self.right["the model"] += int(self.row["prediction"] == truth)
        counts = ", ".join(f"{who} {right} of {self.heard}" for who, right in self.right.items())
        self.score.value = f"<b>{counts}</b>"
        for name, button in self.guesses.items():
            button.disabled = True
            button.button_style = "success" if name == truth else "danger" if name == label else ""
        self.next.disabled = False
        self._select(self.row)
        self._explain(self._play(UTTERANCE.render(row=self.row, guess=label)))

    def _toggle_mark(self):
        """Put the selected utterance on the list, or take it off."""
        self.marked ^= {self.row.name}
        self._count_marks()

    def _count_marks(self):
        marked = self.row is not None and self.row.name in self.marked
        self.mark.description = "★ marked" if marked else "☆ mark"
        self.export.description = f"Export {len(self.marked)} marked"
        self.export.disabled = not self.marked

    def _export(self):
        """Write the marked utterances to ``figures/<run>/marked.csv``."""
        table = self.table.loc[sorted(self.marked)].reset_index(drop=True)
        table = table.drop(columns=["session", "split", "path", "num_samples", "sample_rate"])
        corpus = self.parameters["corpus"]
        caption = f"Utterances marked by a listener: {corpus}, {len(table)} of run {self.run}."
        about = {"run": self.run, "caption": caption, "parameters": self.parameters}
        try:
            written = figures.save_table(table, "marked", decimals=3, **about)
            self.message.value = _said(f"marked: {len(table)}, written to {runs.show_path(written[0])}")
        except SerkitError as error:
            self.message.value = _said(str(error))


def _button(name, action, *given, **look):
    """A button for style sheets to find, and what is called with what is given when it is clicked."""
    button = Button(**look).add_class(f"serkit-{name}")
    button.on_click(lambda _: action(*given))
    return button


def load_utterances(run, variant=""):
    """The tested utterances of one variant with what the corpus knows about them.

    Parameters
    ----------
    run : str
    variant : str, optional
        Default: the only one there is.

    Returns
    -------
    table : pd.DataFrame
        From :func:`utterance_table`.
    parameters : dict
        Of all folds.
    heading : str
        What this is, and why duration, transcript and sound are unknown if they are.

    Raises
    ------
    RunError
        If the run or the variant has no finished fold, or its folds must not be put together.
    """
    variant = runs.choose_variant(run, variant)
    parameters = runs.shared_parameters(run, variant)
    try:
        manifest, missing = runs.open_manifest(parameters["corpus"]), ""
    except RunError as error:
        manifest, missing = None, f" {error}"
    table = utterance_table(runs.load_predictions(run, variant), manifest)
    heading = f"Run {run}, variant {variant}: {len(table)} predictions of the test sets."
    return table, parameters, heading + missing


def utterance_table(predictions, manifest=None):
    """One row for each test prediction, with confidence, duration, path and transcript.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table; rows of other splits are left out.
    manifest : pd.DataFrame, optional
        Without it, or for utterances that it lacks, ``seconds``, ``path`` and ``transcript`` are missing.

    Returns
    -------
    pd.DataFrame
        Columns of ``predictions`` and ``confidence, seconds, path, transcript``. Confidence is the highest
        of the four probabilities.

    Examples
    --------
    >>> guess = {"utterance_id": "a", "speaker": "1F", "session": "1", "truth": "sad", "prediction": "angry",
    ...          "p_angry": 0.6, "p_sad": 0.2, "p_happy": 0.1, "p_neutral": 0.1, "fold": "1", "seed": 111,
    ...          "variant": "v", "split": "test"}
    >>> about = pd.DataFrame({"utterance_id": ["a"], "num_samples": 24000, "sample_rate": 16000,
    ...                       "path": "a.wav", "transcript": "Go."})
    >>> utterance_table(pd.DataFrame([guess]), about)[["confidence", "seconds", "transcript"]].values.tolist()
    [[0.6, 1.5, 'Go.']]
    """
    rows = predictions[predictions["split"] == "test"].astype({"fold": str, "speaker": str})
    rows["confidence"] = rows.filter(regex=f"^{PROBABILITY}").max(axis=1)
    columns = ["utterance_id", "path", "transcript", "num_samples", "sample_rate"]
    about = pd.DataFrame(columns=columns) if manifest is None else manifest[columns]
    rows = rows.merge(about, on="utterance_id", how="left")
    return rows.assign(seconds=seconds_of)


def text_lines(rows):
    """Rows as text in columns that stand below each other, for a font of equal widths; first the headings."""
    return rows[list(LISTED)].to_string(index=False, na_rep="–", formatters=LISTED).splitlines()


def surest_mistakes(table, n):
    """The wrong predictions that were made with the highest probability, the surest first.

    Parameters
    ----------
    table : pd.DataFrame
        From :func:`utterance_table`.
    n : int
        How many at most; an utterance that is wrong with several seeds counts once.

    Returns
    -------
    pd.DataFrame
        Rows of ``table``.
    """
    wrong = table[table["truth"] != table["prediction"]]
    wrong = wrong.sort_values(["confidence", "utterance_id"], ascending=[False, True])
    return wrong.drop_duplicates("utterance_id").head(n)


def summary(table, heading, n_players, live=False):
    """The surest mistakes, the first ones with a player, as HTML and plain text."""
    heading += "" if live else f" {NO_WIDGETS}"
    wrong = surest_mistakes(table, max(10, n_players)).rename(columns={"prediction": "predicted"})
    rows = wrong.to_dict("records")
    sounds = [_sound(row) if i < n_players else "" for i, row in enumerate(rows)]
    html = PAGES.get_template("summary.html").render(live=live, heading=heading, rows=rows, sounds=sounds)
    plain = wrong[["utterance_id", "speaker", "truth", "predicted", "confidence"]].to_string(index=False)
    return {"text/html": html, "text/plain": f"{heading}\n{plain}"}


def read_sound(row):
    """The waveform of an utterance.

    Raises
    ------
    CorpusError
        If the manifest doesn't say where its sound file is.
    AudioError
        If it can't be read.
    """
    if pd.isna(row["path"]):
        where = "its sound file is not known; run notebook 01_prepare_corpus with the corpus of this run"
        raise CorpusError(f"utterance {row['utterance_id']}: {where}")
    return features.read(row["path"])


def _sound(row):
    try:
        return player(read_sound(row), equal_peaks=True)._repr_html_()
    except SerkitError as error:
        return escape(str(error))


def _said(text):
    return f"<div class='serkit-said'>{escape(text)}</div>" if text else ""


def _attention(attention):
    _, n_columns, height = figures.panel_grid(len(attention.weights))
    with figures.paper_style(columns=n_columns, height=height), plt.ioff():
        return picture(figures.plot_attention(attention, plt.figure()), "co-attention over the spectrogram")


def _spectrogram(waveform):
    level = features.log_spectrogram(features.preemphasise(waveform))
    with figures.paper_style(columns=2, height=2.1), plt.ioff():
        figure, ax = plt.subplots()
        figures.plot_spectrogram(level, hop_length=HOP_LENGTH, sample_rate=SAMPLE_RATE, n_fft=N_FFT, ax=ax)
        return picture(figure, "spectrogram")
