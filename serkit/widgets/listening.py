"""Confusion-matrix analysis by ear: click a cell of the matrix, hear and see the utterances behind it."""

from html import escape

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from IPython import get_ipython
from IPython.display import display
from ipywidgets import HTML, Button, Dropdown, GridBox, HBox, Select, VBox

from serkit import features, figures, runs
from serkit.constants import HOP_LENGTH, LABELS, N_FFT, SAMPLE_RATE
from serkit.errors import CorpusError, ParameterError, RunError, SerkitError
from serkit.evaluation.predictions import PROBABILITIES, selection_of
from serkit.metrics import confusion_matrix
from serkit.predict import open_predictor
from serkit.widgets.lecture import picture, player, segment_table

ALL = "all"  # no choice made
MOST = 20  # players in a summary
IDENTITY = ["variant", "fold", "seed", "utterance_id"]  # of one prediction
FILTERS = ("fold", "seed", "speaker")
ORDERS = {  # what a listener may sort by -> column, rising
    "confidence, highest first": ("confidence", False), "confidence, lowest first": ("confidence", True),
    "duration, longest first": ("seconds", False), "duration, shortest first": ("seconds", True),
    "speaker": ("speaker", True),
}  # fmt: skip
NARROW = {"description_width": "initial"}  # no wider than its text
WRAPPED = {"flex_flow": "row wrap", "grid_gap": "12px"}
NO_WIDGETS = "The matrix to click is left out: it needs a notebook page with a running kernel."
IN_PLAIN = "A matrix to click stands here in JupyterLab, while the kernel runs."
STYLE = """<style>
.serkit-view .serkit-cell { white-space: pre-line; line-height: 1.3; height: 48px; width: 62px; padding: 0; }
.serkit-view select { font-family: var(--jp-code-font-family, monospace); font-size: 12px; }
.serkit-view .serkit-said { border-left: 4px solid #D55E00; padding: 2px 8px; line-height: 1.4; }
.serkit-view td, .serkit-view th { padding: 0 8px; text-align: right; line-height: 1.5; }
</style>"""


class Listening:
    """What notebook 06 shows of the mistakes: a view to click, and a summary for a page without a kernel.

    Parameters
    ----------
    run : serkit.runs.Run or str
        What is shown first; other runs can be chosen in the view.
    variant : str, optional
        Default: that of the ``Run``, or the first there is.
    mistakes : int, 0 to 20, optional
        How many of the surest mistakes get a player in the summary.

    Raises
    ------
    ParameterError
        If ``mistakes`` is out of range. Whatever is missing on disk is said by ``show``.

    Examples
    --------
    ``listen = Listening(run)``, and as the last line of a cell: ``listen.show()``.
    """

    def __init__(self, run, *, variant="", mistakes=4):
        if mistakes not in range(MOST + 1):
            raise ParameterError(f"mistakes={mistakes!r} players, expected a whole number from 0 to {MOST}")
        self.run = getattr(run, "name", run)
        self.variant = variant or (run.experiment.variant if hasattr(run, "experiment") else "")
        self.mistakes = mistakes
        self.view = None  # the widgets, once they have been shown

    def show(self, widgets=None):
        """Display the view, and below it the summary.

        Parameters
        ----------
        widgets : bool, optional
            Whether to show what can be clicked. Default: if the cell was run from a notebook page.
            papermill and nbconvert run it from nowhere, and would keep a picture of dead buttons.
        """
        live = is_live() if widgets is None else widgets
        if live:
            self.view = ListeningView(self.run, self.variant)
            display(self.view.box._repr_mimebundle_() | {"text/plain": IN_PLAIN}, raw=True)
        display(self.summary(live), raw=True)

    def summary(self, live=False):
        """The matrix and the surest mistakes as HTML and plain text; a sentence if there is nothing to show."""
        try:
            variant = self.variant or runs.variant_of(runs.finished_folders(self.run)[0])
            table, _, missing = load_utterances(self.run, variant)
        except SerkitError as error:
            return {"text/plain": str(error)}
        heading = f"Run {self.run}, variant {variant}: {len(table)} predictions of the test sets. {missing} "
        heading += "" if live else NO_WIDGETS
        with figures.paper_style(columns=1, height=2.7), plt.ioff():
            figure, ax = plt.subplots()
            figures.plot_confusion_matrix(table["truth"], table["prediction"], ax=ax)
            matrix = picture(figure, "confusion matrix")
        wrong = surest_mistakes(table, max(10, self.mistakes))
        lines = [f"{row.utterance_id}: {row.truth}, taken for {row.prediction} ({row.confidence:.0%})"
                 for row in wrong.itertuples()]  # fmt: skip
        html = (
            f'<details class="serkit-summary"{"" if live else " open"}><summary>Summary that needs no kernel</summary>'
            f"<p>{escape(heading)}</p>{matrix}<p><b>The surest mistakes</b></p>{_listed(wrong, self.mistakes)}</details>"
        )
        return {"text/html": html, "text/plain": "\n".join([heading, *lines])}


