"""How a network learned, and what it makes of the utterances: training curves, its vectors on a plane."""

import itertools

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from sklearn.manifold import TSNE

from serkit import metrics, runs
from serkit.constants import CHANCE_UA, SEED
from serkit.errors import ParameterError, RunError, SerkitError
from serkit.evaluation import Estimate, apply_rule, epoch_scores, percent, scored_rows
from serkit.figures.saving import BLUE, SPEAKER_COLOURS, SPLIT_COLOURS, WORDS, colours_of, legend_above
from serkit.figures.scores import CHANCE, DASHED, DOT, PERCENT, draw_whiskers

MAX_POINTS = 1500  # of all folds together; more would cover each other, and take minutes
PERPLEXITY = 30.0  # neighbours that count, about; of less than 240 utterances an eighth, or they string up
ABOUT = ["fold", "seed", "utterance_id", "speaker", "truth"]


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
        If there is no finished fold, or a history is damaged.
    """
    parts = []
    for folder in runs.finished_folders(run, variant):
        history = runs.read_table(folder / "history.csv", runs.FOLD_CURE)
        scores = runs.read_table(folder / "metrics.json", runs.FOLD_CURE)
        kept = history["epoch"] == scores.get("best_epoch")
        fold, seed = (part.partition("=")[2] for part in folder.parts[-2:])
        parts.append(pd.DataFrame({"fold": fold, "seed": int(seed), "kept": kept}).join(history))
    return pd.concat(parts, ignore_index=True)


def plot_history(history, ax: Axes, *, what="loss", best_epoch=None, chance=CHANCE_UA) -> Axes:
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
    chance : float, optional
        UA of guessing in percent, drawn where ``what`` is UA.
    """
    trainings = [name for name in ("fold", "seed") if name in history]
    splits = [split for split in SPLIT_COLOURS if history.get(f"{split}_{what}", pd.Series()).notna().any()]
    for split in splits:
        _draw_split(history, split, what, trainings, ax)
    if what == "ua":
        ax.axhline(chance, color="0.5", linestyle=":", linewidth=0.8, label="chance")
    if best_epoch is not None:
        ax.axvline(best_epoch, label=f"kept: epoch {best_epoch}", **DASHED)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel="cross-entropy (nats)" if what == "loss" else f"{what.upper()} (%)")
    return legend_above(ax, columns=2 if trainings else None)


def plot_rules(epochs, ax: Axes, score="ua") -> Axes:
    """Mean test score after every epoch; beside it what each rule of choosing an epoch would have reported.

    Each rule has its 95 % interval over speakers. The published one looks at the tested speakers: in every fold it
    takes the epoch of highest WA + UA there.

    Parameters
    ----------
    epochs : pd.DataFrame
        Of one variant, as :func:`serkit.evaluation.load_epochs` gives it.
    ax : Axes
    score : {"ua", "wa"}
    """
    scores = epoch_scores(epochs)
    tested = scores[scores["split"] == "test"].set_index([*metrics.UNIT, "epoch"])[score]
    course = 100 * tested.groupby("epoch").mean()
    last, reported = course.index.max(), {}
    for place, (rule, (words, marker, colour)) in enumerate(WORDS["rules"].items(), 1):
        try:
            value = percent(scored_rows(apply_rule(epochs, rule, scores)), score=score)
        except SerkitError:  # no validation speakers were kept
            continue
        x = last + 0.09 * place * max(last, 5)
        ax.plot(x, value.value, marker, color=colour, label=f"{words}: {value.value:.1f} %", zorder=4, **DOT)
        reported[x] = value
    ax.plot(course.index, course, marker=".", color=BLUE, label="mean by epoch")
    draw_whiskers(ax, pd.DataFrame.from_dict(reported, orient="index", columns=Estimate._fields))
    ax.axhline(metrics.chance_ua(metrics.labels_of(epochs)), **CHANCE)
    ax.axvline(last + 0.04 * max(last, 5), color="0.8", linewidth=0.8)
    ax.set_xticks([tick for tick in MaxNLocator(6, integer=True).tick_values(1, last) if 1 <= tick <= last])
    ax.set(xlabel="epoch", ylabel=f"{score.upper()} (%)", **PERCENT)
    ax.xaxis.set_label_coords(0.37, -0.15)  # below the epochs
    return legend_above(ax, columns=2)


def project(embeddings, *, perplexity):
    """Points on a plane whose neighbours are the neighbours of the vectors, by t-SNE [1]_.

    Distances between far points and the size of groups mean nothing; only who is near whom does.

    Parameters
    ----------
    embeddings : np.ndarray, shape (n, D)
        One vector for each utterance, D at least 2.
    perplexity : float
        How many neighbours count, about; less than n.

    Returns
    -------
    np.ndarray, shape (n, 2)
        No unit. The same in each call with the same vectors, on one machine.

    Raises
    ------
    ParameterError
        If all vectors are the same.

    References
    ----------
    .. [1] van der Maaten, Hinton: Visualizing Data using t-SNE, JMLR 9, 2008.
    """
    embeddings = np.asarray(embeddings, dtype=float)
    if (embeddings == embeddings[0]).all():
        cure = "this network has learned nothing; look at its training curves"
        raise ParameterError(f"all {len(embeddings)} embeddings are the same: {cure}")
    # PCA as a start keeps far groups apart and leaves nothing to chance
    tsne = TSNE(n_components=2, perplexity=perplexity, init="pca", learning_rate="auto", max_iter=1000,
                random_state=SEED, n_jobs=1)  # fmt: skip
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
        vectors = runs.read_table(path, "train this fold again under a new run name")
        if set(vectors["utterance_id"]) != set(tested["utterance_id"]):
            about = f"{runs.show_path(path)}: vectors of other utterances than predictions.parquet tests"
            raise RunError(f"{about}; delete that folder and run `serkit reproduce` again")
        parts.append(tested[ABOUT].merge(vectors, on="utterance_id", validate="one_to_one"))
    return pd.concat(parts, ignore_index=True)


