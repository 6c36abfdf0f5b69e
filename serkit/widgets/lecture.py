"""What notebooks play and draw to explain a step: players, windows, mel bands, encoder frames.

Pictures of results are in ``serkit.figures``; here is what only a lecture needs.
"""

import numpy as np
from IPython.display import Audio, display
from matplotlib.axes import Axes

from serkit.constants import IMAGE_SIZE, SAMPLE_RATE
from serkit.errors import ParameterError
from serkit.features.audio import preemphasise
from serkit.features.segments import cut_samples, plan_segments
from serkit.figures import BLUE, ORANGE, OTHER_COLOURS, VERMILLION, legend_above

PEAK = 0.9  # of full scale, where players are brought to equal peaks
LOBE_POINTS = 2**16  # of the transform that shows a window's lobes: 0.24 Hz apart


def play(sounds, *, equal_peaks=False):
    """A player for each sound, under its name.

    Parameters
    ----------
    sounds : mapping of str to np.ndarray, shape (num_samples,)
        Mono at 16 kHz.
    equal_peaks : bool
        Bring every sound to the same peak. By default each is as loud as it is, and what lies
        beyond full scale is clipped.
    """
    for name, sound in sounds.items():
        peak = np.abs(sound).max(initial=0.0)
        scaled = sound * (PEAK / peak) if equal_peaks and peak else sound
        print(name)
        display(Audio(np.clip(scaled, -1, 1), rate=SAMPLE_RATE, normalize=False))


def segment_sounds(waveform, recipe):
    """The segments of an utterance as they sound, padding included.

    Parameters
    ----------
    waveform : np.ndarray, shape (num_samples,), float32
        At 16 kHz.
    recipe : Recipe

    Returns
    -------
    np.ndarray, shape (N, 48000), float32
        What the recipe hands to the speech encoder, before it is brought to unit variance.
    """
    if recipe.preemphasis_waveform:
        waveform = preemphasise(waveform, recipe.preemphasis)
    return cut_samples(waveform, plan_segments(len(waveform), recipe))


def split_at(waveform, frequency):
    """What of a sound lies below a frequency, and what above; together they are the sound again.

    Parameters
    ----------
    waveform : np.ndarray, shape (num_samples,)
        At 16 kHz.
    frequency : float
        Hz, from 0 to 8000.

    Returns
    -------
    below, above : np.ndarray, shape (num_samples,), float32

    Examples
    --------
    >>> below, above = split_at(np.array([1.0, -1.0, 1.0, -1.0]), 4000)  # 8 kHz, the highest there is
    >>> below.tolist(), above.tolist()
    ([0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 1.0, -1.0])
    """
    if not 0 <= frequency <= SAMPLE_RATE / 2:
        raise ParameterError(f"frequency={frequency!r} Hz, expected 0 to {SAMPLE_RATE // 2} Hz; use 4000")
    n = len(waveform)
    high = np.fft.rfftfreq(n, 1 / SAMPLE_RATE) >= frequency
    above = np.fft.irfft(np.fft.rfft(waveform) * high, n)
    return (waveform - above).astype(np.float32), above.astype(np.float32)


def plot_window(frame, window, ax: Axes) -> Axes:
    """One frame, the window that it is multiplied with, and what is left.

    Parameters
    ----------
    frame, window : np.ndarray, shape (num_samples,)
        At 16 kHz; the window lies between 0 and 1.
    ax : Axes
    """
    if np.shape(frame) != np.shape(window):
        raise ParameterError(
            f"frame has {len(frame)} samples, window {len(window)}: expected the same number"
        )
    milliseconds = 1000 * np.arange(len(frame)) / SAMPLE_RATE
    peak = np.abs(frame).max() or 1.0
    ax.plot(milliseconds, frame / peak, color="0.7", linewidth=0.6, label="frame")
    ax.plot(milliseconds, frame * window / peak, color=BLUE, linewidth=0.6, label="windowed")
    ax.plot(milliseconds, window, color=VERMILLION, label="window")
    ax.set(xlabel="time in the frame (ms)", ylabel="amplitude, peak = 1", xlim=(0, milliseconds[-1]))
    return legend_above(ax)


def plot_mel_bands(bands, ax: Axes, *, every=8) -> Axes:
    """The filters that a mel spectrum adds up with, as triangles over frequency.

    Parameters
    ----------
    bands : np.ndarray, shape (n_mels, n_fft // 2 + 1)
        Weights of the bins, from 0 Hz to half the sample rate.
    ax : Axes
    every : int
        Draw every so-manieth band: all of them would be one blot.
    """
    kilohertz = np.linspace(0, SAMPLE_RATE / 2000, bands.shape[1])
    for number, weights in enumerate(bands[::every] / bands.max()):
        ax.plot(kilohertz, weights, color=(BLUE, ORANGE)[number % 2], linewidth=0.7)
    ax.set(xlabel="frequency (kHz)", ylabel="weight, largest = 1", xlim=(0, kilohertz[-1]), ylim=(0, 1.05))
    return ax


