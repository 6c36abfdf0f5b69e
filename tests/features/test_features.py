"""The three views and the picture: by hand, by property, against librosa, transformers and PIL."""

import librosa
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import Wav2Vec2FeatureExtractor

from serkit.constants import HOP_LENGTH, IMAGENET_MEAN, IMAGENET_STD, MFCC_N_FFT, N_FFT, SAMPLE_RATE
from serkit.errors import ParameterError, SerkitError
from serkit.features import audio
from serkit.features.views import (
    SpectrogramScaler,
    log_spectrogram,
    mfcc,
    normalise_waveform,
    segment_features,
    spectrogram_image,
    spectrogram_pixels,
)
from serkit.recipe import CORRECTED, PUBLISHED

KINDS = ("noise", "tone", "clipped", "dc", "quiet", "silence")


def make_signal(kind, num_samples, seed=0):
    """Test signals, shape (num_samples,), float32."""
    rng = np.random.default_rng(seed)
    white = 0.1 * rng.standard_normal(num_samples)
    signal = {
        "noise": white,
        "tone": tone(rng.uniform(100, 3900), num_samples) + 1e-4 * white,
        "clipped": np.clip(20 * white, -1, 1),
        "dc": 0.5 + 0.1 * white,
        "quiet": 1e-4 * white,  # levels around the -100 dB floor
        "silence": np.zeros(num_samples),
    }[kind]
    return signal.astype(np.float32)


def tone(frequency, num_samples):
    """Full-scale cosine, shape (num_samples,), float32."""
    return np.cos(2 * np.pi * frequency * np.arange(num_samples) / SAMPLE_RATE).astype(np.float32)


def impulse(place, num_samples=16_000):
    signal = np.zeros(num_samples, np.float32)
    signal[place] = 1.0
    return signal


class TestSpectrogramByHand:
    def test_tone(self):
        """1000 Hz lies on bin 50 of 20 Hz. A 40 ms Hamming window falls by 4.61 dB in 20 Hz.

        With k = 0.8 of the window's own 25 Hz bins:
        0.54 sinc(k) + 0.23 (sinc(k - 1) + sinc(k + 1)) = 0.3175, divided by 0.54.
        """
        inside = log_spectrogram(tone(1000, 16_000))[:, 5:-5]
        assert (inside.argmax(axis=0) == 50).all()
        assert inside[50] == pytest.approx(0.0, abs=1e-3)
        drop = 20 * np.log10(0.3175 / 0.54)
        assert inside[49] == pytest.approx(drop, abs=0.05)  # 0.05 dB: the tone at -1000 Hz leaks in
        assert inside[51] == pytest.approx(drop, abs=0.05)

    def test_a_tenth_of_the_amplitude_is_20_db(self):
        level = log_spectrogram(tone(1000, 16_000) + 0.1 * tone(3000, 16_000))[:, 5:-5]
        assert level[150] == pytest.approx(-20.0, abs=0.02)

    @pytest.mark.parametrize("frame", [3, 50, 97])
    def test_impulse(self, frame):
        """Flat over frequency; over time it is the window: 1, 0.54 at a quarter, 0.08 at its first sample."""
        level = log_spectrogram(impulse(frame * HOP_LENGTH))
        assert level.shape == (200, 101)
        assert level.argmax(axis=1).tolist() == [frame] * 200
        assert level[:, frame] == pytest.approx(0.0, abs=1e-4)
        for neighbour in (frame - 1, frame + 1):
            assert level[:, neighbour] == pytest.approx(20 * np.log10(0.54), abs=1e-3)
        # the window is periodic: it has its first sample, 320 before the centre, and not its last
        assert level[:, frame + 2] == pytest.approx(20 * np.log10(0.08), abs=1e-3)
        others = np.delete(level, range(frame - 1, frame + 3), axis=1)
        assert (others == -80).all()

    def test_peak_counts_above_the_bins_that_are_kept(self):
        """A tone at 6 kHz is cropped away, but what is left is measured below it."""
        level = log_spectrogram(tone(6000, 16_000) + 0.1 * tone(1000, 16_000))[:, 5:-5]
        assert level.max() == pytest.approx(-20.0, abs=0.02)

    def test_dc(self):
        level = log_spectrogram(np.full(8000, 0.25, np.float32))
        assert level[0] == pytest.approx(0.0, abs=1e-4)
        assert level[1] == pytest.approx(20 * np.log10(0.3175 / 0.54), abs=3e-3)  # four digits

    def test_edges(self):
        """A constant goes on beyond a reflected edge; beyond a zero one half of the first window is empty."""
        constant = np.full(8000, 0.25, np.float32)
        assert log_spectrogram(constant, edge="reflect")[0, 0] == pytest.approx(0.0, abs=1e-4)
        # the half window that is left sums to 0.54 * 320 + 0.46 of 0.54 * 640: the zeroth sample is in it
        left = 20 * np.log10((0.54 * 320 + 0.46) / (0.54 * 640))
        assert log_spectrogram(constant, edge="zero")[0, 0] == pytest.approx(left, abs=1e-3)

    def test_top_db(self):
        signal = make_signal("noise", 4000)
        assert log_spectrogram(signal, top_db=10).min() == -10
        wide = log_spectrogram(signal, top_db=200)
        assert np.array_equal(log_spectrogram(signal, top_db=10), np.maximum(wide, -10))


