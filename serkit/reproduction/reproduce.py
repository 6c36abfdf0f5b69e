"""The whole reproduction without a hand on it: plan it, show it, run what is missing.

papermill executes the notebooks; what is DONE for the same parameters is skipped, a failed step
is named at the end and never stops the others.
"""

import shutil
import time
from dataclasses import asdict

from serkit import runs
from serkit.errors import ParameterError, RunError, SerkitError
from serkit.reproduction import estimate
from serkit.reproduction.jobs import INTERRUPTED, count_jobs, execute, find_gpus, run_local, threads_per_job
from serkit.reproduction.lock import only_one
from serkit.reproduction.plan import TOGETHER, TRAINING, check_step, make_plan, unfinished
from serkit.reproduction.progress import Board

GRID = "grid.toml"  # copy of the grid in its run folder
OUTCOMES = {
    "done": "done", "skipped": "done before", "failed": "failed", "interrupted": "interrupted",
    "waiting": "not started",
}  # fmt: skip


def run_plan(steps, run, jobs=1, *, runner=run_local, grid=None):
    """Execute a plan: preparation first and alone, then the trainings, what puts them together last.

    Parameters
    ----------
    steps : list of Step
    run : str
    jobs : int, optional
        Trainings at a time.
    runner : callable, optional
        Runs the trainings, as :func:`serkit.reproduction.jobs.run_local` does.
    grid : serkit.reproduction.grid.Grid, optional
        Where the plan comes from: a copy of its file is kept beside the results.

    Returns
    -------
    dict of str to list of str
        Titles of the steps that were ``done``, ``skipped`` (done before), ``failed``,
        ``interrupted``, or were left ``waiting`` because of that.
    """
    for step in steps:
        check_step(step)
    with only_one(run):
        if grid is not None:
            _keep_grid(grid, run)
        started = time.perf_counter()
        todo = unfinished(steps)
        skipped = [step.title for step in steps if step not in todo]
        faults = {}
        with Board(steps, skipped, jobs) as board:
            for stage, side_by_side, run_stage in (
                ([step for step in todo if step.notebook not in (TRAINING, *TOGETHER)], 1, run_local),
                ([step for step in todo if step.notebook == TRAINING], jobs, runner),
                ([step for step in todo if step.notebook in TOGETHER], 1, run_local),
            ):
                if stage:
                    faults |= run_stage(stage, side_by_side, board.change)
                if any(step.title not in faults or _stopped(faults[step.title]) for step in stage):
                    break
        minutes = (time.perf_counter() - started) / 60
    outcome = {
        "done": [title for title, fault in faults.items() if fault is None],
        "skipped": skipped,
        "failed": [title for title, fault in faults.items() if fault is not None and not _stopped(fault)],
        "interrupted": [title for title, fault in faults.items() if _stopped(fault)],
        "waiting": [step.title for step in todo if step.title not in faults],
    }
    _print_summary(outcome, {step.title: step for step in steps}, faults, minutes)
    return outcome


def _stopped(fault):
    return fault is not None and fault.startswith(INTERRUPTED)


def _print_summary(outcome, steps, faults, minutes):
    counts = [
        f"{len(outcome[kind])} {text}" for kind, text in OUTCOMES.items()
        if outcome[kind] or kind in ("done", "skipped", "failed")
    ]  # fmt: skip
    print(f"{', '.join(counts)} in {minutes:.1f} min")
    for kind in ("failed", "interrupted"):
        for title in outcome[kind]:
            print(f"  {kind}: {title}: {faults[title].removeprefix(f'{INTERRUPTED}: ')}")
            print(f"          see {runs.show_path(steps[title].log)}")
    if outcome["interrupted"] or outcome["waiting"]:
        print("interrupted; call again to continue", flush=True)


