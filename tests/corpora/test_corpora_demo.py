"""The demo corpus: layout, counts, that words don't tell the label and prosody does."""

import dataclasses
import re
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy.stats import chi2_contingency

from serkit import corpora
from serkit.constants import LABELS, SAMPLE_RATE
from serkit.corpora import demo, voices
from serkit.errors import CorpusError
from serkit.folds import task_rows
from serkit.metrics import unweighted_accuracy


@pytest.fixture(scope="session")
def manifest(tmp_path_factory):
    """The whole corpus, spoken once."""
    return demo.load(tmp_path_factory.mktemp("demo") / "corpus")


@pytest.fixture
def small(monkeypatch):
    """One dialogue of each session: 55 turns, spoken in a second."""
    turns = [turn for turn in demo.plan() if turn.dialogue.endswith("F_impro01")]
    monkeypatch.setattr(demo, "plan", lambda: turns)
    return turns


def root_of(manifest):
    return Path(manifest["path"][0]).parents[4]


def folders(folder):
    return [path.name for path in folder.iterdir() if path.is_dir()]


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


# layout and counts


def test_counts_are_those_announced(manifest):
    assert len(manifest) == 480
    assert manifest["label"].value_counts().to_dict() == {
        "neutral": 140,
        "happy": 120,
        "angry": 90,
        "sad": 90,
    }
    assert manifest["emotion"].value_counts().to_dict() == {
        "neu": 140, "ang": 90, "sad": 90, "exc": 80, "hap": 40, "fru": 20, "sur": 10, "xxx": 10,
    }  # fmt: skip
    assert set(manifest["corpus"]) == {"demo"}


def test_ten_speakers_in_five_sessions(manifest):
    speakers = task_rows(manifest).groupby("speaker").size()
    assert speakers.to_dict() == {f"{session}{gender}": 44 for session in range(1, 6) for gender in "FM"}
    assert (manifest["session"] == manifest["speaker"].str[0]).all()
    assert (manifest["gender"] == manifest["speaker"].str[1]).all()
    assert manifest.groupby("scripted").size().to_dict() == {False: 220, True: 260}


def test_tree_is_laid_out_like_iemocap(manifest):
    root = root_of(manifest)
    session = root / "Session2"
    dialogues = sorted(path.name for path in (session / "sentences/wav").iterdir())
    assert dialogues == sorted(f"Ses02{name}" for name in [*demo.DIALOGUES, demo.PARALLEL_DIALOGUE])
    evaluation = (session / "dialog/EmoEvaluation/Ses02M_script01_1.txt").read_text()
    first, *turns = re.split(r"\n\n", evaluation.rstrip("\n"))
    assert first == "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]"
    assert len(turns) == 11
    summary = (
        r"\[\d+\.\d{4} - \d+\.\d{4}\]\tSes02M_script01_1_M000\t\w{3}\t\[\d\.\d{4}, \d\.\d{4}, \d\.\d{4}\]"
    )
    annotators = r"(\nC-E\d:\t\w+;\t\(\)){3}(\nA-E\d:\tval \d; act \d; dom  \d;\t\(\)){3}"
    assert re.fullmatch(summary + annotators, turns[0])
    transcription = (session / "dialog/transcriptions/Ses02M_script01_1.txt").read_text()
    assert re.match(
        r"Ses02M_script01_1_M000 \[\d{3}\.\d{4}-\d{3}\.\d{4}\]: Did you get the letter", transcription
    )


def test_sound_files_are_mono_pcm16_at_16_khz(manifest):
    for path in manifest["path"][::40]:
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (SAMPLE_RATE, 1, "PCM_16")
    assert (manifest["sample_rate"] == SAMPLE_RATE).all()


