"""How a network learned, and what it makes of the utterances: training curves, its vectors on a plane."""

import json

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from sklearn.manifold import TSNE

from serkit import runs
from serkit.constants import CHANCE_UA, LABELS
from serkit.errors import ParameterError, RunError
from serkit.evaluation import scored_rows
from serkit.figures.saving import BLUE, EMOTION_COLOURS, GREEN, GREY, ORANGE, VERMILLION, legend_above

SPLIT_COLOURS = {"train": BLUE, "validation": VERMILLION}
SPEAKER_COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, "#CC79A7", GREY)
SEED = 20220522  # of the t-SNE; any number: with it the points are the same in each call
MAX_POINTS = 1500  # of all folds together; more would cover each other, and take minutes
PERPLEXITY = 30.0  # neighbours that count, about; a third of the utterances where there are fewer than 90
ABOUT = ["fold", "seed", "utterance_id", "speaker", "truth"]
GAP = 0.2  # between two panels, in widths of a panel: room for the names under them
EDGE = 0.05  # between the outermost points and the frame of a panel


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
    for folder in runs.finished_folders(run, variant):
        try:
            history = pd.read_csv(folder / "history.csv")
            best = json.loads((folder / "metrics.json").read_text()).get("best_epoch")
        except (OSError, ValueError) as error:  # pandas' errors are of the second kind
            raise RunError(
                f"{runs.show_path(folder)}: history.csv or metrics.json is missing or can't be read "
                f"({str(error).splitlines()[0]}), {runs.FOLD_CURE}"
            ) from error
        fold, seed = (part.partition("=")[2] for part in folder.parts[-2:])
        about = pd.DataFrame({"fold": fold, "seed": int(seed), "kept": history["epoch"] == best})
        parts.append(about.join(history.drop(columns=about.columns, errors="ignore")))
    return pd.concat(parts, ignore_index=True)


def plot_history(
    history: pd.DataFrame, ax: Axes, *, what: str = "loss", best_epoch: int | None = None
) -> Axes:
    """Loss, WA or UA by epoch on train and validation data, of one training or of many.

    Of many, each fold and seed has a thin line and their mean a thick one, which ends where the first
    fold stopped: after it, it would be of the slow folds only.

    Parameters
    ----------
    history : pd.DataFrame
        One row per epoch: ``epoch``, and ``train_<what>`` and ``validation_<what>`` (loss in nats,
        WA and UA as fractions), of which one may be absent or NaN. With ``fold`` and ``seed`` it is of
        many trainings, as :func:`read_histories` gives it; ``kept`` marks the epochs that were kept.
    ax : Axes
    what : {"loss", "wa", "ua"}
    best_epoch : int, optional
        Epoch of the checkpoint that was kept; a dashed line marks it.

    Raises
    ------
    ParameterError
        If a column is missing, an epoch stands there twice, or an argument can't be used.
    """
    if what not in ("loss", "wa", "ua"):
        raise ParameterError(f"what={what!r}: expected 'loss', 'wa' or 'ua'")
    splits = [split for split in SPLIT_COLOURS if history.get(f"{split}_{what}", pd.Series()).notna().any()]
    if "epoch" not in history or not splits:
        raise ParameterError(
            f"history lacks epoch, or values of train_{what} and validation_{what}; read history.csv of a run"
        )
    if best_epoch is not None and best_epoch not in history["epoch"].tolist():
        raise ParameterError(
            f"best_epoch={best_epoch!r}: expected one of the {len(history)} epochs of history"
        )
    trainings = [name for name in ("fold", "seed") if name in history]
    if history.duplicated([*trainings, "epoch"]).any():
        row = history[history.duplicated([*trainings, "epoch"])].iloc[0]
        where = ", ".join(f"{name} {row[name]}" for name in [*trainings, "epoch"])
        raise ParameterError(f"{where} stands in history twice, expected once; give one variant at a time")
    for split in splits:
        _draw_split(history, split, what, trainings, ax)
    if what == "ua":
        ax.axhline(CHANCE_UA, color="0.5", linestyle=":", linewidth=0.8, label="chance")
    if best_epoch is not None:
        label = f"kept: epoch {best_epoch}"
        ax.axvline(best_epoch, color="black", linestyle="--", linewidth=0.8, label=label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel="cross-entropy (nats)" if what == "loss" else f"{what.upper()} (%)")
    return legend_above(ax, columns=2 if trainings else None)


