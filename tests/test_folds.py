"""Folds: sizes by hand, IEMOCAP's shape, and no speaker on two sides, whatever the manifest."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serkit.constants import IEMOCAP_SPEAKERS, IEMOCAP_UTTERANCES
from serkit.errors import FoldError, ParameterError
from serkit.folds import SPLITS, Fold, check_folds, find_fold, fold_table, make_folds

SELECTIONS = ("published", "clean", "last")  # clean9 has tests of its own

LABEL_OF = {"ang": "angry", "sad": "sad", "hap": "happy", "exc": "happy", "neu": "neutral"}
SPEAKERS = [f"{session}{letter}" for session in "12345" for letter in "FM"]


def manifest_of(counts, unlabelled=0):
    """The columns that folds need; session is the speaker's first character.

    Parameters
    ----------
    counts : dict of str to int
        Utterances of each speaker.
    unlabelled : int
        Utterances outside the task, on top of them.
    """
    rows = [
        (f"{speaker}_{number:03d}", speaker, speaker[0], "sad" if number < count else None)
        for speaker, count in counts.items()
        for number in range(count + unlabelled)
    ]
    return pd.DataFrame(rows, columns=["utterance_id", "speaker", "session", "label"])


@pytest.fixture(params=["synthetic", "iemocap"])
def corpus(request):
    """Manifest and utterances of each speaker: a small one always, IEMOCAP's own where its index is."""
    if request.param == "synthetic":
        counts = {speaker: 3 + number for number, speaker in enumerate(SPEAKERS)}
        return manifest_of(counts, unlabelled=2).sample(frac=1, random_state=0), counts
    path = request.getfixturevalue("shared") / "data" / "iemocap_index.csv"
    if not path.is_file():
        pytest.skip("no data/iemocap_index.csv in the shared folder")
    index = pd.read_csv(path)
    manifest = index.assign(
        label=index["emotion"].map(LABEL_OF),
        session=index["utterance_id"].str[4],
        speaker=index["utterance_id"].str[4] + index["utterance_id"].str.rsplit("_", n=1).str[1].str[0],
    )
    assert len(manifest) == IEMOCAP_UTTERANCES
    return manifest, IEMOCAP_SPEAKERS


def speakers_in(fold, split, manifest):
    speaker_of = manifest.set_index("utterance_id")["speaker"]
    return set(speaker_of.loc[getattr(fold, split)])


