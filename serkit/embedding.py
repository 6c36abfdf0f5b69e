"""What the network makes of the utterances: its inner vectors as points on a plane."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from sklearn.manifold import TSNE

from serkit.constants import LABELS
from serkit.errors import ParameterError
from serkit.figures import BLUE, EMOTION_COLOURS, GREEN, GREY, ORANGE, VERMILLION

SEED = 20220522  # of the t-SNE; any number: with it the points are the same in each call
COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, "#CC79A7", GREY)
MARKERS = ("o", "^", "s", "D", "v", "P")
MAX_LABELS = len(COLOURS) * len(MARKERS)


def project(embeddings, *, perplexity=30.0, seed=SEED):
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
    if not 1 <= perplexity <= len(embeddings) / 3:
        raise ParameterError(
            f"perplexity={perplexity!r}: expected 1 to {len(embeddings) / 3:g}, a third of the {len(embeddings)} "
            "utterances; give a smaller one or more utterances"
        )
    # PCA as a start keeps far groups apart and leaves nothing to chance
    tsne = TSNE(n_components=2, perplexity=perplexity, init="pca", learning_rate="auto", max_iter=1000,
                random_state=seed, n_jobs=1)  # fmt: skip
    return tsne.fit_transform(embeddings).astype(float)


def plot_embedding(embeddings, labels, ax: Axes, *, perplexity=30.0, seed=SEED) -> Axes:
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
        mine = embeddings[(labels == name).to_numpy()]
        colour = EMOTION_COLOURS.get(name, COLOURS[number % len(COLOURS)])
        marker = MARKERS[(number if name in LABELS else number // len(COLOURS)) % len(MARKERS)]
        ax.scatter(
            *mine.T, s=9, color=colour, marker=marker, edgecolors="white", linewidths=0.2, label=str(name)
        )
    ax.set(xticks=[], yticks=[], xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
    columns = 1 if len(names) <= 12 else 2
    ax.legend(
        loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=columns, borderaxespad=0.3, handletextpad=0.2
    )
    return ax
