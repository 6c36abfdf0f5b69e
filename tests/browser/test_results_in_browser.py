"""Notebooks about a trained run, in JupyterLab and Chromium: they are read, heard, and spoken to."""

import re
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from browser.server import environment

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1500)]

LOADED = "player => player.readyState || new Promise(done => player.addEventListener('loadedmetadata', done))"


# what notebook 05 does for one fold, in one process for all of them
TRAIN = """
import sys
from serkit import runs, training
from serkit.experiment import Experiment
from serkit.features.store import build_store
from serkit.folds import make_folds
from serkit.recipe import CORRECTED

manifest = runs.find_manifest("demo")
store = build_store(manifest, CORRECTED, runs.processed_folder("demo"))
for fold in make_folds(manifest):
    experiment = Experiment(fold=fold.name, epochs=None if sys.argv[1] == "None" else int(sys.argv[1]))
    training.train_fold(experiment, store, manifest, fold, experiment.folder("demo"))
"""


@pytest.fixture(scope="module")
def trained(request, lab, prepare):
    """A run with all folds."""
    prepare()
    command = [sys.executable, "-c", TRAIN, request.config.getoption("--epochs")]
    subprocess.run(command, cwd=lab.project, env=environment(), check=True, timeout=1200)


def test_confusion_matrix(trained, run_all, lab, record, save_views):
    notebook = run_all("06_confusion_matrix")
    hear_a_cell(notebook, lab, record, save_views)
    guess_hidden_labels(notebook, save_views)


def test_ablations(run_all):
    run_all("07_ablations")


def test_own_recording(trained, run_all, save_views, tmp_path):
    notebook = run_all("08_predict")
    give_files(notebook, save_views, tmp_path)
    speak(notebook)


def hear_a_cell(notebook, lab, record, save_views):
    """In notebook 06, an utterance of a cell of the matrix is chosen, heard, marked and exported."""
    view = notebook.node.locator(".serkit-view")
    cell = view.locator(".serkit-cell:not(:has-text('(0)'))").first
    clicked = time.monotonic()
    cell.click()
    rows = view.locator(".serkit-list:visible select")
    rows.wait_for()
    record(f"{notebook.name}: a cell answers in {time.monotonic() - clicked:.1f} s")
    rows.select_option(index=1)  # below the headings
    view.locator(".serkit-seen img").wait_for()
    player = view.locator("audio")
    player.evaluate(LOADED)
    assert notebook.play(player) > 0
    view.locator(".serkit-mark:visible").click()
    view.locator(".serkit-export:enabled", has_text="1 marked").click()
    view.locator(".serkit-message", has_text="marked.csv").wait_for()
    assert len((lab.project / "figures/demo/marked.csv").read_text().splitlines()) == 2
    assert notebook.problems() == []
    save_views(notebook, ".serkit-seen", stem="06_heard")


def guess_hidden_labels(notebook, save_views):
    """In notebook 06, labels are hidden until they are guessed, and the guesses are counted."""
    view = notebook.node.locator(".serkit-view")
    view.locator(".serkit-blind").click()
    view.locator(".serkit-cell").first.wait_for(state="hidden")
    for played in (1, 2, 3):
        view.locator(".serkit-guess:enabled").last.wait_for()
        text, player = view.inner_text(), view.locator("audio")
        assert "predicted" not in text and "speaker 1" not in text and not view.locator("img:visible").count()
        player.evaluate(LOADED)
        assert notebook.play(player) > 0
        view.locator(".serkit-guess:enabled", has_text="sad").click()
        score = view.locator(
            ".serkit-score", has_text=re.compile(rf"you \d of {played}, the model \d of {played}")
        )
        score.wait_for()
        view.locator(".serkit-seen img").wait_for()
        assert "You guessed sad." in view.inner_text() and "predicted" in view.inner_text()
        if played < 3:
            view.locator(".serkit-next:enabled").click()
    assert notebook.problems() == []
    save_views(notebook, ".serkit-score", stem="06_blind")
    view.locator(".serkit-blind").click()
    view.locator(".serkit-cell").first.wait_for()


def give_files(notebook, save_views, folder):
    """In notebook 08, a file that is no sound gets a sentence, and one that is gets a verdict."""
    panel = notebook.node.locator(".serkit-panel")
    (folder / "notes.wav").write_text("this is no sound")
    panel.locator("input.serkit-file").set_input_files(folder / "notes.wav")
    panel.locator(".serkit-problem, .serkit-note", has_text="notes.wav").first.wait_for()
    assert panel.locator(".serkit-verdict").count() == 0
    noise = np.random.default_rng(1).normal(0, 0.1, 4 * 16_000)
    soundfile.write(folder / "hiss.wav", noise, 16_000)
    panel.locator("input.serkit-file:enabled").set_input_files(folder / "hiss.wav")
    panel.locator(".serkit-verdict", has_text="hiss.wav").wait_for()
    player = panel.locator("audio")
    player.evaluate(LOADED)
    assert player.evaluate("player => player.duration") == pytest.approx(4, abs=0.05)
    assert notebook.play(player) > 0
    assert notebook.problems() == []
    save_views(notebook, ".serkit-panel", stem="08_file")


def speak(notebook):
    """In notebook 08, what the microphone hears gets a verdict."""
    notebook.page.context.grant_permissions(["microphone"])
    panel = notebook.node.locator(".serkit-panel")
    panel.locator("button.serkit-record:enabled", has_text="Record").click()
    stop = panel.locator("button.serkit-record:enabled", has_text="Stop")
    stop.wait_for()
    notebook.page.wait_for_timeout(2000)
    stop.click()
    panel.locator(".serkit-verdict").filter(has_not_text="hiss.wav").wait_for()
    player = panel.locator("audio")
    player.evaluate(LOADED)
    assert 1 < player.evaluate("player => player.duration") < 10
    assert notebook.problems() == []
