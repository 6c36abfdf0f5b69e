"""``serkit verify``: an intact run passes, here and elsewhere; whatever is broken is named."""

import json
import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from tones import make_tones, train

from serkit import cli, runs
from serkit.errors import RunError
from serkit.evaluation import paper_comparison
from serkit.experiment import Experiment, key_of
from serkit.figures import DIGEST, digest_of, save_figure, save_table
from serkit.metrics import confusion_matrix
from serkit.reproduction import report, verify
from serkit.runs import FILES, sha256_of, write_inventory

VARIANT = "corrected_clean_session_demo"
FOLD = f"runs/trial/{VARIANT}/fold=2/seed=111"
FIGURES = "figures/trial"


def make_project(folder):
    (folder / "notebooks").mkdir(parents=True)
    (folder / "notebooks" / "01_prepare_corpus.ipynb").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three trained folds of the tones with their report, and another run beside it."""
    home = make_project(tmp_path_factory.mktemp("home") / "project")
    sound = tmp_path_factory.mktemp("tones")
    tones = make_tones(sound)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for fold in "123":
            train(tones, Experiment(fold=fold).folder("trial"), epochs=1, fold=fold)
        train(tones, Experiment(selection="published").folder("other"), epochs=1, selection="published")
        predictions = runs.load_predictions("trial")
        patch.setattr(report, "run_figures", lambda *_: [])  # drawn in TestElsewhere
        report.write_report("trial")
        _as_the_notebooks_do(predictions)
        beside = {"others": {"other": digest_of(runs.load_predictions("other"))}}
        table = paper_comparison("trial", "other")
        about = {"corpus": "demo", DIGEST: digest_of(predictions)} | beside
        save_table(table, "paper_comparison", run="trial", caption="Both.", parameters=about)
    return home


def _as_the_notebooks_do(predictions):
    """The matrix of notebook 06 and the curves of notebook 05, as far as their numbers go."""
    tested = predictions[predictions["split"] == "test"]
    about = {"corpus": "demo", DIGEST: digest_of(predictions)}
    history = pd.read_csv(Experiment().folder("trial") / "history.csv")
    figure, _ = plt.subplots(figsize=(1, 1))
    for stem, data, parameters in (
        ("confusion_matrix", confusion_matrix(tested["truth"], tested["prediction"]), about),
        ("curves_fold1_seed111", history, {"corpus": "demo", "fold": "1", "seed": 111}),
    ):
        save_figure(figure, stem, run="trial", data=data, caption="Numbers.", parameters=parameters)
    plt.close(figure)


@pytest.fixture
def home(whole, tmp_path, monkeypatch):
    """A copy to break."""
    shutil.copytree(whole, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def bare(home):
    """The same without figures: their tables take a second to recompute."""
    (home / "runs/trial/report.html").unlink()
    shutil.rmtree(home / FIGURES)
    return home


def said(capsys, run="trial", **options):
    """Exit code, and what was printed."""
    code = verify.verify(run, **options)
    return code, capsys.readouterr().out


def edit(path, change):
    """Change a JSON file through a function."""
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestIntact:
    def test_everything_follows_and_nothing_is_written(self, home, capsys):
        before = contents(home)
        code, text = said(capsys)
        assert code == 0, text
        assert contents(home) == before
        for line in (
            "ok          3 of 3 folds: key follows",
            "ok          3 of 3 folds: every file",
            "ok          3 of 3 folds: scores",
            "ok          1 of 1 variants and seeds have all their folds",
            "ok          5 of 5 figures and tables",  # three of the report, two of the notebooks
            "ok          3 of 3 CSV files",
            "runs/trial: everything follows",
        ):
            assert line in text, text
        assert len(text.splitlines()) < 24  # one screen

    def test_on_the_command_line(self, bare, capsys, monkeypatch):
        def code(*words):
            monkeypatch.setattr("sys.argv", ["serkit", "verify", *words])
            with pytest.raises(SystemExit) as ended:
                cli.main()
            return ended.value.code

        assert code("trial") == 0
        shutil.rmtree(bare / FOLD)
        assert code("trial", "--partial") == 0
        assert code("trial") == 1
        assert code("nothing") == 2
        assert "run 'nothing': no finished fold in runs/nothing" in capsys.readouterr().err

    def test_a_run_without_figures(self, bare, capsys):
        code, text = said(capsys)
        assert code == 0 and "there are none in figures/trial" in text


def flip_a_prediction(home):
    path = home / FOLD / "predictions.parquet"
    table = pd.read_parquet(path, partitioning=None)
    row = table.index[(table["split"] == "test") & (table["truth"] == table["prediction"])][0]
    old = table.loc[row, "prediction"]
    new = "sad" if old != "sad" else "angry"
    high, low = table.loc[row, f"p_{old}"], table.loc[row, f"p_{new}"]
    table.loc[row, ["prediction", f"p_{old}", f"p_{new}"]] = new, low, high
    table.to_parquet(path, index=False)
    write_inventory(home / FOLD)  # somebody knew about the hashes


def flip_a_byte(home):
    path = home / FOLD / "predictions.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit_a_score(home):
    edit(home / FOLD / "metrics.json", lambda record: record.update(ua_pooled=0.99))
    write_inventory(home / FOLD)  # somebody knew about the hashes


def take_anothers_predictions(home):
    shutil.copy(home / FOLD.replace("fold=2", "fold=1") / "predictions.parquet", home / FOLD)
    write_inventory(home / FOLD)


def figure_of_other_predictions(home):
    edit(
        home / FIGURES / "confusion_matrix.json",
        lambda record: record["parameters"].update({DIGEST: "0" * 12}),
    )


def other_numbers_in_a_table(home):
    path = home / FIGURES / "scores_by_variant.csv"
    path.write_text(path.read_text().replace("macro-F1", "F1"))
    digest = sha256_of(path)  # somebody knew about the sidecar
    edit(path.with_suffix(".json"), lambda record: record["sha256"].update({path.name: digest}))


def other_run_changed(home):
    path = next((home / "runs/other").rglob("predictions.parquet"))
    table = pd.read_parquet(path, partitioning=None)
    table[table["split"] == "test"].to_parquet(path, index=False)
    write_inventory(path.parent)


def cut_the_weights(home):
    path = home / FOLD / "model/model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def lose_the_list_of_files(home):
    (home / FOLD / FILES).unlink()


def other_parameters(home):
    edit(home / FOLD / "experiment.json", lambda record: record["parameters"].update(epochs=7))
    write_inventory(home / FOLD)


def other_parameters_and_key(home):
    def change(record):
        record["parameters"]["epochs"] = 7
        record["key"] = key_of(record["parameters"])

    edit(home / FOLD / "experiment.json", change)
    write_inventory(home / FOLD)


def rename_a_fold(home):
    (home / FOLD).rename(home / FOLD.replace("111", "112"))


def model_of_another_fold(home):
    shutil.rmtree(home / FOLD / "model")
    shutil.copytree(home / FOLD.replace("fold=2", "fold=1") / "model", home / FOLD / "model")
    write_inventory(home / FOLD)


def paint_over(home):
    path = home / FIGURES / "confusion_matrix.png"
    path.write_bytes(path.read_bytes() + b"x")


def lose_a_fold(home):
    shutil.rmtree(home / FOLD)


def leave_a_fold_unfinished(home):
    (home / FOLD / "DONE").unlink()
    (home / FOLD / runs.CHECKPOINT).touch()


def lose_the_mark(home):
    (home / FOLD / "DONE").unlink()


def empty_the_history(home):
    (home / FOLD / "history.csv").write_text("")


def lose_predictions(home):
    (home / FOLD / "predictions.parquet").unlink()


def half_a_record(home):
    (home / FOLD / "experiment.json").write_text("{")


def no_list_of_files(home):
    (home / FOLD / FILES).write_text("[]")


def lose_an_origin(home):
    (home / FIGURES / "confusion_matrix.json").unlink()


BROKEN_FOLDS = {
    edit_a_score: [r"metrics\.json: ua_pooled=0\.99, recomputed 0\.\d+"],
    take_anothers_predictions: [r"fold=2/seed=111: predictions\.parquet: rows with fold=1, expected 2"],
    cut_the_weights: [r"fold=2/seed=111: model/model\.safetensors: cut short or edited after the fold was finished"],
    lose_the_list_of_files: [r"fold=2/seed=111: runs/trial/.*/files\.json is missing, copy it again"],
    other_parameters: [r"fold=2/seed=111: experiment\.json: key \w{12}, the parameters in experiment\.json give \w{12}"],
    other_parameters_and_key: [
        r"DONE: key \w{12}, the parameters in experiment\.json give",
        r"model/features\.json: key \w{12}, the parameters in experiment\.json give",
    ],
    rename_a_fold: [
        rf"seed=112: experiment\.json belongs into a folder {VARIANT}/fold=2/seed=111",
        r"rows with seed=111, expected 112",
        rf"{VARIANT}/seed=111: not finished: fold=2;",
    ],
    model_of_another_fold: [r"fold=2/seed=111: model/features\.json: key"],
    lose_a_fold: [rf"{VARIANT}/seed=111: not finished: fold=2; `serkit reproduce`"],
    leave_a_fold_unfinished: [rf"{VARIANT}/seed=111: not finished: fold=2; `serkit reproduce`"],
    lose_the_mark: [r"fold=2/seed=111: DONE: missing; `serkit reproduce` writes it again"],
    empty_the_history: [r"history\.csv can't be read \(cut short or edited after", r"history\.csv: cut short"],
    flip_a_byte: [r"111: predictions\.parquet: cut short", r"predictions\.parquet can't be read \(cut short or edited"],
    lose_predictions: [r"predictions\.parquet is missing"],
    half_a_record: [r"experiment\.json can't be read"],
    no_list_of_files: [r"files\.json can't be read \("],
}  # fmt: skip
BROKEN_FIGURES = {
    flip_a_prediction: [
        r"fold=2/seed=111: metrics\.json: wa_pooled=0\.\d+, recomputed 0\.\d+",
        r"confusion_matrix: out of date: made from other predictions",
        r"scores_by_variant: out of date: made from other predictions",
        r"report\.html: out of date",
    ],
    figure_of_other_predictions: [r"confusion_matrix: out of date: made from other predictions"],
    other_numbers_in_a_table: [r'scores_by_variant\.csv: .*column name="score"\) are different'],
    other_run_changed: [r"paper_comparison\.csv: out of date: the runs beside this one hold other predictions now"],
    paint_over: [r"confusion_matrix: confusion_matrix\.png is missing or was changed after it was made"],
    lose_an_origin: [r"its origin is unknown"],
}  # fmt: skip


@pytest.mark.parametrize("damage", [*BROKEN_FOLDS, *BROKEN_FIGURES], ids=lambda damage: damage.__name__)
def test_what_is_broken_is_named(request, home, capsys, damage):
    if damage in BROKEN_FOLDS:
        request.getfixturevalue("bare")
    damage(home)
    code, text = said(capsys)
    assert code == 1, text
    lines = [line for line in text.splitlines() if line.startswith("    wrong ")]
    for expected in (BROKEN_FOLDS | BROKEN_FIGURES)[damage]:
        assert any(re.search(expected, line) for line in lines), text


def test_a_store_with_one_wrong_byte(bare, tmp_path, capsys):
    (tmp_path / "tones").mkdir()
    _, made = make_tones(tmp_path / "tones")
    store = shutil.copytree(made.folder, runs.processed_folder("demo") / made.folder.name)
    assert said(capsys)[0] == 0
    content = bytearray((store / "mfcc.npy").read_bytes())
    content[-10] ^= 1
    (store / "mfcc.npy").write_bytes(content)
    code, text = said(capsys)
    assert code == 1 and "mfcc.npy: damaged or missing (checksum mismatch); delete its folder" in text


def test_a_fold_with_two_faults_is_one_fold(bare, capsys):
    other_parameters(bare)
    model_of_another_fold(bare)
    code, text = said(capsys)
    assert code == 1 and "wrong       2 of 3 folds: key follows" in text


class TestOtherVersion:
    """A parameter more or less than this version of serkit has."""

    CHANGES = {  # noqa: RUF012
        "dropblock": lambda parameters: parameters.update(dropblock=0.1),
        "class_weights": lambda parameters: parameters.pop("class_weights"),
    }

    @pytest.fixture(params=CHANGES)
    def name(self, bare, request):
        def change(record):
            self.CHANGES[request.param](record["parameters"])
            record["key"] = key_of(record["parameters"])
            record["versions"]["serkit"] = "9.9"

        for folder in runs.finished_folders("trial"):
            edit(folder / "experiment.json", change)
            (folder / "DONE").write_text(json.loads((folder / "experiment.json").read_text())["key"])
            parameters = json.loads((folder / "experiment.json").read_text())["parameters"]
            edit(folder / "model/features.json", lambda record, new=parameters: record.update(experiment=new))
            write_inventory(folder)
        return request.param

    def test_it_is_not_continued(self, name):
        experiment = Experiment(fold="2", epochs=1, batch_size=8)
        with pytest.raises(
            RunError, match=f"fold=2/seed=111 holds a run with {name}=.*, asked for .*; choose"
        ):
            runs.check_folder(experiment.folder("trial"), experiment)

    def test_what_is_unknown_is_neither_verified_nor_reported_and_what_is_missing_has_its_default(
        self, name, capsys
    ):
        code, text = said(capsys)
        other = r"was made by another version of serkit \(9\.9 recorded, [\d.]+ here\): 'dropblock' is not a"
        if name == "class_weights":
            assert code == 0 and runs.shared_parameters("trial")["class_weights"] is False, text
        else:
            assert code == 2 and re.search(other, text), text
            with pytest.raises(RunError, match=other):
                report.write_report("trial")


class TestElsewhere:
    """The run folder alone, in a project without corpus, store or figures."""

    @pytest.fixture
    def moved(self, whole, tmp_path, monkeypatch):
        project = make_project(tmp_path / "user=me" / "project")  # a name that looks like a partition
        shutil.copytree(whole / "runs/trial", project / "runs/trial")
        monkeypatch.chdir(project)
        return project

    def test_it_is_verified_and_reported_there(self, moved, capsys):
        assert said(capsys)[0] == 0
        page = report.write_report("trial")
        assert page == moved / "runs/trial/report.html"
        assert "user" not in runs.load_predictions("trial").columns
        code, text = said(capsys)
        assert code == 0, text
        found = re.search(r"(\d+) of \d+ CSV files", text)
        assert found and int(found[1]) >= 6, text  # two tables, four figures: no manifest, no durations
        assert not (moved / "data").exists()

    def test_no_record_names_the_place_where_it_was_made(self, moved, whole):
        for path, content in contents(moved / "runs").items():
            if path.suffix != ".safetensors" and "tensorboard" not in path.parts:
                assert str(whole.parent).encode() not in content, path

    def test_a_missing_fold_is_known_there_too(self, moved):
        shutil.rmtree(moved / FOLD)
        with pytest.raises(RunError, match="missing folds: 2; found 1, 3"):
            report.write_report("trial")


@contextmanager
def nobody():
    """Without the rights of the superuser, whom no permission stops."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


