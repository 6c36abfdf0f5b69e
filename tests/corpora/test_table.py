"""A corpus from one table: what is understood, what is refused with its line, and the same as a reader's."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from serkit import corpora, folds
from serkit.corpora import table
from serkit.corpora.manifest import COLUMNS
from serkit.errors import CorpusError, FoldError, ParameterError
from serkit.features.store import store_key
from serkit.recipe import CORRECTED

RAVDESS = Path(__file__).parents[3] / "shared" / "data" / "ravdess"
HEAD = "file,spk,emo"


def sound(path, seconds=1.0, seed=0):
    """Noise that differs by seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 0.1, int(16_000 * seconds))
    soundfile.write(path, noise, 16_000, "PCM_16")
    return path


@pytest.fixture
def folder(tmp_path):
    """Twelve sounds, ``s0.wav`` to ``s11.wav``."""
    for number in range(12):
        sound(tmp_path / f"s{number}.wav", seed=number)
    return tmp_path


def write(folder, lines, name="mine.csv", toml=""):
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    if toml:
        (folder / name).with_suffix(".toml").write_text(toml, encoding="utf-8")
    return folder / name


def lines_of(emotions=("angry", "sad", "happy", "neutral"), speakers=("a", "b", "c")):
    """A line for each speaker and emotion."""
    pairs = [(speaker, emotion) for speaker in speakers for emotion in emotions]
    return [HEAD, *(f"s{n}.wav,{speaker},{emotion}" for n, (speaker, emotion) in enumerate(pairs))]


