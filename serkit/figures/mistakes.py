"""Where the mistakes are: in short or long utterances, and where on the plane of valence and activation."""

import itertools

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from serkit.constants import SEGMENT_S
from serkit.errors import ParameterError
from serkit.evaluation.intervals import subset_accuracy
from serkit.evaluation.predictions import scored_rows
from serkit.figures.certainty import whisker
from serkit.figures.plots import BLUE, legend_above
from serkit.folds import task_rows

EDGES_S = (0, 1, 2, 3, 4, 6, 9)  # s; the last class is open
RATINGS = ("valence", "activation")  # 1 to 5 each
SIZES = (1, 10, 50)  # utterances, shown in the legend


def duration_accuracy(predictions, manifest, *, edges_s=EDGES_S, level=0.95, folds=None):
    """Share of right utterances by duration.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of one variant; test rows of all seeds count.
    manifest : pd.DataFrame
        Columns ``utterance_id, label, num_samples, sample_rate``.
    edges_s : sequence of float
        Rising edges in seconds: a class holds its lower edge and not its upper one; the last is open.
    level, folds
        As in :func:`serkit.evaluation.intervals.subset_accuracy`.

    Returns
    -------
    pd.DataFrame
        As :func:`serkit.evaluation.intervals.subset_accuracy`, with ``duration`` such as ``3–4`` (s) first.

    Raises
    ------
    ParameterError
        If the edges do not rise from at most the shortest utterance, or the manifest lacks an utterance.
    RunError, FoldError
        As :func:`serkit.evaluation.predictions.check_predictions`.
    """
    edges = np.asarray(edges_s, float)
    if len(edges) < 2 or not (np.diff(edges) > 0).all() or edges[0] != 0:
        raise ParameterError(
            f"edges_s={edges_s} s, expected at least two that rise from 0, such as {EDGES_S}"
        )
    rows = task_rows(manifest).set_index("utterance_id")
    seconds = rows["num_samples"].astype(float) / rows["sample_rate"].astype(float)
    names = [f"{low:g}–{high:g}" for low, high in itertools.pairwise(edges)] + [f"≥ {edges[-1]:g}"]
    classes = pd.cut(seconds, [*edges, np.inf], right=False, labels=names)
    table = subset_accuracy(predictions, classes, level=level, folds=folds)
    return table.rename(columns={"subset": "duration"})


def plot_duration_accuracy(
    predictions, manifest, ax: Axes, *, edges_s=EDGES_S, level=0.95, folds=None
) -> Axes:
    """Share of right utterances by duration, with intervals over speakers.

    Parameters, errors: as :func:`duration_accuracy`, and the ``ax``. A dotted line marks one segment,
    3 s, if that is an edge; the dashed one is WA over all.
    """
    table = duration_accuracy(predictions, manifest, edges_s=edges_s, level=level, folds=folds)
    position, percent = np.arange(len(table)), 100 * table[["accuracy", "low", "high"]]
    whisker(ax, position, percent["accuracy"], percent["low"], percent["high"], label=f"{level:.0%} interval")
    ax.plot(position, percent["accuracy"], "o", color=BLUE, mec="black", mew=0.4, label="right")
    wa = 100 * np.average(table["accuracy"].fillna(0), weights=table["n_utterances"])
    ax.axhline(wa, color="black", linestyle="--", linewidth=0.8, label=f"WA {wa:.1f} %", zorder=0)
    if SEGMENT_S in edges_s:
        at = list(edges_s).index(SEGMENT_S) - 0.5
        ax.axvline(at, color="0.5", linestyle=":", linewidth=1.0, label=f"{SEGMENT_S:g} s segment", zorder=0)
    ax.set_xticks(position, [f"{row.duration}\nn = {row.n_utterances}" for row in table.itertuples()])
    ax.set(xlabel="duration (s)", ylabel="right (%)", ylim=(0, 103), yticks=range(0, 101, 20),
           xlim=(-0.5, len(table) - 0.5))  # fmt: skip
    return legend_above(ax)


def rating_mistakes(predictions, manifest, *, step=0.5, folds=None):
    """Share of mistakes on the plane of rated valence and activation.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of one variant; test rows of all seeds count.
    manifest : pd.DataFrame
        Columns ``utterance_id, valence, activation`` (1 to 5).
    step : float, 0.1 to 2
        Ratings are rounded to multiples of this, counted from 1.
    folds : sequence of str or of Fold, optional
        See :func:`serkit.evaluation.predictions.check_predictions`.

    Returns
    -------
    pd.DataFrame
        ``valence, activation`` (rounded), ``n_utterances`` and ``mistakes`` (fraction of the rows).

    Raises
    ------
    ParameterError
        If the corpus has no ratings for a tested utterance, or ``step`` is out of range.
    RunError, FoldError
        As :func:`serkit.evaluation.predictions.check_predictions`.
    """
    if not 0.1 <= step <= 2:
        raise ParameterError(f"step={step!r} rating units, expected 0.1 to 2; use 0.5")
    rows = scored_rows(predictions, folds)
    known = manifest.set_index("utterance_id").reindex(columns=list(RATINGS)).dropna()
    lost = rows["utterance_id"][~rows["utterance_id"].isin(known.index)]
    if len(lost):
        raise ParameterError(
            f"utterance {lost.iloc[0]} has no valence and activation ({lost.nunique()} of "
            f"{rows['utterance_id'].nunique()} tested ones), expected ratings from 1 to 5; this figure needs a "
            "corpus that has them, such as IEMOCAP"
        )
    for name in RATINGS:
        rows[name] = 1 + (rows["utterance_id"].map(known[name]).sub(1) / step).round() * step
    rows["mistakes"] = (rows["truth"] != rows["prediction"]).astype(float)
    grouped = rows.groupby(list(RATINGS))
    return grouped.agg(n_utterances=("utterance_id", "nunique"), mistakes=("mistakes", "mean")).reset_index()


def plot_rating_mistakes(predictions, manifest, ax: Axes, *, step=0.5, folds=None) -> Axes:
    """Share of mistakes (colour) and number of utterances (area) by rated valence and activation.

    Parameters, errors: as :func:`rating_mistakes`, and the ``ax``.
    """
    table = rating_mistakes(predictions, manifest, step=step, folds=folds)
    # the fullest point nearly fills its cell of an axes some 2 in wide
    area = (144 * step / 4.4) ** 2 / max(table["n_utterances"].max(), 1)  # square points for one utterance
    dots = ax.scatter(table["valence"], table["activation"], s=area * table["n_utterances"], c=100 * table["mistakes"],
                      cmap="cividis", vmin=0, vmax=100, edgecolors="black", linewidths=0.4)  # fmt: skip
    ax.figure.colorbar(dots, ax=ax, label="mistakes (%)", pad=0.02)
    for n in SIZES:
        if n <= table["n_utterances"].max():
            ax.scatter([], [], s=area * n, c="white", edgecolors="black", linewidths=0.4, label=f"n = {n}")
    ax.set(xlabel="valence (1 negative – 5 positive)", ylabel="activation (1 calm – 5 excited)",
           xlim=(0.7, 5.3), ylim=(0.7, 5.3), xticks=range(1, 6), yticks=range(1, 6))  # fmt: skip
    return legend_above(ax)
