"""The notebooks' anatomy, and all of them run on the demo corpus as a user would."""

import ast
import copy
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import papermill
import pytest
from colab_cell import SOURCE, TAG, insert_colab_cell, is_colab_cell

from serkit.runs import Experiment

HOME = Path(__file__).parents[1]
NOTEBOOKS = sorted((HOME / "notebooks").glob("*.ipynb"))
COMMON = {"run", "corpus", "root", "recipe"}
INSTALLING = re.compile(r"^\s*[!%]|subprocess|os\.system", re.MULTILINE)
ABSOLUTE = re.compile(r"[\"'](/[A-Za-z]|~|[A-Z]:\\)")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    """A notebook without its cell for Google Colab, which has rules of its own."""
    notebook = nbformat.read(request.param, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not is_colab_cell(cell)]
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_six_in_order():
    assert [path.stem for path in NOTEBOOKS] == [
        "01_prepare_corpus", "02_mfcc", "03_spectrogram", "04_wav2vec2", "05_train_coattention",
        "06_confusion_matrix",
    ]  # fmt: skip


class TestAnatomy:
    def test_title_imports_parameters_start(self, notebook):
        title, imports, parameters, start = notebook.cells[:4]
        assert title.source.startswith("# ") and "?" in title.source
        rows = {line.split("|")[1].strip(" *") for line in title.source.splitlines() if line.startswith("|")}
        assert rows >= {"reads", "writes", "part of the paper", "time"}
        for node in ast.parse(imports.source).body:
            assert isinstance(node, ast.Import | ast.ImportFrom)
        assert parameters.metadata["tags"] == ["parameters"]
        assert "start_run(" in start.source

    def test_parameters_are_annotated_literals_with_a_comment(self, notebook):
        source = notebook.cells[2].source
        for line, node in zip(source.splitlines(), ast.parse(source).body, strict=True):
            assert isinstance(node, ast.AnnAssign), line
            ast.literal_eval(node.value)
            assert "#" in line, line

    def test_papermill_reads_every_parameter(self, request, notebook):
        path = request.node.callspec.params["notebook"]
        found = papermill.inspect_notebook(str(path))
        written = {node.target.id for node in ast.parse(notebook.cells[2].source).body}
        assert set(found) == written
        assert written >= COMMON
        assert all(parameter["help"] for parameter in found.values())

    def test_parameters_that_are_experiment_fields_have_its_defaults(self, notebook):
        default = Experiment()
        for node in ast.parse(notebook.cells[2].source).body:
            name, value = node.target.id, ast.literal_eval(node.value)
            if name in default.__dataclass_fields__ and value not in (0, 0.0):
                assert value == getattr(default, name), name

    def test_cells_are_short_and_explained(self, notebook):
        assert len(notebook.cells) <= 40
        kinds = [cell.cell_type for cell in notebook.cells]
        assert all(a != "code" or b != "code" for a, b in itertools.pairwise(kinds[4:]))
        for cell in code_cells(notebook):
            assert len(cell.source.splitlines()) <= 20, cell.source

    def test_no_logic_no_installing_no_absolute_path(self, notebook):
        for cell in code_cells(notebook):
            assert not INSTALLING.search(cell.source), cell.source
            assert not ABSOLUTE.search(cell.source), cell.source
            assert "warnings" not in cell.source
            for node in ast.walk(ast.parse(cell.source)):
                assert not isinstance(node, ast.ClassDef)
                if isinstance(node, ast.FunctionDef):
                    assert node.end_lineno - node.lineno < 5

    def test_outputs_are_stripped(self, notebook):
        for cell in code_cells(notebook):
            assert not cell.outputs and cell.execution_count is None

    def test_ends_with_what_differs_and_what_comes_next(self, notebook):
        last = notebook.cells[-1]
        assert last.cell_type == "markdown" and "paper" in last.source

    def test_every_notebook_it_names_exists(self, notebook):
        for cell in notebook.cells:
            for name in re.findall(r"\b(0\d_[a-z0-9_]+)", cell.source):
                assert (HOME / "notebooks" / f"{name}.ipynb").is_file(), name


class TestColab:
    @pytest.fixture
    def calls(self, monkeypatch, tmp_path):
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
    def colab(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))

    @pytest.fixture
    def source(self, tmp_path):
        """The cell with the address of a small repository filled in."""
        origin = tmp_path / "origin"
        (origin / "notebooks").mkdir(parents=True)
        (origin / "notebooks" / "one.ipynb").write_text("{}")
        git = ["git", "-C", str(origin), "-c", "user.name=a", "-c", "user.email=a@b.c"]
        for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
            subprocess.run([*git, *command], check=True)
        return SOURCE.replace('repository = ""', f'repository = "file://{origin}"')

    def test_elsewhere_it_does_nothing(self, source, calls):
        here = os.getcwd()
        exec(source, {})
        assert calls == [] and os.getcwd() == here and not os.listdir(here)

    def test_it_clones_installs_and_goes_there(self, colab, source, calls):
        exec(source, {})
        assert [call[0] for call in calls] == ["clone", "-m"]
        assert calls[1][1:] == ["pip", "install", "--quiet", "--editable", "./kit"]
        assert os.path.isfile("notebooks/one.ipynb")

    def test_twice_in_one_kernel_and_again_after_a_restart(self, colab, source, calls):
        exec(source, {})
        exec(source, {})
        assert len(calls) == 2
        os.chdir("..")
        exec(source, {})
        assert [call[0] for call in calls] == ["clone", "-m", "-m"]
        assert os.path.isfile("notebooks/one.ipynb")

    def test_without_an_address_it_asks_for_one(self, colab, calls):
        with pytest.raises(SystemExit, match="repository: fill in the address"):
            exec(SOURCE, {})
        assert calls == []

    def test_it_is_put_behind_the_title_once(self):
        cells = [nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell("import os")]
        notebook = nbformat.v4.new_notebook(cells=cells)
        insert_colab_cell(notebook)
        once = copy.deepcopy(notebook)
        assert [cell.source for cell in once.cells] == ["# Title", SOURCE, "import os"]
        notebook.cells[1].source = "an older one"
        insert_colab_cell(notebook)
        assert notebook == once
        nbformat.validate(once)

    def test_every_notebook_carries_it(self):
        carried = {}
        for path in NOTEBOOKS:
            cells = nbformat.read(path, as_version=4).cells
            carried[path.stem] = [(i, cell.source) for i, cell in enumerate(cells) if is_colab_cell(cell)]
        if not any(carried.values()):
            pytest.skip(f"no notebook has a cell tagged {TAG!r} yet; make notebooks inserts it")
        assert carried == {name: [(1, SOURCE)] for name in carried}
