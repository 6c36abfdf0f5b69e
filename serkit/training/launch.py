"""One fold on several processes: ``accelerate launch --multi_gpu -m serkit.training.launch RUN PARAMETERS.json``.

The notebook starts it as a subprocess and reads the run folder afterwards: results, checkpoints and
messages are those of a training in the notebook itself.
"""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from serkit import runs
from serkit.errors import RunError, SerkitError
from serkit.features.store import build_store
from serkit.folds import find_fold, make_folds
from serkit.training.loop import read_result, train_fold


def train_in_processes(run, processes, *, report=print):
    """Train the fold of a notebook's run on several GPUs (or, to try it, several CPU processes).

    Parameters
    ----------
    run : Run
        As ``start_run`` gives it; corpus and store are prepared.
    processes : int
        One for each GPU.
    report : callable, optional
        Called with each line that is printed.

    Returns
    -------
    FoldResult

    Raises
    ------
    RunError
        If training fails; its own message is part of it.
    """
    parameters = run.folder / "parameters.json"
    root = str(run.root.resolve())
    runs.write_json(parameters, asdict(run.experiment) | {"root": root})
    # --multi_gpu also where there is none: with --cpu accelerate starts a single process
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu",
               "--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no",
               "--dynamo_backend", "no", "--main_process_port", "0",
               "-m", "serkit.training.launch", run.name, str(parameters)]  # fmt: skip
    lines = []
    with subprocess.Popen(
        command, cwd=runs.project_home(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        try:
            for line in child.stdout:
                lines.append(line.rstrip())
                report(lines[-1])
        except KeyboardInterrupt:
            child.terminate()  # it saves a checkpoint first
            child.wait()
            raise
    if child.returncode:
        said = (
            [line for line in lines if line.startswith("serkit: ")] or lines[-1:] or ["nothing was printed"]
        )
        raise RunError(
            f"{runs.show_path(run.folder)}: {processes} processes: {said[0].removeprefix('serkit: ')}"
        )
    parameters.unlink()
    return read_result(run.folder)


def main(arguments=None):
    """Entry point of every launched process."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 2:
        sys.exit("usage: accelerate launch -m serkit.training.launch RUN PARAMETERS.json")
    try:
        parameters = json.loads(Path(arguments[1]).read_text())
    except (OSError, ValueError) as error:
        sys.exit(
            f"serkit: parameters {arguments[1]}: can't be read ({error}); give a JSON file of parameters"
        )
    try:
        run = runs.start_run(arguments[0], notebook="serkit.training.launch", **parameters)
        manifest = runs.open_manifest(run)
        experiment = run.experiment
        fold = find_fold(make_folds(manifest, experiment.by, experiment.selection), experiment.fold)
        store = build_store(manifest, run.recipe, run.processed)
        train_fold(experiment, store, manifest, fold, run.folder, report=_print)
    except (OSError, ValueError) as error:
        sys.exit(
            f"serkit: parameters {arguments[1]}: can't be read ({error}); give a JSON file of parameters"
        )
    except SerkitError as error:
        sys.exit(f"serkit: {error}")
    except KeyboardInterrupt as error:
        print(f"serkit: {error or 'interrupted'}", file=sys.stderr)
        sys.exit(130)


def _print(line):
    print(line, flush=True)


if __name__ == "__main__":
    main()
