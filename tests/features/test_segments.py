"""Utterance to segments: plans by hand, masks that agree in all views, nothing lost, nothing shifted."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serkit.constants import HOP_LENGTH, MIN_SAMPLES, SEGMENT_FRAMES, SEGMENT_SAMPLES
from serkit.features.segments import count_segments, cut_frames, cut_samples, interval_mask, plan_segments
from serkit.features.views import segment_features
from serkit.recipe import CORRECTED, PUBLISHED, named

RECIPES = {name: named(name) for name in ("published", "published+D1", "published+D3", "corrected")}
lengths = st.integers(MIN_SAMPLES, 600_000)

# seconds, recipe -> frame_start, n_frames, sample_start, num_samples, sample_offset
PLANS = [
    (1.2, "published", [0], [121], [0], [19_200], [28_800]),
    (1.2, "corrected", [0], [121], [0], [19_200], [0]),
    # 3.00 s has 301 frames: the last one opens a piece of its own, without any sample
    (3.0, "published", [0, 300], [300, 1], [0, 48_000], [48_000, 0], [0, 48_000]),
    (3.0, "corrected", [0], [300], [0], [48_000], [0]),
    (4.4, "published", [0, 300], [300, 141], [0, 48_000], [48_000, 22_400], [0, 25_600]),
    (4.4, "published+D1", [0, 300], [300, 141], [0, 48_000], [48_000, 22_400], [0, 0]),
    (4.4, "corrected", [0, 140], [300, 300], [0, 22_400], [48_000, 48_000], [0, 0]),
    # 3 samples over 3 s fill no frame: no second piece that would repeat the first
    (3.0002, "corrected", [0], [300], [0], [48_000], [0]),
    (3.01, "corrected", [0, 1], [300, 300], [0, 160], [48_000, 48_000], [0, 0]),
    (
        10.05, "published", [0, 300, 600, 900], [300, 300, 300, 106],
        [0, 48_000, 96_000, 144_000], [48_000, 48_000, 48_000, 16_800], [0, 0, 0, 31_200],
    ),
    (
        10.05, "corrected", [0, 300, 600, 705], [300, 300, 300, 300],
        [0, 48_000, 96_000, 112_800], [48_000] * 4, [0, 0, 0, 0],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("seconds", "recipe", "frame_start", "n_frames", "start", "real", "offset"), PLANS)
def test_plans_by_hand(seconds, recipe, frame_start, n_frames, start, real, offset):
    num_samples = round(16_000 * seconds)
    plan = plan_segments(num_samples, named(recipe))
    assert plan.frame_start.tolist() == frame_start
    assert plan.n_frames.tolist() == n_frames
    assert plan.sample_start.tolist() == start
    assert plan.num_samples.tolist() == real
    assert plan.sample_offset.tolist() == offset
    assert count_segments(num_samples, named(recipe)) == len(plan) == len(n_frames)


def test_cuts_by_hand():
    """0.03 s: 480 samples and 4 frames."""
    frames = np.float32([[1], [2], [3], [4]])
    cut = cut_frames(frames, plan_segments(480, PUBLISHED), fill=-7)
    assert cut.shape == (1, 300, 1)
    assert cut[0, :, 0].tolist() == [1, 2, 3, 4] + [-7] * 296
    ramp = np.arange(1, 481, dtype=np.float32)
    before, after = (cut_samples(ramp, plan_segments(480, recipe))[0] for recipe in (PUBLISHED, CORRECTED))
    assert before[-480:].tolist() == after[:480].tolist() == ramp.tolist()
    assert not before[:-480].any()
    assert not after[480:].any()


def test_interval_mask_by_hand():
    assert interval_mask([0, 2, 1], [0, 1, 3], 4).astype(int).tolist() == [
        [0, 0, 0, 0],
        [0, 0, 1, 0],
        [0, 1, 1, 1],
    ]


class TestProperties:
    @pytest.mark.parametrize("name", RECIPES)
    @given(num_samples=lengths)
    @example(num_samples=48_000)
    @example(num_samples=48_001)
    @example(num_samples=48_159)
    @example(num_samples=48_160)
    @settings(deadline=None, derandomize=True, max_examples=60)
    def test_pieces_fit(self, name, num_samples):
        """At most 300 frames and 48,000 samples each, inside the utterance, views starting together."""
        plan = plan_segments(num_samples, RECIPES[name])
        assert ((plan.n_frames >= 1) & (plan.n_frames <= SEGMENT_FRAMES)).all()
        assert ((plan.num_samples >= 0) & (plan.num_samples <= SEGMENT_SAMPLES)).all()
        assert (plan.frame_start >= 0).all()
        assert (plan.frame_start + plan.n_frames <= 1 + num_samples // HOP_LENGTH).all()
        assert (plan.sample_start + plan.num_samples <= num_samples).all()
        assert (plan.sample_start == plan.frame_start * HOP_LENGTH).all()
        assert (plan.sample_offset + plan.num_samples <= SEGMENT_SAMPLES).all()

    @pytest.mark.parametrize("name", RECIPES)
    @given(num_samples=lengths)
    @example(num_samples=48_159)
    @example(num_samples=96_159)
    @settings(deadline=None, derandomize=True, max_examples=60)
    def test_every_sample_is_covered(self, name, num_samples):
        """Overlapping pieces start on a frame: less than one hop may be left at the very end."""
        plan = plan_segments(num_samples, RECIPES[name])
        covered = np.zeros(num_samples, bool)
        for start, real in zip(plan.sample_start, plan.num_samples, strict=True):
            covered[start : start + real] = True
        left = num_samples - covered.sum()
        assert covered[: num_samples - left].all()
        assert left <= (HOP_LENGTH - 1 if RECIPES[name].last_piece == "overlapping" else 0)

    @given(num_samples=lengths)
    @example(num_samples=48_000)
    @example(num_samples=48_001)
    @example(num_samples=96_159)
    @settings(deadline=None, derandomize=True, max_examples=60)
    def test_only_short_utterances_are_padded_once_corrected(self, num_samples):
        plan = plan_segments(num_samples, CORRECTED)
        if num_samples >= SEGMENT_SAMPLES:
            assert (plan.num_samples == SEGMENT_SAMPLES).all()
            assert (plan.n_frames == SEGMENT_FRAMES).all()
        else:
            assert plan.num_samples.tolist() == [num_samples]
        # and no piece says what another has said
        assert (np.diff(plan.sample_start) > 0).all()

    @pytest.mark.parametrize("name", ["published+D1", "corrected"])
    @given(num_samples=lengths)
    @example(num_samples=16_000)  # frame 100 is centred on the first sample that is missing
    @settings(deadline=None, derandomize=True, max_examples=60)
    def test_masks_agree_in_all_views(self, name, num_samples):
        """Frame f is real if and only if sample 160 f is, or would be the very next one."""
        plan = plan_segments(num_samples, RECIPES[name])
        frames = interval_mask(np.zeros(len(plan), int), plan.n_frames, SEGMENT_FRAMES)
        samples = interval_mask(plan.sample_offset, plan.num_samples, SEGMENT_SAMPLES)
        # the sample before each frame's centre; before the first frame there is the utterance itself
        before = samples[:, HOP_LENGTH - 1 :: HOP_LENGTH][:, : SEGMENT_FRAMES - 1]
        assert frames[:, 0].all()
        assert np.array_equal(frames[:, 1:], before)

    def test_masks_do_not_agree_as_published(self):
        """What D1 is about: 1.2 s of speech at the beginning of one view, at the end of the other."""
        features = segment_features(np.zeros(19_200, np.float32), PUBLISHED)
        assert np.flatnonzero(features.frame_mask[0])[[0, -1]].tolist() == [0, 120]
        assert np.flatnonzero(features.sample_mask[0])[[0, -1]].tolist() == [28_800, 47_999]

    @given(num_samples=st.integers(MIN_SAMPLES, 110_000))
    @settings(deadline=None, derandomize=True, max_examples=8)
    def test_masks_of_features_are_the_plan(self, num_samples):
        features = segment_features(np.ones(num_samples, np.float32), CORRECTED)
        assert features.frame_mask.shape == (len(features), 300)
        assert features.sample_mask.shape == (len(features), 48_000)
        assert features.frame_mask.sum(axis=1).tolist() == features.n_frames.tolist()
        assert features.sample_mask.sum(axis=1).tolist() == features.num_samples.tolist()
        assert (features.waveform[~features.sample_mask] == 0).all()


class TestAlignment:
    """A click at sample 160 t of a short utterance: where does each view hear it?"""

    @staticmethod
    def heard(recipe, frame, num_samples):
        """Frame of the click in spectrogram and MFCC, sample of it in the waveform."""
        waveform = np.zeros(num_samples, np.float32)
        waveform[frame * HOP_LENGTH] = 1.0
        features = segment_features(waveform, recipe)
        real = features.n_frames[0]  # padding may be louder than speech as published
        return (
            features.spectrogram[0, 100, :real].argmax(),
            features.mfcc[0, :real, 0].argmax(),
            features.waveform[0].argmax(),
        )

    @given(num_samples=st.integers(3000, 47_999), data=st.data())
    @settings(deadline=None, derandomize=True, max_examples=12)
    def test_corrected(self, num_samples, data):
        frame = data.draw(st.integers(8, num_samples // HOP_LENGTH - 8))
        assert self.heard(CORRECTED, frame, num_samples) == (frame, frame, frame * HOP_LENGTH)

    @given(num_samples=st.integers(3000, 47_999), data=st.data())
    @settings(deadline=None, derandomize=True, max_examples=12)
    def test_published_waveform_is_late_by_its_padding(self, num_samples, data):
        """By exactly 48,000 - num_samples samples; the other two views are on time."""
        frame = data.draw(st.integers(8, num_samples // HOP_LENGTH - 8))
        late = 48_000 - num_samples
        assert self.heard(PUBLISHED, frame, num_samples) == (frame, frame, frame * HOP_LENGTH + late)

    def test_last_piece_of_a_longer_utterance(self):
        """A click 0.5 s before the end of 4.4 s: 2.5 s into the corrected second piece, in every view."""
        waveform = np.zeros(70_400, np.float32)
        waveform[62_400] = 1.0
        features = segment_features(waveform, CORRECTED)
        assert features.spectrogram[1, 100].argmax() == features.mfcc[1, :, 0].argmax() == 250
        assert features.waveform[1].argmax() == 250 * HOP_LENGTH
