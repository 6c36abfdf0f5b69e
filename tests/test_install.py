"""The ways of installing agree with each other."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import metadata, requires, version
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

HOME = Path(__file__).parents[1]
PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
PYTHON = re.search(r"^PYTHON \?= python(\S+)$", (HOME / "Makefile").read_text(), re.MULTILINE)[1]


def read_requirements(path):
    lines = path.read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


LOCK = read_requirements(HOME / "requirements.lock")
DIRECT = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]


def test_every_lock_line_is_one_exact_version():
    assert len(LOCK) > 100
    for requirement in LOCK:
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        assert requirement.url is None


@pytest.mark.parametrize("line", DIRECT)
def test_every_direct_dependency_is_locked_at_a_version_it_allows(line):
    wanted = Requirement(line)
    locked = [r for r in LOCK if canonicalize_name(r.name) == canonicalize_name(wanted.name)]
    assert len(locked) == 1
    assert wanted.specifier.contains(str(locked[0].specifier).removeprefix("=="))


# needed, though nothing imports them: what runs notebooks, and what libraries load by themselves
UNSEEN = {
    "jupyterlab": "make lab",
    "ipykernel": "runs the notebooks",
    "tensorboard": "torch.utils.tensorboard",
    "pyarrow": "Parquet for pandas",
}
OTHER_NAMES = {"sklearn": "scikit-learn", "IPython": "ipython", "PIL": "pillow"}  # of modules


def test_dependencies_are_exactly_what_is_imported():
    notebooks = [json.loads(path.read_text())["cells"] for path in (HOME / "notebooks").glob("*.ipynb")]
    cells = ("".join(cell["source"]) for cells in notebooks for cell in cells if cell["cell_type"] == "code")
    modules = set()
    for source in (*cells, *(path.read_text() for path in (HOME / "serkit").rglob("*.py"))):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add(node.module.split(".")[0])
    modules -= {"serkit", *sys.stdlib_module_names}
    imported = {canonicalize_name(OTHER_NAMES.get(module, module)) for module in modules}
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *extras["egemaps"], *extras["av"], *extras["onnx"]]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    assert not imported & set(UNSEEN)
    assert declared == imported | set(UNSEEN)


def test_nothing_for_nvidia_is_installed_on_macos():
    mac = {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"}
    on_mac = {r.name for r in LOCK if r.marker is None or Marker(str(r.marker)).evaluate(mac)}
    assert not [name for name in on_mac if re.match(r"nvidia|cuda|triton", name)]
    assert "torch" in on_mac


def test_what_is_installed_is_what_the_lock_says():
    for requirement in LOCK:
        if requirement.marker is None:
            installed = version(requirement.name).removesuffix("+cpu")  # by make setup CPU=1
            assert installed == str(requirement.specifier).removeprefix("=="), requirement.name


def test_what_is_installed_runs_on_the_first_release_of_the_python_it_is_for():
    """Debian 12 has Python 3.11.2, and pip refuses a package there that wants 3.11.5."""
    refused = {
        requirement.name: wanted
        for requirement in LOCK
        if requirement.marker is None
        and (wanted := metadata(requirement.name).get("Requires-Python"))
        and not SpecifierSet(wanted).contains(f"{PYTHON}.0")
    }
    assert not refused


class TestConda:
    @pytest.fixture
    def entries(self):
        return yaml.safe_load((HOME / "environment.yml").read_text())["dependencies"]

    def test_python_is_one_that_the_project_allows_and_make_uses(self, entries):
        name, python = next(e for e in entries if isinstance(e, str) and e.startswith("python")).split("=")
        assert (name, python) == ("python", PYTHON)
        assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.0")

    def test_no_package_is_named_that_the_lock_has_too(self, entries):
        """Conda would bring a version of its own, and pip would install the lock's over it."""
        named = {re.split(r"[=<> ]", entry)[0] for entry in entries if isinstance(entry, str)}
        assert named == {"python", "pip", "make"}
        assert not named & {canonicalize_name(r.name) for r in LOCK}

    def test_pip_installs_the_lock_and_then_only_the_project(self, entries):
        [pip] = [entry["pip"] for entry in entries if isinstance(entry, dict)]
        assert pip == ["--requirement requirements.lock", "--no-deps --editable ."]
        assert (HOME / "requirements.lock").is_file()


