"""How sure one can be: recall of each class with its interval, and whether confidence is deserved."""

import numpy as np
from matplotlib.axes import Axes

from serkit.evaluation.intervals import class_recall, expected_calibration_error, reliability_table
from serkit.figures.plots import BLUE, EMOTION_COLOURS, VERMILLION, legend_above


def plot_recall_intervals(predictions, ax: Axes, *, level=0.95, folds=None) -> Axes:
    """Recall of each class in percent with its interval over speakers; UA, their mean, dashed.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of one variant; test rows of all seeds count.
    ax : Axes
    level : float
        Of the intervals, as in :func:`serkit.evaluation.intervals.bootstrap_interval`.
    folds : sequence of str or of Fold, optional
        See :func:`serkit.evaluation.predictions.check_predictions`, whose errors are raised.

    Returns
    -------
    Axes
        A class of fewer than 5 speakers has no interval, one without utterances no bar.
    """
    table = class_recall(predictions, level=level, folds=folds)
    percent = 100 * table[["recall", "low", "high"]]
    position, colours = np.arange(len(table)), [EMOTION_COLOURS[label] for label in table["label"]]
    ax.bar(position, percent["recall"].fillna(0), width=0.7, color=colours)
    whisker(ax, position, percent["recall"], percent["low"], percent["high"], label=f"{level:.0%} interval")
    ua = percent["recall"].mean()
    ax.axhline(ua, color="black", linestyle="--", linewidth=0.8, label=f"UA {ua:.1f} %", zorder=0)
    names = [
        f"{row.label}\n{100 * row.recall:.1f} %\nn = {row.n_utterances}"
        if row.n_utterances
        else f"{row.label}\n–"
        for row in table.itertuples()
    ]  # below the bars, where no whisker can cross them
    ax.set_xticks(position, names)
    ax.set(ylabel="recall (%)", ylim=(0, 103), yticks=range(0, 101, 20))
    return legend_above(ax)


def plot_reliability(predictions, ax: Axes, *, n_bins=10, folds=None) -> Axes:
    """How often predictions of a given confidence are right, against how often they claim to be.

    Bars: share of right answers in each bin of confidence. Dots: the same at the bin's mean
    confidence; below the dashed line the answers are surer than right. The row of numbers on top
    says how many answers each bar rests on.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of one variant; test rows of all seeds count.
    ax : Axes
    n_bins : int, 1 to 100
    folds : sequence of str or of Fold, optional
        As in :func:`serkit.evaluation.intervals.reliability_table`, whose errors are raised.
    """
    table = reliability_table(predictions, n_bins, folds)
    error = 100 * expected_calibration_error(predictions, n_bins, folds)
    filled = table[table["n"] > 0]
    middle = 50 * (filled["low"] + filled["high"])
    label = f"right; ECE {error:.1f} points ({n_bins} bins)"
    ax.bar(middle, 100 * filled["accuracy"], width=92 / n_bins, color=BLUE, alpha=0.45, label=label)
    ax.plot(100 * filled["confidence"], 100 * filled["accuracy"], "o", color=VERMILLION, mec="black", mew=0.4,
            label="mean confidence")  # fmt: skip
    ax.plot([0, 100], [0, 100], color="black", linestyle="--", linewidth=0.8, label="as sure as right")
    for x, row in zip(middle, filled.itertuples(), strict=True):
        ax.annotate(f"{row.n}", (x, 104), ha="center", va="bottom", fontsize=6)
    left = 100 * min(0.2, filled["low"].min())
    ax.annotate("n =", (left + 1.5, 104), ha="left", va="bottom", fontsize=6)
    ax.set(
        xlabel="confidence (%)", ylabel="right (%)", xlim=(left, 100), ylim=(0, 112), yticks=range(0, 101, 20)
    )
    return legend_above(ax, columns=1)


def whisker(ax, x, value, low, high, **style):
    """Interval bars in black, for the points that have an interval."""
    known = np.isfinite(low) & np.isfinite(high)
    if known.any():
        # an end may lie on the wrong side of a point by rounding
        reach = [np.clip(value - low, 0, None)[known], np.clip(high - value, 0, None)[known]]
        ax.errorbar(np.asarray(x)[known], value[known], reach, fmt="none", ecolor="black", elinewidth=0.8,
                    capsize=2.5, **style)  # fmt: skip
    return ax
