"""CREMA-D, TESS and SAVEE from small trees of their layout."""

import numpy as np
import pytest
import soundfile

from serkit import corpora, folds
from serkit.constants import CORPORA, LABELS
from serkit.corpora import acted
from serkit.errors import CorpusError


def test_every_corpus_that_is_read_can_be_asked_for():
    assert set(corpora.REGISTRY) == set(CORPORA)


@pytest.mark.parametrize("name", acted.CORPORA)
def test_a_heading_is_whole(name):
    about = acted.CORPORA[name]
    assert about.keys() >= {"title", "part", "example", "name", "expected", "emotions"}
    assert all(code == code.lower() for code in about["emotions"])
    emotions, labels = set(about["emotions"].values()), about.get("labels", {})
    assert labels.keys() <= emotions and set(labels.values()) <= set(LABELS)
    assert {labels.get(emotion, emotion) for emotion in emotions} >= set(LABELS), "no way to some label"
    speakers = [
        each for session in about.get("sessions", []) for some in session.values() for each in some.split()
    ]
    assert all(speaker == speaker.upper() for speaker in speakers) and (speakers or name == "cremad")


def sounds(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        noise = np.random.default_rng([*map(ord, f"{folder.name}{name}")]).normal(0, 0.1, 4_000)
        soundfile.write(folder / f"{name}.wav", noise, 16_000, "PCM_16")


@pytest.fixture
def cremad(tmp_path):
    names = [f"{actor}_DFA_{emotion}_XX" for actor in range(1001, 1013) for emotion in ("ANG", "NEU", "FEA")]
    sounds(tmp_path / "AudioWAV", names)
    actors = [
        f"{actor},51,{'Female' if actor % 2 else 'Male'},Caucasian,Not Hispanic"
        for actor in range(1001, 1013)
    ]
    (tmp_path / "VideoDemographics.csv").write_text("\n".join(["ActorID,Age,Sex,Race,Ethnicity", *actors]))
    votes = [
        "queryType,clipName,respEmo",
        "1,1001_DFA_ANG_XX,A",
        "1,1001_DFA_ANG_XX,N",
        "2,1001_DFA_ANG_XX,H",
    ]
    (tmp_path / "finishedResponses.csv").write_text("\n".join(votes))
    return tmp_path


class TestCremaD:
    def test_names_sexes_and_what_was_heard(self, cremad):
        manifest = corpora.load("cremad", cremad).set_index("utterance_id")
        assert len(manifest) == 36
        row = manifest.loc["1001_DFA_ANG_XX"]
        assert row[["speaker", "gender", "dialogue", "emotion", "label"]].tolist() == [
            "1001",
            "F",
            "DFA",
            "angry",
            "angry",
        ]
        assert row["ratings"] == "angry;neutral"  # who saw the clip is left out
        assert manifest["label"].isna().sum() == 12  # fearful is not of the task

    def test_five_groups_with_women_and_men(self, cremad):
        manifest = corpora.load("cremad", cremad)
        actors = manifest.drop_duplicates("speaker")
        assert actors["session"].value_counts().tolist() == [3, 3, 2, 2, 2]
        assert (actors.groupby("session")["gender"].nunique() == 2).all()
        assert len(folds.make_folds(manifest)) == 5

    def test_without_its_tables(self, cremad):
        for path in cremad.glob("*.csv"):
            path.unlink()
        manifest = corpora.load("cremad", cremad)
        assert manifest["gender"].isna().all() and manifest["ratings"].isna().all()

    def test_a_strange_name(self, cremad):
        sounds(cremad / "AudioWAV", ["1001_DFA_JOY_XX"])
        with pytest.raises(
            CorpusError, match=r"JOY_XX\.wav: name is not of CREMA-D, expected one like 1001_DFA_ANG_XX"
        ):
            corpora.load("cremad", cremad)


class TestTess:
    def test_folders_of_both_actresses(self, tmp_path):
        sounds(tmp_path / "in" / "OAF_angry", ["OAF_back_angry", "OAF_bar_angry"])
        sounds(tmp_path / "in" / "OAF_neutral", ["OA_bite_neutral"])  # as released
        sounds(tmp_path / "in" / "YAF_pleasant_surprised", ["YAF_back_ps"])
        manifest = corpora.load("tess", tmp_path).set_index("utterance_id")
        assert manifest["speaker"].tolist() == ["OAF", "OAF", "OAF", "YAF"]
        assert manifest.loc["OAF_back_angry", ["dialogue", "transcript", "session"]].tolist() == [
            "back", "Say the word back", "1",
        ]  # fmt: skip
        assert manifest.loc["YAF_back_ps", "emotion"] == "surprised"
        assert manifest["gender"].unique().tolist() == ["F"]

    def test_one_actress_is_not_enough(self, tmp_path):
        sounds(tmp_path / "OAF_angry", ["OAF_back_angry"])
        with pytest.raises(CorpusError, match="1 of 2 TESS speakers found, expected at least 2"):
            corpora.load("tess", tmp_path)


class TestSavee:
    def test_the_letters_are_emotions(self, tmp_path):
        for speaker in ("DC", "JE", "JK", "KL"):
            sounds(tmp_path / "AudioData" / speaker, ["a01", "sa02", "su03", "n04"])
        manifest = corpora.load("savee", tmp_path).set_index("utterance_id")
        assert manifest.loc["DC_sa02", ["speaker", "emotion", "label"]].tolist() == ["DC", "sad", "sad"]
        assert manifest["emotion"].value_counts().to_dict() == dict.fromkeys(
            ("angry", "sad", "surprised", "neutral"), 4
        )
        assert len(folds.make_folds(manifest.reset_index())) == 4

    def test_a_strange_name(self, tmp_path):
        sounds(tmp_path / "DC", ["x01"])
        with pytest.raises(CorpusError, match="name is not of SAVEE, expected one like a01"):
            corpora.load("savee", tmp_path)
