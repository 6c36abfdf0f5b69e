"""Plots for print: each takes ``ax`` and returns it; ``save_figure`` writes them.

Make figures inside ``with paper_style():``, which sets 8 pt text, the width of one or two columns
and a layout without cut labels. Each emotion keeps its colour in every plot.
"""

import itertools
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator

from serkit import metrics
from serkit.constants import CHANCE_UA, LABELS, SEGMENT_S
from serkit.errors import ParameterError
from serkit.figures.saving import SAVING_RC
from serkit.figures.saving import save_figure as save_figure

COLUMN_IN = 3.4  # inch, one column
TEXT_IN = 7.0  # inch, both columns

# Okabe and Ito's palette, told apart with any of the common colour vision deficiencies
BLUE, ORANGE, GREEN, VERMILLION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999"
EMOTION_COLOURS = {"angry": VERMILLION, "sad": BLUE, "happy": ORANGE, "neutral": GREY}
OTHER_COLOURS = (GREEN, "#CC79A7", "#56B4E9", "#F0E442", "#000000")  # labels of other tasks

MAX_LINE_POINTS = 4000  # longer waveforms are drawn as an envelope: the page shows no more
WAV2VEC_HOP = 320  # samples = 20 ms between speech encoder frames
WAV2VEC_WIDTH = 400  # samples = 25 ms that one frame looks at

PAPER_RC = {
    **SAVING_RC,
    "font.family": "DejaVu Sans", "font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7, "legend.frameon": False,
    "legend.handlelength": 1.4, "legend.columnspacing": 1.0, "axes.linewidth": 0.6,
    "axes.spines.top": False, "axes.spines.right": False, "xtick.major.width": 0.6,
    "ytick.major.width": 0.6, "lines.linewidth": 1.2, "lines.markersize": 4, "patch.linewidth": 0.6,
    "hatch.linewidth": 0.5, "image.interpolation": "nearest", "figure.constrained_layout.use": True,
    "figure.dpi": 150, "savefig.dpi": 300,
    "axes.prop_cycle": mpl.cycler(color=[BLUE, VERMILLION, GREEN, ORANGE, GREY]),
}  # fmt: skip


def paper_style(columns: int = 1, height: float = 2.4):
    """Context manager: figures made inside are ready for print.

    Parameters
    ----------
    columns : {1, 2}
        Width of a new figure: 3.4 in (one column) or 7.0 in (both).
    height : float
        Height of a new figure in inches.

    Raises
    ------
    ParameterError
        If ``columns`` or ``height`` can't be used.
    """
    if columns not in (1, 2):
        raise ParameterError(f"columns={columns!r}: expected 1 ({COLUMN_IN} in) or 2 ({TEXT_IN} in)")
    if not 0.5 <= height <= 10:
        raise ParameterError(f"height={height!r} in, expected 0.5 to 10 in; did you give millimetres?")
    width = COLUMN_IN if columns == 1 else TEXT_IN
    # Loads the backend now. Loaded inside the context, Jupyter's switch to showing figures by itself
    # would be undone on leaving it, and every figure but the first would stay invisible.
    plt.draw_if_interactive()
    return mpl.rc_context({**PAPER_RC, "figure.figsize": (width, height)})


def plot_confusion_matrix(truth, prediction, *, labels: Sequence[str] = LABELS, ax: Axes) -> Axes:
    """Confusion matrix: truth in rows, each row's shares in percent, counts in brackets.

    Parameters
    ----------
    truth, prediction : sequence of str or of int, length n
        As in :func:`serkit.metrics.confusion_matrix`.
    labels : sequence of str
        Class names in class order.
    ax : Axes

    Returns
    -------
    Axes
        A class that does not occur in ``truth`` has a row without shares.
    """
    counts = metrics.confusion_matrix(truth, prediction, labels).to_numpy()
    totals = counts.sum(axis=1)
    shares = np.divide(100 * counts, totals[:, None], out=np.zeros(counts.shape), where=totals[:, None] > 0)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        text = f"{share:.1f}%\n({counts[row, column]})" if totals[row] else "–"
        colour = readable_on(image.cmap(image.norm(share)))
        ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    ax.set_xticks(range(len(labels)), labels)
    ax.set_yticks(range(len(labels)), [f"{label}\nn = {n}" for label, n in zip(labels, totals, strict=True)])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(xlabel="predicted", ylabel="true")
    return ax