class ListeningView:
    """The view that can be clicked: choose, click a cell, select an utterance, hear it, mark it.

    Nothing is read but prediction tables and the manifest, until an utterance is selected: then its
    sound, and the model of the fold that tested it.

    Parameters
    ----------
    run : str
        What is shown first; other runs can be chosen in the view.
    variant : str, optional
        Default: the first there is.

    Attributes
    ----------
    box : ipywidgets.VBox
        To be displayed. Classes for style sheets and tests: ``serkit-view``, ``serkit-cell``,
        ``serkit-list``, ``serkit-mark``, ``serkit-export``, ``serkit-message``, ``serkit-seen``.
    said : str
        The sentence at the top; empty if there is nothing to say.
    """

    def __init__(self, run, variant=""):
        self.table = self.chosen = self.rows = None  # of the variant; of fold, seed, speaker; of the cell
        self.cell = self.row = None  # (truth, prediction); the selected utterance
        self._marks = {}  # run -> key -> marked row
        self._busy = False  # while a choice is followed, what changes in the widgets is no other choice
        known = sorted({folder.parents[2].name for folder in runs.find_folds()} | {run})
        options = {"run": known, "variant": [variant]} | {name: [ALL] for name in FILTERS}
        self.choices = {key: Dropdown(options=options[key], description=key, style=NARROW) for key in options}
        self.choices["run"].value = run
        self.order = Dropdown(options=list(ORDERS), description="sort by", style=NARROW)
        self.cells = {(truth, guess): Button() for truth in LABELS for guess in LABELS}
        self.list = Select(rows=10, layout={"width": "auto", "min_width": "420px"})
        self.message, self.words, self.seen = HTML(), HTML(), HTML()
        self.mark = Button(description="★ mark")
        self.export = Button(tooltip="write a table of the marked utterances")
        self.box = self._arrange()
        for name, choice in self.choices.items():
            choice.observe(self._handler(self._narrow if name in FILTERS else self._load), "value")
        for cell, button in self.cells.items():
            button.on_click(self._handler(self._list, cell))
        self.order.observe(self._handler(self._list), "value")
        self.list.observe(self._handler(self._look), "index")
        self.mark.on_click(self._handler(self._toggle_mark))
        self.export.on_click(self._handler(self._export))
        self._handler(self._load)()

    @property
    def marked(self):
        """Rows that are marked in the run shown: a dict by (variant, fold, seed, utterance)."""
        return self._marks.setdefault(self.choices["run"].value, {})

    def say(self, text):
        """Show a sentence at the top of the view; empty removes it."""
        self.said, self.message.value = text, _said(text)

    def _arrange(self):
        items = [HTML("true ↓<br>guess →"), *(HTML(f"<b>{label}</b>") for label in LABELS)]
        for truth in LABELS:
            items += [HTML(f"<b>{truth}</b>"), *(self.cells[truth, guess] for guess in LABELS)]
        for (truth, guess), button in self.cells.items():
            button.tooltip = f"utterances of {truth} that were taken for {guess}"
            button.add_class("serkit-cell")
        for name in ("message", "list", "mark", "export", "seen"):
            getattr(self, name).add_class(f"serkit-{name}")
        columns = f"76px repeat({len(LABELS)}, 64px)"
        matrix = GridBox(items, layout={"grid_template_columns": columns, "align_content": "flex-start"})
        rows = VBox([HBox([self.order, self.export], layout=WRAPPED), self.list])
        self.pane = VBox([self.words, self.mark, self.seen])
        choices = HBox(list(self.choices.values()), layout=WRAPPED)
        parts = [HTML(STYLE), choices, self.message, HBox([matrix, rows], layout=WRAPPED), self.pane]
        return VBox(parts).add_class("serkit-view")

    def _handler(self, step, *arguments):
        """A callback for a widget that says in the view what is wrong; the notebook goes on."""

        def handle(_=None):
            if self._busy:
                return
            self._busy = True
            self.say("")
            try:
                step(*arguments)
            except SerkitError as error:
                self.say(str(error))
            finally:
                self._busy = False

        return handle

    def _load(self):
        """Read a run's tables, offer what can be chosen from them, and show all of it."""
        run, wanted = self.choices["run"].value, self.choices["variant"].value
        self.table = self.cell = None
        self._narrow()  # nothing is shown until the tables have been read
        variants = sorted({runs.variant_of(folder) for folder in runs.finished_folders(run)})
        variant = wanted if wanted in variants else variants[0]
        self.choices["variant"].options, self.choices["variant"].value = variants, variant
        self.table, self.corpus, missing = load_utterances(run, variant)
        for name in FILTERS:
            self.choices[name].options = [ALL, *sorted(self.table[name].unique().tolist())]  # all is chosen
        self._narrow()
        self.say(missing)

    def _narrow(self):
        """The matrix of what the dropdowns leave; the picked cell stays picked."""
        wanted = {name: self.choices[name].value for name in FILTERS}
        self.chosen = None if self.table is None else narrow(self.table, **wanted)
        if self.table is not None and self.chosen is None:
            what = " and ".join(f"{name} {value}" for name, value in wanted.items() if value != ALL)
            self.say(f"{what}: no tested utterance; choose 'all' for one of them")
        self._paint()
        self._list()

    def _paint(self):
        """Counts, shares of the row, and colour by share."""
        counts = pd.DataFrame(0, LABELS, LABELS)
        if self.chosen is not None:
            counts = confusion_matrix(self.chosen["truth"], self.chosen["prediction"])
        for (truth, guess), button in self.cells.items():
            total = int(counts.loc[truth].sum())
            share = counts.loc[truth, guess] / total if total else 0.0
            colour = mpl.colormaps["Blues"](share)
            button.description = f"{share:.1%}\n({counts.loc[truth, guess]})" if total else "–"
            button.style.button_color = mpl.colors.to_hex(colour)
            button.style.text_color = figures.readable_on(colour)

    def _list(self, cell=None):
        """The utterances that the picked cell counts, in the chosen order; none of them is selected."""
        self.cell, self.rows = cell or self.cell, None
        for name, button in self.cells.items():
            button.layout.border = "3px solid #D55E00" if name == self.cell else ""
        if self.cell and self.chosen is not None:
            truth, guess = self.cell
            self.rows = narrow(self.chosen, truth=truth, prediction=guess)
            if self.rows is None:
                self.say(f"no {truth} utterance was taken for {guess} here; pick a cell that counts some")
            else:
                column, rising = ORDERS[self.order.value]
                self.rows = self.rows.sort_values([column, "utterance_id"], ascending=[rising, True])
        self._show_rows(None)
        self._look()

    def _show_rows(self, selected):
        lines = [] if self.rows is None else text_lines(self.rows, self.marked)
        self.list.options = [(line, number) for number, line in enumerate(lines)]
        self.list.index = selected
        self.list.layout.display = "" if lines else "none"
        self.export.description = f"Export {len(self.marked)} marked"
        self.export.disabled = not self.marked

    def _look(self):
        """Sound, spectrogram, co-attention and probabilities of the selected utterance.

        What can't be had is said in its place.
        """
        self.row = None if self.list.index is None else self.rows.iloc[self.list.index].to_dict()
        self.pane.layout.display = "none" if self.row is None else ""
        self.words.value = self.seen.value = ""
        if self.row is None:
            return
        self.words.value = _title(self.row)
        try:
            waveform = read_sound(self.row)
        except SerkitError as error:
            self.seen.value = _said(f"No sound to play: {error}")
            return
        self.words.value += player(waveform, equal_peaks=True)._repr_html_()
        self.seen.value = _said("The model looks at it ...")
        folder = f"runs/{self.choices['run'].value}/{{variant}}/fold={{fold}}/seed={{seed}}/model".format(
            **self.row
        )
        try:
            attention = open_predictor(runs.project_home() / folder).attend(waveform)
        except SerkitError as error:
            said = _said(f"No co-attention to show, the spectrogram alone: {error}")
            self.seen.value = said + _spectrogram(waveform)
            return
        whole = ", ".join(f"{label} {share:.1%}" for label, share in attention.utterance.items())
        table = segment_table(attention.segments).to_html(index=False, border=0)
        self.seen.value = f"<p>The whole utterance: {whole}</p>{table}{_attention(attention)}"

    def _toggle_mark(self):
        """Put the selected utterance on the list, or take it off."""
        if self.marked.pop(key_of(self.row), None) is None:
            self.marked[key_of(self.row)] = self.row
        self._show_rows(self.list.index)

    def _export(self):
        """Write the marked utterances to ``figures/<run>/marked.csv``."""
        columns = [*IDENTITY, "speaker", "seconds", "confidence", "truth", "prediction", *PROBABILITIES]
        table = pd.DataFrame(self.marked.values()).sort_values(IDENTITY, ignore_index=True)
        leaks = "published" in set(table["variant"].map(selection_of))
        run = self.choices["run"].value
        written = figures.save_table(
            table[[*columns, "transcript"]], "marked", run=run, decimals=3,
            caption=f"Utterances marked by a listener: {self.corpus}, {len(table)} of run {run}.",
            parameters={"corpus": self.corpus} | ({"selection": "published"} if leaks else {}),
        )  # fmt: skip
        (path,) = (path for path in written if path.suffix == ".csv")
        self.say(f"the list is in {runs.show_path(path)} (marked: {len(table)})")


