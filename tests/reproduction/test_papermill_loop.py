"""Papermill on its own: the loop of notebooks/README.md gives the run folder that ``serkit reproduce`` gives."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tones import make_tones

from serkit import runs
from serkit.features.store import build_store
from serkit.recipe import CORRECTED
from serkit.reproduction import plan as plans
from serkit.reproduction import reproduce, verify

HOME = Path(__file__).parents[2]
SAME_BYTES = ("history.csv", "predictions.parquet", "metrics.json", "experiment.json", "DONE")
OWN = ("05_train_coattention.ipynb", "timing.csv", "files.json")  # hold times


def readme_loop():
    """The loop as the page has it, over one fold with one epoch."""
    page = (HOME / "notebooks" / "README.md").read_text()
    blocks = re.findall(r"^for fold in .*?^done\n", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    loop, changed = re.subn("1 2 3 4 5", "2", blocks[0])
    loop, given = re.subn(r"-p epochs \d+", "-p epochs 1", loop)
    assert (changed, given) == (1, 1)
    return loop


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The real training notebook, and a corpus of tones in place of the demo corpus."""
    shutil.copytree(HOME / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tones").mkdir()
    manifest, _ = make_tones(tmp_path / "tones")
    processed = runs.processed_folder("demo")
    build_store(manifest, CORRECTED, processed)
    manifest.to_parquet(processed / "manifest.parquet")
    # equal sums need the same number of threads in both
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    return tmp_path


def plan(run, *folds):
    """The training steps of a reproduction; the other notebooks have no part in the run folder."""
    manifest = runs.find_manifest("demo")
    steps = plans.make_plan(run, manifest, corpus="demo", fold_names=folds, profile="demo", epochs=1)
    return [step for step in steps if step.experiment]


def results(folder):
    """Files of a run folder by name, without the log and TensorBoard's events, whose names hold the time."""
    # a lock is of whoever runs the notebooks, and no result
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    names = {path.relative_to(folder).as_posix(): path for path in files if "tensorboard" not in path.parts}
    return {name: path for name, path in names.items() if not name.endswith(".log")}


@pytest.mark.notebooks
def test_a_loop_over_folds_gives_the_same_run_folder(project):
    loop = subprocess.Popen(
        ["bash", "-e", "-c", readme_loop()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    outcome = reproduce.run_plan(plan("batch", "2"), "batch")
    said = loop.communicate()[0]
    assert loop.returncode == 0, said
    assert len(outcome["done"]) == 1, outcome
    a, b = (results(plan(run, "2")[0].output.parent) for run in ("mine", "batch"))
    assert set(a) == set(b) >= {*SAME_BYTES, *OWN, "model/model.safetensors"}
    for name in set(a) - set(OWN):
        assert a[name].read_bytes() == b[name].read_bytes(), name
    hashes = [json.loads(one["files.json"].read_text())["files"] for one in (a, b)]
    assert [name for name in hashes[0] if hashes[0][name] != hashes[1][name]] == ["timing.csv"]
    assert all(step.is_done() for step in plan("mine", "2"))  # `serkit reproduce` has nothing left to do
    assert not [
        one for one in verify.check_run("mine", partial=True) if one.verdict not in (verify.OK, verify.NOTE)
    ]
