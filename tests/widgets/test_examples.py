"""Examples are chosen by rules that can be followed by hand."""

import numpy as np
import pandas as pd
import pytest
import soundfile

from serkit.constants import LABELS
from serkit.corpora.manifest import make_manifest
from serkit.errors import CorpusError, ParameterError, RunError
from serkit.widgets.examples import check_all, one_per_emotion, utterance_near, waveform_near


def row(utterance_id, speaker, label, sentence, seconds=2.0, agreement=None, path="x.wav"):
    return {
        "utterance_id": utterance_id, "path": str(path), "corpus": "demo", "speaker": speaker, "session": "1",
        "gender": "F", "dialogue": "d", "scripted": True, "emotion": label or "xxx", "label": label,
        "num_samples": round(seconds * 16000), "sample_rate": 16000, "agreement": agreement,
        "transcript": sentence,
    }  # fmt: skip


@pytest.fixture
def manifest():
    rows = [row(f"a{i}", "A", label, f"sentence {i}") for i, label in enumerate(LABELS)]
    rows += [row(f"b{i}", "B", label, "same") for i, label in enumerate(LABELS)]
    rows += [row("c0", "C", "sad", "same", seconds=9.0), row("c1", "C", None, "same", seconds=0.5)]
    return make_manifest(rows)


def test_prefers_the_speaker_who_says_one_sentence_in_all_emotions(manifest):
    chosen = one_per_emotion(manifest)
    assert chosen["utterance_id"].tolist() == ["b0", "b1", "b2", "b3"]
    assert chosen["label"].tolist() == list(LABELS)
    assert chosen["seconds"].tolist() == [2.0] * 4


def test_takes_the_speaker_that_is_asked_for(manifest):
    assert set(one_per_emotion(manifest, "A")["speaker"]) == {"A"}


def test_order_of_rows_does_not_matter(manifest):
    shuffled = manifest.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(one_per_emotion(shuffled), one_per_emotion(manifest))


def test_agreement_decides_between_equal_sentences(manifest):
    doubtful = row("b0again", "B", "angry", "same", agreement=1.0)
    more = make_manifest([*manifest.to_dict("records"), doubtful])
    assert one_per_emotion(more)["utterance_id"].iloc[0] == "b0again"


def test_speaker_without_all_classes(manifest):
    with pytest.raises(CorpusError, match="speaker C has not all of angry, sad, happy, neutral"):
        one_per_emotion(manifest, "C")
    with pytest.raises(CorpusError, match="no speaker has all of"):
        one_per_emotion(manifest[manifest["speaker"] == "C"])


def test_unknown_speaker(manifest):
    with pytest.raises(ParameterError, match="speaker='Z', expected one of A, B, C"):
        one_per_emotion(manifest, "Z")


def test_nearest_length_leaves_out_what_has_no_label(manifest):
    assert utterance_near(manifest, 7.0)["utterance_id"] == "c0"
    assert utterance_near(manifest, 0.5)["seconds"] == 2.0


def test_nearest_length_refuses_nonsense(manifest):
    with pytest.raises(ParameterError, match="seconds=0"):
        utterance_near(manifest, 0)
    with pytest.raises(ParameterError, match="speaker='Z' has no labelled utterance"):
        utterance_near(manifest, 2.0, speaker="Z")


def test_waveform_is_cut_only_where_nothing_is_short_enough(tmp_path):
    sound = np.random.default_rng(1).uniform(-0.1, 0.1, 48000)
    soundfile.write(tmp_path / "x.wav", sound, 16000)
    manifest = make_manifest([row("x", "A", "sad", "s", seconds=3.0, path=tmp_path / "x.wav")])
    assert len(waveform_near(manifest, 2.6)[1]) == 48000
    assert len(waveform_near(manifest, 2.0)[1]) == 32000


def test_checks_print_and_stop(capsys):
    check_all({"this": True})
    assert capsys.readouterr().out == "ok    this\n"
    with pytest.raises(RunError, match="1 of 2 checks failed: that"):
        check_all({"this": True, "that": np.bool_(False)})
