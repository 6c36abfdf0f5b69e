"""Training curves of many folds in one plot."""

import json

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from serkit import runs
from serkit.constants import CHANCE_UA
from serkit.errors import ParameterError, RunError
from serkit.figures.plots import BLUE, VERMILLION, legend_above

COLOURS = {"train": BLUE, "validation": VERMILLION}


def read_histories(run, variant):
    """Histories of all finished folds and seeds of a variant in one table.

    Returns
    -------
    pd.DataFrame
        ``fold, seed, kept`` (whether this epoch's checkpoint was kept), then the columns of
        ``history.csv``.

    Raises
    ------
    RunError
        If there is no finished fold, or one of them has no readable history.
    """
    parts = []
    for folder in runs.finished_folders(run):
        if folder.parts[-3] != variant:
            continue
        try:
            history = pd.read_csv(folder / "history.csv")
            best = json.loads((folder / "metrics.json").read_text()).get("best_epoch")
        except (OSError, ValueError) as error:  # pandas' errors are of the second kind
            raise RunError(
                f"{runs.show_path(folder)}: history.csv or metrics.json is missing or can't be read "
                f"({str(error).splitlines()[0]}), {runs.FOLD_CURE}"
            ) from error
        fold, seed = (folder.parts[-2].partition("=")[2], int(folder.parts[-1].partition("=")[2]))
        about = {"fold": fold, "seed": seed, "kept": history["epoch"] == best}
        parts.append(history.drop(columns=list(about), errors="ignore").assign(**about))
    if not parts:
        raise RunError(f"run {run!r}: no finished fold of variant {variant!r}; see runs/{run}")
    table = pd.concat(parts, ignore_index=True)
    first = ["fold", "seed", "kept"]
    return table[first + [name for name in table.columns if name not in first]]


def plot_fold_curves(histories: pd.DataFrame, ax: Axes, *, what: str = "ua") -> Axes:
    """Loss, WA or UA by epoch: a thin line for each fold and seed, the mean of all as a thick one.

    The mean ends where the first fold stopped: after it, it would be of the slow folds only. A dot
    marks the epoch that was kept.

    Parameters
    ----------
    histories : pd.DataFrame
        From :func:`read_histories`: ``fold, seed, epoch``, and ``train_<what>`` and
        ``validation_<what>`` (loss in nats, WA and UA as fractions), of which one may be absent or
        NaN; ``kept`` is optional.
    ax : Axes
    what : {"loss", "wa", "ua"}

    Raises
    ------
    ParameterError
        If a column is missing, an epoch stands there twice, or ``what`` is none of the three.
    """
    if what not in ("loss", "wa", "ua"):
        raise ParameterError(f"what={what!r}: expected 'loss', 'wa' or 'ua'")
    missing = [name for name in ("fold", "seed", "epoch") if name not in histories]
    splits = [split for split in COLOURS if f"{split}_{what}" in histories]
    splits = [split for split in splits if histories[f"{split}_{what}"].notna().any()]
    if missing or not splits:
        lacks = ", ".join(missing) or f"values of train_{what} and validation_{what}"
        raise ParameterError(f"histories lack {lacks}; use serkit.figures.foldcurves.read_histories")
    if histories.duplicated(["fold", "seed", "epoch"]).any():
        row = histories[histories.duplicated(["fold", "seed", "epoch"])].iloc[0]
        raise ParameterError(
            f"fold {row['fold']}, seed {row['seed']}: epoch {row['epoch']} stands in histories twice, expected "
            "once; give one variant at a time"
        )
    for split in splits:
        _draw_split(histories, f"{split}_{what}", split, 1 if what == "loss" else 100, ax)
    if what == "ua":
        ax.axhline(CHANCE_UA, color="0.5", linestyle=":", linewidth=0.8, label="chance")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel="cross-entropy (nats)" if what == "loss" else f"{what.upper()} (%)")
    return legend_above(ax, columns=2)


def _draw_split(histories, column, split, scale, ax):
    curves = histories.pivot(index="epoch", columns=["fold", "seed"], values=column).sort_index() * scale
    for name in curves:
        ax.plot(curves.index, curves[name], color=COLOURS[split], linewidth=0.6, alpha=0.5)
    whole = curves.dropna()
    label = f"{split}, mean of {curves.shape[1]}"
    ax.plot(whole.index, whole.mean(axis=1), color=COLOURS[split], linewidth=2.0, label=label)
    if split == "validation" and "kept" in histories and histories["kept"].any():
        kept = histories[histories["kept"]]
        ax.plot(
            kept["epoch"], scale * kept[column], "o", color=COLOURS[split], mec="black", mew=0.4, label="kept"
        )
