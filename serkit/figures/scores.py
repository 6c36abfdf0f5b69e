"""What a corpus holds and how well it is recognised: counts, matrices, recalls, confidence, ablations."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from serkit import evaluation, metrics
from serkit.constants import CHANCE_UA, LABELS, SEGMENT_S
from serkit.figures import saving
from serkit.figures.saving import BLUE, ORANGE, SPLIT_COLOURS, VERMILLION, colours_of, legend_above
from serkit.folds import SPLITS, seconds_of

BIN_S = 0.5  # s, of the histogram of durations
DOT = {"mec": "black", "mew": 0.4}
DASHED = {"color": "black", "linestyle": "--", "linewidth": 0.8, "zorder": 0}
CHANCE = {"color": "0.5", "linestyle": ":", "linewidth": 0.8, "zorder": 0, "label": "chance UA"}
PERCENT = {"ylim": (0, 103), "yticks": range(0, 101, 20)}  # room for half a marker at 100 %
SMALLEST_LIMIT = 5.0  # points; on a narrower scale of colours noise would look like an effect


def plot_class_counts(manifest, ax: Axes, *, labels=LABELS) -> Axes:
    """Utterances of each class, stacked, for each speaker.

    Parameters
    ----------
    manifest : pd.DataFrame
        Columns ``label`` and ``speaker``; rows without a label, outside the task, are left out.
    ax : Axes
    labels : sequence of str
        Classes from bottom to top.
    """
    labelled = manifest[manifest["label"].isin(labels)]
    counts = pd.crosstab(labelled["speaker"], labelled["label"]).reindex(columns=list(labels), fill_value=0)
    crowded = len(counts) > 12
    style = {"stacked": True, "width": 0.8, "legend": False, "rot": 90 if crowded else 0}
    counts.plot.bar(ax=ax, color=colours_of(labels), **style)
    if not crowded:
        ax.bar_label(ax.containers[-1], counts.sum(axis=1), fontsize=6, padding=1)
    ax.set(xlabel="speaker", ylabel="utterances")
    return legend_above(ax)


def plot_folds(rows, ax: Axes) -> Axes:
    """Who has which role: a line for each fold, a square for each speaker with the number of its utterances.

    Parameters
    ----------
    rows : pd.DataFrame
        Of ``serkit.folds.fold_table``, with the column ``speaker``. An utterance that validates and is tested
        in the same fold, as published, is drawn as tested.
    ax : Axes
    """
    groups = rows.assign(role=rows["split"].map(SPLITS.index)).groupby(["fold", "speaker"])
    roles, counts = groups["role"].max().unstack(), groups["utterance_id"].nunique().unstack()
    colours = mpl.colors.ListedColormap(list(SPLIT_COLOURS.values()))
    draw_matrix(roles, counts.map("{:.0f}".format), ax, cmap=colours, limits=(0, 2), linewidths=1.5)
    both = rows.duplicated(["fold", "utterance_id"]).any()
    names = {"test": "test and validation" if both else "test"}
    shown = [split for number, split in enumerate(SPLITS) if (roles == number).any(axis=None)]
    handles = [Patch(color=SPLIT_COLOURS[split], label=names.get(split, split)) for split in shown]
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(handles))
    ax.set(xlabel="speaker", ylabel="fold")
    return ax


def plot_durations(manifest, ax: Axes, *, labels=LABELS) -> Axes:
    """Histogram of utterance durations in seconds, stacked by label; a line marks one segment, 3 s.

    Parameters
    ----------
    manifest : pd.DataFrame
        Columns ``label``, ``num_samples`` and ``sample_rate``; rows without a label are left out.
    ax : Axes
    labels : sequence of str
        Classes from bottom to top.
    """
    labelled = manifest[manifest["label"].isin(labels)]
    seconds = seconds_of(labelled)
    edges = np.arange(np.floor(seconds.max() / BIN_S) + 2) * BIN_S
    parts = [seconds[labelled["label"] == label] for label in labels]
    ax.hist(parts, bins=edges, stacked=True, color=colours_of(labels), label=list(labels))
    ax.axvline(SEGMENT_S, color="black", linestyle="--", linewidth=0.8, label=f"{SEGMENT_S:g} s segment")
    ax.set(xlabel="duration (s)", ylabel=f"utterances per {BIN_S:g} s", xlim=(0, None))
    return legend_above(ax, columns=3)


def draw_matrix(table, texts, ax: Axes, *, cmap="Blues", limits=(0, 100), **heatmap) -> Axes:
    """A matrix with numbers in its cells, black or white, whichever can be read.

    Parameters
    ----------
    table : pd.DataFrame, shape (n_rows, n_columns)
        What the colours show; cells that are NaN stay empty. Its names stand beside the rows and below the columns.
    texts : array or pd.DataFrame, shape (n_rows, n_columns)
        What stands in the cells.
    ax : Axes
    cmap, limits
        Colours, and the values of the first and the last of them.
    **heatmap
        Further arguments of ``seaborn.heatmap``.
    """
    heatmap = {"cbar": False, "annot_kws": {"fontsize": 7}, **heatmap}
    seaborn.heatmap(
        table, annot=texts, fmt="", cmap=cmap, vmin=limits[0], vmax=limits[1], ax=ax,
        xticklabels=False, yticklabels=False, **heatmap,
    )  # fmt: skip
    filled = ax.collections[0].get_facecolors()[np.isfinite(np.ravel(table))]
    for text, colour in zip(ax.texts, filled, strict=True):
        text.set_color(saving.readable_on(colour))
    ax.set_xticks(np.arange(table.shape[1]) + 0.5, table.columns)
    ax.set_yticks(np.arange(table.shape[0]) + 0.5, table.index)
    ax.tick_params(length=0)
    ax.set(xlabel="predicted", ylabel="true")
    return ax


def plot_confusion_matrix(truth, prediction, *, labels=LABELS, ax: Axes) -> Axes:
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
    counts = metrics.confusion_matrix(truth, prediction, labels)
    shares, totals = _shares(counts), counts.sum(axis=1)
    brackets = np.where(totals > 0, counts.map("\n({})".format).T, "").T
    rows = [f"{label}\nn = {n}" for label, n in totals.items()]
    crowded = len(counts) > 5
    texts = _texts(shares, "{:.0f} %" if crowded else "{:.1f} %") + brackets
    draw_matrix(shares.fillna(0).set_axis(rows), texts, ax)
    ax.tick_params(axis="x", rotation=90 if crowded else 0)
    return ax


def speaker_confusions(predictions, folds=None):
    """Numbers behind :func:`plot_speaker_confusions`.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of one variant; test rows of all seeds count.
    folds : sequence of str or of Fold, optional
        See :func:`serkit.evaluation.check_predictions`, whose errors are raised.

    Returns
    -------
    pd.DataFrame
        Columns ``speaker, truth`` and one for each predicted label, in utterances.
    """
    labels = metrics.labels_of(predictions)
    pairs = evaluation.scored_rows(predictions, folds).groupby("speaker")[["truth", "prediction"]]
    counts = pairs.apply(lambda pair: metrics.confusion_matrix(pair["truth"], pair["prediction"], labels))
    return counts.reset_index()


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
    utterances can be compared.

    Parameters
    ----------
    predictions, folds
        As in :func:`speaker_confusions`.
    ax : Axes
        Holds all matrices; of a figure two columns wide and as high as :func:`speaker_grid` says.
    """
    table, labels = speaker_confusions(predictions, folds), list(metrics.labels_of(predictions))
    n_rows, n_columns, _ = speaker_grid(table["speaker"].nunique())
    pitch = len(labels) + 1  # an empty row and column between two matrices
    shares = np.full((n_rows * pitch - 1, n_columns * pitch - 1), np.nan)
    counts, titles = np.zeros(shares.shape, int), {}
    for number, (speaker, rows) in enumerate(table.groupby("speaker")):
        top, left = pitch * (number // n_columns), pitch * (number % n_columns)
        cells = slice(top, top + len(labels)), slice(left, left + len(labels))
        counts[cells] = rows[labels]
        recalls = _shares(rows[labels])
        shares[cells] = recalls.fillna(0)
        titles[left, top] = f"{speaker}  UA {np.nanmean(np.diag(recalls)):.0f} %"
    names = [*labels, ""]
    together = pd.DataFrame(shares, (names * n_rows)[:-1], (names * n_columns)[:-1])
    bar = {"label": "share of the row (%)", "pad": 0.01, "aspect": 40}
    draw_matrix(together, counts, ax, cbar=True, cbar_kws=bar)
    for corner, title in titles.items():
        ax.annotate(title, corner, (0, 1), textcoords="offset points", va="bottom", fontsize=7)
    ax.tick_params(axis="x", rotation=90)
    return ax


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
        As :func:`serkit.evaluation.check_predictions`.
    """
    pair = [evaluation.scored_rows(table, folds) for table in (predictions_a, predictions_b)]
    evaluation.check_same_utterances(*pair)
    labels = metrics.labels_of(predictions_a)
    a, b = (_shares(metrics.confusion_matrix(rows["truth"], rows["prediction"], labels)) for rows in pair)
    return a - b


def plot_confusion_difference(predictions_a, predictions_b, ax: Axes, *, folds=None) -> Axes:
    """Where variant A answers otherwise than variant B: difference of two confusion matrices.

    On the diagonal more is better for A, off it less is. Both variants' names belong in the caption.

    Parameters, errors: as :func:`confusion_difference`, and the ``ax``.
    """
    points = confusion_difference(predictions_a, predictions_b, folds)
    limit = max(SMALLEST_LIMIT, np.nanmax(points.abs()))
    texts = _texts(points, "{:+.1f}").replace("-", "−", regex=True)
    colours = {"cmap": "PuOr_r", "limits": (-limit, limit), "cbar": True}
    bar = {"label": "A − B (percentage points)", "pad": 0.02}
    return draw_matrix(points.fillna(0), texts, ax, **colours, cbar_kws=bar)


def plot_across(table, ax: Axes, score="ua") -> Axes:
    """A score in percent by the corpora that were trained on (rows) and the one that was tested, with its interval.

    Parameters
    ----------
    table : pd.DataFrame
        From :func:`serkit.evaluation.across_corpora`; of several rows for the same pair the last is shown.
    ax : Axes
    score : {"ua", "wa", "macro_f1"}
    """
    cells = table.drop_duplicates(["trained_on", "tested_on"], keep="last")
    cells = cells.pivot(index="trained_on", columns="tested_on", values=score)
    values = cells.map(lambda cell: getattr(cell, "value", np.nan))
    texts = cells.map(lambda cell: saving.cell_text(cell, 1).replace(" [", "\n["))
    draw_matrix(values, texts, ax)
    ax.set(xlabel="tested on", ylabel="trained on")
    return ax


def plot_recall_intervals(predictions, ax: Axes, *, folds=None) -> Axes:
    """Recall of each class in percent with its 95 % interval over speakers; UA, their mean, dashed.

    The intervals are those of :func:`serkit.evaluation.class_recall`, which work near 0 and 100 %.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of one variant; test rows of all seeds count.
    ax : Axes
    folds : sequence of str or of Fold, optional
        See :func:`serkit.evaluation.check_predictions`, whose errors are raised.

    Returns
    -------
    Axes
        A class of fewer than 5 speakers has no interval, one without utterances no bar.
    """
    table = evaluation.class_recall(predictions, folds=folds)
    ends = 100 * table[["recall", "low", "high"]]
    ax.bar(table.index, ends["recall"].fillna(0), width=0.7, color=colours_of(table["label"]))
    draw_whiskers(ax, ends)
    ua = ends["recall"].mean()
    ax.axhline(ua, label=f"UA {ua:.1f} %", **DASHED)
    counts = table["n_utterances"]
    texts = ends["recall"].map("{:.1f} %\nn = ".format) + counts.astype(str)
    # below the bars, where no whisker can cross them
    ax.set_xticks(table.index, table["label"] + "\n" + texts.where(counts > 0, "–"))
    ax.set(ylabel="recall (%)", **PERCENT)
    return legend_above(ax)


def plot_reliability(predictions, ax: Axes, *, folds=None) -> Axes:
    """How often predictions of a given probability are right, against how often they claim to be.

    Bars: accuracy in each bin, the paler the fewer answers it rests on; the row of numbers on top counts them. Dots:
    the same at the mean probability of the bin's predictions; below the dashed line they promise too much.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of one variant; test rows of all seeds count.
    ax : Axes
    folds : sequence of str or of Fold, optional
        As in :func:`serkit.evaluation.reliability_table`, whose errors are raised.
    """
    table = evaluation.reliability_table(predictions, folds=folds)
    error = 100 * evaluation.expected_calibration_error(predictions, folds=folds)
    filled = table[table["n"] > 0]
    middle = 50 * (filled["low"] + filled["high"])
    colours = [(BLUE, 0.12 + 0.48 * share) for share in filled["n"] / filled["n"].max()]
    ax.bar(middle, 100 * filled["accuracy"], width=92 / len(table), color=colours)
    ax.bar(0, 0, color=(BLUE, 0.6), label="accuracy")  # the legend's colour is that of the fullest bin
    label = "at the mean predicted probability"
    ax.plot(100 * filled["confidence"], 100 * filled["accuracy"], "o", color=VERMILLION, label=label, **DOT)
    ax.plot([0, 100], [0, 100], label="perfect calibration", **DASHED | {"zorder": 2})
    text = f"ECE {error:.1f} points\n({len(table)} bins)"
    ax.text(0.03, 0.8, text, transform=ax.transAxes, fontsize=7, va="top")
    left = 100 * min(0.2, filled["low"].min())
    ax.text(left - 0.5, 106, "n =", ha="right", va="bottom", fontsize=6)
    for x, n in zip(middle, filled["n"], strict=True):
        ax.text(x, 106, n, ha="center", va="bottom", fontsize=6)
    ax.set(xlabel="predicted probability (%)", ylabel="accuracy (%)", xlim=(left, 100), **PERCENT)
    ax.set_ylim(0, 114)
    return legend_above(ax, columns=1)


def plot_risk(predictions, ax: Axes, *, folds=None) -> Axes:
    """Accuracy if only the surest share of the answers is given, with its 95 % interval over speakers.

    Parameters
    ----------
    predictions, folds
        As in :func:`serkit.evaluation.risk_coverage`.
    ax : Axes
    """
    table = 100 * evaluation.risk_coverage(predictions, folds)
    band = {"color": BLUE, "alpha": 0.15, "linewidth": 0, "label": "95 % interval"}
    ax.fill_between(table["coverage"], table["low"], table["high"], **band)
    ax.plot(table["coverage"], table["accuracy"], "o-", color=BLUE, label="accuracy", **DOT)
    ax.set(xlabel="utterances answered, surest first (%)", ylabel="accuracy (%)", xlim=(0, 103), **PERCENT)
    return legend_above(ax)


def plot_slices(table, ax: Axes) -> Axes:
    """UA in parts of the test utterances with 95 % intervals over speakers; dashed: UA of all.

    Parameters
    ----------
    table : pd.DataFrame
        From :func:`serkit.evaluation.slice_table`.
    ax : Axes
    """
    value, low, high = np.array(table["UA"].tolist()).T
    reach = np.clip([value - low, high - value], 0, None)
    style = {"fmt": "o", "capsize": 2.5, "markersize": 4}
    for number, (_, parts) in enumerate(table.groupby("slice", sort=False)):
        line, colour = parts.index, (BLUE, VERMILLION)[number % 2]
        ax.errorbar(value[line], line, xerr=reach[:, line], color=colour, **style)
    names = [f"{row.slice}: {row.part} (n = {row.n_utterances})" for row in table.itertuples()]
    ax.axvline(value[0], label=f"UA {value[0]:.1f} %", **DASHED)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="UA (%)", xlim=(0, 103), ylim=(len(names) - 0.5, -0.5))
    return legend_above(ax)


def plot_speaker_scores(score_table, ax: Axes, *, chance=CHANCE_UA) -> Axes:
    """UA and WA of each speaker in percent, and their means; chance dotted.

    The band is the 95 % interval of the mean UA over speakers, by Student's t; with fewer than five there is none.

    Parameters
    ----------
    score_table : pd.DataFrame
        From :func:`serkit.metrics.score_table`: columns ``speaker``, ``wa`` and ``ua`` (fractions).
    ax : Axes
    chance : float, optional
        UA of guessing in percent.
    """
    position, means = np.arange(len(score_table)), 100 * score_table[["ua", "wa"]].mean()
    looks = (("ua", BLUE, "o", -0.12, "-"), ("wa", ORANGE, "D", 0.12, "--"))
    for score, colour, marker, shift, line in looks:
        label = f"{score.upper()}, mean {means[score]:.1f} %"
        ax.plot(position + shift, 100 * score_table[score], marker, color=colour, label=label, **DOT)
        ax.axhline(means[score], color=colour, linestyle=line, linewidth=0.8, zorder=0)
    _, low, high = evaluation.intervals.mean_over_speakers(100 * score_table["ua"])
    if low <= high:
        band = {"color": BLUE, "alpha": 0.15, "linewidth": 0, "zorder": 0}
        ax.axhspan(*np.clip([low, high], 0, 100), label="95 % interval of mean UA", **band)
    ax.axhline(chance, **CHANCE)
    ax.set_xticks(position, score_table["speaker"].astype(str), rotation=90 if len(position) > 12 else 0)
    ax.set(xlabel="speaker", ylabel="score (%)", xlim=(-0.6, len(position) - 0.4), **PERCENT)
    return legend_above(ax)


def plot_class_probabilities(probabilities, ax: Axes) -> Axes:
    """Probability of each class for one utterance, in percent.

    Parameters
    ----------
    probabilities : mapping of label to float
        In [0, 1], summing to 1; from top to bottom.
    ax : Axes
    """
    shares = 100 * pd.Series(probabilities, dtype=float)
    bars = ax.barh(shares.index, shares, height=0.7, color=colours_of(shares.index))
    ax.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    ax.invert_yaxis()
    ax.set(xlabel="probability (%)", xlim=(0, 112), xticks=range(0, 101, 20))
    return ax


def plot_ablation(table, setting, ax: Axes, score="ua", chance=CHANCE_UA) -> Axes:
    """Score of every variant with its interval, one below the other; chance dotted.

    Parameters
    ----------
    table : pd.DataFrame
        From :func:`serkit.evaluation.ablation_table`.
    setting : str
        A key of ``serkit.evaluation.comparison.AXES``.
    ax : Axes
    score : {"ua", "wa"}
    chance : float, optional
        UA of guessing in percent.
    """
    position = np.arange(len(table))[::-1]
    colours = [BLUE if value == evaluation.comparison.AXES[setting][1] else "0.6" for value in table[setting]]
    ax.scatter(table[score], position, c=colours, s=22, edgecolors="black", linewidths=0.4, zorder=3)
    ax.hlines(position, table["low"], table["high"], color="black", linewidth=0.8)
    ax.axvline(chance, **CHANCE)
    ax.set_yticks(position, table[setting])
    ax.set(xlabel=f"{score.upper()} (%), mean over folds, 95 % interval", ylim=(-0.6, len(table) - 0.4))
    return legend_above(ax)


def draw_whiskers(ax, ends):
    """Intervals of the rows of value, low and high that have one, at the places that the index says."""
    value, low, high = ends.to_numpy(float).T
    if np.isfinite(low).any():
        reach = np.clip([value - low, high - value], 0, None)  # by rounding a point may lie outside
        style = {"fmt": "none", "ecolor": "black", "elinewidth": 0.8, "capsize": 2.5}
        bars = ax.errorbar(ends.index, value, reach, label="95 % interval", **style)
        halo = [withStroke(linewidth=2.0, foreground="white")]  # or they would be lost on a dark bar
        plt.setp(bars.get_children(), path_effects=halo)


def _shares(counts):
    """Each row in percent of its sum; NaN in a row without anything."""
    return (100.0 * counts).div(counts.sum(axis=1), axis=0)


def _texts(values, form):
    """Numbers as text, a dash for NaN."""
    return values.map(form.format, na_action="ignore").fillna("–")
