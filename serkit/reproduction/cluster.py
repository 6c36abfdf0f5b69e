"""The same jobs on many machines: a dask.distributed cluster runs them.

What counts is the shared folder: a job looks there whether its step is done, holds a lock there while
it runs, and a training leaves its checkpoints there. So a job that is handed out twice, because a
worker was lost or the driver died, is finished once, and goes on where it was.
"""

import functools
import hashlib
import logging
import os
import platform
import secrets
import time
from collections import deque
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from distributed import Client, KilledWorker, Reschedule, get_worker
from filelock import FileLock

from serkit.errors import RunError
from serkit.experiment import project_home, show_path
from serkit.reproduction.jobs import INTERRUPTED, one_line
from serkit.runs import PACKAGES

GPU = "GPU"  # the resource that a worker with a GPU announces: --resources GPU=1
CONNECT_S = 8  # for a scheduler to answer
FIRST_WORKER_S = 60  # for the first worker to come
MARK_S = 10  # a network file system may show a new file late
PAUSE_S = 10  # of a worker that is unfit, before it gives its job back
LOOK_S = 0.2  # between looks at the jobs
WORKERS_S = 2.0  # between looks at the workers
# dask sets it so that workers give freed memory back at once; a training that inherits it asks the system
# anew for every tensor, and takes twice as long on a CPU
TRIM = "MALLOC_TRIM_THRESHOLD_"


@dataclass(frozen=True)
class Shared:
    """What a worker must find on its side to be fit for the jobs."""

    home: str  # the project folder, under the same path everywhere
    mark: str  # a file in the run's folder that the driver has just written
    token: str  # what stands in it
    versions: dict  # of what decides the numbers
    patience_s: float
    pause_s: float


def check_cluster(address, folder):
    """Refuse a cluster that can't take jobs.

    Parameters
    ----------
    address : str
        Of the scheduler, such as ``tcp://host:8786``.
    folder : path
        The run's folder on the shared disk.

    Returns
    -------
    int
        How many jobs run at a time.

    Raises
    ------
    RunError
        If the scheduler can't be reached, there is no worker, or a worker is unfit: another version of
        serkit or of what decides the numbers, another project folder, several GPUs in one process.
    """
    with _connected(address) as client, _marked(Path(folder)) as shared:
        _check_scheduler(client, address)
        return _places(_fit_workers(client, shared, {}))


