"""Experiments, run folders and what is recorded."""

import json

import pandas as pd
import pytest
from matplotlib.figure import Figure

from serkit import cli, runs
from serkit.errors import ParameterError, RunError
from serkit.experiment import Experiment
from serkit.figures.saving import save_figure
from serkit.reproduction import lock


class TestExperiment:
    def test_paper_profile_has_the_published_training(self):
        paper = Experiment(profile="paper")
        assert (paper.learning_rate, paper.batch_size, paper.epochs) == (1e-5, 64, 100)
        assert (paper.patience, paper.min_epochs) == (8, 7)

    def test_given_values_win_over_the_profile(self):
        assert Experiment(profile="paper", epochs=3).epochs == 3

    def test_every_field_changes_the_key(self):
        base = Experiment()
        changes = {
            "corpus": "ravdess", "recipe": "published", "selection": "last", "by": "speaker", "fold": "2",
            "seed": 1, "profile": "paper", "epochs": 1, "batch_size": 1, "learning_rate": 0.5, "patience": 1,
            "min_epochs": 1, "precision": "bf16", "micro_batch": 2, "encoder_learning_rate": 0.5, "weight_decay": 0.5,
            "warmup": 0.5, "schedule": "linear", "class_weights": True, "label_smoothing": 0.5, "max_grad_norm": 1.0,
            "speech_encoder": "random", "cnn_weights": "imagenet", "encoder_training": "frozen",
            "encoder_layers": "weighted", "encoder_cache": False, "gradient_checkpointing": True, "compile": True,
            "views": "mfcc", "fusion": "mean", "keep_epochs": False,
        }  # fmt: skip
        assert set(changes) == {field for field in base.__dataclass_fields__}
        keys = {Experiment(**{name: value}).key for name, value in changes.items()}
        assert len(keys | {base.key}) == len(changes) + 1

    def test_what_changes_the_encoder_has_a_folder_of_its_own(self):
        names = {
            Experiment(**settings).variant
            for settings in ({}, {"encoder_training": "frozen"}, {"encoder_layers": "weighted"},
                             {"encoder_training": "top_2"}, {"speech_encoder": "microsoft/wavlm-base"})
        }  # fmt: skip
        assert "corrected_clean_session_demo" in names
        assert "corrected_clean_session_demo_wavlm-base" in names
        assert len(names) == 5

    def test_a_fold_number_from_papermill_is_the_same_fold(self):
        assert Experiment(fold=1).key == Experiment(fold="1").key

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"corpus": "iemocab"}, r"corpus='iemocab', expected one of demo, emodb, iemocap, ravdess"),
            ({"selection": "best"}, r"selection='best', expected one of published, clean, last"),
            ({"by": "actor"}, r"by='actor', expected one of speaker, session"),
            ({"profile": "big"}, r"profile='big', expected one of paper, demo"),
            ({"recipe": "fixed"}, r"recipe='fixed', expected published or corrected"),
            ({"epochs": -1}, r"epochs=-1, expected a whole number from 1 to 1000"),
            ({"learning_rate": 10.0}, r"learning_rate=10.0, expected a number from 1e-08 to 1.0"),
            ({"precision": "half"}, r"precision='half', expected one of auto, float32, bf16, fp16"),
            ({"schedule": "step"}, r"schedule='step', expected one of constant, linear, cosine"),
            (
                {"encoder_training": "top"},
                r"encoder_training='top', expected all, transformer, frozen or top_<k>",
            ),
            ({"encoder_layers": "all"}, r"encoder_layers='all', expected one of last, weighted"),
            (
                {"cnn_weights": "resnet"},
                r"cnn_weights='resnet', expected one of imagenet, random, or none: the profile's own",
            ),
        ],
    )
    def test_a_bad_parameter_gets_one_message(self, wrong, message):
        with pytest.raises(ParameterError, match=message):
            Experiment(**wrong)


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
        with pytest.raises(ParameterError, match=r"'sed' is no setting, did you mean 'seed'\?"):
            runs.start_run("trial", corpus="demo", sed=3)

    @pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "-x", "übung", "a\n", "a" * 65, "a=b", 3, None])
    def test_run_name_must_be_a_folder_name(self, project, name):
        for use in (
            runs.check_run_name,
            lambda name: runs.start_run(name, corpus="demo"),
            lambda name: lock.only_one(name).__enter__(),
            lambda name: save_figure(Figure(), "stem", run=name, data=pd.DataFrame({"x": [1]}), caption="c"),
            lambda name: cli.Reproduce(run=name or "..", dry_run=True)(),
            lambda name: cli.Report(run=name)(),
            lambda name: cli.Verify(run=name)(),
            lambda name: cli.Predict(run=name)(),
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
        with pytest.raises(RunError, match="no finished fold of variant 'c', found a, b"):
            runs.load_predictions("trial", "c")

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
