"""Confusion matrices beside each other: speaker by speaker, and one variant minus another."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from serkit.constants import LABELS
from serkit.evaluation.comparison import check_same_utterances
from serkit.evaluation.predictions import scored_rows
from serkit.figures.plots import readable_on
from serkit.metrics import confusion_matrix

GAP = 0.9  # cells between two matrices: room for the name of the one below


def speaker_confusions(predictions, folds=None):
    """Numbers behind :func:`plot_speaker_confusions`.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of one variant; test rows of all seeds count.
    folds : sequence of str or of Fold, optional
        See :func:`serkit.evaluation.predictions.check_predictions`, whose errors are raised.

    Returns
    -------
    pd.DataFrame
        Columns ``speaker, truth`` and one for each predicted label, in utterances.
    """
    rows = scored_rows(predictions, folds)
    parts = [
        confusion_matrix(own["truth"], own["prediction"]).reset_index().assign(speaker=speaker)
        for speaker, own in rows.groupby("speaker")
    ]
    return pd.concat(parts, ignore_index=True)[["speaker", "truth", *LABELS]]


def speaker_grid(n_speakers):
    """Rows and columns of matrices, and the height in inches of a figure that is two columns wide.

    Examples
    --------
    >>> speaker_grid(10), speaker_grid(24)[:2]
    ((2, 5, 3.4), (4, 6))
    """
    n_columns = min(n_speakers, 5 if n_speakers <= 10 else 6)
    n_rows = -(-n_speakers // n_columns)
    return n_rows, n_columns, min(round(0.8 + 1.3 * n_rows, 2), 9.5)


def plot_speaker_confusions(predictions, ax: Axes, *, folds=None) -> Axes:
    """One confusion matrix for each tested speaker: truth in rows, utterances in the cells.

    Colour is the share of the row on one scale for all, so that speakers with many and with few
    utterances can be compared. A row without utterances is empty.

    Parameters
    ----------
    predictions, folds
        As in :func:`speaker_confusions`.
    ax : Axes
        Holds all matrices; of a figure two columns wide and as high as :func:`speaker_grid` says.
    """
    table = speaker_confusions(predictions, folds)
    speakers = list(table["speaker"].unique())
    n_rows, n_columns, _ = speaker_grid(len(speakers))
    pitch = len(LABELS) + GAP
    for number, speaker in enumerate(speakers):
        counts = table.loc[table["speaker"] == speaker, list(LABELS)].to_numpy(int)
        left, top = (number % n_columns) * pitch, (number // n_columns) * pitch
        shares = _shares(counts)
        image = _cells(ax, shares, left, top, cmap="Blues", limits=(0, 100), texts=counts)
        ua = np.nanmean(np.diag(shares))
        ax.text(left - 0.5, top - 0.55, f"{speaker}  UA {ua:.0f} %", va="bottom", fontsize=7)
    across = [(column * pitch + i, label) for column in range(n_columns) for i, label in enumerate(LABELS)]
    down = [(row * pitch + i, label) for row in range(n_rows) for i, label in enumerate(LABELS)]
    ax.set_xticks(*zip(*across, strict=True), rotation=90)
    ax.set_yticks(*zip(*down, strict=True))
    ax.set(xlim=(-0.6, n_columns * pitch - GAP - 0.4), ylim=(n_rows * pitch - GAP - 0.4, -0.5 - GAP))
    ax.figure.colorbar(image, ax=ax, label="share of the row (%)", pad=0.01, aspect=40)
    return _frameless(ax)


def confusion_difference(predictions_a, predictions_b, folds=None):
    """Row shares of A minus row shares of B, in percentage points.

    Parameters
    ----------
    predictions_a, predictions_b : pd.DataFrame
        Prediction tables of one variant each, tested on the same utterances, folds and seeds.
    folds : sequence of str or of Fold, optional

    Returns
    -------
    pd.DataFrame
        Truth in rows, prediction in columns; each row sums to 0. NaN where a class does not occur.

    Raises
    ------
    ParameterError
        If the two were not tested on the same utterances.
    RunError, FoldError
        As :func:`serkit.evaluation.predictions.check_predictions`.
    """
    pair = [scored_rows(table, folds) for table in (predictions_a, predictions_b)]
    check_same_utterances(*pair)
    a, b = (confusion_matrix(rows["truth"], rows["prediction"]) for rows in pair)
    return pd.DataFrame(_shares(a.to_numpy()) - _shares(b.to_numpy()), index=a.index, columns=a.columns)


def plot_confusion_difference(predictions_a, predictions_b, ax: Axes, *, folds=None) -> Axes:
    """Where variant A answers otherwise than variant B: difference of two confusion matrices.

    On the diagonal more is better for A, off it less is. Both variants' names belong in the caption.

    Parameters, errors: as :func:`confusion_difference`, and the ``ax``.
    """
    points = confusion_difference(predictions_a, predictions_b, folds).to_numpy()
    limit = max(5.0, float(np.nanmax(np.abs(points))))  # or noise would look like an effect
    texts = np.array([[f"{value:+.1f}".replace("-", "−") for value in row] for row in points])
    image = _cells(ax, points, 0, 0, cmap="PuOr_r", limits=(-limit, limit), texts=texts)
    ax.set_xticks(range(len(LABELS)), LABELS)
    ax.set_yticks(range(len(LABELS)), LABELS)
    ax.set(xlim=(-0.5, len(LABELS) - 0.5), ylim=(len(LABELS) - 0.5, -0.5))
    ax.figure.colorbar(image, ax=ax, label="A − B (percentage points)", pad=0.02)
    return _frameless(ax)


def _shares(counts):
    """Rows in percent; NaN where there is nothing to share."""
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(100 * counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)


def _cells(ax, values, left, top, *, cmap, limits, texts):
    """One matrix with its top left cell centred on (left, top)."""
    size = len(values)
    extent = (left - 0.5, left + size - 0.5, top + size - 0.5, top - 0.5)
    image = ax.imshow(values, cmap=cmap, vmin=limits[0], vmax=limits[1], aspect="auto", extent=extent)
    for (row, column), value in np.ndenumerate(values):
        text, colour = ("–", "black")
        if np.isfinite(value):
            text, colour = str(texts[row, column]), readable_on(image.cmap(image.norm(value)))
        ax.text(left + column, top + row, text, ha="center", va="center", color=colour, fontsize=7)
    return image


def _frameless(ax):
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(xlabel="predicted", ylabel="true")
    return ax
