"""What a job costs beside its work: notebooks that only import what notebook 05 does, through the local runner.

``python tests/benchmarks/overhead.py`` runs 200 of them and prints seconds per job, and where they go.
"""

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

import nbformat

from serkit.reproduction.jobs import run_local
from serkit.reproduction.plan import TRAINING, Step

AIM_S = 8.0  # per job, on 2 cores
HERE = Path(__file__).resolve().parent
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def main():
    """Run, count, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=200, help="how many")
    parser.add_argument("--at-once", type=int, default=2, help="how many side by side")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="serkit-overhead-") as folder:
        steps = write_project(Path(folder), options.jobs)
        began = time.perf_counter()
        states = {}
        run_local(steps, options.at_once, states.__setitem__)
        seconds = time.perf_counter() - began
        lost = [step.title for step in steps if step.title not in states or not step.is_done()]
        parts = {name: sum(times) / len(times) for name, times in measure(steps).items()}
    failed = Counter(state for state in states.values() if state != "done")
    per_job = seconds / options.jobs
    print(f"{options.jobs} jobs, {options.at_once} at once on {os.cpu_count()} cores: {seconds:.0f} s in all")
    print(f"overhead: {per_job:.2f} s per job, aim at most {AIM_S:.0f} s")
    # a job takes its slot for longer than this where several run side by side
    whole = per_job * options.at_once
    rest = whole - sum(parts.values())
    print(
        f"of {whole:.2f} s that a job takes: " + ", ".join(f"{name} {s:.2f} s" for name, s in parts.items())
    )
    print(f"and process start and bookkeeping {rest:.2f} s")
    print(
        f"{len(lost)} lost, {sum(failed.values())} failed {dict(failed) or ''}; load {os.getloadavg()[0]:.1f}"
    )
    return 1 if lost or per_job > AIM_S else 0


def write_project(home, n_jobs):
    """A project with one notebook that does nothing; returns its steps."""
    (home / "notebooks").mkdir()
    training = json.loads((HERE.parents[1] / "notebooks" / f"{TRAINING}.ipynb").read_text())
    cells = [cell for cell in training["cells"] if cell["cell_type"] == "code"]
    imports = next(cell for cell in cells if any(line.startswith("from serkit") for line in cell["source"]))
    cells = [
        nbformat.v4.new_code_cell("number = 0", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("".join(imports["source"])),
    ]
    for name in ("01_prepare_corpus", "nothing"):  # the first one marks a project folder
        nbformat.write(
            nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), home / "notebooks" / f"{name}.ipynb"
        )
    return [
        Step("nothing", {"number": number}, home / f"runs/overhead/{number}/nothing.ipynb", label=str(number),
             home=home)
        for number in range(n_jobs)
    ]  # fmt: skip


def measure(steps):
    """Seconds of each finished job, as papermill notes them in the executed notebook."""
    times = {"kernel start and end": [], "import": []}
    for step in steps:
        if not step.is_done():
            continue
        notebook = nbformat.read(step.output, as_version=4)
        cells = [cell.metadata.papermill.duration or 0.0 for cell in notebook.cells]
        times["import"].append(max(cells))
        times["kernel start and end"].append(notebook.metadata.papermill.duration - sum(cells))
    return {name: seconds for name, seconds in times.items() if seconds}


if __name__ == "__main__":
    raise SystemExit(main())
