"""A dask cluster of processes on this machine: nothing is lost, nothing is done twice, whoever dies."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from distributed import Client, LocalCluster, Scheduler, SpecCluster, Worker, get_worker
from distributed.utils import key_split

from serkit.errors import ParameterError, RunError
from serkit.reproduction import cluster, reproduce
from serkit.reproduction.plan import Step

pytestmark = pytest.mark.usefixtures("forkserver", "project")


@dataclass(frozen=True)
class Toy:
    """A step that counts to ``units`` and goes on where it was; it can be finished only once."""

    number: int
    folder: Path
    units: int = 0
    unit_s: float = 0.0
    fault: str = ""

    @property
    def title(self):
        return f"05_toy  fold={self.number} seed=111"

    @property
    def output(self):
        return self.folder / f"{self.number}" / "toy.ipynb"

    def file(self, suffix):
        return self.output.with_suffix(suffix)

    def key(self):
        return hashlib.sha256(str(self.output).encode()).hexdigest()[:16]

    def is_done(self):
        return self.file(".done").exists()


def count(step):
    """Run a toy: one line for each start, one for each unit, and the square of its number at the end."""
    if step.fault == "raise":
        raise ValueError("out of\nluck")
    if step.fault:
        return step.fault
    with open(step.file(".starts"), "a") as file:
        file.write(f"{os.getpid()}\n")
    progress = step.file(".progress")
    for _ in range(len(lines(progress)), step.units):
        time.sleep(step.unit_s)
        with open(progress, "a") as file:
            file.write(f"{os.getpid()}\n")
    with open(step.file(".done"), "x") as file:
        file.write(str(step.number**2))
    return None


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def ignore(*_):
    pass


def run(steps, address, on_change=ignore, execute=count):
    """The last state of each step that was started."""
    states = {}

    def change(title, state):
        states[title] = state
        on_change(title, state)

    cluster.run_on_cluster(steps, address, execute, change)
    return states


def start(n_workers, **settings):
    settings = {"threads_per_worker": 1, "processes": True, "dashboard_address": ":0"} | settings
    return LocalCluster(n_workers=n_workers, **settings)


@pytest.fixture(scope="module")
def pair(forkserver):
    with start(2) as two:
        yield two.scheduler_address


def check_all_done_once(steps):
    assert {step.number: step.file(".done").read_text() for step in steps} == {
        step.number: str(step.number**2) for step in steps
    }
    assert [len(lines(step.file(".starts"))) for step in steps] == [1] * len(steps)


def test_all_are_done_once_and_a_fault_stops_nothing(pair, tmp_path):
    """One is done before, one raises, one says what went wrong; all others give what they give alone."""
    steps = [Toy(number, tmp_path) for number in range(5)]
    steps += [Toy(5, tmp_path, fault="cell 3: ValueError: no"), Toy(6, tmp_path, fault="raise")]
    steps[1].output.parent.mkdir()
    count(steps[1])
    told = []
    states = run(steps[::-1], pair, lambda *change: told.append(change))
    assert states == dict.fromkeys((step.title for step in steps[:5]), "done") | {
        steps[5].title: "failed: cell 3: ValueError: no", steps[6].title: "failed: ValueError: out of luck",
    }  # fmt: skip
    for step in steps:
        assert [state for title, state in told if title == step.title] == ["running", states[step.title]]
    check_all_done_once(steps[:5])
    assert not list((tmp_path / "runs").iterdir())
    assert run([Toy(5, tmp_path)], pair) == {steps[5].title: "done"}  # mended
    assert key_split(f"{steps[0].title}-{steps[0].key()}") == steps[0].title  # the dashboard's name for it


def test_ctrl_c_takes_back_what_was_not_started(pair, tmp_path):
    steps = [Toy(number, tmp_path, units=8, unit_s=0.1) for number in range(6)]

    def interrupt_the_first(title, state):
        if state == "done":
            raise KeyboardInterrupt

    states = run(steps, pair, interrupt_the_first)
    assert list(states.values()).count("done") >= 1
    assert len(states) < 6 and set(states.values()) <= {
        "done",
        "interrupted: goes on to its end on the cluster",
    }
    assert run(steps, pair) == dict.fromkeys((s.title for s in steps), "done")
    check_all_done_once(steps)


def test_a_killed_worker_is_replaced_and_its_step_goes_on_where_it_was(pair, tmp_path):
    steps = [Toy(number, tmp_path, units=6, unit_s=0.2) for number in range(4)]
    starts, progress = steps[0].file(".starts"), steps[0].file(".progress")

    def kill():
        while len(lines(progress)) < 2:
            time.sleep(0.02)
        os.kill(int(lines(starts)[-1]), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    assert run(steps, pair) == dict.fromkeys((s.title for s in steps), "done")
    first, second = lines(starts)
    units = lines(progress)
    assert (
        first != second and len(units) == 6 and 2 <= units.count(first) < 6
    )  # nothing again, nothing left out
    check_all_done_once(steps[1:])


def test_no_job_waits_behind_a_long_one(pair, tmp_path):
    """Whoever is free gets the next: the worker with the long job has no other."""
    long = Toy(0, tmp_path, units=40, unit_s=0.1)
    short = [Toy(number, tmp_path, units=2, unit_s=0.1) for number in range(1, 7)]
    assert set(run([long, *short], pair).values()) == {"done"}
    assert lines(long.file(".starts"))[0] not in {lines(step.file(".starts"))[0] for step in short}


PROGRAM = """
import sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
from test_cluster import Toy, run
if __name__ == "__main__":
    run([Toy(number, Path({folder!r}), units=10, unit_s=0.1) for number in range(4)], {address!r})
