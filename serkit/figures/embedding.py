"""What the network makes of the utterances: its inner vectors as points on a plane."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from sklearn.manifold import TSNE

from serkit import runs
from serkit.constants import LABELS
from serkit.errors import ParameterError, RunError
from serkit.evaluation.predictions import scored_rows
from serkit.figures.plots import BLUE, EMOTION_COLOURS, GREEN, GREY, ORANGE, VERMILLION, legend_above

SEED = 20220522  # of the t-SNE; any number: with it the points are the same in each call
COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, "#CC79A7", GREY)
MARKERS = ("o", "^", "s", "D", "v", "P")
MAX_LABELS = len(COLOURS) * len(MARKERS)
MAX_POINTS = 1500  # of all folds together; more would cover each other, and take minutes
PERPLEXITY = 30.0  # neighbours that count, about; a third of the utterances where there are fewer than 90
ABOUT = ["fold", "seed", "utterance_id", "speaker", "truth"]
GAP = 0.2  # between two panels, in widths of a panel: room for the names under them
EDGE = 0.05  # between the outermost points and the frame of a panel


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


def plot_embedding(embeddings, labels, ax: Axes, *, perplexity=PERPLEXITY, seed=SEED) -> Axes:
    """Vectors as points on a plane, coloured by emotion or by speaker.

    Parameters
    ----------
    embeddings : np.ndarray, shape (n, D)
        One vector for each utterance, projected by :func:`project`; with D = 2 drawn as given, so
        that two plots can share one projection.
    labels : sequence of str, length n
        Emotions in the kit's names keep their colour; of other labels, such as speakers, at most 36
        are told apart by colour and marker.
    ax : Axes
    perplexity, seed
        As in :func:`project`.

    Raises
    ------
    ParameterError
        If labels and vectors differ in number, there are too many labels, or as :func:`project`.
    """
    embeddings, labels = np.asarray(embeddings, dtype=float), pd.Series(list(labels), dtype=object)
    if embeddings.ndim != 2 or len(embeddings) != len(labels):
        raise ParameterError(
            f"embeddings have shape {embeddings.shape} and there are {len(labels)} labels, expected one label for "
            "each vector; take both from the same table"
        )
    names = sorted(
        labels.unique(), key=lambda name: (LABELS.index(name) if name in LABELS else len(LABELS), name)
    )
    if len(names) > MAX_LABELS:
        raise ParameterError(
            f"{len(names)} different labels, expected at most {MAX_LABELS}; show a part of them"
        )
    if embeddings.shape[1] != 2:
        embeddings = project(embeddings, perplexity=perplexity, seed=seed)
    for number, name in enumerate(names):
        _scatter(ax, embeddings[(labels == name).to_numpy()], name, number)
    ax.set(xticks=[], yticks=[], xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
    columns = 1 if len(names) <= 12 else 2
    ax.legend(
        loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=columns, borderaxespad=0.3, handletextpad=0.2
    )
    return ax


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
        See :func:`serkit.evaluation.predictions.check_predictions`, whose errors are raised.

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
        folder = runs.project_home() / "runs" / run / variant / f"fold={fold}" / f"seed={seed}"
        vectors = _read_fold(folder / runs.VECTORS)
        if set(vectors["utterance_id"]) != set(tested["utterance_id"]):
            raise RunError(
                f"{runs.show_path(folder / runs.VECTORS)}: vectors of {len(vectors)} utterances, expected those of "
                f"the {len(tested)} that predictions.parquet tests; delete that folder and run `serkit reproduce` again"
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
    for fold, own in vectors.groupby("fold", sort=True):
        share = min(len(own), max_points // vectors["fold"].nunique())
        if share < 6:
            raise ParameterError(
                f"fold {fold}: {share} utterances to draw, expected at least 6; more folds than max_points="
                f"{max_points} has room for, or too small a test set"
            )
        own = own.sort_values("utterance_id").iloc[np.linspace(0, len(own) - 1, share).round().astype(int)]
        points = project(own.drop(columns=ABOUT).to_numpy(), perplexity=min(PERPLEXITY, share / 3), seed=seed)
        low, high = points.min(axis=0), points.max(axis=0)
        points = (points - low) / (high - low)
        parts.append(own[ABOUT].assign(x=points[:, 0], y=points[:, 1]))
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
    for number, (fold, own) in enumerate(points.groupby("fold", sort=True)):
        left, bottom = (number % across) * (1 + GAP), -(number // across) * (1 + 2 * GAP)
        ax.add_patch(
            Rectangle((left - EDGE, bottom - EDGE), 1 + 2 * EDGE, 1 + 2 * EDGE, fill=False, ec="0.6")
        )
        title = {"ha": "center", "va": "bottom", "fontsize": 7}
        ax.text(left + 0.5, bottom + 1 + 1.5 * EDGE, f"fold {fold}, n = {len(own)}", **title)
        if by == "speaker":
            _name_speakers(ax, fold, sorted(own["speaker"].unique()), left, bottom)
        shifted.append(own.assign(x=own["x"] + left, y=own["y"] + bottom))
    shifted = pd.concat(shifted)
    place = shifted.groupby("fold")["speaker"].transform(lambda names: names.rank(method="dense")) - 1
    groups = place.astype(int) if by == "speaker" else shifted["truth"].map(LABELS.index)
    for group, own in shifted.groupby(groups):
        _scatter(ax, own[["x", "y"]].to_numpy(), LABELS[group] if by == "truth" else "", group)
    right, lowest = across * (1 + GAP) - GAP + 1.5 * EDGE, (1 - down) * (1 + 2 * GAP) - GAP
    ax.set(xlim=(-1.5 * EDGE, right), ylim=(lowest, 1 + GAP), aspect="equal")
    ax.set_axis_off()
    return legend_above(ax) if by == "truth" else ax


def _scatter(ax, points, name, number):
    """Points of one label; ``number`` tells it from the others."""
    colour = EMOTION_COLOURS.get(name, COLOURS[number % len(COLOURS)])
    marker = MARKERS[(number if name in LABELS else number // len(COLOURS)) % len(MARKERS)]
    ax.scatter(
        *points.T, s=9, color=colour, marker=marker, edgecolors="white", linewidths=0.2, label=str(name)
    )


def _name_speakers(ax, fold, names, left, bottom):
    """The names of a fold's speakers under its panel, each in its colour."""
    if not 2 <= len(names) <= len(COLOURS):
        raise ParameterError(
            f"fold {fold} tests {len(names)} speakers, expected 2 to {len(COLOURS)} to tell apart in the vectors of one "
            "network; hold out sessions instead (by='session')"
        )
    for number, name in enumerate(names):
        style = {"ha": "center", "va": "top", "fontsize": 7, "weight": "bold", "color": COLOURS[number]}
        ax.text(left + (number + 0.5) / len(names), bottom - 1.5 * EDGE, name, **style)


def _read_fold(path):
    if not path.is_file():
        raise RunError(
            f"{runs.show_path(path)} is missing: this fold was trained before folds kept the vectors of their test "
            "utterances; train it again under a new run name"
        )
    return runs.read_table(path, runs.FOLD_CURE)
