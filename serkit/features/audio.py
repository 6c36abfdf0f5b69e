"""From a sound file to a 16 kHz mono waveform, and the pre-emphasis that the paper's code applies."""

import os
import shlex
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import soundfile
import soxr

from serkit.constants import MAX_SAMPLES, MIN_SAMPLES, PREEMPHASIS, SAMPLE_RATE
from serkit.corpora.sound_files import UNKNOWN_LENGTH, Stream, check_rate, cut_short, is_joined, shown_path
from serkit.errors import AudioError, ParameterError, check_range, reported_as

PCM16 = 2**15  # int16 sample = amplitude x this
MAX_AMPLITUDE = 1e10  # more than integers of 32 bits; the power of much more is infinite
BLOCK = 2**16  # samples of all channels read at once: no header decides how much memory is taken
# of phones and browsers
AV_SUFFIXES = (".m4a", ".aac", ".mp4", ".mov", ".3gp", ".amr", ".webm", ".mkv", ".mka")
AV_FORMATS = "mov,aac,amr,matroska,ac3,caf,ogg,mp3"
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
    with open_sound(path) as sound:
        rate = sound.samplerate
        longest = MAX_SAMPLES * rate // SAMPLE_RATE  # beyond, it is refused anyway
        while num_samples <= longest and len(channels := read_channels(sound, BLOCK // sound.channels)):
            pieces.append(downmix(channels))
            num_samples += len(channels)
    return check_waveform(resample(np.concatenate(pieces), rate), subject=shown_path(path))


@contextmanager
def open_sound(path):
    """A sound file, open for reading.

    What soundfile doesn't know (m4a, AAC, webm, video), or knows the beginning of (joined Ogg and MP3 recordings), is
    decoded by PyAV into a temporary file, where it is installed.

    Yields
    ------
    serkit.corpora.sound_files.Stream
        ``promised_s`` is how long it is by what the file announces, in s; 0 if it does not say.

    Raises
    ------
    AudioError
        If the file is missing, is no audio, has a rate that no sound has, or can't be decoded.
    """
    path = Path(path)
    if not os.path.isfile(path):  # False too for a name that is too long
        raise AudioError(f"{shown_path(path)}: no such file; check the path")
    with _decoding(path):
        source, announced_s = _openable(path)
        with Stream(source) as sound:
            check_rate(sound.samplerate, path)
            announced, held = cut_short(sound)
            known_s = sound.frames / sound.samplerate if sound.frames < UNKNOWN_LENGTH else 0.0
            sound.path = path
            sound.promised_s = known_s * announced / held if held else max(known_s, announced_s)
            yield sound


def _openable(path):
    """What soundfile can open of a file, and the seconds that it announces beside; 0: what soundfile says."""
    name, joined = shown_path(path), is_joined(path)
    fault = AudioError(f"{name}: several recordings in one file, and not all can be read; split it")
    try:
        if not joined:
            Stream(os.fsencode(path)).close()
            return os.fsencode(path), 0.0
    except soundfile.LibsndfileError as error:
        fault = error
    try:
        import av
    except ImportError:
        command = shlex.join(["ffmpeg", "-i", name, str(Path(name).with_suffix(".wav"))])
        about = f"{name}: soundfile can't read {'all of ' * joined}this"
        if joined or path.suffix.lower() in AV_SUFFIXES:
            fault = AudioError(f"{about}; pip install 'serkit[av]', or convert it: {command}")
        raise fault from None
    decoded = tempfile.TemporaryFile()  # noqa: SIM115, it is read after this
    try:  # a file object, and these formats alone: a playlist could name other files, or addresses
        with open(path, "rb") as file, av.open(file, options={"format_whitelist": AV_FORMATS}) as container:
            sound, seconds = container.streams.audio[0], (container.duration or 0) / av.time_base
            known = 0.0 if container.format.name == "aac" else seconds  # that one is guessed
            resampler = av.AudioResampler(format="flt", layout=sound.layout, rate=sound.rate)
            with soundfile.SoundFile(decoded, "w", sound.rate, sound.channels, "FLOAT", format="W64") as out:
                for packet in container.demux(sound):
                    with suppress(av.FFmpegError):  # what is damaged is left out
                        for part in (part for frame in packet.decode() for part in resampler.resample(frame)):
                            out.write(part.to_ndarray().reshape(-1, sound.channels))
    except (av.FFmpegError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise fault from error  # no decoder, no layout
    decoded.seek(0)
    return decoded, known


def _decoding(path):
    """Report what goes wrong while a sound is read; LibsndfileError is a RuntimeError."""
    about, cure = f"{shown_path(path)}: not readable as audio", "convert it to WAV or FLAC"
    return reported_as(AudioError, about, cure, (OSError, RuntimeError))


def read_channels(sound, frames):
    """The next ``frames`` samples of a sound file that `open_sound` has opened.

    Returns
    -------
    np.ndarray, shape (num_samples, n_channels), float32
        Shorter at the end of the file, and empty behind it.

    Raises
    ------
    AudioError
        If they can't be decoded.
    """
    with _decoding(sound.path):
        return sound.read(frames, dtype="float32", always_2d=True)


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
        raise ParameterError(f"{subject}: {waveform.shape}, expected (num_samples,); average the channels")
    if not np.issubdtype(waveform.dtype, np.floating):
        wanted = "expected float in [-1, 1]; read files with serkit.features.read"
        raise ParameterError(f"{subject}: dtype {waveform.dtype}, {wanted}")
    if not shortest <= len(waveform) <= MAX_SAMPLES:
        expected = f"{shortest / SAMPLE_RATE:g} to {MAX_SAMPLES // SAMPLE_RATE} s at 16 kHz"
        about = f"{subject}: {len(waveform) / SAMPLE_RATE:.3f} s long, expected {expected}"
        raise AudioError(f"{about}; leave it out, or cut a longer recording into turns")
    usable = np.abs(waveform) <= MAX_AMPLITUDE  # not NaN
    if not usable.all():
        at, limit = int(np.argmin(usable)), f"-{MAX_AMPLITUDE:g} to {MAX_AMPLITUDE:g}"
        raise AudioError(f"{subject}: sample {at} is {waveform[at]}, expected {limit}; decode the file again")
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
