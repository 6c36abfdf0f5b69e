"""JupyterLab on loopback, with settings of its own, for one project folder."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

HOME = Path(__file__).parents[2]
TRAINING = ("05_train_coattention", "09_own_corpus")
START_S = 120  # s; on a busy machine the first start compiles hundreds of modules
STOP_S = 30  # s
SETTINGS = {
    # a question about news and a look for updates would each open over the notebook
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # what a cell is doing is read from the page, so nothing of it may be left out
    "notebook-extension/tracker": {"windowingMode": "none"},
}


@dataclass(frozen=True)
class Server:
    """A running JupyterLab."""

    url: str  # without token
    token: str
    project: Path  # folder that it serves, with notebooks/ inside
    log: Path  # what it printed
    process: subprocess.Popen

    def call(self, path, method="GET"):
        """Ask the server's own interface; return what it answers, or None where it answers nothing."""
        request = urllib.request.Request(
            f"{self.url}/api/{path}", method=method, headers={"Authorization": f"token {self.token}"}
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=30) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def stop_kernels(self):
        """End all kernels, as *Shut Down All Kernels* does."""
        for session in self.call("sessions"):
            self.call(f"sessions/{session['id']}", "DELETE")

    def memory_mb(self):
        """Memory in use by all kernels and what they have started, in MB."""
        total = 0
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                memory = process.memory_full_info()
            except psutil.Error:  # ended meanwhile
                continue
            total += getattr(memory, "pss", memory.uss)  # memory that is shared counts once
        return total / 1e6


def make_project(folder, epochs):
    """A checkout in which nothing has been done yet: notebooks, shipped predictions, and how git sees them.

    Notebooks that train do so for that many ``epochs``.
    """
    shutil.copytree(
        HOME / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints")
    )
    for name in TRAINING:
        path = folder / "notebooks" / f"{name}.ipynb"
        source, changed = re.subn(r"\bepochs: int = \w+", f"epochs: int = {epochs}", path.read_text())
        assert changed == 1, f"{name} has no parameter epochs, or two"
        path.write_text(source)
    shutil.copytree(HOME / "data" / "examples", folder / "data" / "examples")
    for name in ("Makefile", ".gitignore"):
        shutil.copy(HOME / name, folder / name)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message=first")
    (folder / ".venv").symlink_to(sys.prefix)  # where the project's Makefile looks for its tools
    subprocess.run(["make", "--silent", "tidy"], cwd=folder, check=True)
    return folder


def git(folder, *words):
    """What git prints in a folder."""
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout


@contextmanager
def serve(project, state):
    """JupyterLab for a project folder, on a free port of loopback and behind a random token.

    Parameters
    ----------
    project : Path
    state : Path
        Empty folder for settings, workspaces and the log.

    Yields
    ------
    Server
    """
    _write_settings(state / "config")
    port, token, log = _free_port(), secrets.token_hex(16), state / "jupyter.log"
    config = f"--config={project / 'notebooks' / 'jupyter_config.py'}"  # as `make lab` does
    command = [sys.executable, "-m", "jupyterlab", config, "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={project}", "--expose-app-in-browser"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    env = _environment(state, token) | {"JUPYTER_CONFIG_PATH": str(project / "notebooks")}  # so too
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=project, env=env, stdout=output, stderr=subprocess.STDOUT)
    server = Server(f"http://127.0.0.1:{port}", token, project, log, process)
    try:
        _wait_until_it_answers(server)
        yield server
    finally:
        process.terminate()  # it ends its kernels first
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            for child in [*psutil.Process(process.pid).children(recursive=True), process]:
                child.kill()


def environment():
    """Environment in which this tree's serkit is the one that is imported."""
    path = [str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def _environment(state, token):
    folders = {f"JUPYTER_{name.upper()}_DIR": str(state / name) for name in ("config", "data", "runtime")}
    # a kernel named python3 in the reader's home must not be taken for this environment's
    return environment() | folders | {"JUPYTER_TOKEN": token, "JUPYTER_PREFER_ENV_PATH": "1"}


def _write_settings(folder):
    for name, values in SETTINGS.items():
        path = folder / "lab" / "user-settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_it_answers(server):
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if server.process.poll() is not None:
            break
        try:
            server.call("status")
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError(f"JupyterLab did not answer within {START_S} s:\n{server.log.read_text()[-3000:]}")