class TestMfccByHand:
    def test_impulse(self):
        """Its frames differ in level only, so in coefficient 0 only: by the Hann window, times sqrt(128)."""
        coefficients = mfcc(impulse(50 * HOP_LENGTH))
        assert coefficients.shape == (101, 40)
        assert coefficients[:, 0].argmax() == 50
        drop = 40 * np.log10(np.cos(np.pi * HOP_LENGTH / MFCC_N_FFT)) * np.sqrt(128)
        for neighbour in (49, 51):
            assert coefficients[neighbour, 0] - coefficients[50, 0] == pytest.approx(drop, abs=2e-3)
            assert coefficients[neighbour, 1:] == pytest.approx(coefficients[50, 1:], abs=2e-3)

    def test_silence_is_the_floor_of_every_band(self):
        coefficients = mfcc(np.zeros(4000, np.float32))
        # -100 dB in each of 128 bands; 2e-3 is float32 adding 128 terms up to -1131.37
        assert coefficients[:, 0] == pytest.approx(-100 * np.sqrt(128), abs=2e-3)
        assert coefficients[:, 1:] == pytest.approx(0.0, abs=2e-3)

    def test_a_tenth_of_the_amplitude_is_20_db(self):
        signal = make_signal("noise", 8000)
        drop = mfcc(0.1 * signal) - mfcc(signal)
        assert drop[:, 0] == pytest.approx(-20 * np.sqrt(128), abs=2e-3)
        assert drop[:, 1:] == pytest.approx(0.0, abs=2e-3)