class TestIemocapShape:
    """Two speakers in each of five sessions."""

    @pytest.mark.parametrize("selection", SELECTIONS)
    def test_by_speaker(self, corpus, selection):
        manifest, counts = corpus
        folds = make_folds(manifest, by="speaker", selection=selection)
        assert [fold.name for fold in folds] == SPEAKERS
        total = sum(counts.values())
        for fold in folds:
            other = fold.name[0] + ("M" if fold.name[1] == "F" else "F")
            test, partner = counts[fold.name], counts[other]
            sizes = {
                "published": (total - test, test, test),
                "clean": (total - test - partner, partner, test),
                "last": (total - test, 0, test),
            }
            assert (len(fold.train), len(fold.validation), len(fold.test)) == sizes[selection]

    @pytest.mark.parametrize("selection", SELECTIONS)
    def test_by_session(self, corpus, selection):
        manifest, counts = corpus
        of_session = {s: counts[s + "F"] + counts[s + "M"] for s in "12345"}
        total = sum(counts.values())
        folds = make_folds(manifest, by="session", selection=selection)
        assert [fold.name for fold in folds] == list("12345")
        for fold, following in zip(folds, "23451", strict=True):
            test, next_one = of_session[fold.name], of_session[following]
            sizes = {
                "published": (total - test, test, test),
                "clean": (total - test - next_one, next_one, test),
                "last": (total - test, 0, test),
            }
            assert (len(fold.train), len(fold.validation), len(fold.test)) == sizes[selection]

    def test_clean_by_speaker_is_eight_one_one(self, corpus):
        manifest, _ = corpus
        for fold in make_folds(manifest, by="speaker", selection="clean"):
            train, validation, test = (speakers_in(fold, split, manifest) for split in SPLITS)
            assert test == {fold.name}
            assert validation == {s for s in SPEAKERS if s[0] == fold.name[0]} - test
            assert train == set(SPEAKERS) - test - validation
            assert len(train) == 8

    def test_clean_by_session_is_six_two_two(self, corpus):
        manifest, _ = corpus
        following = {"1": "2", "2": "3", "3": "4", "4": "5", "5": "1"}
        for fold in make_folds(manifest, by="session", selection="clean"):
            train, validation, test = (speakers_in(fold, split, manifest) for split in SPLITS)
            assert test == {fold.name + "F", fold.name + "M"}
            assert validation == {following[fold.name] + "F", following[fold.name] + "M"}
            assert train == set(SPEAKERS) - test - validation

    @pytest.mark.parametrize("by", ["speaker", "session"])
    def test_published_selects_on_the_test_data(self, corpus, by):
        manifest, _ = corpus
        for fold in make_folds(manifest, by=by, selection="published"):
            assert fold.validation.tolist() == fold.test.tolist()
            assert not speakers_in(fold, "train", manifest) & speakers_in(fold, "test", manifest)

    @pytest.mark.parametrize("by", ["speaker", "session"])
    @pytest.mark.parametrize("selection", SELECTIONS)
    def test_every_utterance_is_tested_once(self, corpus, by, selection):
        manifest, _ = corpus
        tested = np.concatenate([fold.test for fold in make_folds(manifest, by=by, selection=selection)])
        assert sorted(tested) == sorted(manifest["utterance_id"][manifest["label"].notna()])

    def test_order_of_rows_does_not_matter(self, corpus):
        manifest, _ = corpus
        folds = make_folds(manifest)
        for fold, other in zip(folds, make_folds(manifest[::-1]), strict=True):
            for split in SPLITS:
                assert set(getattr(fold, split)) == set(getattr(other, split))


# utterances of each of the two or three speakers of a session
random_counts = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=3, max_size=6)


class TestNoSpeakerInTwoSplits:
    @given(counts=random_counts, by=st.sampled_from(["speaker", "session"]), seed=st.integers(0, 99))
    @settings(deadline=None, derandomize=True, max_examples=25)
    def test_whatever_the_manifest(self, counts, by, seed):
        manifest = manifest_of(
            {f"{s + 1}{'FMX'[i]}": n for s, part in enumerate(counts) for i, n in enumerate(part)}, 1
        ).sample(frac=1, random_state=seed)
        alone = by == "speaker" and min(len(part) for part in counts) == 1
        for selection in ("published", "last") if alone else SELECTIONS:
            for fold in make_folds(manifest, by=by, selection=selection):
                train, validation, test = (speakers_in(fold, split, manifest) for split in SPLITS)
                assert train
                assert test
                assert not train & test
                assert not train & validation
                assert (validation & test) == (test if selection == "published" else set())
                for split in SPLITS:
                    assert len(set(getattr(fold, split))) == len(getattr(fold, split))


