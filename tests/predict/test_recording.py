"""Reading any recording in pieces: what is cut where, what is measured, and what is refused."""

import numpy as np
import pytest
import soundfile

from serkit.errors import AudioError
from serkit.features import audio
from serkit.features.segments import plan_segments
from serkit.predict.recording import Recording, window_length
from serkit.recipe import CORRECTED, PUBLISHED


def noise(seconds, rate=16_000, seed=0, level=0.1):
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


def write(path, waveform, rate=16_000, subtype=None):
    soundfile.write(path, waveform, rate, subtype=subtype)
    return path


def windows(path, recipe=CORRECTED):
    recording = Recording(path)
    return list(recording.windows(recipe)), recording


class TestWindows:
    @pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (48_000, 2), (22_050, 1), (8_000, 2)])
    def test_up_to_30_s_is_exactly_what_training_reads(self, tmp_path, rate, channels):
        sound = np.stack([noise(2.3, rate, seed) for seed in range(channels)], axis=1)
        path = write(tmp_path / "a.wav", sound, rate)
        [(start, waveform)], recording = windows(path)
        assert start == 0
        np.testing.assert_array_equal(waveform, audio.read(path))
        assert (recording.sample_rate, recording.channels) == (rate, channels)

    @pytest.mark.parametrize(
        ("seconds", "lengths"),
        [(30.0, [30]), (31.0, [15, 16]), (47.9, [15, 15, 17.9]), (48.0, [15, 15, 15, 3]), (60.0, [15] * 4)],
    )
    def test_lengths_by_hand(self, tmp_path, seconds, lengths):
        """A rest of less than one segment joins the window before it: nothing is padded."""
        pieces, _ = windows(write(tmp_path / "a.wav", noise(seconds)))
        assert [len(waveform) / 16_000 for _, waveform in pieces] == pytest.approx(lengths)
        starts = np.cumsum([0, *lengths[:-1]])
        assert [start / 16_000 for start, _ in pieces] == pytest.approx(starts.tolist())

    def test_windows_together_are_the_recording(self, tmp_path):
        path = write(tmp_path / "a.wav", noise(50.3))
        for recipe in (CORRECTED, PUBLISHED):
            pieces, _ = windows(path, recipe)
            np.testing.assert_array_equal(np.concatenate([w for _, w in pieces]), audio.read(path))

    @pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
    def test_resampled_in_blocks_is_resampled_at_once(self, tmp_path, rate):
        path = write(tmp_path / "a.wav", noise(40.0001, rate), rate, "FLOAT")
        whole = audio.read(path)
        pieces, _ = windows(path)
        joined = np.concatenate([w for _, w in pieces])
        assert len(joined) == len(whole)
        # the same filter on float32; only the order of additions may differ
        np.testing.assert_allclose(joined, whole, atol=1e-5)

    def test_no_window_opens_a_segment_without_sound(self):
        """Published: 15 s have 1501 frames, and a sixth segment for the last of them."""
        for recipe in (CORRECTED, PUBLISHED):
            assert len(plan_segments(window_length(recipe), recipe)) == 5
        assert len(plan_segments(240_000, PUBLISHED)) == 6


class TestRefused:
    def test_under_25_ms(self, tmp_path):
        for seconds, said in ((0, r"0\.000"), (0.02, r"0\.020")):
            with pytest.raises(AudioError, match=rf"a\.wav: {said} s long, expected 0\.025 to 600 s"):
                windows(write(tmp_path / "a.wav", noise(seconds)))
        assert len(windows(write(tmp_path / "b.wav", noise(0.025)))[0]) == 1

    def test_nan_late_in_a_long_recording_is_placed(self, tmp_path):
        sound = noise(40)
        sound[16_000 * 20] = np.nan
        with pytest.raises(AudioError, match=r"a\.wav from 15 s on: sample 80000 is nan"):
            windows(write(tmp_path / "a.wav", sound, subtype="FLOAT"))

    def test_text_and_missing(self, tmp_path):
        (tmp_path / "a.wav").write_text("no sound")
        with pytest.raises(AudioError, match=r"a\.wav: not readable as audio .*convert it"):
            Recording(tmp_path / "a.wav")
        with pytest.raises(AudioError, match=r"b\.wav: no such file"):
            Recording(tmp_path / "b.wav")


