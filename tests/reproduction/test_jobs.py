"""Jobs in processes of their own: side by side, killed, interrupted, and done only once."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import toy_project
from filelock import FileLock
from rich.console import Console

from serkit.errors import ParameterError
from serkit.reproduction import execution, jobs, reproduce
from serkit.reproduction import progress as board
from serkit.reproduction.estimate import Cost
from serkit.reproduction.grid import read_grid
from serkit.reproduction.plan import Step, make_plan

PATIENCE_S = 240  # on a machine that has other things to do


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Its preparation is one notebook only."""
    return toy_project.make_project(tmp_path, monkeypatch, preparation=("01_prepare_corpus",))


def started(project):
    """How often each training was begun."""
    path = project / "started.txt"
    return Counter(path.read_text().splitlines()) if path.exists() else Counter()


def results(project, run="trial"):
    """Bytes of what the trainings wrote."""
    return {
        path.relative_to(project / "runs" / run): path.read_bytes()
        for name in ("metrics.json", "DONE", "experiment.json")
        for path in (project / "runs" / run).rglob(name)
    }


def wait_for(*paths, alive=None):
    """Until files are there and not empty; what should make them must not end before."""
    deadline = time.monotonic() + PATIENCE_S
    while not all(path.exists() and path.stat().st_size for path in paths):
        assert alive is None or alive.poll() is None, "ended too early"
        assert time.monotonic() < deadline, f"no {paths}"
        time.sleep(0.05)


def when(step, action):
    """Do something as soon as a training is in the middle of it."""

    def act():
        wait_for(step.output.parent / "pid")
        action()

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


def kill_kernel(step):
    os.kill(int((step.output.parent / "pid").read_text()), signal.SIGKILL)


class TestThreadsAndGpus:
    def test_one_job_may_use_everything(self):
        assert jobs.job_environments(1) == [{}]

    def test_cores_are_divided(self, monkeypatch):
        monkeypatch.setattr("serkit.features.store.usable_cores", lambda: 8)
        monkeypatch.setattr(jobs, "find_gpus", lambda: [])
        for name in jobs.THREADS:
            monkeypatch.delenv(name, raising=False)
        assert [one["OMP_NUM_THREADS"] for one in jobs.job_environments(3)] == ["2"] * 3
        assert jobs.job_environments(16)[0]["OMP_NUM_THREADS"] == "1"
        assert set(jobs.job_environments(2)[0]) == set(jobs.THREADS)

    def test_who_asked_for_fewer_threads_gets_them(self, monkeypatch):
        monkeypatch.setattr("serkit.features.store.usable_cores", lambda: 8)
        monkeypatch.setattr(jobs, "find_gpus", lambda: [])
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setenv("MKL_NUM_THREADS", "64")
        first = jobs.job_environments(2)[0]
        assert (first["OMP_NUM_THREADS"], first["MKL_NUM_THREADS"]) == ("1", "4")

    def test_gpus_take_turns(self, monkeypatch):
        monkeypatch.setattr(jobs, "find_gpus", lambda: ["3", "5"])
        assert [one["CUDA_VISIBLE_DEVICES"] for one in jobs.job_environments(3)] == ["3", "5", "3"]
        monkeypatch.setattr(jobs, "find_gpus", lambda: ["0"])
        assert "CUDA_VISIBLE_DEVICES" not in jobs.job_environments(2)[0]

    def test_gpus_that_are_hidden_stay_hidden(self, monkeypatch):
        monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
        assert jobs.find_gpus() == ["3", "5"]
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        assert jobs.find_gpus() == ["0", "1"]

    def test_how_many(self, monkeypatch):
        monkeypatch.setattr(jobs, "find_gpus", lambda: ["0", "1", "2"])
        assert (jobs.count_jobs(0), jobs.count_jobs(2)) == (3, 2)
        monkeypatch.setattr(jobs, "find_gpus", lambda: [])
        assert jobs.count_jobs(0) == 1
        for bad in (-1, 257, 1.5, True):
            with pytest.raises(ParameterError, match=re.escape(f"jobs={bad!r}, expected 0")):
                jobs.count_jobs(bad)