def project(embeddings, *, perplexity=PERPLEXITY, seed=SEED):
    """Points on a plane whose neighbours are the neighbours of the vectors, by t-SNE [1]_.

    Distances between far points and the size of groups mean nothing; only who is near whom does.

    Parameters
    ----------
    embeddings : np.ndarray, shape (n, D)
        One vector for each utterance, D at least 2.
    perplexity : float
        How many neighbours count, about; at least 1 and at most a third of n.
    seed : int

    Returns
    -------
    np.ndarray, shape (n, 2)
        No unit. The same in each call with the same vectors, on one machine.

    Raises
    ------
    ParameterError
        If these are not n vectors of finite numbers, or too few for the perplexity.

    References
    ----------
    .. [1] van der Maaten, Hinton: Visualizing Data using t-SNE, JMLR 9, 2008.
    """
    embeddings = np.asarray(embeddings, dtype=float)
    if embeddings.ndim != 2 or embeddings.shape[1] < 2 or not np.isfinite(embeddings).all():
        raise ParameterError(
            f"embeddings have shape {embeddings.shape}, expected one vector of at least 2 finite numbers for each "
            "utterance; give an array of shape (n, D) without NaN"
        )
    if len(embeddings) > 1 and (embeddings == embeddings[0]).all():
        raise ParameterError(
            f"all {len(embeddings)} embeddings are the same, expected vectors that differ: this network has learned "
            "nothing; look at its training curves"
        )
    if not 1 <= perplexity <= len(embeddings) / 3:
        raise ParameterError(
            f"perplexity={perplexity!r}: expected 1 to {len(embeddings) / 3:g}, a third of the {len(embeddings)} "
            "utterances; give a smaller one or more utterances"
        )
    # PCA as a start keeps far groups apart and leaves nothing to chance
    tsne = TSNE(n_components=2, perplexity=perplexity, init="pca", learning_rate="auto", max_iter=1000,
                random_state=seed, n_jobs=1)  # fmt: skip
    return tsne.fit_transform(embeddings).astype(float)


def read_vectors(run, predictions, folds=None):
    """Vectors that the finished folds of a variant kept of their test utterances.

    They are what the classifier sees of an utterance, the mean over its segments of the last of the
    four stages that the published code draws. Each fold has a network of its own, so vectors of two
    folds can't be compared.

    Parameters
    ----------
    run : str
    predictions : pd.DataFrame
        Prediction table of one variant of this run.
    folds : sequence of str or of Fold, optional
        See :func:`serkit.evaluation.check_predictions`, whose errors are raised.

    Returns
    -------
    pd.DataFrame
        ``fold, seed, utterance_id, speaker, truth``, then the vectors; of the lowest seed, sorted by
        fold and utterance.

    Raises
    ------
    RunError
        If a fold kept none, or those of other utterances than it has predictions of.
    """
    rows = scored_rows(predictions, folds)
    rows = rows[rows["seed"] == rows["seed"].min()]
    parts = []
    for (variant, fold, seed), tested in rows.groupby(["variant", "fold", "seed"]):
        path = runs.project_home() / "runs" / run / variant / f"fold={fold}" / f"seed={seed}" / runs.VECTORS
        if not path.is_file():
            raise RunError(
                f"{runs.show_path(path)} is missing: this fold was trained before folds kept the vectors of "
                "their test utterances; train it again under a new run name"
            )
        vectors = runs.read_table(path, runs.FOLD_CURE)
        if set(vectors["utterance_id"]) != set(tested["utterance_id"]):
            raise RunError(
                f"{runs.show_path(path)}: vectors of {len(vectors)} utterances, expected those of the {len(tested)} "
                "that predictions.parquet tests; delete that folder and run `serkit reproduce` again"
            )
        parts.append(tested[ABOUT].merge(vectors, on="utterance_id", validate="one_to_one"))
    return pd.concat(parts, ignore_index=True)


