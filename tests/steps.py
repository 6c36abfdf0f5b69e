"""The steps from a corpus to a report on the smallest scale, each in a process of its own, to be disturbed.

Run as a program it waits for steps to do: what they need is imported once, then it forks for each.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

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

    features.build_store(
        runs.find_manifest("demo"), recipe.CORRECTED, runs.processed_folder("demo"), workers=1
    )


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


def do(name, tones, folder, beside, fatal):
    """A step in ``folder``; SIGKILL at its so-manyth touch of a file there. How many there were is written ``beside``."""
    os.chdir(folder)
    count = 0

    def touched(event, arguments):
        nonlocal count
        if event in TOUCHES and os.path.abspath(str(arguments[0])).startswith(folder + os.sep):
            count += 1
            if count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(touched)
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        STEPS[name](tones)
    Path(beside, "touches").write_text(str(count))


def serve():
    """Import all that steps need, once; then fork for each."""
    import tones

    from serkit.errors import SerkitError

    for line in sys.stdin:
        if not (child := os.fork()):
            name, tones, folder, beside, fatal = json.loads(line)
            code, said = 0, ""
            try:
                do(name, tones, folder, beside, fatal)
            except SerkitError as error:
                code, said = 2, str(error)
            except BaseException as error:
                code, said = 1, repr(error)
            Path(beside, "said").write_text(said)
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


@contextlib.contextmanager
def server(home):
    """A program that does steps; what is called in the with block does one and hands back its exit code.

    Beside ``home``'s tones it leaves what a step said in ``said``, and how many files it touched in ``touches``.
    """
    import tones

    (home / "tones").mkdir()
    tones.tones_manifest(home / "tones")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as child:

        def call(name, folder, fatal=0):
            about = [name, str(home / "tones"), str(folder), str(home), fatal]
            print(json.dumps(about), file=child.stdin, flush=True)
            return int(child.stdout.readline())

        yield call
        child.stdin.close()


def undisturbed(call, home):
    """Name of each step, the project as it is before, and as it should be after."""
    before = home / "project"
    (before / "notebooks").mkdir(parents=True)
    (before / "notebooks" / "01_prepare_corpus.ipynb").write_text("{}")
    for name in STEPS:
        after = Path(shutil.copytree(before, home / name.replace(" ", "_")))
        assert call(name, after) == 0, (home / "said").read_text()
        assert len(contents(after)) > len(contents(before))
        yield name, before, after
        before = after


if __name__ == "__main__":
    serve()
