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
    RunError
        If it is held by another process (which, where, since when), or can't be written.
    """
    folder = runs.project_home() / "runs" / run
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"{runs.show_path(folder)} is in use by {_describe(folder / RECORD)}; wait for it, or end it"
        ) from None
    except OSError as error:
        raise RunError(
            f"{folder}: can't be written ({error.strerror}); check its owner and the disk"
        ) from error
    try:
        runs.write_json(folder / RECORD, _who())
        yield
    finally:
        (folder / RECORD).unlink(missing_ok=True)
        lock.release()


def _who():
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "user": getpass.getuser(),
        "since": datetime.now().isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
    }


def _describe(record):
    """Who holds a run, from its record; what can't be read is left out."""
    try:
        who = json.loads(record.read_text())
        since = datetime.fromisoformat(who["since"])
        day = "" if since.date() == datetime.now().date() else f"{since:%Y-%m-%d} "
        return (
            f"serkit reproduce, process {who['pid']} of {who['user']} on host {who['host']} "
            f"since {day}{since:%H:%M}"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return "another `serkit reproduce`"
