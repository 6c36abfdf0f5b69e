"""The manifest's schema and what it refuses."""

import pandas as pd
import pytest

from serkit.corpora.manifest import COLUMNS, check_manifest, make_manifest, save_manifest
from serkit.errors import CorpusError
from serkit.folds import task_rows


def row(utterance_id="u1", **changes):
    """A row with the required columns only."""
    return {
        "utterance_id": utterance_id, "path": f"/corpus/{utterance_id}.wav", "corpus": "demo", "speaker": "1F",
        "session": "1", "gender": "F", "dialogue": "d1", "scripted": None, "emotion": "ang", "label": "angry",
        "num_samples": 16_000, "sample_rate": 16_000, "digest": "32044-0",
    } | changes  # fmt: skip


def test_columns_types_and_order():
    manifest = make_manifest([row("b"), row("a", label=None, valence=2)])
    assert list(manifest.columns) == list(COLUMNS)
    assert manifest.dtypes.astype(str).to_dict() == COLUMNS
    assert list(manifest["utterance_id"]) == ["a", "b"] and list(manifest.index) == [0, 1]
    assert manifest.loc[0, "valence"] == 2.0 and pd.isna(manifest.loc[1, "valence"])
    assert manifest["scripted"].isna().all() and manifest["transcript"].isna().all()


def test_task_rows_keeps_labelled_ones():
    task = task_rows(make_manifest([row("a", label=None), row("b"), row("c", label="sad")]))
    assert list(task["utterance_id"]) == ["b", "c"] and list(task.index) == [0, 1]


def test_no_rows():
    with pytest.raises(CorpusError, match=r"no utterance found; check that root"):
        make_manifest([])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("a"), row("a", path="/other.wav")], r"utterance a stands in the manifest more than once"),
        ([row("a", label="fear")], r"unknown label 'fear', expected one of angry, sad, happy, neutral"),
        ([row("a"), row("b", speaker=None)], r"manifest row 1: speaker is missing"),
        ([row("a", session=None)], r"manifest row 0: session is missing"),
        ([row("a", emotion=None)], r"manifest row 0: emotion is missing"),
        ([row("a", num_samples=0)], r"utterance a has no samples"),
    ],
)
def test_faults_are_named(rows, message):
    with pytest.raises(CorpusError, match=message):
        make_manifest(rows)


def test_missing_column_is_named():
    with pytest.raises(CorpusError, match=r"manifest lacks the columns \['speaker'\]"):
        check_manifest(make_manifest([row()]).drop(columns="speaker"))


def test_saved_and_read_back(tmp_path):
    manifest = make_manifest([row("a", scripted=True, transcript="so"), row("b", label=None)])
    path = save_manifest(manifest, tmp_path / "new" / "manifest.parquet")
    assert path == tmp_path / "new" / "manifest.parquet"
    pd.testing.assert_frame_equal(pd.read_parquet(path), manifest)


def test_broken_manifest_is_not_saved(tmp_path):
    manifest = make_manifest([row()]).assign(label="fear")
    with pytest.raises(CorpusError, match="unknown label 'fear'"):
        save_manifest(manifest, tmp_path / "manifest.parquet")
    assert not (tmp_path / "manifest.parquet").exists()
