"""The ways of installing agree with each other."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HOME = Path(__file__).parents[1]
PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
LOCK = [
    Requirement(line)
    for line in (HOME / "requirements.lock").read_text().splitlines()
    if line and not line.startswith("#")
]
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


def test_conda_environment_installs_the_same_lock():
    environment = yaml.safe_load((HOME / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert "--requirement requirements.lock" in pip
    python = next(e for e in environment["dependencies"] if isinstance(e, str) and e.startswith("python="))
    assert python == "python=3.11"
