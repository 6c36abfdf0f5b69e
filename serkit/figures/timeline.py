"""The timeline: emotions over the length of a recording."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from serkit.constants import LABELS, SILENCE_DBFS
from serkit.errors import ParameterError
from serkit.figures.plots import EMOTION_COLOURS

MAX_STEPS = 400  # steps drawn; more of them would be finer than a printed line
STRIP = (104.0, 113.0)  # in the units of the percent axis: where the decided emotion is shown
NEEDED = ("start_s", "end_s", "peak_dbfs", *(f"p_{label}" for label in LABELS))
CLOCK_FROM_S = 120  # s; longer recordings are marked in minutes and seconds


def plot_timeline(segments: pd.DataFrame, *, ax: Axes) -> Axes:
    """Probabilities over time as stacked areas in percent, the most probable emotion as a strip above.

    Parameters
    ----------
    segments : pd.DataFrame
        ``Prediction.segments`` of `serkit.predict.predictor`. Where segments overlap, the earlier one is
        shown to its end. More than 400 are shown as means over neighbours; the axis says of how many.
    ax : Axes

    Returns
    -------
    Axes
        What lies below -60 dBFS is hatched: there is an answer, but nothing was heard.

    Raises
    ------
    ParameterError
        If columns are missing or no segment has any length.
    """
    steps, together = _steps(segments)
    edges = np.append(steps["start_s"], steps["end_s"].iloc[-1])
    percent = 100 * steps[[f"p_{label}" for label in LABELS]].to_numpy()
    colours = [EMOTION_COLOURS[label] for label in LABELS]
    tops = np.cumsum(percent, axis=1)
    for top, height, colour in zip(tops.T, percent.T, colours, strict=True):
        ax.stairs(top, edges, baseline=top - height, fill=True, color=colour, linewidth=0)
    decided = percent.argmax(axis=1)
    for number, colour in enumerate(colours):
        mine = np.where(decided == number, STRIP[1], STRIP[0])
        ax.stairs(mine, edges, baseline=STRIP[0], fill=True, color=colour, linewidth=0)
    handles = [Patch(color=colour, label=label) for label, colour in zip(LABELS, colours, strict=True)]
    handles += _hatch_silence(steps, edges, ax)
    ax.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(handles), borderaxespad=0.2
    )
    ax.set(ylim=(0, STRIP[1]), xlim=(edges[0], edges[-1]), ylabel="probability (%)")
    ax.set_yticks([0, 25, 50, 75, 100, sum(STRIP) / 2], ["0", "25", "50", "75", "100", "most likely"])
    _label_time(ax, edges[-1], together)
    return ax


def _steps(segments):
    """Table of what is drawn, one row a step, without gaps and overlaps; and segments in each step."""
    missing = [name for name in NEEDED if name not in segments.columns]
    if missing:
        raise ParameterError(
            f"segments lack {', '.join(missing)}; give Prediction.segments of serkit.predict.predictor"
        )
    table = segments[list(NEEDED)].sort_values("start_s", ignore_index=True)
    table["start_s"] = np.maximum(table["start_s"], table["end_s"].shift(fill_value=0.0).cummax())
    table = table[table["end_s"] > table["start_s"]].reset_index(drop=True)
    if table.empty:
        raise ParameterError(f"segments: {len(segments)} rows without any length, expected at least one with")
    together = -(-len(table) // MAX_STEPS)
    how = dict.fromkeys(NEEDED, "mean") | {"start_s": "first", "end_s": "last", "peak_dbfs": "max"}
    return table.groupby(table.index // together).agg(how), together


def _hatch_silence(steps, edges, ax):
    """Hatch quiet steps; returns the legend's entry if there are any."""
    quiet = steps["peak_dbfs"].to_numpy() < SILENCE_DBFS
    for start, stop, silent in zip(edges[:-1], edges[1:], quiet, strict=True):
        if silent:
            ax.axvspan(start, stop, facecolor="white", alpha=0.75, edgecolor="none", linewidth=0)
            ax.axvspan(start, stop, facecolor="none", edgecolor="0.3", hatch="////", linewidth=0)
    return [Patch(facecolor="white", edgecolor="0.3", hatch="////", label="silence")] if quiet.any() else []


def _label_time(ax, end_s, together):
    clock = end_s >= CLOCK_FROM_S
    note = f", each step the mean of {together} segments" if together > 1 else ""
    ax.set_xlabel(("time (h:min:s)" if end_s >= 3600 else "time (min:s)" if clock else "time (s)") + note)
    if clock:
        tick = next((step for step in (30, 60, 120, 300, 600, 1200, 1800, 3600) if end_s / step <= 10), 7200)
        ax.set_xticks(np.arange(0, end_s + 0.5, tick))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _clock(value, end_s >= 3600)))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 3, 5, 10]))


def _clock(seconds, hours):
    """Time as on a clock.

    >>> _clock(90, hours=False), _clock(3690, hours=True)
    ('1:30', '1:01:30')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
