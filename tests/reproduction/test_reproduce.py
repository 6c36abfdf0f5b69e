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
import tyro

from serkit import cli, runs
from serkit.errors import FoldError, ParameterError, RunError
from serkit.reproduction import estimate, jobs, plan, reproduce
from serkit.reproduction import lock as holder

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
    monkeypatch.setattr(estimate, "measure", lambda *given, **options: estimate.Measured(runs.Experiment()))

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
    settings = (
        "name_variant = False\nfold = ''\nseed = 0\nprofile = 'demo'\nepochs = None\nbatch_size = None\n"
    )
    body = (
        "import json, pathlib\n"
        "from serkit.runs import Experiment\n"
        "e = Experiment(corpus=corpus, recipe=recipe, selection=selection, by=by, fold=fold, seed=seed,\n"
        "               profile=profile, epochs=epochs)\n"
        "f = e.folder(run)\n"
        "if pathlib.Path('fail').exists() and fold == '2':\n"
        "    raise ValueError('out of luck')\n"
        "(f / 'experiment.json').write_text(json.dumps({'key': e.key}))\n"
        "(f / 'DONE').write_text(e.key)\n"
    )
    write("05_train_coattention", common + protocol + settings, body)
    write("06_confusion_matrix", common + "variant = ''\nname_variant = False\n", "print('analysed')")
    write("07_ablations", "run = ''\ncorpus = ''\nroot = ''\n", "print('compared')")
    return project


def make_plan(root, **changes):
    settings = {"corpus": "demo", "root": str(root), "fold_names": ["1", "2"], "profile": "demo", "epochs": 1}
    return plan.make_plan("trial", **(settings | changes))


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

    def test_every_step_has_an_estimate_that_grows_with_the_epochs(self, project, demo_corpus, monkeypatch):
        measured = estimate.Measured(runs.Experiment(), step_s=0.01)
        monkeypatch.setattr(estimate, "measure", lambda *given, **options: measured)
        one, ten = make_plan(demo_corpus, epochs=1)[4], make_plan(demo_corpus, epochs=10)[4]
        assert ten.estimate_s - estimate.NOTEBOOK_S == pytest.approx(
            10 * (one.estimate_s - estimate.NOTEBOOK_S)
        )

    def test_the_notebooks_have_every_parameter_that_is_passed(self, project, demo_corpus):
        for step in make_plan(demo_corpus):
            plan.check_step(step)

    def test_unknown_parameter_is_refused_before_anything_runs(self, toy, demo_corpus):
        steps = make_plan(demo_corpus)
        steps[3].parameters["spede"] = 1
        with pytest.raises(
            ParameterError, match="04_wav2vec2 has no parameter 'spede', expected one of run,"
        ):
            reproduce.run_plan(steps, "trial")
        assert not (toy / "runs").exists()

    def test_a_fold_that_is_not_there(self, project, demo_corpus):
        with pytest.raises(ParameterError, match="fold='7', expected one of 1, 2, 3, 4, 5"):
            make_plan(demo_corpus, fold_names=["7"])

    def test_outside_a_project(self, tmp_path, monkeypatch, demo_corpus):
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        with pytest.raises(RunError, match="start serkit inside the project folder"):
            reproduce.run_plan(make_plan(demo_corpus), "trial")


class TestRun:
    def test_second_call_skips_everything(self, toy, demo_corpus, capsys):
        first = reproduce.run_plan(make_plan(demo_corpus), "trial")
        assert len(first["done"]) == 8 and not first["failed"]
        bytes_before = {p: p.read_bytes() for p in (toy / "runs").rglob("*") if p.is_file()}
        second = reproduce.run_plan(make_plan(demo_corpus), "trial")
        # the toy preparation leaves no manifest, so that 01 to 04 are not done: the folds are
        assert [title for title in second["skipped"] if title.startswith("05")] == [
            "05_train_coattention  fold=1 seed=111", "05_train_coattention  fold=2 seed=111",
        ]  # fmt: skip
        folds = {p: b for p, b in bytes_before.items() if "fold=" in str(p)}
        assert folds and all(p.read_bytes() == content for p, content in folds.items())

    def test_a_failed_fold_stops_nothing_and_is_named(self, toy, demo_corpus, capsys):
        (toy / "fail").touch()
        outcome = reproduce.run_plan(make_plan(demo_corpus, fold_names=["1", "2", "3"]), "trial")
        assert outcome["failed"] == ["05_train_coattention  fold=2 seed=111"]
        assert "06_confusion_matrix" in outcome["done"]
        printed = capsys.readouterr().out
        assert re.search(r"fold=2 seed=111: FAILED: cell \d: ValueError: out of luck", printed)
        failed = toy / "runs/trial/corrected_clean_session_demo/fold=2/seed=111/05_train_coattention.ipynb"
        assert "out of luck" in failed.read_text()  # the executed notebook is kept
        (toy / "fail").unlink()
        again = reproduce.run_plan(make_plan(demo_corpus, fold_names=["1", "2", "3"]), "trial")
        assert "05_train_coattention  fold=2 seed=111" in again["done"]
        assert "05_train_coattention  fold=1 seed=111" in again["skipped"]

    def test_what_a_notebook_prints_can_be_followed(self, toy, demo_corpus):
        steps = make_plan(demo_corpus)
        assert jobs.execute(steps[0]) is None
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
        who = f"process {os.getpid()} of .* on host .* since [0-2][0-9]:[0-5][0-9]; wait for it, or end it"
        with holder.only_one("trial"), pytest.raises(RunError, match=f"runs/trial is in use by .*{who}"):
            reproduce.run_plan(steps, "trial")


