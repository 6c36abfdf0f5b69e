"""``papermill --help-notebook``: every parameter with its type, its default and what it is."""

import ast
from pathlib import Path

import nbformat
import papermill
import pytest
from click.testing import CliRunner
from papermill.cli import papermill as command

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
SHARED = ("run", "corpus", "root", "recipe", "selection", "by", "seed", "profile", "short_s", "long_s")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


def literals(path):
    """Name -> value of the parameters cell, read without papermill."""
    cells = nbformat.read(path, as_version=4).cells
    source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    return {node.target.id: ast.literal_eval(node.value) for node in ast.parse(source).body}


def test_help_type_and_default_of_every_parameter(path):
    found, written = papermill.inspect_notebook(str(path)), literals(path)
    assert list(found) == list(written)
    for name, parameter in found.items():
        assert len(parameter["help"].split()) >= 4, name
        if written[name] is not None:  # then its type is that of what may be given
            assert parameter["inferred_type_name"] == type(written[name]).__name__, name
        # a value with a hash sign in it would be cut off by papermill
        assert ast.literal_eval(parameter["default"]) == written[name], name


def test_what_the_command_prints(path):
    done = CliRunner().invoke(command, ["--help-notebook", str(path)])
    assert done.exit_code == 0
    printed = " ".join(done.output.split())
    assert "Unknown" not in printed
    for name, parameter in papermill.inspect_notebook(str(path)).items():
        head = f"{name}: {parameter['inferred_type_name']} (default {parameter['default']})"
        assert f"{head} {parameter['help']}" in printed


def test_the_same_parameter_is_explained_in_the_same_words_everywhere():
    words = {}
    for path in NOTEBOOKS:
        for name, parameter in papermill.inspect_notebook(str(path)).items():
            words.setdefault(name, set()).add(parameter["help"])
    assert {name for name in SHARED if len(words[name]) > 1} == set()