def print_plan(steps, jobs=1):
    """Show what will run, what is done, and how long it takes at most."""
    todo = unfinished(steps)
    print(f"{len(steps)} steps, {len(steps) - len(todo)} done before")
    common, own = _compare_experiments(steps)
    width = max(45, *(len(step.title) for step in steps))
    for number, step in enumerate(steps, start=1):
        state = f"at most {step.estimate_s / 60:5.1f} min" if step in todo else "done before"
        different = "  " + ", ".join(own[step.title]) if own.get(step.title) else ""
        print(f"  {number:2d}  {step.title:{width}s} {state}{different}")
    print("parameters: " + ", ".join(f"{key}={value}" for key, value in common.items()))
    train = [step for step in todo if step.notebook == TRAINING]
    at_once = max(min(jobs, len(train)), 1)
    if todo:
        experiment = _any_experiment(todo, steps)
        costs = [step.cost for step in todo]
        print("\n".join(estimate.describe(costs, experiment, at_once, _sharing(costs, at_once))))
    seconds = sum(step.estimate_s for step in todo)
    seconds -= sum(step.estimate_s for step in train) * (1 - 1 / at_once)
    side_by_side = f", {at_once} trainings at a time" if at_once > 1 else ""
    print(f"estimate for everything: at most {seconds / 60:.0f} min{side_by_side}\n", flush=True)


def _compare_experiments(steps):
    """Parameters that all trainings have in common, and those of each that differ between them."""
    experiments = {step.title: asdict(step.experiment) for step in steps if step.experiment is not None}
    first = next(iter(experiments.values()))
    names = [name for name in first if name not in ("fold", "seed")]
    common = {
        name: first[name] for name in names if all(one[name] == first[name] for one in experiments.values())
    }
    own = {
        title: [f"{name}={one[name]}" for name in names if name not in common]
        for title, one in experiments.items()
    }
    return common, own


def _any_experiment(*plans):
    """The first training of the first plan that has one."""
    return next(step.experiment for steps in plans for step in steps if step.experiment is not None)


def _sharing(costs, at_once):
    """How many of the jobs that run at once share one memory."""
    if at_once > 1 and any(cost.memory and cost.memory.place == "the GPU" for cost in costs):
        return -(-at_once // max(len(find_gpus()), 1))
    return at_once


def reproduce(run, *, dry_run=False, jobs=1, scheduler="", grid=None, **settings):
    """Plan, show, run.

    Parameters
    ----------
    run : str
    dry_run : bool, optional
        Stop after the plan.
    jobs : int, optional
        Trainings at a time, see :func:`serkit.reproduction.jobs.count_jobs`.
    scheduler : str, optional
        Address of a dask scheduler whose workers run the trainings, see :func:`serkit.reproduction.cluster.run_on_cluster`.
    grid : serkit.reproduction.grid.Grid, optional
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
    steps = make_plan(run, threads=threads_per_job(jobs) if jobs > 1 else 0, **settings)
    print_plan(steps, jobs)
    if dry_run:
        return 0
    todo = unfinished(steps)
    estimate.check_disk([step.cost for step in todo], _any_experiment(steps), jobs)
    outcome = run_plan(steps, run, jobs, runner=runner, grid=grid)
    if outcome["interrupted"] or outcome["waiting"]:
        return 130
    if outcome["failed"]:
        return 1
    _print_result(run)
    return 0


def _print_result(run):
    """The scores of a run, and where everything lies."""
    from serkit.reproduction.report import print_scores  # here: a plan needs no statistics

    try:
        print_scores(run)
    except SerkitError as error:  # all has been run; whoever wants the report is told the same
        print(f"no scores yet: {error}")
    print(f"figures and tables: figures/{run}; executed notebooks: runs/{run}")
    print(f"all of it on one page: serkit report {run}", flush=True)


def _choose_runner(run, jobs, scheduler, dry_run):
    """What runs the trainings, and how many of them at a time; a cluster that can't is refused here."""
    if not scheduler:
        return run_local, count_jobs(jobs)
    if jobs not in (0, 1):
        raise ParameterError(
            f"jobs={jobs!r} beside a scheduler, expected 0: its workers say how many run at a time"
        )
    from serkit.reproduction.cluster import (  # here: dask takes a while to import
        check_cluster,
        run_on_cluster,
    )

    folder = runs.project_home() / "runs" / run

    def runner(steps, _, on_change):
        return run_on_cluster(steps, scheduler, execute, on_change, folder=folder)

    return runner, 1 if dry_run else check_cluster(scheduler, folder)


def _keep_grid(grid, run):
    """Copy a grid beside the results: they say by themselves what they are part of."""
    target = runs.project_home() / "runs" / run / GRID
    try:
        if grid.path.resolve() != target.resolve():
            shutil.copyfile(grid.path, target)
    except OSError as error:
        raise RunError(
            f"{runs.show_path(target)}: can't be written ({error.strerror}); check the disk"
        ) from error