def is_live():
    """Whether the cell being run was sent by a notebook page (which names the cell) and not by a program."""
    kernel = getattr(get_ipython(), "kernel", None)
    request = kernel.get_parent() if kernel else {}
    return "cellId" in (request.get("metadata") or {})


def load_utterances(run, variant):
    """The tested utterances of one variant with what the corpus knows about them.

    Parameters
    ----------
    run, variant : str

    Returns
    -------
    table : pd.DataFrame
        From :func:`utterance_table`.
    corpus : str
    missing : str
        Why duration, transcript and sound are unknown; empty if they are known.

    Raises
    ------
    RunError
        If the run or the variant has no finished fold, or its folds must not be put together.
    """
    corpus = runs.shared_parameters(run, variant)["corpus"]
    try:
        manifest = runs.find_manifest(corpus)
        path = runs.show_path(runs.processed_folder(corpus) / runs.MANIFEST)
        missing = "" if manifest is not None else f"{path} is missing; run notebook 01_prepare_corpus first."
    except RunError as error:
        manifest, missing = None, str(error)
    return utterance_table(runs.load_predictions(run, variant), manifest), corpus, missing


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
    rows["confidence"] = rows[list(PROBABILITIES)].max(axis=1)
    columns = ["utterance_id", "path", "transcript", "num_samples", "sample_rate"]
    about = pd.DataFrame(columns=columns) if manifest is None else manifest[columns]
    rows = rows.merge(about, on="utterance_id", how="left")
    rows["seconds"] = (rows["num_samples"] / rows["sample_rate"]).astype(float)
    return rows


