"""What `make book` gives to Sphinx: each page has a place in the contents, each equation its number."""

import doctest
import json
import re
import runpy
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest

HOME = Path(__file__).parents[1]
CONF = HOME / "book/conf.py"


@pytest.fixture
def conf(monkeypatch):
    """The settings as Sphinx reads them, without a repository."""
    monkeypatch.setenv("RUN", "demo")
    monkeypatch.delenv("REPOSITORY", raising=False)
    return runpy.run_path(str(CONF))


def markdown(path):
    """The texts of a notebook, one after the other."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def test_every_page_of_the_contents_exists(conf):
    made = ["figures/demo/README", "book/api/*"]  # by `serkit report`, by the book
    for page in chain.from_iterable(conf["CONTENTS"].values()):
        assert page in made or any(HOME.glob(f"{page}.*")), page


def test_every_equation_is_a_target_once_and_every_link_to_one_has_it(conf):
    texts = [conf["linked"](markdown(path)) for path in sorted(HOME.glob("notebooks/*.ipynb"))]
    tags = re.findall(r"\\tag\{(\d+)\}", "".join(texts))
    targets = re.findall(r"^\(eq-(\d+)\)=\n\$\$", "".join(texts), re.MULTILINE)
    linked = re.findall(r"\]\(#eq-(\d+)\)", "".join(texts))
    assert sorted(map(int, tags)) == sorted(map(int, targets)) == list(range(1, 19))
    assert {"9", "17", "18"} <= set(linked) <= set(targets)


def test_a_number_in_brackets_is_not_always_an_equation(conf):
    for text in ("f(2) is", "2 × (1, 0)", "`x` (3.5) and", "the year (c. 2)"):
        assert conf["linked"](text) == text


def test_a_target_stands_before_its_own_equation(conf):
    text = "$$a=b$$\n\nand\n\n$$c=d\\tag{4}$$"
    assert conf["linked"](text) == "$$a=b$$\n\nand\n\n(eq-4)=\n$$c=d\\tag{4}$$"


class TestNotebooks:
    @pytest.fixture
    def run(self, conf, monkeypatch, tmp_path):
        """A function that has written an executed notebook, and what the book reads in its place."""
        monkeypatch.setitem(conf["executed"].__globals__, "HOME", tmp_path)
        app = SimpleNamespace(env=SimpleNamespace(doc2path=lambda docname: f"{docname}.ipynb"))

        def write(name, *cells):
            path = tmp_path / "runs/demo" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"cells": list(cells)}))

        def read(docname):
            source = ["without outputs"]
            conf["read_source"](app, docname, source)
            return json.loads(source[0])["cells"]

        return SimpleNamespace(write=write, read=read)

    def test_the_executed_one_is_shown_and_its_hidden_code_stays_hidden(self, run):
        hidden = {"source_hidden": True}
        run.write(
            "notebooks/02_mfcc.ipynb",
            {"cell_type": "markdown", "metadata": {}, "source": ["Power ", "(7)."]},
            {"cell_type": "code", "metadata": {"jupyter": hidden, "tags": ["colab"]}, "source": ""},
            {"cell_type": "code", "metadata": {"jupyter": hidden}, "source": ""},
            {"cell_type": "code", "metadata": {}, "source": "", "outputs": ["sound"]},
        )
        text, colab, imports, code = run.read("notebooks/02_mfcc")
        assert text["source"] == "Power [(7)](#eq-7)."
        assert colab["metadata"]["tags"] == ["colab", "remove-cell"]
        assert imports["metadata"]["tags"] == ["hide-input"]
        assert code["metadata"]["tags"] == [] and code["outputs"] == ["sound"]

    def test_of_a_training_the_first_fold_is_shown(self, run):
        for fold in (2, 1):
            cell = {"cell_type": "markdown", "metadata": {}, "source": f"fold {fold}"}
            run.write(f"corrected/fold={fold}/seed=111/05_train_coattention.ipynb", cell)
        [cell] = run.read("notebooks/05_train_coattention")
        assert cell["source"] == "fold 1"

    def test_one_that_was_not_executed_is_named_with_the_command(self, run):
        with pytest.raises(
            SystemExit, match=r"run demo: 07_ablations was not executed; call `make reproduce"
        ):
            run.read("notebooks/07_ablations")


def test_each_room_has_a_page_with_all_its_modules(conf, tmp_path):
    conf["write_rooms"](tmp_path)
    pages = {path.stem: path.read_text() for path in tmp_path.iterdir()}
    rooms = {"serkit", *(f"serkit.{path.parent.name}" for path in HOME.glob("serkit/*/__init__.py"))}
    assert set(pages) == rooms
    documented = re.findall(r"automodule:: (\S+)\n   :members:", "".join(pages.values()))
    modules = [path for path in (HOME / "serkit").rglob("*.py") if path.stem != "__init__"]
    assert sorted(documented) == sorted(".".join(m.relative_to(HOME).with_suffix("").parts) for m in modules)


def test_colab_and_binder_are_offered_for_a_repository_only(conf, monkeypatch):
    assert "launch_buttons" not in conf["html_theme_options"]
    monkeypatch.setenv("REPOSITORY", "https://github.com/YOU/REPO/")
    options = runpy.run_path(str(CONF))["html_theme_options"]
    assert options["repository_url"] == "https://github.com/YOU/REPO"
    assert {"colab_url", "binderhub_url"} <= set(options["launch_buttons"])


def test_the_example_in_the_settings_is_right(conf):
    [example] = doctest.DocTestFinder().find(conf["linked"], "linked", globs=conf, module=False)
    assert not doctest.DocTestRunner().run(example).failed and example.examples
