"""EmoDB parser on small trees."""

from functools import partial

import pandas as pd
import pytest
from trees import RESOURCE_FORK, cut, noise, wav_bytes

from serkit.corpora import acted
from serkit.errors import CorpusError

load_emodb = partial(acted.load, "emodb")

SPEAKERS = ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16")


def write_tree(root, speakers=SPEAKERS, letters="WLEAFTN"):
    """Each speaker says text a01 once with each emotion, 16 kHz noise of 320 samples."""
    folder = root / "wav"
    folder.mkdir(parents=True)
    for speaker in speakers:
        for letter in letters:
            (folder / f"{speaker}a01{letter}a.wav").write_bytes(wav_bytes(noise(320)))
    return root


def test_one_row_by_hand(tmp_path, capsys):
    manifest = load_emodb(write_tree(tmp_path)).set_index("utterance_id")
    assert len(manifest) == 70
    row = manifest.loc["14a01Wa"]
    expected = {
        "path": str(tmp_path / "wav" / "14a01Wa.wav"), "corpus": "emodb", "speaker": "14", "session": "4",
        "gender": "F", "dialogue": "a01", "scripted": True, "emotion": "anger", "label": "angry",
        "num_samples": 320, "sample_rate": 16_000,
    }  # fmt: skip
    assert row[list(expected)].to_dict() == expected
    assert row[["valence", "activation", "dominance", "agreement", "transcript"]].isna().all()
    assert capsys.readouterr().out == ""  # nobody is missing


def test_letters(tmp_path):
    manifest = load_emodb(write_tree(tmp_path)).set_index("utterance_id")
    found = {
        letter: (manifest.loc[f"03a01{letter}a", "emotion"], manifest.loc[f"03a01{letter}a", "label"])
        for letter in "WFTNLEA"
    }
    assert found["W"] == ("anger", "angry")
    assert found["F"] == ("happiness", "happy")
    assert found["T"] == ("sadness", "sad")
    assert found["N"] == ("neutral", "neutral")
    assert [found[letter][0] for letter in "LEA"] == ["boredom", "disgust", "fear"]
    assert all(pd.isna(found[letter][1]) for letter in "LEA")


def test_speakers_pair_into_sessions(tmp_path):
    speakers = load_emodb(write_tree(tmp_path, letters="N")).set_index("speaker")
    assert speakers["session"].to_dict() == {
        "03": "1", "08": "1", "10": "2", "09": "2", "11": "3", "13": "3", "12": "4", "14": "4", "15": "5", "16": "5",
    }  # fmt: skip
    assert sorted(speakers.index[speakers["gender"] == "M"]) == ["03", "10", "11", "12", "15"]


def test_sessions_do_not_depend_on_who_is_there(tmp_path, capsys):
    speakers = load_emodb(write_tree(tmp_path, speakers=("09", "16"))).set_index("speaker")
    assert set(speakers.loc["09", "session"]) == {"2"} and set(speakers.loc["16", "session"]) == {"5"}
    assert "EmoDB speakers without files: 03, 08, 10, 11, 12, 13, 14, 15\n" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["..", "../..", "wav"])
def test_root_off_by_a_level(tmp_path, place):
    tree = write_tree(tmp_path / "archive" / "emodb")
    assert len(load_emodb(tree / place)) == 70


def test_hidden_files_are_left_out(tmp_path):
    folder = write_tree(tmp_path) / "wav"
    (folder / "._03a01Wa.wav").write_bytes(RESOURCE_FORK)
    assert len(load_emodb(tmp_path)) == 70


def test_missing_root_and_missing_wav_folder(tmp_path):
    with pytest.raises(CorpusError, match=r"no such folder, expected the unpacked EmoDB; data/README\.md"):
        load_emodb(tmp_path / "emodb")
    with pytest.raises(CorpusError, match=r"holds nothing, expected folders of EmoDB such as wav; data/"):
        load_emodb(tmp_path)


def test_empty_or_single_speaker_is_not_enough(tmp_path):
    with pytest.raises(CorpusError, match=r"0 of 10 EmoDB speakers found"):
        load_emodb(write_tree(tmp_path / "none", speakers=()))
    with pytest.raises(CorpusError, match=r"1 of 10 EmoDB speakers found, expected at least 2"):
        load_emodb(write_tree(tmp_path / "one", speakers=("03",)))


def test_truncated_file_is_named(tmp_path):
    cut(write_tree(tmp_path) / "wav" / "08a01Ta.wav", 1)
    with pytest.raises(
        CorpusError, match=r"broken sound files \(1\): \S*08a01Ta\.wav: truncated, 1 of 640 bytes"
    ):
        load_emodb(tmp_path)


@pytest.mark.parametrize("name", ["03a01Xa", "04a01Wa", "notes"])
def test_foreign_names_are_refused(tmp_path, name):
    (write_tree(tmp_path) / "wav" / f"{name}.wav").write_bytes(wav_bytes(noise(320)))
    with pytest.raises(CorpusError, match=rf"{name}\.wav: name is not of EmoDB, expected speaker \(03 08"):
        load_emodb(tmp_path)