class TestBinder:
    @pytest.fixture(scope="class")
    @classmethod
    def installed(cls, tmp_path_factory):
        """The lines that postBuild gives to pip, with a python that only writes them down."""
        folder = tmp_path_factory.mktemp("binder")
        fake = folder / "python"
        fake.write_text(
            f'#!/bin/sh\necho "$@" >> {folder}/calls\n'
            f'for last; do :; done\n[ "$last" = . ] || cp "$last" {folder}/requirements\n'
        )
        fake.chmod(0o755)
        path = f"{folder}:{os.environ['PATH']}"
        subprocess.run([HOME / ".binder/postBuild"], cwd=HOME, env=os.environ | {"PATH": path}, check=True)
        calls = (folder / "calls").read_text().splitlines()
        return calls, read_requirements(folder / "requirements")

    def test_the_same_python(self):
        assert (HOME / ".binder/runtime.txt").read_text().strip() == f"python-{PYTHON}"

    def test_first_the_versions_then_only_the_project(self, installed):
        calls, _ = installed
        assert len(calls) == 2
        assert "--extra-index-url https://download.pytorch.org/whl/cpu" in calls[0]
        assert calls[1].endswith("--no-deps --editable .")

    def test_cpu_builds_of_all_three_and_nothing_for_nvidia(self, installed):
        _, lines = installed
        built = {r.name: str(r.specifier) for r in lines if r.name.startswith("torch")}
        locked = {r.name: f"{r.specifier}+cpu" for r in LOCK if r.name.startswith("torch")}
        assert built == locked and len(built) == 3
        assert not [r.name for r in lines if re.match(r"nvidia|cuda|triton", r.name)]

    def test_everything_else_is_the_lock(self, installed):
        _, lines = installed
        other = [str(r) for r in LOCK if not re.match(r"nvidia|cuda|triton|torch", r.name)]
        assert [str(r) for r in lines if not r.name.startswith("torch")] == other


