"""Sixty kills, each when a step touches another file: the same command finishes, with the bytes of an undisturbed one."""

import shutil
import signal

import pytest
import steps

KILLS = 10  # of each step


@pytest.mark.campaign
def test_killed_between_any_two_files(tmp_path):
    folder, kills = tmp_path / "killed", 0
    with steps.server(tmp_path) as call:
        for name, before, whole in steps.undisturbed(call, tmp_path):
            expected, last = steps.contents(whole), int((tmp_path / "touches").read_text())
            assert last >= KILLS
            for number in range(KILLS):
                fatal = 1 + number * (last - 1) // (KILLS - 1)
                shutil.copytree(before, folder)
                assert call(name, folder, fatal) == -signal.SIGKILL, (name, fatal)
                assert call(name, folder) == 0, (name, fatal, (tmp_path / "said").read_text())
                after = steps.contents(folder)
                assert set(after) == set(expected), (name, fatal)
                assert not [path for path in after if after[path] != expected[path]], (name, fatal)
                shutil.rmtree(folder)
                kills += 1
    assert kills == KILLS * len(steps.STEPS) == 60
