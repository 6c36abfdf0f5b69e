"""Stepping through a notebook out of order: a missing name is traced to the cell that makes it."""

import ast
import json
import sys

from serkit.experiment import project_home

_WATCHED = {}  # "notebook": path of the notebook that this kernel runs


def watch(notebook):
    """From now on a NameError in a cell is followed by which cell makes that name.

    Does nothing outside of Jupyter. Called by :func:`serkit.runs.start_run`.

    Parameters
    ----------
    notebook : str
        Name of a file in ``notebooks/``, without its ending.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return
    _WATCHED["notebook"] = project_home() / "notebooks" / f"{notebook}.ipynb"
    if _explain not in shell.events.callbacks["post_run_cell"]:
        shell.events.register("post_run_cell", _explain)


def what_to_run(notebook, name):
    """Which cell has to run before ``name`` can be used, in a sentence.

    Parameters
    ----------
    notebook : path
        An ``.ipynb``; one that can't be read gives a general answer.
    name : str

    Returns
    -------
    str
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return f"'{name}' is made by a cell that has not run: run all above this one first"
    number, heading = 0, "the title"
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines = [line.lstrip("# ") for line in source.splitlines() if line.startswith("#")]
            heading = f"'{lines[-1]}'" if lines else heading
        elif cell["cell_type"] == "code":
            number += 1
            if name in names_made(source):
                return (
                    f"'{name}' is made by code cell {number}, under {heading}: run that cell first, "
                    "or all above this one (menu Run, Run All Above Selected Cell)"
                )
    return f"'{name}' is made by no cell of this notebook: check how it is written"


def names_made(source):
    """Names that a cell leaves behind; none if it is not plain Python.

    Examples
    --------
    >>> sorted(names_made("import numpy as np\\nfor a, b in pairs:\\n    c = [d for d in b]"))
    ['a', 'b', 'c', 'np']
    """
    try:
        nodes = list(ast.parse(source).body)
    except SyntaxError:
        return set()
    names = set()
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        # what is bound inside of a function or comprehension is gone when that ends
        elif not isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            nodes += ast.iter_child_nodes(node)
    return names


def _explain(result):
    fault = result.error_in_exec
    if isinstance(fault, NameError) and fault.name:
        print(what_to_run(_WATCHED["notebook"], fault.name))
