"""Utterance to segments of at most 3 s, in frames and in samples. The only place that pads segments."""

from dataclasses import dataclass

import numpy as np

from serkit.constants import HOP_LENGTH, SEGMENT_FRAMES, SEGMENT_SAMPLES


@dataclass(frozen=True)
class SegmentPlan:
    """Where each segment of one utterance lies, and how much of it is real.

    All arrays have shape (N,), one value for each segment. A frame is one spectrogram column
    (10 ms); frame ``t`` is centred on sample ``t * 160`` of the utterance.
    """

    frame_start: np.ndarray  # first frame, in the utterance
    n_frames: np.ndarray  # real frames, at most 300; padding comes after them
    sample_start: np.ndarray  # first sample, in the utterance
    num_samples: np.ndarray  # real samples, at most 48000
    sample_offset: np.ndarray  # where the real samples begin inside the segment

    def __len__(self):
        return len(self.frame_start)


def count_segments(num_samples, recipe):
    """Number of segments that an utterance of ``num_samples`` (16 kHz) is cut into.

    Exactly 3 s has 301 frames, so the published rule opens a second segment for the last one:

    >>> from serkit.recipe import CORRECTED, PUBLISHED
    >>> count_segments(48000, PUBLISHED), count_segments(48000, CORRECTED)
    (2, 1)
    """
    if recipe.last_piece == "overlapping":
        # in whole frames, as the pieces are cut: up to 159 samples more open no piece of their own
        return max(1, -(-(num_samples // HOP_LENGTH) // SEGMENT_FRAMES))
    return -(-(1 + num_samples // HOP_LENGTH) // SEGMENT_FRAMES)


def plan_segments(num_samples, recipe):
    """Cut an utterance.

    Parameters
    ----------
    num_samples : int
        Length of the utterance at 16 kHz.
    recipe : Recipe
        ``last_piece`` and ``waveform_padding`` matter here.

    Returns
    -------
    SegmentPlan
        With ``last_piece="padded"``: consecutive pieces of 300 frames / 48,000 samples, the last
        one incomplete. With ``"overlapping"``: the last piece of an utterance over 3 s is its last
        300 whole frames, so that only utterances under 3 s are padded; both views start on the
        same frame, at the cost of at most 159 samples (10 ms) at the very end.

    Examples
    --------
    >>> from serkit.recipe import CORRECTED, PUBLISHED
    >>> plan_segments(64000, PUBLISHED).frame_start.tolist()
    [0, 300]
    >>> plan_segments(64000, CORRECTED).frame_start.tolist()
    [0, 100]
    """
    total_frames = 1 + num_samples // HOP_LENGTH
    frame_start = SEGMENT_FRAMES * np.arange(count_segments(num_samples, recipe))
    if recipe.last_piece == "overlapping" and num_samples > SEGMENT_SAMPLES:
        frame_start[-1] = num_samples // HOP_LENGTH - SEGMENT_FRAMES
    sample_start = frame_start * HOP_LENGTH
    n_frames = np.minimum(total_frames - frame_start, SEGMENT_FRAMES)
    real = np.clip(num_samples - sample_start, 0, SEGMENT_SAMPLES)
    offset = SEGMENT_SAMPLES - real if recipe.waveform_padding == "before" else np.zeros_like(real)
    return SegmentPlan(frame_start, n_frames, sample_start, real, offset)


def cut_frames(frames, plan, *, fill):
    """Cut utterance-long frames into segments, filling up after the real ones.

    Parameters
    ----------
    frames : np.ndarray, shape (n_frames, n_features)
    plan : SegmentPlan
    fill : float
        Value of padded frames.

    Returns
    -------
    np.ndarray, shape (N, 300, n_features), dtype of ``frames``
    """
    segments = np.full((len(plan), SEGMENT_FRAMES, frames.shape[1]), fill, frames.dtype)
    for segment, start, real in zip(segments, plan.frame_start, plan.n_frames, strict=True):
        segment[:real] = frames[start : start + real]
    return segments


def cut_samples(waveform, plan):
    """Cut a waveform into segments, filled up with zeros on the side the plan says.

    Returns
    -------
    np.ndarray, shape (N, 48000), dtype of ``waveform``
    """
    segments = np.zeros((len(plan), SEGMENT_SAMPLES), waveform.dtype)
    rows = zip(segments, plan.sample_start, plan.num_samples, plan.sample_offset, strict=True)
    for segment, start, real, offset in rows:
        segment[offset : offset + real] = waveform[start : start + real]
    return segments


def interval_mask(start, length, size):
    """Mask that is true from ``start`` for ``length`` places, one row for each pair.

    >>> interval_mask([0, 1], [2, 1], 3).tolist()
    [[True, True, False], [False, True, False]]
    """
    position = np.arange(size)
    start = np.asarray(start)[:, None]
    return (position >= start) & (position < start + np.asarray(length)[:, None])
