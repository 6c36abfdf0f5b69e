"""RAVDESS parser on small trees, and on the files beside the clone when they are there."""

import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
import soundfile
from trees import RESOURCE_FORK, cut, noise, wav_bytes

from serkit.corpora import acted
from serkit.errors import CorpusError

load_ravdess = partial(acted.load, "ravdess")


def write_tree(root, actors=range(1, 25), emotions=range(1, 9)):
    """Both statements of each emotion by each actor, 48 kHz noise of 480 samples."""
    sound = wav_bytes(noise(480), sample_rate=48_000)
    for actor in actors:
        folder = root / f"Actor_{actor:02d}"
        folder.mkdir(parents=True)
        for emotion in emotions:
            for statement in (1, 2):
                name = f"03-01-{emotion:02d}-01-{statement:02d}-01-{actor:02d}.wav"
                (folder / name).write_bytes(sound)
    return root


def test_rows_by_hand(tmp_path, capsys):
    manifest = load_ravdess(write_tree(tmp_path)).set_index("utterance_id")
    assert len(manifest) == 24 * 8 * 2
    row = manifest.loc["03-01-05-01-02-01-08"]
    expected = {
        "path": str(tmp_path / "Actor_08" / "03-01-05-01-02-01-08.wav"), "corpus": "ravdess",
        "speaker": "08", "session": "2", "gender": "F", "dialogue": "dogs", "scripted": True,
        "emotion": "angry", "label": "angry", "num_samples": 480, "sample_rate": 48_000,
        "transcript": "Dogs are sitting by the door",
    }  # fmt: skip
    assert row[list(expected)].to_dict() == expected
    assert row[["valence", "activation", "dominance", "agreement"]].isna().all()
    first = manifest.loc["03-01-01-01-01-01-01"]
    assert list(first[["speaker", "session", "gender", "dialogue"]]) == ["01", "1", "M", "kids"]
    assert first["transcript"] == "Kids are talking by the door"
    assert capsys.readouterr().out == ""  # nothing is missing


def test_emotions_and_labels(tmp_path):
    manifest = load_ravdess(write_tree(tmp_path))
    pairs = manifest.groupby("emotion")["label"].first()
    assert {emotion: None if pd.isna(label) else label for emotion, label in pairs.items()} == {
        "neutral": "neutral", "calm": None, "happy": "happy", "sad": "sad",
        "angry": "angry", "fearful": None, "disgust": None, "surprised": None,
    }  # fmt: skip


def test_sessions_are_four_consecutive_actors_of_both_genders(tmp_path):
    speakers = load_ravdess(write_tree(tmp_path, emotions=[1])).drop_duplicates("speaker")
    groups = speakers.groupby("session")["speaker"].apply(list).to_dict()
    assert groups["1"] == ["01", "02", "03", "04"]
    assert groups["6"] == ["21", "22", "23", "24"]
    assert (speakers.groupby(["session", "gender"]).size() == 2).all() and len(groups) == 6


@pytest.mark.parametrize("place", ["..", "../..", "Actor_03"])
def test_root_off_by_a_level(tmp_path, place):
    tree = write_tree(tmp_path / "archive" / "audio_speech_actors_01-24", emotions=[3])
    assert len(load_ravdess(tree / place)) == 48


@pytest.mark.parametrize(
    "actor", ["actor_{:02d}", "Actor_{}", "Actor {:02d}", "actor-{}", "ACTOR{:02d}", "", "audio/all/"]
)
def test_folders_as_people_have_them(tmp_path, actor):
    """Renamed, or all files in one folder."""
    usual, other = write_tree(tmp_path / "usual", emotions=[3]), tmp_path / "other"
    for number, folder in enumerate(sorted(usual.iterdir()), start=1):
        shutil.copytree(folder, other / actor.format(number), dirs_exist_ok=True)
    (other / "notes.wav").write_bytes(wav_bytes(noise(480)))  # beside the actors it does no harm
    expected, manifest = load_ravdess(usual), load_ravdess(other)
    pd.testing.assert_frame_equal(manifest.drop(columns="path"), expected.drop(columns="path"))


def test_what_lies_there_instead_is_said(tmp_path):
    (tmp_path / "Speaker_01").mkdir()
    with pytest.raises(
        CorpusError, match=r"holds Speaker_01, expected folders of RAVDESS such as Actor_01; data/README"
    ):
        load_ravdess(tmp_path)


def test_nested_copy_is_not_counted_twice(tmp_path):
    write_tree(tmp_path, emotions=[3])
    write_tree(tmp_path / "audio_speech_actors_01-24", emotions=[3, 4])
    manifest = load_ravdess(tmp_path)
    assert len(manifest) == 24 * 2
    assert not manifest["path"].str.contains("audio_speech").any()  # the folder at the root is taken


