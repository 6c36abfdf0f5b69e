"""Machines as people have them: their own matplotlibrc and backend, no home, no name, odd folders, few characters."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import nbformat
import pandas as pd
import papermill
import pytest
import toy_project
from matplotlib.figure import Figure

from serkit import cli, figures, runs
from serkit.reproduction import jobs, plan, reproduce

OWN = {
    "text.usetex": True, "figure.facecolor": "black", "axes.facecolor": "black", "savefig.facecolor": "black",
    "text.color": "white", "font.size": 20, "savefig.bbox": "tight", "svg.fonttype": "none", "pdf.compression": 0,
    "axes.grid": True, "xtick.direction": "in", "lines.linestyle": "--", "path.sketch": (1, 100, 2),
}  # fmt: skip
DRAWING = "import matplotlib.pyplot as plt\nplt.subplots()[1].plot([1, 2])\nplt.show()"


def pictures(path):
    """How many there are in an executed notebook."""
    outputs = (out for cell in nbformat.read(path, as_version=4).cells for out in cell.get("outputs", []))
    return sum("image/png" in out.get("data", {}) for out in outputs)


def drawn(folder):
    with figures.paper_style():
        fig = Figure()
        ax = fig.subplots()
        ax.plot([1, 2], label="a")
        ax.set(xlabel="time (s)", title="50 %_x")
        figures.legend_above(ax)
    about = {"run": "r", "data": pd.DataFrame({"x": [1, 2]}), "caption": "A line.", "root": folder}
    return [path.read_bytes() for path in figures.save_figure(fig, "line", **about)]


def test_a_readers_own_settings_change_no_figure(tmp_path):
    usual = drawn(tmp_path / "usual")
    with mpl.rc_context(OWN):
        assert drawn(tmp_path / "own") == usual


@pytest.fixture
def rc(tmp_path):
    """A matplotlibrc that asks for LaTeX, black pages and a window."""
    path = tmp_path / "rc"
    path.write_text("text.usetex: True\nfigure.facecolor: black\nbackend: TkAgg\n")
    return str(path)


def test_an_executed_notebook_shows_its_pictures_on_any_machine(project, rc, tmp_path):
    """No home, no room for a socket's path in TMPDIR, and a backend that draws into nothing."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    toy_project.write_notebook(
        project / "notebooks" / "toy.ipynb", "run = ''", DRAWING.replace("plt.show()", "")
    )
    step = plan.Step("toy", {}, project / "runs" / "toy.ipynb", experiment=object())
    about = {"MPLBACKEND": "Agg", "TMPDIR": str(folder), "HOME": "/nowhere", "MPLCONFIGDIR": str(tmp_path)}
    assert jobs.Job(step, about).fault() is None
    assert pictures(step.output) == 1
    assert not list(folder.iterdir())


def test_papermill_shows_pictures_whatever_is_set(project, rc, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("MATPLOTLIBRC", rc)
    start = "import matplotlib.pyplot as plt\nfrom serkit import start_run\nrun = start_run('trial', corpus='demo')"
    toy_project.write_notebook(project / "in.ipynb", "run = ''", start, DRAWING)
    papermill.execute_notebook("in.ipynb", "out.ipynb", progress_bar=False)
    assert pictures("out.ipynb") == 1


def python(code, **environment):
    """What a fresh Python says, in an environment without a user's name."""
    usual = {
        name: value
        for name, value in os.environ.items()
        if name not in ("USER", "LOGNAME", "LNAME", "USERNAME")
    }
    path = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=usual | {"PYTHONPATH": path} | environment, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_a_user_number_without_a_name():
    """As in a container: torch asks for one while it is imported."""
    nameless = "import pwd\ndef missing(number): raise KeyError(number)\npwd.getpwuid = missing\n"
    assert python(
        f"{nameless}import serkit, torch._inductor.runtime.cache_dir_utils as d\nprint(d.cache_dir())"
    )


def test_a_terminal_without_all_characters():
    code = "import sys; from serkit import cli\ncli.COMMANDS['doctor'] = lambda: print('64 \\u2013 \\u2265 70')\n"
    code += "sys.argv = ['serkit', 'doctor']\ntry: cli.main()\nexcept SystemExit: pass"
    assert python(code, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0") == "64 \\u2013 \\u2265 70\n"


@pytest.mark.parametrize(
    "words", [["reproduce"], ["reproduce", "--dry-run"], ["report"], ["verify"], ["predict", "a.wav"]]
)
def test_started_elsewhere_it_says_where_it_looked_and_writes_nothing(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["serkit", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert f"serkit: {tmp_path} is not inside the project folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_dry_run_speaks_no_corpus(tmp_path, monkeypatch):
    project, asked = toy_project.make_project(tmp_path, monkeypatch), []
    before = sorted(project.rglob("*"))
    monkeypatch.setattr(
        reproduce.corpora, "load", lambda name, root, **_: asked.append(Path(root)) or toy_project.manifest()
    )
    monkeypatch.setattr(reproduce, "estimate", lambda *_: {})
    reproduce.reproduce("trial", corpus="demo", dry_run=True)
    assert not asked[0].is_relative_to(project) and not asked[0].parent.exists()
    assert sorted(project.rglob("*")) == before
    (project / "data" / "demo").mkdir()  # where it has been spoken, it is read
    reproduce.reproduce("trial", corpus="demo", dry_run=True)
    assert asked[1] == project / "data" / "demo"


def test_a_home_that_is_not_there(project):
    assert runs.corpus_root("demo", "~nobody-here/corpus") == project / "~nobody-here" / "corpus"