class TestProperties:
    @pytest.mark.parametrize(("view", "reach"), [("spectrogram", N_FFT), ("mfcc", MFCC_N_FFT)])
    def test_a_shift_by_one_hop_moves_one_frame(self, view, reach):
        """Away from the edges, with the loudest moment in both, so that the same level is 0 dB."""
        signal = make_signal("noise", 16_000 + HOP_LENGTH)
        signal[8000:8400] *= 5
        compute = {"spectrogram": lambda x: log_spectrogram(x).T, "mfcc": mfcc}[view]
        late, early = compute(signal[:16_000]), compute(signal[HOP_LENGTH:])
        edge = -(-reach // 2 // HOP_LENGTH)  # frames whose window reaches beyond the signal
        # the same numbers go in; float32 may add them in another order
        np.testing.assert_allclose(early[edge : -edge - 1], late[edge + 1 : -edge], atol=1e-3)
        assert np.abs(early[edge:-edge] - late[edge:-edge]).max() > 1

    def test_loudness_does_not_matter_to_the_spectrogram(self):
        signal = make_signal("noise", 8000)
        # 1e-4 dB: 0.1 * x is rounded to float32
        np.testing.assert_allclose(log_spectrogram(0.1 * signal), log_spectrogram(signal), atol=1e-3)

    @given(num_samples=st.integers(800, 60_000), kind=st.sampled_from(KINDS))
    @settings(max_examples=15, deadline=None, derandomize=True)
    def test_ranges(self, num_samples, kind):
        features = segment_features(make_signal(kind, num_samples), PUBLISHED)
        n = -(-(1 + num_samples // 160) // 300)
        assert features.spectrogram.shape == (n, 200, 300)
        assert features.mfcc.shape == (n, 300, 40)
        assert features.waveform.shape == (n, 48_000)
        for view in (features.spectrogram, features.mfcc, features.waveform):
            assert view.dtype == np.float32
            assert np.isfinite(view).all()
        assert features.spectrogram.min() >= -80
        assert features.spectrogram.max() == 0


class TestAgainstLibrosa:
    """librosa in float64 is the reference."""

    @given(
        num_samples=st.integers(800, 50_000),
        kind=st.sampled_from(KINDS),
        edge=st.sampled_from(["reflect", "zero"]),
    )
    @example(num_samples=560_000, kind="noise", edge="reflect")  # 35 s
    @example(num_samples=1024, kind="noise", edge="reflect")  # as long as what is reflected of it
    @example(num_samples=801, kind="quiet", edge="zero")
    @settings(max_examples=25, deadline=None, derandomize=True)
    @pytest.mark.filterwarnings("ignore:n_fft=2048 is too large")
    def test_same_numbers(self, num_samples, kind, edge):
        signal = make_signal(kind, num_samples)
        pad_mode = "reflect" if edge == "reflect" else "constant"
        stft = librosa.stft(
            signal.astype(np.float64), n_fft=800, hop_length=160, win_length=640, window="hamming",
            center=True, pad_mode=pad_mode, dtype=np.complex128,
        )  # fmt: skip
        level = librosa.amplitude_to_db(np.abs(stft), ref=np.max, amin=1e-5, top_db=80.0)[:200]
        # 3e-5 dB: spectrum in float64, logarithm in float32 (80 dB: steps of 8e-6, rounded three times)
        np.testing.assert_allclose(log_spectrogram(signal, edge=edge), level, atol=3e-5, rtol=0)
        reference = librosa.feature.mfcc(
            y=signal.astype(np.float64), sr=16_000, n_mfcc=40, dct_type=2, norm="ortho", n_fft=2048,
            hop_length=160, win_length=2048, window="hann", center=True, pad_mode=pad_mode, power=2.0,
            n_mels=128, htk=True,
        )  # fmt: skip
        # 2e-3, as the golden values: float32 adds 128 bands up to -1131
        np.testing.assert_allclose(mfcc(signal, edge=edge), reference.T, atol=2e-3, rtol=0)

    @pytest.mark.parametrize("edge", ["reflect", "zero"])
    @pytest.mark.parametrize("num_samples", [1, 2, 7, 100, 319])
    def test_signals_shorter_than_half_a_window(self, num_samples, edge):
        """Reflected as often as it takes, as numpy pads."""
        signal = make_signal("noise", num_samples, seed=num_samples)
        padded = np.pad(signal.astype(np.float64), 320, mode="reflect" if edge == "reflect" else "constant")
        starts = range(0, num_samples + 1, HOP_LENGTH)
        frames = np.stack([padded[start : start + 640] for start in starts])
        window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(640) / 640)
        power = np.abs(np.fft.rfft(frames * window, N_FFT)) ** 2
        level = 10 * np.log10(np.maximum(power, 1e-10) / power.max())
        want = np.maximum(level, -80)[:, :200].T
        np.testing.assert_allclose(log_spectrogram(signal, edge=edge), want, atol=3e-5, rtol=0)

    def test_the_edge_rules_differ(self):
        signal = make_signal("noise", 16_000)
        difference = np.abs(log_spectrogram(signal, edge="reflect") - log_spectrogram(signal, edge="zero"))
        assert difference[:, 0].max() > 1
        assert difference[:, 10:-10].max() < 1  # the edge is heard inside only through the peak


class TestSegmentFeatures:
    def test_silence(self):
        """As documented: 0 dB, constant MFCC and a waveform of zeros."""
        for recipe in (PUBLISHED, CORRECTED):
            features = segment_features(np.zeros(20_000, np.float32), recipe)
            assert (features.spectrogram[:, :, :126] == 0).all()
            assert np.ptp(features.mfcc[0, :126], axis=0).max() == 0
            assert (features.waveform == 0).all()

    def test_dc_offset_does_not_reach_the_corrected_waveform(self):
        signal = make_signal("noise", 48_000)
        with_offset = segment_features(signal + np.float32(0.3), CORRECTED).waveform
        # 1e-4: 0.3 + x is rounded to float32
        np.testing.assert_allclose(with_offset, segment_features(signal, CORRECTED).waveform, atol=1e-4)

    def test_clipping_stays_finite_and_unit_variance(self):
        features = segment_features(make_signal("clipped", 48_000), CORRECTED)
        assert features.waveform.std() == pytest.approx(1.0, abs=1e-4)

    def test_padding_of_every_view_by_hand(self):
        """1 s: 101 real frames, 16,000 real samples."""
        signal = make_signal("noise", 16_000)
        published, corrected = (segment_features(signal, recipe) for recipe in (PUBLISHED, CORRECTED))
        assert (published.spectrogram[0, :, 101:] == 0).all()
        assert (corrected.spectrogram[0, :, 101:] == -80).all()
        for features in (published, corrected):
            assert (features.mfcc[0, 101:] == 0).all()
            assert (features.mfcc[0, :101, 0] != 0).all()
        # published: before the samples, and moved off zero by the mean; corrected: after them, exactly zero
        assert np.ptp(published.waveform[0, :32_000]) == 0
        assert published.waveform[0, 0] != 0
        assert (corrected.waveform[0, 16_000:] == 0).all()
        assert published.waveform[0].std() == pytest.approx(1.0, abs=1e-3)
        assert corrected.waveform[0, :16_000].std() == pytest.approx(1.0, abs=1e-3)

    def test_pre_emphasis_feeds_what_the_recipe_says(self):
        signal = make_signal("noise", 48_000)
        emphasised = audio.preemphasise(signal, 0.97)
        plain, lifted = (normalise_waveform(x[None]) for x in (signal, emphasised))
        assert np.array_equal(segment_features(signal, CORRECTED).waveform, plain)
        assert np.array_equal(segment_features(signal, PUBLISHED).waveform[:1], lifted)
        for recipe in (PUBLISHED, CORRECTED):
            features = segment_features(signal, recipe)
            assert np.array_equal(features.spectrogram[0], log_spectrogram(emphasised)[:, :300])
            assert np.array_equal(features.mfcc[0], mfcc(emphasised)[:300])


class TestNormaliseWaveform:
    def test_by_hand(self):
        """Mean 2 and variance 1, then mean 1 and variance 1 with the padding left out."""
        assert normalise_waveform(np.float32([[1, 3, 1, 3]])).round(4).tolist() == [[-1, 1, -1, 1]]
        mask = np.array([[False, True, True, False]])
        assert normalise_waveform(np.float32([[9, 0, 2, 9]]), mask).round(4).tolist() == [[0, -1, 1, 0]]

    def test_nothing_real(self):
        mask = np.zeros((1, 8), bool)
        assert (normalise_waveform(np.ones((1, 8), np.float32), mask) == 0).all()

    @pytest.mark.parametrize("kind", ["noise", "tone", "clipped", "dc"])
    def test_against_transformers(self, kind):
        signal = make_signal(kind, 30_000)
        extractor = Wav2Vec2FeatureExtractor(
            feature_size=1, sampling_rate=16_000, padding_value=0.0, do_normalize=True
        )
        reference = extractor(signal, sampling_rate=16_000, return_tensors="np").input_values
        # 1e-4 as the golden waveform: float32 sums of 30,000 terms
        np.testing.assert_allclose(normalise_waveform(signal[None]), reference, atol=1e-4, rtol=0)


class TestSampleRates:
    """A file at any rate, mono or stereo, is the same sound at 16 kHz."""

    @pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000])
    @pytest.mark.parametrize("channels", [1, 2])
    def test_tone(self, tmp_path, rate, channels):
        num_samples = int(1.2345 * rate)
        sound = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(num_samples) / rate)
        path = tmp_path / "tone.wav"
        soundfile.write(path, np.stack([sound] * channels, axis=1), rate, subtype="PCM_16")
        waveform = audio.read(path)
        assert waveform.dtype == np.float32
        assert len(waveform) == -(-num_samples * 16_000 // rate) == audio.resampled_length(num_samples, rate)
        inside = waveform[1600:-1600]
        assert np.abs(inside).max() == pytest.approx(0.5, abs=2e-3)  # PCM16 and the filter's ripple
        level = log_spectrogram(waveform)[:, 10:-10]
        assert (level.argmax(axis=0) == 50).all()
        time = np.arange(len(waveform)) / SAMPLE_RATE
        # no delay either: half a sample at 16 kHz would be 0.1 off
        np.testing.assert_allclose(inside, 0.5 * np.sin(2 * np.pi * 1000 * time)[1600:-1600], atol=5e-3)

    def test_what_16_khz_cannot_hold_is_gone(self, tmp_path):
        path = tmp_path / "high.wav"
        soundfile.write(path, 0.5 * np.sin(2 * np.pi * 10_000 * np.arange(48_000) / 48_000), 48_000)
        assert np.abs(audio.read(path)[800:-800]).max() < 1e-3


class TestParameters:
    signal = make_signal("noise", 4000)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"hop_length": 10}, "hop_length=10 samples is 0.6 ms at 16000 Hz, expected 80 to 640"),
            ({"hop_length": 641}, "expected a whole number from 80 to 640"),
            ({"win_length": 40}, "win_length=40, expected a whole number from 160 to 800"),
            ({"win_length": 801}, "win_length=801"),
            ({"n_bins": 0}, "n_bins=0, expected a whole number from 1 to 401"),
            ({"n_bins": 402}, "n_bins=402"),
            ({"edge": "constant"}, "edge='constant', expected one of reflect, zero"),
        ],
    )
    def test_log_spectrogram(self, arguments, message):
        with pytest.raises(ParameterError, match=message):
            log_spectrogram(self.signal, **arguments)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"n_mfcc": 129}, "n_mfcc=129, expected a whole number from 1 to 128"),
            ({"n_mfcc": 0}, "n_mfcc=0"),
            ({"hop_length": 16}, "hop_length=16 samples is 1.0 ms"),
            ({"n_fft": 25}, "n_fft=25, expected a whole number from 160 to 16000"),
            ({"edge": None}, "edge=None"),
        ],
    )
    def test_mfcc(self, arguments, message):
        with pytest.raises(ParameterError, match=message):
            mfcc(self.signal, **arguments)

    @pytest.mark.parametrize("compute", [log_spectrogram, mfcc])
    @pytest.mark.parametrize("shape", [(2, 4000), (0,), ()])
    def test_shape(self, compute, shape):
        with pytest.raises(SerkitError, match=r"waveform: (\(.*\), expected \(num_samples,\)|0.000 s long)"):
            compute(np.zeros(shape, np.float32))


