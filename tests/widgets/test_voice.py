"""A recording from a file, the browser or the microphone: an answer, and a sentence for all that can't be one."""

import io
import shutil
import tempfile

import numpy as np
import pandas as pd
import pytest
import soundfile
from voices import voice, write_model

from serkit.constants import LABELS
from serkit.errors import AudioError, ParameterError, RunError, SerkitError, WeightsError
from serkit.features import audio
from serkit.predict import Notice, Prediction, Predictor
from serkit.recipe import CORRECTED, PUBLISHED
from serkit.widgets import lecture
from serkit.widgets import voice as voicepanel
from serkit.widgets.lecture import wav_bytes
from serkit.widgets.voice import Analysis, Recogniser, SoundInput, VoicePanel, open_recogniser

PROBABILITIES = [f"p_{label}" for label in LABELS]


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


def made_up(probabilities=(0.1, 0.6, 0.25, 0.05), peaks=(-10.0, -12.0), notices=()):
    """An analysis with known numbers: a segment for each peak, all with the same probabilities."""
    segments = pd.DataFrame(
        {
            "start_s": 3.0 * np.arange(len(peaks)), "end_s": 3.0 * np.arange(1, len(peaks) + 1), "seconds": 3.0,
            "peak_dbfs": peaks, **dict(zip(PROBABILITIES, probabilities, strict=True)), "emotion": "sad",
        }
    )  # fmt: skip
    utterance = dict(zip(LABELS, probabilities, strict=True))
    prediction = Prediction("a.wav", utterance, segments, list(notices), 3.0 * len(peaks), 16_000, 1)
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
        assert result.name == "talk.flac" and not list(temporary.iterdir())

    @pytest.mark.parametrize("seconds", [6, 61])
    def test_outline_by_hand(self, recogniser, seconds):
        """Each second at a level of its own, down and up in turns: lows and highs alternate."""
        levels = np.arange(seconds) / 100
        sound = np.repeat(levels, 16_000).astype(np.float32)
        sound[1::2] *= -1
        result = recogniser.analyse(wav_bytes(sound), "stairs.wav")
        assert len(result.sound) == min(seconds, 60) * 16_000
        assert len(result.outline) / result.outline_rate == pytest.approx(
            seconds, abs=2 / result.outline_rate
        )
        middle = ((np.arange(seconds) + 0.5) * result.outline_rate / 2).astype(int)
        lows, highs = result.outline.reshape(-1, 2)[middle].T
        np.testing.assert_allclose(highs, levels, atol=1e-4)  # 16 bits
        np.testing.assert_allclose(lows, -levels, atol=1e-4)

    def test_verdict_and_table_by_hand(self):
        result = made_up()
        assert result.verdict == "sad 60 %, then happy 25 %"
        assert result.segments.to_dict("list") == {
            "from (s)": [0, 3], "to (s)": [3, 6], "peak (dBFS)": [-10, -12], "angry": [10, 10], "sad": [60, 60],
            "happy": [25, 25], "neutral": [5, 5], "likeliest": ["sad", "sad"],
        }  # fmt: skip

    def test_silence_gets_no_verdict(self):
        silence = Notice("silence", "silence: nothing", "Is the microphone on?")
        assert made_up(notices=[silence]).verdict == "no answer: the recording is silent"
        assert made_up(notices=[silence._replace(kind="silent parts")]).verdict.startswith("sad")

    def test_what_was_done_to_a_recording_is_noticed(self, recogniser):
        """Real recordings, spoiled one by one."""
        bad = {name: recogniser.analyse(content, name) for name, content in lecture.spoil(voice(4)).items()}
        assert voicepanel.compare(bad)["noticed"].to_dict() == {
            "as it is": "nothing", "far away": "quiet", "too loud": "clipping", "telephone": "sample rate",
            "cut off": "too short", "muted": "silence",
        }  # fmt: skip

    def test_comparison_by_hand(self):
        table = voicepanel.compare(
            {"x": made_up(), "y": made_up(notices=[Notice("quiet", "quiet", "louder")])}
        )
        assert table.loc["x", list(LABELS)].tolist() == [10, 60, 25, 5]
        assert table["noticed"].tolist() == ["nothing", "quiet"]


