"""The same jobs on many machines: a dask.distributed cluster runs them.

What counts is the shared folder: a job looks there whether its step is done, holds a lock there while
it runs, and a training leaves its checkpoints there. So a job that is handed out twice, because a
worker was lost or the driver died, is finished once, and goes on where it was.
"""

import functools
import hashlib
import json
import logging
import os
import platform
import queue
import secrets
import time
from collections import deque
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from distributed import Client, KilledWorker, Reschedule, get_worker
from filelock import FileLock, Timeout

from serkit.errors import RunError
from serkit.experiment import project_home, show_path
from serkit.reproduction.execution import one_line
from serkit.reproduction.jobs import INTERRUPTED
from serkit.reproduction.lock import RECORD, describe, signed
from serkit.runs import PACKAGES, write_json

GPU = "GPU"  # the resource that a worker with a GPU announces: --resources GPU=1
CONNECT_S = 8  # for a scheduler to answer
FIRST_WORKER_S = 60  # for the first worker to come
PROBE_S = 10  # a network file system may show a new file late
PAUSE_S = 10  # of a worker that is unfit, before it gives its job back
# dask sets it so that workers give freed memory back at once; a training that inherits it asks the system
# anew for every tensor, and takes twice as long on a CPU
TRIM = "MALLOC_TRIM_THRESHOLD_"
LOOK_S = 0.2  # between looks at the jobs
WORKERS_S = 2.0  # between looks at the workers
ENDED, LOST = ("finished", "error"), ("lost", "cancelled")  # states of a future
ORPHAN_S = 2  # a kernel ends within a second after the process that started it


@dataclass(frozen=True)
class Shared:
    """What a worker must find on its side to be fit for the jobs."""

    home: str  # the project folder, under the same path everywhere
    probe: str  # a file in the run's folder that the driver has just written
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
    with _quiet(), _connected(address) as client, _probe(Path(folder)) as shared:
        return _check_workers(client, address, shared)[1]


