"""From the scores of segments to the probabilities of an utterance."""

import numpy as np


def utterance_probabilities(mean_log_probability):
    """Probabilities from an utterance's score, the mean of its segments' log-softmax.

    A mean of log-probabilities is a geometric mean, which does not sum to 1: it is divided by its sum.

    Parameters
    ----------
    mean_log_probability : np.ndarray, shape (..., n_classes), float64

    Returns
    -------
    np.ndarray, shape (..., n_classes), float64, summing to 1 over the last axis

    Examples
    --------
    Two segments of which one gives (0.8, 0.2) and the other (0.5, 0.5) speak for 2 to 1:

    >>> score = np.log([[0.8, 0.2], [0.5, 0.5]]).mean(axis=0)
    >>> utterance_probabilities(score).round(4).tolist()
    [0.6667, 0.3333]
    """
    probability = np.exp(mean_log_probability - mean_log_probability.max(axis=-1, keepdims=True))
    return probability / probability.sum(axis=-1, keepdims=True)
