"""A name that is missing is traced to its cell, in files and in a live kernel."""

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from serkit import stepping


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    cells = [
        new_markdown_cell("# A title"),
        new_code_cell("import pandas as pd"),
        new_markdown_cell("Some text.\n\n## 1. Reading\n\nMore."),
        new_code_cell(
            "table = pd.DataFrame()\nfor row in []:\n    with open(row) as file:\n        last = file"
        ),
        new_markdown_cell("No heading here."),
        new_code_cell("%matplotlib inline"),
        new_code_cell("total: int = sum(each for each in [1])"),
    ]
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_prepare_corpus.ipynb").write_text("{}")
    path = tmp_path / "notebooks" / "trial.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    monkeypatch.chdir(tmp_path)
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pd", "'pd' is made by code cell 1, under 'A title': run that cell first"),
        ("table", "'table' is made by code cell 2, under '1. Reading': run that cell first"),
        ("last", "'last' is made by code cell 2, under"),
        ("total", "'total' is made by code cell 4, under '1. Reading'"),
        ("each", "'each' is made by no cell"),
        ("tabel", "'tabel' is made by no cell of this notebook: check how it is written"),
    ],
)
def test_the_cell_is_named(notebook, name, expected):
    assert stepping.what_to_run(notebook, name).startswith(expected)


@pytest.mark.parametrize("content", ["", "{}", "not json"])
def test_a_notebook_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "x.ipynb"
    path.write_text(content)
    assert "a cell that has not run" in stepping.what_to_run(path, "a")
    assert "a cell that has not run" in stepping.what_to_run(tmp_path / "absent.ipynb", "a")


def test_names_that_stay_inside_are_not_the_cells():
    source = "def f(a):\n    b = 1\ng = [c for c in []]\nh = lambda d: d\nobject.e = 1"
    assert stepping.names_made(source) == {"f", "g", "h"}


def test_nothing_happens_outside_jupyter(monkeypatch):
    monkeypatch.setattr(stepping, "_WATCHED", {})
    InteractiveShell.clear_instance()
    stepping.watch("trial")
    assert stepping._WATCHED == {}


def test_a_shell_says_it_after_the_error(notebook, capsys):
    shell = InteractiveShell.instance()
    try:
        stepping.watch("trial")
        stepping.watch("trial")  # a cell that is run twice
        shell.run_cell("table.head()")
        assert capsys.readouterr().out.count("'table' is made by code cell 2") == 1
        shell.run_cell("1 / 0")
        assert "is made by" not in capsys.readouterr().out
        shell.run_cell("raise NameError('of another kind')")
        assert "is made by" not in capsys.readouterr().out
    finally:
        shell.history_manager.end_session()
        InteractiveShell.clear_instance()