def run_on_cluster(steps, address, execute, on_change=None, *, folder):
    """Run steps on a dask.distributed cluster, in any order; none waits for the result of another.

    If any worker announces the resource ``GPU``, only such workers get jobs, and each job takes one
    ``GPU``; otherwise a worker gets one job for each of its threads. Workers that come later join in. A
    step whose worker is lost is run again elsewhere, until dask's
    ``distributed.scheduler.allowed-failures`` blames the step. After Ctrl-C the steps that run go on to
    their end on the cluster, as dask can't stop them; the others are cancelled.

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
        Called with title and state of a step: ``running``, ``done``, ``failed: <fault>``,
        ``interrupted: <fault>``, or ``remaining`` again: its worker was lost.
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
    with _quiet(), _connected(address) as client, _probe(Path(folder)) as shared:
        resources, places = _check_workers(client, address, shared)
        topic = f"serkit-{shared.token}"

        def submit(step):
            return client.submit(
                _job, step, execute, shared, topic, resources=resources, pure=False,
                # names the job on the dashboard; a second call joins a job that still runs
                key=f"{step.title}-{step.key()}",
            )  # fmt: skip

        watch = _Watch(client, address, on_change or (lambda title, state: None), steps, submit, places)
        client.subscribe_topic(topic, lambda event: watch.events.put(event[1]))
        try:
            watch.wait()
        except KeyboardInterrupt:
            watch.interrupt()
        return watch.faults


class _Watch:
    """What the driver knows of its jobs, and of those that wait with it.

    The cluster gets as many as it has places. Given all of them, dask would share them out at once, and
    leave a worker idle beside one with jobs in reserve, as it can't know that they take minutes.
    """

    def __init__(self, client, address, say, steps, submit, places):
        self.client, self.address, self.say, self.submit, self.places = client, address, say, submit, places
        self.total = len(steps)
        self.waiting = deque(steps)
        self.jobs = {}  # futures by title
        self.faults = {}  # of those that have ended
        self.events = queue.SimpleQueue()  # from the workers
        self._where = {}  # worker of each that runs
        self._unfit = {}  # what is wrong with a worker
        self._looked = time.monotonic()

    def wait(self):
        """Until every job has ended."""
        while len(self.faults) < self.total:
            self._hand_out()
            self._hear()
            left = {title: job for title, job in self.jobs.items() if title not in self.faults}
            if self.client.status != "running" or any(job.status in LOST for job in left.values()):
                raise self._lost()
            for title, job in left.items():
                if job.status in ENDED:
                    self._fetch(title, job)
            if time.monotonic() - self._looked > WORKERS_S:
                self._look_at_workers()
            time.sleep(LOOK_S)

    def _hand_out(self):
        while self.waiting and len(self.jobs) - len(self.faults) < self.places:
            step = self.waiting.popleft()
            self.jobs[step.title] = self.submit(step)

    def _fetch(self, title, job):
        """How a job has ended; its worker may be lost in this moment, then it is run again."""
        try:
            if job.status == "finished":
                fault = job.result(timeout=CONNECT_S)
            else:
                fault = _blame(job.exception(timeout=CONNECT_S))
        except TimeoutError:
            return
        except (CancelledError, OSError):
            raise self._lost() from None
        self._end(title, fault)

    def interrupt(self):
        """Take back what has not been started."""
        self._hear()
        self.client.cancel(list(self.jobs.values()), force=True)
        for title in list(self._where):
            self._end(title, f"{INTERRUPTED}: goes on to its end on the cluster")

    def _hear(self):
        while not self.events.empty():
            event = self.events.get()
            title, worker, text = event["title"], event["worker"], event["text"]
            if event["state"] == "unfit" and worker not in self._unfit:
                self._unfit[worker] = text
                print(text, flush=True)
            elif event["state"] == "waiting":
                print(f"{title}: {text}", flush=True)
            elif event["state"] == "running" and title not in self.faults:
                self._where[title] = worker
                self.say(title, "running")

    def _end(self, title, fault):
        self.faults[title] = fault
        if title not in self._where:
            self.say(title, "running")  # it was too short to be heard of, or done already
        self._where.pop(title, None)
        kind = "failed: " if fault and not fault.startswith(INTERRUPTED) else ""
        self.say(title, "done" if fault is None else f"{kind}{fault}")

    def _look_at_workers(self):
        self._looked = time.monotonic()
        try:
            workers = _workers(self.client)
        except OSError:
            raise self._lost() from None
        for title, worker in list(self._where.items()):
            if worker not in workers:
                del self._where[title]
                self.say(title, "remaining")
        fit = {name: about for name, about in _takers(workers).items() if name not in self._unfit}
        self.places = _places(fit)
        if workers and not fit:
            raise RunError(f"no worker is left that is fit: {next(iter(self._unfit.values()))}")

    def _lost(self):
        return RunError(
            f"scheduler {self.address}: lost after {len(self.faults)} of {self.total} jobs; start it and its "
            "workers again and repeat the call: what is done stays done, trainings go on from their checkpoints"
        )


def _blame(error):
    """What went wrong in a job that raised an error, in one line."""
    if isinstance(error, KilledWorker):
        times = error.allowed_failures + 1
        return f"its worker was lost {times} times, perhaps for want of memory; see the logs of the workers"
    return one_line(f"{type(error).__name__}: {error}")


def _job(step, execute, shared, topic):
    """What a worker does for a step."""
    worker = get_worker()

    def tell(state, text=""):
        event = {"title": step.title, "state": state, "text": text, "worker": worker.address}
        worker.log_event(topic, event)

    reason = unfit(shared)
    if reason:  # it came after the check of all: another one shall have the job
        tell("unfit", f"worker {worker.name} at {worker.address} gets no jobs: {reason}")
        time.sleep(shared.pause_s)
        raise Reschedule
    with _held(step, tell):
        if step.is_done():  # whoever had it before was lost too late
            return None
        tell("running")
        os.environ.pop(TRIM, None)
        return execute(step)


@contextmanager
def _held(step, tell):
    """The lock of a step's folder, waited for as long as somebody else has it."""
    folder = step.output.parent
    folder.mkdir(parents=True, exist_ok=True)
    lock, note, told = FileLock(folder / "lock"), folder / RECORD, None
    while not lock.is_locked:
        try:
            lock.acquire(timeout=1)
        except Timeout:
            holder = describe(note, "dask worker")
            if holder != told:
                tell("waiting", f"waits for {holder}, which works on it")
                told = holder
    left_behind = note.exists()
    with signed(lock, note):
        if left_behind:  # whoever left it was killed: its notebook notices, saves and ends
            time.sleep(ORPHAN_S)
            with FileLock(step.output.with_suffix(".lock")):
                pass
        yield