class TestGuard:
    manifest = manifest_of({"1F": 3, "1M": 4, "2F": 5, "2M": 6, "3F": 7, "3M": 8})

    def fold(self, by="session", selection="clean"):
        return make_folds(self.manifest, by=by, selection=selection)[0]

    def test_what_make_folds_gives_passes(self):
        for selection in SELECTIONS:
            check_folds(make_folds(self.manifest, selection=selection), self.manifest, selection)

    @pytest.mark.parametrize("selection", SELECTIONS)
    def test_train_and_test_never(self, selection):
        """Not even as published."""
        fold = self.fold(selection=selection)
        leaking = dataclasses.replace(fold, train=np.append(fold.train, ["1F_000", "1F_002"]))
        message = r"fold 1: speaker 1F is in train \(2 utterances\) and in test \(3\); build folds with"
        with pytest.raises(FoldError, match=message):
            check_folds([leaking], self.manifest, selection)

    def test_another_utterance_of_the_same_speaker_is_a_leak_too(self):
        fold = self.fold()
        leaking = dataclasses.replace(
            fold, train=np.append(fold.train, "1M_000"), test=fold.test[fold.test != "1M_000"]
        )
        with pytest.raises(FoldError, match=r"speaker 1M is in train \(1 utterances\) and in test \(3\)"):
            check_folds([leaking], self.manifest)

    @pytest.mark.parametrize("selection", SELECTIONS)
    def test_train_and_validation_never(self, selection):
        fold = self.fold()
        leaking = dataclasses.replace(fold, train=np.append(fold.train, "2M_005"))
        with pytest.raises(
            FoldError, match=r"speaker 2M is in train \(1 utterances\) and in validation \(6\)"
        ):
            check_folds([leaking], self.manifest, selection)

    def test_validation_and_test_only_when_asked_for_by_name(self):
        folds = make_folds(self.manifest, selection="published")
        check_folds(folds, self.manifest, "published")
        for selection in ("clean", "last"):
            with pytest.raises(
                FoldError, match=r"speaker 1F is in validation \(3 utterances\) and in test \(3\)"
            ):
                check_folds(folds, self.manifest, selection)
        with pytest.raises(FoldError, match="in validation"):
            check_folds(folds, self.manifest)

    def test_empty_and_unknown_parts(self):
        fold = self.fold()
        nobody = np.array([], dtype=str)
        for split in ("train", "test"):
            with pytest.raises(FoldError, match=f"fold 1: {split} is empty"):
                check_folds([dataclasses.replace(fold, **{split: nobody})], self.manifest)
        with pytest.raises(FoldError, match="fold 1: utterance 9F_000 is not in the manifest"):
            check_folds([dataclasses.replace(fold, train=np.append(fold.train, "9F_000"))], self.manifest)


class TestTooFew:
    def test_messages(self):
        two = manifest_of({"1F": 3, "1M": 4, "2F": 5})
        with pytest.raises(
            FoldError,
            match=r"by='session', selection='clean': found 2 sessions in 2 sessions, expected at least 3",
        ):
            make_folds(two, by="session", selection="clean")
        one = manifest_of({"1F": 3, "1M": 4})
        for by in ("speaker", "session"):
            for selection in SELECTIONS:
                with pytest.raises(FoldError, match="in 1 sessions, expected at least"):
                    make_folds(one, by=by, selection=selection)

    def test_two_sessions_are_enough_otherwise(self):
        two = manifest_of({"1F": 3, "1M": 4, "2F": 5})
        assert len(make_folds(two, by="session", selection="last")) == 2

    def test_clean_never_falls_back_to_no_selection(self):
        """2F is alone in her session: there is nobody else to validate on."""
        alone = manifest_of({"1F": 3, "1M": 4, "2F": 5, "3F": 2, "3M": 2})
        with pytest.raises(FoldError, match="fold 2F: its session has no other speaker to validate on"):
            make_folds(alone, by="speaker", selection="clean")
        assert all(len(fold.validation) for fold in make_folds(alone, by="session", selection="clean"))
        assert len(make_folds(alone, by="speaker", selection="last")) == 5

    def test_unlabelled_speakers_do_not_count(self):
        manifest = manifest_of({"1F": 3, "2F": 0, "3F": 5}, unlabelled=2)
        assert [fold.name for fold in make_folds(manifest, by="speaker", selection="last")] == ["1F", "3F"]

    def test_bad_arguments(self):
        manifest = manifest_of({"1F": 3, "2F": 4})
        with pytest.raises(ParameterError, match="by='dialogue', expected one of speaker, session"):
            make_folds(manifest, by="dialogue")
        with pytest.raises(
            ParameterError, match="selection='test', expected one of published, clean, clean9, last"
        ):
            make_folds(manifest, selection="test")