class TestWhatIsUnderstood:
    def test_a_table_by_hand(self, folder):
        manifest = table.load(write(folder, lines_of()), name="mine")
        assert list(manifest.columns) == list(COLUMNS)
        assert manifest["label"].value_counts().to_dict() == {"angry": 3, "sad": 3, "happy": 3, "neutral": 3}
        assert manifest.loc[0, ["utterance_id", "speaker", "corpus", "num_samples"]].tolist() == [
            "s0",
            "a",
            "mine",
            16000,
        ]
        assert manifest["session"].nunique() == 3  # a group for each speaker

    @pytest.mark.parametrize("suffix", [".tsv", ".jsonl", ".parquet"])
    def test_every_format_says_the_same(self, folder, suffix):
        expected = table.load(write(folder, lines_of()))
        rows = pd.read_csv(folder / "mine.csv")
        path = folder / f"other{suffix}"
        if suffix == ".tsv":
            rows.to_csv(path, sep="\t", index=False)
        elif suffix == ".jsonl":
            path.write_text("\n".join(json.dumps(record) for record in rows.to_dict("records")))
        else:
            rows.to_parquet(path)
        pd.testing.assert_frame_equal(table.load(path), expected)

    def test_german_words_and_semicolons_in_windows_1252(self, folder):
        text = "Datei;Sprecher;Gefühl\ns0.wav;Jörg;Wut\ns1.wav;Anna;Fröhlich\n".replace("Gefühl", "emotion")
        (folder / "mine.csv").write_bytes(text.encode("cp1252"))
        manifest = table.load(folder / "mine.csv")
        assert manifest["label"].tolist() == ["angry", "happy"]
        assert manifest["speaker"].tolist() == ["Jörg", "Anna"]

    def test_the_toml_file_comes_first(self, folder):
        toml = '[columns]\nspeaker = "emo"\nemotion = "spk"\n[emotions]\na = "bored"\nb = "angry"\nc = ""\n'
        toml += '[task]\nclasses = ["angry", "bored"]\n'
        manifest = table.load(write(folder, lines_of(), toml=toml))
        assert manifest["label"].fillna("").value_counts().to_dict() == {"bored": 4, "angry": 4, "": 4}
        assert set(manifest["speaker"]) == {"angry", "sad", "happy", "neutral"}

    def test_stretches_of_a_recording_are_cut_out_once(self, folder):
        waveform, _ = soundfile.read(sound(folder / "long.wav", 3.0), dtype="int16")
        lines = [
            "file,start,end,speaker,emotion",
            "long.wav,0.5,1.25,a,sad",
            "long.wav,0 days 00:00:01.5,2,b,angry",
        ]
        path = write(folder, lines)
        manifest = table.load(path)
        assert manifest["utterance_id"].tolist() == ["long_1500", "long_500"]
        assert manifest["num_samples"].tolist() == [8_000, 12_000]
        cut, _ = soundfile.read(manifest["path"][1], dtype="int16")
        np.testing.assert_array_equal(cut, waveform[8_000:20_000])
        written = Path(manifest["path"][1]).stat().st_mtime_ns
        table.load(path)
        assert Path(manifest["path"][1]).stat().st_mtime_ns == written

    def test_a_majority_of_annotators_is_the_emotion(self, folder):
        lines = ["file,speaker,ratings", "s0.wav,a,anger;ang;sad", "s1.wav,b,sad|happy", "s2.wav,b,neutral"]
        manifest = table.load(write(folder, lines))
        assert manifest["label"].fillna("").tolist() == ["angry", "", "neutral"]
        assert manifest["ratings"].tolist() == ["angry;angry;sad", "sad;happy", "neutral"]

    def test_groups_of_speakers_hold_women_and_men(self, folder):
        lines = ["file,speaker,emotion,sex"]
        lines += [f"s{n}.wav,{n},sad,{'weiblich' if n < 6 else 'm'}" for n in range(12)]
        manifest = table.load(write(folder, lines, toml="[task]\ngroups = 3\n"))
        counts = manifest.groupby("session")["gender"].value_counts()
        assert counts.to_dict() == {(session, sex): 2 for session in "123" for sex in "FM"}

    @pytest.mark.skipif(not RAVDESS.is_dir(), reason="needs the shared RAVDESS")
    def test_ravdess_as_a_table_is_what_its_reader_gives(self, tmp_path):
        expected = corpora.load("ravdess", RAVDESS)
        derived = [
            "num_samples",
            "sample_rate",
            "digest",
            "label",
            "agreement",
            "valence",
            "activation",
            "dominance",
        ]
        expected.drop(columns=derived).to_csv(tmp_path / "ravdess.csv", index=False)
        manifest = table.load(tmp_path / "ravdess.csv", name="ravdess")
        pd.testing.assert_frame_equal(manifest, expected)
        assert store_key(manifest, CORRECTED) == store_key(expected, CORRECTED)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (["a,b,c", "s0.wav,x,sad"], "no column for path among the columns a, b, c; say in mine.toml"),
            ([HEAD, "s0.wav,,sad"], "line 2: speaker is empty"),
            ([HEAD, "s0.wav,x,sad", "s1.wav,x,furios"], "line 3: emotion 'furios' is not known"),
            ([HEAD, "s0.wav,x,sad,more"], "line 2 has not as many columns as the first line"),
            ([HEAD, "s0.wav,x"], "line 2 has not as many columns as the first line"),
            ([HEAD, "none.wav,x,sad"], r"line 2: .*none\.wav.*no such file"),
            ([HEAD, "s0.wav,x,sad", "s0.wav,y,sad"], "line 2: utterance s0 stands there more than once"),
            (["file,speaker,emotion,gender", "s0.wav,x,sad,cat"], "line 2: gender='cat', expected one of F, M"),
            (["file,speaker,emotion,split", "s0.wav,x,sad,maybe"], "line 2: split='maybe', expected one of train"),
            (["file,speaker,emotion,valence", "s0.wav,x,sad,much"], "line 2: valence='much', expected a number"),
            (["file,speaker,emotion,start,end", "s0.wav,x,sad,2,1"], "line 2: start_s=2.0 and end_s=1.0"),
            (["file,speaker,emotion,start,end", "s0.wav,x,sad,2,9"], r"line 2: .*1\.00 s long, expected at least 9"),
            ([HEAD], "holds no rows"),
        ],
    )  # fmt: skip
    def test_a_mistake_is_named_with_its_line(self, folder, lines, message):
        path = write(folder, lines)
        with pytest.raises(CorpusError, match=message):
            table.load(path)

    def test_all_mistakes_are_named_and_nothing_is_half_read(self, folder):
        lines = [*lines_of(), "s12.wav,a,sad", "s1.wav,,sad", "s2.wav,a,furios"]
        with pytest.raises(CorpusError, match=r"3 faults: .*line 15.*line 16.*line 14"):
            table.load(write(folder, lines))

    def test_broken_sounds_can_be_left_out(self, folder, capsys):
        (folder / "s3.wav").write_bytes(b"no sound")
        manifest = table.load(write(folder, lines_of()), skip_broken=True)
        assert len(manifest) == 11
        assert "line 5" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("toml", "message"),
        [
            ("[columns", "Expected .]. at the end"),
            ("[tasks]\n", "tasks. is not a setting, did you mean .task"),
            ('[task]\nclass = "all"\n', "class. is not a setting, did you mean .classes"),
            ('[task]\nclasses = ["angry"]\n', "expected a list of 2 to 12 emotions"),
            ("[task]\ngroups = 1\n", "groups=1, expected a whole number from 2"),
            ('[columns]\nspeaker = "voice"\n', "no column .voice. among the columns file, spk, emo"),
        ],
    )
    def test_a_wrong_toml_file_is_named(self, folder, toml, message):
        with pytest.raises(CorpusError, match=message):
            table.load(write(folder, lines_of(), toml=toml))

    def test_a_misspelt_corpus_is_recognised(self):
        with pytest.raises(ParameterError, match="did you mean 'ravdess'"):
            corpora.load("ravdes")