def run_on_cluster(steps, address, execute, on_change=None, *, folder):
    """Run steps on a dask.distributed cluster, in any order; none waits for the result of another.

    If any worker announces the resource ``GPU``, only such workers get jobs, and each job takes one
    ``GPU``; otherwise a worker gets one job for each of its threads. Workers that come later join in. A
    step whose worker is lost is run again elsewhere, until dask's
    ``distributed.scheduler.allowed-failures`` blames the step. After Ctrl-C the steps that run go on to
    their end on the cluster, as dask can't stop them.

    Parameters
    ----------
    steps : list of serkit.reproduction.plan.Step
        Each with a title of its own; what is done already is not run again.
    address : str
        Of the scheduler, such as ``tcp://host:8786``.
    execute : callable
        ``execute(step)`` runs in a worker and returns None, or in one line what went wrong. A top-level
        function of a module that workers can import.
    on_change : callable, optional
        Called with title and state of a step: ``running``, ``done``, ``failed: <fault>`` or
        ``interrupted: <fault>``.
    folder : path
        The run's folder on the shared disk.

    Returns
    -------
    dict of str to str or None
        Title of each step that was started to its fault, None where it is done.

    Raises
    ------
    RunError
        As :func:`check_cluster`, or if the scheduler or every worker that is fit is lost.
    """
    say = on_change or (lambda title, state: None)
    waiting, running, faults = deque(steps), {}, {}
    lost = RunError(
        f"scheduler {address}: lost; start it and its workers again and repeat the call: what is done stays done, "
        "trainings go on from their checkpoints"
    )

    def end(title, fault):
        del running[title]  # before anybody is told, who may interrupt
        faults[title] = fault
        kind = "failed: " if fault and not fault.startswith(INTERRUPTED) else ""
        say(title, f"{kind}{fault}" if fault else "done")

    with _connected(address) as client, _marked(Path(folder)) as shared:
        _check_scheduler(client, address)
        reasons = {}  # why a worker is unfit, None if it is fit
        fit, looked = _fit_workers(client, shared, reasons), time.monotonic()
        resources = {GPU: 1} if any(worker["resources"].get(GPU) for worker in fit.values()) else None
        try:
            while waiting or running:
                # as many as there are places: given all, dask would share them out at once, and leave a worker
                # idle beside one with jobs in reserve, as it can't know that they take minutes
                while waiting and len(running) < _places(fit):
                    step = waiting.popleft()
                    # the key names the job on the dashboard; a second call joins a job that still runs
                    running[step.title] = client.submit(
                        _job, step, execute, shared, key=f"{step.title}-{step.key()}", resources=resources, pure=False
                    )  # fmt: skip
                    say(step.title, "running")
                time.sleep(LOOK_S)
                for title, job in list(running.items()):
                    if client.status != "running" or job.status in ("lost", "cancelled"):
                        raise lost
                    if job.status in ("finished", "error"):
                        with suppress(TimeoutError):  # its worker is lost at this moment: it is run again
                            end(title, _fault(job))
                if time.monotonic() > looked + WORKERS_S:
                    fit, looked = _fit_workers(client, shared, reasons), time.monotonic()
        except KeyboardInterrupt:
            client.cancel(list(running.values()), force=True)
            for title in list(running):
                end(title, f"{INTERRUPTED}: goes on to its end on the cluster")
        except (OSError, CancelledError) as error:
            raise lost from error
    return faults


def _fault(job):
    """How a job has ended: None, or in one line what went wrong."""
    if job.status == "finished":
        return job.result(timeout=CONNECT_S)
    error = job.exception(timeout=CONNECT_S)
    if isinstance(error, KilledWorker):
        times = error.allowed_failures + 1
        return f"its worker was lost {times} times, perhaps for want of memory; see the logs of the workers"
    return one_line(f"{type(error).__name__}: {error}")


def _job(step, execute, shared):
    """What a worker does for a step."""
    if unfit(shared):  # it came after the check of all: another one shall have the job
        time.sleep(shared.pause_s)
        raise Reschedule
    step.output.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(step.output.parent / "lock"):  # whoever had it before may still be at work
        if step.is_done():
            return None
        os.environ.pop(TRIM, None)
        return execute(step)


def unfit(shared, dask_worker=None):
    """Why the process that this runs in can't take jobs; None if it can.

    Parameters
    ----------
    shared : Shared
    dask_worker : distributed.Worker, optional
        Of this process.

    Returns
    -------
    str or None
    """
    mine, gpus = versions(), (dask_worker or get_worker()).state.total_resources.get(GPU, 1)
    for name, wanted in shared.versions.items():
        if mine.get(name) != wanted:
            return (
                f"{name} is {mine.get(name)}, expected {wanted} as where the jobs come from; install the same"
            )
    if gpus != 1:
        return (
            f"it announces {gpus:g} GPUs, expected 1, as its jobs would all take the first; start one worker for "
            "each GPU, with --resources GPU=1 and its own CUDA_VISIBLE_DEVICES"
        )
    if not Path(shared.home).is_dir():
        return f"there is no folder {shared.home}; mount the project folder under the same path everywhere"
    deadline = time.monotonic() + shared.patience_s
    while time.monotonic() < deadline:
        with suppress(OSError):
            if Path(shared.mark).read_text() == shared.token:
                return None
        time.sleep(LOOK_S)
    return (
        f"{shared.home} is another folder there (what this call has written to {Path(shared.mark).name} does not "
        "arrive); mount the same project folder everywhere"
    )


