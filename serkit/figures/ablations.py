"""What a part is worth, drawn."""

import numpy as np
from matplotlib.axes import Axes

from serkit.constants import CHANCE_UA
from serkit.evaluation.ablations import AXES, epoch_scores, rule_scores
from serkit.figures.plots import BLUE, GREY, legend_above
from serkit.folds import SELECTIONS


def plot_ablation(table, setting, ax: Axes, score="ua") -> Axes:
    """Score of every variant with its interval, one below the other; chance dotted.

    Parameters
    ----------
    table : pd.DataFrame
        From ``ablation_table``.
    setting : str
        A key of ``AXES``.
    ax : Axes
    score : str
    """
    position = np.arange(len(table))[::-1]
    colours = [BLUE if value == AXES[setting][1] else GREY for value in table[setting]]
    ax.scatter(table[score], position, c=colours, s=22, edgecolors="black", linewidths=0.4, zorder=3)
    for place, low, high in zip(position, table["low"], table["high"], strict=True):
        ax.plot([low, high], [place, place], color="black", linewidth=0.8, zorder=2)
    ax.axvline(CHANCE_UA, color="0.5", linestyle=":", linewidth=0.8, label="chance UA")
    ax.set_yticks(position, table[setting])
    ax.set(xlabel=f"{score.upper()} (%), mean over folds, 95 % interval", ylim=(-0.6, len(table) - 0.4))
    return legend_above(ax)


def plot_rules(epochs, ax: Axes, score="ua") -> Axes:
    """Mean test score after every epoch, and what each rule would have reported.

    The published rule takes, in every fold, the epoch of highest WA + UA on the test speakers: with several
    folds it usually lies above the curve of WA or UA, and never below that of their sum.

    Parameters
    ----------
    epochs : pd.DataFrame
        Of one variant, as :func:`serkit.evaluation.ablations.load_epochs` gives it.
    ax : Axes
    score : {"ua", "wa"}
    """
    scores = epoch_scores(epochs)
    course = 100 * scores[scores["split"] == "test"].groupby("epoch")[score].mean()
    ax.plot(course.index, course, marker=".", color=BLUE, label="test, mean over folds and seeds")
    chosen = rule_scores(epochs)
    for rule, style in zip(SELECTIONS, ("--", "-.", ":"), strict=True):
        rows = chosen[chosen["rule"] == rule]
        if len(rows):  # validation speakers need not have been kept
            mean = 100 * rows[score].mean()
            ax.axhline(mean, color="black", linestyle=style, linewidth=0.8, label=f"rule {rule}: {mean:.1f}")
    ax.set(xlabel="epoch", ylabel=f"{score.upper()} (%)")
    ax.xaxis.get_major_locator().set_params(integer=True)
    return legend_above(ax, columns=2)