class TestBadInput:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", r"^talk\.wav: the file is empty \(0 bytes\), expected a sound"),
            (b"this is no sound\n", r"^talk\.wav: not readable as audio .*; convert it to WAV or FLAC$"),
            (wav_bytes(voice(1))[:30], r"^talk\.wav: not readable as audio"),
            (wav_bytes(voice(0.02)), r"^talk\.wav: 0\.020 s long, expected 0\.025 to 600 s"),
            (wav_bytes(np.zeros(0)), r"^talk\.wav: 0\.000 s long"),
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

    def test_no_run_no_model_no_device(self, folder, project):
        with pytest.raises(RunError, match="run 'none': no finished fold"):
            open_recogniser("none")
        with pytest.raises(WeightsError, match="no such folder; train a model with notebook 05"):
            open_recogniser("none", "nowhere")
        with pytest.raises(ParameterError, match="device='tpu'"):
            open_recogniser("none", folder, "tpu")

    def test_a_folder_around_the_model_says_which_one_was_meant(self, folder, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        run = tmp_path / "runs" / "mine"
        run.mkdir(parents=True)
        with pytest.raises(
            WeightsError, match=r"runs/mine is not the folder of a model; set model = .*=<s>/model"
        ):
            open_recogniser("none", "runs/mine")
        shutil.copytree(folder, run / "v/fold=1/seed=111/model")
        with pytest.raises(
            WeightsError, match='set model = "runs/mine/v/fold=1/seed=111/model", or model = ""'
        ):
            open_recogniser("none", "runs/mine")


class TestSoundInput:
    """Messages as the browser sends them, handed over without one."""

    @pytest.fixture
    def heard(self):
        return []

    @pytest.fixture
    def sound(self, heard, temporary):
        return SoundInput(lambda path, name: heard.append((name, path.read_bytes())))

    def piece(self, sound, start=0, content=b"abcd", size=6, **about):
        return sound.receive({"name": "a.wav", "size": size, "start": start} | about, [content])

    def test_pieces_in_order(self, sound, heard, temporary):
        assert self.piece(sound) == {} and heard == []
        assert self.piece(sound, 4, memoryview(b"ef")) == {}
        assert heard == [("a.wav", b"abcdef")] and not list(temporary.iterdir())

    def test_the_samples_of_the_microphone_become_a_wav_file(self, sound, heard):
        samples = np.float32([0, 0.25, -0.5, 1.5])
        assert self.piece(sound, content=samples.tobytes(), size=16, rate=44_100) == {}
        waveform, rate = soundfile.read(io.BytesIO(heard[0][1]))
        assert rate == 44_100
        np.testing.assert_allclose(waveform, [0, 0.25, -0.5, 1], atol=1e-4)  # 16 bits

    def test_every_message_of_the_browser_is_answered(self, sound, heard, monkeypatch):
        answers = []
        monkeypatch.setattr(sound, "send", answers.append)
        for start, size in ((0, 0), (4, 8)):
            sound._handle_custom_msg({"name": "a", "size": size, "start": start}, [])
        assert answers[0] == {} and "Choose it again" in answers[1]["refused"]
        assert heard == [("a", b"")]

    def test_a_second_beginning_forgets_the_first(self, sound, heard):
        self.piece(sound, content=b"old")
        self.piece(sound, content=b"newest")
        assert heard == [("a.wav", b"newest")]

    def test_a_full_disk(self, sound, temporary, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        self.piece(sound)
        monkeypatch.setattr("builtins.open", full)
        assert self.piece(sound, 4) == {"refused": "can't be stored (No space left on device)"}
        assert not list(temporary.iterdir())

    def test_what_the_listener_refuses_is_said(self, temporary):
        def refuse(path, name):
            raise SerkitError(f"{name}: not today")

        assert self.piece(SoundInput(refuse), size=4) == {"refused": "a.wav: not today"}
        assert not list(temporary.iterdir())


class TestPanel:
    @pytest.fixture
    def panel(self, recogniser):
        return VoicePanel(recogniser)

    def send(self, panel, content, name="talk.wav"):
        """As the browser does it."""
        assert panel.sound.receive({"name": name, "size": len(content), "start": 0}, [content]) == {}

    def test_an_upload(self, panel):
        self.send(panel, wav_bytes(voice(4)))
        html = panel.answer.value
        assert 'class="serkit-verdict">talk.wav: ' in html and "serkit-problem" not in html
        assert html.count('src="data:audio/wav;base64,') == html.count('src="data:image/png;base64,') == 1
        assert "<summary>Segments: 2</summary>" in html and "can't say" in html
        assert "http" not in html.replace("data:", "")  # a page that fetches nothing

    @pytest.mark.parametrize(
        ("content", "said"),
        [(b"", "the file is empty"), (b"no sound", "not readable as audio")],
    )
    def test_a_problem_is_a_sentence_and_the_panel_goes_on(self, panel, content, said):
        self.send(panel, content, "<b>.wav")
        assert 'class="serkit-problem"' in panel.answer.value and said in panel.answer.value
        assert "&lt;b&gt;.wav" in panel.answer.value and "<audio" not in panel.answer.value
        self.send(panel, wav_bytes(voice(1)), "good.wav")
        assert "good.wav: " in panel.answer.value and "serkit-problem" not in panel.answer.value

    def test_silence_is_shown_without_a_verdict(self, panel):
        self.send(panel, wav_bytes(np.zeros(32_000)), "muted.wav")
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

    def test_a_model_that_was_deleted_meanwhile(self, tmp_path):
        folder = write_model(tmp_path / "model", PUBLISHED)
        panel = VoicePanel(Recogniser(folder, "cpu"))
        shutil.rmtree(folder)
        self.send(panel, wav_bytes(voice(1)), "a.wav")
        assert "no such folder; train a model" in panel.answer.value

    def test_interrupted(self, panel, monkeypatch):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(panel.recogniser, "analyse_file", interrupt)
        self.send(panel, b"", "a.wav")
        assert "interrupted; nothing was kept" in panel.answer.value

    def test_long_tables_are_cut_and_say_so(self):
        html = voicepanel.as_html(made_up(peaks=(-10.0,) * 45))
        assert "Segments: 45" in html and "The first 40" in html
        assert html.count("<tr") == 1 + voicepanel.MAX_ROWS

    def test_a_page_without_a_kernel_says_what_is_missing(self, panel):
        assert repr(panel).startswith("Buttons to choose a sound file")
