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
import textwrap
import threading
import time
from pathlib import Path

from serkit import features, runs
from serkit.errors import check_range
from serkit.files import locked

THREADS = "OMP_NUM_THREADS"
POLL_S = 0.05
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
        step.output.parent.mkdir(parents=True, exist_ok=True)
        arguments = [str(step.source), str(step.output), json.dumps(step.parameters, default=str)]
        # a kernel named python3 in somebody's home must not be taken instead of this environment's
        variables = {"JUPYTER_PREFER_ENV_PATH": "1"} | os.environ | (environment or {})
        variables.pop("MPLBACKEND", None)  # of a cluster or CI: a notebook's pictures would go nowhere
        with open(step.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "serkit.reproduction.jobs", *arguments], stdin=subprocess.PIPE, stdout=log,
                stderr=log, cwd=step.home, env=variables, start_new_session=True,
            )  # fmt: skip

    def fault(self):
        """None, or in one line what went wrong; waits for the end."""
        code = self.process.wait()
        self.process.stdin.close()
        if code < 0:
            why = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
            log = runs.show_path(self.step.log)
            return f"its process was ended by {signal.Signals(-code).name}{why}; see {log}"
        if code > 0:
            *_, last = ["", *self.step.log.read_text(errors="replace").strip().splitlines()]
            return one_line(last) or f"exit code {code} without a message, as on a full disk"
        if self.step.experiment is None:
            runs.write_json(self.step.record, {"key": self.step.key(), "parameters": self.step.parameters})
        return None


def one_line(text):
    """A message without its line breaks, and no longer than can be read.

    >>> one_line("cell 3: RuntimeError: size\\n  mismatch ")
    'cell 3: RuntimeError: size mismatch'
    """
    return textwrap.shorten(text, LONGEST, placeholder=" ...")


def execute(step):
    """Run one step in a process of its own and wait for it.

    Parameters
    ----------
    step : serkit.reproduction.plan.Step

    Returns
    -------
    str or None
        In one line what went wrong; None: it is done.
    """
    try:
        return Job(step).fault()
    except OSError as error:  # a full disk, no more processes
        return one_line(f"{type(error).__name__}: {error}")


def run_local(steps, n_jobs, on_change):
    """Run steps on this machine, some side by side; none waits for the result of another.

    Ctrl-C ends every job at once: a training goes on at its last finished epoch the next time.

    Parameters
    ----------
    steps : list of serkit.reproduction.plan.Step
    n_jobs : int
        How many at a time. On a machine with several GPUs they take turns in getting one for
        themselves; the cores are divided among them.
    on_change : callable
        Called with title and state of a step that was started: ``running``, then ``done``, ``failed: <fault>``,
        or ``interrupted: <what becomes of it>`` if it was asked to stop.
    """
    waiting, running, environments = list(steps), {}, job_environments(n_jobs)
    try:
        while running or waiting:
            for slot, environment in enumerate(environments):
                try:
                    if slot in running and running[slot].process.poll() is not None:
                        step = running[slot].step
                        on_change(step.title, end_state(running.pop(slot).fault()))
                    if slot not in running and waiting:
                        step = waiting.pop(0)
                        on_change(step.title, "running")
                        running[slot] = Job(step, environment)
                except OSError as error:  # a full disk, no more processes: the others may still go on
                    on_change(step.title, end_state(one_line(f"{type(error).__name__}: {error}")))
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        for job in running.values():
            on_change(job.step.title, "interrupted: ended in mid-work")
    finally:
        for job in running.values():
            job.process.kill()  # its kernel notices within a second
            job.process.wait()


def end_state(fault):
    """State of a step that has ended with this fault, or with none."""
    return f"failed: {fault}" if fault else "done"


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
    check_range("jobs", jobs, 0, 256, whole=True)
    return jobs or max(len(find_gpus()), 1)


def threads_per_job(n_jobs):
    """Threads that each of several jobs may use: its share of the cores; fewer that are asked for already stay."""
    share, asked = max(features.store.usable_cores() // n_jobs, 1), os.environ.get(THREADS, "")
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
    # Kernels talk over sockets: TCP ports can collide between them, and the path of another one is at most 107 characters
    place = tempfile.gettempdir()
    with tempfile.TemporaryDirectory(prefix="serkit-", dir=place if len(place) < 80 else "/tmp") as folder:
        os.environ["JUPYTER_RUNTIME_DIR"] = folder
        if not os.path.isdir(os.path.expanduser("~")):  # Jupyter wants a home
            os.environ["HOME"] = folder
        _execute(notebook, output, json.loads(parameters), f"{folder}/k")


def _execute(notebook, output, parameters, sockets):
    import papermill
    from traitlets.config import Config

    logging.basicConfig(format="%(message)s")
    logging.getLogger("papermill").setLevel(logging.INFO)  # what the notebook prints
    cells = []
    try:
        with locked(Path(output).with_suffix(".lock")):  # whoever was told to end may still be here
            papermill.execute_notebook(
                notebook, output, parameters, progress_bar=False, log_output=True, start_timeout=KERNEL_START_S,
                on_cell_start=lambda cell, cell_index: cells.append(cell_index),
                config=Config(AsyncKernelManager={"transport": "ipc", "ip": sockets}),
            )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        sys.exit(one_line(f"cell {error.cell_index}: {error.ename}: {error.evalue}"))
    except Exception as error:  # a dead kernel, a full disk
        kind = type(error).__name__
        where = f"cell {cells[-1]}: " if cells else ""
        killed = "; it was killed, perhaps for want of memory" if kind == "DeadKernelError" else ""
        sys.exit(one_line(f"{where}{kind}: {error}{killed}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