@functools.cache
def versions():
    """What must be the same on all machines: Python, the packages that decide the numbers, serkit's own code.

    Returns
    -------
    dict of str to str
    """
    code, package = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        code.update(str(path.relative_to(package)).encode() + path.read_bytes())
    python = ".".join(platform.python_version_tuple()[:2])
    packages = {name: version(name) for name in PACKAGES}
    return {"Python": python, **packages, "serkit's code": code.hexdigest()[:12]}


@contextmanager
def _marked(folder):
    """A file for the workers to find, as long as this lasts."""
    mark, token = folder.resolve() / "cluster.txt", secrets.token_hex(8)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(token)
    except OSError as error:
        raise RunError(
            f"{show_path(folder)}: can't be written ({error.strerror}); check its owner and the disk"
        ) from error
    try:
        yield Shared(str(project_home().resolve()), str(mark), token, versions(), MARK_S, PAUSE_S)
    finally:
        mark.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()  # where nothing else has come into it


class _Client(Client):
    """A client that is closed where it could not start.

    distributed leaves it half open after an address it can't read, and closes it when the garbage
    collector comes by: if that is while the next client starts, both wait for the same lock for good.
    """

    def start(self, **kwargs):
        try:
            super().start(**kwargs)
        except BaseException:
            with suppress(TimeoutError):
                self.close()
            raise


@contextmanager
def _connected(address):
    """A client of the scheduler; what dask logs about lost connections is said here in one sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        client = _Client(address, timeout=CONNECT_S, set_as_default=False, name="serkit")
    except (OSError, ValueError, TypeError) as error:
        logging.disable(before)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(
            f"scheduler={address!r} does not answer ({reason}), expected the address of a running dask scheduler "
            "such as tcp://host:8786; start one with `dask scheduler`, or check host, port and firewall"
        ) from error
    try:
        yield client
    finally:
        client.close(timeout=CONNECT_S)
        logging.disable(before)


def _check_scheduler(client, address):
    """Refuse one without serkit, or without a worker."""
    try:  # it unpacks the jobs to see how they hang together
        client.run_on_scheduler(versions)
    except Exception as error:
        raise RunError(
            f"scheduler {address}: can't run serkit ({one_line(str(error))}); start it in the same environment as "
            "the workers"
        ) from error
    try:
        client.wait_for_workers(1, timeout=FIRST_WORKER_S)
    except TimeoutError:
        raise RunError(
            f"scheduler {address}: no worker within {FIRST_WORKER_S} s, expected at least one; "
            f"start one with `dask worker {address} --nthreads 1`"
        ) from None


def _fit_workers(client, shared, reasons):
    """Workers that get jobs, by address: refuses unfit ones before the first job, later it only names them."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    takers = {name: worker for name, worker in workers.items() if worker["resources"].get(GPU)} or workers
    first, new = not reasons, [name for name in takers if name not in reasons]
    if new:
        reasons |= client.run(unfit, shared, workers=new, on_error="return")
    bad = {}
    for name, worker in takers.items():
        reason = reasons.get(name)
        if isinstance(reason, BaseException):
            reason = f"can't run serkit ({one_line(str(reason))}); install the same as here"
        if reason:
            bad[name] = f"worker {worker['name']} at {name}: {reason}"
    others = f" ({len(bad)} of {len(workers)} workers are unfit)" if len(bad) > 1 else ""
    if bad and (first or len(bad) == len(takers)):
        raise RunError(f"{next(iter(bad.values()))}{others}")
    for name in set(new) & set(bad):
        print(f"{bad[name]}; it gets no jobs", flush=True)
    return {name: worker for name, worker in takers.items() if name not in bad}


def _places(fit):
    """How many jobs such workers run at a time."""
    return sum(1 if worker["resources"].get(GPU) else worker["nthreads"] for worker in fit.values())
