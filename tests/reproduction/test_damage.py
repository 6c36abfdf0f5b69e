"""Every file of a finished fold damaged in turn: whoever reads the fold names the file, or answers as before."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import pytest
from tones import make_tones, train

from serkit import figures, runs
from serkit.errors import SerkitError
from serkit.experiment import Experiment
from serkit.predict import Predictor, newest_model
from serkit.reproduction import report, verify

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "06_confusion_matrix.ipynb"
SETTINGS = {"epochs": 2, "views": "mfcc"}
FILES = (*runs.RESULTS, *runs.FURTHER, *runs.MODEL, runs.FILES, runs.DONE)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def empty(path):
    path.write_bytes(b"")


def delete(path):
    path.unlink()


def folder_in_its_place(path):
    path.unlink()
    path.mkdir()


def append(path):
    path.write_bytes(path.read_bytes() + b"x")


def link_to_itself(path):
    path.unlink()
    path.symlink_to(path.name)


NOW_AND_THEN = (delete, cut, empty, folder_in_its_place, append, link_to_itself)
DAMAGES = [flip, *(pytest.param(damage, marks=pytest.mark.campaign) for damage in NOW_AND_THEN)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three folds; the last one is the newest. In it: the tones, the answers of all readers, and a copy to break."""
    home = tmp_path_factory.mktemp("home")
    (home / "notebooks").mkdir()
    (home / "notebooks" / "01_prepare_corpus.ipynb").write_text("{}")
    (home / "tones").mkdir()
    tones = make_tones(home / "tones")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(report, "run_figures", lambda *_: [])  # drawing takes minutes
        for fold in "123":
            folder = train(
                tones, Experiment(fold=fold, **SETTINGS).folder("trial"), fold=fold, **SETTINGS
            ).folder
        shutil.copytree(folder, home / "whole")
        yield tones, folder, home / "whole", {name: read(tones, folder) for name, read in READERS.items()}


def reported(tones, folder):
    with contextlib.redirect_stdout(io.StringIO()):
        report.write_report("trial")
    variant = runs.variant_of(folder)
    predictions = runs.load_predictions("trial")
    return (
        Path("figures/trial/scores_by_variant.csv").read_bytes(),
        figures.read_histories("trial", variant).to_csv(),
        figures.read_vectors("trial", predictions).to_csv(),
        runs.read_table(folder / runs.EPOCHS, runs.FOLD_CURE).to_csv(),
    )


def predicted(tones, folder):
    prediction = Predictor(newest_model("trial"), "cpu").predict(tones[0]["path"][0])
    return str(newest_model("trial")), prediction.utterance


def notebook_06(tones, folder):
    """Its code up to the table of scores."""
    names = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in json.loads(NOTEBOOK.read_text())["cells"]:
            if cell["cell_type"] == "code" and "colab" not in "".join(cell["source"]):
                source = "".join(cell["source"]).replace('run: str = "demo"', 'run: str = "trial"')
                exec(source, names)
            if "scores" in names:
                return names["scores"].to_csv()


def resumed(tones, folder):
    result = train(tones, folder, fold=folder.parent.name.partition("=")[2], **SETTINGS)
    return result.predictions.to_csv(), result.metrics, result.history.to_csv()


READERS = {"report": reported, "predict": predicted, "notebook 06": notebook_06, "resume": resumed}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", FILES)
def test_it_is_named_or_nothing_changes(run, name, damage):
    tones, folder, whole, before = run
    shutil.rmtree(folder)
    shutil.copytree(whole, folder)
    damage(folder / name)
    faults = [finding for finding in verify.check_run("trial") if finding.verdict == verify.WRONG]
    assert any(name in fault.text for fault in faults), faults
    for reader, read in READERS.items():
        try:
            after = read(tones, folder)
        except SerkitError as error:
            assert Path(name).name in str(error) and len(str(error)) <= 600, (reader, error)
        else:
            assert after == before[reader], reader
