"""A recording of one's own: from bytes or browser messages to an answer, and a sentence for all that can't be one."""

import io
import shutil
import tempfile

import numpy as np
import pandas as pd
import pytest
import soundfile
from voices import voice, write_model

from serkit.constants import LABELS
from serkit.corpora.manifest import make_manifest
from serkit.errors import AudioError, ParameterError, RunError, SerkitError, WeightsError
from serkit.features import audio
from serkit.predict.predictor import PROBABILITIES, Prediction, Predictor
from serkit.recipe import CORRECTED, PUBLISHED
from serkit.widgets import ownvoice, soundinput, voicesamples
from serkit.widgets import voice as voicepanel
from serkit.widgets.ownvoice import Analysis, Recogniser, open_recogniser
from serkit.widgets.soundinput import SoundInput
from serkit.widgets.voice import VoicePanel
from serkit.widgets.voicesamples import wav_bytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), CORRECTED)


@pytest.fixture(scope="module")
def recogniser(folder):
    return Recogniser(folder, "cpu")


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary files land, to see that none stays."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def made_up(probabilities=(0.1, 0.6, 0.25, 0.05), peaks=(-10.0, -12.0), warnings=()):
    """An analysis with known numbers: a segment for each peak, all with the same probabilities."""
    segments = pd.DataFrame(
        {
            "start_s": 3.0 * np.arange(len(peaks)), "end_s": 3.0 * np.arange(1, len(peaks) + 1), "seconds": 3.0,
            "peak_dbfs": peaks, **dict(zip(PROBABILITIES, probabilities, strict=True)), "emotion": "sad",
        }
    )  # fmt: skip
    utterance = dict(zip(LABELS, probabilities, strict=True))
    prediction = Prediction("a.wav", utterance, segments, list(warnings), 3.0 * len(peaks), 16_000, 1)
    sound = voice(1)
    return Analysis("a.wav", prediction, sound, sound, 16_000)


