"""The three views of a segment: log spectrogram (and the picture AlexNet sees of it), MFCC, normalised waveform.

Arrays in, arrays out, no files. torch and torchaudio compute; librosa, in the tests, is the
independent reference; the published results [1]_ were made with an older version of it [2]_. An utterance is analysed as a whole, then cut: what is computed once
(`utterance_features`) serves every recipe that cuts it in another way (`cut_segments`).

References
----------
.. [1] Zou et al., ICASSP 2022, arXiv:2203.15326.
.. [2] librosa 0.8.1, ``librosa.stft(center=True, pad_mode="reflect")``. Since 0.10 librosa pads
       with zeros.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from numbers import Integral

import numpy as np
import torch
from torch.nn.functional import interpolate, pad
from torchaudio.functional import create_dct, melscale_fbanks

from serkit import constants
from serkit.errors import ParameterError, check_choice, check_range
from serkit.features.audio import check_waveform, preemphasise
from serkit.features.segments import cut_frames, cut_samples, interval_mask, plan_segments

POWER_FLOOR = 1e-10  # power below which a level counts as this one, -100 dB re 1
BLOCK = 96  # frames transformed at once: their spectra stay in the cache, and the work outweighs the calls
MEL_GROUP = 16  # neighbouring bands that share a product
VARIANCE_FLOOR = 1e-7  # added to the variance before dividing, as transformers' feature extractor does


@dataclass(frozen=True)
class UtteranceFeatures:
    """What is computed from a whole utterance, time first, before it is cut."""

    spectrogram: np.ndarray  # (n_frames, 200) float32, dB below the utterance's peak
    mfcc: np.ndarray  # (n_frames, 40) float32
    waveform: np.ndarray  # (num_samples,) float32, as it was read


@dataclass(frozen=True)
class SegmentFeatures:
    """The three views of N segments, and how much of each is real; a view that wasn't asked for is None."""

    spectrogram: np.ndarray  # (N, 200, 300) float32, dB below the utterance's peak
    mfcc: np.ndarray  # (N, 300, 40) float32
    waveform: np.ndarray  # (N, 48000) float32, zero mean and unit variance unless the recipe says otherwise
    n_frames: np.ndarray  # (N,) real frames, at the beginning
    num_samples: np.ndarray  # (N,) real samples
    sample_offset: np.ndarray  # (N,) where the real samples begin

    def __len__(self):
        return len(self.n_frames)

    @property
    def frame_mask(self):
        """Shape (N, 300), true where spectrogram and MFCC are speech and not padding."""
        return interval_mask(np.zeros_like(self.n_frames), self.n_frames, constants.SEGMENT_FRAMES)

    @property
    def sample_mask(self):
        """Shape (N, 48000), true where the waveform is speech and not padding."""
        return interval_mask(self.sample_offset, self.num_samples, constants.SEGMENT_SAMPLES)


def segment_features(waveform, recipe):
    """All three views of every segment of one utterance.

    Parameters
    ----------
    waveform : np.ndarray, shape (num_samples,), float32
        Mono, 16 kHz, 25 ms to 10 min.
    recipe : Recipe
        ``serkit.recipe.PUBLISHED``, ``CORRECTED`` or anything between.

    Returns
    -------
    SegmentFeatures
        Silence comes back as 0 dB, constant MFCC and a waveform of zeros.

    Raises
    ------
    ParameterError
        If the waveform is not a 1-D float array.
    AudioError
        If it is too short, too long, or holds NaN or infinite samples.
    """
    utterance = utterance_features(check_waveform(waveform), recipe)
    return cut_segments(utterance, plan_segments(len(utterance.waveform), recipe), recipe)


def utterance_features(waveform, recipe):
    """Spectrogram and MFCC of a whole utterance; of the recipe only ``recipe.extraction`` matters.

    Parameters
    ----------
    waveform : np.ndarray, shape (num_samples,), float32
        As `serkit.features.audio.check_waveform` returns it.
    recipe : Recipe

    Returns
    -------
    UtteranceFeatures
    """
    emphasised = preemphasise(waveform, recipe.preemphasis)
    settings = {"top_db": recipe.top_db, "edge": recipe.edge}
    spectrogram = log_spectrogram(emphasised, **settings).T
    return UtteranceFeatures(spectrogram, mfcc(emphasised, **settings), waveform)


