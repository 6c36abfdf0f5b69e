"""A recording of any length, read once from beginning to end in pieces that fit into memory.

What the model knows as an utterance is a turn of seconds, and its levels are relative to it: the
spectrogram is in dB below the utterance's own peak, the MFCC's floor hangs on its loudest band. So a
sound of up to ``UTTERANCE_S`` is one utterance, read exactly as in training. A longer one is cut
into windows of ``WINDOW_S``, and each is treated like an utterance: as long as the longer turns of
the corpora, a door that slams lifts the reference of 15 s and not of an hour, and a window of five
segments seldom holds nothing but a pause, whose noise would be lifted to full level.
"""

from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import soxr

from serkit.constants import MIN_SAMPLES, SAMPLE_RATE, SEGMENT_S, SEGMENT_SAMPLES, SILENCE_DBFS
from serkit.errors import AudioError
from serkit.features import audio
from serkit.features.segments import count_segments
from serkit.predict.loudness import LevelMeter, to_dbfs

UTTERANCE_S = 30  # s; up to here one utterance: about the longest turn of IEMOCAP
WINDOW_S = 15  # s = 5 segments; longer sounds are cut into these
SHORT_S = 1.0  # s; below, two thirds of the only segment are padding
MISSING_S = 0.1  # s that may lack at the end of a file before it is said; encoders announce some too much


class Recording:
    """One sound file on its way to the model.

    Parameters
    ----------
    path : path
        Any format that soundfile reads, any rate, any number of channels.

    Attributes
    ----------
    sample_rate : int
        Of the file, in Hz.
    channels : int
    num_samples : int
        Read so far, of each channel, at the file's rate.
    announced : int
        Samples that the file's header promises.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.num_samples = 0
        self.n_windows = 0
        self.silent_windows = []  # their beginnings in s
        with audio.open_sound(self.path) as sound:
            self.sample_rate, self.channels, self.announced = sound.samplerate, sound.channels, sound.frames
            self.levels = LevelMeter(sound.channels, sound.subtype)

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
        with audio.open_sound(self.path) as sound:
            blocks = self._mono_blocks(sound)
            head = []
            for block in blocks:
                head.append(block)
                if self.duration_s > UTTERANCE_S:
                    pieces = _cut(_resampled(chain(head, blocks), self.sample_rate), window_length(recipe))
                    break
            else:
                pieces = [
                    (0, audio.resample(np.concatenate([*head, np.zeros(0, np.float32)]), self.sample_rate))
                ]
            for start, waveform in pieces:
                yield start, self._checked(start, waveform)

    def warnings(self):
        """What a reader of the result should know about this recording, once it has been read.

        Returns
        -------
        list of str
        """
        found = [*self._length_warnings(), *self.levels.warnings()]
        if self.sample_rate < SAMPLE_RATE:
            found.append(
                f"sample rate {self.sample_rate} Hz: nothing above {self.sample_rate / 2:g} Hz in the input, "
                f"the model expects sound up to {SAMPLE_RATE // 2} Hz"
            )
        if self.channels > 1:
            found.append(f"{self.channels} channels were averaged to one")
        return found

    def _length_warnings(self):
        if self.duration_s < SHORT_S:
            padding = 1 - self.duration_s / SEGMENT_S
            yield (
                f"too short: {self.duration_s:.2f} s, so {padding:.0%} of the {SEGMENT_S:g} s segment is padding"
            )
        if self.announced - self.num_samples > MISSING_S * self.sample_rate:
            yield (
                f"incomplete: the file announces {self.announced / self.sample_rate:.1f} s and holds "
                f"{self.duration_s:.1f} s; was it cut short?"
            )
        if self.n_windows > 1:
            yield (
                f"long: cut into {self.n_windows} windows of {WINDOW_S} s, each treated as an utterance of its own"
            )
        if self.n_windows > 1 and self.silent_windows:
            first = ", ".join(f"{start:.0f} s" for start in self.silent_windows[:3])
            yield (
                f"silence in {len(self.silent_windows)} of {self.n_windows} windows (below {SILENCE_DBFS:g} dBFS, "
                f"from {first}{' ...' if len(self.silent_windows) > 3 else ''}): the answers there mean nothing, and they count in the whole"
            )

    def _mono_blocks(self, sound):
        """One second after the other as mono, at the file's rate; levels are measured on the way."""
        while len(channels := audio.read_channels(sound, sound.samplerate)):
            mono = audio.downmix(channels)
            self.levels.update(channels, mono)
            self.num_samples += len(channels)
            yield mono

    def _checked(self, start, waveform):
        """The window, once it is one that can be analysed."""
        if len(waveform) < MIN_SAMPLES:
            raise AudioError(
                f"{self.path}: {1000 * self.duration_s:.1f} ms long, expected at least "
                f"{1000 * MIN_SAMPLES // SAMPLE_RATE} ms; there is nothing to recognise in it, record more"
            )
        self.n_windows += 1
        if to_dbfs(np.abs(waveform).max()) < SILENCE_DBFS:
            self.silent_windows.append(start / SAMPLE_RATE)
        subject = self.path if start == 0 else f"{self.path} from {start / SAMPLE_RATE:.0f} s on"
        return audio.check_waveform(waveform, subject=subject)


def window_length(recipe):
    """Samples of a window: 15 s, less one where the recipe would open another segment for it.

    >>> from serkit.recipe import CORRECTED, PUBLISHED
    >>> window_length(CORRECTED), window_length(PUBLISHED)
    (240000, 239999)
    """
    length = WINDOW_S * SAMPLE_RATE
    return length if count_segments(length, recipe) == length // SEGMENT_SAMPLES else length - 1


def _resampled(blocks, sample_rate):
    """Blocks at 16 kHz; all together as many samples as reading them at once would give."""
    if sample_rate == SAMPLE_RATE:
        yield from blocks
        return
    stream = soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, dtype="float32", quality=audio.SOXR_QUALITY)
    taken = given = 0
    # a block late, because the stream wants to know which one is the last
    for block, following in pairwise(chain(blocks, [None])):
        taken += len(block)
        out = stream.resample_chunk(block, last=following is None)
        if following is None:
            wanted = audio.resampled_length(taken, sample_rate) - given
            out = np.pad(out[:wanted], (0, max(0, wanted - len(out))))
        given += len(out)
        yield out


def _cut(blocks, length):
    """Windows of ``length`` samples with their starts; a rest under one segment joins the last."""
    start, pending = 0, np.zeros(0, np.float32)
    for block in blocks:
        pending = np.concatenate([pending, block])
        while len(pending) >= length + SEGMENT_SAMPLES:
            yield start, pending[:length]
            start, pending = start + length, pending[length:]
    yield start, pending
