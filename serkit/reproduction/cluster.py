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
import tempfile
import time
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from distributed import Client, Reschedule, get_worker
from distributed.comm.addressing import get_address_host_port

from serkit.errors import RunError, reported_as, shown
from serkit.files import locked
from serkit.reproduction.jobs import end_state, one_line
from serkit.runs import PACKAGES, project_home

GPU = "GPU"  # the resource that a worker with a GPU announces: --resources GPU=1
CONNECT_S = 8  # for a scheduler to answer
FIRST_WORKER_S = 60  # for the first worker to come
PATIENCE_S = 10  # a network file system may show a new file late; an unfit worker keeps its job as long
LOOK_S = 0.2  # between looks at the jobs
WORKERS_S = 2.0  # between looks at the workers
# dask sets it so that workers give freed memory back at once; a training that inherits it asks the system
# anew for every tensor, and takes twice as long on a CPU
TRIM = "MALLOC_TRIM_THRESHOLD_"


def check_cluster(address):
    """Refuse a cluster that can't take jobs.

    Parameters
    ----------
    address : str
        Of the scheduler, such as ``tcp://host:8786``.

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
    with _connected(address) as (client, needs):
        return _count_places(_fit_workers(client, needs, {}))


def run_on_cluster(steps, address, execute, on_change):
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
    on_change : callable
        Called with title and state of a step, as by :func:`serkit.reproduction.jobs.run_local`.

    Raises
    ------
    RunError
        As :func:`check_cluster`, or if the scheduler or every worker that is fit is lost.
    """
    waiting, running, reasons, looked = list(steps), {}, {}, -WORKERS_S
    with _connected(address) as (client, needs):
        try:
            while waiting or running:
                if time.monotonic() > looked + WORKERS_S:
                    fit, looked = _fit_workers(client, needs, reasons), time.monotonic()
                # as many as there are places: given all, dask would share them out at once, and leave a worker
                # idle beside one with jobs in reserve, as it can't know that they take minutes
                while waiting and len(running) < _count_places(fit):
                    step = waiting.pop(0)
                    # the key names the job on the dashboard; a second call joins a job that still runs
                    running[step.title] = client.submit(
                        _job, step, execute, needs, key=f"{step.title}-{step.key()}", pure=False,
                        resources={GPU: 1} if any(map(_has_gpu, fit.values())) else None,
                    )  # fmt: skip
                    on_change(step.title, "running")
                time.sleep(LOOK_S)
                for title, job in list(running.items()):
                    if client.status != "running" or job.status in ("lost", "cancelled"):
                        raise ConnectionError
                    if job.status in ("finished", "error"):
                        with suppress(TimeoutError):  # its worker is lost at this moment: it is run again
                            state = end_state(_fault(job))
                            del running[title]  # before anybody is told, who may interrupt
                            on_change(title, state)
        except KeyboardInterrupt:
            client.cancel(list(running.values()), force=True)
            for title in running:
                on_change(title, "interrupted: goes on to its end on the cluster")
        except (OSError, CancelledError) as error:
            cure = "start it and its workers again and repeat the call: it goes on where it was"
            raise RunError(f"scheduler {address}: lost; {cure}") from error


def _fault(job):
    """How a job has ended: None, or in one line what went wrong."""
    if job.status == "finished":
        return job.result(timeout=CONNECT_S)
    error = job.exception(timeout=CONNECT_S)  # KilledWorker says how many workers were lost with it
    return one_line(f"{type(error).__name__}: {error}")


def _job(step, execute, needs):
    """What a worker does for a step."""
    if unfit(*needs):  # it came after the check of all: another one shall have the job
        time.sleep(needs[-1])
        raise Reschedule
    step.output.parent.mkdir(parents=True, exist_ok=True)
    with locked(step.output.parent / "lock"):  # whoever had it before may still be at work
        if step.is_done():
            return None
        os.environ.pop(TRIM, None)
        return execute(step)