def test_evaluation_times_are_the_lengths_of_the_wavs(manifest):
    line = re.compile(r"\[([\d.]+) - ([\d.]+)\]\t(\S+)")
    text = (root_of(manifest) / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt").read_text()
    turns = line.findall(text)
    lengths = manifest.set_index("utterance_id")["num_samples"] / SAMPLE_RATE
    for start, end, name in turns:
        # both ends are rounded to 0.1 ms
        assert float(end) - float(start) == pytest.approx(lengths[name], abs=1.1e-4)
    ends, starts = [float(turn[1]) for turn in turns[:-1]], [float(turn[0]) for turn in turns[1:]]
    assert all(end < start for end, start in zip(ends, starts, strict=True))


def test_lengths_are_spread_around_three_seconds(manifest):
    lengths_s = manifest["num_samples"] / SAMPLE_RATE
    assert lengths_s.min() >= 1.0 and lengths_s.max() <= 9.5
    assert 2.5 <= lengths_s.median() <= 3.5
    assert 0.35 <= (lengths_s < 3).mean() <= 0.65
    assert (lengths_s > 5).sum() >= 30


# labels


def test_tag_is_the_majority_of_three_annotators(manifest):
    for turn in demo.plan():
        counts = pd.Series(turn.votes).value_counts()
        assert counts.sum() == 3
        assert counts.iloc[0] == 1 if turn.emotion == "xxx" else counts.idxmax() == turn.emotion
    agreement = manifest.loc[manifest["emotion"] != "xxx", "agreement"]
    assert set(agreement.round(3)) == {0.667, 1.0}
    assert 0.2 < (agreement < 1).mean() < 0.7


def test_ratings_are_the_annotators_mean_and_fit_the_tag(manifest):
    rows = manifest.set_index("utterance_id")
    for turn in demo.plan()[::20]:
        mean = np.mean(turn.ratings, axis=0)
        columns = rows.loc[turn.utterance_id, ["valence", "activation", "dominance"]].astype(float)
        assert columns.to_numpy() == pytest.approx(mean, abs=1e-4)  # four decimals on disk
    means = rows.groupby("label")[["valence", "activation", "dominance"]].mean()
    assert means["valence"].idxmax() == "happy" and means["activation"].idxmin() == "sad"
    assert means["dominance"].idxmax() == "angry"
    assert rows[["valence", "activation", "dominance"]].stack().between(1, 5).all()


def test_every_speaker_says_every_scripted_line_once_and_the_parallel_one_in_four_emotions(manifest):
    scripted = manifest[manifest["scripted"].astype(bool)]
    lines = [*demo.SENTENCES[:22], *4 * [demo.PARALLEL_SENTENCE]]
    for _, rows in scripted.groupby("speaker"):
        assert sorted(rows["transcript"]) == sorted(lines)
        parallel = rows[rows["transcript"] == demo.PARALLEL_SENTENCE]
        assert sorted(parallel["emotion"]) == ["ang", "exc", "neu", "sad"]


def test_parallel_turns_of_a_speaker_differ_in_the_emotion_alone():
    """From the same draws: edges and strength, which no profile touches, are equal, and so is every cue's noise."""
    parallel = [turn for turn in demo.plan() if turn.text == demo.PARALLEL_SENTENCE]
    for name in demo.SPEAKERS:
        turns = [turn for turn in parallel if turn.speaker == name]
        assert len({(turn.number, turn.delivery.strength, turn.delivery.edges_s) for turn in turns}) == 1
        noise = [turn.delivery.level_db - expected_level_db(turn) for turn in turns]
        assert np.ptp(noise) < 0.02  # levels are rounded to 0.01 dB, the strength to 0.001
    assert len({turn.number for turn in demo.plan()}) == 440 + 10


def expected_level_db(turn):
    full, rest = (demo.EMOTIONS[tag]["profile"]["level_db"] for tag in (turn.emotion, "neu"))
    return voices.SPEECH_DB + rest + turn.delivery.strength * (full - rest)


def test_words_do_not_tell_the_label(manifest):
    task = task_rows(manifest)
    assert set(task["transcript"]) == {*demo.SENTENCES, demo.PARALLEL_SENTENCE}
    table = pd.crosstab(task["transcript"], task["label"])
    assert chi2_contingency(table).pvalue > 0.05
    # guessing the commonest label of the sentence among the other speakers
    guesses = []
    for speaker, text in zip(task["speaker"], task["transcript"], strict=True):
        others = task[(task["speaker"] != speaker) & (task["transcript"] == text)]
        counts = others["label"].value_counts().reindex(list(LABELS), fill_value=0)
        guesses.append(counts.idxmax())
    # chance is 25 %; 440 utterances give it a standard deviation near 2.5 points
    assert unweighted_accuracy(task["label"].to_numpy(), np.array(guesses)) < 32.5


# prosody


def median_pitch_and_range_st(waveform):
    f0 = librosa.yin(
        waveform, fmin=60, fmax=500, sr=SAMPLE_RATE, frame_length=1024, hop_length=256, center=True
    )
    level = librosa.feature.rms(y=waveform, frame_length=1024, hop_length=256)[0]
    semitones = 12 * np.log2(f0[level > 0.15 * level.max()])
    median = np.median(semitones)
    semitones = semitones[np.abs(semitones - median) < 10]  # octave errors
    return median, np.subtract(*np.percentile(semitones, [90, 10]))


def measured_tilt_db(waveform):
    power = np.abs(np.fft.rfft(waveform)) ** 2
    hz = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
    return 10 * np.log10(power[hz > 2000].sum() / power[(hz > 60) & (hz < 1000)].sum())


@pytest.mark.parametrize("name", ["1F", "3M", "5F"])
def test_emotions_of_one_sentence_and_speaker_are_heard_in_order(name):
    speaker = demo.SPEAKERS[name]
    text = "I left the keys on the kitchen table, next to the bread."
    emotions = ("ang", "sad", "exc", "neu")
    # the same draws for all, so only the profile differs
    deliveries = [voices.draw_delivery(emotion, speaker, np.random.default_rng(3)) for emotion in emotions]
    spoken = voices.speak([voices.to_request(text, speaker, delivery) for delivery in deliveries])
    pitch, spread, tilt, length = {}, {}, {}, {}
    for emotion, samples, delivery in zip(emotions, spoken, deliveries, strict=True):
        waveform = voices.finish(samples, delivery, -70.0, np.random.default_rng(0))
        pitch[emotion], spread[emotion] = median_pitch_and_range_st(waveform)
        tilt[emotion], length[emotion] = measured_tilt_db(waveform), len(waveform)
    assert length["exc"] < length["neu"] < length["sad"] and length["ang"] < length["neu"]
    assert pitch["exc"] > pitch["ang"] > pitch["neu"] > pitch["sad"]
    assert spread["exc"] > spread["neu"] > spread["sad"]
    assert tilt["ang"] > tilt["neu"] > tilt["sad"]


def test_speakers_differ(manifest):
    neutral = manifest[manifest["emotion"] == "neu"]
    pitch = {
        speaker: np.median([median_pitch_and_range_st(soundfile.read(p)[0])[0] for p in rows["path"][:5]])
        for speaker, rows in neutral.groupby("speaker")
    }
    women = [value for speaker, value in pitch.items() if speaker.endswith("F")]
    men = [value for speaker, value in pitch.items() if speaker.endswith("M")]
    assert min(women) > max(men) + 3  # semitones
    assert len({speaker["voice"] for speaker in demo.SPEAKERS.values()}) == 10


@pytest.mark.parametrize("tilt_db", [-8.0, 0.0, 10.0])
def test_tilt_is_the_gain_between_the_ends_of_the_spectrum(tilt_db):
    impulse = np.zeros(4096)
    impulse[0] = 1.0
    gain = np.abs(np.fft.rfft(voices.tilt(impulse, tilt_db)))
    assert 20 * np.log10(gain[-1] / gain[0]) == pytest.approx(tilt_db, abs=1e-6)


def test_finish_sets_the_level_asked_for():
    # a steady tone has its RMS everywhere; the room is far below it
    tone = np.sin(2 * np.pi * 220 * np.arange(22_050) / 22_050).astype(np.float32)
    delivery = voices.draw_delivery("neu", demo.SPEAKERS["1F"], np.random.default_rng(0))
    delivery = dataclasses.replace(delivery, tilt_db=0.0, level_db=-20.0, edges_s=(0.25, 0.5))
    waveform = voices.finish(tone, delivery, -90.0, np.random.default_rng(0))
    # the tone's two zero samples at its ends may be cut
    assert len(waveform) == pytest.approx(1.75 * SAMPLE_RATE, abs=3)
    level = 10 * np.log10(np.mean(waveform[6_000:18_000] ** 2))
    assert level == pytest.approx(-20.0, abs=0.05)  # edges of the resampling filter
    assert np.abs(waveform[:3_900]).max() < 1e-3


# same bytes


def test_speaking_twice_gives_the_same_bytes(manifest, tmp_path):
    # eSpeak NG carries state from turn to turn, so the first 22 sound as in the whole corpus
    turns = demo.plan()[:22]
    demo.write_tree(tmp_path / "again", turns)
    again = contents(tmp_path / "again" / "Session1")
    assert len(again) == 22 + 2 * 2
    whole = contents(root_of(manifest) / "Session1")
    assert all(whole[name] == data for name, data in again.items())


def test_plan_is_the_same_on_every_call():
    assert demo.plan() == demo.plan()


def test_loading_again_speaks_nothing(manifest, monkeypatch):
    monkeypatch.setattr(demo, "speak", lambda requests: pytest.fail("spoken again"))
    pd.testing.assert_frame_equal(demo.load(root_of(manifest)), manifest)


# interruptions, damage, foreign folders


def test_interrupted_writing_leaves_nothing_and_is_redone(small, monkeypatch, tmp_path):
    def interrupted(requests):
        for number, samples in enumerate(voices.speak(requests)):
            if number == 3:
                raise KeyboardInterrupt
            yield samples

    root = tmp_path / "demo"
    with monkeypatch.context() as patch:
        patch.setattr(demo, "speak", interrupted)
        with pytest.raises(KeyboardInterrupt):
            demo.load(root)
    assert folders(tmp_path) == []
    assert len(demo.load(root)) == 55
    assert folders(tmp_path) == ["demo"]


def test_leftover_of_a_killed_process_is_neither_used_nor_kept(small, tmp_path):
    leftover = tmp_path / ".demo.partial"
    (leftover / "Session6").mkdir(parents=True)
    root = tmp_path / "demo"
    root.mkdir()  # an empty root is as good as none
    assert len(demo.load(root)) == 55
    assert not leftover.exists() and not (root / "Session6").exists()


def test_incomplete_corpus_is_named_with_the_cure_and_left_alone(small, tmp_path):
    root = tmp_path / "demo"
    demo.load(root)
    whole = contents(root)
    broken = root / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"
    broken.write_bytes(broken.read_bytes()[:5000])
    with pytest.raises(CorpusError, match=r"Ses01F_impro01_F000.*delete the folder and load it again"):
        demo.load(root)
    broken.unlink()
    with pytest.raises(CorpusError, match=r"Ses01F_impro01_F000.*delete the folder and load it again"):
        demo.load(root)
    (root / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt").write_text("")
    for path in broken.parent.iterdir():
        path.unlink()
    with pytest.raises(CorpusError, match=r"44 of 55 utterances are whole.*delete the folder"):
        demo.load(root)
    assert {name for name in whole if name.suffix == ".txt"} <= set(contents(root))


def test_default_root_is_the_project_s_wherever_one_stands(monkeypatch, tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_prepare_corpus.ipynb").write_text("{}")
    monkeypatch.setitem(corpora.REGISTRY, "demo", lambda root, skip_broken: root)
    for here in (tmp_path, tmp_path / "notebooks"):
        monkeypatch.chdir(here)
        assert corpora.load("demo") == tmp_path / "data" / "demo"
        assert corpora.load("demo", "mine") == Path("mine")


@pytest.mark.parametrize("name", ["thesis.txt", "demo.json", "Session1"])
def test_folder_of_something_else_is_refused_untouched(tmp_path, name):
    root = tmp_path / "demo"
    root.mkdir()
    if name == "Session1":
        (root / name).mkdir()
    else:
        (root / name).write_text("[1]")
    with pytest.raises(CorpusError, match="holds something else"):
        demo.load(root)
    assert [path.name for path in root.iterdir()] == [name]
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_corpus_of_other_settings_is_refused(small, monkeypatch, tmp_path):
    demo.load(tmp_path / "demo")
    monkeypatch.setattr(demo, "plan", lambda: small[:-1])
    with pytest.raises(CorpusError, match=r"other settings.*give another root"):
        demo.load(tmp_path / "demo")


def test_root_that_can_not_be_written_is_named(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CorpusError, match=r"file/demo: can't be written"):
        demo.load(tmp_path / "file" / "demo")


def test_full_disk_is_named_and_leaves_nothing(small, monkeypatch, tmp_path):
    def full(*args, **kwargs):
        raise soundfile.LibsndfileError(2, prefix="Error: ")

    monkeypatch.setattr(soundfile, "write", full)
    with pytest.raises(CorpusError, match=r"demo: can't be written .*free some space"):
        demo.load(tmp_path / "demo")
    assert folders(tmp_path) == []


def test_missing_espeak_is_named_with_the_cure(small, monkeypatch, tmp_path):
    monkeypatch.setattr(voices, "_WORKER", "raise SystemExit('no such library') # {!r} {!r}")
    with pytest.raises(CorpusError, match=r"no such library; reinstall it with .*espeakng-loader"):
        demo.load(tmp_path / "demo")
    assert folders(tmp_path) == []


def test_unknown_voice_is_named():
    with pytest.raises(CorpusError, match=r"no voice 'en-xx\+f9'"):
        list(voices.speak([{"ssml": "Hello.", "voice": "en-xx+f9"}]))
