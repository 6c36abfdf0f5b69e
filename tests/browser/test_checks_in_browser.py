"""What is wrong with a notebook is found: toy notebooks, each with one thing wrong, and one with nothing."""

import nbformat
import pytest

pytestmark = pytest.mark.browser

TONE = "from IPython.display import Audio, display\nimport numpy as np\n"
TONE += "tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)\n"
WAITING = "from ipywidgets import Audio\nAudio(layout={'display': 'none'})"
PICTURE = "import matplotlib.pyplot as plt\nplt.plot([0, 1])\nplt.show()"


@pytest.fixture
def toy(lab, open_notebook):
    """Function that writes a notebook of the given cells, opens it and runs all of it."""
    path = lab.project / "notebooks" / "toy.ipynb"

    def run(*sources, limit_s=60):
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
        notebook = open_notebook("toy")
        notebook.run_all(limit_s)
        return notebook

    yield run
    path.unlink()  # or git would see it in the tests of the notebooks


def test_nothing_is_wrong(toy):
    notebook = toy(PICTURE, TONE + "display(Audio(tone, rate=16000))", WAITING)
    assert notebook.problems() == []
    shown = notebook.shown()
    assert (shown["images"], shown["players"]) == (1, 1)
    assert 0 < notebook.play(notebook.node.locator("audio").first) <= 1


def test_a_raising_cell_and_those_after_it(toy):
    problems = toy("print('before')", "1 / 0", "print('after')").problems()
    assert problems[:2] == ["cell 1: ZeroDivisionError: division by zero", "cell 2: has not run"]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()",
         "a traceback is shown"),
        ("from ipywidgets import Output\nout = Output()\nwith out:\n    1 / 0\nout", "a traceback is shown"),
        ("from IPython.display import HTML\nHTML('<img src=\"nowhere.png\">')", "an image is not shown"),
        ("from IPython.display import HTML\nHTML('<details><img src=\"nowhere.png\"></details>')",
         "an image is not shown"),
        ("from IPython.display import HTML\nHTML('<audio controls src=\"data:audio/wav;base64,AAAA\"></audio>')",
         "a player has no sound"),
        ("from IPython.display import HTML\nHTML('<div style=\"width: 3000px\">wide</div>')", "cut off"),
        ("import os\nos._exit(1)", "a dialog is open"),
    ],
    ids=["traceback", "in a widget", "image", "folded image", "sound", "width", "kernel"],
)  # fmt: skip
def test_one_thing_is_wrong(toy, source, problem):
    problems = toy(source).problems()
    assert any(problem in found for found in problems), problems


def test_a_cell_that_does_not_end_is_named(toy):
    with pytest.raises(AssertionError, match=r"toy did not run to its end within 8 s: .*'waiting': \[1\]"):
        toy("1", "import time\ntime.sleep(600)", limit_s=8)
