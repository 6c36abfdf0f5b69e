"""What the lecture chooses, plays and draws, held against what can be worked out by hand."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from matplotlib.figure import Figure

from serkit import model
from serkit.constants import LABELS
from serkit.corpora.manifest import make_manifest
from serkit.errors import CorpusError, ParameterError, RunError
from serkit.recipe import CORRECTED, PUBLISHED
from serkit.widgets import lecture
from serkit.widgets.lecture import check_all, one_per_emotion, utterance_near, wav_bytes, waveform_near


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.fixture
def played(monkeypatch):
    """(name printed, samples) of every player."""
    heard = []
    monkeypatch.setattr(lecture, "display", heard.append)
    monkeypatch.setattr(lecture, "Audio", lambda sound, rate, normalize: (sound, rate, normalize))
    return heard


class TestPlay:
    def test_as_loud_as_it_is(self, played, capsys):
        lecture.play({"soft": np.array([0.1, -0.2]), "too loud": np.array([0.5, -3.0])})
        assert capsys.readouterr().out == "soft\ntoo loud\n"
        assert [sound.tolist() for sound, _, _ in played] == [[0.1, -0.2], [0.5, -1.0]]
        assert all((rate, normalize) == (16_000, False) for _, rate, normalize in played)

    def test_equal_peaks(self, played):
        lecture.play({"a": np.array([0.1, -0.2]), "silence": np.zeros(3)}, equal_peaks=True)
        np.testing.assert_allclose(played[0][0], [0.45, -0.9])
        assert not played[1][0].any()

    @pytest.mark.parametrize("equal_peaks", [True, False])
    def test_silence_can_be_played(self, equal_peaks):
        wav = lecture.player(np.zeros(800, np.float32), equal_peaks=equal_peaks).data
        assert len(wav) == 44 + 1600 and not np.frombuffer(wav[44:], np.int16).any()


class TestSegmentSounds:
    SOUND = np.arange(1, 64_001, dtype=np.float32) / 64_000  # 4 s

    def test_corrected_last_piece_is_the_last_three_seconds(self):
        first, last = lecture.segment_sounds(self.SOUND, CORRECTED)
        np.testing.assert_array_equal(first, self.SOUND[:48_000])
        np.testing.assert_array_equal(last, self.SOUND[16_000:])

    def test_published_last_piece_is_silence_then_the_emphasised_rest(self):
        last = lecture.segment_sounds(self.SOUND, PUBLISHED)[1]
        assert not last[:32_000].any()
        x = self.SOUND[48_000:]
        np.testing.assert_allclose(last[32_001:], x[1:] - np.float32(0.97) * x[:-1], atol=1e-6)


class TestSplit:
    def test_two_tones_come_apart(self):
        time_s = np.arange(16_000) / 16_000
        low, high = np.sin(2 * np.pi * 1000 * time_s), 0.3 * np.sin(2 * np.pi * 6000 * time_s)
        below, above = lecture.split_at(low + high, 4000)
        np.testing.assert_allclose(below, low, atol=1e-6)
        np.testing.assert_allclose(above, high, atol=1e-6)


class TestPitch:
    def test_of_a_buzz_and_of_noise(self):
        buzz = np.where(np.arange(8000) % 80 == 0, 1.0, 0.0)  # 200 pulses a second
        found = lecture.pitch(buzz)
        assert len(found) == 51
        np.testing.assert_allclose(found[10:-10], 200, rtol=0.01)
        assert np.isnan(lecture.pitch(np.random.default_rng(1).normal(0, 0.1, 8000))).mean() > 0.5


class TestSoundOfBands:
    def test_a_tone_comes_back_where_it_was(self):
        """Bands of 500 Hz, as rectangles: all power in the third, from 1000 to 1500 Hz."""
        bands = np.repeat(np.eye(16), 16, axis=1)  # 256 of the 257 bins of a 512-point transform
        bands = np.pad(bands, ((0, 0), (0, 1)))
        level = np.full((200, 16), -100.0)
        level[:, 2] = 0.0
        sound = lecture.sound_of_bands(level, bands, hop_length=160)
        assert len(sound) == 199 * 160 and np.abs(sound).max() == pytest.approx(0.9)
        power = np.abs(np.fft.rfft(sound)) ** 2
        hz = np.fft.rfftfreq(len(sound), 1 / 16_000)
        inside = (hz > 950) & (hz < 1550)  # the window of 32 ms blurs by some bins
        assert power[inside].sum() > 0.95 * power.sum()


class TestPlots:
    def test_frame(self):
        """A tone of 200 Hz in 128 ms: 20 ms in the middle are four periods."""
        frame, window = np.sin(2 * np.pi * 200 * np.arange(2048) / 16_000), np.hanning(2048)
        figure = Figure()
        lecture.plot_frame(2 * frame, window, figure.subplots())
        whole, middle, comb = figure.axes[1:]
        np.testing.assert_allclose(whole.lines[1].get_ydata(), frame * window, atol=1e-4)
        milliseconds, near = middle.lines[0].get_data()
        assert len(near) == 320 and milliseconds[0] == pytest.approx(54.0)
        np.testing.assert_allclose(near[80:], near[:-80], atol=1e-9)  # 5 ms later it is the same
        hz, level = comb.lines[0].get_data()
        assert hz[np.argmax(level)] == pytest.approx(200, abs=4)  # bins are 7.8 Hz apart

    def test_steps(self):
        figure = Figure()
        bands, coefficients = np.array([1.0, 2.0, 3.0]), np.array([-7.0, 5.0, 4.0])
        lecture.plot_steps(np.zeros(9), bands, bands + 1, coefficients, 2, figure.subplots())
        left, middle, right = figure.axes[1:]
        assert left.lines[0].get_xdata().tolist() == list(range(9))  # kHz
        assert middle.lines[1].get_ydata().tolist() == [2, 3, 4]
        assert [bar.get_height() for bar in right.patches] == [5, 4]
        first, second = (bar.get_facecolor() for bar in right.patches)
        assert first != second and second[0] == second[1] == second[2]  # grey: not kept
        assert right.get_title() == "coefficient 0: −7 dB"

    def test_mel_bands(self, ax):
        lecture.plot_mel_bands(2 * np.eye(5), ax, every=2)
        assert [np.argmax(line.get_ydata()) for line in ax.lines] == [0, 2, 4]
        assert ax.lines[1].get_xdata()[2] == 4.0  # kHz, the middle
        assert max(line.get_ydata().max() for line in ax.lines) == 1.0

    def test_lobes_of_a_hamming_window_end_at_two_bins(self, ax):
        """Its main lobe is zero 2 / length away from the tone: 50 Hz for 40 ms."""
        lecture.plot_lobes([10, 40], ax)
        short, long = ax.lines
        hz, level = long.get_data()
        assert level[np.argmin(np.abs(hz))] == pytest.approx(0, abs=0.01)
        inner = np.abs(hz) < 57  # the next zero is at 65 Hz
        assert abs(hz[inner][np.argmin(level[inner])]) == pytest.approx(50, abs=2)
        at_100 = np.argmin(np.abs(hz - 100))
        assert level[at_100] < -35 and short.get_ydata()[at_100] > -10
        assert [line.get_label() for line in ax.lines] == ["10 ms", "40 ms"]

    def test_picture(self, ax):
        lecture.plot_picture(np.full((256, 384), 128.0), ax)
        assert ax.images[0].get_clim() == (0, 255)

    def test_narrow(self, ax):
        lecture.plot_narrow(np.zeros((76, 3)), ax, title="sad", pitch_hz=np.array([np.nan, 200.0, 210.0]))
        assert ax.figure.axes == [ax]  # no colour bar
        seconds, kilohertz = ax.lines[0].get_data()
        np.testing.assert_allclose(seconds, [0, 0.01, 0.02])
        np.testing.assert_allclose(kilohertz, [np.nan, 0.2, 0.21])

    def test_filters_and_what_they_answer(self):
        figure, maps = Figure(), {"a": np.ones((2, 3, 4)), "b": -2 * np.ones((2, 3, 4))}
        lecture.plot_filters(5 * np.ones((2, 11, 11)), maps, figure.subplots())
        panels = figure.axes[1:]
        assert [panel.get_ylabel() for panel in panels[::2]] == ["filter", "a", "b"]
        assert [panel.images[0].get_clim()[1] for panel in panels] == [5, 5, 2, 2, 2, 2]
        assert panels[4].images[0].get_array().tolist() == [[-2.0] * 4] * 3

    def test_fields(self, ax):
        lecture.plot_fields(np.ones(48_000, np.float32), ax, field=400, hop=320, first=50, n_frames=3)
        bars = [bar.get_segments()[0][:, 0] for bar in ax.collections]
        np.testing.assert_allclose(bars, [[1.0, 1.025], [1.02, 1.045], [1.04, 1.065]])
        assert [text.get_text().strip() for text in ax.texts] == ["50", "51", "52"]
        assert ax.lines[0].get_xdata()[[0, -1]].tolist() == [1.0, (16_000 + 1039) / 16_000]

    def test_vectors(self, ax):
        vectors = np.arange(12.0).reshape(4, 3)
        lecture.plot_vectors(vectors, ax, hop=320, n_real=2)
        np.testing.assert_array_equal(ax.images[0].get_array(), vectors.T)
        assert ax.images[0].get_extent()[1] == pytest.approx(0.08)  # s
        assert ax.lines[0].get_xdata()[0] == pytest.approx(0.04)

    def test_vectors_that_are_all_zero(self, ax):
        lecture.plot_vectors(np.zeros((4, 3)), ax, hop=320, n_real=4)
        assert ax.images[0].get_clim() == (-1, 1)


class TestReading:
    """What is said of a matrix and of weights, worked out by hand."""

    def predictions(self, *pairs):
        return pd.DataFrame(pairs, columns=["truth", "prediction"])

    def test_matrix(self):
        table = self.predictions(
            *[("angry", "happy")] * 3, ("angry", "angry"), *[("sad", "sad")] * 2, ("happy", "sad")
        )
        assert lecture.read_matrix(table) == (
            "Best recognised: sad (2 of 2); worst: happy (0 of 1). Most frequent mistake: angry classified as happy "
            "(3 of 4). Never predicted: neutral."
        )

    def test_a_matrix_without_a_mistake(self):
        text = lecture.read_matrix(self.predictions(*[(label, label) for label in LABELS]))
        assert text == "Best recognised: angry (1 of 1); worst: angry (1 of 1)."

    def network(self, **changes):
        config = replace(model.DEMO, **changes)
        return model.CoAttentionModel(config)

    def test_weights(self):
        """Two segments of 149 frames, the second one half padding: alike in its half, so r = 1."""
        weights = np.zeros((2, 149), np.float32)
        weights[:, 10], weights[0, 100] = 1.0, 5.0
        num_samples = torch.tensor([48_000, 24_000])
        text = lecture.read_weights(self.network(), weights, num_samples, CORRECTED)
        assert text.startswith("147 of 149 frames get no weight in any of these 2 segments. ")
        assert text.endswith("correlate with the mean of all 2 at r = 1.00 to 1.00.")

    def test_weights_that_differ(self):
        weights = np.zeros((2, 149), np.float32)
        weights[0, 3], weights[1, 8] = 2.0, 1.0
        text = lecture.read_weights(self.network(), weights, torch.tensor([48_000] * 2), CORRECTED)
        mean = weights.mean(axis=0)
        low, high = sorted(np.corrcoef(own, mean)[0, 1] for own in weights)
        assert 0.4 < low < 0.5 and text.endswith(f"at r = {low:.2f} to {high:.2f}.")

    def test_equal_weights(self):
        text = lecture.read_weights(self.network(), np.ones((2, 149)), torch.tensor([48_000] * 2), CORRECTED)
        assert text.startswith("0 of 149 frames") and text.endswith("differ from frame to frame.")

    @pytest.mark.parametrize(
        "changes", [{"views": "mfcc"}, {"views": "speech"}, {"views": "spectrogram+mfcc"}, {"fusion": "mean"}]
    )
    def test_no_coattention(self, changes):
        network = self.network(**changes)
        text = lecture.read_weights(network, np.zeros((2, 149)), torch.tensor([48_000] * 2), CORRECTED)
        assert text.startswith("This network has no co-attention")


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
    with pytest.raises(CorpusError, match=r"speaker Z has not all of .*choose another speaker \(A, B, C\)"):
        one_per_emotion(manifest, "Z")


def test_nearest_length_leaves_out_what_has_no_label(manifest):
    assert utterance_near(manifest, 7.0)["utterance_id"] == "c0"
    assert utterance_near(manifest, 0.5)["seconds"] == 2.0


def test_nearest_length_of_an_unknown_speaker(manifest):
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
        monkeypatch.setattr(lecture.corpora, "load", lambda name, root: make_manifest(rows))
        return tmp_path

    MODEL = {"corpus": "demo", "by": "session", "fold": "2"}  # noqa: RUF012

    def test_only_who_was_left_out(self, demo):
        assert lecture.unheard_utterances(self.MODEL)["session"].tolist() == ["2"] * 4
        assert len(lecture.unheard_utterances(self.MODEL | {"corpus": "iemocap", "fold": "9"})) == 8

    def test_the_utterance_of_about_six_seconds(self, demo):
        path, origin = lecture.choose_recording("", self.MODEL)
        assert path == str(demo / "23.wav") and "23 of the demo corpus" in origin and "neutral" in origin
        assert lecture.choose_recording("mine.wav", self.MODEL) == ("mine.wav", "your recording")

    def test_four_emotions_by_hand(self, demo):
        content, parts = lecture.four_emotions(self.MODEL)
        sound, rate = soundfile.read(io.BytesIO(content))
        assert parts["label"].tolist() == list(LABELS)
        assert parts["start_s"].tolist() == [0, 1, 3, 6] and parts["end_s"].tolist() == [1, 3, 6, 14]
        assert rate == 16_000 and len(sound) == 14 * 16_000
        np.testing.assert_allclose(sound, 0.02, atol=1e-4)  # session 2 alone

    def test_spoiled_by_hand(self):
        wave = np.float32([0, 0.25, -0.5, 0.02] * 4000)
        sounds = {name: soundfile.read(io.BytesIO(c)) for name, c in lecture.spoil(wave).items()}
        close = {"atol": 1e-4}  # 16 bits
        np.testing.assert_allclose(sounds["as it is"][0], wave, **close)
        np.testing.assert_allclose(sounds["far away"][0][:4], [0, 0.005, -0.01, 0.0004], **close)
        np.testing.assert_allclose(sounds["too loud"][0][:4], [0, 1, -1, 0.32], **close)
        np.testing.assert_allclose(sounds["cut off"][0], wave[:8000], **close)
        assert (sounds["telephone"][1], len(sounds["telephone"][0])) == (8000, 8000)
        assert not sounds["muted"][0].any() and len(sounds["muted"][0]) == 16_000

    def test_spoiled_silence_is_silence(self):
        for content in lecture.spoil(np.zeros(16_000, np.float32)).values():
            assert not soundfile.read(io.BytesIO(content))[0].any()


class TestSliders:
    @pytest.fixture
    def live(self, monkeypatch):
        monkeypatch.setattr(lecture, "is_live", lambda: True)
        shown = []
        monkeypatch.setattr(lecture, "display", shown.append)
        return shown

    def test_a_program_gets_the_picture_of_the_parameters(self):
        drawn = []

        def draw(**values):
            drawn.append(values)
            return len(drawn)

        assert lecture.sliders(draw, n_mfcc=(40, 5, 60, 1), short_s=(2.0, 0.5, 2.9, 0.1)) == 1
        assert drawn == [{"n_mfcc": 40, "short_s": 2.0}]

    def test_a_moved_slider_draws_again(self, live):
        drawn = []

        def draw(n_mfcc, short_s):
            drawn.append((n_mfcc, short_s))
            return drawn[-1]

        first = lecture.sliders(draw, n_mfcc=(40, 5, 60, 1), short_s=(2.0, 0.5, 2.9, 0.1))
        assert first == (40, 2.0)
        n_mfcc, short_s = live[0].children[:2]
        n_mfcc.value, short_s.value = 13, 1.5
        assert drawn[-1] == (13, 1.5)
        assert (n_mfcc.min, n_mfcc.max, short_s.step) == (5, 60, 0.1)

    def test_a_parameter_outside_of_its_range(self):
        with pytest.raises(ParameterError, match=r"click_s=2.5, expected a number from 0.1 to 2"):
            lecture.sliders(lambda **values: None, click_s=(2.5, 0.1, 2.0, 0.1))

    @pytest.mark.parametrize(("metadata", "live"), [({}, False), ({"cellId": "x"}, True), (None, False)])
    def test_who_runs_the_cell(self, monkeypatch, metadata, live):
        class Kernel:
            def get_parent(self):
                return {"metadata": metadata}

        shell = type("Shell", (), {"kernel": Kernel()})
        monkeypatch.setattr(lecture, "get_ipython", lambda: shell)
        assert lecture.is_live() == live

    def test_outside_of_a_kernel_nobody_clicks(self):
        assert not lecture.is_live()
