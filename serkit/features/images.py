"""The spectrogram as the picture that AlexNet sees: scaled, 8 bits, flipped, resized, normalised.

Works on batches of torch tensors on any device; on every device it rounds as PIL does.
"""

from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
from torch.nn.functional import interpolate

from serkit.constants import IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD
from serkit.errors import ParameterError


@dataclass(frozen=True)
class SpectrogramScaler:
    """Smallest and largest level of each frequency bin, in dB, fitted on training segments only."""

    minimum: np.ndarray  # (n_bins,) float32
    maximum: np.ndarray  # (n_bins,) float32

    @classmethod
    def fit(cls, segments, n_frames=None):
        """Fit in one pass over segments.

        Parameters
        ----------
        segments : iterable of np.ndarray, shape (n_bins, n_frames)
            Spectrograms in dB.
        n_frames : iterable of int, optional
            Real frames of each segment; the rest is left out. Without it padding counts (D5).

        Returns
        -------
        SpectrogramScaler

        Examples
        --------
        >>> SpectrogramScaler.fit([np.float32([[-9, -5, 0]])], n_frames=[2]).maximum.tolist()
        [-5.0]
        """
        minimum, maximum = np.inf, -np.inf
        for segment, n in zip(segments, repeat(None) if n_frames is None else n_frames, strict=False):
            real = segment[:, :n]
            if real.size:
                minimum = np.minimum(minimum, real.min(axis=1))
                maximum = np.maximum(maximum, real.max(axis=1))
        if np.ndim(minimum) == 0:
            raise ParameterError("scaler: no training segment to fit on; the fold's training part is empty")
        return cls(minimum.astype(np.float32), maximum.astype(np.float32))


def spectrogram_pixels(spectrogram, scaler, *, size=IMAGE_SIZE):
    """8-bit grey picture of each spectrogram, highest frequency on top.

    Parameters
    ----------
    spectrogram : torch.Tensor, shape (B, F, T), float32
        Level in dB.
    scaler : SpectrogramScaler
        Its minimum becomes 0, its maximum 255; levels outside are clipped.
    size : tuple of int
        Height and width in pixels.

    Returns
    -------
    torch.Tensor, shape (B, height, width), float32, whole numbers 0 to 255
    """
    low = torch.as_tensor(scaler.minimum, device=spectrogram.device)[:, None]
    high = torch.as_tensor(scaler.maximum, device=spectrogram.device)[:, None]
    # a bin that never varies has no range: dividing by 1 sends it to 0, as scikit-learn does
    span = torch.where(high > low, high - low, torch.ones_like(low))
    scaled = ((spectrogram - low) / span).clamp(0.0, 1.0)
    pixels = (255.0 * scaled).floor().flip(1)[:, None]  # (B, 1, F, T)
    # PIL resizes rows first, rounds to 8 bits, then columns, and rounds again
    wide = interpolate(pixels, (pixels.shape[2], size[1]), mode="bilinear", antialias=True).add(0.5).floor()
    return interpolate(wide, size, mode="bilinear", antialias=True).add(0.5).floor()[:, 0]


def spectrogram_image(spectrogram, scaler, *, size=IMAGE_SIZE):
    """Input of the spectrogram CNN: three equal channels in ImageNet's mean and deviation.

    Returns
    -------
    torch.Tensor, shape (B, 3, height, width), float32
    """
    pixels = spectrogram_pixels(spectrogram, scaler, size=size) / 255.0
    mean = torch.tensor(IMAGENET_MEAN, device=pixels.device)[:, None, None]
    std = torch.tensor(IMAGENET_STD, device=pixels.device)[:, None, None]
    return (pixels[:, None] - mean) / std