class TestSideBySide:
    def test_same_results_in_less_time(self, project, monkeypatch):
        monkeypatch.setattr(jobs, "threads_per_job", lambda n_jobs: 1)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        (project / "sleep").write_text("3")
        seconds, files, changes = [], [], []
        for n_jobs in (1, 3):
            steps = toy_project.training_steps(3)
            began = time.monotonic()
            faults = jobs.run_local(steps, n_jobs, lambda *change: changes.append(change))
            seconds.append(time.monotonic() - began)
            assert faults == {step.title: None for step in steps}
            files.append(results(project))
            (project / "runs").rename(project / f"runs-{n_jobs}")
        assert len(files[0]) == 9 and files[0] == files[1]
        # six seconds less to wait for; what else there is to do takes no longer
        assert seconds[1] < seconds[0] - 2
        titles = [step.title for step in steps]
        assert changes[:6] == [change for title in titles for change in ((title, "running"), (title, "done"))]
        assert changes[6:9] == [(title, "running") for title in titles]
        assert sorted(changes[9:]) == [(title, "done") for title in titles]
        assert set(started(project).values()) == {2}

    def test_a_job_gets_its_environment(self, project):
        (step,) = toy_project.training_steps(1)
        assert jobs.execute(step, {"OMP_NUM_THREADS": "7"}) is None
        assert json.loads((step.output.parent / "metrics.json").read_text())["threads"] == "7"


class TestFailures:
    def test_killed_and_failed_jobs_stop_nothing_and_are_done_by_a_second_call(self, project):
        """One kernel killed, one process killed, one cell that raises, and one that is undisturbed."""
        (project / "sleep").write_text("2")
        (project / "fail").touch()
        steps = toy_project.training_steps(4)
        began, real = {}, jobs.Job

        class Watched(real):
            def __init__(self, step, *given):
                super().__init__(step, *given)
                began[step.title] = self

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jobs, "Job", Watched)
            when(steps[0], lambda: kill_kernel(steps[0]))
            when(steps[2], lambda: began[steps[2].title].kill())
            faults = jobs.run_local(steps, 2)
        kernel, cell, process, undisturbed = (faults[step.title] for step in steps)
        assert re.fullmatch(r"cell 3: DeadKernelError: .*; it was killed, perhaps for want of memory", kernel)
        assert cell == "cell 2: ValueError: out of luck"
        assert re.match(
            r"its process was ended by SIGKILL, perhaps for want of memory; see runs/trial/", process
        )
        assert undisturbed is None
        assert "out of luck" in steps[1].output.read_text()  # the executed notebook is kept
        assert "ValueError" in steps[1].log.read_text() or steps[1].log.stat().st_size
        before = results(project)
        (project / "fail").unlink()
        (project / "sleep").unlink()
        outcome = reproduce.run_plan(
            make_plan("trial", corpus="demo", fold_names=["1", "2", "3", "4"]), "trial", 2
        )
        assert [title for title in outcome["skipped"] if title.startswith("05")] == [steps[3].title]
        assert {step.title for step in steps[:3]} < set(outcome["done"]) and not outcome["failed"]
        assert started(project) == {f"corrected {k} 111": 2 for k in (1, 2, 3)} | {"corrected 4 111": 1}
        after = results(project)
        assert len(after) == 12 and all(after[path] == content for path, content in before.items())

    def test_a_folder_that_can_not_be_made(self, project):
        steps = toy_project.training_steps(2)
        blocked = steps[0].output.parents[1]
        blocked.parent.mkdir(parents=True)
        blocked.touch()
        faults = jobs.run_local(steps, 1)
        assert re.match(r"(FileExists|NotADirectory)Error: .*fold=1", faults[steps[0].title])
        assert faults[steps[1].title] is None

    def test_a_process_that_never_answers(self, project, monkeypatch):
        monkeypatch.setattr(jobs.sys, "executable", "/bin/false")
        (step,) = toy_project.training_steps(1)
        assert jobs.execute(step) == "its process ended with exit code 1: nothing was said"

    def test_nobody_works_on_the_same_results(self, project, monkeypatch):
        monkeypatch.setattr(execution, "WAIT_S", 0.1)
        (step,) = toy_project.training_steps(1)
        step.output.parent.mkdir(parents=True)
        job = {"output": str(step.output), "log": str(step.log), "notebook": "", "parameters": {}, "home": ""}
        with FileLock(step.output.with_suffix(".lock")):
            fault = execution.run_notebook(job, execution.Stop())
        assert fault == (
            "RuntimeError: another process has been working on it for 0.1 s; wait for it, or end it"
        )


