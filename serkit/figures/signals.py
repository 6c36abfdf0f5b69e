"""What is heard and what the network looks at: waveform, spectrogram, MFCC, co-attention, emotions over time.

The system itself on one page, ``system.svg`` beside this file, is shown with the part that a notebook is about lit.
"""

import base64
import re
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from serkit.constants import HOP_LENGTH, N_FFT, SAMPLE_RATE, SEGMENT_S, SILENCE_DBFS
from serkit.errors import check_choice
from serkit.figures.saving import BLUE, ORANGE, VERMILLION, VIEW_COLOURS, WORDS, colours_of, legend_above
from serkit.metrics import PROBABILITY, labels_of

MAX_LINE_POINTS = 4000  # longer waveforms are drawn as an envelope: the page shows no more
WAV2VEC_HOP = 320  # samples = 20 ms between speech encoder frames
WAV2VEC_WIDTH = 400  # samples = 25 ms that one frame looks at
MAX_PANELS = 10  # segments drawn, 30 s, about the longest turn of IEMOCAP; or folds
PANEL_IN = 1.85  # inch, height of a row of panels
STEM_IN = 0.9  # inch, height of a row of stems
MAX_STEPS = 400  # of a timeline; more of them would be finer than a printed line
PALEST = 99  # % of the coefficients above 0 are not beyond the scale of colours
STRIP = (104.0, 113.0)  # in the units of the percent axis: where the decided emotion is shown
LABELLED_S = 0.6  # s, a shorter piece has no room for its times
CLOCK_FROM_S = 120  # s; longer recordings are marked in hours, minutes and seconds
PALE = 0.4  # opacity of what is not lit


def show_system(lit: str = "predict") -> HTML:
    """The system in a notebook, for the last line of a cell.

    Parameters
    ----------
    lit : str
        A name of ``[lit]`` in ``words.toml``, or several joined by ``+``: they are in full colour, the rest is pale.

    Raises
    ------
    ParameterError
        If a name is unknown.
    """
    shown = {"always"}
    for name in lit.split("+"):
        check_choice("lit", name, WORDS["lit"])
        shown |= {*WORDS["lit"][name]}
    svg = Path(__file__).with_name("system.svg").read_text(encoding="utf-8")
    fade = re.compile(r'<g class="(\w+)"')
    svg = fade.sub(lambda group: group[0] + ("" if group[1] in shown else f' opacity="{PALE}"'), svg)
    alt = f"{re.search(r'<title>(.*)</title>', svg)[1]} In full colour: {lit.replace('+', ', ')}."
    data = base64.b64encode(svg.encode()).decode()
    style = "width: 100%; max-width: 800px"
    return HTML(f'<img alt="{alt}" style="{style}" src="data:image/svg+xml;base64,{data}">')


