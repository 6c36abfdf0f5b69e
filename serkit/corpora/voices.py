"""The voices of the demo corpus: eSpeak NG, and how it acts an emotion by prosody alone.

What is acted here follows the reviews of emotional speech [1]_ [2]_, in short: anger is loud and
fast, with a raised pitch and a tense voice rich in high frequencies; joy and excitement are as
fast, with the highest and widest pitch and no tension; sadness is slow and soft, low and flat in
pitch, with long pauses and a dull voice. People mistake anger for joy, which share their
activation, and sadness for calm speech. Here all four are acted so clearly that a small network
learns them in a dozen epochs; but every utterance draws how strongly the emotion is acted, and every
cue wanders on its own.

eSpeak NG is a C library with global state, and not all of it can be reset: the phase of the
oscillator and of the flutter run on from one utterance to the next. The same sentence therefore
sounds minutely different depending on what was said before. So every list of requests is spoken
in order by a process of its own, and the same list gives the same samples, always.

References
----------
.. [1] R. Banse, K. R. Scherer, "Acoustic profiles in vocal emotion expression", Journal of
   Personality and Social Psychology 70(3), 1996.
.. [2] P. N. Juslin, P. Laukka, "Communication of emotions in vocal expression and music
   performance: different channels, same code?", Psychological Bulletin 129(5), 2003.
"""

import ctypes
import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from scipy.signal import lfilter

from serkit.constants import SAMPLE_RATE
from serkit.errors import CorpusError
from serkit.files import read_toml

DEMO = read_toml(__file__, "demo.toml")
ESPEAK_RATE = 22_050  # Hz, of everything eSpeak NG synthesises
SPEECH_DB = -26.0  # dB re full scale, RMS of neutral speech
ROOM_DB = (-64.0, -61.0)  # dB re full scale, RMS of the room noise; each session has its own
PEAK_LIMIT = 0.98  # of full scale

# from speak_lib.h
_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: samples go to the callback, nothing is played
_DONT_EXIT = 0x8000  # return an error instead of ending the process
_CHARS_UTF8_SSML = 1 | 0x10
_RATE, _VOLUME, _PITCH, _PITCH_RANGE, _PUNCTUATION, _CAPITALS, _GAP = range(1, 8)
_SYNTH_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)

# this file as a program, without the rest of the package: it starts in a fraction of a second
_WORKER = "import runpy, sys; sys.path.insert(0, {!r}); runpy.run_path({!r}, run_name='__main__')"


def speak(requests):
    """Speak requests one after the other.

    Parameters
    ----------
    requests : list of dict
        As `to_request` makes them.

    Returns
    -------
    list of np.ndarray, shape (num_samples,), float32 in [-1, 1), 22,050 Hz
        One for each request, in order. They depend on the whole list before them (see the
        module's text), never on what the calling process did.

    Raises
    ------
    CorpusError
        If eSpeak NG can't be loaded, lacks a voice, or ends before the last request.
    """
    command = [sys.executable, "-c", _WORKER.format(str(Path(__file__).parents[2]), __file__)]
    content = json.dumps(requests).encode()
    worker = subprocess.run(command, input=content, capture_output=True)
    if worker.returncode:
        complaint = worker.stderr.decode(errors="replace").strip().splitlines()
        reason = complaint[-1] if complaint else f"it ended with code {worker.returncode}"
        cure = "reinstall it with `python -m pip install --force-reinstall espeakng-loader` and try again"
        raise CorpusError(f"eSpeak NG can't speak: {reason}; {cure}")
    with np.load(io.BytesIO(worker.stdout)) as spoken:
        return [samples.astype(np.float32) / 32768 for samples in spoken.values()]


def _serve():
    """Worker: requests as JSON on stdin, their samples as an archive of int16 arrays on stdout."""
    library = _load_library()
    chunks = []

    @_SYNTH_CALLBACK
    def collect(samples, count, _events):
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    library.espeak_SetSynthCallback(collect)  # `collect` lives as long as this function runs
    spoken = []
    for request in json.load(sys.stdin):
        chunks.clear()
        _synthesise(library, **request)
        spoken.append(np.frombuffer(b"".join(chunks), np.int16))
    np.savez(sys.stdout.buffer, *spoken)


def _load_library():
    import espeakng_loader  # only the worker needs it, so only the worker can fail on it

    data_path = espeakng_loader.get_data_path()
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, str(data_path).encode(), _DONT_EXIT)
    if rate != ESPEAK_RATE:
        # its buffer for the path holds 160 characters; a longer one looks like missing data
        sys.exit(f"no usable data in {data_path} ({len(str(data_path))} characters, expected under 140)")
    return library


def _synthesise(library, ssml, voice, rate=175, pitch=50, pitch_range=50, gap=0):
    """All that can be reset is reset: voice, every parameter, the seed of the breath noise."""
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        sys.exit(f"there is no voice {voice!r}")
    values = {
        _RATE: rate, _PITCH: pitch, _PITCH_RANGE: pitch_range, _GAP: gap, _VOLUME: 100, _PUNCTUATION: 0, _CAPITALS: 0,
    }  # fmt: skip
    for parameter, value in values.items():
        library.espeak_SetParameter(parameter, value, 0)
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    text = f"<speak>{ssml}</speak>".encode()
    if library.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 1, 0, _CHARS_UTF8_SSML, None, None) != 0:
        sys.exit(f"it refused {ssml!r}")
    library.espeak_Synchronize()


