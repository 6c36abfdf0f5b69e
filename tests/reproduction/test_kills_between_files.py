"""Sixty kills, each when a step touches another file: the same command finishes, with the bytes of an undisturbed one.

Run as a program it waits for steps to do, each in a process of its own that dies where it is told to.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 10  # of each step
TOUCHES = ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate")
TRAINED = {"views": "mfcc", "epochs": 2}


def prepare(tones):
    import tones as program

    from serkit import figures, folds, runs
    from serkit.corpora.manifest import save_manifest

    manifest = program.tones_manifest(Path(tones))
    save_manifest(manifest, runs.processed_folder("demo") / runs.MANIFEST)
    table = folds.fold_table(folds.make_folds(manifest, "session", "clean"))
    figures.write_file(runs.processed_folder("demo") / "folds_session_clean.csv", figures.table_csv(table))


def extract(tones):
    from serkit import features, recipe, runs

    features.build_store(runs.find_manifest("demo"), recipe.CORRECTED, runs.processed_folder("demo"), workers=1)


def train(tones):
    import tones as program

    from serkit import features, recipe, runs
    from serkit.experiment import Experiment

    manifest = runs.find_manifest("demo")
    store = features.build_store(manifest, recipe.CORRECTED, runs.processed_folder("demo"))
    for fold in "12":
        folder = Experiment(fold=fold, **TRAINED).folder("trial")
        program.train((manifest, store), folder, fold=fold, **TRAINED)


def predict(tones):
    from serkit.predict import predict_files

    path = sorted(Path(tones).glob("*.wav"))[0]
    predict_files([path], run="trial", form="csv", output="out.csv", timeline="out.png")


def write_report(tones):
    from serkit.reproduction import report

    report.run_figures = lambda *_: []  # drawing takes minutes
    report.write_report("trial", partial=True)


def save_figure(tones):
    import pandas as pd
    from matplotlib.figure import Figure

    from serkit import figures

    with figures.paper_style():
        figure = Figure()
        figure.subplots().plot([1, 2])
    figures.save_figure(figure, "line", run="trial", data=pd.DataFrame({"y": [1, 2]}), caption="A line.")


STEPS = {
    "preparing": prepare, "extracting": extract, "training": train, "predicting": predict, "reporting": write_report,
    "saving a figure": save_figure,
}  # fmt: skip


def do(name, tones, folder, fatal):
    """A step in ``folder``; SIGKILL at its so-manyth touch of a file there. How many there were is written beside it."""
    os.chdir(folder)
    count = 0

    def touched(event, arguments):
        nonlocal count
        if event in TOUCHES and os.path.abspath(str(arguments[0])).startswith(folder + os.sep):
            count += 1
            if count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(touched)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        STEPS[name](tones)
    Path(f"{folder}.count").write_text(str(count))


def serve():
    """Import all that steps need, once; then fork for each."""
    import serkit.predict.command
    import serkit.predict.predictor
    import serkit.reproduction.report
    import tones  # noqa: F401

    for line in sys.stdin:
        if not (child := os.fork()):
            code = 1
            try:
                do(*json.loads(line))
                code = 0
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
            os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def contents(folder):
    """What lies there, without what holds times."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: path.read_bytes()
        for name, path in files.items()
        if not {"timing.csv", "files.json", "tensorboard"} & {*path.parts}
    }


@pytest.fixture(scope="module")
def server():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as child:

        def call(name, tones, folder, fatal=0):
            print(json.dumps([name, str(tones), str(folder), fatal]), file=child.stdin, flush=True)
            return int(child.stdout.readline())

        yield call
        child.stdin.close()


@pytest.mark.campaign
def test_killed_between_any_two_files(server, tmp_path):
    from tones import tones_manifest

    (tmp_path / "tones").mkdir()
    tones_manifest(tmp_path / "tones")
    before, kills = tmp_path / "before", 0
    (before / "notebooks").mkdir(parents=True)
    (before / "notebooks" / "01_prepare_corpus.ipynb").write_text("{}")
    for name in STEPS:
        whole = shutil.copytree(before, tmp_path / f"{name} undisturbed".replace(" ", "_"))
        assert server(name, tmp_path / "tones", whole) == 0, name
        expected, last = contents(whole), int(Path(f"{whole}.count").read_text())
        assert len(expected) > len(contents(before)) and last >= KILLS
        for number in range(KILLS):
            fatal = 1 + number * (last - 1) // (KILLS - 1)
            folder = shutil.copytree(before, tmp_path / "killed")
            assert server(name, tmp_path / "tones", folder, fatal) == -signal.SIGKILL, (name, fatal)
            assert server(name, tmp_path / "tones", folder) == 0, (name, fatal)
            after = contents(folder)
            assert set(after) == set(expected), (name, fatal)
            assert not [path for path in after if after[path] != expected[path]], (name, fatal)
            shutil.rmtree(folder)
            kills += 1
        before = whole
    assert kills == KILLS * len(STEPS) == 60


if __name__ == "__main__":
    serve()
