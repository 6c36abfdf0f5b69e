"""The notebooks' anatomy, and all of them run on the demo corpus as a user would."""

import ast
import re
import shutil
from pathlib import Path

import nbformat
import papermill
import prediction_tables as tables
import pytest
import soundfile
from colab_cell import is_colab_cell
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from voices import voice, write_model

from serkit.errors import RunError
from serkit.experiment import Experiment
from serkit.recipe import CORRECTED
from serkit.reproduction import report
from serkit.reproduction.jobs import KERNEL_START_S
from serkit.runs import DONE, write_json

HOME = Path(__file__).parents[2]
NOTEBOOKS = sorted((HOME / "notebooks").glob("*.ipynb"))
COMMON = {"run", "corpus", "root", "recipe"}
OWN = {  # corpus and recipe are those of the model, the variant or all variants, as their records say
    "06_confusion_matrix": {"run", "variant", "partial"},
    "07_ablations": {"run", "score"},
    "08_predict": {"run", "model", "recording", "device", "abstain"},
    "09_own_corpus": {"run", "corpus", "root", "fold", "seed", "epochs"},
}
OTHERWISE = {"09_own_corpus": {"corpus"}}  # settings whose default is another one there
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


def test_all_are_there_in_order():
    assert [path.stem for path in NOTEBOOKS] == [
        "01_prepare_corpus", "02_mfcc", "03_spectrogram", "04_wav2vec2", "05_train_coattention",
        "06_confusion_matrix", "07_ablations", "08_predict", "09_own_corpus",
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
        assert written >= OWN.get(path.stem, COMMON)
        assert all(parameter["help"] for parameter in found.values())

    def test_parameters_that_are_experiment_fields_have_its_defaults(self, request, notebook):
        default, stem = Experiment(), request.node.callspec.params["notebook"].stem
        for node in ast.parse(notebook.cells[2].source).body:
            name, value = node.target.id, ast.literal_eval(node.value)
            if name in {*default.__dataclass_fields__} - OTHERWISE.get(stem, set()) and value not in (
                None,
                "",
            ):
                assert value == getattr(default, name), name

    def test_cells_are_short_and_explained(self, notebook):
        """Cut by meaning: a step and its picture may be two cells; a page of code is none."""
        kinds = "".join(cell.cell_type[0] for cell in notebook.cells[4:])
        assert "cccc" not in kinds
        for cell in code_cells(notebook):
            assert len(cell.source.splitlines()) <= 24, cell.source
            assert max(map(len, cell.source.splitlines())) <= 84, cell.source

    def test_no_logic_no_installing_no_absolute_path(self, notebook):
        for cell in code_cells(notebook):
            assert not INSTALLING.search(cell.source), cell.source
            assert not ABSOLUTE.search(cell.source), cell.source
            assert "warnings" not in cell.source
            for node in ast.walk(ast.parse(cell.source)):
                assert not isinstance(node, ast.ClassDef)
                if isinstance(node, ast.FunctionDef):
                    assert node.end_lineno - node.lineno < 12  # what a slider draws

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


class TestOwnRecording:
    """Notebook 08 as papermill runs it: a model that has learned nothing, and a recording given by its path."""

    @pytest.fixture
    def project(self, tmp_path, demo_corpus):
        home = tmp_path
        shutil.copytree(
            HOME / "notebooks", home / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints")
        )
        (home / "data").mkdir()
        (home / "data" / "demo").symlink_to(demo_corpus)
        fold = home / "runs" / "trial" / "v" / "fold=1" / "seed=111"
        write_model(fold / "model", CORRECTED)
        (fold / DONE).write_text("x")
        soundfile.write(home / "talk.wav", voice(7.3, 8000), 8000)
        return home

    @pytest.mark.notebooks
    def test_a_recording_by_its_path(self, project):
        output = project / "out.ipynb"
        papermill.execute_notebook(
            project / "notebooks" / "08_predict.ipynb", output,
            {"run": "trial", "device": "cpu", "recording": "talk.wav"},
            cwd=project / "notebooks", kernel_name="python3", start_timeout=KERNEL_START_S, progress_bar=False,
        )  # fmt: skip
        done = nbformat.read(output, as_version=4)
        html, _ = HTMLExporter(template_name="basic").from_notebook_node(done)
        assert html.count("data:audio/wav;base64,") == 8 and html.count("data:image/png;base64,") == 4
        assert "talk.wav: 7.30 s, 8000 Hz" in html and "there is nothing above 4000 Hz" in html
        for suffix in ("png", "csv", "json"):
            assert (project / "figures" / "trial" / f"predict_timeline.{suffix}").stat().st_size > 50
        table = (project / "figures" / "trial" / "predict_segments.csv").read_text().splitlines()
        assert len(table) == 1 + 3  # 0 to 3, 3 to 6, and the last 3 s
        caption = (project / "figures" / "trial" / "predict_segments.md").read_text().splitlines()[0]
        assert "your recording; model of run trial" in caption and "Synthetic speech" not in caption


class TestGuard:
    """Notebook 06 averages nothing that ``serkit report`` would not average."""

    @pytest.fixture
    def write_fold(self, project):
        """Function that finishes a fold, with predictions made by chance."""
        predictions = tables.predict(tables.manifest(), "session")
        (project / "notebooks" / "06_confusion_matrix.ipynb").write_text("{}")

        def write(fold, **settings):
            experiment = Experiment(fold=fold, **settings)
            folder = experiment.folder("demo")
            about = {"key": experiment.key, "parameters": vars(experiment), "folds": list("12345")}
            write_json(folder / "experiment.json", about)
            rows = predictions[predictions["fold"] == fold].assign(variant=experiment.variant)
            rows.to_parquet(folder / "predictions.parquet")
            (folder / DONE).write_text("x")

        return write

    def until_loaded(self, **parameters):
        """Run the cells up to the one that reads the predictions; what they have made."""
        made = {}
        for cell in nbformat.read(HOME / "notebooks" / "06_confusion_matrix.ipynb", as_version=4).cells:
            if cell.cell_type == "code" and cell.id not in ("colab", "system"):
                exec(cell.source, made)
            made |= parameters if cell.id == "parameters" else {}
            if cell.id == "load":
                return made

    def test_folds_that_are_missing(self, write_fold, capsys):
        for fold in "1245":
            write_fold(fold)
        with pytest.raises(RunError, match=r"missing folds: 3; .*partial = True in notebook 06") as refused:
            self.until_loaded()
        with pytest.raises(RunError) as reported:
            report.write_report("demo")
        assert str(refused.value) == str(reported.value)
        made = self.until_loaded(partial=True)
        assert made["folds"] == list("1245") and "folds 1, 2, 4, 5 of five" in capsys.readouterr().out

    def test_folds_that_were_trained_differently(self, write_fold):
        for fold in "12345":
            write_fold(fold, epochs=3 + (fold == "3"))
        with pytest.raises(
            RunError, match=r"was made with epochs=4, .* with 3, expected the same"
        ) as refused:
            self.until_loaded(partial=True)
        with pytest.raises(RunError) as reported:
            report.write_report("demo")
        assert str(refused.value) == str(reported.value)


class TestTwice:
    """Notebooks 01 to 04 run from top to bottom, and once more in the same kernel."""

    @pytest.fixture
    def project(self, tmp_path, demo_corpus):
        shutil.copytree(HOME / "notebooks", tmp_path / "notebooks")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "demo").symlink_to(demo_corpus)
        return tmp_path

    def shown(self, notebook):
        """What stands below the cells, without bars: those are there only while something is done."""
        return [
            (cell.id, output.get("text"), output.get("data"))
            for cell in code_cells(notebook)
            for output in cell.outputs
            if "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
        ]  # fmt: skip

    @pytest.mark.campaign
    def test_the_second_time_shows_the_same(self, project):
        for path in NOTEBOOKS[:4]:
            notebook = nbformat.read(path, as_version=4)
            client = NotebookClient(
                notebook, timeout=600, startup_timeout=KERNEL_START_S, kernel_name="python3",
                resources={"metadata": {"path": str(project)}},
                coalesce_streams=True,  # what is printed in one go may arrive in several pieces
            )  # fmt: skip
            seen = []
            with client.setup_kernel():
                for _ in range(2):
                    for index, cell in enumerate(notebook.cells):
                        client.execute_cell(cell, index)
                    seen.append(self.shown(notebook))
            assert len(seen[0]) > 20 and seen[0] == seen[1], path.stem