def plot_waveform(waveform: np.ndarray, sample_rate: int, ax: Axes, *, valid_samples=None) -> Axes:
    """Waveform over time in seconds; a long one as its envelope, so that no peak is lost.

    Parameters
    ----------
    waveform : np.ndarray, shape (num_samples,)
    sample_rate : int
        In Hz.
    ax : Axes
    valid_samples : int or np.ndarray of bool, shape (num_samples,), optional
        How many first samples, or which, are not padding; the padding is hatched.
    """
    n, colour = len(waveform), VIEW_COLOURS["speech"]
    if n <= MAX_LINE_POINTS:
        ax.plot(np.arange(n) / sample_rate, waveform, color=colour, linewidth=0.5)
    else:
        starts = np.linspace(0, n, MAX_LINE_POINTS // 4, endpoint=False).astype(int)
        low, high = np.minimum.reduceat(waveform, starts), np.maximum.reduceat(waveform, starts)
        ax.fill_between(starts / sample_rate, low, high, step="post", color=colour, linewidth=0.3)
    _hatch_padding(ax, valid_samples, np.arange(n + 1) / sample_rate)
    ax.set(xlabel="time (s)", ylabel="amplitude", xlim=(0, n / sample_rate))
    return ax


def plot_cut(pieces, ax: Axes) -> Axes:
    """How an utterance is cut: a line for each recipe and view, a box for each segment, padding hatched.

    Parameters
    ----------
    pieces : pd.DataFrame
        A row for each segment of each line: ``recipe``, ``view``, ``segment`` (0, 1, ...), ``from_s`` (where it
        begins in the utterance), ``real_s`` (how much of it is speech) and ``offset_s`` (where that begins in it).
    ax : Axes
    """
    lines = pieces.groupby(["recipe", "view"], sort=False)
    for y, ((_, view), boxes) in enumerate(lines):
        colour = VIEW_COLOURS["speech" if view == "waveform" else "spectrogram"]
        for box in boxes.itertuples():
            x = box.segment * (SEGMENT_S + 0.1)
            whole = {"facecolor": "white", "edgecolor": "0.5", "hatch": "////"}
            ax.broken_barh([(x, SEGMENT_S)], (y - 0.35, 0.7), **whole)
            ax.broken_barh([(x + box.offset_s, box.real_s)], (y - 0.35, 0.7), facecolor=colour)
            if box.real_s > LABELLED_S:
                times = f"{box.from_s:.1f} to {box.from_s + box.real_s:.1f} s"
                ax.text(x + box.offset_s + box.real_s / 2, y, times, ha="center", va="center", fontsize=7)
    ax.set_yticks(range(len(lines)), [f"{recipe}: {view}" for recipe, view in lines.groups])
    ax.set(xlabel="segments, 3 s each; hatched: padding", xlim=(0, None))
    ax.invert_yaxis()
    ax.spines[:].set_visible(False)
    ax.tick_params(left=False, bottom=False, labelbottom=False)
    return ax


def plot_spectrogram(spectrogram_db, *, hop_length, sample_rate, n_fft, ax: Axes, colour_bar=True) -> Axes:
    """Spectrogram over time in seconds and frequency in kHz, with a colour bar in dB.

    Parameters
    ----------
    spectrogram_db : np.ndarray, shape (n_bins, n_frames)
        Levels in dB; row ``f`` is at ``f * sample_rate / n_fft`` Hz, frame ``t`` is centred on
        sample ``t * hop_length``.
    hop_length, n_fft : int
        In samples.
    sample_rate : int
        In Hz.
    ax : Axes
    colour_bar : bool
        False leaves it out, where panels side by side share one.
    """
    ax.set_ylabel("frequency (kHz)")
    bin_khz = sample_rate / n_fft / 1000
    image = _draw_frames(ax, spectrogram_db, bin_khz, hop_length, sample_rate, cmap="magma")
    if colour_bar:
        ax.figure.colorbar(image, ax=ax, label="level (dB)", pad=0.02)
    return ax


def plot_mfcc_panels(panels, ax: Axes, *, hop_length: int, sample_rate: int, valid_frames=None) -> Axes:
    """MFCC side by side on one time axis: coefficient 0 as a line, below it all others in one scale of colours.

    Parameters
    ----------
    panels : mapping of str to np.ndarray, shape (n_frames, n_mfcc)
        By their titles; the lengths may differ.
    ax : Axes
        Gives its place to the panels.
    hop_length, sample_rate
        As in :func:`plot_spectrogram`.
    valid_frames : sequence of int, optional
        How many first frames of each are not padding; the padding is hatched.
    """
    grid = ax.get_subplotspec().subgridspec(2, len(panels), height_ratios=(1, 2.2))
    lines, images = grid.subplots(sharex=True, sharey="row", squeeze=False)
    ax.set_axis_off()
    others = np.concatenate([mfcc[:, 1:].ravel() for mfcc in panels.values()])
    limit = float(np.percentile(np.abs(others), PALEST)) or 1.0
    colours = {"cmap": "PuOr_r", "vmin": -limit, "vmax": limit}
    valid = [None] * len(panels) if valid_frames is None else valid_frames
    for (title, mfcc), line, below, real in zip(panels.items(), lines, images, valid, strict=True):
        image = _draw_frames(below, mfcc.T, 1, hop_length, sample_rate, real, **colours)
        below.set_ylim(0.5, mfcc.shape[1] - 0.5)
        seconds = np.arange(len(mfcc)) * hop_length / sample_rate
        line.plot(seconds, mfcc[:, 0], color=VIEW_COLOURS["mfcc"])
        _hatch_padding(line, real, (np.arange(len(mfcc) + 1) - 0.5) * hop_length / sample_rate)
        line.set_title(title)
    below.set_xlim(0, max(map(len, panels.values())) * hop_length / sample_rate)
    below.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    lines[0].set_ylabel("no. 0 (dB)")
    images[0].set_ylabel("coefficient")
    ax.figure.colorbar(image, ax=[*images], label="MFCC (dB)", pad=0.02, extend="both")
    return ax


def plot_coattention(
    weights, ax: Axes, *, sample_rate, spectrogram_db=None, waveform=None, frame_hop=WAV2VEC_HOP,
    frame_width=WAV2VEC_WIDTH, valid_s=None, top=None,
) -> Axes:  # fmt: skip
    """Weight of each speech encoder frame as a stem over time, in front of what was heard.

    Parameters
    ----------
    weights : np.ndarray, shape (n_frames,)
        One for each frame; frame ``t`` is drawn at the middle of what it looks at, sample
        ``t * frame_hop + frame_width / 2``.
    ax : Axes
        Shows the background; the weights are on a second y-axis at the right.
    sample_rate : int
        In Hz.
    spectrogram_db : np.ndarray, shape (n_bins, n_spectrogram_frames), optional
        Background in grey; with the hop and the FFT of the paper's.
    waveform : np.ndarray, shape (num_samples,), optional
        Background instead of the spectrogram.
    frame_hop, frame_width : int
        Of the speech encoder, in samples; those of wav2vec 2.0 unless given.
    valid_s : float, optional
        Where the speech of the background ends, in seconds; the padding after it is shaded.
    top : float, optional
        Largest weight on the y-axis: one for all panels that are compared. Default that of these weights.
    """
    if waveform is not None:
        plot_waveform(waveform, sample_rate, ax)
        end_s = len(waveform) / sample_rate
        for artist in (*ax.lines, *ax.collections):
            artist.set_color("0.7")
    else:
        size = {"hop_length": HOP_LENGTH, "sample_rate": sample_rate, "n_fft": N_FFT}
        image = plot_spectrogram(spectrogram_db, **size, ax=ax, colour_bar=False).images[0]
        low, high = image.get_clim()  # pale enough for the weights to stand out
        image.set(cmap="gray_r", clim=(low, high + 0.6 * (high - low)))
        n_rows, n_frames = image.get_array().shape
        end_s = n_frames * HOP_LENGTH / sample_rate
        ax.set(xlim=(0, end_s), ylim=(0, n_rows * sample_rate / N_FFT / 1000))  # to the last tick
    if valid_s is not None and valid_s < end_s:
        ax.axvspan(valid_s, end_s, color="0.88", linewidth=0)
        ax.annotate("padding", (valid_s, 1), (3, -3), ax.get_xaxis_transform(), "offset points", va="top", color="0.4",
                    fontsize=7)  # fmt: skip
    front = ax.twinx()
    seconds = (np.arange(len(weights)) * frame_hop + frame_width / 2) / sample_rate
    front.vlines(seconds, 0, weights, color=VERMILLION, linewidth=1.0)
    front.set_ylabel("co-attention weight", color=VERMILLION)
    front.tick_params(axis="y", colors=VERMILLION)
    front.spines["right"].set(visible=True, color=VERMILLION)
    front.set_ylim(min(0.0, 1.05 * weights.min()), 1.05 * (top or weights.max()) or 1.0)
    return ax


def panel_grid(n_segments):
    """Rows and columns of panels (each is one column of a page wide), and the height in inches.

    Examples
    --------
    >>> panel_grid(1), panel_grid(3), panel_grid(40)[:2]
    ((1, 1, 2.1), (2, 2, 3.95), (5, 2))
    """
    n_rows = -(-min(n_segments, MAX_PANELS) // 2)
    return n_rows, min(n_segments, 2), round(0.25 + PANEL_IN * n_rows, 2)


def plot_attention(attention, figure):
    """Co-attention weights over the spectrogram of each segment of an utterance, in one picture.

    All panels share one scale of weights, so that a segment that hardly counts looks like it.
    Times are those within the segment; the title says where it lies and how it was classified. Padding is shaded.

    Parameters
    ----------
    attention : serkit.predict.Attention
        At most the first 10 segments are drawn.
    figure : Figure
        Empty, made in :func:`serkit.figures.paper_style` with the size that :func:`panel_grid` says.

    Returns
    -------
    Figure
    """
    n_rows, n_columns, _ = panel_grid(len(attention.weights))
    panels = figure.subplots(n_rows, n_columns, squeeze=False)
    top = float(np.max(attention.weights, initial=0.0)) or 1.0
    rows = attention.segments.to_dict("records")[:MAX_PANELS]
    for number, (ax, row) in enumerate(zip(panels.flat, rows, strict=False)):
        about = {"spectrogram_db": attention.spectrogram[number], "valid_s": row["end_s"] - row["start_s"]}
        plot_coattention(attention.weights[number], ax, sample_rate=SAMPLE_RATE, top=top, **about)
        percent = 100 * max(value for name, value in row.items() if name.startswith(PROBABILITY))
        ax.set_title(f"{row['start_s']:.1f}–{row['end_s']:.1f} s: {row['emotion']} {percent:.0f} %")
        ax.set_xlabel("time in the segment (s)")
        if n_columns == 2:  # the y-axes are named at the edges of the picture only
            (ax if number % 2 else figure.axes[-1]).set_ylabel("")
    for ax in panels.flat[len(rows) :]:
        ax.set_axis_off()
    return figure


def stem_height(n_folds):
    """Height in inches of a figure, both columns wide, with a row of stems for each fold.

    Examples
    --------
    >>> stem_height(5), stem_height(24)
    (5.25, 9.75)
    """
    return round(0.75 + STEM_IN * min(n_folds, MAX_PANELS), 2)


def plot_stems(stems: pd.DataFrame, ax: Axes) -> Axes:
    """Co-attention weights of folds and of single segments as stems: a row for each fold, with one scale.

    Grey rises with the share of segments in which a frame is padding.

    Parameters
    ----------
    stems : pd.DataFrame
        From :func:`serkit.evaluation.attention.attention_stems`; the first 10 folds are drawn.
    ax : Axes
        Gives its place to the panels; of a figure as :func:`stem_height` says.
    """
    folds = list(stems.groupby("fold", sort=False))[:MAX_PANELS]
    grid = ax.get_subplotspec().subgridspec(len(folds), folds[0][1]["panel"].nunique())
    panels = grid.subplots(sharex=True, sharey="row", squeeze=False)
    ax.set_axis_off()
    for line, (_, rows) in zip(panels, folds, strict=True):
        for panel, (title, part) in zip(line, rows.groupby("panel", sort=False), strict=True):
            edges = np.linspace(0, SEGMENT_S, len(part) + 1)
            shade = {"fill": True, "color": "0.88", "transform": panel.get_xaxis_transform()}
            panel.stairs(part["padding"], edges, label="padding", **shade)
            spread = {"color": ORANGE, "linewidth": 0.9, "label": "10th to 90th percentile"}
            panel.vlines(part["time_s"], part["low"], part["high"], **spread)
            panel.vlines(part["time_s"], 0, part["weight"], color=BLUE, linewidth=0.6, label="weight")
            panel.set_title(title, fontsize=7, pad=2)
        panel.set(xlim=(0, SEGMENT_S), ylim=(0, 1.05 * rows[["weight", "high"]].max().max() or 1.0))
    ax.figure.legend(*panel.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    ax.figure.supxlabel("time in the segment (s)", fontsize=8)
    ax.figure.supylabel("co-attention weight", fontsize=8)
    return ax


def plot_timeline(segments: pd.DataFrame, *, ax: Axes) -> Axes:
    """Probabilities over time as stacked areas in percent, the most probable emotion as a strip above.

    Parameters
    ----------
    segments : pd.DataFrame
        ``Prediction.segments`` of `serkit.predict`. Where segments overlap, the earlier one is
        shown to its end. More than 400 are shown as means over neighbours; the axis says of how many.
    ax : Axes

    Returns
    -------
    Axes
        What lies below -60 dBFS is hatched: there is an answer, but nothing was heard.
    """
    steps, together = _steps(segments)
    edges = np.append(steps["start_s"], steps["end_s"].iloc[-1])
    percent = 100 * steps.filter(regex=f"^{PROBABILITY}").to_numpy()
    tops, decided = np.cumsum(percent, axis=1), percent.argmax(axis=1)
    labels = labels_of(segments)
    for number, (label, colour) in enumerate(zip(labels, colours_of(labels), strict=True)):
        style = {"fill": True, "color": colour, "linewidth": 0}
        ax.stairs(tops[:, number], edges, baseline=tops[:, number] - percent[:, number], label=label, **style)
        ax.stairs(np.where(decided == number, STRIP[1], STRIP[0]), edges, baseline=STRIP[0], **style)
    quiet = steps["peak_dbfs"].to_numpy() < SILENCE_DBFS
    if quiet.any():
        _cover(ax, quiet, edges, facecolor="white", alpha=0.75)
        _cover(ax, quiet, edges, facecolor="none", edgecolor="0.3", hatch="////", label="silence")
    legend_above(ax)
    ax.set(ylim=(0, STRIP[1]), xlim=(edges[0], edges[-1]), ylabel="probability (%)")
    ax.set_yticks([0, 25, 50, 75, 100, sum(STRIP) / 2], ["0", "25", "50", "75", "100", "most likely"])
    _label_time(ax, edges[-1], together)
    return ax


def _steps(segments):
    """Table of what is drawn, one row a step, without gaps and overlaps; and segments in each step."""
    needed = ["start_s", "end_s", "peak_dbfs", *(PROBABILITY + label for label in labels_of(segments))]
    table = segments[needed].sort_values("start_s", ignore_index=True)
    table["start_s"] = np.maximum(table["start_s"], table["end_s"].shift(fill_value=0.0).cummax())
    table = table[table["end_s"] > table["start_s"]].reset_index(drop=True)
    together = -(-len(table) // MAX_STEPS)
    how = dict.fromkeys(needed, "mean") | {"start_s": "first", "end_s": "last", "peak_dbfs": "max"}
    return table.groupby(table.index // together).agg(how), together


def _label_time(ax, end_s, together):
    """Seconds on the time axis, or of a long recording the time as on a clock."""
    ax.xaxis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 3, 5, 10]))
    note = f", each step the mean of {together} segments" if together > 1 else ""
    ax.set_xlabel(f"time ({'h:min:s' if end_s >= CLOCK_FROM_S else 's'}){note}")
    if end_s >= CLOCK_FROM_S:
        tick = next((step for step in (30, 60, 120, 300, 600, 1200, 1800, 3600) if end_s / step <= 10), 7200)
        ax.set_xticks(np.arange(0, end_s + 0.5, tick))
        ax.xaxis.set_major_formatter(lambda value, _: str(timedelta(seconds=round(value))))


def _draw_frames(ax, values, step, hop_length, sample_rate, valid=None, **style):
    """Image of frames centred on multiples of the hop, and of rows on multiples of ``step``."""
    n_rows, n_frames = values.shape
    edges = (np.arange(n_frames + 1) - 0.5) * hop_length / sample_rate
    extent = (edges[0], edges[-1], -0.5 * step, (n_rows - 0.5) * step)
    image = ax.imshow(values, origin="lower", aspect="auto", extent=extent, **style)
    _hatch_padding(ax, valid, edges)
    ax.set_xlabel("time (s)")
    return image


def _hatch_padding(ax, valid, edges):
    """Hatch what is not valid; ``valid`` is a number of first samples or frames, or one answer for each."""
    if valid is None:
        return
    mask = np.asarray(valid, bool) if np.ndim(valid) else np.arange(len(edges) - 1) < valid
    _cover(ax, ~mask, edges, facecolor="none", edgecolor="0.5", hatch="////")


def _cover(ax, chosen, edges, **style):
    """Patches over the whole height of the axes, between those edges that are chosen."""
    at = np.flatnonzero(np.diff(chosen, prepend=~chosen[0], append=~chosen[-1]))  # corners are slow
    ax.stairs(chosen[at[:-1]], edges[at], fill=True, linewidth=0, transform=ax.get_xaxis_transform(), **style)
