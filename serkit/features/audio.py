"""From a sound file to a 16 kHz mono waveform, and the pre-emphasis that the paper's code applies."""

import io
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import soxr

from serkit.constants import MAX_SAMPLES, MIN_SAMPLES, PREEMPHASIS, SAMPLE_RATE
from serkit.corpora.sound_files import Stream, check_rate, joined_parts, shown_path
from serkit.errors import AudioError, ParameterError, check_range

PCM16 = 2**15  # int16 sample = amplitude x this
MAX_AMPLITUDE = 1e10  # more than integers of 32 bits; the power of much more is infinite
BLOCK = 2**20  # samples of all channels read at once: no header decides how much memory is taken
SOXR_QUALITY = "HQ"  # band-limited, 20 bits: finer than the sound that comes in


def read(path):
    """Read a sound file as 16 kHz mono.

    Channels are averaged; other rates are resampled with soxr's high quality, band-limited filter.

    Parameters
    ----------
    path : path
        Any format that soundfile reads: WAV, FLAC, OGG, MP3, AIFF, ...

    Returns
    -------
    np.ndarray, shape (num_samples,), float32, amplitude nominally in [-1, 1]

    Raises
    ------
    AudioError
        If the file is missing, is no audio, or holds no usable waveform.
    """
    pieces, num_samples = [np.zeros(0, np.float32)], 0
    for sound in open_sounds(path):
        rate = sound.samplerate
        longest = MAX_SAMPLES * rate // SAMPLE_RATE  # beyond, it is refused anyway
        while num_samples <= longest and len(channels := read_channels(sound, BLOCK // sound.channels)):
            pieces.append(downmix(channels))
            num_samples += len(channels)
    return check_waveform(resample(np.concatenate(pieces), rate), subject=shown_path(path))


def open_sounds(path):
    """The recordings of a sound file, each open for reading; more than one only if some were joined.

    Yields
    ------
    serkit.corpora.sound_files.Stream
        All of one rate and number of channels.

    Raises
    ------
    AudioError
        If the file is missing, is no audio, has a rate that no sound has, or can't be decoded.
    """
    path, shown = Path(path), shown_path(path)
    if not path.is_file():
        raise AudioError(f"{shown}: no such file; check the path")
    kinds = set()
    try:
        starts, _ = joined_parts(path)
        content = path.read_bytes() if len(starts) > 1 else None
        for start, end in pairwise([*(starts or [0]), None]):
            source = os.fsencode(path) if content is None else io.BytesIO(content[start:end])
            with Stream(source) as sound:
                check_rate(sound.samplerate, path)
                kinds.add((sound.samplerate, sound.channels))
                if len(kinds) > 1:
                    raise AudioError(
                        f"{shown}: joined of recordings that differ in rate or channels; split it"
                    )
                yield sound
    except (OSError, soundfile.SoundFileError, RuntimeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(source, error):
    name = shown_path(source) if isinstance(source, str | bytes | os.PathLike) else "a joined recording"
    reason = str(error).rpartition(": ")[2]  # libsndfile repeats the path
    return AudioError(f"{name}: not readable as audio ({reason}); convert it to WAV or FLAC")


def read_channels(sound, frames):
    """The next ``frames`` samples of an open sound file.

    Returns
    -------
    np.ndarray, shape (num_samples, n_channels), float32
        Shorter at the end of the file, and empty behind it.

    Raises
    ------
    AudioError
        If they can't be decoded.
    """
    try:
        return sound.read(frames, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise _unreadable(sound.name, error) from error


def downmix(channels):
    """Average of all channels.

    >>> downmix(np.float32([[1, 0], [0.5, 0.5]])).tolist()
    [0.5, 0.5]
    """
    return channels.mean(axis=1) if channels.shape[1] > 1 else channels[:, 0]


def resample(waveform, sample_rate):
    """A mono waveform at 16 kHz, ``resampled_length`` samples long."""
    if sample_rate == SAMPLE_RATE or not len(waveform):
        return waveform
    wanted = resampled_length(len(waveform), sample_rate)
    waveform = soxr.resample(waveform, sample_rate, SAMPLE_RATE, quality=SOXR_QUALITY)[:wanted]
    return np.pad(waveform, (0, wanted - len(waveform)))  # soxr rounds, the plan needs one rule


def resampled_length(num_samples, sample_rate):
    """Samples at 16 kHz of a sound of ``num_samples`` at ``sample_rate``, rounded up.

    >>> resampled_length(48000, 48000), resampled_length(48001, 48000)
    (16000, 16001)
    """
    return -(-num_samples * SAMPLE_RATE // sample_rate)


def check_waveform(waveform, *, subject="waveform", shortest=MIN_SAMPLES):
    """Refuse what can't be analysed, before any computing.

    Parameters
    ----------
    waveform : np.ndarray, shape (num_samples,), float
        Mono signal at 16 kHz.
    subject : str, optional
        Who the message is about.
    shortest : int, optional
        Samples; default 25 ms of them.

    Returns
    -------
    np.ndarray, shape (num_samples,), float32
        Silence passes: its features are defined (see ``serkit.features.views``).

    Raises
    ------
    ParameterError
        If it is not a 1-D array of floats.
    AudioError
        If it is shorter than that, longer than 10 min, or holds samples that are no sound.
    """
    waveform = np.asarray(waveform)
    if waveform.ndim != 1:
        raise ParameterError(
            f"{subject}: shape {waveform.shape}, expected (num_samples,); average the channels"
        )
    if not np.issubdtype(waveform.dtype, np.floating):
        raise ParameterError(
            f"{subject}: dtype {waveform.dtype}, expected float in [-1, 1]; try features.read"
        )
    if not shortest <= len(waveform) <= MAX_SAMPLES:
        raise AudioError(
            f"{subject}: {len(waveform) / SAMPLE_RATE:.3f} s long, expected {shortest / SAMPLE_RATE:g} to "
            f"{MAX_SAMPLES // SAMPLE_RATE} s at 16 kHz; leave it out, or cut a longer recording into turns"
        )
    usable = np.abs(waveform) <= MAX_AMPLITUDE  # not NaN
    if not usable.all():
        raise AudioError(
            f"{subject}: sample {int(np.argmin(usable))} is {waveform[np.argmin(usable)]}, "
            f"expected -{MAX_AMPLITUDE:g} to {MAX_AMPLITUDE:g}; decode the file again"
        )
    return waveform.astype(np.float32, copy=False)


def preemphasise(waveform, coefficient=PREEMPHASIS):
    """Lift high frequencies: ``y[n] = x[n] - coefficient * x[n-1]``, ``y[0] = x[0]``.

    Parameters
    ----------
    waveform : np.ndarray, shape (num_samples,), float32
    coefficient : float
        0 (unchanged) to below 1.

    Returns
    -------
    np.ndarray, shape (num_samples,), float32

    Examples
    --------
    >>> preemphasise(np.float32([1, 1, 0]), 0.5).tolist()
    [1.0, 0.5, -0.5]
    """
    check_range("coefficient", coefficient, 0, 1)
    waveform = check_waveform(waveform, shortest=1)
    emphasised = waveform.copy()
    emphasised[1:] -= np.float32(coefficient) * waveform[:-1]
    return emphasised
