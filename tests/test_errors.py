"""Errors of libraries as ours; a name that is missing is traced to its cell, in files and in a live kernel."""

from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from serkit import errors
from serkit.errors import StoreError, reported_as


@pytest.fixture
def notebook(tmp_path):
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
    path = tmp_path / "trial.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
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
    assert errors.where_made(name, notebook).startswith(expected)


@pytest.mark.parametrize("content", ["", "{}", "not json"])
def test_a_notebook_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "x.ipynb"
    path.write_text(content)
    assert "a cell that has not run" in errors.where_made("a", path)
    assert "a cell that has not run" in errors.where_made("a", tmp_path / "absent.ipynb")


def test_names_that_stay_inside_are_not_the_cells(tmp_path):
    path = tmp_path / "x.ipynb"
    source = "def f(a):\n    b = 1\ng = [c for c in []]\nh = lambda d: d\nobject.e = print(i)"
    nbformat.write(new_notebook(cells=[new_code_cell(source)]), path)
    made = {name for name in "abcdefghi" if "code cell 1" in errors.where_made(name, path)}
    assert made == {"f", "g", "h"}


def test_a_shell_says_it_after_the_error(notebook, capsys):
    shell = InteractiveShell.instance()
    try:
        errors.explain_names(notebook)
        errors.explain_names(notebook)  # a cell that is run twice
        shell.run_cell("table.head()")
        assert capsys.readouterr().out.count("'table' is made by code cell 2") == 1
        shell.run_cell("1 / 0")
        assert "is made by" not in capsys.readouterr().out
        shell.run_cell("raise NameError('of another kind')")
        assert "is made by" not in capsys.readouterr().out
    finally:
        shell.history_manager.end_session()
        InteractiveShell.clear_instance()


def test_a_stopped_training_shows_its_sentence_alone(capsys):
    shell = InteractiveShell()
    shell.run_cell("from serkit.errors import Stopped\nraise Stopped('stopped; all is kept')")
    assert capsys.readouterr().out.strip() == "stopped; all is kept"
    assert issubclass(errors.Stopped, KeyboardInterrupt)


def test_an_error_of_a_library_is_reported_with_its_reason():
    message = r"^a\.npy: can't be read \(No such file or directory\); fetch it$"
    reported = reported_as(StoreError, "a.npy: can't be read", "fetch it", OSError)
    with pytest.raises(StoreError, match=message), reported:
        Path("no/such/a.npy").read_bytes()


@pytest.mark.parametrize("error", [StoreError("said already"), ValueError("a fault of the program")])
def test_what_is_said_already_or_was_not_meant_passes_as_it_is(error):
    reported = reported_as(StoreError, "a.npy: can't be read", "fetch it", OSError)
    with pytest.raises(type(error), match=str(error)) as caught, reported:
        raise error
    assert caught.value is error