class TestCheck:
    def test_doubts_are_printed_with_the_folds(self, folder, capsys):
        shutil.copy(folder / "s0.wav", folder / "s5.wav")
        lines = ["file,speaker,emotion,session", *(f"s{n}.wav,{n % 4},sad,{n % 3}" for n in range(12))]
        assert table.check(write(folder, lines))
        printed = capsys.readouterr().out
        assert "speaker 0 is in sessions 0, 1, 2" in printed
        assert "class angry has 0 utterances" in printed
        assert "perhaps the same sound 2 times: s0 (line 2), s5 (line 7)" in printed
        assert "1 classes, expected 2 to 12: choose in [task] classes from sad" in printed
        assert "by=speaker, selection=last" not in printed

    def test_faults_are_printed(self, folder, capsys):
        assert not table.check(write(folder, [HEAD, "s0.wav,a,sad", "s1.wav,a,furios"]))
        assert "wrong (1):\n  line 3: emotion 'furios'" in capsys.readouterr().out


class TestFolds:
    def split_table(self, folder, splits):
        lines = ["file,speaker,emotion,split"]
        lines += [f"s{n}.wav,{n},{('sad', 'angry')[n % 2]},{split}" for n, split in enumerate(splits)]
        return table.load(write(folder, lines))

    def test_its_own_split_is_one_fold(self, folder):
        manifest = self.split_table(folder, ["train"] * 6 + ["dev"] * 2 + ["test"] * 4)
        (fold,) = folds.make_folds(manifest, by="split")
        assert (fold.name, len(fold.train), len(fold.validation), len(fold.test)) == ("test", 6, 2, 4)
        (fold,) = folds.make_folds(manifest, by="split", selection="last")
        assert len(fold.validation) == 0

    def test_without_validation_it_says_what_to_do(self, folder):
        manifest = self.split_table(folder, ["train"] * 8 + ["test"] * 4)
        with pytest.raises(FoldError, match=r"nothing is in validation; .*selection='last'"):
            folds.make_folds(manifest, by="split")

    def test_a_speaker_on_both_sides_is_found(self, folder):
        manifest = self.split_table(folder, ["train"] * 8 + ["test"] * 4).assign(speaker="me")
        with pytest.raises(FoldError, match=r"speaker me is in train .* and in test"):
            folds.make_folds(manifest, by="split", selection="last")

    def test_a_sound_on_both_sides_is_found_under_another_name(self, folder):
        shutil.copy(folder / "s0.wav", folder / "s11.wav")
        manifest = self.split_table(folder, ["train"] * 8 + ["test"] * 4)
        with pytest.raises(FoldError, match="s0 in train and s11 in test are the same sound"):
            folds.make_folds(manifest, by="split", selection="last")

    def test_an_equal_middle_is_not_taken_for_the_same_sound(self, folder):
        for name, start in (("s0", 0.1), ("s11", 0.2)):
            samples = np.zeros(16_000)
            samples[:100] = start
            soundfile.write(folder / f"{name}.wav", samples, 16_000, "PCM_16")
        manifest = self.split_table(folder, ["train"] * 8 + ["test"] * 4)
        assert manifest["digest"].duplicated().any()
        assert folds.make_folds(manifest, by="split", selection="last")


class TestAcrossCorpora:
    @pytest.fixture
    def project(self, folder, monkeypatch):
        for name, start in (("one", 0), ("two", 6)):
            lines = [
                HEAD,
                *(f"../../s{n}.wav,{n},{('sad', 'angry')[n % 2]}" for n in range(start, start + 6)),
            ]
            (folder / "data" / name).mkdir(parents=True)
            write(folder / "data" / name, lines)
        (folder / "notebooks").mkdir()
        (folder / "notebooks/01_prepare_corpus.ipynb").write_text("{}")
        monkeypatch.chdir(folder)
        return folder

    def test_one_is_trained_on_and_the_other_tested(self, project):
        manifest = corpora.load("one-to-two")
        (fold,) = folds.make_folds(manifest, by="split")
        assert {name.partition("_")[0] for name in (*fold.train, *fold.validation)} == {"one"}
        assert {name.partition("_")[0] for name in fold.test} == {"two"}
        assert len(fold.test) == 6
        assert manifest["speaker"].nunique() == 12

    def test_roots_are_given_by_name(self, project):
        shutil.move(project / "data/two", project / "away")
        for line in ("../../s", "../s"):
            path = project / "away/mine.csv"
            path.write_text(path.read_text().replace("../../s", line))
        assert len(corpora.load("one-to-two", f"two={project / 'away'}")) == 12

    @pytest.mark.parametrize(
        ("name", "root", "message"),
        [
            ("one-to-one", "", "expected different corpora for training and test"),
            ("one-to-two", "three=/x", "expected NAME=FOLDER of one, two, separated by commas; not 'three'"),
            ("one-to-none", "", "corpus='none': expected one of"),
        ],
    )
    def test_mistakes_are_named(self, project, name, root, message):
        with pytest.raises(ParameterError, match=message):
            corpora.load(name, root)

    def test_a_sound_in_both_corpora_is_found(self, project):
        shutil.copy(project / "s0.wav", project / "s11.wav")
        with pytest.raises(FoldError, match="one_s0 in train and two_s11 in test are the same sound"):
            folds.make_folds(corpora.load("one-to-two"), by="split")