class TestAnalysis:
    def test_bytes_get_what_the_file_gets(self, recogniser, folder, tmp_path, temporary):
        path = tmp_path / "talk.flac"
        soundfile.write(path, voice(7.3), 16_000)
        result = recogniser.analyse(path.read_bytes(), "talk.flac")
        expected = Predictor(folder, device="cpu").predict(path)
        assert result.prediction.utterance == expected.utterance
        pd.testing.assert_frame_equal(result.prediction.segments, expected.segments)
        np.testing.assert_array_equal(result.sound, audio.read(path))
        assert result.outline is result.sound and result.outline_rate == 16_000
        assert result.name == "talk.flac" and not list(temporary.iterdir())

    def test_long_sound_by_hand(self, recogniser):
        """61 s, each second at a level of its own, down and up in turns: 20 lows and highs for each second."""
        levels = np.arange(61) / 100
        sound = np.repeat(levels, 16_000).astype(np.float32)
        sound[1::2] *= -1
        result = recogniser.analyse(wav_bytes(sound), "stairs.wav")
        assert len(result.sound) == 60 * 16_000 and result.outline_rate == 40
        grid = result.outline.reshape(61, 20, 2)
        np.testing.assert_allclose(grid[:, :, 1], levels[:, None] * np.ones(20), atol=1e-4)  # 16 bits
        np.testing.assert_allclose(grid[:, :, 0], -levels[:, None] * np.ones(20), atol=1e-4)

    def test_outline_of_an_odd_rate_is_as_long_as_the_sound(self, recogniser):
        sound = 0.1 * np.sin(np.arange(61 * 11_025 + 17))
        result = recogniser.analyse(wav_bytes(sound, 11_025), "odd.wav")
        seconds = len(result.outline) / result.outline_rate
        assert seconds == pytest.approx(len(sound) / 11_025, abs=1 / ownvoice.OUTLINE_HZ)
        assert len(result.sound) == 60 * 16_000

    def test_verdict_and_table_by_hand(self):
        result = made_up()
        assert result.verdict == "sad 60%, then happy 25%"
        assert result.segments.to_dict("list") == {
            "from (s)": [0, 3], "to (s)": [3, 6], "peak (dBFS)": [-10, -12], "angry": [10, 10], "sad": [60, 60],
            "happy": [25, 25], "neutral": [5, 5], "likeliest": ["sad", "sad"],
        }  # fmt: skip
        assert result.faults == []

    @pytest.mark.parametrize(
        ("peaks", "found"),
        [((-36.1, -80), ["quiet"]), ((-36.0, -80), []), ((-60.0,), ["quiet"]), ((-60.1,), [])],
    )
    def test_quiet_is_between_silence_and_its_limit(self, peaks, found):
        assert [text.split(":")[0] for text, _ in made_up(peaks=peaks).faults] == found

    def test_silence_gets_no_verdict(self):
        assert made_up(peaks=(-np.inf,)).verdict == "no answer: the recording is silent"
        assert made_up(peaks=(-np.inf, -59)).verdict.startswith("sad")

    def test_every_warning_of_a_recording_comes_with_its_own_advice(self, recogniser, tmp_path):
        """Real recordings, spoiled one by one; the warning's kind is what was done."""
        bad = {
            name: recogniser.analyse(content, name) for name, content in voicesamples.spoil(voice(4)).items()
        }
        found = ownvoice.compare(bad)["warned of"].to_dict()
        assert found == {
            "as it is": "nothing", "far away": "quiet", "too loud": "clipping", "telephone": "sample rate 8000 Hz",
            "cut off": "too short", "muted": "silence",
        }  # fmt: skip
        stereo = io.BytesIO()
        soundfile.write(stereo, np.stack([voice(31), voice(31)], 1), 16_000, format="WAV")
        two = recogniser.analyse(stereo.getvalue(), "two")
        cut = made_up(warnings=["incomplete: the file announces 8.0 s and holds 4.0 s; was it cut short?"])
        advice = [advice for each in (*bad.values(), two, cut) for _, advice in each.faults]
        assert len(advice) == len(set(advice)) == len(ownvoice.ADVICE)

    def test_half_silent_recording_is_told_like_silence(self):
        (_, advice), = made_up(warnings=["silence in 2 of 9 windows (below -60 dBFS, ...): they count"]).faults  # fmt: skip
        assert advice == ownvoice.ADVICE["silence"]

    def test_comparison_by_hand(self):
        table = ownvoice.compare({"x": made_up(), "y": made_up(peaks=(-40.0,))})
        assert table.loc["x", list(LABELS)].tolist() == [10, 60, 25, 5]
        assert table["warned of"].tolist() == ["nothing", "quiet"]


