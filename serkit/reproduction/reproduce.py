"""The whole reproduction without a hand on it: plan it, show it, run what is missing.

papermill executes the notebooks; what is DONE for the same parameters is skipped, a failed step
is named at the end and never stops the others.
"""

import os
import shutil
import socket
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime

import psutil
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from serkit import corpora, runs
from serkit.errors import ParameterError, RunError, SerkitError
from serkit.reproduction.estimate import Cost, describe, disk_faults, estimate, show_bytes
from serkit.reproduction.jobs import INTERRUPTED, count_jobs, execute, find_gpus, run_local, threads_per_job
from serkit.reproduction.plan import TOGETHER, TRAINING, make_plan, unfinished

GRID = "grid.toml"  # copy of the grid in its run folder
A_DAY_S = 86_400  # over which the time left is reckoned: jobs take minutes to hours


def reproduce(
    run, *, corpus, root="", check="strict", dry_run=False, jobs=1, scheduler="", grid=None, **settings
):
    """Plan, show, run.

    The corpus is read first, so that what is wrong with it is said before anything runs.

    Parameters
    ----------
    run : str
    corpus, root, check : str
        As :func:`serkit.reproduction.plan.make_plan` takes them.
    dry_run : bool, optional
        Stop after the plan.
    jobs : int, optional
        Trainings at a time, see :func:`serkit.reproduction.jobs.count_jobs`.
    scheduler : str, optional
        Address of a dask scheduler whose workers run the trainings, see :func:`serkit.reproduction.cluster.run_on_cluster`.
    grid : serkit.reproduction.plan.Grid, optional
        Variants, folds and seeds; then ``settings`` are only about corpus and machine.
    **settings
        As :func:`serkit.reproduction.plan.make_plan` takes them.

    Returns
    -------
    int
        Exit code: 0 when everything is done, 1 when a step failed, 130 when it was interrupted.
    """
    runner, jobs = _choose_runner(run, jobs, scheduler, dry_run)
    if grid is not None:
        settings |= {"variants": grid.variants, "fold_names": grid.folds, "seeds": grid.seeds}
        print(f"grid {runs.show_path(grid.path)}: {grid.title}")
    manifest = corpora.load(corpus, runs.corpus_root(corpus, root), check=check)
    steps = make_plan(run, manifest, corpus=corpus, root=root, check=check, **settings)
    costs = estimate(unfinished(steps), manifest, threads_per_job(jobs) if jobs > 1 else 0)
    print_plan(steps, costs, jobs)
    if dry_run:
        return 0
    for fault in disk_faults(costs.values(), jobs):
        raise RunError(fault)
    outcome = run_plan(steps, run, jobs, runner=runner, grid=grid, costs=costs)
    if outcome["interrupted"] or outcome["not started"]:
        return 130
    if outcome["failed"]:
        return 1
    _print_result(run)
    return 0


def _choose_runner(run, jobs, scheduler, dry_run):
    """What runs the trainings, and how many of them at a time; a cluster that can't is refused here."""
    if not scheduler:
        return run_local, count_jobs(jobs)
    if jobs not in (0, 1):
        raise ParameterError(
            f"jobs={jobs!r} beside a scheduler, expected 0: its workers say how many run at a time"
        )
    from serkit.reproduction import cluster  # here: dask takes a while to import

    folder = runs.project_home() / "runs" / run

    def runner(steps, _, on_change):
        return cluster.run_on_cluster(steps, scheduler, execute, on_change, folder=folder)

    return runner, 1 if dry_run else cluster.check_cluster(scheduler, folder)