class TestImage:
    def test_scaler_by_hand(self):
        segments = np.float32([[[-9, -5, 0], [-7, -70, 0]], [[-30, -2, 0], [-8, -8, 0]]])
        scaler = SpectrogramScaler.fit(segments)
        assert (scaler.minimum.tolist(), scaler.maximum.tolist()) == ([-30, -70], [0, 0])
        scaler = SpectrogramScaler.fit(segments, n_frames=[2, 1])  # the padding is left out
        assert (scaler.minimum.tolist(), scaler.maximum.tolist()) == ([-30, -70], [-5, -7])
        scaler = SpectrogramScaler.fit(segments, n_frames=[1, 0])  # a segment of padding alone counts nothing
        assert (scaler.minimum.tolist(), scaler.maximum.tolist()) == ([-9, -7], [-9, -7])

    def test_scaler_needs_a_segment(self):
        with pytest.raises(ParameterError, match="no training segment"):
            SpectrogramScaler.fit([])

    def test_pixels_by_hand(self):
        """Two bins and no resizing: clipped to the fitted range, whole numbers, highest frequency on top."""
        scaler = SpectrogramScaler(np.float32([-80, -40]), np.float32([0, -40]))
        level = torch.tensor([[[-90.0, -40.0, -20.0, 5.0], [-80.0, -40.0, 0.0, -39.5]]])
        pixels = spectrogram_pixels(level, scaler, size=(2, 4))
        # bin 1 never varied when fitted: its range counts as 1 dB
        assert pixels[0].tolist() == [[0, 0, 255, 127], [0, 127, 191, 255]]

    @pytest.mark.parametrize(("size", "share"), [((256, 384), 5e-3), ((64, 96), 1e-2)])
    def test_resizing_against_pil(self, size, share):
        level = np.random.default_rng(3).uniform(-80, 0, (1, 200, 300)).astype(np.float32)
        scaler = SpectrogramScaler(np.full(200, -80, np.float32), np.zeros(200, np.float32))
        grey = np.uint8(255 * ((level[0] + 80) / 80))[::-1]
        reference = np.asarray(Image.fromarray(grey).resize(size[::-1], Image.Resampling.BILINEAR))
        pixels = spectrogram_pixels(torch.from_numpy(level), scaler, size=size)[0].numpy()
        departure = np.abs(pixels - reference)
        # PIL counts in fixed point: one grey level on a few pixels, more where many are averaged
        assert departure.max() <= 1
        assert (departure > 0).mean() < share

    def test_three_equal_channels_in_imagenet_statistics(self):
        scaler = SpectrogramScaler(np.full(200, -80, np.float32), np.zeros(200, np.float32))
        image = spectrogram_image(torch.zeros(2, 200, 300), scaler)
        assert image.shape == (2, 3, 256, 384)
        white = (1 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
        for channel in range(3):
            assert image[:, channel].numpy() == pytest.approx(white[channel], abs=1e-5)
