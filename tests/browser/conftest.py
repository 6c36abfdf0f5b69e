"""Fixtures of the browser tests: one JupyterLab and one Chromium for all of them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from browser.lab import OpenNotebook
from browser.server import HOME, environment, make_project, serve

ARTEFACTS = Path(__file__).with_name("artefacts")
VIEW, NARROW = {"width": 1400, "height": 900}, {"width": 1100, "height": 900}
# far more than a reader is promised: the machine may be slow, and something else may be running
USUAL_S = 500
MEMORY_MB = 3000
NOTEBOOKS = sorted(path.stem for path in (HOME / "notebooks").glob("0*.ipynb"))
EXPECTED = {  # at least so many players and images
    "01_prepare_corpus": (4, 4),
    "02_mfcc": (9, 8),
    "03_spectrogram": (8, 8),
    "04_wav2vec2": (4, 6),
    "05_train_coattention": (4, 4),
    "06_confusion_matrix": (1, 5),
    "07_ablations": (0, 2),
    "08_predict": (1, 1),
    "09_own_corpus": (4, 1),
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# nothing here needs a graphics card, and no browser of a test should ask other hosts for anything
FLAGS = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    "--use-fake-device-for-media-stream",  # a microphone that beeps once a second
]  # fmt: skip
REPORT = pytest.StashKey()
TAKEN = "taken"  # what a test has measured, in its report


def pytest_addoption(parser):
    parser.addoption(
        "--epochs", default="2", help="of notebooks 05 and 09, whose own number takes minutes: None or 15"
    )
    parser.addoption(
        "--screenshots", action="store_true", help="keep a picture of each notebook in both themes"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.when == "call":
        item.stash[REPORT] = report
    return report


def pytest_terminal_summary(terminalreporter):
    ended = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    for report in ended:
        for name, line in report.user_properties:
            if name == TAKEN and report.when == "call":
                terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium that was on the machine before."""
    from playwright.sync_api import sync_playwright  # here: collecting the tests must do without it

    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.fail(
            f"none of {', '.join(BROWSERS)} found; install one (Debian: apt-get install chromium) or set "
            "CHROMIUM to its path",
            pytrace=False,
        )
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS, *root])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(request, tmp_path_factory):
    """JupyterLab for a project in which nothing has been done yet."""
    project = make_project(tmp_path_factory.mktemp("project"), request.config.getoption("--epochs"))
    with serve(project, tmp_path_factory.mktemp("jupyter")) as server:
        yield server


@pytest.fixture
def open_notebook(request, chromium, lab):
    """Function that opens a notebook of the project; afterwards page and kernel are closed.

    If the test failed, ``artefacts/`` holds a picture of the page, the notebook and the server's log.
    """
    context = chromium.new_context(viewport=VIEW)
    context.set_default_timeout(60_000)
    opened = []

    def open_one(name):
        opened.append(OpenNotebook(context.new_page(), lab, name))
        return opened[-1]

    yield open_one
    report = request.node.stash.get(REPORT, None)
    if report is not None and report.failed:
        _keep(re.sub(r"\W+", "_", request.node.name).strip("_"), context, opened, lab)
    context.close()
    lab.stop_kernels()


@pytest.fixture
def record(request):
    """Function that adds a line to the summary at the end."""
    return lambda line: request.node.user_properties.append((TAKEN, line))


@pytest.fixture
def save_views(request):
    """Function that keeps pictures of an open notebook where ``--screenshots`` asks for them."""

    def save(notebook, selector, stem=""):
        if request.config.getoption("--screenshots", default=False):
            ARTEFACTS.mkdir(exist_ok=True)
            notebook.save_views(ARTEFACTS / (stem or notebook.name), selector)

    return save


@pytest.fixture(scope="session")
def prepare(lab):
    """Function that runs notebook 01 without a browser, if that has not been done here."""

    def run():
        if not list(lab.project.glob("data/processed/*/manifest.parquet")):
            words = ["--no-progress-bar", "notebooks/01_prepare_corpus.ipynb", os.devnull]
            command = [sys.executable, "-m", "papermill", *words]
            subprocess.run(command, cwd=lab.project, env=environment(), check=True, timeout=600)

    return run


@pytest.fixture
def run_all(prepare, open_notebook, save_views, lab, record):
    """Function that runs a notebook as a reader does, at two widths of the page, and returns it open."""

    def run(name):
        if name > "02":
            prepare()
        notebook, (players, images) = open_notebook(name), EXPECTED[name]
        outcome = notebook.run_all(USUAL_S)
        record(f"{name}: Run All {outcome.seconds:.0f} s, at most {outcome.peak_mb:.0f} MB")
        assert notebook.problems() == []
        shown = notebook.shown()
        assert shown["players"] >= players and shown["images"] >= images, shown
        record(f"{name}: sliders that move their picture: {', '.join(notebook.move_sliders()) or 'none'}")
        assert notebook.problems() == []
        notebook.page.set_viewport_size(NARROW)
        notebook.page.wait_for_timeout(1000)
        assert notebook.problems() == []
        notebook.page.set_viewport_size(VIEW)
        if players:
            assert notebook.play(notebook.node.locator("audio:visible").first) > 0
        assert outcome.peak_mb < MEMORY_MB
        before = lab.project.joinpath(notebook.path).stat().st_size
        assert notebook.save() == ""
        assert lab.project.joinpath(notebook.path).stat().st_size > before  # its outputs are on the disk
        save_views(notebook, ".jp-OutputArea img")
        return notebook

    return run


def _keep(stem, context, opened, lab):
    ARTEFACTS.mkdir(exist_ok=True)
    shutil.copy(lab.log, ARTEFACTS / f"{stem}.log")
    for number, page in enumerate(context.pages):
        page.screenshot(path=ARTEFACTS / f"{stem}_{number}.png")
    for notebook in opened:
        (ARTEFACTS / f"{stem}.ipynb").write_text(json.dumps(notebook.content()))
