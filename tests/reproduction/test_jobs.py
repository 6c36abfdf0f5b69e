"""Jobs in processes of their own: side by side, killed, interrupted, and done only once."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
import toy_project

from serkit.errors import ParameterError
from serkit.reproduction import jobs, reproduce
from serkit.reproduction.plan import read_grid

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


def wait_until(condition, alive=None):
    """Until something is true; what should make it true must not end before."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert alive is None or alive.poll() is None, "ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def kernel_of(step):
    """Process of the kernel that is in the middle of a training; 0 if there is none."""
    path = step.output.parent / "pid"
    return int(path.read_text() or 0) if path.exists() else 0


def when(steps, action):
    """Do something as soon as trainings are in the middle of it."""

    def act():
        wait_until(lambda: all(kernel_of(step) for step in steps))
        action()

    threading.Thread(target=act, daemon=True).start()


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().split()[2] != "Z"


class TestThreadsAndGpus:
    @pytest.fixture(autouse=True)
    def eight_cores(self, monkeypatch):
        monkeypatch.setattr("serkit.features.store.usable_cores", lambda: 8)
        monkeypatch.setattr(jobs, "find_gpus", lambda: [])
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def test_one_job_may_use_everything(self):
        assert jobs.job_environments(1) == [{}]

    def test_cores_are_divided(self):
        assert jobs.job_environments(3) == [{"OMP_NUM_THREADS": "2"}] * 3
        assert jobs.job_environments(16)[0] == {"OMP_NUM_THREADS": "1"}

    @pytest.mark.parametrize(("asked", "given"), [("1", "1"), ("64", "4"), ("0", "4"), ("many", "4")])
    def test_who_asked_for_fewer_threads_gets_them(self, monkeypatch, asked, given):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert jobs.job_environments(2)[0] == {"OMP_NUM_THREADS": given}

    def test_gpus_take_turns(self, monkeypatch):
        monkeypatch.setattr(jobs, "find_gpus", lambda: ["3", "5"])
        assert [given["CUDA_VISIBLE_DEVICES"] for given in jobs.job_environments(3)] == ["3", "5", "3"]
        monkeypatch.setattr(jobs, "find_gpus", lambda: ["0"])
        assert "CUDA_VISIBLE_DEVICES" not in jobs.job_environments(2)[0]

    def test_how_many(self, monkeypatch):
        assert (jobs.count_jobs(0), jobs.count_jobs(2)) == (1, 2)
        monkeypatch.setattr(jobs, "find_gpus", lambda: ["0", "1", "2"])
        assert jobs.count_jobs(0) == 3
        for bad in (-1, 257, 1.5, True):
            with pytest.raises(
                ParameterError, match=re.escape(f"jobs={bad!r}, expected a whole number from 0 to 256")
            ):
                jobs.count_jobs(bad)


