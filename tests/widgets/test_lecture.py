"""What the lecture plays and draws, held against what can be worked out by hand."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from serkit.errors import ParameterError
from serkit.recipe import CORRECTED, PUBLISHED
from serkit.widgets import lecture


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

    def test_a_player_is_made(self, capsys):
        lecture.play({"tone": np.zeros(400)})
        assert "Audio" in capsys.readouterr().out


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

    @pytest.mark.parametrize("frequency", [-1, 8001, float("nan")])
    def test_frequency_out_of_range(self, frequency):
        with pytest.raises(ParameterError, match=r"frequency=.* Hz, expected 0 to 8000"):
            lecture.split_at(np.zeros(10), frequency)


class TestPlots:
    def test_window(self, ax):
        lecture.plot_window(np.array([0.0, 2.0, -4.0]), np.array([0.0, 1.0, 0.5]), ax)
        frame, windowed, window = (line.get_ydata().tolist() for line in ax.lines)
        assert (frame, windowed, window) == ([0.0, 0.5, -1.0], [0.0, 0.5, -0.5], [0.0, 1.0, 0.5])
        assert ax.lines[0].get_xdata().tolist() == [0.0, 0.0625, 0.125]  # ms at 16 kHz

    def test_window_of_another_length(self, ax):
        with pytest.raises(ParameterError, match="frame has 3 samples, window 2"):
            lecture.plot_window(np.zeros(3), np.zeros(2), ax)

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
        with pytest.raises(ParameterError, match=r"shape \(3, 256, 384\), expected \(256, 384\)"):
            lecture.plot_picture(np.zeros((3, 256, 384)), ax)

    def test_fields(self, ax):
        lecture.plot_fields(np.ones(48_000, np.float32), ax, field=400, hop=320, first=50, n_frames=3)
        bars = [line.get_xdata() for line in ax.lines if line.get_linewidth() == 3]
        np.testing.assert_allclose(bars, [[1.0, 1.025], [1.02, 1.045], [1.04, 1.065]])
        assert [text.get_text().strip() for text in ax.texts] == ["50", "51", "52"]
        assert ax.lines[0].get_xdata()[[0, -1]].tolist() == [1.0, (16_000 + 1039) / 16_000]
        with pytest.raises(ParameterError, match="frame 50 begins at sample 16000, the waveform has 9000"):
            lecture.plot_fields(np.ones(9000), ax, field=400, hop=320, first=50)

    def test_vectors(self, ax):
        vectors = np.arange(12.0).reshape(4, 3)
        lecture.plot_vectors(vectors, ax, hop=320, n_real=2)
        np.testing.assert_array_equal(ax.images[0].get_array(), vectors.T)
        assert ax.images[0].get_extent()[1] == pytest.approx(0.08)  # s
        assert ax.lines[0].get_xdata()[0] == pytest.approx(0.04)

    def test_vectors_that_are_all_zero(self, ax):
        lecture.plot_vectors(np.zeros((4, 3)), ax, hop=320)
        assert ax.images[0].get_clim() == (-1, 1) and not ax.lines
