"""The whole reproduction without a hand on it: plan it, show it, run what is missing.

papermill executes the notebooks; what is DONE for the same parameters is skipped, a failed step
is named at the end and never stops the others.
"""

import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import pandas as pd
from filelock import Timeout
from tabulate import tabulate
from tqdm import tqdm

from serkit import corpora, runs
from serkit.errors import ParameterError, RunError, SerkitError, shown
from serkit.files import locked
from serkit.reproduction.estimate import Cost, describe, disk_use, estimate, show_bytes
from serkit.reproduction.jobs import count_jobs, execute, find_gpus, run_local, threads_per_job
from serkit.reproduction.plan import TRAINING, make_plan, unfinished

GRID = "grid.toml"  # copy of the grid in its run folder
BAR = "everything {percentage:3.0f}% |{bar}| {elapsed}, about {remaining} left"


def reproduce(
    run, *, corpus, root="", check="strict", skip_broken=False, dry_run=False, jobs=1, scheduler="", grid=None,
    **settings,
):  # fmt: skip
    """Plan, show, run.

    The corpus is read first, so that what is wrong with it is said before anything runs.

    Parameters
    ----------
    run : str
    corpus, root, check, skip_broken
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
    runs.require_project()
    runner, jobs = _choose_runner(jobs, scheduler, dry_run)
    if grid is not None:
        settings |= {"variants": grid.variants, "fold_names": grid.folds, "seeds": grid.seeds}
        print(f"grid {runs.show_path(grid.path)}: {grid.title}")
    allowed = {"check": check, "skip_broken": skip_broken}
    with tempfile.TemporaryDirectory(prefix="serkit-") as spare:
        place = runs.corpus_root(corpus, root)
        if dry_run and corpus == "demo" and not place.exists():  # it would be spoken there
            place = Path(spare, "demo")
        manifest = corpora.load(corpus, place, **allowed)
        steps = make_plan(run, manifest, corpus=corpus, root=root, **allowed, **settings)
        costs = estimate(unfinished(steps), manifest, threads_per_job(jobs) if jobs > 1 else 0)
    print_plan(steps, costs, jobs)
    if dry_run:
        return 0
    needed, free = disk_use(costs.values(), jobs)
    if needed > free:
        about = f"the disk of {runs.project_home()} has {show_bytes(free)} free"
        cure = "make room, or choose fewer folds or seeds"
        raise RunError(f"{about}, this plan needs {show_bytes(needed)}; {cure}")
    outcome = run_plan(steps, run, jobs, runner=runner, grid=grid, costs=costs)
    if outcome["interrupted"] or outcome["not started"]:
        return 130
    if outcome["failed"]:
        return 1
    _print_result(run)
    return 0


def _choose_runner(jobs, scheduler, dry_run):
    """What runs the trainings, and how many of them at a time; a cluster that can't is refused here."""
    if not scheduler:
        return run_local, count_jobs(jobs)
    if jobs not in (0, 1):
        raise ParameterError(f"jobs={shown(jobs)} beside a scheduler, expected 0: its workers say how many")
    from serkit.reproduction import cluster  # here: dask takes a while to import

    n_places = 1 if dry_run else cluster.check_cluster(scheduler)
    return lambda steps, _, on_change: cluster.run_on_cluster(steps, scheduler, execute, on_change), n_places