def test_song_video_and_resource_forks_are_left_out(tmp_path):
    folder = write_tree(tmp_path, emotions=[3]) / "Actor_01"
    sound = wav_bytes(noise(480), sample_rate=48_000)
    (folder / "03-02-03-01-01-01-01.wav").write_bytes(sound)  # song
    (folder / "01-01-03-01-01-01-01.mp4").write_bytes(b"video")
    (folder / "._03-01-03-01-01-01-01.wav").write_bytes(RESOURCE_FORK)
    (folder / ".DS_Store").write_bytes(b"")
    assert len(load_ravdess(tmp_path)) == 48


def test_stereo_counts_samples_of_one_channel(tmp_path):
    file = write_tree(tmp_path, emotions=[3]) / "Actor_20" / "03-01-03-01-01-01-20.wav"
    soundfile.write(file, np.zeros((700, 2)), 48_000, subtype="PCM_16")
    manifest = load_ravdess(tmp_path).set_index("utterance_id")
    assert manifest.loc["03-01-03-01-01-01-20", "num_samples"] == 700


def test_missing_actors_are_noted(tmp_path, capsys):
    manifest = load_ravdess(write_tree(tmp_path, actors=range(3, 25), emotions=[3]))
    assert manifest["speaker"].nunique() == 22
    assert "note: RAVDESS speakers without files: 01, 02\n" in capsys.readouterr().out


def test_one_actor_is_not_enough(tmp_path):
    with pytest.raises(CorpusError, match=r"1 of 24 RAVDESS speakers found, expected at least 2"):
        load_ravdess(write_tree(tmp_path, actors=[7]))


def test_missing_root_says_how_to_get_the_corpus(tmp_path):
    with pytest.raises(CorpusError, match=r"no such folder, expected the unpacked RAVDESS; data/README\.md"):
        load_ravdess(tmp_path / "ravdess")


def test_truncated_wav_and_flac_are_named(tmp_path, capsys):
    folder = write_tree(tmp_path, emotions=[3, 4, 5]) / "Actor_02"
    cut(folder / "03-01-03-01-01-01-02.wav", 10)
    (folder / "03-01-04-01-01-01-02.wav").unlink()
    flac = folder / "03-01-04-01-01-01-02.flac"
    soundfile.write(flac, noise(48_000), 16_000)
    assert len(flac.read_bytes()) > 20_000  # noise hardly shrinks, so the cut takes sound only
    cut(flac, 10_000)
    message = r"broken sound files \(2\): \S*03-01-03-01-01-01-02\.wav: truncated.*01-02\.flac: truncated"
    with pytest.raises(CorpusError, match=message):
        load_ravdess(tmp_path)
    kept = load_ravdess(tmp_path, skip_broken=True)
    assert not {"03-01-03-01-01-01-02", "03-01-04-01-01-01-02"} & set(kept["utterance_id"]) and len(kept) > 2
    assert "left out, as they can't be used (2)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("take two.wav", r"take two\.wav: name is not of RAVDESS, expected seven numbers"),
        ("03-01-09-01-01-01-01.wav", r"09-01-01-01-01\.wav: name is not of .* emotion .* 01 to 08"),
        ("03-01-03-01-03-01-01.wav", r"statement \(the fifth\) 01 or 02"),
        ("03-01-03-01-01-01-25.wav", r"actor \(the last\) 01 to 24"),
    ],
)
def test_foreign_names_are_refused(tmp_path, name, message):
    folder = write_tree(tmp_path, actors=[1, 2], emotions=[3]) / "Actor_01"
    shutil.copy(folder / "03-01-03-01-01-01-01.wav", folder / name)
    with pytest.raises(CorpusError, match=message):
        load_ravdess(tmp_path)


def test_subset_beside_the_clone(shared):
    root = shared / "data" / "ravdess"
    if not root.is_dir():
        pytest.skip("the shared folder beside the clone holds no data/ravdess")
    manifest = load_ravdess(root)
    # Neutral has one intensity, the others two: 2 statements x 2 repetitions x 24 actors each
    assert manifest["label"].value_counts().to_dict() == {
        "neutral": 96,
        "happy": 192,
        "sad": 192,
        "angry": 192,
    }
    assert (manifest["speaker"].value_counts() == 28).all() and manifest["speaker"].nunique() == 24
    other = manifest[manifest["sample_rate"] != 16_000]
    assert list(other["utterance_id"]) == ["03-01-03-01-02-01-20"]
    assert manifest["num_samples"].between(2 * 16_000, 6 * 48_000).all()  # 3 to 5 s, all of them
