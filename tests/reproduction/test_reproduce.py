"""Planning and running the batch: what is skipped, what goes on, what survives a kill."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from command_line import exit_code

from serkit import cli, corpora, runs
from serkit.errors import ParameterError, RunError
from serkit.reproduction import estimate, plan, report, reproduce

HOME = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch, demo_corpus):
    """A project of its own: the real notebooks, no runs, no data."""
    shutil.copytree(
        HOME / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints")
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def toy(project, monkeypatch):
    """The same with notebooks of three lines, that run in a second; nothing is measured for them."""
    monkeypatch.setattr(estimate, "measure", lambda *given: None)

    def write(name, parameters, body):
        cells = [
            nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(body),
        ]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(
            nbformat.v4.new_notebook(cells=cells, metadata=kernel), project / "notebooks" / f"{name}.ipynb"
        )

    common = "run = ''\ncorpus = ''\nroot = ''\nrecipe = ''\n"
    protocol = "by = ''\nselection = ''\n"
    write(
        "01_prepare_corpus",
        common + protocol + "iemocap_check = ''\nskip_broken = False\n",
        "print('prepared')",
    )
    for name in ("02_mfcc", "03_spectrogram", "04_wav2vec2"):
        write(name, common + "profile = ''\n", f"print('{name}')")
    settings = "name_variant = False\nsettings = {}\nfold = ''\nseed = 0\nprofile = ''\nepochs = 0\nbatch_size = 0\nlearning_rate = 0.0\nprecision = ''\n"
    body = (
        "import json, pathlib\n"
        "from serkit.experiment import Experiment\n"
        "e = Experiment(corpus=corpus, recipe=recipe, selection=selection, by=by, fold=fold, seed=seed,\n"
        "               profile=profile, epochs=epochs)\n"
        "f = e.folder(run)\n"
        "if pathlib.Path('fail').exists() and fold == '2':\n"
        "    raise ValueError('out of luck')\n"
        "(f / 'experiment.json').write_text(json.dumps({'key': e.key}))\n"
        "(f / 'DONE').write_text(e.key)\n"
    )
    write("05_train_coattention", common + protocol + settings, body)
    write("06_confusion_matrix", "run = ''\nvariant = ''\npartial = False\n", "print('analysed')")
    write("07_ablations", "run = ''\n", "print('compared')")
    return project


def make_plan(root, **changes):
    settings = {"corpus": "demo", "root": str(root), "fold_names": ["1", "2"], "profile": "demo", "epochs": 1}
    return plan.make_plan("trial", corpora.load("demo", root), **(settings | changes))


class TestPlan:
    def test_order_and_parameters(self, project, demo_corpus):
        steps = make_plan(demo_corpus, seeds=(111, 211))
        assert [step.notebook[:2] for step in steps] == ["01", "02", "03", "04", *["05"] * 4, "06", "07"]
        training = [(s.parameters["fold"], s.parameters["seed"]) for s in steps if s.experiment]
        assert training == [("1", 111), ("2", 111), ("1", 211), ("2", 211)]
        assert steps[4].output == (
            project / "runs/trial/corrected_clean_session_demo/fold=1/seed=111/05_train_coattention.ipynb"
        )

    def test_only_the_preparation_skips_broken_files(self, project, demo_corpus):
        steps = make_plan(demo_corpus, skip_broken=True)
        assert steps[0].parameters["skip_broken"] is True
        assert not any("skip_broken" in step.parameters for step in steps[1:])

    def test_no_names_mean_all_folds(self, project, demo_corpus):
        assert sum(s.experiment is not None for s in make_plan(demo_corpus, fold_names=())) == 5

    def test_the_notebooks_have_every_parameter_that_is_passed(self, project, demo_corpus):
        for step in make_plan(demo_corpus):
            step.check()

    def test_notebook_04_describes_the_encoder_that_is_trained(self, project, demo_corpus):
        steps = make_plan(demo_corpus, speech_encoder="a/b")
        assert [step.parameters.get("speech_encoder") for step in steps[:4]] == [None] * 3 + ["a/b"]
        assert steps[4].experiment.speech_encoder == "a/b"
        for step in steps:
            step.check()
        variants = [("no speech", {"views": "mfcc"}), ("speech", {"speech_encoder": "c/d"})]
        assert make_plan(demo_corpus, variants=variants)[3].parameters["speech_encoder"] == "c/d"
        assert "speech_encoder" not in make_plan(demo_corpus)[3].parameters

    def test_notebooks_03_and_04_begin_with_the_alexnet_that_is_trained(self, project, demo_corpus):
        steps = make_plan(demo_corpus, profile="paper", cnn_weights="random", speech_encoder="random")
        assert [step.parameters.get("cnn_weights") for step in steps[:4]] == [None, None, "random", "random"]

    def test_unknown_parameter_is_refused_before_anything_runs(self, toy, demo_corpus):
        steps = make_plan(demo_corpus)
        steps[3].parameters["spede"] = 1
        with pytest.raises(
            ParameterError, match="04_wav2vec2: 'spede' is not a setting, expected one of run,"
        ):
            reproduce.run_plan(steps, "trial")
        assert not (toy / "runs").exists()

    def test_a_fold_that_is_not_there(self, project, demo_corpus):
        with pytest.raises(ParameterError, match="fold=7, expected one of 1, 2, 3, 4, 5"):
            make_plan(demo_corpus, fold_names=["7"])

    def test_outside_a_project(self, tmp_path, monkeypatch, demo_corpus):
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        with pytest.raises(RunError, match="start serkit inside the project"):
            reproduce.run_plan(make_plan(demo_corpus), "trial")


class TestRun:
    def test_second_call_leaves_finished_folds_alone(self, toy, demo_corpus, monkeypatch):
        monkeypatch.setattr(plan, "PREPARATION", plan.PREPARATION[:1])
        first = reproduce.run_plan(make_plan(demo_corpus, fold_names=["1"]), "trial")
        assert len(first["done"]) == 4 and not first["failed"]
        before = {path: path.read_bytes() for path in (toy / "runs").rglob("fold=1/seed=111/*")}
        second = reproduce.run_plan(make_plan(demo_corpus, fold_names=["1"]), "trial")
        # the toy preparation leaves no manifest, so that 01 is not done
        assert second["done before"] == [
            "05_train_coattention  fold=1 seed=111",
            plan.ANALYSIS,
            plan.ABLATIONS,
        ]
        assert before and all(path.read_bytes() == content for path, content in before.items())
        assert "prepared" in (toy / "runs/trial/notebooks/01_prepare_corpus.log").read_text()

    def test_other_parameters_under_the_same_name_are_refused_before_anything_runs(self, toy, demo_corpus):
        step = make_plan(demo_corpus)[4]
        step.output.parent.mkdir(parents=True)
        runs.write_json(step.output.parent / "experiment.json", {"key": "x", "parameters": {"epochs": 7}})
        with pytest.raises(RunError, match=r"fold=1/seed=111 holds a run with .*choose another run name"):
            reproduce.run_plan(make_plan(demo_corpus), "trial")
        assert not (toy / "runs/trial/notebooks").exists()

    def test_two_at_a_time_are_refused(self, toy, demo_corpus):
        steps = make_plan(demo_corpus)
        message = "runs/trial is in use by another `serkit reproduce`; wait for it, or end it"
        with reproduce.only_one("trial"), pytest.raises(RunError, match=message):
            reproduce.run_plan(steps, "trial")


@pytest.fixture
def serkit(toy, capsys):
    """The command line in this process: exit code, and what it prints."""
    before = signal.getsignal(signal.SIGTERM)
    yield lambda *words: (exit_code(*words), *capsys.readouterr())
    signal.signal(signal.SIGTERM, before)


class TestCommandLine:
    def test_dry_run_runs_nothing(self, serkit, toy, demo_corpus):
        code, out, _ = serkit("reproduce", "--root", str(demo_corpus), "--folds", "1", "--dry-run")
        assert code == 0 and "05_train_coattention  fold=1 seed=111" in out
        assert not (toy / "runs").exists()

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--corpus", "iemocap", "--root", "nowhere"], r"nowhere"),
            (["--folds", "9"], "fold=9, expected one of 1, 2, 3, 4, 5"),
            (["--seeds", "a"], "'a'"),
            (["--recipe", "perfect"], "recipe='perfect', expected published or corrected"),
        ],
    )
    def test_a_mistake_gets_one_message(self, serkit, demo_corpus, words, message):
        root = [] if "--root" in words else ["--root", str(demo_corpus)]
        code, _, err = serkit("reproduce", *root, *words)
        assert code == 2 and message in err and err.count("\n") == 1

    def test_doctor_names_every_gap(self, serkit):
        code, out, _ = serkit("doctor")
        assert code == 0 and "see data/README.md" in out
        for subject in ("torch", "device", "corpus iemocap", "speech encoder", "AlexNet weights", "disk"):
            assert subject in out

    def test_report_without_a_run(self, serkit):
        code, _, err = serkit("report", "nothing")
        assert code == 2 and "no finished fold" in err


@pytest.mark.notebooks
def test_killed_in_mid_training_goes_on_where_it_was(project, demo_corpus, capsys, monkeypatch):
    """The real notebooks: SIGKILL in the second fold, then the same command again."""
    command = [sys.executable, "-m", "serkit.cli", "reproduce", "--root", str(demo_corpus), "--run", "trial"]
    command += ["--folds", "1,2", "--epochs", "2", "--views", "mfcc"]
    base = project / "runs/trial/corrected_clean_session_demo_mfcc"
    driver = subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, start_new_session=True)
    wait_for(base / "fold=2/seed=111/checkpoint.pt", driver)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    first = {p: p.read_bytes() for p in (base / "fold=1").rglob("*") if p.is_file()}
    assert (base / "fold=1/seed=111/DONE").exists() and not (base / "fold=2/seed=111/DONE").exists()
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    skipped = [line for line in done.stdout.splitlines() if line.endswith(": done before")]
    assert len(skipped) == 5  # 01 to 04 and fold 1
    scores = {}
    for name in ("wa", "ua"):
        (scores[name],) = re.findall(
            rf"session_demo_mfcc \| {name.upper()} +\|.*? (\d+\.\d)[ |]", done.stdout
        )
    folds = [json.loads((base / f"fold={k}/seed=111/metrics.json").read_text()) for k in (1, 2)]
    for name, printed in scores.items():
        assert float(printed) == pytest.approx(50 * sum(one[f"{name}_fold_mean"] for one in folds), abs=0.06)
    assert "scores are of folds 1, 2 only; missing: 3, 4, 5." in done.stdout
    assert "can't speak about the paper" in done.stdout
    assert "resumed after epoch" in (base / "fold=2/seed=111/05_train_coattention.log").read_text()
    assert {path: path.read_bytes() for path in first} == first
    for stem in ("confusion_matrix", "recall", "speaker_scores"):
        for suffix in ("png", "pdf", "svg", "csv", "json"):
            assert (project / "figures/trial" / f"{stem}.{suffix}").stat().st_size > 50
    matrix = (project / "figures/trial/confusion_matrix.csv").read_text()
    assert sum(int(n) for line in matrix.splitlines()[1:] for n in line.split(",")[1:]) == 176
    monkeypatch.setattr(report, "run_figures", lambda *_: [])  # drawn in test_verify
    assert cli.run(["report", "trial", "--partial"]) == 0
    assert "can't speak about the paper" in capsys.readouterr().out
    page = (project / "runs/trial/report.html").read_text()
    assert "scores are of folds 1, 2 only" in page
    assert json.loads((base / "fold=2/seed=111/metrics.json").read_text())["n_utterances"] == 88


def wait_for(path, driver, timeout_s=480):
    """Until a file is there; a driver that ends before is a failure."""
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        assert driver.poll() is None, f"ended before {path.name} was there"
        assert time.monotonic() < deadline, f"no {path.name} after {timeout_s} s"
        time.sleep(0.1)


def test_project_home_of_the_notebooks(project):
    assert runs.project_home() == project
