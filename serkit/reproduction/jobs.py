"""Steps of a plan as jobs: each in a process of its own, several side by side."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress

from serkit import runs
from serkit.errors import ParameterError
from serkit.reproduction.execution import POLL_S, one_line

INTERRUPTED = "interrupted"  # how the fault of a job begins that was asked to stop
MOST = 256  # jobs at a time
THREADS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip


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
        self.began = time.perf_counter()
        order = {
            "notebook": str(step.source), "output": str(step.output), "log": str(step.log),
            "parameters": step.parameters, "home": str(step.home),
        }  # fmt: skip
        step.output.parent.mkdir(parents=True, exist_ok=True)
        step.log.write_bytes(b"")
        with open(step.log, "ab") as log:  # the process and its kernel both write to its end
            self.process = subprocess.Popen(
                [sys.executable, "-m", "serkit.reproduction.execution"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=step.home,
                env=os.environ | (environment or {}), start_new_session=True, text=True,
            )  # fmt: skip
        with suppress(BrokenPipeError):  # it has ended already: fault() says so
            self.process.stdin.write(json.dumps(order, default=str) + "\n")
            self.process.stdin.flush()  # and stays open: its end would mean that we are gone

    def ended(self):
        """Whether the process has come to its end."""
        return self.process.poll() is not None

    def interrupt(self):
        """Ctrl-C: training saves a checkpoint first."""
        self.process.send_signal(signal.SIGINT)

    def kill(self):
        """End it at once; its kernel notices within a second."""
        self.process.kill()

    def fault(self):
        """None, or in one line what went wrong; waits for the end."""
        said = self.process.stdout.read()
        code = self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                stream.close()
        try:
            fault = json.loads(said)["fault"]
        except (ValueError, KeyError):
            return self._death(code)
        if fault is None and self.step.experiment is None:
            runs.write_json(self.step.record, {"key": self.step.key(), "parameters": self.step.parameters})
        return fault

    def _death(self, code):
        """What is known of a process that didn't answer."""
        log = runs.show_path(self.step.log)
        if code < 0:
            why = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
            return f"its process was ended by {signal.Signals(-code).name}{why}; see {log}"
        lines = self.step.log.read_text(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "nothing was said")
        return one_line(f"its process ended with exit code {code}: {last}")


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
        job = Job(step, environment)
        try:
            return job.fault()
        except BaseException:
            job.interrupt()
            job.process.wait()
            raise
    except OSError as error:
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
    environments = job_environments(n_jobs)
    waiting, running, faults = deque(steps), {}, {}
    with _asked_to_stop() as signals:
        told = False
        try:
            while waiting or running:
                asked, insisted = bool(signals), signals.count(signal.SIGINT) > 1
                if asked:
                    waiting.clear()
                for job in running.values():
                    if insisted:
                        job.kill()
                    elif asked and not told:
                        job.interrupt()
                told = asked
                for slot in range(n_jobs):
                    job = running.get(slot)
                    if job is not None and job.ended():
                        del running[slot]
                        faults[job.step.title] = _finish(job.step, _fault_of(job), signals, say)
                    if slot not in running and waiting and not signals:
                        _start(waiting.popleft(), slot, running, environments[slot], faults, say)
                time.sleep(POLL_S)
        finally:
            for job in running.values():
                job.kill()
    return faults


def _start(step, slot, running, environment, faults, say):
    say(step.title, "running")
    try:
        running[slot] = Job(step, environment)
    except OSError as error:  # a full disk, no more processes: the others may still go on
        faults[step.title] = _finish(step, one_line(f"{type(error).__name__}: {error}"), [], say)


def _fault_of(job):
    try:
        return job.fault()
    except OSError as error:
        return one_line(f"{type(error).__name__}: {error}")


def _finish(step, fault, signals, say):
    if fault is None:
        say(step.title, "done")
    elif signals:
        fault = f"{INTERRUPTED}: {fault}"
        say(step.title, fault)
    else:
        say(step.title, f"failed: {fault}")
    return fault


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
    """Threads that each of several jobs may use: its share of the cores, one at least."""
    from serkit.features.store import usable_cores

    return max(usable_cores() // n_jobs, 1)


def job_environments(n_jobs):
    """Variables for each of the jobs that run side by side: threads and GPU.

    A single job gets none: it may use everything. A smaller number of threads that is set already stays.

    Parameters
    ----------
    n_jobs : int

    Returns
    -------
    list of dict of str to str
    """
    if n_jobs == 1:
        return [{}]
    share, gpus = threads_per_job(n_jobs), find_gpus()
    threads = {name: str(_smaller(os.environ.get(name, ""), share)) for name in THREADS}
    if len(gpus) < 2:
        return [threads] * n_jobs
    return [threads | {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} for slot in range(n_jobs)]


def _smaller(text, share):
    return min(int(text), share) if text.isdigit() and int(text) else share
