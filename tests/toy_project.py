"""A project of toy notebooks for tests of plans and jobs: nothing is read, measured or trained."""

import json
import shutil
from pathlib import Path

import nbformat
import prediction_tables as tables

from serkit import runs
from serkit.reproduction import estimate, plan, reproduce

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
MEASURED = {
    "segment_s": 0.05, "extraction_s": 0.0, "store_bytes": 0, "model_bytes": 1_000_000, "memory": 1e9, "free": 10**12,
    "gpu_memory": 0,
}  # fmt: skip
PRINTED = "what a notebook prints"
COMMON = "run = corpus = root = recipe = by = selection = profile = ''\n"  # written out by separate()

# What a toy training does is decided by files in the project folder, so that tests can change their mind.
TRAINING = """
import json, os, pathlib, time
name = f"{recipe} {fold} {seed}"
with open("started.txt", "a") as file:
    file.write(f"{name}\\n")
if pathlib.Path("fail").exists() and fold == "2":
    raise ValueError("out of luck")
"""
WAITING = """
folder = pathlib.Path("runs", run, f"{recipe}_{selection}_{by}_demo", f"fold={fold}", f"seed={seed}")
(folder / "pid").write_text(str(os.getpid()))
time.sleep(float(pathlib.Path("sleep").read_text()) if pathlib.Path("sleep").exists() else 0)
"""
WRITING = """
key = json.loads(pathlib.Path("keys.json").read_text())[name]
(folder / "experiment.json").write_text(json.dumps({"key": key}))
(folder / "metrics.json").write_text(json.dumps({"name": name, "threads": os.environ.get("OMP_NUM_THREADS")}))
(folder / "DONE").write_text(key)
"""


def write_notebook(path, parameters, *cells):
    """A notebook with its parameters and some code."""
    code = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    code += [nbformat.v4.new_code_cell(source) for source in cells]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=code, metadata=kernel), path)


def make_project(folder, monkeypatch, preparation=plan.PREPARATION):
    """A project with the grids of the kit, whose notebooks end at once, and a corpus of ten speakers."""
    monkeypatch.setattr(plan, "PREPARATION", preparation)
    (folder / "notebooks").mkdir()
    shutil.copytree(NOTEBOOKS / "grids", folder / "notebooks" / "grids")
    more = "iemocap_check = variant = ''\nskip_broken = name_variant = partial = False\nsettings = {}\n"
    for name in (*plan.PREPARATION, plan.ANALYSIS, plan.ABLATIONS):
        write_notebook(folder / "notebooks" / f"{name}.ipynb", separate(COMMON + more), f"print({PRINTED!r})")
    write_training(folder, TRAINING, WAITING, WRITING)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(reproduce.corpora, "load", lambda *given, **options: manifest())
    monkeypatch.setattr(estimate, "measure", lambda *given: MEASURED)
    keys = {
        f"{recipe} {fold} {seed}": runs.Experiment(recipe=recipe, fold=fold, seed=seed).key
        for recipe in ("corrected", "published")
        for fold in range(1, 6)
        for seed in (111, 211)
    }
    (folder / "keys.json").write_text(json.dumps(keys))
    manifest_path = runs.processed_folder("demo") / "manifest.parquet"
    manifest_path.parent.mkdir(parents=True)
    manifest_path.touch()
    return folder


def write_training(folder, *cells):
    """Notebook 05 of a project."""
    parameters = COMMON + "name_variant = False\nsettings = {}\nfold = ''\nseed = epochs = 0\n"
    write_notebook(folder / "notebooks" / f"{plan.TRAINING}.ipynb", separate(parameters), *cells)


def manifest():
    """Ten speakers, every utterance two seconds long."""
    rows = tables.manifest().assign(num_samples=32_000, sample_rate=16_000)
    return rows.assign(
        path=rows["utterance_id"], digest=[f"64044-{number:08x}" for number in range(len(rows))]
    )


def separate(parameters):
    """``a = b = 0`` on two lines: papermill reads one parameter of each."""
    lines = []
    for line in parameters.splitlines():
        *names, value = line.split(" = ")
        lines += [f"{name} = {value}" for name in names]
    return "\n".join(lines) + "\n"


def training_steps(n, seeds=(111,), **settings):
    """Training steps of the first folds."""
    names = [str(k + 1) for k in range(n)]
    steps = plan.make_plan("trial", manifest(), corpus="demo", fold_names=names, seeds=seeds, **settings)
    return [step for step in steps if step.experiment is not None]