def plot_recall(truth, prediction, *, labels: Sequence[str] = LABELS, ax: Axes) -> Axes:
    """Recall of each class in percent, with UA, their mean, as a dashed line.

    Parameters as in :func:`plot_confusion_matrix`. A class without utterances has no bar.
    """
    recall = 100 * metrics.recall_per_class(truth, prediction, labels)
    totals = metrics.confusion_matrix(truth, prediction, labels).sum(axis=1)
    bars = ax.bar(range(len(labels)), recall.fillna(0), width=0.7, color=_colours(labels))
    texts = [f"{value:.1f}" if np.isfinite(value) else "–" for value in recall]
    plate = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # keeps the UA line out of the numbers
    ax.bar_label(bars, texts, fontsize=7, padding=2, bbox=plate)
    ua = 100 * metrics.unweighted_accuracy(truth, prediction, labels)
    ax.axhline(ua, color="black", linestyle="--", linewidth=0.8, label=f"UA {ua:.1f} %", zorder=0)
    ax.set_xticks(range(len(labels)), [f"{label}\nn = {totals[label]}" for label in labels])
    ax.set(ylabel="recall (%)", ylim=(0, 109), yticks=range(0, 101, 20))
    return legend_above(ax)


def plot_class_counts(
    manifest: pd.DataFrame, ax: Axes, *, by: str = "speaker", labels: Sequence[str] = LABELS
) -> Axes:
    """Utterances of each class, stacked, for each speaker or session.

    Parameters
    ----------
    manifest : pd.DataFrame
        Columns ``label`` and ``by``; rows without a label, outside the task, are left out.
    ax : Axes
    by : str
        Column whose values are the bars, such as ``"speaker"`` or ``"session"``.
    labels : sequence of str
        Classes from bottom to top.
    """
    labelled = _labelled(manifest, [by], labels)
    counts = pd.crosstab(labelled[by], labelled["label"]).reindex(columns=list(labels), fill_value=0)
    position, bottom = np.arange(len(counts)), np.zeros(len(counts))
    for label, colour in zip(labels, _colours(labels), strict=True):
        ax.bar(position, counts[label], bottom=bottom, width=0.8, color=colour, label=label)
        bottom += counts[label].to_numpy()
    crowded = len(counts) > 12
    ax.set_xticks(position, counts.index.astype(str), rotation=90 if crowded else 0)
    if not crowded:
        for x, total in zip(position, bottom, strict=True):
            ax.annotate(
                f"{total:.0f}", (x, total), (0, 1), textcoords="offset points", ha="center", fontsize=6
            )
    ax.set(xlabel=by, ylabel="utterances", xlim=(-0.6, len(counts) - 0.4))
    return legend_above(ax)