def print_plan(steps, costs, jobs=1):
    """Show what will run, what is done, and how long it takes at most."""
    print(f"{len(steps)} steps, {len(steps) - len(costs)} done before")
    trainings = [step for step in steps if step.experiment is not None]
    settings = pd.DataFrame([asdict(step.experiment) for step in trainings], dtype=object)
    settings = settings.set_axis([step.title for step in trainings]).drop(columns=["fold", "seed"])
    varied = settings.nunique(dropna=False) > 1
    table = pd.DataFrame({"step": [step.title for step in steps]}, range(1, len(steps) + 1))
    known = [costs.get(step.title) for step in steps]
    table["time"] = [f"at most {cost.seconds / 60:.1f} min" if cost else "done before" for cost in known]
    table["memory"] = [show_bytes(cost.memory) if cost and cost.memory else "" for cost in known]
    table = table.join(settings.loc[:, varied], on="step").fillna("")
    print(tabulate(table, headers="keys", tablefmt="plain", disable_numparse=True))
    common = settings.loc[:, ~varied].iloc[0]
    print("parameters: " + ", ".join(f"{name}={value}" for name, value in common.items()))
    training_s = [costs[step.title].seconds for step in trainings if step.title in costs]
    at_once = max(min(jobs, len(training_s)), 1)
    if costs:
        sharing = -(-at_once // max(len(find_gpus()), 1)) if at_once > 1 else 1
        print("\n".join(describe(costs.values(), trainings[0].experiment, at_once, sharing)))
    seconds = sum(cost.seconds for cost in costs.values()) - sum(training_s) * (1 - 1 / at_once)
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
        began, todo = time.perf_counter(), unfinished(steps)
        states = {step.title: "not started" if step in todo else "done before" for step in steps}
        with _progress(steps, todo, costs or {}, states) as change:
            for is_training, stage in groupby(todo, lambda step: step.notebook == TRAINING):
                stage = list(stage)
                runner(stage, jobs, change) if is_training else run_local(stage, 1, change)
                if any(states[step.title].startswith(("interrupted", "not started")) for step in stage):
                    break
    outcome = {kind: [] for kind in ("done", "done before", "failed", "interrupted", "not started")}
    for title, state in states.items():
        outcome[state.partition(": ")[0]].append(title)
    counts = [f"{len(titles)} {kind}" for kind, titles in outcome.items() if titles or kind[0] in "df"]
    print(f"{', '.join(counts)} in {(time.perf_counter() - began) / 60:.1f} min")
    for step in steps:
        kind, _, fault = states[step.title].partition(": ")
        if fault:
            print(f"  {kind}: {step.title}: {fault}\n          see {runs.show_path(step.log)}")
    if outcome["interrupted"] or outcome["not started"]:
        print("interrupted; call again to continue", flush=True)
    return outcome


@contextmanager
def _progress(steps, todo, costs, states):
    """A line for every change, and on a terminal a bar below them for all.

    Yields what is to be called with title and state of a step; ``states`` has the last one of each that has ended.
    """
    numbered = {step.title: (number, step) for number, step in enumerate(steps, start=1)}
    seconds = {step.title: costs.get(step.title, Cost()).seconds for step in todo}
    bar, began = tqdm(total=sum(seconds.values()), disable=None, smoothing=0, bar_format=BAR), {}

    def say(title, text):
        with bar.external_write_mode():
            print(f"[{numbered[title][0]:2d}/{len(steps)}] {title}: {text}", flush=True)

    def change(title, state):
        if state == "running":
            began[title] = time.monotonic()
            return say(title, f"running, log in {runs.show_path(numbered[title][1].log)}")
        states[title] = state
        kind, _, fault = state.partition(": ")
        bar.update(seconds[title])
        took = f"{time.monotonic() - began[title]:.0f} s"
        say(title, f"{kind.upper()} after {took}: {fault}" if fault else f"done in {took}")

    for title in numbered:
        if title not in seconds:
            say(title, "done before")
    with bar:
        yield change


@contextmanager
def only_one(run):
    """Hold a run folder: one `serkit reproduce` at a time.

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
        If it is held by another process, or can't be written.
    """
    folder = runs.project_home() / "runs" / runs.check_run_name(run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = locked(folder / "lock", timeout=0)
    except OSError as error:
        in_use = "is in use by another `serkit reproduce`; wait for it, or end it"
        fault = f"can't be written ({error.strerror}); check its owner and the disk"
        about = in_use if isinstance(error, Timeout) else fault
        raise RunError(f"{runs.show_path(folder)} {about}") from error
    with lock:
        yield folder


def _print_result(run):
    """The scores of a run, and where everything lies."""
    from serkit.reproduction.report import print_scores  # here: a plan needs no statistics

    try:
        print_scores(run)
    except SerkitError as error:  # all has been run; whoever wants the report is told the same
        print(f"no scores yet: {error}")
    print(f"figures and tables: figures/{run}; executed notebooks: runs/{run}")
    print(f"all of it on one page: serkit report {run}", flush=True)
