"""The co-attention over a whole utterance: one picture, a panel for each of its segments."""

import numpy as np
from matplotlib.figure import Figure

from serkit.constants import HOP_LENGTH, LABELS, N_FFT, SAMPLE_RATE
from serkit.figures.plots import plot_coattention

MAX_PANELS = 10  # segments drawn, 30 s; about the longest turn of IEMOCAP
PANEL_IN = 1.85  # inch, height of a row of panels


def panel_grid(n_segments):
    """Rows and columns of panels (each is one column of a page wide), and the height in inches.

    Examples
    --------
    >>> panel_grid(1), panel_grid(3), panel_grid(40)[:2]
    ((1, 1, 2.1), (2, 2, 3.95), (5, 2))
    """
    n_rows = -(-min(n_segments, MAX_PANELS) // 2)
    return n_rows, min(n_segments, 2), round(0.25 + PANEL_IN * n_rows, 2)


def plot_attention(attention, figure: Figure) -> Figure:
    """Co-attention weights over the spectrogram of each segment of an utterance.

    All panels share one scale of weights, so that a segment that hardly counts looks like it.
    Times are those within the segment; the title says where it lies and what it was taken for.

    Parameters
    ----------
    attention : serkit.predict.predictor.Attention
        At most the first 10 segments are drawn.
    figure : Figure
        Empty, made in :func:`serkit.figures.plots.paper_style` with the size that :func:`panel_grid` says.

    Returns
    -------
    Figure
    """
    n_rows, n_columns, _ = panel_grid(len(attention.weights))
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    rows = attention.segments.to_dict("records")[:MAX_PANELS]
    top = float(np.max(attention.weights, initial=0.0)) or 1.0
    for number, (ax, row) in enumerate(zip(panels, rows, strict=False)):
        before = set(figure.axes)
        plot_coattention(
            attention.weights[number], ax, sample_rate=SAMPLE_RATE,
            spectrogram_db=attention.spectrogram[number], hop_length=HOP_LENGTH, n_fft=N_FFT,
        )  # fmt: skip
        (front,) = set(figure.axes) - before
        front.set_ylim(0, 1.05 * top)
        _label(ax, front, row, left=number % n_columns == 0, right=number % n_columns == n_columns - 1)
    for ax in panels[len(rows) :]:
        ax.set_axis_off()
    return figure


def _label(ax, front, row, *, left, right):
    """Title of a panel; axis labels only where they stand at the edge of the picture."""
    share = max(row[f"p_{label}"] for label in LABELS)
    ax.set_title(f"{row['start_s']:.1f}–{row['end_s']:.1f} s: {row['emotion']} {share:.0%}")
    ax.set_xlabel("time in the segment (s)")
    if not left:
        ax.set_ylabel("")
    if not right:
        front.set_ylabel("")