class TestInterrupted:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_running_jobs_save_and_waiting_ones_do_not_start(self, project, number):
        (project / "sleep").write_text("1000")
        steps = toy_project.training_steps(3)
        before = signal.getsignal(number)

        def stop():
            wait_for(*(step.output.parent / "pid" for step in steps[:2]))
            os.kill(os.getpid(), number)

        threading.Thread(target=stop, daemon=True).start()
        faults = jobs.run_local(steps, 2)
        assert signal.getsignal(number) == before
        assert list(faults) == [step.title for step in steps[:2]] or set(faults) == {
            s.title for s in steps[:2]
        }
        for step in steps[:2]:
            assert faults[step.title].startswith("interrupted: cell 3: KeyboardInterrupt")
            assert (step.output.parent / "saved").exists() and not (step.output.parent / "DONE").exists()

    def test_the_summary_and_the_exit_code(self, project, monkeypatch, capsys):
        (project / "sleep").write_text("1000")
        steps = toy_project.training_steps(2)
        when(steps[0], lambda: os.kill(os.getpid(), signal.SIGINT))
        code = reproduce.reproduce("trial", corpus="demo", fold_names=["1", "2"])
        assert code == 130
        text = capsys.readouterr().out
        assert "1 done, 0 done before, 0 failed, 1 interrupted, 3 not started in" in text
        assert f"interrupted: {steps[0].title}: cell 3: KeyboardInterrupt" in text
        assert text.endswith("interrupted; call again to continue\n")

    def test_a_driver_that_is_killed_takes_its_jobs_with_it(self, project):
        """Nothing is left that could train beside a second call."""
        (project / "sleep").write_text("1000")
        (step,) = toy_project.training_steps(1)
        program = (
            "import sys, pathlib; from serkit.reproduction import jobs, plan\n"
            f"step = plan.Step({step.notebook!r}, {step.parameters!r}, pathlib.Path({str(step.output)!r}))\n"
            "jobs.run_local([step], 1)"
        )
        driver = subprocess.Popen([sys.executable, "-c", program], cwd=project)
        wait_for(step.output.parent / "pid", alive=driver)
        driver.kill()
        driver.wait()
        deadline = time.monotonic() + PATIENCE_S
        while not (step.output.parent / "saved").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with FileLock(step.output.with_suffix(".lock"), timeout=PATIENCE_S):  # the process ends
            pass


class TestStop:
    def test_between_two_cells(self):
        stop = execution.Stop()
        stop.enter(cell=None, cell_index=3)
        stop.ask()
        with pytest.raises(RuntimeError, match="interrupted"):
            stop.enter(cell=None, cell_index=4)

    def test_an_interrupt_is_sent_once_then_seconded(self, monkeypatch):
        sent = []
        monkeypatch.setattr(execution.os, "killpg", lambda group, number: sent.append((group, number)))
        stop = execution.Stop()
        stop.attach(type("Manager", (), {"provisioner": type("Provisioner", (), {"pgid": 42})}))
        stop.pass_on()
        assert sent == []
        stop.ask()
        stop.pass_on()
        stop.pass_on()
        assert sent == [(42, signal.SIGINT)]
        monkeypatch.setattr(execution, "PATIENCE_S", -1)
        stop.ask()
        stop.pass_on()
        assert sent[1:] == [(42, signal.SIGTERM)]

    def test_before_there_is_a_kernel(self):
        stop = execution.Stop()
        stop.ask()
        stop.pass_on()  # nobody to tell, and no error


