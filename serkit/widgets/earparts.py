"""Building blocks of the listening view: a matrix to click, a table to leaf through, one utterance.

Each shows what it is given and calls back when it is clicked; what is shown is decided in
`serkit.widgets.earview`. Everything a program (or a style sheet) may look for has a class that starts with
``serkit-``.
"""

from html import escape

import matplotlib as mpl
import numpy as np
from ipywidgets import HTML, Button, GridBox, HBox, VBox
from ipywidgets import Audio as Player

from serkit.constants import LABELS
from serkit.figures import readable_on
from serkit.widgets.listening import PAGE, page_of, text_lines

STYLE = """<style>
.serkit-view .serkit-cell, .serkit-view .serkit-row { line-height: 1.3; text-overflow: clip; }
.serkit-view .serkit-cell { white-space: pre-line; height: 48px; width: 62px; margin: 1px; padding: 0; }
.serkit-view .serkit-picked { outline: 3px solid #D55E00; outline-offset: -3px; font-weight: bold; }
.serkit-view .serkit-row { white-space: pre; text-align: left; width: 100%; min-width: max-content; height: 24px;
  margin: 0; padding: 0 6px; font-family: var(--jp-code-font-family, monospace); font-size: 12px;
  color: var(--jp-ui-font-color1, black); background: var(--jp-layout-color1, white);
  border-bottom: 1px solid var(--jp-border-color2, #ddd); }
.serkit-view .serkit-row.serkit-picked { background: var(--jp-layout-color2, #eee); outline-width: 2px;
  outline-offset: -2px; font-weight: normal; }
.serkit-view .serkit-heading { white-space: pre; padding: 0 6px; line-height: 24px; font-weight: bold;
  font-family: var(--jp-code-font-family, monospace); font-size: 12px; }
.serkit-view .serkit-table { overflow-x: auto; }
.serkit-view .serkit-axis { text-align: right; padding-right: 6px; line-height: 1.3; }
.serkit-view .serkit-top { text-align: center; line-height: 1.3; }
.serkit-view .serkit-said { border-left: 4px solid #D55E00; padding: 2px 8px; line-height: 1.4; }
.serkit-view img { max-width: 100%; background: white; }
.serkit-view table { border-collapse: collapse; line-height: 1.5; }
.serkit-view th, .serkit-view td { padding: 0 8px; text-align: right; border-bottom: 1px solid var(--jp-border-color2, #ddd); }
</style>"""


class MatrixGrid:
    """A confusion matrix of buttons: counts and shares of the row, colour by share.

    Parameters
    ----------
    on_pick : callable
        Called with truth and prediction of the cell that was clicked.
    """

    def __init__(self, on_pick):
        self.buttons = {(truth, guess): Button() for truth in LABELS for guess in LABELS}
        self._rows = {label: HTML() for label in LABELS}
        head = [HTML("<div class='serkit-axis'>true ↓<br>guess →</div>")]
        items = head + [HTML(f"<div class='serkit-top'><b>{label}</b></div>") for label in LABELS]
        for truth in LABELS:
            items.append(self._rows[truth])
            for guess in LABELS:
                button = self.buttons[truth, guess]
                button.add_class("serkit-cell").add_class(f"serkit-cell-{truth}-{guess}")
                button.tooltip = f"utterances of {truth} that were taken for {guess}"
                button.on_click(lambda _, truth=truth, guess=guess: on_pick(truth, guess))
                items.append(button)
        self.box = GridBox(
            items,
            layout={
                "grid_template_columns": f"76px repeat({len(LABELS)}, 64px)",
                "align_content": "flex-start",
            },
        )
        self.box.add_class("serkit-matrix")

    def show(self, counts):
        """Show a matrix (``serkit.widgets.listening.counts_of``), or an empty one for None."""
        self.pick(None)
        for truth, label in self._rows.items():
            total = 0 if counts is None else int(counts.loc[truth].sum())
            label.value = f"<div class='serkit-axis'><b>{truth}</b><br>n = {total}</div>"
            for guess in LABELS:
                n = 0 if counts is None else int(counts.loc[truth, guess])
                share = n / total if total else 0.0
                colour = mpl.colormaps["Blues"](share)
                button = self.buttons[truth, guess]
                button.description = f"{share:.1%}\n({n})" if total else "–"
                button.style.button_color = mpl.colors.to_hex(colour)
                button.style.text_color = readable_on(colour)
                button.disabled = counts is None

    def pick(self, cell):
        """Mark one cell, (truth, prediction), as the one whose utterances are shown."""
        for place, button in self.buttons.items():
            (button.add_class if place == cell else button.remove_class)("serkit-picked")


