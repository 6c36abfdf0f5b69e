"""IEMOCAP parser: by-hand answers on small trees, then the size and shape of the real release."""

import math
import shutil

import pandas as pd
import pytest
from trees import cut, noise, wav_bytes, write_iemocap_tree

from serkit import corpora
from serkit.constants import IEMOCAP_EMOTIONS, IEMOCAP_SPEAKERS
from serkit.corpora import iemocap
from serkit.errors import CorpusError, ParameterError

TAGS = ("ang", "sad", "neu", "hap", "exc")


def small_index():
    """Both speakers of each session say each of the five tags once, in two dialogues: 50 turns."""
    turns = []
    for session in range(1, 6):
        for letter, dialogue in (("F", "impro01"), ("M", "script01_1b")):
            for number, tag in enumerate(TAGS):
                # Markers on the woman throughout: the second dialogue's name says F, its turns M
                turns.append((f"Ses0{session}F_{dialogue}_{letter}{number:03d}", tag, 1000 + number))
    return pd.DataFrame(turns, columns=["utterance_id", "emotion", "num_samples"])


@pytest.fixture
def tree(tmp_path):
    """A small tree without the oddities of real ones."""
    return write_iemocap_tree(tmp_path / "release", small_index(), warts=False)


def evaluation(root, dialogue="Ses03F_impro01"):
    return root / f"Session{dialogue[4]}" / "dialog" / "EmoEvaluation" / f"{dialogue}.txt"


def wav(root, utterance="Ses03F_impro01_F002"):
    dialogue = utterance.rsplit("_", 1)[0]
    return root / f"Session{dialogue[4]}" / "sentences" / "wav" / dialogue / f"{utterance}.wav"