def serkit(*words, cwd, **settings):
    return subprocess.run(
        [sys.executable, "-m", "serkit.cli", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        **settings,
    )


class TestCommandLine:
    def test_failure_shows_in_the_exit_code(self, toy, demo_corpus):
        (toy / "fail").touch()
        done = serkit("reproduce", "--root", str(demo_corpus), "--folds", "1,2", "--epochs", "1", cwd=toy)
        assert done.returncode == 1, done.stderr
        assert "estimate for everything" in done.stdout and "1 failed" in done.stdout

    def test_dry_run_runs_nothing(self, toy, demo_corpus):
        done = serkit("reproduce", "--root", str(demo_corpus), "--folds", "1", "--dry-run", cwd=toy)
        assert done.returncode == 0 and "05_train_coattention  fold=1 seed=111" in done.stdout
        assert not (toy / "runs").exists()

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--corpus", "iemocap", "--root", "nowhere"], r"nowhere"),
            (["--folds", "9"], "fold='9', expected one of 1, 2, 3, 4, 5"),
            (["--seeds", "a"], "seed='a', expected a whole number from 0 to"),
            (["--recipe", "perfect"], "recipe='perfect', expected published or corrected"),
        ],
    )
    def test_a_mistake_gets_one_message_and_no_traceback(self, toy, demo_corpus, words, message):
        root = [] if "--root" in words else ["--root", str(demo_corpus)]
        done = serkit("reproduce", *root, *words, cwd=toy)
        assert done.returncode == 2
        assert message in done.stderr and "Traceback" not in done.stderr

    def test_doctor_names_every_gap(self, toy):
        done = serkit("doctor", cwd=toy)
        assert done.returncode == 0
        for subject in ("torch", "device", "corpus iemocap", "speech encoder", "AlexNet weights", "disk"):
            assert subject in done.stdout
        assert "see data/README.md" in done.stdout

    def test_report_without_a_run(self, toy):
        done = serkit("report", "--run", "nothing", cwd=toy)
        assert done.returncode == 2 and "no finished fold" in done.stderr


@pytest.mark.notebooks
def test_killed_in_mid_training_goes_on_where_it_was(project, demo_corpus, capsys):
    """The real notebooks: SIGKILL in the second fold, then the same command again."""
    command = [sys.executable, "-m", "serkit.cli", "reproduce", "--root", str(demo_corpus), "--run", "trial"]
    command += ["--folds", "1,2", "--epochs", "2"]
    base = project / "runs/trial/corrected_clean_session_demo"
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
        (scores[name],) = re.findall(rf"session_demo +{name.upper()} +(\d+\.\d)", done.stdout)
    folds = [json.loads((base / f"fold={k}/seed=111/metrics.json").read_text()) for k in (1, 2)]
    for name, printed in scores.items():
        assert float(printed) == pytest.approx(50 * sum(one[f"{name}_fold_mean"] for one in folds), abs=0.06)
    assert "scores are of folds 1, 2 only; missing: 3, 4, 5." in done.stdout
    assert "resumed after epoch" in (base / "fold=2/seed=111/05_train_coattention.log").read_text()
    assert {p: p.read_bytes() for p in (base / "fold=1").rglob("*") if p.is_file()} == first
    for stem in ("confusion_matrix", "recall", "speaker_scores"):
        for suffix in ("png", "pdf", "svg", "csv", "json"):
            assert (project / "figures/trial" / f"{stem}.{suffix}").stat().st_size > 50
    matrix = (project / "figures/trial/confusion_matrix.csv").read_text()
    assert sum(int(n) for line in matrix.splitlines()[1:] for n in line.split(",")[1:]) == 160
    command = tyro.cli(cli.Command, args=["report", "--run", "trial", "--partial"])
    assert command() == 0
    assert "can't speak about the paper" in capsys.readouterr().out
    page = (project / "runs/trial/report.html").read_text()
    assert "scores are of folds 1, 2 only" in page
    assert json.loads((base / "fold=2/seed=111/metrics.json").read_text())["n_utterances"] == 80


def wait_for(path, driver, timeout_s=480):
    """Until a file is there; a driver that ends before is a failure."""
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        assert driver.poll() is None, f"ended before {path.name} was there"
        assert time.monotonic() < deadline, f"no {path.name} after {timeout_s} s"
        time.sleep(0.1)


def test_folds_that_leak_are_refused_in_a_run(project):
    """The guard that every prediction table passes when it is scored."""
    import pandas as pd

    from serkit.metrics import pooled_and_fold_mean

    table = pd.DataFrame({
        "utterance_id": ["a", "b"], "speaker": ["1F", "1F"], "session": ["1", "1"], "truth": ["sad", "sad"],
        "prediction": ["sad", "sad"], "fold": "1", "seed": 1, "variant": "v", "split": ["train", "test"],
        **{f"p_{label}": 0.25 for label in ("angry", "sad", "happy", "neutral")},
    })  # fmt: skip
    with pytest.raises(FoldError, match="1F"):
        pooled_and_fold_mean(table)


def test_project_home_of_the_notebooks(project):
    assert runs.project_home() == project