def narrow(table, **wanted):
    """Rows whose columns have the wanted values (``all``: any value); None if there is none.

    >>> table = pd.DataFrame({"fold": ["1", "2"], "seed": [111, 111], "speaker": ["1F", "2F"]})
    >>> len(narrow(table, fold="all", seed=111)), len(narrow(table, fold="1")), narrow(table, seed=1)
    (2, 1, None)
    """
    for name, value in wanted.items():
        table = table if value == ALL else table[table[name] == value]
    return None if table.empty else table


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


def text_lines(rows, marked=frozenset()):
    """Rows as text in columns that stand below each other, for a font of equal widths.

    Parameters
    ----------
    rows : pd.DataFrame
        Of :func:`utterance_table`.
    marked : set of tuple, optional
        Keys (``IDENTITY``) of rows that get a star.

    Returns
    -------
    list of str
        A star or none, utterance, speaker, fold, seed if there are several, duration, confidence.
    """
    seeds = ["seed"] * (rows["seed"].nunique() > 1)
    table = rows[["utterance_id", "speaker", "fold", *seeds, "seconds", "confidence"]]
    table.insert(0, "star", ["★" if key_of(row) in marked else " " for row in rows.to_dict("records")])
    formats = {name: f"{name} {{}}".format for name in FILTERS}
    formats |= {"seconds": "{:.2f} s".format, "confidence": "{:.1%}".format}
    return table.to_string(index=False, header=False, na_rep="–", formatters=formats).splitlines()