def unfit(mark, wanted, patience_s, dask_worker=None):
    """Why the worker that this runs in can't take jobs; None if it can.

    Parameters
    ----------
    mark : Path
        File in the project folder that the driver has just written.
    wanted : dict of str to str
        Its :func:`versions`.
    patience_s : float
        How long to wait for the file.
    dask_worker : distributed.Worker, optional
        Of this process; ``Client.run`` hands it over, in a job it is looked up.

    Returns
    -------
    str or None
    """
    here, gpus = versions(), (dask_worker or get_worker()).state.total_resources.get(GPU, 1)
    for name, expected in wanted.items():
        if here.get(name) != expected:
            return f"{name} is {here.get(name)}, expected {expected} as where the jobs come from; install the same"
    if gpus != 1:
        cure = "start one worker for each GPU, with --resources GPU=1 and its own CUDA_VISIBLE_DEVICES"
        return f"it announces {gpus:g} GPUs, expected 1: all its jobs would take the first; {cure}"
    deadline = time.monotonic() + patience_s
    while not mark.exists():
        if time.monotonic() > deadline:
            cure = "mount the same project folder under the same path everywhere"
            return f"{mark}, just written by this call, does not arrive there; {cure}"
        time.sleep(LOOK_S)
    return None


@functools.cache
def versions():
    """What must be the same on all machines: Python, the packages that decide the numbers, serkit's own code.

    Returns
    -------
    dict of str to str
    """
    code, package = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.toml")]):
        code.update(str(path.relative_to(package)).encode() + path.read_bytes())
    python = ".".join(platform.python_version_tuple()[:2])
    packages = {name: version(name) for name in PACKAGES}
    return {"Python": python, **packages, "serkit's code": code.hexdigest()[:12]}


@contextmanager
def _connected(address):
    """A client of a scheduler that has serkit and a worker, and what :func:`unfit` has to know.

    What dask logs about lost connections is said here in one sentence.
    """
    with ExitStack() as stack:
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.ERROR)
        about = f"scheduler={shown(address)}, expected an address such as tcp://host:8786: it does not answer"
        cure = "start one with `dask scheduler`, or check host, port and firewall"
        with reported_as(RunError, about, cure, (OSError, ValueError)):
            # after an address that it can't read, a client would stay half open
            get_address_host_port(address, strict=True)
            client = Client(address, timeout=CONNECT_S, set_as_default=False, name="serkit")
        stack.callback(client.close, timeout=CONNECT_S)
        same = "start it in the same environment as the workers"
        with reported_as(RunError, f"scheduler {address}: can't run serkit", same):
            client.run_on_scheduler(versions)  # it unpacks the jobs to see how they hang together
            try:
                client.wait_for_workers(1, timeout=FIRST_WORKER_S)
            except TimeoutError:
                about = f"scheduler {address}: no worker within {FIRST_WORKER_S} s, expected at least one"
                raise RunError(f"{about}; start one with `dask worker {address} --nthreads 1`") from None
        folder = project_home().resolve() / "runs"
        folder.mkdir(exist_ok=True)
        mark = stack.enter_context(tempfile.NamedTemporaryFile(prefix=".cluster-", dir=folder))
        yield client, (Path(mark.name), versions(), PATIENCE_S)


def _fit_workers(client, needs, reasons):
    """Workers that get jobs, by address: refuses unfit ones before the first job, later it only names them."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    takers = {name: worker for name, worker in workers.items() if _has_gpu(worker)} or workers
    first, new = not reasons, [name for name in takers if name not in reasons]
    answers = client.run(unfit, *needs, workers=new, on_error="return") if new else {}
    for name, answer in answers.items():
        broken = isinstance(answer, Exception)
        reasons[name] = f"can't run serkit ({one_line(str(answer))}); install it there" if broken else answer
    fit = {name: worker for name, worker in takers.items() if not reasons.get(name)}
    for name in filter(reasons.get, takers):
        sentence = f"worker {takers[name]['name']} at {name}: {reasons[name]}"
        if first or not fit:
            raise RunError(sentence)
        if name in new:
            print(f"{sentence}; it gets no jobs", flush=True)
    return fit


def _has_gpu(worker):
    return bool(worker["resources"].get(GPU))


def _count_places(workers):
    """How many jobs such workers run at a time."""
    return sum(1 if _has_gpu(worker) else worker["nthreads"] for worker in workers.values())
