"""A disk that is full: a step ends in one sentence, and the same step finishes when there is room again."""

import os
import shutil
import subprocess

import pytest
import steps

SIZE = "24m"
ROOMS = (0, 8, 40, 150)  # kB that are free when a step begins


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here, which takes root: {error}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path, room):
    """Take all space but ``room`` kB."""
    about = os.statvfs(path.parent)
    path.write_bytes(bytes(max(about.f_bavail * about.f_frsize - 1024 * room, 0)))


@pytest.mark.campaign
def test_one_sentence_and_the_same_again(tmp_path, disk):
    refused = []
    with steps.server(tmp_path) as call:
        for name, before, whole in steps.undisturbed(call, tmp_path):
            for room in ROOMS:
                shutil.copytree(before, disk / "project")
                fill(disk / "ballast", room)
                code, said = call(name, disk / "project"), (tmp_path / "said").read_text()
                if code:
                    assert code == 2 and "No space left on device" in said and len(said) <= 600, (
                        name,
                        room,
                        said,
                    )
                    refused.append(name)
                (disk / "ballast").unlink()
                assert call(name, disk / "project") == 0, (name, room, (tmp_path / "said").read_text())
                assert steps.contents(disk / "project") == steps.contents(whole), (name, room)
                shutil.rmtree(disk / "project")
    assert set(refused) == set(steps.STEPS)
