"""How loud a recording is, and whether it was recorded too loud; measured block by block."""

import math

import numpy as np

from serkit.constants import SILENCE_DBFS

CLIPPED_RUN = 3  # samples at full scale in a row; one or two may be an honest peak
FULL_SCALE = {  # largest positive amplitude that the format can hold; all others: that of 16 bits
    "PCM_U8": 127 / 128, "PCM_S8": 127 / 128, "ULAW": 32124 / 32768, "ALAW": 32256 / 32768,
}  # fmt: skip


class LevelMeter:
    """Peak and clipping of a recording.

    Parameters
    ----------
    n_channels : int
    subtype : str
        soundfile's name of the sample format; says what full scale is.

    Attributes
    ----------
    peak, mono_peak : float
        Largest amplitude of any channel, and of their average.
    clipped, total : int
        Samples at full scale, and all, over all channels.
    runs, longest_run : int
        Stretches of at least 3 samples at full scale, and the samples of the longest.

    Examples
    --------
    >>> meter = LevelMeter(1)
    >>> for block in ([0, 1, 1], [1, 1, 0.5, 1]):
    ...     meter.update(np.float32(block)[:, None], np.float32(block))
    >>> meter.clipped, meter.runs, meter.longest_run
    (5, 1, 4)
    """

    def __init__(self, n_channels, subtype="PCM_16"):
        self.full_scale = FULL_SCALE.get(subtype, 32767 / 32768)
        self.peak = self.mono_peak = 0.0
        self.clipped = self.total = self.runs = self.longest_run = 0
        self._open = [0] * n_channels  # length of the run that each channel was in when its block ended

    def update(self, channels, mono):
        """Take in the next block.

        Parameters
        ----------
        channels : np.ndarray, shape (num_samples, n_channels)
        mono : np.ndarray, shape (num_samples,)
            Their average.
        """
        amplitude = np.abs(channels)
        self.peak = max(self.peak, float(amplitude.max()))
        self.mono_peak = max(self.mono_peak, float(np.abs(mono).max()))
        full = amplitude >= self.full_scale
        self.total += full.size
        self.clipped += int(full.sum())
        for channel, before in enumerate(self._open):
            if before or full[:, channel].any():
                self._open[channel] = self._count_runs(full[:, channel], before)

    def _count_runs(self, full, before):
        """Count the runs of one channel; returns the length of the one that reaches its end."""
        edges = np.flatnonzero(np.diff(np.concatenate([[0], full.astype(np.int8), [0]])))
        runs = [(0, 0)] if before and not full[0] else []  # the one before ended with its block
        runs += edges.reshape(-1, 2).tolist()
        for number, (start, stop) in enumerate(runs):
            known = before if number == 0 and start == 0 else 0
            length = known + stop - start
            # a run that goes on is counted once, in the block that makes it long enough
            self.runs += known < CLIPPED_RUN <= length
            self.longest_run = max(self.longest_run, length)
        return length if full[-1] else 0

    def warnings(self):
        """Silence and clipping as sentences."""
        if self.mono_peak == 0 and self.peak == 0:
            yield "silence: every sample is zero, the answer means nothing"
        elif to_dbfs(self.mono_peak) < SILENCE_DBFS <= to_dbfs(self.peak):
            yield (
                f"silence: the channels cancel each other, their average peaks at {_show(self.mono_peak)} and the "
                f"loudest channel at {_show(self.peak)}; give one channel only"
            )
        elif to_dbfs(self.mono_peak) < SILENCE_DBFS:
            yield (
                f"silence: the loudest sample is at {_show(self.mono_peak)}, expected {SILENCE_DBFS:g} dBFS or more; "
                "the answer is about noise"
            )
        if self.runs:
            yield (
                f"clipping: {self.clipped / self.total:.2%} of the samples are at full scale, in {self.runs} runs of "
                f"{CLIPPED_RUN} or more, the longest {self.longest_run}; what was cut off there may change the answer"
            )


def to_dbfs(amplitude):
    """Amplitude in dB re full scale.

    >>> to_dbfs(1.0), to_dbfs(0.1), to_dbfs(0.0)
    (0.0, -20.0, -inf)
    """
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf


def _show(amplitude):
    return f"{to_dbfs(amplitude):.1f} dBFS" if amplitude > 0 else "no level at all"