class TestBoard:
    @pytest.fixture
    def now(self):
        return [0.0]

    def make(self, now, n_jobs=1, skipped=(), **console):
        names = [
            ("01_prepare_corpus", 60.0),
            ("05_train_coattention", 600.0),
            ("05_train_coattention", 600.0),
        ]
        steps = [
            Step(name, {}, Path(f"{k}.ipynb"), cost=Cost(seconds), label=str(k), home=Path())
            for k, (name, seconds) in enumerate(names)
        ]
        console = Console(file=io.StringIO(), width=100, **console)
        shown = board.Board(steps, skipped, n_jobs, console, clock=lambda: now[0])
        return shown, [step.title for step in steps]

    def text(self, shown):
        console = Console(file=io.StringIO(), width=100)
        console.print(shown.table())
        return console.file.getvalue()

    def test_by_hand(self, now):
        shown, (first, second, third) = self.make(now, n_jobs=2)
        assert shown.seconds_left() == 60 + 1200 / 2
        shown.change(first, "running")
        now[0] = 30.0
        assert shown.seconds_left() == 30 + 600
        shown.change(first, "done")
        shown.change(second, "running")
        shown.change(third, "running")
        now[0] = 330.0
        # both have five minutes left, side by side
        assert shown.seconds_left() == 300
        assert "1 done, 0 done before" in self.text(shown) and "5.0 min left" in self.text(shown)
        assert re.search(rf"{second} +5.0 min", self.text(shown))
        shown.change(second, "done")
        # the second took half of its estimate: the third, as old as it, should be ready too
        assert shown.seconds_left() == 0
        shown.change(third, "failed: cell 3: ValueError: [red]bad[/red]")
        assert "0 running, 2 done, 0 done before, 1 failed, 0 interrupted, 0 remaining" in self.text(shown)
        lines = shown.console.file.getvalue().splitlines()
        assert (
            lines[-1]
            == f"[ 3/3] {third}: FAILED: cell 3: ValueError: [red]bad[/red] in 300 s, at most 0.0 min left"
        )
        assert "running, log in 0.log" in lines[0] and "done in 30 s" in lines[1]

    def test_lost_and_run_again(self, now):
        shown, (_, second, _) = self.make(now)
        shown.change(second, "running")
        shown.change(second, "remaining")
        assert shown.count("remaining") == 3 and "lost, to be run again" in shown.console.file.getvalue()

    def test_lines_only_in_a_file(self, now):
        shown, (first, _, _) = self.make(now, skipped=["01_prepare_corpus  0"])
        with shown:
            pass
        assert shown.console.file.getvalue() == f"[ 1/3] {first}: done before\n"

    def test_a_table_on_a_terminal(self, now):
        shown, (first, _, _) = self.make(now, force_terminal=True)
        with shown:
            shown.change(first, "running")
        assert "1 running, 0 done" in shown.console.file.getvalue()


class TestWhole:
    def test_a_grid_then_the_same_again(self, project, capsys):
        """2 variants x 2 folds x 1 seed: each training once, one confusion matrix for each variant."""
        text = "[common]\nfolds = [1, 2]\n[[variant]]\nname = 'new'\n[[variant]]\nname = 'old'\nrecipe = 'published'"
        (project / "small.toml").write_text(text)
        grid = read_grid(project / "small.toml")
        (project / "fail").touch()
        assert reproduce.reproduce("trial", grid=grid, corpus="demo", jobs=2) == 1
        text = capsys.readouterr().out
        assert "6 done, 0 done before, 2 failed in" in text and "all of it on one page" not in text
        assert "failed: 05_train_coattention  old fold=2 seed=111: cell 2: ValueError: out of luck" in text
        (project / "fail").unlink()
        assert reproduce.reproduce("trial", grid=grid, corpus="demo", jobs=2) == 0
        # both failed folds, and what puts folds together, because there is a fold more
        text = capsys.readouterr().out
        assert "5 done, 3 done before, 0 failed in" in text
        # toys predict nothing; where everything lies is said all the same
        assert re.search(r"no scores yet: \S+/predictions.parquet is missing", text)
        assert text.endswith("all of it on one page: serkit report trial\n")
        assert reproduce.reproduce("trial", grid=grid, corpus="demo", jobs=2) == 0
        assert "0 done, 8 done before, 0 failed in" in capsys.readouterr().out
        assert sorted(started(project).values()) == [1, 1, 2, 2]
        notebooks = {path.name for path in (project / "runs/trial/notebooks").glob("06*.ipynb")}
        assert notebooks == {
            "06_confusion_matrix_corrected_clean_session_demo.ipynb",
            "06_confusion_matrix_published_clean_session_demo.ipynb",
        }
        assert read_grid(project / "runs/trial/grid.toml").variants == grid.variants
        assert not (project / "runs/trial/holder.json").exists()
