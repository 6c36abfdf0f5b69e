"""Steps of a plan as jobs: each notebook in a process of its own, several side by side.

``python -m serkit.reproduction.jobs NOTEBOOK OUTPUT PARAMETERS`` is such a process: papermill, whose output is
the step's log. The last line of the log says what went wrong. It ends when standard input does: whoever
started it is gone then.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock

from serkit import runs
from serkit.errors import ParameterError

INTERRUPTED = "interrupted"  # how the fault of a job begins that was asked to stop
MOST = 256  # jobs at a time
THREADS = "OMP_NUM_THREADS"
POLL_S = 0.05
PATIENCE_S = 30  # s that an interrupted cell may take to end; a training goes on at its last epoch anyway
KERNEL_START_S = 300  # papermill's own 60 s are too few on a busy machine
LONGEST = 2000  # characters of a fault


class Job:
    """A step that runs in a process of its own.

    Parameters
    ----------
    step : serkit.reproduction.plan.Step
    environment : dict of str to str, optional
        Variables to set for it.

    Raises
    ------
    OSError
        If its folder or its log can't be written, or no process can be started.
    """

    def __init__(self, step, environment=None):
        self.step = step
        self._stopped = None  # when it was asked to stop
        step.output.parent.mkdir(parents=True, exist_ok=True)
        parameters = json.dumps(step.parameters, default=str)
        command = [
            sys.executable,
            "-m",
            "serkit.reproduction.jobs",
            str(step.source),
            str(step.output),
            parameters,
        ]
        # a kernel named python3 in somebody's home must not be taken instead of this environment's
        variables = {"JUPYTER_PREFER_ENV_PATH": "1"} | os.environ | (environment or {})
        with open(step.log, "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=step.home, env=variables,
                start_new_session=True,
            )  # fmt: skip

    def stop(self, at_once=False):
        """Ctrl-C for the cell that runs; what is still there after :data:`PATIENCE_S` is killed. May be repeated."""
        if self._stopped is None:
            self._stopped = time.monotonic()
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                kernels = psutil.Process(self.process.pid).children()
                at_once = at_once or not kernels
                for kernel in kernels:
                    os.killpg(kernel.pid, signal.SIGINT)
        if at_once or time.monotonic() > self._stopped + PATIENCE_S:
            self.process.kill()  # its kernel notices within a second

    def fault(self):
        """None, or in one line what went wrong; waits for the end."""
        code = self.process.wait()
        self.process.stdin.close()
        if code == 0 and self.step.experiment is None:
            runs.write_json(self.step.record, {"key": self.step.key(), "parameters": self.step.parameters})
        if code < 0:
            why = ", perhaps for want of memory" if -code == signal.SIGKILL and not self._stopped else ""
            log = runs.show_path(self.step.log)
            return f"its process was ended by {signal.Signals(-code).name}{why}; see {log}"
        lines = self.step.log.read_text(errors="replace").strip().splitlines()
        return one_line((lines or [f"exit code {code} without a message"])[-1]) if code else None


def one_line(text):
    """A message without its line breaks, and no longer than can be read.

    >>> one_line("cell 3: RuntimeError: size\\n  mismatch ")
    'cell 3: RuntimeError: size mismatch'
    """
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."


def execute(step, environment=None):
    """Run one step in a process of its own and wait for it.

    Parameters
    ----------
    step : serkit.reproduction.plan.Step
    environment : dict of str to str, optional
        Variables to set for it.

    Returns
    -------
    str or None
        In one line what went wrong; None: it is done.
    """
    try:
        return Job(step, environment).fault()
    except OSError as error:  # a full disk, no more processes
        return one_line(f"{type(error).__name__}: {error}")


def run_local(steps, n_jobs, on_change=None):
    """Run steps on this machine, some side by side; none waits for the result of another.

    Ctrl-C and SIGTERM are passed on to every job and waited for; a second Ctrl-C ends them at once.

    Parameters
    ----------
    steps : list of serkit.reproduction.plan.Step
    n_jobs : int
        How many at a time. On a machine with several GPUs they take turns in getting one for
        themselves; the cores are divided among them.
    on_change : callable, optional
        Called with title and state of a step: ``running``, ``done``, ``failed: <fault>`` or
        ``interrupted: <fault>``.

    Returns
    -------
    dict of str to str or None
        Title of each step that was started to its fault, None where it is done. The fault of one
        that was asked to stop begins with ``interrupted``; one that was not started is left out.
    """
    say = on_change or (lambda title, state: None)
    waiting, running, faults = deque(steps), {}, {}

    def end(step, fault):
        asked = bool(fault and signals)
        faults[step.title] = f"{INTERRUPTED}: {fault}" if asked else fault
        say(step.title, faults[step.title] if asked else f"failed: {fault}" if fault else "done")

    environments = job_environments(n_jobs)
    with _asked_to_stop() as signals:
        try:
            while running or (waiting and not signals):
                for slot, environment in enumerate(environments):
                    job = running.get(slot)
                    if job and signals:
                        job.stop(at_once=signals.count(signal.SIGINT) > 1)
                    try:
                        if job and job.process.poll() is not None:
                            del running[slot]
                            step = job.step
                            end(step, job.fault())
                        if slot not in running and waiting and not signals:
                            step = waiting.popleft()
                            say(step.title, "running")
                            running[slot] = Job(step, environment)
                    except OSError as error:  # a full disk, no more processes: the others may still go on
                        end(step, one_line(f"{type(error).__name__}: {error}"))
                time.sleep(POLL_S)
        finally:
            for job in running.values():
                job.process.kill()
    return faults


@contextmanager
def _asked_to_stop():
    """A list that grows with every Ctrl-C and SIGTERM."""
    signals, before = [], {}
    if threading.current_thread() is threading.main_thread():  # elsewhere signals can't be caught
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda number, _: signals.append(number))
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def find_gpus():
    """Names of the GPUs that may be used, as in ``CUDA_VISIBLE_DEVICES``."""
    import torch  # here: a plan of finished steps needs no torch

    visible = [word for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    count = torch.cuda.device_count()
    return visible[:count] if visible else [str(number) for number in range(count)]


def count_jobs(jobs):
    """How many jobs at a time: as asked, or for 0 one for each GPU, and one without a GPU.

    Raises
    ------
    ParameterError
        If ``jobs`` is no number from 0 to 256.
    """
    if isinstance(jobs, bool) or not isinstance(jobs, int) or not 0 <= jobs <= MOST:
        raise ParameterError(f"jobs={jobs!r}, expected 0 (one for each GPU) to {MOST} at a time")
    return jobs or max(len(find_gpus()), 1)


def threads_per_job(n_jobs):
    """Threads that each of several jobs may use: its share of the cores; fewer that are asked for already stay."""
    from serkit.features.store import usable_cores

    share, asked = max(usable_cores() // n_jobs, 1), os.environ.get(THREADS, "")
    return min(int(asked), share) if asked.isdigit() and int(asked) else share


def job_environments(n_jobs):
    """Variables for each of the jobs that run side by side: threads and GPU; a single job may use everything.

    Parameters
    ----------
    n_jobs : int

    Returns
    -------
    list of dict of str to str
    """
    if n_jobs == 1:
        return [{}]
    gpus, variables = find_gpus(), {THREADS: str(threads_per_job(n_jobs))}
    if len(gpus) < 2:
        return [variables] * n_jobs
    return [variables | {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} for slot in range(n_jobs)]


def _end_with_parent():
    os.read(0, 1)
    os._exit(1)  # the kernel notices within a second


def main(notebook, output, parameters):
    """Execute one notebook; the message of the exit says what went wrong."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.modules["rfc3987_syntax"] = None  # jsonschema would take a second to load a grammar of web addresses
    import papermill
    from traitlets.config import Config

    logging.basicConfig(format="%(message)s")
    logging.getLogger("papermill").setLevel(logging.INFO)  # what the notebook prints
    cells = []
    try:
        # whoever was told to end may still be here. Kernels talk over sockets: TCP ports can collide between them
        with (
            FileLock(Path(output).with_suffix(".lock")),
            tempfile.TemporaryDirectory(prefix="serkit-") as folder,
        ):
            papermill.execute_notebook(
                notebook, output, json.loads(parameters), progress_bar=False, log_output=True,
                start_timeout=KERNEL_START_S, on_cell_start=lambda cell, cell_index: cells.append(cell_index),
                config=Config(AsyncKernelManager={"transport": "ipc", "ip": f"{folder}/k"}),
            )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        sys.exit(one_line(f"cell {error.cell_index}: {error.ename}: {error.evalue}"))
    except Exception as error:  # a dead kernel, a full disk
        kind = type(error).__name__
        place = f"cell {cells[-1]}: " if cells else ""
        killed = "; it was killed, perhaps for want of memory" if kind == "DeadKernelError" else ""
        sys.exit(one_line(f"{place}{kind}: {error}{killed}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