def cut_segments(utterance, plan, recipe):
    """Cut an analysed utterance into segments: padding, overlap, and the normalised waveform.

    Parameters
    ----------
    utterance : UtteranceFeatures
        What is None of it stays None.
    plan : SegmentPlan
        All segments of the utterance, or some.
    recipe : Recipe

    Returns
    -------
    SegmentFeatures
    """
    spectrogram, mfcc, waveform = utterance.spectrogram, utterance.mfcc, utterance.waveform
    if spectrogram is not None:
        spectrogram = cut_frames(spectrogram, plan, fill=padding_level(recipe)).transpose(0, 2, 1)
    if mfcc is not None:
        mfcc = cut_frames(mfcc, plan, fill=0.0)
    if waveform is not None:
        if recipe.preemphasis_waveform:
            waveform = preemphasise(waveform, recipe.preemphasis)
        waveform = cut_samples(waveform, plan)
        if recipe.unit_variance:
            real = interval_mask(plan.sample_offset, plan.num_samples, constants.SEGMENT_SAMPLES)
            waveform = normalise_waveform(waveform, None if recipe.statistics_over_padding else real)
    return SegmentFeatures(spectrogram, mfcc, waveform, plan.n_frames, plan.num_samples, plan.sample_offset)


def padding_level(recipe):
    """Level of padded spectrogram frames in dB (D2)."""
    return 0.0 if recipe.spectrogram_fill == "peak" else -recipe.top_db


