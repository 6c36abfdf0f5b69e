"""What a part is worth, drawn."""

import numpy as np
from matplotlib.axes import Axes

from serkit.constants import CHANCE_UA
from serkit.errors import SerkitError
from serkit.evaluation.ablations import AXES
from serkit.evaluation.epochs import choose_epochs, epoch_scores
from serkit.figures.plots import BLUE, GREY, legend_above
from serkit.folds import SELECTIONS
from serkit.metrics import UNIT


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

    The published rule lies above the curve: it takes the luckiest epoch of every fold.

    Parameters
    ----------
    epochs : pd.DataFrame
        Of one variant, as :func:`serkit.training.epochs.load_epochs` gives it.
    ax : Axes
    score : {"ua", "wa"}
    """
    scores = epoch_scores(epochs)
    tested = scores[scores["split"] == "test"].set_index([*UNIT, "epoch"])[score]
    course = 100 * tested.groupby("epoch").mean()
    ax.plot(course.index, course, marker=".", color=BLUE, label="test, mean over folds and seeds")
    for rule, style in zip(SELECTIONS, ("--", "-.", ":"), strict=True):
        try:
            chosen = choose_epochs(scores, rule)
        except SerkitError:  # no validation speakers were kept
            continue
        mean = 100 * tested.loc[chosen.to_frame("epoch").set_index("epoch", append=True).index].mean()
        ax.axhline(mean, color="black", linestyle=style, linewidth=0.8, label=f"rule {rule}: {mean:.1f}")
    ax.set(xlabel="epoch", ylabel=f"{score.upper()} (%)")
    ax.xaxis.get_major_locator().set_params(integer=True)
    return legend_above(ax, columns=2)
