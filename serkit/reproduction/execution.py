"""One notebook in a process of its own: ``python -m serkit.reproduction.execution``, see ``serkit.reproduction.jobs.execute``.

The first line of standard input says what to run (JSON). Standard input stays open: when it ends, whoever
asked is gone, and the notebook is interrupted as by Ctrl-C. The answer, ``{"fault": ...}``, is written to
standard output, which nothing else here writes to.
"""

import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from serkit.files import sync

KERNEL_START_S = 300  # papermill's own 60 s are too few on a busy machine
PATIENCE_S = 15  # s after which an interrupted kernel is told again
WAIT_S = 600  # s that an earlier process may take to save its state and end
POLL_S = 0.05
LONGEST = 2000  # characters of a fault


class Stop:
    """Ctrl-C for a notebook: reaches the cell that runs, and keeps further ones from starting."""

    def __init__(self):
        self.asked = False
        self.cell = None  # index of the cell that runs
        self._manager = None
        self._told = None  # when the kernel was told

    def ask(self, *_):
        """Interrupt as soon as there is a kernel. Asking twice changes nothing: it may be about to save."""
        self.asked = True

    def attach(self, manager):
        """Remember whose kernel is to be interrupted."""
        self._manager = manager

    def enter(self, cell, cell_index):
        """Called before each cell: refuse it when the notebook was interrupted between two."""
        self.cell = cell_index
        if self.asked:
            raise RuntimeError("interrupted")

    def pass_on(self):
        """Tell the kernel once it has been asked, and again while it goes on."""
        group = getattr(getattr(self._manager, "provisioner", None), "pgid", None)
        if not self.asked or not group:
            return
        if self._told is None:
            number = signal.SIGINT  # training saves a checkpoint
        elif time.monotonic() - self._told > PATIENCE_S:
            # a kernel between two cells ignores the first one; training saves at this one too
            number = signal.SIGTERM
        else:
            return
        self._told = time.monotonic()
        with suppress(OSError):  # it has just ended
            os.killpg(group, number)


def run_notebook(job, stop):
    """Execute a notebook; None, or in one line what went wrong.

    Parameters
    ----------
    job : dict
        ``notebook``, ``output`` and ``log`` (paths), ``parameters``, ``home`` (folder to run in).
    stop : Stop

    Returns
    -------
    str or None
    """
    import papermill  # here and below: who starts the process needs none of this
    from papermill.exceptions import PapermillExecutionError

    try:
        with _logged_to(job["log"]), _alone(job["output"]), _kernel_manager(stop) as manager:
            papermill.execute_notebook(
                job["notebook"],
                job["output"],
                parameters=job["parameters"],
                cwd=job["home"],
                start_timeout=KERNEL_START_S,
                progress_bar=False,
                log_output=True,
                kernel_manager_class=manager,
                on_cell_start=stop.enter,
            )
            sync(job["output"])
    except PapermillExecutionError as error:
        return one_line(f"cell {error.cell_index}: {error.ename}: {error.evalue}")
    except Exception as error:  # a dead kernel, a full disk
        place = "" if stop.cell is None else f"cell {stop.cell}: "
        hint = (
            "; it was killed, perhaps for want of memory" if type(error).__name__ == "DeadKernelError" else ""
        )
        return one_line(f"{place}{type(error).__name__}: {error}{hint}")
    return None


def one_line(text):
    """A message without its line breaks, and no longer than can be read.

    >>> one_line("cell 3: RuntimeError: size\\n  mismatch ")
    'cell 3: RuntimeError: size mismatch'
    """
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."


@contextmanager
def _logged_to(path):
    """What the notebook prints goes into a file that can be followed while it runs."""
    handler = logging.FileHandler(path, mode="a", encoding="utf-8")
    logger = logging.getLogger("papermill")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


@contextmanager
def _alone(output):
    """One process at a time for a notebook's results; one that was told to end may still be saving."""
    try:
        with FileLock(Path(output).with_suffix(".lock"), timeout=WAIT_S):
            yield
    except Timeout:
        raise RuntimeError(
            f"another process has been working on it for {WAIT_S} s; wait for it, or end it"
        ) from None


@contextmanager
def _kernel_manager(stop):
    """Kernels talk over sockets in a folder of their own: TCP ports can collide between them."""
    from jupyter_client import AsyncKernelManager

    folder = tempfile.mkdtemp(prefix="serkit-")
    # a kernel named python3 in somebody's home must not be taken instead of this environment's
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")

    class IpcKernelManager(AsyncKernelManager):
        def __init__(self, **settings):
            super().__init__(**settings)
            self.transport = "ipc"
            self.ip = f"{folder}/k"
            stop.attach(self)

    try:
        yield IpcKernelManager
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_no_addresses():
    """Save a program a second: jsonschema would load a grammar of web addresses, and no notebook holds any to check."""
    sys.modules.setdefault("rfc3987_syntax", None)


def _take_streams():
    """Standard input and output for this process alone: the kernel gets nothing and the log."""
    orders, answer = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return orders, answer


def main():
    """Run what standard input asks for."""
    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop.ask)
    check_no_addresses()
    orders, answer = _take_streams()
    job = json.loads(orders.readline())
    faults = []

    def watch():
        orders.read()
        stop.ask()

    # in a thread of its own: in the main thread nbclient would take the signals for itself
    worker = threading.Thread(target=lambda: faults.append(run_notebook(job, stop)))
    threading.Thread(target=watch, daemon=True).start()
    worker.start()
    while worker.is_alive():
        worker.join(POLL_S)
        stop.pass_on()
    with suppress(BrokenPipeError):  # nobody is left to listen
        json.dump({"fault": faults[0] if faults else "ended without a word"}, answer)
        answer.close()
    sys.stdout.flush()
    os._exit(0)  # a thread still reads standard input


if __name__ == "__main__":
    main()