def test_gpus_that_are_hidden_stay_hidden(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert jobs.find_gpus() == ["3", "5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert jobs.find_gpus() == ["0", "1"]


def test_side_by_side_gives_the_same_results(project, monkeypatch):
    """Two that take three seconds each, one after the other and both at once."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (project / "sleep").write_text("3")
    files, changes = [], []
    for n_jobs in (1, 2):
        steps = toy_project.training_steps(2)
        jobs.run_local(steps, n_jobs, lambda *change: changes.append(change))
        files.append(results(project))
        (project / "runs").rename(project / f"runs-{n_jobs}")
    assert len(files[0]) == 6 and files[0] == files[1]
    titles = [step.title for step in steps]
    assert changes[:4] == [change for title in titles for change in ((title, "running"), (title, "done"))]
    assert changes[4:6] == [(title, "running") for title in titles]
    assert sorted(changes[6:]) == [(title, "done") for title in titles]
    assert set(started(project).values()) == {2}


def test_killed_and_failed_jobs_stop_nothing_and_are_done_by_a_second_call(project):
    """One kernel killed, one process killed, one cell that raises, and one that is undisturbed."""
    (project / "sleep").write_text("2")
    (project / "fail").touch()
    steps = toy_project.training_steps(4)
    when(steps[:1], lambda: os.kill(kernel_of(steps[0]), signal.SIGKILL))
    when(steps[2:3], lambda: os.kill(parent_of(kernel_of(steps[2])), signal.SIGKILL))
    states = {}
    jobs.run_local(steps, 2, states.__setitem__)
    kernel, cell, process, undisturbed = (states[step.title] for step in steps)
    assert re.fullmatch(
        r"failed: cell 3: DeadKernelError: .*; it was killed, perhaps for want of memory", kernel
    )
    assert cell == "failed: cell 2: ValueError: out of luck"
    assert re.match(
        r"failed: its process was ended by SIGKILL, perhaps for want of memory; see runs/trial/", process
    )
    assert undisturbed == "done"
    assert "out of luck" in steps[1].output.read_text()  # the executed notebook is kept
    assert steps[1].log.read_text().endswith("cell 2: ValueError: out of luck\n")
    before = results(project)
    (project / "fail").unlink()
    (project / "sleep").unlink()
    outcome = reproduce.run_plan(steps, "trial", 2)
    assert outcome["done before"] == [steps[3].title]
    assert set(outcome["done"]) == {step.title for step in steps[:3]} and not outcome["failed"]
    assert started(project) == {f"corrected {k} 111": 2 for k in (1, 2, 3)} | {"corrected 4 111": 1}
    after = results(project)
    assert len(after) == 12 and all(after[path] == content for path, content in before.items())


def parent_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().split()[3])


def test_a_notebook_that_is_killed_after_its_training_draws_its_figures_the_next_time(project):
    late = "if pathlib.Path('late').exists():\n    os.kill(os.getpid(), 9)"
    cells = (
        toy_project.TRAINING,
        toy_project.WAITING,
        toy_project.WRITING,
        late,
        "(folder / 'figure').touch()",
    )
    toy_project.write_training(project, *cells)
    (project / "late").touch()
    (step,) = toy_project.training_steps(1)
    assert reproduce.run_plan([step], "trial")["failed"] == [step.title]
    folder = step.output.parent
    assert (folder / "DONE").exists() and not (folder / "figure").exists()
    (project / "late").unlink()
    assert reproduce.run_plan([step], "trial")["done"] == [step.title]
    assert (folder / "figure").exists()
    assert reproduce.run_plan([step], "trial")["done before"] == [step.title]


def test_a_folder_that_can_not_be_made(project):
    steps = toy_project.training_steps(2)
    blocked = steps[0].output.parents[1]
    blocked.parent.mkdir(parents=True)
    blocked.touch()
    states = {}
    jobs.run_local(steps, 1, states.__setitem__)
    assert re.match(r"failed: (FileExists|NotADirectory)Error: .*fold=1", states[steps[0].title])
    assert states[steps[1].title] == "done"


def test_a_process_that_says_nothing(project, monkeypatch):
    monkeypatch.setattr(jobs.sys, "executable", "/bin/false")
    (step,) = toy_project.training_steps(1)
    assert jobs.execute(step) == "exit code 1 without a message, as on a full disk"


class TestInterrupted:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_running_jobs_end_and_waiting_ones_do_not_start(self, project, capsys, number):
        (project / "sleep").write_text("1000")
        steps = toy_project.training_steps(3)
        before = signal.signal(number, signal.default_int_handler)  # as the command line does
        when(steps[:2], lambda: os.kill(os.getpid(), number))
        code = reproduce.reproduce("trial", corpus="demo", fold_names=["1", "2", "3"], jobs=2)
        signal.signal(number, before)
        assert code == 130 and not any((step.output.parent / "DONE").exists() for step in steps)
        wait_until(lambda: not any(is_alive(kernel_of(step)) for step in steps[:2]))
        text = capsys.readouterr().out
        assert "1 done, 0 done before, 0 failed, 2 interrupted, 3 not started in" in text
        assert f"interrupted: {steps[0].title}: ended in mid-work" in text
        assert text.endswith("interrupted; call again to continue\n")

    def test_a_driver_that_is_killed_takes_its_jobs_with_it(self, project):
        """Nothing is left that could train beside a second call."""
        (project / "sleep").write_text("1000")
        (step,) = toy_project.training_steps(1)
        program = (
            "import sys, pathlib; from serkit.reproduction import jobs, plan\n"
            f"step = plan.Step({step.notebook!r}, {step.parameters!r}, pathlib.Path({str(step.output)!r}))\n"
            "jobs.run_local([step], 1, print)"
        )
        driver = subprocess.Popen([sys.executable, "-c", program], cwd=project)
        wait_until(lambda: kernel_of(step), alive=driver)
        kernel = kernel_of(step)
        job = parent_of(kernel)
        driver.kill()
        driver.wait()
        wait_until(lambda: not is_alive(kernel) and not is_alive(job))


def test_a_grid_is_run_once_and_kept(project, capsys):
    """Two variants in two folds, side by side; called twice."""
    path = project / "trial.toml"
    path.write_text("[common]\nfolds = [1, 2]\nrecipe = ['corrected', 'published']")
    grid = read_grid(path)
    (project / "fail").touch()
    assert reproduce.reproduce("trial", grid=grid, corpus="demo", jobs=2) == 1
    said = capsys.readouterr().out
    assert re.search(r"fold=2 seed=111: FAILED after \d+ s: cell 2: ValueError: out of luck", said)
    assert "6 done, 0 done before, 2 failed in" in said
    log = (project / "runs/trial/notebooks/01_prepare_corpus.log").read_text()
    assert toy_project.PRINTED in log and toy_project.PRINTED not in said
    (project / "fail").unlink()
    assert reproduce.reproduce("trial", grid=grid, corpus="demo", jobs=2) == 0
    capsys.readouterr()
    assert reproduce.reproduce("trial", grid=grid, corpus="demo", jobs=2) == 0
    assert "0 done, 8 done before, 0 failed in" in capsys.readouterr().out
    assert sorted(started(project).values()) == [1, 1, 2, 2]
    threads = json.loads(next((project / "runs").rglob("metrics.json")).read_text())["threads"]
    assert threads == str(jobs.threads_per_job(2))
    assert {path.name for path in (project / "runs/trial/notebooks").glob("06*.ipynb")} == {
        "06_confusion_matrix_corrected_clean_session_demo.ipynb",
        "06_confusion_matrix_published_clean_session_demo.ipynb",
    }
    assert read_grid(project / "runs/trial/grid.toml").variants == grid.variants
    assert not (project / "runs/trial/lock.txt").exists()