@pytest.mark.parametrize("selection", SELECTIONS)
def test_fold_table_round_trip_through_csv(tmp_path, corpus, selection):
    manifest, _ = corpus
    folds = make_folds(manifest, by="speaker", selection=selection)
    table = fold_table(folds)
    assert table.columns.tolist() == ["fold", "split", "utterance_id"]
    table.to_csv(tmp_path / "folds.csv", index=False)
    read = pd.read_csv(tmp_path / "folds.csv", dtype=str)
    again = [
        Fold(name, *(rows["utterance_id"][rows["split"] == split].to_numpy(str) for split in SPLITS))
        for name, rows in read.groupby("fold", sort=False)
    ]
    check_folds(again, manifest, selection)
    assert [fold.name for fold in again] == [fold.name for fold in folds]
    for fold, other in zip(folds, again, strict=True):
        for split in SPLITS:
            assert getattr(fold, split).tolist() == getattr(other, split).tolist()


def test_find_fold():
    folds = make_folds(manifest_of({"1F": 3, "2F": 4, "3F": 2}))
    assert find_fold(folds, "2") is find_fold(folds, 2) is folds[1]
    with pytest.raises(ParameterError, match="fold=4, expected one of 1, 2, 3"):
        find_fold(folds, "4")


class TestClean9:
    TABLE = pd.DataFrame({
        "utterance_id": [f"{speaker}_{number}" for speaker in ("1F", "1M", "2F", "2M") for number in range(8)],
        "speaker": np.repeat(["1F", "1M", "2F", "2M"], 8), "session": np.repeat(["1", "2"], 16), "label": "sad",
    })  # fmt: skip

    def test_all_others_train_and_every_eighth_utterance_of_other_sessions_chooses(self):
        fold = make_folds(self.TABLE, by="speaker", selection="clean9")[0]
        assert fold.validation.tolist() == ["2F_0", "2M_0"]
        assert {name[:2] for name in fold.train} == {"1M", "2F", "2M"} and len(fold.train) == 22
        assert {name[:2] for name in fold.test} == {"1F"}

    def test_it_is_about_speakers(self):
        with pytest.raises(FoldError, match="selection='clean9' with by='session', expected by='speaker'"):
            make_folds(self.TABLE, by="session", selection="clean9")


class TestUnseenText:
    """No sentence that is tested is trained on."""

    @staticmethod
    def manifest(texts):
        """Two speakers in each of three sessions, each of whom says all texts once."""
        rows = [
            (f"{speaker}_{number}", speaker, speaker[0], "sad", text, f"scene {number}")
            for speaker in ("1F", "1M", "2F", "2M", "3F", "3M")
            for number, text in enumerate(texts)
        ]
        columns = ["utterance_id", "speaker", "session", "label", "transcript", "dialogue"]
        return pd.DataFrame(rows, columns=columns).astype({"transcript": "string"})

    @pytest.mark.parametrize("selection", SELECTIONS)
    @pytest.mark.parametrize("by", ["session", "speaker"])
    def test_sentences_are_shared_out(self, by, selection):
        manifest = self.manifest(["Kids are talking.", "Dogs are sitting."])
        text_of = manifest.set_index("utterance_id")["transcript"]
        for fold, whole in zip(
            make_folds(manifest, by, selection, unseen_text=True),
            make_folds(manifest, by, selection),
            strict=True,
        ):
            assert not set(text_of[fold.train]) & set(text_of[fold.test])
            assert len(fold.train) == len(whole.train) / 2 and len(fold.test) == len(whole.test) / 2
            same = selection == "published"
            assert fold.validation.tolist() == (fold.test if same else whole.validation).tolist()

    def test_both_halves_are_tested_in_turn(self):
        manifest = self.manifest(["Kids are talking.", "Dogs are sitting."])
        folds = make_folds(manifest, "session", "last", unseen_text=True)
        assert [fold.test[0][-2:] for fold in folds] == ["_1", "_0", "_1"]  # dogs come first by name

    def test_writing_does_not_hide_a_sentence(self):
        manifest = self.manifest(["Well, yes!"])
        manifest.loc[manifest["speaker"] == "1F", "transcript"] = "well yes"
        with pytest.raises(
            FoldError, match="fold 1F: unseen_text=True with 1 sentences on both sides leaves nothing"
        ):
            make_folds(manifest, "speaker", "last", unseen_text=True)
