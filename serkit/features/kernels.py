"""The three loops around the Fourier transforms, compiled (numba): as array operations they would
take longer than the transforms themselves, in five passes over memory where one is enough.
"""

from numba import njit

LOOPS = {"fastmath": True, "nogil": True, "cache": True}  # compiled once for each machine


@njit(
    ["void(f4[::1], f8[::1], i8, i8, b1, f8[:, ::1])", "void(f4[::1], f4[::1], i8, i8, b1, f4[:, ::1])"],
    **LOOPS,
)
def window_frames(waveform, window, start, hop_length, reflect, frames):
    """Windowed frames: row ``i`` of ``frames`` begins at sample ``start + i * hop_length``.

    Samples before the beginning and after the end are reflected, as often as it takes, or zero.
    What a row has more than the window is left as it is.
    """
    n = len(waveform)
    period = max(2 * (n - 1), 1)
    for i in range(frames.shape[0]):
        first = start + i * hop_length
        if first >= 0 and first + len(window) <= n:
            for j in range(len(window)):
                frames[i, j] = waveform[first + j] * window[j]
        else:
            for j in range(len(window)):
                place = first + j
                inside = 0 <= place < n
                place = abs(place) % period
                place = min(place, period - place) if n > 1 else 0
                frames[i, j] = waveform[place] * window[j] if inside or reflect else 0.0


@njit(["f8(c16[:, ::1], f8, f4[:, ::1])"], **LOOPS)
def keep_power(spectrum, floor, power):
    """Power of the lowest bins, as many as ``power`` has columns; returns the highest of all bins.

    Both are at least ``floor``.
    """
    peak = floor
    for i in range(spectrum.shape[0]):
        for j in range(spectrum.shape[1]):
            value = spectrum[i, j].real ** 2 + spectrum[i, j].imag ** 2
            peak = max(peak, value)
            if j < power.shape[1]:
                power[i, j] = max(value, floor)
    return peak


@njit(["void(c8[:, ::1], f4[:, ::1])"], **LOOPS)
def power_of(spectrum, power):
    """Power of all bins."""
    for i in range(spectrum.shape[0]):
        for j in range(spectrum.shape[1]):
            power[i, j] = (
                spectrum[i, j].real * spectrum[i, j].real + spectrum[i, j].imag * spectrum[i, j].imag
            )
