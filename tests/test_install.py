"""The ways of installing agree with each other."""

import os
import re
import subprocess
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


def test_nothing_for_nvidia_is_installed_on_macos():
    mac = {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"}
    on_mac = {r.name for r in LOCK if r.marker is None or Marker(str(r.marker)).evaluate(mac)}
    assert not [name for name in on_mac if re.match(r"nvidia|cuda|triton", name)]
    assert "torch" in on_mac


def test_what_is_installed_is_what_the_lock_says():
    for requirement in LOCK:
        if requirement.marker is None:
            assert version(requirement.name) == str(requirement.specifier).removeprefix("=="), (
                requirement.name
            )


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


class TestBrowser:
    """What only the browser tests need."""

    EXTRA = read_requirements(HOME / "tests/browser/requirements.txt")

    def test_each_is_one_exact_version_and_not_in_the_lock(self):
        assert {r.name for r in self.EXTRA} >= {"playwright"}
        for requirement in self.EXTRA:
            assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        locked = {canonicalize_name(r.name) for r in LOCK}
        assert not locked & {canonicalize_name(r.name) for r in self.EXTRA}

    def test_they_need_nothing_that_is_in_neither_list(self):
        pytest.importorskip("playwright", reason="only make test-browser installs it")
        known = {canonicalize_name(r.name): r for r in [*LOCK, *self.EXTRA]}
        for requirement in self.EXTRA:
            for line in requires(requirement.name) or ():
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                    exact = str(known[canonicalize_name(needed.name)].specifier).removeprefix("==")
                    assert needed.specifier.contains(exact), line
