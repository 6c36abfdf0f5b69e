"""One `serkit reproduce` at a time for a run folder; a second one is told who holds it."""

import getpass
import json
import os
import socket
import sys
from contextlib import contextmanager
from datetime import datetime

from filelock import FileLock, Timeout

from serkit import runs
from serkit.errors import RunError

RECORD = "holder.json"  # in the run folder, beside the lock


@contextmanager
def only_one(run):
    """Hold a run folder.

    Parameters
    ----------
    run : str

    Raises
    ------
    ParameterError
        If that is no name of a run, see :func:`serkit.runs.check_run_name`.
    RunError
        If it is held by another process (which, where, since when), or can't be written.
    """
    folder = runs.project_home() / "runs" / runs.check_run_name(run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"{runs.show_path(folder)} is in use by {describe(folder / RECORD)}; wait for it, or end it"
        ) from None
    except OSError as error:
        raise RunError(
            f"{folder}: can't be written ({error.strerror}); check its owner and the disk"
        ) from error
    with signed(lock, folder / RECORD):
        yield


@contextmanager
def signed(lock, record):
    """While a lock stays held, ``record`` says by whom; both are gone afterwards."""
    try:
        runs.write_json(record, who())
        yield
    finally:
        record.unlink(missing_ok=True)
        lock.release()


def who():
    """Host, process and user that this runs as, since when, and by which command."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container may run under a number that has no name
        user = str(os.getuid())
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "user": user,
        "since": datetime.now().isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
    }


def describe(record, what="serkit reproduce"):
    """Who holds a folder, from its record; what can't be read is left out."""
    try:
        said = json.loads(record.read_text())
        since = datetime.fromisoformat(said["since"])
        day = "" if since.date() == datetime.now().date() else f"{since:%Y-%m-%d} "
        return (
            f"{what}, process {said['pid']} of {said['user']} on host {said['host']} since {day}{since:%H:%M}"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return f"another `{what}`"
