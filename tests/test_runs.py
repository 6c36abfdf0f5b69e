"""Runs: their names, their folders and what is recorded in them."""

import json
import subprocess
import sys

import pandas as pd
import pytest
from matplotlib.figure import Figure

from serkit import cli, runs
from serkit.errors import ParameterError, RunError
from serkit.figures.saving import save_figure


class TestStartRun:
    def test_prints_what_it_runs_on(self, project, capsys):
        run = runs.start_run("trial", corpus="demo", seed=3, notebook="05")
        printed = capsys.readouterr().out
        assert "seed 3" in printed and "torch 2." in printed and "device" in printed
        assert run.root == project / "data" / "demo"
        assert run.folder == project / "runs/trial/corrected_clean_session_demo/fold=1/seed=3"

    def test_from_inside_the_notebooks_folder_the_project_is_the_same(self, project, monkeypatch):
        monkeypatch.chdir(project / "notebooks")
        assert runs.project_home() == project

    def test_unknown_parameter_is_refused(self, project):
        with pytest.raises(ParameterError, match=r"'sed' is not a setting, did you mean 'seed'\?"):
            runs.start_run("trial", corpus="demo", sed=3)

    @pytest.mark.parametrize(
        "name", ["", "a/b", "..", "a b", "-x", "übung", "a\n", "a" * 65, "a=b", 3.5, None]
    )
    def test_run_name_must_be_a_folder_name(self, project, name):
        for use in (
            runs.check_run_name,
            lambda name: runs.start_run(name, corpus="demo"),
            lambda name: save_figure(Figure(), "stem", run=name, data=pd.DataFrame({"x": [1]}), caption="c"),
            lambda name: cli.Reproduce(run=name or "..", dry_run=True)(),
            lambda name: cli.report((name,)),
            lambda name: cli.verify(name),
            lambda name: cli.predict(run=name),
        ):
            with pytest.raises(ParameterError, match=r"expected at most 64 letters .* it names a folder"):
                use(name)
        assert sorted(path.name for path in project.iterdir()) == ["notebooks"]  # nothing was made

    @pytest.mark.parametrize("name", ["_try", "iemocap-paper_2", "3", "a" * 64])
    def test_run_names(self, name):
        assert runs.check_run_name(name) == name

    def test_missing_manifest_says_which_notebook_makes_it(self, project):
        run = runs.start_run("trial", corpus="demo")
        with pytest.raises(RunError, match=r"run notebook 01_prepare_corpus with corpus='demo'"):
            runs.open_manifest(run)

    def test_a_manifest_that_was_cut_short_is_named(self, project):
        run = runs.start_run("trial", corpus="demo")
        run.processed.mkdir(parents=True)
        pd.DataFrame({"utterance_id": ["u"]}).to_parquet(run.processed / runs.MANIFEST)
        content = (run.processed / runs.MANIFEST).read_bytes()
        (run.processed / runs.MANIFEST).write_bytes(content[:-20])
        with pytest.raises(
            RunError, match=r"manifest\.parquet can't be read \(.*delete it and run notebook 01"
        ):
            runs.open_manifest(run)


class TestFinishedFolders:
    def finished(self, project, variant, fold, rows):
        folder = project / "runs" / "trial" / variant / f"fold={fold}" / "seed=1"
        folder.mkdir(parents=True)
        pd.DataFrame(rows).to_parquet(folder / "predictions.parquet")
        (folder / "DONE").write_text("x")

    def test_tables_of_all_folds_in_one(self, project):
        self.finished(project, "a", 1, {"utterance_id": ["u"], "variant": ["a"]})
        self.finished(project, "b", 1, {"utterance_id": ["v"], "variant": ["b"]})
        assert runs.load_predictions("trial")["utterance_id"].tolist() == ["u", "v"]
        assert runs.load_predictions("trial", "b")["utterance_id"].tolist() == ["v"]
        with pytest.raises(RunError, match="no finished fold in runs/trial/c; its variants are a, b"):
            runs.load_predictions("trial", "c")

    def test_the_only_variant_needs_no_name(self, project):
        self.finished(project, "a", 1, {"utterance_id": ["u"]})
        assert runs.choose_variant("trial") == runs.choose_variant("trial", "a") == "a"
        self.finished(project, "b", 1, {"utterance_id": ["u"]})
        assert runs.choose_variant("trial", "b") == "b"
        with pytest.raises(RunError, match="run 'trial' has 2 variants, choose one with variant: a, b"):
            runs.choose_variant("trial")
        with pytest.raises(RunError, match="no finished fold in runs/trial/c; its variants are a, b"):
            runs.choose_variant("trial", "c")

    @pytest.mark.parametrize(("content", "reason"), [(None, "is missing"), (b"PAR1", "can't be read")])
    def test_a_finished_fold_without_predictions_is_named(self, project, content, reason):
        self.finished(project, "a", 1, {"utterance_id": ["u"]})
        self.finished(project, "a", 2, {"utterance_id": ["v"]})
        path = project / "runs/trial/a/fold=2/seed=1/predictions.parquet"
        path.unlink()
        if content:
            path.write_bytes(content)
        with pytest.raises(RunError, match=f"fold=2/seed=1/predictions.parquet {reason}.*marked as done"):
            runs.load_predictions("trial")

    def test_an_unfinished_fold_does_not_count(self, project):
        self.finished(project, "a", 1, {"utterance_id": ["u"]})
        (project / "runs/trial/a/fold=1/seed=1/DONE").unlink()
        with pytest.raises(RunError, match="no finished fold in runs/trial; train one with notebook 05"):
            runs.load_predictions("trial")


def test_write_json_leaves_no_half_file(tmp_path, monkeypatch):
    path = tmp_path / "a" / "record.json"
    runs.write_json(path, {"x": 1})
    monkeypatch.setattr(runs.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("power cut")))
    with pytest.raises(OSError, match="power cut"):
        runs.write_json(path, {"x": 2})
    assert json.loads(path.read_text()) == {"x": 1}


def test_provenance_names_versions_device_and_commit():
    record = runs.provenance()
    assert record["versions"]["torch"].startswith("2.")
    assert {"device", "machine", "commit"} <= set(record)


def test_libraries_are_quiet_although_they_were_imported_before(monkeypatch):
    """As in a notebook, whose imports run before ``start_run``; in a process of its own, as the switch is the library's."""
    program = (
        "import huggingface_hub.utils as hub; from transformers import logging; from serkit import runs\n"
        "before = hub.are_progress_bars_disabled(), logging.get_verbosity() == logging.ERROR\n"
        "runs.quiet_libraries()\n"
        "print(before, hub.are_progress_bars_disabled(), logging.is_progress_bar_enabled(), logging.get_verbosity())"
    )
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TRANSFORMERS_VERBOSITY"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["(False,", "False)", "True", "False", "40"]  # 40: errors only


def test_started_outside_of_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        RunError, match=r"is not inside the project folder: no notebooks/01_prepare_corpus.ipynb"
    ):
        runs.start_run("demo", corpus="demo")
    with pytest.raises(RunError, match="papermill --cwd"):
        cli.Reproduce(dry_run=True)()
    assert not list(tmp_path.iterdir())


def test_a_number_is_a_name_too(project):
    """papermill makes numbers of 1 and 2024."""
    assert runs.start_run(2024, corpus="demo").name == "2024"