def print_plan(steps, costs, jobs=1):
    """Show what will run, what is done, and how long it takes at most."""
    print(f"{len(steps)} steps, {len(steps) - len(costs)} done before")
    experiments = {step.title: asdict(step.experiment) for step in steps if step.experiment is not None}
    first = next(iter(experiments.values()))
    names = [name for name in first if name not in ("fold", "seed")]
    common = [name for name in names if all(first[name] == given[name] for given in experiments.values())]
    width = max(45, *(len(step.title) for step in steps))
    for number, step in enumerate(steps, start=1):
        cost, given = costs.get(step.title), experiments.get(step.title, {})
        state = f"at most {cost.seconds / 60:5.1f} min" if cost else "done before"
        state += f", {show_bytes(cost.memory)} of memory" if cost and cost.memory else ""
        state += "".join(f"  {name}={given[name]}" for name in names if given and name not in common)
        print(f"  {number:2d}  {step.title:{width}s} {state}")
    print("parameters: " + ", ".join(f"{name}={first[name]}" for name in common))
    training = [costs[title].seconds for title in costs if title in experiments]
    at_once = max(min(jobs, len(training)), 1)
    if costs:
        sharing = -(-at_once // max(len(find_gpus()), 1)) if at_once > 1 else 1
        experiment = next(step.experiment for step in steps if step.experiment is not None)
        print("\n".join(describe(costs.values(), experiment, at_once, sharing)))
    seconds = sum(cost.seconds for cost in costs.values()) - sum(training) * (1 - 1 / at_once)
    side_by_side = f", {at_once} trainings at a time" if at_once > 1 else ""
    print(f"estimate for everything: at most {seconds / 60:.0f} min{side_by_side}\n", flush=True)


def run_plan(steps, run, jobs=1, *, runner=run_local, grid=None, costs=None):
    """Execute a plan: preparation first and alone, then the trainings, what puts them together last.

    Parameters
    ----------
    steps : list of Step
    run : str
    jobs : int, optional
        Trainings at a time.
    runner : callable, optional
        Runs the trainings, as :func:`serkit.reproduction.jobs.run_local` does.
    grid : serkit.reproduction.plan.Grid, optional
        Where the plan comes from: a copy of its file is kept beside the results.
    costs : dict of str to serkit.reproduction.estimate.Cost, optional
        By title of the step.

    Returns
    -------
    dict of str to list of str
        Titles of the steps that were ``done``, ``done before``, ``failed``, ``interrupted``, or ``not started``
        because of that.
    """
    for step in steps:
        step.check()
    with only_one(run) as folder:
        if grid is not None and grid.path.resolve() != (folder / GRID).resolve():
            shutil.copyfile(grid.path, folder / GRID)  # the results say by themselves what they are part of
        began, todo, faults = time.perf_counter(), unfinished(steps), {}
        with _progress(steps, todo, costs or {}) as change:
            for stage, side_by_side, run_stage in (
                ([step for step in todo if step.notebook not in (TRAINING, *TOGETHER)], 1, run_local),
                ([step for step in todo if step.notebook == TRAINING], jobs, runner),
                ([step for step in todo if step.notebook in TOGETHER], 1, run_local),
            ):
                if stage:
                    faults |= run_stage(stage, side_by_side, change)
                if any(_verdict(faults, step) in ("interrupted", "not started") for step in stage):
                    break
        minutes = (time.perf_counter() - began) / 60
    outcome = {kind: [] for kind in ("done", "done before", "failed", "interrupted", "not started")}
    for step in steps:
        outcome[_verdict(faults, step) if step in todo else "done before"].append(step.title)
    counts = [f"{len(titles)} {kind}" for kind, titles in outcome.items() if titles or kind[0] in "df"]
    print(f"{', '.join(counts)} in {minutes:.1f} min")
    for step in steps:
        if faults.get(step.title):
            fault = faults[step.title].removeprefix(f"{INTERRUPTED}: ")
            print(
                f"  {_verdict(faults, step)}: {step.title}: {fault}\n          see {runs.show_path(step.log)}"
            )
    if outcome["interrupted"] or outcome["not started"]:
        print("interrupted; call again to continue", flush=True)
    return outcome


def _verdict(faults, step):
    fault = faults.get(step.title, "")
    if fault is None:
        return "done"
    return "not started" if not fault else "interrupted" if fault.startswith(INTERRUPTED) else "failed"


@contextmanager
def _progress(steps, todo, costs):
    """A line for every change, and on a terminal a bar below them for all, with what runs now.

    Yields what is to be called with title and state of a step.
    """
    console, began, count = Console(highlight=False), {}, Counter()
    numbers = {step.title: number for number, step in enumerate(steps, start=1)}
    logs = {step.title: runs.show_path(step.log) for step in steps}
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=console, disable=not console.is_terminal, speed_estimate_period=A_DAY_S)
    planned = {step.title: costs.get(step.title, Cost()).seconds for step in todo}

    def say(title, text):
        console.print(Text(f"[{numbers[title]:2d}/{len(steps)}] {title}: {text}"), soft_wrap=True)

    def change(title, state):
        if state == "running":
            began[title] = bars.add_task(title, total=None), time.monotonic()
            return say(title, f"running, log in {logs[title]}")
        (bar, since), (kind, _, fault) = began.pop(title), state.partition(": ")
        count[kind] += 1
        counts = ", ".join(f"{n} {kind}" for kind, n in count.items())
        bars.remove_task(bar)
        bars.update(everything, advance=planned[title], description=counts)
        took = f"{time.monotonic() - since:.0f} s"
        say(title, f"{kind.upper()} after {took}: {fault}" if fault else f"done in {took}")

    for step in steps:
        if step not in todo:
            say(step.title, "done before")
    with bars:
        everything = bars.add_task("everything", total=sum(planned.values()))
        yield change


@contextmanager
def only_one(run):
    """Hold a run folder: one `serkit reproduce` at a time, a second one is told who holds it.

    Parameters
    ----------
    run : str

    Yields
    ------
    Path
        The folder.

    Raises
    ------
    RunError
        If it is held by another process (which, where, since when), or can't be written.
    """
    folder = runs.project_home() / "runs" / run
    holder, lock = folder / "lock.txt", FileLock(folder / "lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        holder.write_text(f"process {os.getpid()} of {psutil.Process().username()} on host {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M}")  # fmt: skip
    except Timeout:
        who = holder.read_text() if holder.exists() else "another process"
        raise RunError(f"{runs.show_path(folder)} is in use by {who}; wait for it, or end it") from None
    except OSError as error:
        raise RunError(
            f"{folder}: can't be written ({error.strerror}); check its owner and the disk"
        ) from error
    try:
        yield folder
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _print_result(run):
    """The scores of a run, and where everything lies."""
    from serkit.reproduction.report import print_scores  # here: a plan needs no statistics

    try:
        print_scores(run)
    except SerkitError as error:  # all has been run; whoever wants the report is told the same
        print(f"no scores yet: {error}")
    print(f"figures and tables: figures/{run}; executed notebooks: runs/{run}")
    print(f"all of it on one page: serkit report {run}", flush=True)