class UtteranceTable:
    """Ten rows at a time of a table of utterances; each row is a button.

    Parameters
    ----------
    on_select : callable
        Called with the row (a dict) that was clicked.
    """

    def __init__(self, on_select):
        self._on_select = on_select
        self._heading = HTML()
        self.buttons = [Button() for _ in range(PAGE)]
        for number, button in enumerate(self.buttons):
            button.add_class("serkit-row")
            button.on_click(lambda _, number=number: self._select(number))
        self.previous = Button(icon="chevron-left", tooltip="page before", layout={"width": "40px"})
        self.next = Button(icon="chevron-right", tooltip="next page", layout={"width": "40px"})
        self.previous.on_click(lambda _: self._turn(-1))
        self.next.on_click(lambda _: self._turn(1))
        self.place = HTML()
        paging = HBox([self.previous, self.next, self.place])
        for widget, name in ((self.previous, "previous"), (self.next, "next"), (self.place, "place")):
            widget.add_class(f"serkit-{name}")
        inner = VBox([self._heading, *self.buttons])
        self.box = VBox([inner.add_class("serkit-table"), paging])
        self.show(None)

    def show(self, rows, marked=frozenset(), number=0):
        """Show one page of ``rows`` (of ``serkit.widgets.listening.utterance_table``); None shows nothing."""
        self.rows, self.marked, self.picked = rows, marked, None
        self.box.layout.display = "none" if rows is None else ""
        if rows is not None:
            self._draw(number)

    def mark(self, marked):
        """The same page with other stars."""
        self.marked = marked
        if self.rows is not None:
            self._draw(self.number)

    def _draw(self, number):
        self._page, self.number, n_pages = page_of(self.rows, number)
        heading, *lines = text_lines(self._page, self.marked)
        self._heading.value = f"<div class='serkit-heading'>{escape(heading)}</div>"
        for place, button in enumerate(self.buttons):
            here = place < len(lines)
            button.layout.display = "" if here else "none"
            button.description = lines[place] if here else ""
            chosen = here and self.number * PAGE + place == self.picked
            (button.add_class if chosen else button.remove_class)("serkit-picked")
        first = self.number * PAGE
        self.place.value = f"{first + 1} to {first + len(lines)} of {len(self.rows)}"
        self.previous.disabled, self.next.disabled = self.number == 0, self.number == n_pages - 1

    def _turn(self, by):
        self._draw(self.number + by)

    def _select(self, place):
        self.picked = self.number * PAGE + place
        self._draw(self.number)
        self._on_select(self._page.iloc[place].to_dict())


class UtterancePane:
    """One utterance: what it is, its sound, what the model saw in it."""

    def __init__(self, on_mark):
        self.title, self.note, self.picture, self.table = HTML(), HTML(), HTML(), HTML()
        self.player = Player(autoplay=False, loop=False)
        self.mark = Button(layout={"width": "130px"})
        self.mark.on_click(lambda _: on_mark())
        for widget, name in (
            (self.title, "title"), (self.note, "note"), (self.picture, "attention"), (self.table, "segments"),
            (self.player, "player"), (self.mark, "mark"),
        ):  # fmt: skip
            widget.add_class(f"serkit-{name}")
        line = HBox([self.player, self.mark], layout={"align_items": "center"})
        words = VBox([self.title, line, self.note, self.table])
        self.box = HBox([words, self.picture], layout={"flex_flow": "row wrap", "grid_gap": "12px"})
        self.clear()

    def clear(self):
        """Show no utterance."""
        self.box.layout.display = "none"
        self.title.value = self.note.value = self.picture.value = self.table.value = ""
        self.silence()

    def describe(self, row):
        """Say which utterance it is; sound and pictures come afterwards."""
        self.clear()
        text = row["transcript"]
        words = f"<br>“{escape(text)}”" if isinstance(text, str) and text else "<br><i>no transcript</i>"
        self.title.value = (
            f"<b>{escape(row['utterance_id'])}</b>, speaker {escape(row['speaker'])}: {row['truth']}, taken for "
            f"{row['prediction']} ({row['confidence']:.1%}){words}"
        )
        self.box.layout.display = ""

    def sound(self, wav):
        """Offer a sound, the bytes of a WAV file."""
        self.player.value = wav
        self.player.layout.display = ""

    def show_picture(self, image, *, wide):
        """Show an HTML image beside the words, or below them if it is wide."""
        self.picture.layout.flex = "1 1 100%" if wide else "1 1 400px"
        self.picture.value = image

    def silence(self):
        """Offer no sound."""
        self.player.layout.display = "none"
        self.player.value = b""

    def say(self, text):
        """A sentence in place of what can't be shown."""
        self.note.value = f"<div class='serkit-said'>{escape(text)}</div>" if text else ""

    def marked(self, is_marked):
        """Show whether this utterance is on the list."""
        self.mark.description = "★ marked" if is_marked else "☆ mark it"


def probability_table(attention, truth):
    """Probabilities segment by segment as HTML, the likeliest in bold; the last line is the whole utterance.

    Parameters
    ----------
    attention : serkit.predict.predictor.Attention
    truth : str
        Its column is marked.
    """
    heads = "".join(f"<th>{label}{' (true)' if label == truth else ''}</th>" for label in LABELS)
    lines = [f"<tr><th>segment</th>{heads}</tr>"]
    for row in attention.segments.to_dict("records"):
        name = f"{row['start_s']:.2f}–{row['end_s']:.2f} s"
        lines.append(_probability_line(name, [row[f"p_{label}"] for label in LABELS]))
    lines.append(_probability_line("<b>utterance</b>", list(attention.utterance.values())))
    return f"<table>{''.join(lines)}</table>"


def _probability_line(name, values):
    best = int(np.argmax(values))
    cells = (f"<b>{value:.1%}</b>" if place == best else f"{value:.1%}" for place, value in enumerate(values))
    return f"<tr><td>{name}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