def fold_points(vectors, *, max_points=MAX_POINTS, seed=SEED):
    """Points on a plane for the vectors of each fold, by :func:`project`.

    Parameters
    ----------
    vectors : pd.DataFrame
        As :func:`read_vectors` gives it.
    max_points : int
        Of all folds together. A fold with more than its share is thinned out: utterances at even steps
        through the list sorted by id, first and last included.
    seed : int
        Of the t-SNE.

    Returns
    -------
    pd.DataFrame
        ``fold, seed, utterance_id, speaker, truth, x, y``; in each fold both coordinates go from 0 to 1,
        as the published code scales them.

    Raises
    ------
    ParameterError
        If a fold has fewer than 6 utterances, or as :func:`project`.
    """
    parts = []
    for fold, rows in vectors.groupby("fold", sort=True):
        share = min(len(rows), max_points // vectors["fold"].nunique())
        if share < 6:
            raise ParameterError(
                f"fold {fold}: {share} utterances to draw, expected at least 6; more folds than max_points="
                f"{max_points} has room for, or too small a test set"
            )
        rows = rows.sort_values("utterance_id").iloc[np.linspace(0, len(rows) - 1, share).round().astype(int)]
        points = project(
            rows.drop(columns=ABOUT).to_numpy(), perplexity=min(PERPLEXITY, share / 3), seed=seed
        )
        low, high = points.min(axis=0), points.max(axis=0)
        points = (points - low) / (high - low)
        parts.append(rows[ABOUT].assign(x=points[:, 0], y=points[:, 1]))
    return pd.concat(parts, ignore_index=True)


def fold_grid(n_folds):
    """Rows and columns of panels, and the columns (1 or 2) and the height in inches of their figure.

    Examples
    --------
    >>> fold_grid(5), fold_grid(10)
    ((1, 5, 2, 2.0), (2, 5, 2, 3.7))
    """
    across = min(n_folds, 5)
    down = -(-n_folds // across)
    return down, across, 1 if across <= 2 else 2, round(0.3 + 1.7 * down, 2)


def plot_fold_points(points, ax: Axes, *, by="truth") -> Axes:
    """One panel for each fold, coloured by emotion or by speaker.

    Parameters
    ----------
    points : pd.DataFrame
        As :func:`fold_points` gives it.
    ax : Axes
        Holds all panels; of a figure as :func:`fold_grid` says.
    by : {"truth", "speaker"}
        Speakers of a fold are told apart in the order of their names, which stand under its panel.

    Raises
    ------
    ParameterError
        If ``by`` is neither, or speakers are asked for and a fold tests only one or more than 6.
    """
    if by not in ("truth", "speaker"):
        raise ParameterError(f"by={by!r}, expected truth or speaker")
    down, across, *_ = fold_grid(points["fold"].nunique())
    shifted = []
    for number, (fold, rows) in enumerate(points.groupby("fold", sort=True)):
        left, bottom = (number % across) * (1 + GAP), -(number // across) * (1 + 2 * GAP)
        ax.add_patch(
            Rectangle((left - EDGE, bottom - EDGE), 1 + 2 * EDGE, 1 + 2 * EDGE, fill=False, ec="0.6")
        )
        title = {"ha": "center", "va": "bottom", "fontsize": 7}
        ax.text(left + 0.5, bottom + 1 + 1.5 * EDGE, f"fold {fold}, n = {len(rows)}", **title)
        if by == "speaker":
            _name_speakers(ax, fold, sorted(rows["speaker"].unique()), left, bottom)
        rank = rows["speaker"].rank(method="dense").astype(int) - 1
        group = rank if by == "speaker" else rows["truth"].map(LABELS.index)
        shifted.append(rows.assign(x=rows["x"] + left, y=rows["y"] + bottom, group=group))
    for number, rows in pd.concat(shifted).groupby("group"):
        colour, marker, label = SPEAKER_COLOURS[number], "o", None
        if by == "truth":
            colour, marker, label = EMOTION_COLOURS[LABELS[number]], "o^sD"[number], LABELS[number]
        style = {"s": 9, "edgecolors": "white", "linewidths": 0.2}
        ax.scatter(rows["x"], rows["y"], color=colour, marker=marker, label=label, **style)
    right, lowest = across * (1 + GAP) - GAP + 1.5 * EDGE, (1 - down) * (1 + 2 * GAP) - GAP
    ax.set(xlim=(-1.5 * EDGE, right), ylim=(lowest, 1 + GAP), aspect="equal")
    ax.set_axis_off()
    return legend_above(ax) if by == "truth" else ax


def _draw_split(history, split, what, trainings, ax):
    """One line, or many thin ones with their mean and the epochs that were kept."""
    column, scale = f"{split}_{what}", 1 if what == "loss" else 100
    colour = SPLIT_COLOURS[split]
    if not trainings:
        marker = "o" if split == "train" else "s"
        ax.plot(
            history["epoch"],
            scale * history[column],
            color=colour,
            marker=marker,
            markersize=2.5,
            label=split,
        )
        return
    curves = scale * history.pivot(index="epoch", columns=trainings, values=column).sort_index()
    ax.plot(curves.index, curves, color=colour, linewidth=0.6, alpha=0.5)
    mean, label = curves.dropna().mean(axis=1), f"{split}, mean of {curves.shape[1]}"
    ax.plot(mean.index, mean, color=colour, linewidth=2.0, label=label)
    if split == "validation" and "kept" in history and history["kept"].any():
        kept = history[history["kept"]]
        ax.plot(kept["epoch"], scale * kept[column], "o", color=colour, mec="black", mew=0.4, label="kept")


def _name_speakers(ax, fold, names, left, bottom):
    """The names of a fold's speakers under its panel, each in its colour."""
    if not 2 <= len(names) <= len(SPEAKER_COLOURS):
        raise ParameterError(
            f"fold {fold}: tests {len(names)} speaker{'s' * (len(names) != 1)}, expected 2 to {len(SPEAKER_COLOURS)} to "
            "tell apart in the vectors of one network; hold out sessions instead (by='session')"
        )
    for number, name in enumerate(names):
        style = {
            "ha": "center",
            "va": "top",
            "fontsize": 7,
            "weight": "bold",
            "color": SPEAKER_COLOURS[number],
        }
        ax.text(left + (number + 0.5) / len(names), bottom - 1.5 * EDGE, name, **style)
