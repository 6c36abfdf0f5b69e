"""The cell for Google Colab: what it does there, that it does nothing elsewhere, and that all notebooks have it."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from colab_cell import SOURCE, TAG, insert_colab_cell, is_colab_cell

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """What the cell starts: git does its work, pip is only written down."""
    real, calls = subprocess.run, []

    def run(command, **options):
        calls.append(command[1:])
        return real(command, **options) if command[0] == "git" else None

    monkeypatch.setattr(subprocess, "run", run)
    (tmp_path / "colab").mkdir()
    monkeypatch.chdir(tmp_path / "colab")
    return calls


@pytest.fixture
def colab(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))


@pytest.fixture
def source(tmp_path):
    """The cell with the address of a small repository filled in."""
    origin = tmp_path / "origin"
    (origin / "notebooks").mkdir(parents=True)
    (origin / "notebooks" / "one.ipynb").write_text("{}")
    git = ["git", "-C", str(origin), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], check=True)
    return SOURCE.replace('repository = ""', f'repository = "file://{origin}"')


def test_elsewhere_it_does_nothing(source, calls):
    here = os.getcwd()
    exec(source, {})
    assert calls == [] and os.getcwd() == here and not os.listdir(here)


def test_it_clones_installs_and_goes_there(colab, source, calls):
    exec(source, {})
    assert [call[0] for call in calls] == ["clone", "-m"]
    assert calls[1][1:] == ["pip", "install", "--quiet", "--editable", "./kit"]
    assert os.path.isfile("notebooks/one.ipynb")


def test_twice_in_one_kernel_and_again_after_a_restart(colab, source, calls):
    exec(source, {})
    exec(source, {})
    assert len(calls) == 2
    os.chdir("..")
    exec(source, {})
    assert [call[0] for call in calls] == ["clone", "-m", "-m"]
    assert os.path.isfile("notebooks/one.ipynb")


def test_without_an_address_it_asks_for_one(colab, calls):
    with pytest.raises(SystemExit, match="repository: fill in the address"):
        exec(SOURCE, {})
    assert calls == []


def test_it_is_put_behind_the_title_once():
    cells = [nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell("import os")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    insert_colab_cell(notebook)
    once = copy.deepcopy(notebook)
    assert [cell.source for cell in once.cells] == ["# Title", SOURCE, "import os"]
    notebook.cells[1].source = "an older one"
    insert_colab_cell(notebook)
    assert notebook == once
    nbformat.validate(once)


def test_every_notebook_carries_it():
    carried = {}
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        carried[path.stem] = [(i, cell.source) for i, cell in enumerate(cells) if is_colab_cell(cell)]
    if not any(carried.values()):
        pytest.skip(f"no notebook has a cell tagged {TAG!r} yet; make notebooks inserts it")
    assert carried == {name: [(1, SOURCE)] for name in carried}
