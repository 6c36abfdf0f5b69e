"""A recording of any length, read once from beginning to end in pieces that fit into memory.

What the model knows as an utterance is a turn of seconds, and its levels are relative to it: the
spectrogram is in dB below the utterance's own peak, the MFCC's floor hangs on its loudest band. So a
sound of up to ``UTTERANCE_S`` is one utterance, read exactly as in training. A longer one is cut
into windows of ``WINDOW_S``, and each is treated like an utterance: as long as the longer turns of
the corpora, a door that slams lifts the reference of 15 s and not of an hour, and a window of five
segments seldom holds nothing but a pause, whose noise would be lifted to full level.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr

from serkit.constants import SAMPLE_RATE, SEGMENT_S, SEGMENT_SAMPLES, SILENCE_DBFS
from serkit.corpora.sound_files import is_finished
from serkit.errors import AudioError
from serkit.features import audio
from serkit.features.segments import count_segments
from serkit.files import read_toml

UTTERANCE_S = 30  # s; up to here one utterance: about the longest turn of IEMOCAP
WINDOW_S = 15  # s = 5 segments; longer sounds are cut into these
SHORT_S = 1.0  # s; below, two thirds of the only segment are padding
MISSING_S = 0.1  # s that may lack at the end of a file before it is said; encoders announce some too much
QUIET_DBFS = -36.0  # peak; 16 bits have 10 left here: 96 dB of range less 36
CLIPPED_RUN = 3  # samples at full scale in a row; one or two may be an honest peak
FULL_SCALE = {  # largest positive amplitude that the format can hold; all others: that of 16 bits
    "PCM_U8": 127 / 128, "PCM_S8": 127 / 128, "ULAW": 32124 / 32768, "ALAW": 32256 / 32768,
}  # fmt: skip
LIMITS = {"window_s": WINDOW_S, "silence_dbfs": SILENCE_DBFS, "quiet_dbfs": QUIET_DBFS, "run": CLIPPED_RUN}
NOTICES = read_toml(__file__, "notices.toml")


class Notice(NamedTuple):
    """Something that a reader of the result should know about the recording."""

    kind: str  # too short, incomplete, long, silent parts, silence, quiet, clipping, sample rate or channels
    text: str  # the kind, and what was measured, in a sentence
    advice: str  # what to do about it


class Recording:
    """One sound file on its way to the model.

    Parameters
    ----------
    path : path
        Any format that soundfile or PyAV reads, any rate, any number of channels.
    channel : int, optional
        The only one that is read, from 1; 0: the average of all.

    Attributes
    ----------
    sample_rate : int
        Of the file, in Hz.
    channels : int
    num_samples : int
        Read so far, of each channel, at the file's rate.
    announced_s : float
        Seconds that the file's header promises; 0 if it does not say.
    peak : float
        Largest amplitude so far of the average of all channels.
    full, clipped : int
        Samples at full scale so far, over all channels, and those of them that end three in a row.
    """

    def __init__(self, path, channel=0):
        self.path, self.channel = Path(path), channel
        with audio.open_sound(self.path) as sound:
            self.sample_rate, self.channels = sound.samplerate, sound.channels
            self.announced_s = sound.promised_s
            self._full_scale = FULL_SCALE.get(sound.subtype, 32767 / 32768)
        if channel > self.channels:
            has = f"has channels 1 to {self.channels}, expected channel {channel}"
            raise AudioError(f"{path}: {has}; give another")
        self.num_samples = self.n_windows = self.full = self.clipped = 0
        self.peak, self.silent_windows = 0.0, []  # where those windows begin, in s

    @property
    def duration_s(self):
        """Seconds read so far."""
        return self.num_samples / self.sample_rate

    def windows(self, recipe):
        """Read the file, window by window.

        Parameters
        ----------
        recipe : Recipe
            Decides how a window will be cut, and by that how long one is.

        Yields
        ------
        start : int
            First sample of the window in the recording, at 16 kHz.
        waveform : np.ndarray, shape (num_samples,), float32
            Mono, 16 kHz. A sound of up to 30 s comes as one, equal to ``serkit.features.audio.read``. Of a
            longer one, each has 15 s and only the last 3 to 18 s, so that none is padded.

        Raises
        ------
        AudioError
            If the file can't be decoded, is shorter than 25 ms, or holds NaN or infinite samples.
        """
        length, start, pending = window_length(recipe), 0, np.zeros(0, np.float32)
        for block in _resampled(self._mono_seconds(), self.sample_rate):
            pending = np.concatenate([pending, block])
            long = start > 0 or len(pending) > UTTERANCE_S * SAMPLE_RATE
            # a rest of less than one segment joins the last window
            while long and len(pending) >= length + SEGMENT_SAMPLES:
                yield start, self._checked(start, pending[:length])
                start, pending = start + length, pending[length:]
        yield start, self._checked(start, pending)

    def notices(self):
        """What a reader of the result should know about this recording, once it has been read.

        Returns
        -------
        list of Notice
        """
        rate, silent, level = self.sample_rate, self.silent_windows, to_dbfs(self.peak)
        in_parts, heard = self.n_windows > 1, 1 if self.channel else self.channels
        holds = {
            "too short": self.duration_s < SHORT_S,
            "incomplete": self.announced_s - self.duration_s > MISSING_S,
            "broken off": not is_finished(self.path),
            "long": in_parts,
            "silent parts": in_parts and silent,
            "silence": level < SILENCE_DBFS,
            "quiet": SILENCE_DBFS <= level < QUIET_DBFS,
            "clipping": self.clipped,
            "sample rate": rate < SAMPLE_RATE,
            "channels": heard > 1,
        }
        values = LIMITS | {
            "recording": self, "level": level, "nyquist": rate / 2, "padding": 1 - self.duration_s / SEGMENT_S,
            "full_share": self.full / max(1, self.num_samples * heard), "n_silent": len(silent),
            "starts": ", ".join(f"{start:.0f} s" for start in silent[:3]) + " ..." * (len(silent) > 3),
        }  # fmt: skip
        return [
            Notice(notice.get("kind", name), notice["text"].format_map(values), notice["advice"])
            for name, notice in NOTICES.items()
            if holds[name]
        ]

    def _mono_seconds(self):
        """The file as mono at its own rate, a second at a time; levels are measured on the way."""
        with audio.open_sound(self.path) as sound:
            while len(channels := self._next_second(sound)):
                mono = audio.downmix(channels)
                full = np.abs(channels) >= self._full_scale
                self.num_samples += len(mono)
                self.peak = max(self.peak, float(np.abs(mono).max()))
                self.full += int(full.sum())
                same = channels[1:] == channels[:-1]  # floats may go beyond full scale without being cut off
                self.clipped += int((full[2:] & same[1:] & same[:-1]).sum())
                yield mono

    def _next_second(self, sound):
        try:
            channels = audio.read_channels(sound, sound.samplerate)
            return channels[:, self.channel - 1 : self.channel] if self.channel else channels
        except AudioError:
            if not self.num_samples:
                raise
            return []  # what was decoded before counts; the rest is said to be missing

    def _checked(self, start, waveform):
        """The window, once it is one that can be analysed."""
        subject = self.path if start == 0 else f"{self.path} from {start / SAMPLE_RATE:.0f} s on"
        waveform = audio.check_waveform(waveform, subject=subject)
        self.n_windows += 1
        if to_dbfs(np.abs(waveform).max()) < SILENCE_DBFS:
            self.silent_windows.append(start / SAMPLE_RATE)
        return waveform


def to_dbfs(amplitude):
    """Amplitude in dB re full scale.

    >>> to_dbfs(1.0), to_dbfs(0.1), to_dbfs(0.0)
    (0.0, -20.0, -inf)
    """
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf


def window_length(recipe):
    """Samples of a window: 15 s, less one where the recipe would open another segment for it.

    >>> from serkit.recipe import CORRECTED, PUBLISHED
    >>> window_length(CORRECTED), window_length(PUBLISHED)
    (240000, 239999)
    """
    length = WINDOW_S * SAMPLE_RATE
    return length if count_segments(length, recipe) == length // SEGMENT_SAMPLES else length - 1


def _resampled(blocks, sample_rate):
    """Blocks at 16 kHz; all together, the samples that resampling them at once would give."""
    if sample_rate == SAMPLE_RATE:
        yield from blocks
        return
    stream = soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, dtype="float32", quality=audio.SOXR_QUALITY)
    taken = given = 0
    for block in blocks:
        out = stream.resample_chunk(block)
        taken, given = taken + len(block), given + len(out)
        yield out
    wanted = audio.resampled_length(taken, sample_rate) - given
    rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)[:wanted]
    yield np.pad(rest, (0, wanted - len(rest)))