def unfit(shared):
    """Why the process that this runs in can't take jobs; None if it can.

    Parameters
    ----------
    shared : Shared

    Returns
    -------
    str or None
    """
    mine = versions()
    for name, wanted in shared.versions.items():
        if mine.get(name) != wanted:
            return (
                f"{name} is {mine.get(name)}, expected {wanted} as where the jobs come from; install the same"
            )
    if not Path(shared.home).is_dir():
        return f"there is no folder {shared.home}; mount the project folder under the same path everywhere"
    deadline = time.monotonic() + shared.patience_s
    while True:
        try:
            if json.loads(Path(shared.probe).read_text())["token"] == shared.token:
                return None
        except (OSError, ValueError, KeyError):
            pass
        if time.monotonic() > deadline:
            return (
                f"{shared.home} is another folder there (what this call has written to {Path(shared.probe).name} "
                "does not arrive); mount the same project folder everywhere"
            )
        time.sleep(LOOK_S)


@functools.cache
def versions():
    """What must be the same on all machines: Python, the packages that decide the numbers, serkit's own code.

    Returns
    -------
    dict of str to str
    """
    code = hashlib.sha256()
    package = Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        code.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        **{name: version(name) for name in PACKAGES},
        "serkit's code": code.hexdigest()[:12],
    }


@contextmanager
def _probe(folder):
    """A file for the workers to find."""
    path, home = folder.resolve() / "cluster.json", str(project_home().resolve())
    shared = Shared(home, str(path), secrets.token_hex(8), versions(), PROBE_S, PAUSE_S)
    try:
        write_json(path, {"token": shared.token})
    except OSError as error:
        raise RunError(
            f"{show_path(folder)}: can't be written ({error.strerror}); check its owner and the disk"
        ) from error
    try:
        yield shared
    finally:
        path.unlink(missing_ok=True)
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
    """A client of the scheduler."""
    try:
        client = _Client(address, timeout=CONNECT_S, set_as_default=False, name="serkit")
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(
            f"scheduler={address!r} does not answer ({reason}), expected the address of a running dask scheduler "
            "such as tcp://host:8786; start one with `dask scheduler`, or check host, port and firewall"
        ) from error
    try:
        yield client
    finally:
        client.close(timeout=CONNECT_S)


@contextmanager
def _quiet():
    """What dask logs about lost connections is said here in one sentence."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _workers(client):
    """All workers as the scheduler knows them, by address."""
    return client.scheduler_info(n_workers=-1)["workers"]


def _takers(workers):
    """Those that get jobs: where any worker announces a GPU, only such workers."""
    gpus = {name: about for name, about in workers.items() if about["resources"].get(GPU)}
    return gpus or workers


def _places(takers):
    """How many jobs such workers run at a time."""
    return sum(1 if about["resources"].get(GPU) else about["nthreads"] for about in takers.values())


def _check_scheduler(client, address):
    """Refuse one without serkit, or without a worker."""
    try:  # it unpacks the jobs to see how they hang together
        client.run_on_scheduler(versions)
    except OSError as error:
        raise RunError(f"scheduler {address}: lost ({one_line(str(error))}); start it again") from error
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


def _check_workers(client, address, shared):
    """Refuse unfit workers before anything runs; returns what a job takes, and how many run at a time."""
    _check_scheduler(client, address)
    workers = _workers(client)
    takers = _takers(workers)
    found = client.run(unfit, shared, workers=list(takers), on_error="return")
    for name, about in takers.items():
        if about["resources"].get(GPU, 1) != 1 and not found[name]:
            found[name] = (
                f"announces {about['resources'][GPU]:g} GPUs, expected 1, as its jobs would all take the first; start "
                "one worker for each GPU, with --resources GPU=1 and its own CUDA_VISIBLE_DEVICES"
            )
    bad = {name: reason for name, reason in found.items() if reason}
    if bad:
        name, reason = next(iter(bad.items()))
        if isinstance(reason, BaseException):
            reason = f"can't run serkit ({one_line(str(reason))}); install the same as here"
        others = f" ({len(bad)} of {len(workers)} workers are unfit)" if len(bad) > 1 else ""
        raise RunError(f"worker {workers[name]['name']} at {name}: {reason}{others}")
    resources = {GPU: 1} if any(about["resources"].get(GPU) for about in takers.values()) else None
    return resources, _places(takers)
