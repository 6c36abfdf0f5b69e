"""The table beside the paper: what may stand there, and what may not."""

import json

import numpy as np
import pandas as pd
import pytest

from serkit import report
from serkit.constants import LABELS


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project to work in."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_prepare_corpus.ipynb").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_run(project, corpus, selection, folds, by="session", recipe="corrected", profile="paper"):
    """A finished run: in every fold each class twice, angry always right, the rest taken for angry."""
    variant = f"{recipe}_{selection}_{by}_{profile}"
    for fold in folds:
        folder = project / "runs" / "trial" / variant / f"fold={fold}" / "seed=1"
        folder.mkdir(parents=True)
        table = pd.DataFrame({
            "utterance_id": [f"{fold}_{i}" for i in range(8)], "speaker": f"{fold}F", "session": str(fold),
            "truth": np.repeat(LABELS, 2), "prediction": "angry", "fold": str(fold), "seed": 1,
            "variant": variant, "split": "test", **{f"p_{label}": 0.25 for label in LABELS},
        })  # fmt: skip
        table.to_parquet(folder / "predictions.parquet")
        parameters = {
            "corpus": corpus,
            "selection": selection,
            "by": by,
            "profile": profile,
            "recipe": recipe,
        }
        (folder / "experiment.json").write_text(json.dumps({"parameters": parameters}))
        (folder / "DONE").write_text("x")


def test_scores_by_hand(project):
    write_run(project, "demo", "clean", [1, 2])
    row = report.score_summary("trial").iloc[0]
    assert (row["folds"], row["utterances"]) == (2, 16)
    assert (row["wa_pooled"], row["ua_fold_mean"]) == (25.0, 25.0)


def test_iemocap_with_all_folds_and_the_papers_model_stands_beside_the_paper(project):
    write_run(project, "iemocap", "clean", range(1, 6))
    row = report.paper_comparison("trial").set_index("protocol").loc["leave one session out"]
    assert (row["paper_wa"], row["paper_ua"]) == (69.80, 71.05)
    assert (row["corrected_wa"], row["corrected_ua"]) == (25.0, 25.0)
    assert np.isnan(row["published_wa"])


@pytest.mark.parametrize(
    "changes", [{"corpus": "ravdess"}, {"folds": range(1, 5)}, {"profile": "demo"}, {"by": "speaker"}]
)
def test_anything_less_leaves_the_cell_empty(project, changes):
    write_run(project, **({"corpus": "iemocap", "selection": "clean", "folds": range(1, 6)} | changes))
    mine = report.paper_comparison("trial")[["corrected_wa", "corrected_ua", "published_wa", "published_ua"]]
    assert mine.isna().all(axis=None)


def test_a_leaking_variant_is_marked_in_print_and_in_the_files(project, capsys):
    write_run(project, "iemocap", "clean", [1])
    write_run(project, "iemocap", "published", [1], recipe="published")
    report.write_report("trial")
    assert "test speakers" in capsys.readouterr().out
    for stem in ("scores_by_variant", "paper_comparison"):
        assert "test speakers" in (project / "figures/trial" / f"{stem}.md").read_text()


def test_a_clean_run_is_not_marked_and_other_corpora_say_so(project, capsys):
    write_run(project, "demo", "clean", [1])
    report.write_report("trial")
    printed = capsys.readouterr().out
    assert "can't speak about the paper" in printed and "test speakers" not in printed
