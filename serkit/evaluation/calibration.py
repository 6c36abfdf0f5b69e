"""Whether the probabilities mean what they say: reliability and expected calibration error."""

import numpy as np
import pandas as pd

from serkit.errors import ParameterError
from serkit.evaluation.predictions import PROBABILITIES, scored_rows


def reliability_table(predictions, n_bins=10, folds=None):
    """How often predictions of a given confidence are right.

    Confidence is the probability of the predicted label. Bins are of equal width, open below and
    closed above, as in [1]_; with four classes those below 0.25 stay empty.

    Parameters
    ----------
    predictions : pd.DataFrame
        Prediction table of one variant; test rows of all seeds count.
    n_bins : int, 1 to 100
    folds : sequence of str or of Fold, optional
        See :func:`serkit.evaluation.predictions.check_predictions`.

    Returns
    -------
    pd.DataFrame
        One row per bin: ``low, high`` (edges), ``n``, mean ``confidence`` and ``accuracy`` (both
        fractions, NaN in an empty bin).

    Raises
    ------
    ParameterError, RunError, FoldError
        If ``n_bins`` is out of range, or as :func:`serkit.evaluation.predictions.check_predictions`.

    References
    ----------
    .. [1] Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017.
    """
    if isinstance(n_bins, bool) or not isinstance(n_bins, int) or not 1 <= n_bins <= 100:
        raise ParameterError(f"n_bins={n_bins!r}, expected a whole number from 1 to 100; use 10")
    rows = scored_rows(predictions, folds)
    confidence = rows[list(PROBABILITIES)].to_numpy(float).max(axis=1)
    edges = np.linspace(0, 1, n_bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, n_bins - 1)
    right = (rows["truth"] == rows["prediction"]).to_numpy(float)
    n = np.bincount(place, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        means = {
            name: np.bincount(place, weights=values, minlength=n_bins) / n
            for name, values in (("confidence", confidence), ("accuracy", right))
        }
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "n": n, **means})


def expected_calibration_error(predictions, n_bins=10, folds=None):
    """Mean gap between confidence and accuracy over bins, each weighing as many rows as it holds.

    It is biased upward when bins hold few utterances and depends on ``n_bins``: give both with it.

    Parameters and errors as in :func:`reliability_table`.

    Returns
    -------
    float in [0, 1]

    Examples
    --------
    Two predictions with confidence 0.75, one right: the gap is 0.25.

    >>> rows = pd.DataFrame({
    ...     "utterance_id": ["a", "b"], "speaker": "1F", "session": "1", "truth": ["sad", "happy"],
    ...     "prediction": "sad", "p_angry": 0.0, "p_sad": 0.75, "p_happy": 0.25, "p_neutral": 0.0,
    ...     "fold": "1", "seed": 111, "variant": "corrected_last_session_demo", "split": "test"})
    >>> expected_calibration_error(rows)
    0.25
    """
    table = reliability_table(predictions, n_bins, folds)
    gap = (table["confidence"] - table["accuracy"]).abs()
    return float((gap * table["n"]).sum() / table["n"].sum())
