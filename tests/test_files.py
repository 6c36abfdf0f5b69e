"""Files that are whole or not there."""

import errno
import os

import pytest

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
