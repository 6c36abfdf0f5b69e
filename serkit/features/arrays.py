"""The arrays of a feature store: plain ``.npy`` files whose rows are read and written by position.

Through ordinary reading and writing, not through a memory map: there a full disk or a file that
was cut short kills the process with a bus error instead of a message, and every page once looked at
counts as memory of the process. The files can be mapped by anyone who wants to all the same.
"""

import io
import os
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from serkit.constants import N_BINS, N_MFCC
from serkit.errors import StoreError
from serkit.features.audio import PCM16
from serkit.files import replacing, sync

PARTS = ("spectrogram", "mfcc", "audio")  # what is kept of an utterance
CODES = 2**16  # levels that a spectrogram is stored in


@dataclass(frozen=True)
class RowFile:
    """One ``.npy`` file of known type and shape, rows first."""

    path: Path
    dtype: str  # numpy's name
    shape: tuple

    @cached_property
    def header(self):
        """The bytes before the first row."""
        content = io.BytesIO()
        about = {"descr": np.dtype(self.dtype).str, "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(content, about)
        return content.getvalue()

    @property
    def row_bytes(self):
        """Size of one row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * np.dtype(self.dtype).itemsize

    @property
    def total_bytes(self):
        """Size of the whole file."""
        return len(self.header) + self.shape[0] * self.row_bytes

    def check(self, cure):
        """Refuse a file that is missing, cut short, or something else.

        Raises
        ------
        StoreError
            Naming the file and ending in ``cure``.
        """
        try:
            with open(self.path, "rb") as file:
                version = np.lib.format.read_magic(file)
                if version != (1, 0):
                    raise ValueError(f"npy version {version}, expected (1, 0)")
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                size = os.fstat(file.fileno()).st_size
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(f"{self.path}: damaged or missing ({error}); {cure}") from error
        if shape != self.shape or dtype != np.dtype(self.dtype):
            raise StoreError(
                f"{self.path}: damaged or missing (shape {shape} {dtype}, expected {self.shape} {self.dtype}); {cure}"
            )
        if size != self.total_bytes:
            raise StoreError(
                f"{self.path}: damaged or missing (truncated: {size} of {self.total_bytes} bytes); {cure}"
            )

    def read(self, start, stop):
        """Rows ``start`` to ``stop``, in memory.

        Raises
        ------
        OSError
            If they can't be read or the file ends before.
        """
        width = int(np.prod(self.shape[1:], dtype=np.int64))
        offset = len(self.header) + start * self.row_bytes
        rows = np.fromfile(self.path, self.dtype, (stop - start) * width, offset=offset)
        if rows.size != (stop - start) * width:
            raise OSError(f"ends before row {stop}")
        return rows.reshape(-1, *self.shape[1:])

    def prepare(self):
        """Give the file its header and full length; rows that it holds already stay.

        A new one reads as zeros. Its room on the disk is taken at once where the system can do that: a
        disk too small is known before any work is done, and filling a file with holes, in the order in
        which utterances happen to be ready, takes several times as long. What does not begin with the
        right header is begun anew.

        Raises
        ------
        OSError
            If there is not enough room.
        """
        try:
            with open(self.path, "rb") as file:
                known = file.read(len(self.header)) == self.header
        except FileNotFoundError:
            known = False
        if not known:
            with replacing(self.path) as partial:
                partial.write_bytes(self.header)
        os.truncate(self.path, self.total_bytes)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            with open(self.path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, self.total_bytes)

    def write(self, start, rows):
        """Write rows from ``start`` on. When it returns they are with the system, whoever is killed."""
        content = memoryview(np.ascontiguousarray(rows)).cast("B")
        with open(self.path, "r+b", buffering=0) as file:
            file.seek(len(self.header) + int(start) * self.row_bytes)
            while content:  # a disk that is almost full takes a part, and refuses at the next call
                content = content[file.write(content) :]

    def sync(self):
        """Wait until the file is on the disk."""
        sync(self.path)


def part_files(folder, n_frames, num_samples, audio_type):
    """The files of a store whose utterances have so many frames and samples in all.

    The spectrogram's 16 bits are far finer than the 8 of the picture made from it: an error of at
    most 0.0006 dB for a range of 80 dB, where one grey level is 0.3 dB and the golden values allow
    0.002. MFCC reach -1131 and must be right to 0.002, which takes float32. Sound is kept in its
    own 16 bits if it comes so, else as float32; the normalised waveform follows from it exactly.

    Returns
    -------
    dict of str to RowFile
        Keys ``PARTS``.
    """
    folder = Path(folder)
    return {
        "spectrogram": RowFile(folder / "spectrogram.npy", "uint16", (int(n_frames), N_BINS)),
        "mfcc": RowFile(folder / "mfcc.npy", "float32", (int(n_frames), N_MFCC)),
        "audio": RowFile(folder / "audio.npy", audio_type, (int(num_samples),)),
    }


def encode_level(level, top_db):
    """Level in dB as a 16-bit code: 0 is ``-top_db``, 65535 is 0 dB.

    >>> encode_level(np.float32([-80, -40, 0]), 80.0).tolist()
    [0, 32768, 65535]
    """
    scaled = level + np.float32(top_db)
    scaled *= np.float32((CODES - 1) / top_db)
    scaled += np.float32(0.5)
    return scaled.astype(np.uint16)


@lru_cache(maxsize=4)
def level_of_code(top_db):
    """Level in dB of every code, shape (65536,), float32, read-only.

    >>> level_of_code(80.0)[[0, 65535]].tolist()
    [-80.0, 0.0]
    """
    levels = np.linspace(-top_db, 0.0, CODES).astype(np.float32)
    levels.flags.writeable = False
    return levels


def encode_audio(waveform, audio_type):
    """Samples as they are stored: a waveform that was PCM16 goes back to it without loss."""
    return (waveform * np.float32(PCM16)).astype(np.int16) if audio_type == "int16" else waveform


def decode_audio(samples):
    """Samples as `serkit.features.audio.read` gave them."""
    return samples * np.float32(1 / PCM16) if samples.dtype == np.int16 else samples


def checksum(part):
    """CRC-32 of an array's bytes."""
    return zlib.crc32(memoryview(np.ascontiguousarray(part)).cast("B"))


def allocated_bytes(path):
    """Room that a file takes on its disk, 0 if there is none: the holes of a sparse one are free."""
    try:
        return 512 * os.stat(path).st_blocks  # POSIX counts in these, whatever the disk's own are
    except FileNotFoundError:
        return 0