@pytest.mark.skipif(not shutil.which("make"), reason="make is not on this machine")
class TestMake:
    """With a python that only writes down what it is called with."""

    @pytest.fixture
    def make(self, tmp_path, monkeypatch):
        for name in ("Makefile", "requirements.lock", "pyproject.toml", ".binder/postBuild"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copy(HOME / name, tmp_path / name)
        fake = tmp_path / "venv/bin/python"
        fake.parent.mkdir(parents=True)
        fake.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
        fake.chmod(0o755)
        for variable in ("MAKEFLAGS", "CPU"):
            monkeypatch.delenv(variable, raising=False)

        def make(*arguments):
            (tmp_path / "calls").write_text("")
            subprocess.run(
                ["make", "VENV=venv", f"PYTHON={sys.executable}", "setup", *arguments],
                cwd=tmp_path,
                check=True,
            )
            return (tmp_path / "calls").read_text().splitlines()

        return make

    def test_the_lab_opens_the_start_page_as_it_is_read(self):
        """JupyterLab takes labconfig of every folder of configuration, of which notebooks/ is one there."""
        lab = subprocess.run(
            ["make", "--dry-run", "lab"], cwd=HOME, check=True, capture_output=True, text=True
        )
        assert (
            f'JUPYTER_CONFIG_PATH="{HOME}/notebooks' in lab.stdout and "notebooks/README.md\n" in lab.stdout
        )
        overrides = json.loads((HOME / "notebooks/labconfig/default_setting_overrides.json").read_text())
        assert overrides["@jupyterlab/docmanager-extension:plugin"]["defaultViewers"] == {
            "markdown": "Markdown Preview"
        }

    def test_the_lock_and_then_only_the_project(self, make):
        locked, project = make()
        assert locked.endswith("--requirement requirements.lock") and project.endswith(
            "--no-deps --editable ."
        )
        assert not make()

    def test_cpu_builds_once_and_ever_after(self, make, tmp_path):
        """What was asked for is remembered when the lock changes."""
        for arguments in (["CPU=1"], []):
            locked, project = make(*arguments)
            assert "--extra-index-url https://download.pytorch.org/whl/cpu" in locked
            assert project.endswith("--no-deps --editable .")
            os.utime(tmp_path / "requirements.lock", (2**32, 2**32))


@pytest.mark.parametrize(
    ("target", "path", "name"),
    [
        ("make test-browser", "tests/browser/requirements.txt", "playwright"),
        ("make book", "book/requirements.txt", "sphinx"),
    ],
)
class TestOneTarget:
    """What only one target of the Makefile needs, and installs."""

    def test_each_is_one_exact_version_and_not_in_the_lock(self, target, path, name):
        extra = read_requirements(HOME / path)
        assert name in {canonicalize_name(r.name) for r in extra}
        for requirement in extra:
            assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        locked = {canonicalize_name(r.name) for r in LOCK}
        assert not locked & {canonicalize_name(r.name) for r in extra}

    def test_they_need_nothing_that_is_in_neither_list(self, target, path, name):
        pytest.importorskip(name, reason=f"only {target} installs it")
        extra = read_requirements(HOME / path)
        known = {canonicalize_name(r.name): r for r in [*LOCK, *extra]}
        for requirement in extra:
            for line in requires(requirement.name) or ():
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                    exact = str(known[canonicalize_name(needed.name)].specifier).removeprefix("==")
                    assert needed.specifier.contains(exact), line


@pytest.mark.skipif(
    not shutil.which("git") or not shutil.which("make"), reason="git or make is not on this machine"
)
class TestNotebooksInGit:
    """Stepping through a notebook and saving it leaves git as it was."""

    NAME = "notebooks/03_spectrogram.ipynb"

    @pytest.fixture
    def run(self, monkeypatch):
        """A function that runs a command in a folder and returns what it prints."""
        for variable in [name for name in os.environ if name.startswith("GIT_")] + ["MAKEFLAGS"]:
            monkeypatch.delenv(variable, raising=False)
        for key, value in {"AUTHOR": "a", "COMMITTER": "c"}.items():
            monkeypatch.setenv(f"GIT_{key}_NAME", value)
            monkeypatch.setenv(f"GIT_{key}_EMAIL", f"{value}@example.org")

        def run(folder, *command):
            return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout

        return run

    @pytest.fixture
    def upstream(self, tmp_path, run):
        """A repository with the files that matter here."""
        folder = tmp_path / "upstream"
        (folder / "notebooks").mkdir(parents=True)
        for name in ("Makefile", "notebooks/.gitattributes", self.NAME):
            shutil.copy(HOME / name, folder / name)
        run(folder, "git", "init", "--quiet", "--initial-branch=main")
        run(folder, "git", "add", ".")
        run(folder, "git", "commit", "--quiet", "--message=first")
        return folder

    @pytest.fixture
    def clone(self, tmp_path, run, upstream):
        run(tmp_path, "git", "clone", "--quiet", "upstream", "clone")
        self.tidy(run, tmp_path / "clone")
        return tmp_path / "clone"

    def tidy(self, run, folder, venv=sys.prefix):
        run(folder, "make", "tidy", f"VENV={venv}")

    def step_through(self, path):
        """What JupyterLab leaves in a notebook whose cells have all run, the last one by Shift+Enter."""
        notebook = json.loads(path.read_text())
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell["execution_count"] = 7
                cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": ["seen\n"]}]
                cell["metadata"] |= {"scrolled": True, "execution": {"iopub.status.busy": "2026-01-01"}}
        empty = {
            "cell_type": "code",
            "id": "0",
            "metadata": {},
            "source": [],
            "outputs": [],
            "execution_count": 8,
        }
        notebook["cells"].append(empty)
        notebook["metadata"]["language_info"] |= {"version": "3.11.9", "codemirror_mode": {"name": "ipython"}}
        notebook["metadata"]["kernelspec"]["display_name"] = ".venv"
        notebook["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")

    def test_outputs_stay_on_the_disk_and_git_is_clean(self, run, clone, upstream):
        self.step_through(clone / self.NAME)
        assert run(clone, "git", "status", "--porcelain")  # another size, so git does not ask the filter
        self.tidy(run, clone)
        assert not run(clone, "git", "status", "--porcelain")
        assert "seen" in (clone / self.NAME).read_text()
        text = (upstream / self.NAME).read_text()
        (upstream / self.NAME).write_text(text.replace("# 03 ", "# 3 "))
        run(upstream, "git", "commit", "--all", "--quiet", "--message=second")
        run(clone, "git", "pull", "--quiet")
        assert (clone / self.NAME).read_text() == (upstream / self.NAME).read_text() != text

    def test_a_change_of_ones_own_is_seen_and_not_staged(self, run, clone):
        self.step_through(clone / self.NAME)
        text = (clone / self.NAME).read_text()
        (clone / self.NAME).write_text(text.replace("# 03 ", "# 3 "))
        self.tidy(run, clone)
        assert run(clone, "git", "status", "--porcelain") == f" M {self.NAME}\n"
        assert run(clone, "git", "diff", "--numstat") == f"1\t1\t{self.NAME}\n"

    @pytest.mark.parametrize("left", [[], ["nbstripout"]])
    def test_without_the_filter_or_its_python_git_works_as_ever(self, run, clone, left):
        programs = clone.parent / "venv" / "bin"
        programs.mkdir(parents=True)
        for name in left:
            (programs / name).write_text("#!/gone/python\n")
            (programs / name).chmod(0o755)
        (programs / "python").symlink_to("/gone/python")
        self.tidy(run, clone, venv=programs.parent)
        self.step_through(clone / self.NAME)
        said = run(clone, "sh", "-c", "git commit --all --quiet --message=outputs 2>&1")
        assert not said
        assert "seen" in run(clone, "git", "show", f"HEAD:{self.NAME}")

    def test_an_unpacked_archive_leaves_the_repository_around_it_alone(self, run, upstream):
        (upstream / "unpacked").mkdir()
        shutil.copy(HOME / "Makefile", upstream / "unpacked")
        self.tidy(run, upstream / "unpacked")
        assert "nbstripout" not in run(upstream, "git", "config", "--list", "--local")

    def test_the_filter_changes_no_notebook_that_is_committed(self, run, clone):
        names = [f"notebooks/{path.name}" for path in HOME.glob("notebooks/*.ipynb")]
        for name in names:
            shutil.copy(HOME / name, clone / name)
        # both parts of the filter, as one process each in place of two for each notebook
        _, kernel, strip = re.split(
            "; | \\| ", run(clone, "git", "config", "filter.nbstripout.clean").strip()
        )
        run(clone, "sh", "-c", f'{strip} "$@"', "sh", *names)
        for name in names:
            text = (HOME / name).read_text()
            assert (clone / name).read_text() == text, name
            assert subprocess.check_output(kernel, shell=True, input=text, text=True) == text, name