def fold_points(vectors):
    """Points on a plane for the vectors of each fold, by :func:`project`.

    A fold with more than its share of ``MAX_POINTS`` is thinned out: utterances at even steps through the list sorted
    by id, first and last included.

    Parameters
    ----------
    vectors : pd.DataFrame
        As :func:`read_vectors` gives it.

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
        share = min(len(rows), MAX_POINTS // vectors["fold"].nunique())
        if share < 6:
            cure = f"more folds than MAX_POINTS={MAX_POINTS} has room for, or too small a test set"
            raise ParameterError(f"fold {fold}: {share} utterances to draw, expected at least 6; {cure}")
        rows = rows.sort_values("utterance_id").iloc[np.linspace(0, len(rows) - 1, share).round().astype(int)]
        values = rows.drop(columns=ABOUT).to_numpy()
        points = project(values, perplexity=min(PERPLEXITY, max(8.0, share / 8), share / 3))
        points = (points - points.min(axis=0)) / np.ptp(points, axis=0)
        parts.append(rows[ABOUT].assign(x=points[:, 0], y=points[:, 1]))
    return pd.concat(parts, ignore_index=True)


def fold_grid(n_folds):
    """Rows and columns of panels, and the columns (1 or 2) and the height in inches of their figure.

    Examples
    --------
    >>> fold_grid(5), fold_grid(10)
    ((1, 5, 2, 1.85), (2, 5, 2, 3.65))
    """
    across = min(n_folds, 5)
    down = -(-n_folds // across)
    return down, across, 1 if across <= 2 else 2, round(0.05 + 1.8 * down, 2)


def plot_fold_points(points, ax: Axes, *, by="truth") -> Axes:
    """One panel for each fold, coloured by emotion or by speaker.

    Parameters
    ----------
    points : pd.DataFrame
        As :func:`fold_points` gives it.
    ax : Axes
        Gives its place to the panels; of a figure as :func:`fold_grid` says.
    by : {"truth", "speaker"}
        Speakers of a fold are told apart in the order of their names, which stand under its panel.

    Raises
    ------
    ParameterError
        If speakers are asked for and a fold tests only one or more than 6.
    """
    down, across, _, height = fold_grid(points["fold"].nunique())
    ax.set_axis_off()
    ax.figure.set_layout_engine("none")  # panels lie in the same places whatever the legends say
    place = {"left": 0.005, "right": 0.995, "top": 1 - 0.18 / height, "bottom": 0.25 / height}
    panels = ax.figure.add_gridspec(down, across, **place, wspace=0.03, hspace=0.29).subplots(squeeze=False)
    for empty in panels.flat[points["fold"].nunique() :]:
        empty.set_axis_off()
    labels = metrics.in_order(points["truth"])
    for panel, (fold, rows) in zip(panels.flat, points.groupby("fold"), strict=False):
        names, colours = labels, colours_of(labels)
        if by == "speaker":
            names, colours = sorted(rows["speaker"].unique()), SPEAKER_COLOURS
        if not 2 <= len(names) <= len(colours):
            tested = f"tests {len(names)} speaker{'s' * (len(names) != 1)}, expected 2 to {len(colours)}"
            raise ParameterError(f"fold {fold}: {tested} to tell apart; hold out sessions (by='session')")
        for name, colour, marker in zip(names, colours, itertools.cycle("o^sDvP"), strict=False):
            group = rows[rows[by] == name]
            style = {"s": 9, "edgecolors": "white", "linewidths": 0.2}
            panel.scatter(group["x"], group["y"], color=colour, marker=marker, label=name, **style)
        panel.set(xticks=[], yticks=[], aspect="equal", title=f"fold {fold}, n = {len(rows)}")
        panel.spines[:].set(visible=True, color="0.6")
        if by == "speaker":
            below = {"loc": "upper center", "bbox_to_anchor": (0.5, 0)}
            panel.legend(**below, ncols=3, handletextpad=0, borderaxespad=0.3)
    if by == "truth":
        entries = panel.get_legend_handles_labels()
        narrow = {"columnspacing": 0.9, "handletextpad": 0.1} if len(labels) > 5 else {}
        ax.figure.legend(*entries, loc="lower center", ncols=len(labels), borderaxespad=0.3, **narrow)
    return ax


def _draw_split(history, split, what, trainings, ax):
    """One line, or many thin ones with their mean and the epochs that were kept."""
    column, colour = f"{split}_{what}", SPLIT_COLOURS[split]
    history = history.assign(value=history[column] * (1 if what == "loss" else 100))
    if not trainings:
        ax.plot(history["epoch"], history["value"], "o-", color=colour, markersize=2.5, label=split)
        return
    curves = history.pivot(index="epoch", columns=trainings, values="value")
    ax.plot(curves.index, curves, color=colour, linewidth=0.6, alpha=0.5)
    mean, label = curves.dropna().mean(axis=1), f"{split}, mean of {curves.shape[1]}"
    ax.plot(mean.index, mean, color=colour, linewidth=2.0, label=label)
    if split == "validation" and "kept" in history:
        kept = history[history["kept"]]
        ax.plot(kept["epoch"], kept["value"], "o", color=colour, mec="black", mew=0.4, label="kept")