"""


def test_a_killed_driver_leaves_nothing_undone_for_the_second_call(pair, tmp_path):
    steps = [Toy(number, tmp_path, units=10, unit_s=0.1) for number in range(4)]
    program = PROGRAM.format(tests=str(Path(__file__).parent), folder=str(tmp_path), address=pair)
    driver = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 300
    while not any(lines(step.file(".progress")) for step in steps):
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    assert not all(step.is_done() for step in steps)
    assert run(steps, pair) == dict.fromkeys((s.title for s in steps), "done")
    check_all_done_once(steps)


def test_a_killed_scheduler_is_said_and_the_second_call_finishes(pair, tmp_path):
    where = tmp_path / "scheduler.json"
    python = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])

    def start_dask(*words):
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *words, "--no-dashboard", "--scheduler-file", str(where)],
            env=os.environ | {"PYTHONPATH": python}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    scheduler = start_dask("scheduler", "--port", "0")
    worker = start_dask("worker", "--nthreads", "1", "--no-nanny")
    steps = [Toy(number, tmp_path / "run", units=5, unit_s=0.2) for number in range(4)]

    def kill_the_scheduler():
        while not lines(steps[0].file(".progress")):
            time.sleep(0.02)
        scheduler.kill()

    try:
        deadline = time.monotonic() + 300
        while not where.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        address = json.loads(where.read_text())["address"]
        threading.Thread(target=kill_the_scheduler, daemon=True).start()
        with pytest.raises(
            RunError, match=r"scheduler tcp://\S+: lost; start it and its workers again and repeat"
        ):
            run(steps, address)
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
    assert not all(step.is_done() for step in steps)
    assert run(steps, pair) == dict.fromkeys((s.title for s in steps), "done")
    assert [len(lines(step.file(".progress"))) for step in steps] == [5] * 4


def fail_to_import(*_):
    raise ModuleNotFoundError("No module named 'serkit'")


class TestRefused:
    """One sentence, and no step has been started."""

    @pytest.fixture
    def steps(self, tmp_path):
        return [Toy(number, tmp_path / "run") for number in range(2)]

    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch):
        for name in ("CONNECT_S", "FIRST_WORKER_S", "PATIENCE_S"):
            monkeypatch.setattr(cluster, name, 1)

    def refused(self, steps, address, match):
        with pytest.raises(RunError, match=match) as caught:
            run(steps, address)
        assert "\n" not in str(caught.value)
        assert not any(step.output.parent.exists() for step in steps)

    @pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nowhere", "tcp://127.0.0.1:port", "web://a:9"])
    def test_unreachable_scheduler(self, steps, address, monkeypatch):
        """In seconds; a client that is left half open would be closed by the garbage collector, which can wait for good."""
        made, start, began = [], Client.start, time.monotonic()
        monkeypatch.setattr(Client, "start", lambda self, **kw: made.append(self) or start(self, **kw))
        expected = rf"scheduler='{re.escape(address)}', expected .* does not answer .*start one with `dask scheduler`"
        self.refused(steps, address, expected)
        assert {client.status for client in made} <= {"closed"}
        assert time.monotonic() - began < 10

    def test_a_scheduler_without_serkit(self, steps, pair, monkeypatch):
        monkeypatch.setattr(Client, "run_on_scheduler", fail_to_import)
        self.refused(
            steps, pair, r"scheduler tcp://\S+: can't run serkit \(No module .*\); start it in the same"
        )

    def test_no_worker(self, steps):
        with start(0) as nobody:
            self.refused(
                steps, nobody.scheduler_address, r"no worker within 1 s, .*`dask worker tcp://\S+ --nthr"
            )

    def test_another_project_folder(self, steps, pair, monkeypatch):
        """What the driver writes does not arrive where the workers look."""
        elsewhere = nullcontext(SimpleNamespace(name="/no/such/folder/mark"))
        monkeypatch.setattr(cluster.tempfile, "NamedTemporaryFile", lambda **given: elsewhere)
        self.refused(
            steps,
            pair,
            r"worker \d at tcp://\S+: /no/such/folder/mark, just written .*; mount the same project folder",
        )

    @pytest.mark.parametrize("name", ["torch", "serkit's code"])
    def test_another_version(self, steps, pair, monkeypatch, name):
        other = cluster.versions() | {name: "0.0.7"}
        monkeypatch.setattr(cluster, "versions", lambda: other)
        self.refused(
            steps, pair, rf"{name} is \S+, expected 0.0.7 as where the jobs come from; install the same"
        )

    def test_several_gpus_in_one_process(self, steps):
        with start(1, processes=False, protocol="tcp://", resources={"GPU": 4}) as wide:
            self.refused(
                steps, wide.scheduler_address, "announces 4 GPUs, expected 1: .* one worker for each GPU"
            )


def write_worker(step):
    time.sleep(0.1)
    step.file(".done").write_text(str(get_worker().name))


def write_trim(step):
    """What its processes would inherit."""
    step.file(".done").write_text(os.environ.get(cluster.TRIM, "not set"))


def test_a_training_does_not_inherit_how_dask_frees_memory(pair, tmp_path):
    steps = [Toy(number, tmp_path) for number in range(2)]
    with Client(pair) as client:
        client.run(os.environ.__setitem__, cluster.TRIM, "65536")
    assert set(run(steps, pair, execute=write_trim).values()) == {"done"}
    assert [step.file(".done").read_text() for step in steps] == ["not set"] * 2


def test_with_gpus_announced_their_workers_get_one_job_each(tmp_path):
    steps = [Toy(number, tmp_path) for number in range(5)]
    kinds = {"cpu": {"nthreads": 4}, "gpu": {"nthreads": 4, "resources": {"GPU": 1}}}
    workers = {name: {"cls": Worker, "options": options} for name, options in kinds.items()}
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": ":0"}}
    with SpecCluster(workers=workers, scheduler=scheduler) as mixed:
        address = mixed.scheduler_address
        assert cluster.check_cluster(address) == 1
        states = run(steps, address, execute=write_worker)
    assert states == dict.fromkeys((step.title for step in steps), "done")
    assert {step.file(".done").read_text() for step in steps} == {"gpu"}
    began = sorted((step.output.with_name("lock").stat().st_mtime, step.number) for step in steps)
    ended = {step.number: step.file(".done").stat().st_mtime for step in steps}
    assert all(ended[one] <= time_of_other for (_, one), (time_of_other, _) in pairwise(began))


def spoil():
    cluster.versions = dict  # as where nothing is installed


def test_a_worker_that_comes_later_and_is_unfit_gets_no_jobs(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.5)
    monkeypatch.setattr(cluster, "WORKERS_S", 0.2)
    steps = [Toy(number, tmp_path, units=1, unit_s=0.5) for number in range(5)]
    with start(1) as cluster_of_one, Client(cluster_of_one, set_as_default=False) as client:
        (fit,) = client.run(os.getpid).values()

        def add_another(title, state):
            if state == "done" and len(cluster_of_one.workers) == 1:
                cluster_of_one.scale(2)
                client.wait_for_workers(2)
                client.run(spoil, workers=[w for w, pid in client.run(os.getpid).items() if pid != fit])

        states = run(steps, cluster_of_one.scheduler_address, add_another)
        assert states == dict.fromkeys((s.title for s in steps), "done")
    check_all_done_once(steps)
    assert {pid for step in steps for pid in lines(step.file(".starts"))} == {str(fit)}
    assert capfd.readouterr().out.count("install the same; it gets no jobs") == 1


@pytest.fixture
def notebooks(tmp_path):
    """A project with a notebook that writes down where it ran."""
    cells = [
        nbformat.v4.new_code_cell("number = 0", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("import os\nprint(number**2, os.getcwd(), os.getppid())"),
        nbformat.v4.new_code_cell("if number == 1:\n    raise ValueError('out of luck')"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for name in ("01_prepare_corpus", "square"):
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return [
        Step("square", {"number": number}, tmp_path / f"runs/trial/{number}/square.ipynb", label=str(number))
        for number in (1, 2)
    ]


def test_notebooks_are_executed_in_the_project_folder(notebooks, pair, tmp_path):
    runner, jobs = reproduce._choose_runner(0, pair, False)
    assert jobs == 2 and not (tmp_path / "runs" / "trial").exists()
    states = {}
    runner(notebooks, jobs, states.__setitem__)
    assert states == {"square  1": "failed: cell 3: ValueError: out of luck", "square  2": "done"}
    assert re.search(rf"\n4 {re.escape(str(tmp_path))} \d+", notebooks[1].log.read_text())
    assert [step.is_done() for step in notebooks] == [False, True]


class TestCommand:
    def test_jobs_beside_a_scheduler(self, tmp_path):
        with pytest.raises(
            ParameterError, match="jobs=3 beside a scheduler, expected 0: its workers say how many"
        ):
            reproduce.reproduce("trial", jobs=3, scheduler="tcp://127.0.0.1:9", corpus="demo")

    def test_unreachable_scheduler_before_anything_is_planned(self, tmp_path, monkeypatch):
        monkeypatch.setattr(cluster, "CONNECT_S", 1)
        with pytest.raises(RunError, match="does not answer"):
            reproduce.reproduce("trial", jobs=0, scheduler="tcp://127.0.0.1:9", corpus="nowhere")
        assert not (tmp_path / "runs").exists()