def replace(path, old, new):
    """Change a text file that must hold ``old``."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_one_row_by_hand(tmp_path):
    root = write_iemocap_tree(tmp_path, small_index(), exact_lengths=True, warts=False)
    manifest, problems = iemocap.read_tree(root)
    row = manifest.set_index("utterance_id").loc["Ses04F_script01_1b_M003"]
    assert row["path"] == str(wav(root, "Ses04F_script01_1b_M003"))
    expected = {
        "corpus": "iemocap", "speaker": "4M", "session": "4", "gender": "M",
        "dialogue": "Ses04F_script01_1b", "scripted": True, "emotion": "hap", "label": "happy",
        "num_samples": 1003, "sample_rate": 16_000, "valence": 2.5, "activation": 3.0, "dominance": 3.5,
        "transcript": "It\u2019s turn 3.",
    }  # fmt: skip
    assert row[list(expected)].to_dict() == expected
    assert row["agreement"] == pytest.approx(2 / 3)  # two of three evaluators; the actors don't count
    assert not manifest.set_index("utterance_id").loc["Ses04F_impro01_F003", "scripted"]
    assert problems == []


def test_labels_of_tags(tree):
    manifest, _ = iemocap.read_tree(tree, corpus="demo")
    pairs = set(zip(manifest["emotion"], manifest["label"], strict=True))
    assert pairs == {
        ("ang", "angry"),
        ("sad", "sad"),
        ("neu", "neutral"),
        ("hap", "happy"),
        ("exc", "happy"),
    }
    assert set(manifest["corpus"]) == {"demo"}
    assert len(manifest) == 50


def test_oddities_of_real_trees_are_read_over_or_reported(tmp_path):
    manifest, problems = iemocap.read_tree(write_iemocap_tree(tmp_path, small_index()))
    assert len(manifest) == 50 + 10 * 2  # ten dialogues with a fru and an xxx turn each
    by_id = manifest.set_index("utterance_id")
    for session in range(1, 6):  # 2 has CRLF and Windows-1252
        frustrated, undecided = (by_id.loc[f"Ses0{session}F_impro01_{turn}"] for turn in ("F996", "M997"))
        assert frustrated["emotion"] == "fru" and pd.isna(frustrated["label"])
        assert frustrated["agreement"] == pytest.approx(2 / 3)
        assert undecided["emotion"] == "xxx" and pd.isna(undecided["label"])
        assert math.isnan(undecided["agreement"])  # annotators chose Neutral: there is no tag to agree with
        assert undecided["speaker"] == f"{session}M"  # the dialogue's own letter is F
        assert by_id.loc[f"Ses0{session}F_impro01_F004", "transcript"] == "It\u2019s turn 4."
    assert "wavs without a label: Ses01F_impro01_F998" in problems
    assert "labels without a wav: Ses05F_script01_1b_M999" in problems
    assert len(problems) == 10 + 10


def test_evaluation_lines_by_hand():
    turns, unread = iemocap.parse_evaluation(
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 3.5000, 1.0000]\n"
        "C-E2:\tNeutral;\t()\nC-E3:\tNeutral state; Anger;\t(Sadness; really)\nC-E4:\tExcited;\t()\n"
        "C-F1:\tNeutral;\t(curious)\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
        "[8 - 9]\tSes01F_impro01_F001\tang\t[]\n"
        "[broken line\n"
    )
    assert turns[0].ratings == (2.5, 3.5, 1.0)
    assert turns[0].choices == [["neu"], ["neu", "ang"], ["exc"]]
    assert turns[1].utterance_id == "Ses01F_impro01_F001"
    assert all(math.isnan(rating) for rating in turns[1].ratings)
    assert turns[1].choices == []
    assert unread == ["[broken line"]


@pytest.mark.parametrize("line_end", ["\r", "\r\n"])
def test_foreign_line_ends_and_byte_order_mark(tree, line_end):
    before, _ = iemocap.read_tree(tree)
    for name in ("EmoEvaluation", "transcriptions"):
        file = tree / "Session3" / "dialog" / name / "Ses03F_impro01.txt"
        text = file.read_text(encoding="utf-8")
        file.write_bytes(text.replace("\n", line_end).encode("utf-8-sig"))
    after, problems = iemocap.read_tree(tree)
    pd.testing.assert_frame_equal(after, before)
    assert problems == []


def test_missing_transcriptions_and_annotators_leave_gaps(tree):
    shutil.rmtree(tree / "Session1" / "dialog" / "transcriptions")
    file = evaluation(tree, "Ses01F_impro01")
    file.write_text("[1.0 - 2.0]\tSes01F_impro01_F000\tang\t[2.0, 3.0, 4.0]\n")
    row = iemocap.read_tree(tree)[0].iloc[0]
    assert row["utterance_id"] == "Ses01F_impro01_F000"
    assert row["label"] == "angry"
    assert pd.isna(row["transcript"]) and math.isnan(row["agreement"])


@pytest.mark.parametrize("place", [".", "..", "../..", "Session2"])
def test_root_one_level_off_is_put_right(tmp_path, place):
    tree = write_iemocap_tree(tmp_path / "a" / "IEMOCAP_full_release", small_index(), warts=False)
    assert len(iemocap.read_tree(tree / place)[0]) == 50


@pytest.mark.parametrize("names", ["lower", "flat", "both"])
def test_folders_as_people_have_them(tmp_path, names):
    """In lower case, as some archives are repacked; all sounds of a session in one folder."""
    usual = write_iemocap_tree(tmp_path / "usual", small_index(), warts=False)
    other = shutil.copytree(usual, tmp_path / "other")
    for session in list(other.iterdir()):
        wavs = session / "sentences" / "wav"
        if names != "lower":
            for path in list(wavs.glob("*/*.wav")):
                path.rename(wavs / path.name)
        if names != "flat":
            (session / "dialog" / "EmoEvaluation").rename(session / "dialog" / "emoevaluation")
            (session / "dialog").rename(session / "Dialog")
            session.rename(other / session.name.lower())
    expected, problems = iemocap.read_tree(usual)
    manifest, other_problems = iemocap.read_tree(other)
    pd.testing.assert_frame_equal(manifest.drop(columns="path"), expected.drop(columns="path"))
    assert problems == other_problems == []


def test_missing_root_says_how_to_get_the_corpus(tmp_path):
    with pytest.raises(CorpusError, match=r"nowhere: no such folder.*data/README\.md"):
        iemocap.load(tmp_path / "nowhere")


def test_empty_root_and_archive_as_root(tmp_path):
    with pytest.raises(
        CorpusError, match=r"holds nothing, expected folders of iemocap such as Session1; data/"
    ):
        iemocap.load(tmp_path)
    for number in range(7):
        (tmp_path / f"ses{number}").mkdir()
    with pytest.raises(
        CorpusError, match=r"holds ses0, ses1, ses2, ses3, ses4 and 2 more, expected folders of iemocap"
    ):
        iemocap.load(tmp_path)
    archive = tmp_path / "IEMOCAP.tar.gz"
    archive.write_bytes(b"")
    with pytest.raises(CorpusError, match=r"is a file, expected the folder it unpacks to"):
        iemocap.load(archive)


def test_two_trees_below_the_root_are_not_chosen_from(tmp_path):
    for name in ("one", "two"):
        write_iemocap_tree(tmp_path / name, small_index(), warts=False)
    with pytest.raises(CorpusError, match=r"one, .*two could each be iemocap"):
        iemocap.read_tree(tmp_path)


def test_missing_session_is_named(tree):
    shutil.rmtree(tree / "Session3")
    message = r"found 4 of 5 sessions \(Session3 is missing\); check that the archive was unpacked fully"
    with pytest.raises(CorpusError, match=message):
        iemocap.load(tree)
    with pytest.raises(CorpusError, match=message):
        iemocap.read_tree(tree)


def test_half_unpacked_sessions_are_named(tree):
    shutil.rmtree(tree / "Session2" / "dialog")
    shutil.rmtree(tree / "Session4" / "sentences" / "wav")
    message = r"3 of 5 .*Session2 has nothing in dialog/EmoEvaluation, Session4 has nothing in sentences/wav"
    with pytest.raises(CorpusError, match=message):
        iemocap.load(tree)


def test_missing_session_is_only_reported(tree, capsys):
    shutil.rmtree(tree / "Session3")
    manifest = iemocap.load(tree, check="report")
    assert sorted(set(manifest["session"])) == ["1", "2", "4", "5"]
    assert "sessions left out (1): Session3 is missing" in capsys.readouterr().out


def test_truncated_wav_is_named(tree):
    cut(wav(tree), 2)  # one sample
    message = r"(?s)broken sound files \(1\): \S*Ses03F_impro01_F002\.wav: truncated, 2 of 1600 bytes.*report"
    with pytest.raises(CorpusError, match=message):
        iemocap.load(tree)


def test_truncated_wav_is_left_out_of_a_report(tree, capsys):
    cut(wav(tree), 2)
    manifest = iemocap.load(tree, check="report")
    assert len(manifest) == 49 and "Ses03F_impro01_F002" not in set(manifest["utterance_id"])
    assert "Ses03F_impro01_F002.wav: truncated" in capsys.readouterr().out


def test_truncated_wav_is_left_out_where_that_was_asked_for(tree, capsys):
    cut(wav(tree), 2)
    manifest = iemocap.load(tree, skip_broken=True)
    assert len(manifest) == 49 and "F002.wav: truncated" in capsys.readouterr().out
    replace(evaluation(tree), "Ses03F_impro01_F000\tang", "Ses03F_impro01_F000\tangry")
    with pytest.raises(CorpusError, match="unknown tags"):
        iemocap.load(tree, skip_broken=True)


def test_all_broken_files_are_counted_and_the_first_named(tree):
    for number in range(5):
        wav(tree, f"Ses03F_impro01_F00{number}").write_bytes(b"")
    wav(tree, "Ses04F_impro01_F000").write_bytes(wav_bytes(noise(0)))
    wav(tree, "Ses05F_impro01_F000").write_bytes(b"not a sound")
    with pytest.raises(
        CorpusError, match=r"broken sound files \(7\): .*F000\.wav: can't be read.* and 2 more"
    ):
        iemocap.load(tree)


def test_tree_of_broken_files_only_names_them(tmp_path):
    root = write_iemocap_tree(tmp_path, small_index(), warts=False)
    for path in root.glob("Session*/sentences/wav/*/*.wav"):
        path.write_bytes(b"")
    with pytest.raises(CorpusError, match=r"(?s)no utterance has both.*broken sound files \(50\)"):
        iemocap.read_tree(root)


def test_unknown_tag_names_file_utterance_and_tag(tree):
    replace(evaluation(tree), "Ses03F_impro01_F002\tneu", "Ses03F_impro01_F002\tneutral")
    message = r"Ses03F_impro01\.txt: utterance Ses03F_impro01_F002 has tag 'neutral', expected one of ang"
    with pytest.raises(CorpusError, match=message):
        iemocap.load(tree)


def test_unknown_tag_stays_outside_the_task_in_a_report(tree, capsys):
    replace(evaluation(tree), "Ses03F_impro01_F002\tneu", "Ses03F_impro01_F002\tneutral")
    row = iemocap.load(tree, check="report").set_index("utterance_id").loc["Ses03F_impro01_F002"]
    assert row["emotion"] == "neutral" and pd.isna(row["label"])
    assert "utterance Ses03F_impro01_F002 has tag 'neutral'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("Ses03F_impro01_F001", r"utterance Ses03F_impro01_F001, expected each turn once"),
        ("Ses04F_impro01_F002", r"utterance Ses04F_impro01_F002, expected .* in Session3"),
        ("Ses03F_impro01_X002", r"utterance Ses03F_impro01_X002, expected .* Ses03F_impro01_M003"),
        ("", r"unreadable evaluation lines \(1\): .*Ses03F_impro01\.txt: '\[2\.0000"),
    ],
)
def test_evaluation_line_that_fits_no_turn(tree, new, message):
    replace(evaluation(tree), "Ses03F_impro01_F002", new)
    with pytest.raises(CorpusError, match=message):
        iemocap.load(tree)


def test_counts_that_are_not_the_release(tree):
    with pytest.raises(CorpusError, match="not those of the full IEMOCAP release") as caught:
        iemocap.load(tree)
    lines = [line.split() for line in str(caught.value).splitlines()]
    assert ["emotion", "ang", "10", "1103", "-1093"] in lines
    assert ["5M", "5", "651", "-646"] in lines
    assert ["all", "utterances", "50", "5531", "-5481"] in lines
    assert 'check="report"' in str(caught.value)


def test_report_prints_the_table_and_goes_on(tree, capsys):
    assert len(iemocap.load(tree, check="report")) == 50
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["all", "utterances", "50", "5531", "-5481"] in lines


def test_other_checks_are_refused(tree):
    with pytest.raises(ParameterError, match=r"check='lax', expected one of strict, report"):
        corpora.load("demo", tree, check="lax")  # whatever the corpus, and before it is read


# The real release's index: ids, tags and lengths, no sound


@pytest.fixture(scope="module")
def full_tree(shared, tmp_path_factory):
    """A tree of the release's size and shape; tests that change it put it back."""
    file = shared / "data" / "iemocap_index.csv"
    if not file.is_file():
        pytest.skip("the shared folder beside the clone holds no data/iemocap_index.csv")
    return write_iemocap_tree(tmp_path_factory.mktemp("iemocap"), pd.read_csv(file))