class TestBadInput:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", r"^talk\.wav: the file is empty \(0 bytes\), expected a sound"),
            (b"this is no sound\n", r"^talk\.wav: not readable as audio .*; convert it to WAV or FLAC$"),
            (wav_bytes(voice(1))[:30], r"^talk\.wav: not readable as audio"),
            (wav_bytes(voice(0.02)), r"^talk\.wav: 20\.0 ms long, expected at least 25 ms"),
            (wav_bytes(np.zeros(0)), r"^talk\.wav: 0\.0 ms long"),
        ],
    )
    def test_uploads(self, recogniser, temporary, content, message):
        with pytest.raises(AudioError, match=message) as caught:
            recogniser.analyse(content, "talk.wav")
        assert str(temporary) not in str(caught.value) and not list(temporary.iterdir())

    def test_not_a_number(self, recogniser):
        file = io.BytesIO()
        soundfile.write(file, np.float32([0.1, np.nan] * 8000), 16_000, "FLOAT", format="WAV")
        with pytest.raises(AudioError, match=r"^nan\.wav: sample 1 is nan"):
            recogniser.analyse(file.getvalue(), "nan.wav")

    @pytest.mark.parametrize("path", ["gone.wav", ".", "a\0b", "~nobody/a.wav"])
    def test_paths(self, recogniser, path):
        with pytest.raises(AudioError, match="no such file; check the path"):
            recogniser.analyse_file(path)

    def test_a_path_that_no_disk_takes(self, recogniser):
        with pytest.raises(AudioError, match=r"^x+: can't be read \(File name too long\); check the path"):
            recogniser.analyse_file("x" * 300)

    def test_no_run_no_model_no_device(self, folder, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(RunError, match="run 'none': no finished fold"):
            open_recogniser("none")
        with pytest.raises(WeightsError, match="no such folder; train a model with notebook 05"):
            open_recogniser("none", "nowhere")
        with pytest.raises(ParameterError, match="device='tpu'"):
            open_recogniser("none", folder, "tpu")

    def test_a_model_that_is_deleted_meanwhile(self, tmp_path):
        recogniser = Recogniser(write_model(tmp_path / "m", CORRECTED), "cpu")
        recogniser.analyse(wav_bytes(voice(1)), "a.wav")
        shutil.rmtree(tmp_path / "m")
        for _ in range(2):
            with pytest.raises(WeightsError, match="no such folder"):
                recogniser.analyse(wav_bytes(voice(1)), "a.wav")
        write_model(tmp_path / "m", PUBLISHED)
        assert recogniser.analyse(wav_bytes(voice(1)), "a.wav").verdict
        assert recogniser.open_model().recipe.name == "published"

    def test_a_model_is_opened_once(self, recogniser):
        assert recogniser.open_model() is recogniser.open_model()


class TestSamples:
    @pytest.fixture
    def demo(self, tmp_path, monkeypatch):
        """Two sessions of one speaker, each with four utterances of 1, 2, 3 and 8 s; amplitude in percent: the session."""
        rows = []
        for session in "12":
            for number, (label, seconds) in enumerate(zip(LABELS, (1, 2, 3, 8), strict=True)):
                path = tmp_path / f"{session}{number}.wav"
                path.write_bytes(wav_bytes(np.full(16_000 * seconds, int(session) / 100)))
                rows.append({
                    "utterance_id": path.stem, "path": str(path), "corpus": "demo", "speaker": f"{session}F",
                    "session": session, "gender": "F", "dialogue": "d", "emotion": label, "label": label,
                    "num_samples": 16_000 * seconds, "sample_rate": 16_000,
                })  # fmt: skip
        monkeypatch.setattr(voicesamples.corpora, "load", lambda name, root: make_manifest(rows))
        return tmp_path

    MODEL = {"corpus": "demo", "by": "session", "fold": "2"}  # noqa: RUF012

    def test_only_who_was_left_out(self, demo):
        assert voicesamples.unheard_utterances(self.MODEL)["session"].tolist() == ["2"] * 4
        assert len(voicesamples.unheard_utterances(self.MODEL | {"corpus": "iemocap", "fold": "9"})) == 8

    def test_the_utterance_of_about_six_seconds(self, demo):
        path, origin = voicesamples.choose_recording("", self.MODEL)
        assert path == str(demo / "23.wav") and "23 of the demo corpus" in origin and "neutral" in origin
        assert voicesamples.choose_recording("mine.wav", self.MODEL) == ("mine.wav", "your recording")

    def test_four_emotions_by_hand(self, demo):
        content, parts = voicesamples.four_emotions(self.MODEL)
        sound, rate = soundfile.read(io.BytesIO(content))
        assert parts["label"].tolist() == list(LABELS)
        assert parts["start_s"].tolist() == [0, 1, 3, 6] and parts["end_s"].tolist() == [1, 3, 6, 14]
        assert rate == 16_000 and len(sound) == 14 * 16_000
        np.testing.assert_allclose(sound, 0.02, atol=1e-4)  # session 2 alone

    def test_spoiled_by_hand(self):
        wave = np.float32([0, 0.25, -0.5, 0.02] * 4000)
        sounds = {name: soundfile.read(io.BytesIO(c)) for name, c in voicesamples.spoil(wave).items()}
        close = {"atol": 1e-4}  # 16 bits
        np.testing.assert_allclose(sounds["as it is"][0], wave, **close)
        np.testing.assert_allclose(sounds["far away"][0][:4], [0, 0.005, -0.01, 0.0004], **close)
        np.testing.assert_allclose(sounds["too loud"][0][:4], [0, 1, -1, 0.32], **close)
        np.testing.assert_allclose(sounds["cut off"][0], wave[:8000], **close)
        assert (sounds["telephone"][1], len(sounds["telephone"][0])) == (8000, 8000)
        assert not sounds["muted"][0].any() and len(sounds["muted"][0]) == 16_000

    def test_spoiled_silence_is_silence(self):
        for content in voicesamples.spoil(np.zeros(16_000, np.float32)).values():
            assert not soundfile.read(io.BytesIO(content))[0].any()


class TestSoundInput:
    """Messages as the browser sends them, handed over without one."""

    @pytest.fixture
    def heard(self):
        return []

    @pytest.fixture
    def sound(self, heard, temporary):
        return SoundInput(lambda path, name: heard.append((name, path.read_bytes())))

    def begin(self, sound, name="a.wav", size=6):
        return sound.receive({"kind": "begin", "name": name, "size": size})

    def test_pieces_in_order(self, sound, heard, temporary):
        assert self.begin(sound) == {}
        for piece in (b"abcd", memoryview(b"ef")):
            assert sound.receive({"kind": "piece"}, [piece]) == {}
        assert heard == []
        assert sound.receive({"kind": "end"}) == {}
        assert heard == [("a.wav", b"abcdef")] and not list(temporary.iterdir())

    def test_every_message_of_the_browser_is_answered(self, sound, heard, monkeypatch):
        answers = []
        monkeypatch.setattr(sound, "send", answers.append)
        for content in ({"kind": "begin", "name": "a", "size": 0}, {"kind": "end"}, {"kind": "end"}):
            sound._handle_custom_msg(content, [])
        assert answers[:2] == [{}, {}] and "Choose it again" in answers[2]["refused"]
        assert heard == [("a", b"")]

    def test_a_second_beginning_forgets_the_first(self, sound, heard):
        self.begin(sound)
        sound.receive({"kind": "piece"}, [b"old"])
        self.begin(sound, "b.wav")
        sound.receive({"kind": "piece"}, [b"new"])
        sound.receive({"kind": "end"})
        assert heard == [("b.wav", b"new")]

    def test_too_large_is_refused_before_it_is_sent(self, sound, temporary):
        answer = self.begin(sound, size=soundinput.MAX_BYTES + 1)
        assert "a.wav: 2.0 GiB, expected at most 2 GiB" in answer["refused"]
        assert "refused" in sound.receive({"kind": "piece"}, [b"x"]) and not list(temporary.iterdir())

    def test_a_full_disk(self, sound, temporary, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        self.begin(sound)
        monkeypatch.setattr("builtins.open", full)
        answer = sound.receive({"kind": "piece"}, [b"x"])
        assert answer == {"refused": "can't be stored (No space left on device)"}
        assert not list(temporary.iterdir())

    def test_what_the_listener_refuses_is_said(self, temporary):
        def refuse(path, name):
            raise SerkitError(f"{name}: not today")

        sound = SoundInput(refuse)
        self.begin(sound)
        assert sound.receive({"kind": "end"}) == {"refused": "a.wav: not today"}
        assert not list(temporary.iterdir())


class TestPanel:
    @pytest.fixture
    def panel(self, recogniser):
        return VoicePanel(recogniser)

    def test_an_upload(self, panel):
        panel.analyse(wav_bytes(voice(4)), "talk.wav")
        html = panel.answer.value
        assert 'class="serkit-verdict">talk.wav: ' in html and "serkit-problem" not in html
        assert html.count('src="data:audio/wav;base64,') == html.count('src="data:image/png;base64,') == 1
        assert "<summary>2 segments</summary>" in html and "can't say" in html
        assert "http" not in html.replace("data:", "")  # a page that fetches nothing

    def test_through_the_browsers_messages(self, panel):
        content = wav_bytes(voice(4))
        panel.sound.receive({"kind": "begin", "name": "talk.wav", "size": len(content)})
        panel.sound.receive({"kind": "piece"}, [content])
        assert panel.sound.receive({"kind": "end"}) == {}
        assert "talk.wav: " in panel.answer.value

    @pytest.mark.parametrize(
        ("content", "said"),
        [(b"", "the file is empty"), (b"no sound", "not readable as audio")],
    )
    def test_a_problem_is_a_sentence_and_the_panel_goes_on(self, panel, content, said):
        panel.analyse(content, "<b>.wav")
        assert 'class="serkit-problem"' in panel.answer.value and said in panel.answer.value
        assert "&lt;b&gt;.wav" in panel.answer.value and "<audio" not in panel.answer.value
        panel.analyse(wav_bytes(voice(1)), "good.wav")
        assert "good.wav: " in panel.answer.value and "serkit-problem" not in panel.answer.value

    def test_silence_is_shown_without_a_verdict(self, panel):
        panel.analyse(wav_bytes(np.zeros(32_000)), "muted.wav")
        assert "muted.wav: no answer: the recording is silent" in panel.answer.value
        assert "Is the right microphone on?" in panel.answer.value

    def test_a_path(self, panel, tmp_path):
        panel.button.click()
        assert "no path given" in panel.answer.value
        (tmp_path / "talk.wav").write_bytes(wav_bytes(voice(1)))
        panel.path.value = f"  {tmp_path / 'talk.wav'} "
        panel.button.click()
        assert f"{tmp_path / 'talk.wav'}: " in panel.answer.value
        panel.path.value = str(tmp_path / "gone.wav")
        panel.button.click()
        assert "gone.wav: no such file" in panel.answer.value

    def test_another_model_answers_after_it_is_chosen(self, tmp_path, recogniser):
        other = write_model(tmp_path / "other", PUBLISHED)
        panel = VoicePanel(recogniser, {"first": recogniser.folder, "other": other})
        assert len(panel.model.options) == 2 and panel.model.value == recogniser.folder
        panel.analyse(wav_bytes(voice(1)), "a.wav")
        first = panel.answer.value
        panel.model.value = other
        assert panel.answer.value == "" and panel.recogniser.folder == other
        panel.analyse(wav_bytes(voice(1)), "a.wav")
        assert panel.answer.value != first
        shutil.rmtree(other)
        panel.analyse(wav_bytes(voice(1)), "a.wav")
        assert "no such folder; train a model" in panel.answer.value

    def test_interrupted(self, panel, monkeypatch):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(panel.recogniser, "analyse", interrupt)
        panel.analyse(b"", "a.wav")
        assert "interrupted; nothing was kept" in panel.answer.value

    def test_long_tables_are_cut_and_say_so(self):
        html = voicepanel.as_html(made_up(peaks=(-10.0,) * 45))
        assert "45 segments" in html and "and 5 more" in html
        assert html.count("<tr") == 1 + voicepanel.MAX_ROWS

    def test_models_of_all_runs(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert voicepanel.finished_models() == {}
        for run in "ba":
            place = tmp_path / "runs" / run / "v" / "fold=1" / "seed=1"
            place.mkdir(parents=True)
            (place / "DONE").write_text("x")
        (tmp_path / "runs" / "c" / "v" / "fold=1" / "seed=1").mkdir(parents=True)  # not finished
        assert list(voicepanel.finished_models()) == [f"runs/{run}/v/fold=1/seed=1/model" for run in "ab"]

    def test_a_page_without_a_kernel_says_what_is_missing(self, panel):
        assert repr(panel).startswith("Buttons to choose a sound file")

    def test_classes_for_tests_in_a_browser(self, panel):
        for part, name in (
            (panel, "panel"),
            (panel.answer, "answer"),
            (panel.path, "path"),
            (panel.button, "analyse"),
        ):
            assert f"serkit-{name}" in part._dom_classes
        script = panel.sound._esm
        for name in ("serkit-file", "serkit-record", "serkit-note"):
            assert name in str(script)