def plot_durations(
    manifest: pd.DataFrame, ax: Axes, *, bin_s: float = 0.5, labels: Sequence[str] = LABELS
) -> Axes:
    """Histogram of utterance durations in seconds, stacked by label; a line marks one segment, 3 s.

    Parameters
    ----------
    manifest : pd.DataFrame
        Columns ``label``, ``num_samples`` and ``sample_rate``; rows without a label are left out.
    ax : Axes
    bin_s : float
        Width of a bin in seconds; the first bin starts at 0.
    labels : sequence of str
        Classes from bottom to top.
    """
    if not 0 < bin_s <= 60:
        raise ParameterError(f"bin_s={bin_s!r} s, expected more than 0 and at most 60 s; use 0.5")
    labelled = _labelled(manifest, ["num_samples", "sample_rate"], labels)
    seconds = labelled["num_samples"].astype(float) / labelled["sample_rate"].astype(float)
    edges = np.arange(np.floor(seconds.max() / bin_s) + 2) * bin_s
    parts = [seconds[labelled["label"] == label] for label in labels]
    ax.hist(parts, bins=edges, stacked=True, color=_colours(labels), label=list(labels))
    ax.axvline(SEGMENT_S, color="black", linestyle="--", linewidth=0.8, label=f"{SEGMENT_S:g} s segment")
    ax.set(xlabel="duration (s)", ylabel=f"utterances per {bin_s:g} s", xlim=(0, None))
    return legend_above(ax, columns=3)


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
    waveform = _finite(waveform, "waveform", 1)
    _check_positive(sample_rate=sample_rate)
    n = len(waveform)
    if n <= MAX_LINE_POINTS:
        ax.plot(np.arange(n) / sample_rate, waveform, color=BLUE, linewidth=0.5)
    else:
        starts = np.linspace(0, n, MAX_LINE_POINTS // 4, endpoint=False).astype(int)
        low, high = np.minimum.reduceat(waveform, starts), np.maximum.reduceat(waveform, starts)
        ax.fill_between(starts / sample_rate, low, high, step="post", color=BLUE, linewidth=0.3)
    _hatch_padding(ax, valid_samples, n, np.arange(n + 1) / sample_rate)
    ax.set(xlabel="time (s)", ylabel="amplitude", xlim=(0, n / sample_rate))
    return ax


def plot_spectrogram(
    spectrogram_db: np.ndarray, *, hop_length: int, sample_rate: int, n_fft: int, ax: Axes, valid_frames=None
) -> Axes:
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
    valid_frames : int or np.ndarray of bool, shape (n_frames,), optional
        How many first frames, or which, are not padding; the padding is hatched.
    """
    image = _draw_spectrogram(ax, spectrogram_db, hop_length, sample_rate, n_fft, cmap="magma")
    n_frames = image.get_array().shape[1]
    _hatch_padding(ax, valid_frames, n_frames, _frame_edges(n_frames, hop_length, sample_rate))
    ax.figure.colorbar(image, ax=ax, label="level (dB)", pad=0.02)
    return ax


def plot_mfcc(mfcc: np.ndarray, *, hop_length: int, sample_rate: int, ax: Axes, valid_frames=None) -> Axes:
    """Mel-frequency cepstral coefficients over time in seconds, with a colour bar.

    Colours span the range of coefficients 1 and up, symmetrically about 0: coefficient 0, the
    level, is an order of magnitude larger and would leave the others white.

    Parameters
    ----------
    mfcc : np.ndarray, shape (n_frames, n_mfcc)
    hop_length, sample_rate, ax, valid_frames
        As in :func:`plot_spectrogram`.
    """
    mfcc = _finite(mfcc, "mfcc", 2)
    edges = _frame_edges(len(mfcc), hop_length, sample_rate)
    rest = mfcc[:, 1:] if mfcc.shape[1] > 1 else mfcc
    limit = float(np.abs(rest).max()) or 1.0
    extent = (edges[0], edges[-1], -0.5, mfcc.shape[1] - 0.5)
    image = ax.imshow(mfcc.T, origin="lower", aspect="auto", extent=extent, cmap="PuOr_r")
    image.set_clim(-limit, limit)
    _hatch_padding(ax, valid_frames, len(mfcc), edges)
    extend = "both" if np.abs(mfcc).max() > limit else "neither"
    ax.figure.colorbar(image, ax=ax, label="MFCC (dB)", pad=0.02, extend=extend)
    ax.set(xlabel="time (s)", ylabel="coefficient")
    return ax


def plot_coattention(
    weights: np.ndarray,
    ax: Axes,
    *,
    sample_rate: int,
    spectrogram_db: np.ndarray | None = None,
    hop_length: int | None = None,
    n_fft: int | None = None,
    waveform: np.ndarray | None = None,
    frame_hop: int = WAV2VEC_HOP,
    frame_width: int = WAV2VEC_WIDTH,
) -> Axes:
    """Weight of each speech encoder frame over time, in front of what was heard.

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
        Background in grey, with its ``hop_length`` and ``n_fft`` in samples.
    waveform : np.ndarray, shape (num_samples,), optional
        Background instead of the spectrogram.
    frame_hop, frame_width : int
        Of the speech encoder, in samples; those of wav2vec 2.0 unless given.

    Raises
    ------
    ParameterError
        Unless exactly one background is given, the spectrogram with its hop and FFT length.
    """
    weights = _finite(weights, "weights", 1)
    if (spectrogram_db is None) == (waveform is None):
        raise ParameterError("background: expected spectrogram_db=... or waveform=...; give exactly one")
    if waveform is not None:
        plot_waveform(waveform, sample_rate, ax)
        for artist in (*ax.lines, *ax.collections):
            artist.set_color("0.7")
    elif hop_length is None or n_fft is None:
        raise ParameterError(
            f"hop_length={hop_length}, n_fft={n_fft}: expected both in samples; give the spectrogram's"
        )
    else:
        image = _draw_spectrogram(ax, spectrogram_db, hop_length, sample_rate, n_fft, cmap="gray_r")
        low, high = image.get_clim()
        image.set_clim(low, high + 0.6 * (high - low))  # pale enough for the weights to stand out
    front = ax.twinx()
    seconds = (np.arange(len(weights)) * frame_hop + frame_width / 2) / sample_rate
    front.plot(seconds, weights, color=VERMILLION, linewidth=1.0)
    front.set_ylabel("co-attention weight", color=VERMILLION)
    front.tick_params(axis="y", colors=VERMILLION)
    front.spines["right"].set(visible=True, color=VERMILLION)
    front.set_ylim(min(0.0, 1.05 * weights.min()), 1.05 * weights.max() or 1.0)
    return ax


def plot_history(
    history: pd.DataFrame, ax: Axes, *, what: str = "loss", best_epoch: int | None = None
) -> Axes:
    """Loss, WA or UA of each epoch on train and validation data.

    Parameters
    ----------
    history : pd.DataFrame
        One row per epoch: ``epoch``, and ``train_<what>`` and ``validation_<what>`` (loss in nats,
        WA and UA as fractions). Either may be absent or hold NaN, when there was nothing to measure.
    ax : Axes
    what : {"loss", "wa", "ua"}
    best_epoch : int, optional
        Epoch of the checkpoint that was kept; a dashed line marks it.
    """
    if what not in ("loss", "wa", "ua"):
        raise ParameterError(f"what={what!r}: expected 'loss', 'wa' or 'ua'")
    _check_columns(history, ["epoch"], "history", "read history.csv of a run")
    if best_epoch is not None and best_epoch not in history["epoch"].tolist():
        raise ParameterError(
            f"best_epoch={best_epoch!r}: expected one of the {len(history)} epochs of history"
        )
    drawn = {"train": (BLUE, "o"), "validation": (VERMILLION, "s")}
    values = {split: history[f"{split}_{what}"] for split in drawn if f"{split}_{what}" in history}
    values = {split: column.astype(float) for split, column in values.items() if column.notna().any()}
    if not values:
        raise ParameterError(f"history has no train_{what} or validation_{what}; read history.csv of a run")
    scale = 1 if what == "loss" else 100
    for split, column in values.items():
        colour, marker = drawn[split]
        ax.plot(history["epoch"], scale * column, color=colour, marker=marker, markersize=2.5, label=split)
    if what == "ua":
        ax.axhline(CHANCE_UA, color="0.5", linestyle=":", linewidth=0.8, label="chance")
    if best_epoch is not None:
        label = f"kept: epoch {best_epoch}"
        ax.axvline(best_epoch, color="black", linestyle="--", linewidth=0.8, label=label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel="cross-entropy (nats)" if what == "loss" else f"{what.upper()} (%)")
    return legend_above(ax)


def plot_speaker_scores(score_table: pd.DataFrame, ax: Axes, *, by: str = "speaker") -> Axes:
    """UA and WA of each speaker in percent, their means as lines, chance as a dotted line.

    Parameters
    ----------
    score_table : pd.DataFrame
        From :func:`serkit.metrics.score_table`: columns ``by``, ``wa`` and ``ua`` (fractions).
    ax : Axes
    by : str
        Column that names the scored group; one row for each.
    """
    cure = f"use serkit.metrics.score_table(predictions, {by!r})"
    _check_columns(score_table, [by, "wa", "ua"], "score_table", cure)
    if score_table[by].duplicated().any():
        raise ParameterError(f"score_table has several rows for one {by}, expected one; filter it or {cure}")
    position = np.arange(len(score_table))
    for score, colour, marker, shift in (("ua", BLUE, "o", -0.12), ("wa", ORANGE, "D", 0.12)):
        percent = 100 * score_table[score].to_numpy(float)
        label = f"{score.upper()}, mean {percent.mean():.1f}"
        ax.plot(position + shift, percent, marker, color=colour, mec="black", mew=0.4, label=label)
        ax.axhline(percent.mean(), color=colour, linewidth=0.8, zorder=0)
    ax.axhline(CHANCE_UA, color="0.5", linestyle=":", linewidth=0.8, label="chance UA", zorder=0)
    ax.set_xticks(position, score_table[by].astype(str), rotation=90 if len(position) > 12 else 0)
    ax.set(xlabel=by, ylabel="score (%)", ylim=(0, 103), xlim=(-0.6, len(position) - 0.4))
    return legend_above(ax)


def plot_class_probabilities(
    probabilities, ax: Axes, *, labels: Sequence[str] = LABELS, truth: str | None = None
) -> Axes:
    """Probability of each class for one utterance, in percent.

    Parameters
    ----------
    probabilities : mapping of label to float, or sequence of float in class order
        In [0, 1], summing to 1.
    ax : Axes
    labels : sequence of str
        Class names in class order, from top to bottom.
    truth : str, optional
        The true label; its name gets the mark "(true)".

    Raises
    ------
    ParameterError
        If these are no probabilities of the ``labels``.
    """
    if isinstance(probabilities, Mapping | pd.Series):
        probabilities = [probabilities.get(label, np.nan) for label in labels]
    percent = 100 * np.asarray(probabilities, dtype=float)
    # 0.1 % leaves room for float16 and for values rounded to three digits
    if percent.shape != (len(labels),) or not (percent >= 0).all() or abs(percent.sum() - 100) > 0.1:
        raise ParameterError(
            f"probabilities={probabilities}: expected one in [0, 1] for each of {list(labels)}, "
            "summing to 1; were logits given? Apply a softmax first"
        )
    if truth is not None and truth not in labels:
        raise ParameterError(f"truth={truth!r}: expected one of {list(labels)}")
    bars = ax.barh(range(len(labels)), percent, height=0.7, color=_colours(labels))
    ax.bar_label(bars, [f"{value:.1f}" for value in percent], fontsize=7, padding=2)
    ax.set_yticks(range(len(labels)), [f"{label} (true)" if label == truth else label for label in labels])
    ax.invert_yaxis()
    ax.set(xlabel="probability (%)", xlim=(0, 112), xticks=range(0, 101, 20))
    return ax


def readable_on(background) -> str:
    """Black or white, whichever stands out more (WCAG 2 relative luminance)."""
    rgb = np.array(to_rgb(background))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def _colours(labels):
    """One colour for each label; emotions keep theirs, labels of other tasks take turns."""
    others = itertools.cycle(OTHER_COLOURS)
    return [EMOTION_COLOURS.get(label) or next(others) for label in labels]


def legend_above(ax, columns=None):
    names = ax.get_legend_handles_labels()[1]
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns or len(names), borderaxespad=0.2)
    return ax


def _draw_spectrogram(ax, spectrogram_db, hop_length, sample_rate, n_fft, cmap):
    spectrogram_db = _finite(spectrogram_db, "spectrogram_db", 2)
    _check_positive(n_fft=n_fft)
    n_bins, n_frames = spectrogram_db.shape
    edges = _frame_edges(n_frames, hop_length, sample_rate)
    bin_khz = sample_rate / n_fft / 1000
    extent = (edges[0], edges[-1], -0.5 * bin_khz, (n_bins - 0.5) * bin_khz)
    image = ax.imshow(spectrogram_db, origin="lower", aspect="auto", extent=extent, cmap=cmap)
    ax.set(xlabel="time (s)", ylabel="frequency (kHz)")
    return image


def _frame_edges(n_frames, hop_length, sample_rate):
    """Borders in seconds between frames that are centred on multiples of the hop."""
    _check_positive(hop_length=hop_length, sample_rate=sample_rate)
    return (np.arange(n_frames + 1) - 0.5) * hop_length / sample_rate


def _check_positive(**values):
    for name, value in values.items():
        if not value > 0:
            raise ParameterError(f"{name}={value!r}: expected more than 0 (samples, or Hz for sample_rate)")


def _hatch_padding(ax, valid, n, edges):
    if valid is None:
        return
    valid = np.asarray(valid)
    mask = np.arange(n) < valid if valid.ndim == 0 else valid.astype(bool)
    if mask.shape != (n,) or (valid.ndim == 0 and not 0 <= valid <= n):
        given = valid.item() if valid.ndim == 0 else f"array of shape {valid.shape}"
        raise ParameterError(f"valid={given}: expected a number from 0 to {n}, or {n} true-or-false values")
    changes = np.flatnonzero(np.diff(np.concatenate([[0], ~mask, [0]]).astype(int)))
    for start, stop in changes.reshape(-1, 2):
        ax.axvspan(edges[start], edges[stop], facecolor="none", edgecolor="0.5", hatch="////", linewidth=0)


def _labelled(manifest, columns, labels):
    _check_columns(manifest, ["label", *columns], "manifest", "load it with serkit.corpora.load")
    labelled = manifest[manifest["label"].isin(list(labels))]
    if labelled.empty:
        raise ParameterError(
            f"manifest has no utterance labelled {list(labels)}; give labels=... of this corpus"
        )
    for column, missing in labelled[columns].isna().sum().items():
        if missing:
            raise ParameterError(
                f"manifest column {column!r} is missing for {missing} of {len(labelled)} labelled rows, "
                "expected a value for each; choose another column or drop those rows"
            )
    return labelled


def _check_columns(table, columns, name, cure):
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ParameterError(f"{name} lacks {missing}, has {list(table.columns)}; {cure}")


def _finite(array, name, ndim):
    array = np.asarray(array, dtype=float)
    if array.ndim != ndim or array.size == 0 or not np.isfinite(array).all():
        raise ParameterError(
            f"{name} has shape {array.shape}, expected {ndim} filled dimension{'s' * (ndim > 1)} of finite "
            "numbers; give one segment, without NaN"
        )
    return array
