"""Files that are whole or not there, whatever happens: a kill, a full disk, a power cut."""

import errno
import os
import shutil
import tomllib
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, SoftFileLock


def sync(path):
    """Wait until what a file holds, or which files a folder holds, is on the disk.

    Parameters
    ----------
    path : path
    """
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError:
        if not os.path.isdir(path):  # some network file systems can't do this for a folder
            raise
    finally:
        os.close(number)


@contextmanager
def replacing(path):
    """Write a file beside ``path``, in a folder that is made if need be; it takes that name when it is whole and on the disk.

    Parameters
    ----------
    path : path
        What a killed writer leaves behind is overwritten by the next one.

    Yields
    ------
    Path
        Where to write. It is gone after an error, and ``path`` is as it was.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "scores.txt") as partial:
    ...         _ = partial.write_text("whole")
    ...     [(path.name, path.read_text()) for path in Path(folder).iterdir()]
    [('scores.txt', 'whole')]
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
    finally:
        with suppress(OSError):  # a folder that can't be written to holds none
            partial.unlink(missing_ok=True)
    sync(path.parent)


def read_toml(module, name):
    """The TOML file that lies beside a module.

    Parameters
    ----------
    module : str
        Its ``__file__``.
    name : str

    Returns
    -------
    dict
    """
    return tomllib.loads(Path(module).with_name(name).read_text(encoding="utf-8"))


def locked(path, timeout=-1):
    """Hold a lock against other processes; where the file system has none, a file with a name of its own stands for it.

    Parameters
    ----------
    path : path
    timeout : float, optional
        Seconds to wait for it at most.

    Returns
    -------
    context manager
        Leaving it releases the lock.

    Raises
    ------
    filelock.Timeout
    OSError
        If the file can't be written.
    """
    try:
        return FileLock(path, timeout=timeout).acquire()
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):  # NFS whose lock service doesn't run
            raise
        return SoftFileLock(f"{path}.held", timeout=timeout).acquire()


@contextmanager
def filling(folder):
    """Fill a folder beside ``folder``; it takes that name when all of it is there. Other processes wait meanwhile.

    Parameters
    ----------
    folder : Path
        Missing or empty.

    Yields
    ------
    Path
        Where to make the folder; what a killed process left there is gone. If it isn't made, nothing changes.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    with locked(folder.with_name(f".{folder.name}.lock")):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            yield partial
            if partial.exists():
                os.replace(partial, folder)  # an empty folder gives way
        finally:
            shutil.rmtree(partial, ignore_errors=True)
