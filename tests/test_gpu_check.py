"""The check that needs a GPU, rehearsed without one."""

import gpu_check
import pytest
import torch


def test_without_a_gpu_it_says_so_in_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        SystemExit, match=r"^no GPU that torch can use was found: nothing is checked; [^\n]+$"
    ):
        gpu_check.main([])
    assert capsys.readouterr().out == ""


def test_a_rehearsal_measures_every_line(demo_corpus, capsys):
    assert gpu_check.main(["--rehearse", "--corpus", str(demo_corpus)]) == 0
    table = capsys.readouterr().out.split("\n\n")[-1]
    assert table.count("| rehearsed |") == 8 and "NOT resumed" not in table
    # on one machine the same steps give the same numbers
    assert table.count(" 0.00% apart at most") == 2 and "0.00000 apart at most" in table


def test_a_line_beyond_its_limit_is_told(monkeypatch):
    check = object.__new__(gpu_check.Check)
    check.on_gpu, check.lines = True, []
    check.add("steps", "3 %", "at most 2 %", False)
    check.add("steps", "1 %", "at most 2 %", True)
    assert [line[-1] for line in check.lines] == ["DIFFERS", "ok"]