class TestNotices:
    def noticed(self, path):
        """Texts by kind."""
        _, recording = windows(path)
        notices = recording.notices()
        assert all(notice.advice for notice in notices)
        return {notice.kind: notice.text for notice in notices}

    def test_none_for_a_good_one(self, tmp_path):
        assert self.noticed(write(tmp_path / "a.wav", noise(2))) == {}

    def test_too_short_says_how_much_is_padding(self, tmp_path):
        noticed = self.noticed(write(tmp_path / "a.wav", noise(0.3)))
        assert noticed == {"too short": "too short: 0.30 s, so 90% of the 3 s segment is padding"}

    def test_low_rate_and_channels(self, tmp_path):
        noticed = self.noticed(write(tmp_path / "a.wav", np.stack([noise(2, 8_000)] * 2, 1), 8_000))
        assert list(noticed) == ["sample rate", "channels"]
        assert "8000 Hz, so there is nothing above 4000 Hz" in noticed["sample rate"]

    @pytest.mark.parametrize(
        ("level", "kinds"), [(-35.9, []), (-36.1, ["quiet"]), (-59.9, ["quiet"]), (-60.1, ["silence"])]
    )
    def test_quiet_is_between_silence_and_its_limit(self, tmp_path, level, kinds):
        sound = np.zeros(32_000)
        sound[::2] = 10 ** (level / 20)
        noticed = self.noticed(write(tmp_path / "b.wav", sound, subtype="FLOAT"))
        assert list(noticed) == kinds
        assert all(f"{level} dBFS, expected" in text for text in noticed.values())

    @pytest.mark.parametrize(("rest", "level"), [(0.0, "-inf"), (1e-4, "-86.0")])
    def test_channels_that_cancel_are_silent(self, tmp_path, rest, level):
        sound = noise(2)
        noticed = self.noticed(write(tmp_path / "a.wav", np.stack([sound, rest - sound], 1), subtype="FLOAT"))
        assert list(noticed) == ["silence", "channels"]
        assert f"the average of all channels peaks at {level} dBFS" in noticed["silence"]

    @pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8", "PCM_24", "FLOAT"])
    def test_clipping(self, tmp_path, subtype):
        time_s = np.arange(32_000) / 16_000
        sine = np.sin(2 * np.pi * 200 * time_s)
        noticed = self.noticed(write(tmp_path / "a.wav", np.clip(2 * sine, -1, 1), subtype=subtype))
        # |2 sin| exceeds 1 on two thirds of the time
        assert 0.6 < float(noticed["clipping"].split()[1].rstrip("%")) / 100 < 0.72
        assert self.noticed(write(tmp_path / "b.wav", 0.9 * sine, subtype=subtype)) == {}

    def test_clipped_samples_by_hand(self, tmp_path):
        """Runs of 2, 3 and 5 samples: 10 at full scale, of which 1 and 3 end three in a row."""
        sound = np.zeros((1000, 2))
        sound[10:12, 0] = sound[20:23, 0] = sound[30:35, 1] = 1
        _, recording = windows(write(tmp_path / "a.wav", sound))
        assert (recording.full, recording.clipped) == (10, 4)
        assert self.noticed(tmp_path / "a.wav")["clipping"].startswith("clipping: 0.50% of the samples")

    def test_two_in_a_row_are_a_peak(self, tmp_path):
        sound = noise(2)
        sound[100:102] = 1
        assert self.noticed(write(tmp_path / "a.wav", sound)) == {}

    def test_long_says_windows_and_which_are_silent(self, tmp_path):
        sound = noise(60)
        sound[16_000 * 15 : 16_000 * 30] = 0
        noticed = self.noticed(write(tmp_path / "a.wav", sound))
        assert noticed["long"].startswith("long: cut into 4 windows of 15 s")
        assert "1 of 4 windows are below -60 dBFS (from 15 s)" in noticed["silent parts"]

    def test_file_cut_short(self, tmp_path):
        path = write(tmp_path / "a.flac", noise(8))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        try:
            noticed = self.noticed(path)
        except AudioError as error:  # some versions of libsndfile refuse to go on, which is as good
            assert "not readable as audio" in str(error)
        else:
            assert noticed["incomplete"].startswith("incomplete: the file announces 8.0 s")