class TestReadOnly:
    @pytest.fixture
    def locked(self, whole, monkeypatch):
        """A run folder that nobody may write to, where whoever runs the tests can read it."""
        home = Path(tempfile.mkdtemp(prefix="serkit-"))
        home.chmod(0o755)
        shutil.copytree(whole, home / "project")
        for path in [home, *home.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        (home / "project" / "figures" / "trial").chmod(0o777)
        for path in (home / "project" / "figures" / "trial").iterdir():
            path.chmod(0o666)
        monkeypatch.chdir(home / "project")
        yield home / "project"
        for path in [home, *home.rglob("*")]:
            path.chmod(0o755)
        shutil.rmtree(home)

    def test_it_can_be_verified(self, locked, capsys):
        with nobody():
            assert said(capsys)[0] == 0

    def test_its_report_can_not_be_written_in_one_sentence(self, locked, monkeypatch):
        monkeypatch.setattr(report, "run_figures", lambda *_: [])
        with (
            nobody(),
            pytest.raises(RunError, match=r"report\.html: can't write .*Permission denied.*permissions"),
        ):
            report.write_report("trial")

    def test_no_fold_can_be_trained_in_it(self, locked, tmp_path):
        make = tmp_path / "tones"
        make.mkdir()
        tones = make_tones(make)
        with (
            nobody(),
            pytest.raises(RunError, match=r"trial/new: results can't be written .*mend the folder's perm"),
        ):
            train(tones, locked / "runs/trial/new", epochs=1)


class TestByHand:
    def test_inventory(self, home):
        folder = home / FOLD
        assert verify.check_inventory(folder) == []
        (folder / "timing.csv").write_text("x")
        (folder / "model/README.md").unlink()
        edit(folder / FILES, lambda record: record["files"].pop("predictions.parquet"))
        assert verify.check_inventory(folder) == [
            "model/README.md: missing",
            "timing.csv: cut short or edited after the fold was finished, by files.json",
            "predictions.parquet: not listed in files.json",
        ]

    def test_weights_can_be_read_by_whoever_reads_the_rest(self, whole):
        modes = {path.stat().st_mode for path in (whole / FOLD / "model").iterdir()}
        assert len(modes) == 1