def log_spectrogram(
    waveform, *, win_length=constants.WIN_LENGTH, hop_length=constants.HOP_LENGTH, n_fft=constants.N_FFT,
    n_bins=constants.N_BINS, top_db=80.0, edge="reflect",
):  # fmt: skip
    """Log-magnitude spectrogram in decibels below the loudest bin.

    Frame ``t`` is centred on sample ``t * hop_length``; edges are reflected, as librosa 0.8.1 does, unless
    ``edge="zero"``. The window is a periodic Hamming window.

    Parameters
    ----------
    waveform : np.ndarray, shape (num_samples,), float32
        Mono signal at 16 kHz, amplitude nominally in [-1, 1].
    win_length, hop_length, n_fft : int
        In samples; ``win_length <= n_fft``.
    n_bins : int
        Lowest bins kept; bin ``k`` lies at ``k * 16000 / n_fft`` Hz.
    top_db : float
        Levels more than this below the peak are raised to it, in dB.
    edge : {"reflect", "zero"}

    Returns
    -------
    np.ndarray, shape (n_bins, n_frames), float32, values in [-top_db, 0] dB
        ``n_frames = 1 + num_samples // hop_length``. The peak is taken over all bins before
        cropping. Silence has no peak and comes back as 0 dB everywhere.

    Raises
    ------
    ParameterError
        If a length is not what it should be, or ``waveform`` is not 1-D.
    """
    waveform = _checked(waveform, n_fft, hop_length, top_db, edge)
    check_range("win_length", win_length, hop_length, n_fft, whole=True)
    check_range("n_bins", n_bins, 1, n_fft // 2 + 1, whole=True)
    # float32 transforms are up to 2e-3 dB off near the floor, as much as the golden values allow
    window = torch.hamming_window(win_length, periodic=True, dtype=torch.float64)
    peak, lowest = POWER_FLOOR, []
    for power in _power_spectra(waveform, window, n_fft, hop_length, edge):
        peak = max(peak, power.max())
        lowest.append(power[:, :n_bins].astype(np.float32))
    level = _decibel(np.concatenate(lowest), peak)
    return np.maximum(level, -top_db, out=level).T


def mfcc(
    waveform, *, n_mfcc=constants.N_MFCC, n_mels=constants.N_MELS, n_fft=constants.MFCC_N_FFT,
    hop_length=constants.HOP_LENGTH, top_db=80.0, edge="reflect",
):  # fmt: skip
    """Mel-frequency cepstral coefficients.

    Power spectrum (periodic Hann window) -> HTK mel bands of equal area -> dB -> orthonormal
    DCT-II. Frame ``t`` is centred on sample ``t * hop_length``, edges as in ``log_spectrogram``.

    Parameters
    ----------
    waveform : np.ndarray, shape (num_samples,), float32
    n_mfcc, n_mels : int
        Coefficients kept, of as many mel bands from 0 to 8000 Hz.
    n_fft, hop_length : int
        In samples; the window is as long as ``n_fft``.
    top_db : float
        Range kept below the loudest mel band of the utterance, in dB.
    edge : {"reflect", "zero"}

    Returns
    -------
    np.ndarray, shape (n_frames, n_mfcc), float32
        Coefficient 0 is the mean level times sqrt(n_mels), in dB re full scale.
    """
    waveform = _checked(waveform, n_fft, hop_length, top_db, edge)
    check_range("n_mels", n_mels, 1, n_fft // 2 + 1, whole=True)
    check_range("n_mfcc", n_mfcc, 1, n_mels, whole=True)
    window = torch.hann_window(n_fft, periodic=True)
    groups, dct = _mel_and_dct(n_fft, n_mels, n_mfcc)
    bands = [
        torch.hstack([power[:, bins] @ weights for bins, weights in groups])
        for power in map(torch.from_numpy, _power_spectra(waveform, window, n_fft, hop_length, edge))
    ]
    level = _decibel(torch.cat(bands).numpy())
    level = np.maximum(level, level.max() - float(top_db))
    return (torch.from_numpy(level) @ dct).numpy()


def normalise_waveform(segments, mask=None):
    """Zero mean and unit variance for each segment.

    Parameters
    ----------
    segments : np.ndarray, shape (N, num_samples), float32
    mask : np.ndarray of bool, shape (N, num_samples), optional
        Samples that count for mean and variance; the others become exactly zero. Without it
        all samples count, padding too.

    Returns
    -------
    np.ndarray, shape (N, num_samples), float32

    Examples
    --------
    >>> normalise_waveform(np.float32([[1, 3, 0]]), np.array([[True, True, False]])).round(3).tolist()
    [[-1.0, 1.0, 0.0]]
    """
    result = np.zeros_like(segments)
    for row, segment in enumerate(segments):
        real = slice(None) if mask is None else mask[row]
        values = segment[real]
        if values.size:
            result[row, real] = (values - values.mean()) / np.sqrt(values.var() + VARIANCE_FLOOR)
    return result


def _checked(waveform, n_fft, hop_length, top_db, edge):
    """The waveform, once it and the settings of its analysis can be used."""
    if isinstance(hop_length, Integral) and 0 < hop_length < 80:
        raise ParameterError(
            f"hop_length={hop_length} samples is {1000 * hop_length / constants.SAMPLE_RATE:.1f} ms at {constants.SAMPLE_RATE} Hz, "
            "expected 80 to 640; did you give milliseconds? Use hop_length=160 for 10 ms"
        )
    check_range("hop_length", hop_length, 80, 640, whole=True)
    check_range("n_fft", n_fft, hop_length, constants.SAMPLE_RATE, whole=True)
    check_range("top_db", top_db, 1, 400)
    check_choice("edge", edge, ("reflect", "zero"))
    return check_waveform(waveform, shortest=1)


def _power_spectra(waveform, window, n_fft, hop_length, edge):
    """Power in blocks of frames, shape (up to 96, n_fft // 2 + 1), in the window's precision.

    Frame ``t`` is centred on sample ``t * hop_length``. The window is transformed from its first sample
    on: where it lies in ``n_fft`` changes the phase only.
    """
    half = len(window) // 2
    # numpy reflects as often as it takes, torch refuses signals shorter than half a window
    mode = "reflect" if edge == "reflect" else "constant"
    padded = np.pad(np.asarray(waveform, window.numpy().dtype), (half, n_fft - half), mode=mode)
    frames = torch.from_numpy(padded).unfold(0, n_fft, hop_length)[: 1 + len(waveform) // hop_length]
    window = pad(window, (0, n_fft - len(window)))
    for block in frames.split(BLOCK):
        # real and imaginary parts in turn
        squares = torch.fft.rfft(block * window).numpy().view(padded.dtype)
        squares *= squares
        yield squares[:, ::2] + squares[:, 1::2]


def _decibel(power, reference=1.0):
    """Level re ``reference``; powers below the floor count as the floor. Numpy's logarithm takes six times as long."""
    power = torch.from_numpy(power).clamp(min=POWER_FLOOR)
    return power.div_(float(reference)).log10_().mul_(10.0).numpy()


@lru_cache(maxsize=8)
def _mel_and_dct(n_fft, n_mels, n_mfcc):
    """Mel filters in groups of neighbours (bins, weights), as most of them is zeros, and DCT matrix."""
    shape = {"sample_rate": constants.SAMPLE_RATE, "norm": "slaney", "mel_scale": "htk"}
    filters = melscale_fbanks(n_fft // 2 + 1, 0.0, constants.SAMPLE_RATE / 2, n_mels, **shape)
    groups = []
    for weights in filters.split(MEL_GROUP, dim=1):
        heard = np.flatnonzero(weights.any(dim=1).numpy())
        bins = slice(heard[0], heard[-1] + 1) if len(heard) else slice(0)
        groups.append((bins, weights[bins].contiguous()))
    return groups, create_dct(n_mfcc, n_mels, norm="ortho")


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


def spectrogram_pixels(spectrogram, scaler, *, size=constants.IMAGE_SIZE):
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


def spectrogram_image(spectrogram, scaler):
    """Input of the spectrogram CNN: three equal channels in ImageNet's mean and deviation.

    Returns
    -------
    torch.Tensor, shape (B, 3, height, width), float32
    """
    pixels = spectrogram_pixels(spectrogram, scaler) / 255.0
    mean = torch.tensor(constants.IMAGENET_MEAN, device=pixels.device)[:, None, None]
    std = torch.tensor(constants.IMAGENET_STD, device=pixels.device)[:, None, None]
    return (pixels[:, None] - mean).div_(std)