def key_of(row):
    """What tells a prediction from all others of a run: variant, fold, seed, utterance."""
    return tuple(row[name] for name in IDENTITY)


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


def _listed(wrong, n_players):
    """A table of mistakes; the first ones get a player."""
    if wrong.empty:
        return "<p>There is no mistake.</p>"
    columns = {"utterance_id": "utterance", "speaker": "speaker", "truth": "truth", "prediction": "taken for",
               "confidence": "confidence", "transcript": "transcript"}  # fmt: skip
    table = wrong[list(columns)].rename(columns=columns)
    table["sound"] = [_sound(row) if i < n_players else "" for i, row in enumerate(wrong.to_dict("records"))]
    page = table.style.hide(axis="index").format(escape="html", na_rep="–", subset=list(columns.values()))
    return page.format("{:.1%}", subset="confidence").to_html()


def _sound(row):
    try:
        return player(read_sound(row), equal_peaks=True)._repr_html_()
    except SerkitError as error:
        return escape(str(error))


def _title(row):
    text = row["transcript"]
    words = f"“{escape(text)}”" if isinstance(text, str) and text else "<i>no transcript</i>"
    return (
        f"<b>{escape(row['utterance_id'])}</b>, speaker {escape(row['speaker'])}: {row['truth']}, taken for "
        f"{row['prediction']} ({row['confidence']:.1%})<br>{words}<br>"
    )


def _said(text):
    return f"<div class='serkit-said'>{escape(text)}</div>" if text else ""


def _attention(attention):
    n_segments = len(attention.weights)
    n_rows, n_columns, height = figures.panel_grid(n_segments)
    with figures.paper_style(columns=n_columns, height=height), plt.ioff():
        image = picture(figures.plot_attention(attention, plt.figure()), "co-attention over the spectrogram")
    left_out = n_segments - n_rows * n_columns
    return image + (_said(f"{left_out} more segments are not drawn.") if left_out > 0 else "")


def _spectrogram(waveform):
    level = features.log_spectrogram(features.preemphasise(waveform))
    with figures.paper_style(columns=2, height=2.1), plt.ioff():
        figure, ax = plt.subplots()
        figures.plot_spectrogram(level, hop_length=HOP_LENGTH, sample_rate=SAMPLE_RATE, n_fft=N_FFT, ax=ax)
        return picture(figure, "spectrogram")
