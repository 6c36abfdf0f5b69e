"""The cell for Google Colab: kept here, the same in every notebook, put there by ``make notebooks``."""

import sys
from pathlib import Path

import nbformat

TAG = "colab"
SOURCE = """\
# for Google Colab; anywhere else this cell does nothing
import os
import subprocess
import sys

repository = ""  # @param {type:"string"}
if "google.colab" in sys.modules and not os.path.isdir("notebooks"):
    if not os.path.isdir("kit") and not repository:
        sys.exit(
            "repository: fill in the address this notebook was opened from, https://github.com/..."
        )
    if not os.path.isdir("kit"):
        subprocess.run(["git", "clone", "--depth=1", repository, "kit"], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--editable", "./kit"],
        check=True,
    )
    os.chdir("kit")"""


def is_colab_cell(cell):
    """Whether a cell is this one, in whatever version."""
    return TAG in cell.metadata.get("tags", ())


def insert_colab_cell(notebook):
    """Put the cell behind the title, in place of an older one; its code is folded away."""
    cell = nbformat.v4.new_code_cell(SOURCE, id=TAG)
    cell.metadata.update(tags=[TAG], cellView="form", jupyter={"source_hidden": True})
    title, *others = [each for each in notebook.cells if not is_colab_cell(each)]
    notebook.cells = [title, cell, *others]


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        notebook = nbformat.read(path, as_version=4)
        insert_colab_cell(notebook)
        nbformat.write(notebook, path)
