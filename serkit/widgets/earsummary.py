"""What the listening view leaves on paper: the matrix as a figure, and the surest mistakes with players."""

import base64
import io
from html import escape

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Audio

from serkit.constants import SAMPLE_RATE
from serkit.errors import SerkitError
from serkit.features import audio
from serkit.figures import paper_style, plot_confusion_matrix
from serkit.widgets.examples import confident_mistakes
from serkit.widgets.listening import ABOUT, sound_path

N_ROWS = 10  # mistakes listed at least where there are so many


def player(waveform):
    """A waveform as a player.

    Parameters
    ----------
    waveform : np.ndarray, shape (num_samples,), float32
        16 kHz.

    Returns
    -------
    IPython.display.Audio
        As loud as the format allows; it holds the sound itself (``.data``, a WAV file).
    """
    # silence has no peak to be divided by
    return Audio(waveform, rate=SAMPLE_RATE, normalize=bool(np.any(waveform)))


def picture(figure, alt):
    """A figure as an HTML image that needs no file; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    plt.close(figure)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{data}">'


def surest_mistakes(table, n):
    """The rows of ``serkit.widgets.examples.confident_mistakes`` for a table of `serkit.widgets.listening`."""
    about = table[["utterance_id", *ABOUT]].drop_duplicates("utterance_id")
    return confident_mistakes(table.drop(columns=ABOUT), about, n)


def summary(table, *, heading, n_players=4, unfolded=True):
    """The static view as HTML and as plain text.

    Parameters
    ----------
    table : pd.DataFrame
        From `serkit.widgets.listening`.
    heading : str
        What was tested.
    n_players : int
        Of the surest mistakes, those that get a player.
    unfolded : bool
        Whether it is open at once or a line to click.

    Returns
    -------
    dict of str to str
        ``text/html`` and ``text/plain``, for ``IPython.display.display(..., raw=True)``.
    """
    with paper_style(columns=1, height=2.7), plt.ioff():
        figure, ax = plt.subplots()
        plot_confusion_matrix(table["truth"], table["prediction"], ax=ax)
        image = picture(figure, "confusion matrix")
    wrong = surest_mistakes(table, max(N_ROWS, n_players))
    rows = [_row(row, sound=place < n_players) for place, row in enumerate(wrong.to_dict("records"))]
    names = ("utterance", "speaker", "truth", "taken for", "confidence", "transcript", "sound")
    head = "".join(f"<th>{name}</th>" for name in names)
    mistakes = f"<table><tr>{head}</tr>{''.join(rows)}</table>" if rows else "<p>There is no mistake.</p>"
    body = f"<p>{escape(heading)}</p>{image}<p><b>The surest mistakes</b></p>{mistakes}"
    state = " open" if unfolded else ""
    lines = [heading] + [
        f"{row.utterance_id}: {row.truth}, taken for {row.prediction} ({row.confidence:.0%})"
        for row in wrong.itertuples()
    ]
    return {
        "text/html": f'<details class="serkit-summary"{state}><summary>Summary that needs no kernel</summary>{body}</details>',
        "text/plain": "\n".join(lines),
    }


def _row(row, *, sound):
    text = row["transcript"] if isinstance(row["transcript"], str) else "–"
    cells = [
        row["utterance_id"],
        row["speaker"],
        row["truth"],
        row["prediction"],
        f"{row['confidence']:.1%}",
        text,
    ]
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}<td>{_sound(row) if sound else ''}</td></tr>"


def _sound(row):
    try:
        return player(audio.read(sound_path(row)))._repr_html_()
    except SerkitError as error:
        return escape(str(error))