def test_full_release_has_the_published_counts(full_tree):
    manifest = iemocap.load(full_tree)
    task = manifest[manifest["label"].notna()]
    assert len(task) == 5531
    assert task["emotion"].value_counts().to_dict() == {
        "ang": 1103, "hap": 595, "exc": 1041, "sad": 1084, "neu": 1708,
    }  # fmt: skip
    assert task["speaker"].value_counts().to_dict() == {
        "1F": 528, "1M": 557, "2F": 481, "2M": 542, "3F": 522,
        "3M": 629, "4F": 528, "4M": 503, "5F": 590, "5M": 651,
    }  # fmt: skip
    assert task["label"].value_counts()["happy"] == 595 + 1041
    table = iemocap.count_table(manifest)
    assert list(table.columns) == ["found", "expected", "difference"]
    assert len(table) == len(IEMOCAP_EMOTIONS) + len(IEMOCAP_SPEAKERS) + 1
    assert not table["difference"].any()


def test_full_release_without_session_3(full_tree, tmp_path):
    (full_tree / "Session3").rename(tmp_path / "Session3")
    try:
        with pytest.raises(CorpusError, match=r"found 4 of 5 sessions \(Session3 is missing\)"):
            iemocap.load(full_tree)
    finally:
        (tmp_path / "Session3").rename(full_tree / "Session3")


def test_full_release_with_one_broken_wav(full_tree):
    path = min(full_tree.glob("Session5/sentences/wav/*/[!.]*.wav"))
    content = path.read_bytes()
    cut(path, 100)
    try:
        with pytest.raises(CorpusError, match=rf"{path.name}: truncated, 100 of 1600 bytes"):
            iemocap.load(full_tree)
    finally:
        path.write_bytes(content)


def test_full_release_with_one_wav_less(full_tree, tmp_path):
    path = full_tree / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"
    path.rename(tmp_path / "kept.wav")
    try:
        with pytest.raises(CorpusError, match=r"utterances +5530 +5531 +-1\n(.*\n)*.*Ses01F_impro01_F000"):
            iemocap.load(full_tree)
    finally:
        (tmp_path / "kept.wav").rename(path)