def plot_lobes(windows_ms, ax: Axes, *, span=250.0) -> Axes:
    """What one pure tone becomes in the spectrum, for Hamming windows of several lengths.

    Parameters
    ----------
    windows_ms : sequence of float
        Lengths in ms.
    ax : Axes
    span : float
        Hz shown on each side of the tone.
    """
    hz = np.fft.fftshift(np.fft.fftfreq(LOBE_POINTS, 1 / SAMPLE_RATE))
    near = np.abs(hz) <= span
    for ms, colour in zip(windows_ms, (ORANGE, BLUE, VERMILLION, *OTHER_COLOURS), strict=False):
        lobe = np.abs(np.fft.fftshift(np.fft.fft(np.hamming(round(ms * SAMPLE_RATE / 1000)), LOBE_POINTS)))
        ax.plot(hz[near], 20 * np.log10(lobe[near] / lobe.max() + 1e-6), color=colour, label=f"{ms:g} ms")
    ax.set(xlabel="distance from the tone (Hz)", ylabel="level (dB)", xlim=(-span, span), ylim=(-60, 3))
    return legend_above(ax)


def plot_picture(pixels, ax: Axes) -> Axes:
    """A segment as the CNN gets it: 8-bit grey, highest frequency on top.

    Parameters
    ----------
    pixels : np.ndarray, shape (256, 384)
        0 black, 255 white.
    ax : Axes
    """
    if np.shape(pixels) != IMAGE_SIZE:
        raise ParameterError(f"pixels: shape {np.shape(pixels)}, expected {IMAGE_SIZE}; give one picture")
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=255, aspect="auto")
    ax.set(xlabel="pixel column", ylabel="pixel row")
    ax.spines[:].set_visible(True)
    return ax


def plot_fields(waveform, ax: Axes, *, field, hop, first=0, n_frames=6) -> Axes:
    """The stretch of samples that each of some neighbouring encoder frames looks at.

    Parameters
    ----------
    waveform : np.ndarray, shape (num_samples,)
        At 16 kHz; only what the frames look at is drawn.
    ax : Axes
    field, hop : int
        Receptive field and hop of the encoder in samples.
    first, n_frames : int
        Number of the first frame, and how many to draw.

    Raises
    ------
    ParameterError
        If the waveform ends before the first frame begins.
    """
    start, end = first * hop, (first + n_frames - 1) * hop + field
    shown = waveform[start:end]
    if not len(shown):
        raise ParameterError(
            f"first={first}: frame {first} begins at sample {start}, the waveform has {len(waveform)}"
        )
    seconds = (start + np.arange(len(shown))) / SAMPLE_RATE
    ax.plot(seconds, shown, color=BLUE, linewidth=0.7)
    peak = np.abs(shown).max() or 1.0
    for row, number in enumerate(range(first, first + n_frames)):
        level, begin = -peak * (1.3 + 0.22 * row), number * hop / SAMPLE_RATE
        colour = (VERMILLION, ORANGE)[row % 2]
        ax.plot([begin, begin + field / SAMPLE_RATE], [level, level], color=colour, linewidth=3)
        ax.text(begin, level, f"{number}  ", ha="right", va="center", fontsize=7)
    margin = 0.05 * (end - start)
    ax.set_xlim((start - margin) / SAMPLE_RATE, end / SAMPLE_RATE)
    ax.set(xlabel="time (s)", ylabel="amplitude", yticks=[0])
    return ax


def plot_vectors(vectors, ax: Axes, *, hop, n_real=None) -> Axes:
    """One vector for each encoder frame as a picture, with the end of the speech dashed.

    Parameters
    ----------
    vectors : np.ndarray, shape (n_frames, D)
    ax : Axes
    hop : int
        Samples at 16 kHz from one frame to the next.
    n_real : int, optional
        How many first frames are speech.
    """
    limit = float(np.percentile(np.abs(vectors), 99)) or 1.0
    extent = (0, len(vectors) * hop / SAMPLE_RATE, -0.5, vectors.shape[1] - 0.5)
    image = ax.imshow(vectors.T, origin="lower", aspect="auto", extent=extent, cmap="PuOr_r")
    image.set_clim(-limit, limit)
    if n_real is not None:
        ax.axvline(n_real * hop / SAMPLE_RATE, color="black", linestyle="--", linewidth=0.8)
    ax.set(xlabel="time (s); dashed: end of the speech", ylabel="dimension of the vector")
    ax.figure.colorbar(image, ax=ax, label="hidden state", pad=0.02, extend="both")
    return ax
