"""A kernel, a worker or the driver is killed in the middle of two jobs; a second call completes them.

A job counts in steps and keeps a checkpoint after each, like a training does after its epochs. What
the kit's own training makes of a kill is in test_interruptions.
"""

import json
import os
import random
import time

import psutil
import pytest
import toy_project
from distributed import Client, LocalCluster

from serkit.reproduction import cluster, jobs, plan
from serkit.reproduction.jobs import execute

SEED = 20_260  # of moments and victims
ROUNDS = 20
UNITS, UNIT_S = 10, 0.15  # s of work for each job
PATIENCE_S = 300
COUNTING = f"""
import hashlib, json, os, pathlib, time
folder = pathlib.Path("runs", run, f"{{recipe}}_{{selection}}_{{by}}_demo", f"fold={{fold}}", f"seed={{seed}}")
(folder / "pid").write_text(str(os.getpid()))
checkpoint = folder / "checkpoint.json"
state = json.loads(checkpoint.read_text()) if checkpoint.exists() else {{"unit": 0, "value": f"{{fold}} {{seed}}"}}
while state["unit"] < {UNITS}:
    with open(folder / "units.txt", "a") as file:
        file.write(str(state["unit"]) + "\\n")
    time.sleep({UNIT_S})
    state = {{"unit": state["unit"] + 1, "value": hashlib.sha256(state["value"].encode()).hexdigest()}}
    (folder / "partial").write_text(json.dumps(state))
    os.replace(folder / "partial", checkpoint)
"""
WRITING = """
key = json.loads(pathlib.Path("keys.json").read_text())[f"{recipe} {fold} {seed}"]
(folder / "experiment.json").write_text(json.dumps({"key": key}))
(folder / "metrics.json").write_text(json.dumps(state))
(folder / "DONE").write_text(key)
"""
VICTIMS = (
    ("local", "driver"), ("cluster", "worker"), ("local", "kernel"), ("cluster", "driver"), ("local", "worker"),
    ("cluster", "kernel"),
)  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Its training counts."""
    folder = toy_project.make_project(tmp_path, monkeypatch)
    parameters = toy_project.separate(
        toy_project.COMMON + "name_variant = False\nsettings = {}\nfold = ''\nseed = 0\n"
    )
    path = folder / "notebooks" / f"{plan.TRAINING}.ipynb"
    toy_project.write_notebook(path, parameters, COUNTING, WRITING)
    return folder


@pytest.fixture(scope="module")
def pair(forkserver):
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as two:
        yield two.scheduler_address


def two_steps(run):
    """Two trainings."""
    steps = plan.make_plan(run, toy_project.manifest(), corpus="demo", fold_names=["1", "2"])
    return [step for step in steps if step.experiment is not None]


def call(steps, engine, address):
    """What `serkit reproduce` does about the steps that are not done."""
    left, states = [step for step in steps if not step.is_done()], {}
    if engine == "local":
        jobs.run_local(left, 2, states.__setitem__)
    elif left:
        cluster.run_on_cluster(left, address, execute, states.__setitem__)
    return states


def results(steps):
    """Bytes of what the finished ones wrote, by name."""
    return {
        f"{step.title} {name}": (step.output.parent / name).read_bytes()
        for step in steps
        if step.is_done()
        for name in ("metrics.json", "experiment.json", "DONE")
    }


def kill(victim, engine, driver, steps, address, chance):
    """SIGKILL; a kernel or worker that is not there yet is waited for. Whether it came before the end."""
    if victim == "driver":
        driver.kill()
        return not all(step.is_done() for step in steps)
    deadline = time.monotonic() + PATIENCE_S
    while driver.is_alive() and time.monotonic() < deadline:
        if victim == "kernel":
            notes = [step.output.parent / "pid" for step in steps if not step.is_done()]
            pids = [int(note.read_text()) for note in notes if note.exists() and note.stat().st_size]
        elif engine == "local":
            pids = [child.pid for child in psutil.Process(driver.pid).children()]
        else:
            with Client(address) as client:
                pids = list(client.run(os.getpid).values())
        if pids and psutil.pid_exists(pid := chance.choice(pids)):
            psutil.Process(pid).kill()
            return not all(step.is_done() for step in steps)
        time.sleep(0.02)
    return False


@pytest.mark.campaign
def test_killed_again_and_again(project, pair, forkserver):
    undisturbed = two_steps("undisturbed")
    began = time.monotonic()
    assert call(undisturbed, "local", pair) == dict.fromkeys((step.title for step in undisturbed), "done")
    usual_s = time.monotonic() - began
    expected, chance, hit = results(undisturbed), random.Random(SEED), 0
    assert len(expected) == 6
    for number in range(ROUNDS):
        engine, victim = VICTIMS[number % len(VICTIMS)]
        steps = two_steps(f"round{number}")
        driver = forkserver.Process(target=call, args=(steps, engine, pair))
        driver.start()
        time.sleep(chance.uniform(0.1, 0.9) * usual_s)
        hit += kill(victim, engine, driver, steps, pair, chance)
        driver.join(PATIENCE_S)
        assert not driver.is_alive(), f"round {number}: {engine} {victim}: the first call does not end"
        before = results(steps)
        again = call(steps, engine, pair)
        assert set(again.values()) <= {"done"}, f"round {number}: {engine} {victim}: {again}"
        after = results(steps)
        assert after == expected, f"round {number}: {engine} {victim}"
        assert all(after[name] == content for name, content in before.items())
        for step in steps:
            units = (step.output.parent / "units.txt").read_text().split()
            # nothing is left out, and only the unit that was being counted is counted again
            assert set(units) == set(map(str, range(UNITS))) and len(units) <= UNITS + 1
        assert json.loads(after[f"{steps[0].title} metrics.json"])["unit"] == UNITS
    assert hit >= ROUNDS // 2, "most were killed too late to disturb anything"
