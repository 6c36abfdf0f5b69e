"""Plain ``.npy`` files whose rows are read and written by position, a mask of what is done of them, and the
16-bit code that levels are stored in.
"""

import io
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from serkit.errors import StoreError, reported_as
from serkit.files import sync

CODES = 2**16  # levels that a spectrogram is stored in
CHUNK = 2**18  # bytes read at once for a checksum


@dataclass(frozen=True)
class RowFile:
    """One ``.npy`` file of known type and shape, whose rows are read and written by position.

    Not through a memory map: there a full disk, or a file that was cut short, ends the process with a bus
    error instead of a message. Others may map the file all the same.
    """

    path: Path
    dtype: str  # numpy's name
    shape: tuple
    cure = "delete its folder and run notebook 01"  # where it is damaged

    @cached_property
    def header(self):
        """The bytes before the first row."""
        content = io.BytesIO()
        about = {"descr": np.dtype(self.dtype).str, "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(content, about)
        return content.getvalue()

    @cached_property
    def row_type(self):
        """What one row is to numpy, such as 200 numbers of 16 bits."""
        return np.dtype((self.dtype, self.shape[1:]))

    @property
    def total_bytes(self):
        """Size of the whole file."""
        return self._offset(self.shape[0])

    def _offset(self, row):
        return len(self.header) + int(row) * self.row_type.itemsize

    def create(self):
        """Begin the file anew: header and full length, all rows zero."""
        with open(self.path, "wb") as file:
            file.write(self.header)
            file.truncate(self.total_bytes)

    def is_whole(self):
        """Whether the file is there, of this type and shape, and of full length."""
        if not self.path.is_file() or self.path.stat().st_size != self.total_bytes:
            return False
        with open(self.path, "rb") as file:
            return file.read(len(self.header)) == self.header

    def check(self):
        """Refuse a file that is not whole with a StoreError."""
        if not self.is_whole():
            about = f"{self.path}: damaged or missing (expected {self.dtype} {self.shape})"
            raise StoreError(f"{about}; {self.cure}")

    def read(self, start, stop):
        """Rows ``start`` to ``stop``, in memory.

        Raises
        ------
        StoreError
            If they can't be read or the file ends before.
        """
        with reported_as(StoreError, f"{self.path}: damaged or missing", self.cure, OSError):
            rows = np.fromfile(self.path, self.row_type, int(stop - start), offset=self._offset(start))
            if len(rows) < stop - start:
                raise OSError(f"ends before row {stop}")
            return rows

    def write(self, start, rows):
        """Write rows from ``start`` on."""
        with open(self.path, "r+b") as file:
            file.seek(self._offset(start))
            file.write(np.ascontiguousarray(rows).data.cast("B"))


class Progress:
    """Which items of a few files are done: read when work begins or goes on, saved in ``done.npy``.

    Parameters
    ----------
    folder : Path
    files : iterable of RowFile
        Unless all are whole they are made anew, and nothing is done.
    n : int
        Number of items.
    """

    def __init__(self, folder, files, n):
        self.files, self._file = list(files), RowFile(folder / "done.npy", "bool", (n,))
        if not all(file.is_whole() for file in (*self.files, self._file)):
            for file in (*self.files, self._file):
                file.create()
        self.done = self._file.read(0, n)  # to be set by whoever does the work

    def save(self):
        """Bring the files to the disk, then the mask that vouches for them."""
        for file in self.files:
            sync(file.path)
        self._file.write(0, self.done)


def checksum(path):
    """CRC-32 of a file."""
    value = 0
    with open(path, "rb", buffering=0) as file:
        while content := file.read(CHUNK):
            value = zlib.crc32(content, value)
    return value


def encode_level(level, top_db):
    """Level in dB as a 16-bit code: 0 is ``-top_db``, 65535 is 0 dB.

    An error of at most 0.0006 dB for a range of 80 dB, where one grey level of the picture made from it is
    0.3 dB and the golden values allow 0.002.

    >>> encode_level(np.float32([-80, -40, 0]), 80.0).tolist()
    [0, 32768, 65535]
    """
    step = np.float32((CODES - 1) / top_db)
    return ((level + np.float32(top_db)) * step + np.float32(0.5)).astype(np.uint16)


@lru_cache(maxsize=4)
def level_of_code(top_db):
    """Level in dB of every code, shape (65536,), float32, read-only.

    >>> level_of_code(80.0)[[0, 65535]].tolist()
    [-80.0, 0.0]
    """
    levels = np.linspace(-top_db, 0.0, CODES).astype(np.float32)
    levels.flags.writeable = False
    return levels
