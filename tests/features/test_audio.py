"""What is refused before any computing, and how files become 16 kHz mono."""

import numpy as np
import pytest
import soundfile
from trees import noise, wav_bytes

from serkit.constants import MAX_SAMPLES, MIN_SAMPLES
from serkit.errors import AudioError, ParameterError
from serkit.features import audio
from serkit.features.views import segment_features
from serkit.recipe import CORRECTED, PUBLISHED


def float_wav(path, waveform, rate=16_000):
    soundfile.write(path, np.asarray(waveform, np.float32), rate, subtype="FLOAT")
    return path


class TestWaveform:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, bad):
        waveform = np.float32(noise(4000))
        waveform[[1234, 2000]] = bad
        with pytest.raises(AudioError, match=f"clip: sample 1234 is {bad}, expected -1e"):
            audio.check_waveform(waveform, subject="clip")
        with pytest.raises(AudioError, match="sample 1234"):
            segment_features(waveform, PUBLISHED)

    def test_length_limits(self):
        for length in (0, 1, MIN_SAMPLES - 1, MAX_SAMPLES + 1):
            with pytest.raises(
                AudioError, match=rf"{length / 16000:.3f} s long, expected 0\.025 to 600 s at 16 kHz"
            ):
                audio.check_waveform(np.zeros(length, np.float32))
        for length in (MIN_SAMPLES, MAX_SAMPLES):
            assert len(audio.check_waveform(np.zeros(length, np.float32))) == length

    @pytest.mark.parametrize("recipe", [PUBLISHED, CORRECTED])
    def test_the_shortest_has_features(self, recipe):
        features = segment_features(np.float32(noise(MIN_SAMPLES)), recipe)
        assert len(features) == 1
        assert features.n_frames.tolist() == [3]
        assert np.isfinite(features.mfcc).all()

    @pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, bool])
    def test_integers(self, dtype):
        name = np.dtype(dtype).name
        with pytest.raises(ParameterError, match=rf"dtype {name}, expected float in \[-1, 1\]"):
            segment_features(np.ones(4000, dtype), PUBLISHED)

    @pytest.mark.parametrize("shape", [(2, 4000), (4000, 1), (1, 1, 4000), ()])
    def test_not_one_dimensional(self, shape):
        with pytest.raises(ParameterError, match=r"expected \(num_samples,\); average the channels"):
            segment_features(np.zeros(shape, np.float32), PUBLISHED)

    def test_float64_becomes_float32(self):
        assert audio.check_waveform(noise(4000)).dtype == np.float32

    def test_the_caller_keeps_his_waveform(self):
        waveform = np.float32(noise(4000))
        before = waveform.copy()
        for recipe in (PUBLISHED, CORRECTED):
            segment_features(waveform, recipe)
        assert np.array_equal(waveform, before)


class TestRead:
    def test_pcm16(self, tmp_path):
        path = tmp_path / "a.wav"
        path.write_bytes(wav_bytes(noise(4000)))
        # half a step of 16 bits, and wav_bytes scales by 32767 where soundfile divides by 32768
        np.testing.assert_allclose(audio.read(path), noise(4000), atol=2e-5)

    def test_missing_file(self, tmp_path):
        with pytest.raises(AudioError, match=r"gone\.wav: no such file; check the path"):
            audio.read(tmp_path / "gone.wav")
        with pytest.raises(AudioError, match="no such file"):
            audio.read(tmp_path)  # a folder

    @pytest.mark.parametrize("content", [b"Ses01F: Excuse me.\n" * 100, b"", b"RIFF"])
    def test_no_audio(self, tmp_path, content):
        path = tmp_path / "notes.wav"
        path.write_bytes(content)
        with pytest.raises(AudioError, match=r"notes\.wav: not readable as audio"):
            audio.read(path)

    def test_header_without_samples(self, tmp_path):
        for rate in (16_000, 48_000):
            path = tmp_path / "empty.wav"
            path.write_bytes(wav_bytes(np.zeros(0), rate))
            with pytest.raises(AudioError, match=r"empty\.wav: 0\.000 s long"):
                audio.read(path)

    def test_too_short_is_counted_at_16_khz(self, tmp_path):
        """1000 samples are 62.5 ms at 16 kHz and 20.8 ms at 48 kHz."""
        path = tmp_path / "click.wav"
        path.write_bytes(wav_bytes(noise(1000), 16_000))
        assert len(audio.read(path)) == 1000
        path.write_bytes(wav_bytes(noise(1000), 48_000))
        with pytest.raises(AudioError, match=r"click\.wav: 0\.021 s long"):
            audio.read(path)

    def test_more_than_ten_minutes(self, tmp_path):
        path = tmp_path / "lecture.wav"
        soundfile.write(path, np.zeros(601 * 8000), 8000, subtype="PCM_U8")
        with pytest.raises(AudioError, match=r"lecture\.wav: 601\.000 s long.*cut a longer recording"):
            audio.read(path)

    @pytest.mark.parametrize("rate", [16_000, 48_000])
    def test_not_finite(self, tmp_path, rate):
        waveform = noise(9600)
        waveform[4800] = np.nan
        with pytest.raises(AudioError, match=r"nan\.wav: sample \d+ is nan"):
            audio.read(float_wav(tmp_path / "nan.wav", waveform, rate))

    def test_stereo_48_khz_is_averaged(self, tmp_path):
        """Left 0.6, right 0.2 of the same sine: 0.4; equal and opposite channels: silence."""
        sine = np.sin(2 * np.pi * 500 * np.arange(48_000) / 48_000)
        waveform = audio.read(float_wav(tmp_path / "a.wav", np.stack([0.6 * sine, 0.2 * sine], 1), 48_000))
        assert waveform.shape == (16_000,)
        expected = 0.4 * np.sin(2 * np.pi * 500 * np.arange(16_000) / 16_000)
        np.testing.assert_allclose(waveform[200:-200], expected[200:-200], atol=1e-3)  # ripple of the filter
        waveform = audio.read(float_wav(tmp_path / "b.wav", np.stack([sine, -sine], 1), 48_000))
        assert (waveform == 0).all()

    def test_flac(self, tmp_path):
        soundfile.write(tmp_path / "a.flac", noise(4000), 16_000, subtype="PCM_24")
        np.testing.assert_allclose(audio.read(tmp_path / "a.flac"), noise(4000), atol=1e-6)


class TestPreemphasis:
    def test_by_hand(self):
        got = audio.preemphasise(np.float32([1, 1, 0.5, 0]), 0.97)
        assert got == pytest.approx(np.float32([1, 0.03, -0.47, -0.485]), abs=1e-6)

    def test_zero_changes_nothing(self):
        waveform = np.float32(noise(1000))
        assert np.array_equal(audio.preemphasise(waveform, 0.0), waveform)