STRENGTH = (0.60, 1.20)  # how much of its profile an utterance shows, drawn evenly
# standard deviations of what wanders from utterance to utterance, whatever the emotion
RATE_SD, PITCH_SD_ST, RANGE_SD, LEVEL_SD_DB, TILT_SD_DB, PAUSE_SD = 0.05, 0.8, 0.12, 2.0, 1.5, 0.3
EDGE_S = (0.10, 0.35)  # s, silence before and after the turn


@dataclass(frozen=True)
class Delivery:
    """One utterance's prosody, all draws done."""

    strength: float  # 0 would be neutral, 1 the full profile
    rate: int  # words per minute
    pitch: int  # eSpeak NG's scale, 0 to 100
    pitch_range: int  # eSpeak NG's scale, 0 to 99
    level_db: float  # dB re full scale
    tilt_db: float
    pause_ms: int
    gap: int  # 10 ms
    edges_s: tuple  # s, silence before and after


def draw_delivery(emotion, speaker, rng):
    """Draw how a speaker acts an emotion this time.

    Parameters
    ----------
    emotion : str
        Tag; its profile stands in ``demo.toml``.
    speaker : dict
        As in ``demo.toml``.
    rng : np.random.Generator

    Returns
    -------
    Delivery
    """
    full, rest = (DEMO["emotions"][tag]["profile"] for tag in (emotion, "neu"))
    strength = rng.uniform(*STRENGTH)
    noise = rng.standard_normal(6)
    mixed = {name: (1 - strength) * value + strength * full[name] for name, value in rest.items()}
    pitch_st = speaker["pitch_st"] + mixed["pitch_st"] + PITCH_SD_ST * noise[1]
    pitch_range = speaker["pitch_range"] * mixed["pitch_range"] * np.exp(RANGE_SD * noise[2])
    return Delivery(
        strength=round(strength, 3),
        rate=_whole(speaker["rate"] * mixed["rate"] * np.exp(RATE_SD * noise[0]), 90, 300),
        pitch=_whole(50 + pitch_st * 50 / 12, 0, 100),  # the scale is 12 semitones for 50 steps
        pitch_range=_whole(50 * pitch_range, 5, 99),
        level_db=round(SPEECH_DB + mixed["level_db"] + LEVEL_SD_DB * noise[3], 2),
        tilt_db=round(mixed["tilt_db"] + TILT_SD_DB * noise[4], 2),
        pause_ms=_whole(1000 * mixed["pause_s"] * np.exp(PAUSE_SD * noise[5]), 0, 900),
        gap=_whole(mixed["gap"], 0, 20),
        edges_s=tuple(round(edge, 3) for edge in rng.uniform(*EDGE_S, size=2)),
    )


def _whole(value, low, high):
    return int(np.clip(round(float(value)), low, high))


def to_request(text, speaker, delivery):
    """What eSpeak NG is asked to say, as JSON takes it; every comma gets the delivery's pause.

    ``ssml`` is the text with SSML marks, without the <speak> around it; the others are as in `Delivery`.
    """
    request = {name: getattr(delivery, name) for name in ("rate", "pitch", "pitch_range", "gap")}
    ssml = text.replace(",", f',<break time="{delivery.pause_ms}ms"/>')
    return request | {"ssml": ssml, "voice": speaker["voice"]}


def tilt(waveform, tilt_db):
    """First-order spectral tilt, as a tense or a soft voice has it.

    Parameters
    ----------
    waveform : np.ndarray, shape (num_samples,)
    tilt_db : float
        Gain at half the sample rate minus gain at 0 Hz, in dB.

    Returns
    -------
    np.ndarray, shape (num_samples,)

    Examples
    --------
    A gain ratio of 3 is 9.54 dB and needs the difference filter ``y[n] = x[n] - 0.5 x[n-1]``:

    >>> tilt(np.array([1.0, 0.0, 0.0]), 20 * np.log10(3)).tolist()
    [1.0, -0.5, 0.0]
    """
    ratio = 10 ** (abs(tilt_db) / 20)
    coefficient = round((ratio - 1) / (ratio + 1), 12)
    if tilt_db >= 0:
        return lfilter([1.0, -coefficient], [1.0], waveform)
    return lfilter([1.0], [1.0, -coefficient], waveform)


def finish(spoken, delivery, room_db, rng):
    """Bring eSpeak NG's output to 16 kHz, give it voice quality, level, silence and a room.

    Parameters
    ----------
    spoken : np.ndarray, shape (num_samples,)
        At 22,050 Hz, not all zero; zeros before and after are cut off.
    delivery : Delivery
    room_db : float
        RMS of the room noise in dB re full scale.
    rng : np.random.Generator
        For the noise.

    Returns
    -------
    np.ndarray, shape (num_samples,), float32 in [-1, 1], 16 kHz
    """
    audible = np.flatnonzero(spoken)
    speech = spoken[audible[0] : audible[-1] + 1].astype(np.float64)
    speech = soxr.resample(speech, ESPEAK_RATE, SAMPLE_RATE)
    speech = tilt(speech, delivery.tilt_db)
    gain = 10 ** (delivery.level_db / 20) / np.sqrt(np.mean(speech**2))
    speech = speech * min(gain, PEAK_LIMIT / np.abs(speech).max())
    before, after = (round(edge * SAMPLE_RATE) for edge in delivery.edges_s)
    waveform = np.pad(speech, (before, after))
    noise = lfilter([1.0], [1.0, -0.9], rng.standard_normal(len(waveform)))  # rooms hum more than they hiss
    waveform += noise * 10 ** (room_db / 20) / np.sqrt(np.mean(noise**2))
    return np.clip(waveform, -1, 1).astype(np.float32)


if __name__ == "__main__":
    _serve()
