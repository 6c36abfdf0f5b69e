"""Notebook 05 in a live kernel, as a person steps through it: too early, interrupted, run again."""

import queue
import time
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from tones import make_tones

from serkit import runs

HOME = Path(__file__).parents[2]
PARAMETERS = 'run, epochs, batch_size = "stepped", 5, 4'
TIMEOUT_S = 240


class Person:
    """Runs the cells of a notebook, by their id, and reads what they print."""

    def __init__(self, name):
        notebook = nbformat.read(HOME / "notebooks" / f"{name}.ipynb", as_version=4)
        self.cells = {cell.id: cell.source for cell in notebook.cells if cell.cell_type == "code"}
        self.cells["parameters"] += f"\n{PARAMETERS}"
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel()
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT_S)

    def run(self, cell, interrupt_when=None):
        """What the cell printed, and the error that it ended with, or None."""
        request, printed, fault = self.client.execute(self.cells[cell]), "", None
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            if interrupt_when and interrupt_when():
                self.manager.interrupt_kernel()
                interrupt_when = None
            try:
                message = self.client.get_iopub_msg(timeout=0.02)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                printed += content["text"]
            elif kind == "error":
                fault, self.shown = f"{content['ename']}: {content['evalue']}", content["traceback"]
            elif kind == "status" and content["execution_state"] == "idle":
                return printed, fault
        raise TimeoutError(f"cell {cell} takes more than {TIMEOUT_S} s: {printed}")

    def run_all(self):
        printed = ""
        for cell in self.cells:
            text, fault = self.run(cell)
            assert fault is None, (cell, fault)
            printed += text
        return printed

    def leave(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose `demo` corpus are the tones."""
    (tmp_path / "notebooks").mkdir()
    for name in ("01_prepare_corpus", "05_train_coattention"):
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        path.write_bytes((HOME / "notebooks" / path.name).read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    processed = runs.processed_folder("demo")
    processed.mkdir(parents=True)
    make_tones(tmp_path)[0].to_parquet(processed / "manifest.parquet")
    return tmp_path


def test_stepping_through_05(project):
    person = Person("05_train_coattention")
    try:
        for cell in ("imports", "parameters", "start"):
            assert person.run(cell)[1] is None
        printed, fault = person.run("curves")
        assert fault.startswith("NameError")
        assert (
            "'result' is made by code cell 15, under '5. The same, with checkpoints and early stopping'"
            in printed
        )

        manifest = runs.processed_folder("demo") / "manifest.parquet"
        manifest.rename(manifest.with_suffix(".away"))
        assert "run notebook 01_prepare_corpus with corpus='demo' first" in person.run("fold")[1]
        manifest.with_suffix(".away").rename(manifest)

        for cell in ("fold", "store"):
            assert person.run(cell)[1] is None
        folder = project / "runs/stepped/corrected_clean_session_demo/fold=1/seed=111"
        checkpoint = folder / runs.CHECKPOINT
        printed, fault = person.run("train", interrupt_when=checkpoint.exists)
        assert fault.startswith("Stopped: stopped; everything up to epoch ")
        (sentence,) = person.shown  # in place of a traceback
        assert sentence.startswith("stopped; ") and sentence.endswith(": run again to go on")
        assert checkpoint.exists() and not (folder / runs.DONE).exists()
        printed, fault = person.run("train")
        assert fault is None and "resumed after epoch" in printed
        assert (folder / runs.DONE).exists() and not checkpoint.exists()

        person.run_all()
        first = {path: path.read_bytes() for path in (project / "figures").rglob("*") if path.is_file()}
        assert "already done" in person.run_all()
        assert first and {path: path.read_bytes() for path in first} == first
    finally:
        person.leave()


def test_the_kernel_is_this_environments(tmp_path, monkeypatch):
    """Somebody's own `python3` kernel must not be taken instead of the project's."""
    other = tmp_path / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text(
        '{"argv": ["/elsewhere/python"], "display_name": "other", "language": "python"}'
    )
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")  # as `make lab` and `serkit reproduce` set it
    assert KernelSpecManager().get_kernel_spec("python3").argv[0] != "/elsewhere/python"
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    assert KernelSpecManager().get_kernel_spec("python3").argv[0] == "/elsewhere/python"
