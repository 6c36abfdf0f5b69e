"""Files that are whole or not there."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest
from filelock import Timeout

from serkit import files as durable


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestReplacing:
    def test_nothing_is_seen_before_it_is_whole(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_text("before")
        with durable.replacing(path) as partial:
            partial.write_text("half")
            assert path.read_text() == "before"
            partial.write_text("whole")
        assert path.read_text() == "whole" and names(tmp_path) == ["a.txt"]

    def test_after_an_error_all_is_as_it_was(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_text("before")
        with pytest.raises(KeyboardInterrupt), durable.replacing(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt
        assert path.read_text() == "before" and names(tmp_path) == ["a.txt"]

    def test_what_a_killed_writer_left_is_overwritten(self, tmp_path):
        for content in ("left", "new"):
            writer = durable.replacing(tmp_path / "a.txt")
            partial = writer.__enter__()
            partial.write_text(content)
        assert names(tmp_path) == [".a.txt.partial"]
        writer.__exit__(None, None, None)
        assert (tmp_path / "a.txt").read_text() == "new" and names(tmp_path) == ["a.txt"]

    def test_a_disk_that_fills_up_when_the_file_is_sent_to_it(self, tmp_path, monkeypatch):
        """Some file systems say so only then: the file must not take its name."""

        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"), durable.replacing(tmp_path / "a.txt") as partial:
            partial.write_text("half")
        assert names(tmp_path) == []

    def test_a_file_system_that_can_not_sync_folders(self, tmp_path, monkeypatch):
        real = os.fsync

        def files_only(number):
            if os.path.isdir(f"/proc/self/fd/{number}"):
                raise OSError(errno.EINVAL, "Invalid argument")
            real(number)

        monkeypatch.setattr(os, "fsync", files_only)
        with durable.replacing(tmp_path / "a.txt") as partial:
            partial.write_text("whole")
        assert (tmp_path / "a.txt").read_text() == "whole"


class TestLocked:
    """Also on a network file system whose lock service doesn't run."""

    @pytest.fixture(params=[None, errno.ENOLCK, errno.EOPNOTSUPP])
    def disk(self, request, monkeypatch):
        def refuse(*_):
            raise OSError(request.param, os.strerror(request.param))

        if request.param:
            monkeypatch.setattr(fcntl, "flock", refuse)

    def test_a_second_one_waits_and_then_has_it(self, disk, tmp_path):
        with durable.locked(tmp_path / "lock"), pytest.raises(Timeout):
            durable.locked(tmp_path / "lock", timeout=0.1)
        with durable.locked(tmp_path / "lock", timeout=0.1):
            pass

    def test_one_that_was_killed_holds_nothing(self, disk, tmp_path):
        hold = (
            "import sys, filelock; filelock.SoftFileLock(sys.argv[1]).acquire(); print(flush=True); input()"
        )
        command = [sys.executable, "-c", hold, str(tmp_path / "lock.held")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            holder.stdout.readline()
            holder.kill()
        with durable.locked(tmp_path / "lock", timeout=10):
            pass

    def test_other_faults_are_said(self, tmp_path, monkeypatch):
        def broken(*_):
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(fcntl, "flock", broken)
        with pytest.raises(OSError, match="Input/output error"):
            durable.locked(tmp_path / "lock")
