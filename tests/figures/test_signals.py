"""Pictures of signals: what is drawn where."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from serkit import figures
from serkit.constants import LABELS
from serkit.figures import EMOTION_COLOURS, plot_timeline

mpl.use("Agg")

FRAMES = {"hop_length": 160, "sample_rate": 16_000}


@pytest.fixture
def ax():
    with figures.paper_style(columns=2):
        yield Figure().subplots()


def covered(patch):
    """Where a patch over the whole height begins and ends."""
    values, edges, _ = patch.get_data()
    chosen = np.flatnonzero(values)
    assert np.array_equal(chosen, np.arange(chosen[0], chosen[-1] + 1))
    return edges[chosen[0]], edges[chosen[-1] + 1]


def test_stems_of_a_fold_share_a_scale_and_padding_is_shaded(ax):
    """Two folds of two frames: a mean whose last frame is padding in every second segment, and a segment."""
    rows = [
        (fold, panel, time_s, weight, high, padding)
        for fold, top in (("1", 4.0), ("2", 1.0))
        for panel, high in ((f"fold {fold}: mean of 8 segments", 2 * top), ("typical: r = 0.50", top))
        for time_s, weight, padding in ((0.75, top, 0.0), (2.25, 0.0, 0.5))
    ]
    stems = pd.DataFrame(rows, columns=["fold", "panel", "time_s", "weight", "high", "padding"]).assign(
        low=0.0
    )
    figures.plot_stems(stems, ax)
    panels = ax.figure.axes[1:]
    titles = [panel.get_title() for panel in panels]
    assert titles[::2] == ["fold 1: mean of 8 segments", "fold 2: mean of 8 segments"]
    for panel, top in zip(panels, (8, 8, 2, 2), strict=True):
        assert panel.get_ylim() == pytest.approx((0, 1.05 * top)) and panel.get_xlim() == (0, 3)
        np.testing.assert_allclose(panel.patches[0].get_data().values, [0, 0.5])
    first = panels[0].collections[1].get_segments()
    np.testing.assert_allclose(first, [[[0.75, 0], [0.75, 4]], [[2.25, 0], [2.25, 0]]])
    assert figures.stem_height(10) == figures.stem_height(24)


def test_a_cut_utterance_is_boxes_with_speech_in_them(ax):
    """2 s in a segment of 3 s, on the left in one view and on the right in the other; too short for its times below."""
    names = ["recipe", "view", "segment", "from_s", "real_s", "offset_s"]
    pieces = [("a", "spectrogram, MFCC", 0, 0.0, 2.0, 0.0), ("a", "waveform", 0, 0.0, 2.0, 1.0)]
    pieces += [("b", "waveform", 0, 0.0, 3.0, 0.0), ("b", "waveform", 1, 3.0, 0.5, 0.0)]
    figures.plot_cut(pd.DataFrame(pieces, columns=names), ax)
    boxes = [bars.get_paths()[0].get_extents().bounds for bars in ax.collections]
    np.testing.assert_allclose([box[:3:2] for box in boxes[0::2]], [(0, 3), (0, 3), (0, 3), (3.1, 3)])
    np.testing.assert_allclose([box[:3:2] for box in boxes[1::2]], [(0, 2), (1, 2), (0, 3), (3.1, 0.5)])
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "a: spectrogram, MFCC",
        "a: waveform",
        "b: waveform",
    ]
    assert [text.get_text() for text in ax.texts] == ["0.0 to 2.0 s", "0.0 to 2.0 s", "0.0 to 3.0 s"]
    speech = {mpl.colors.to_hex(bars.get_facecolor()[0]).upper() for bars in ax.collections[1::2]}
    assert speech == {figures.VIEW_COLOURS["spectrogram"], figures.VIEW_COLOURS["speech"]}


class TestSignals:
    def test_spectrogram_axes(self, ax):
        spectrogram = np.linspace(-80, 0, 200 * 300).reshape(200, 300)
        figures.plot_spectrogram(spectrogram, **FRAMES, n_fft=800, ax=ax)
        # frame t is centred on t * 10 ms and bin f on f * 20 Hz
        assert ax.images[0].get_extent() == pytest.approx([-0.005, 2.995, -0.01, 3.99])
        assert ax.figure.axes[-1].get_ylabel() == "level (dB)"

    def test_a_tone_is_drawn_at_its_frequency(self, ax):
        spectrogram = np.full((200, 10), -80.0)
        spectrogram[50] = 0.0  # 1 kHz
        figures.plot_spectrogram(spectrogram, **FRAMES, n_fft=800, ax=ax)
        image = ax.images[0]
        bottom, top = image.get_extent()[2:]
        rows = np.linspace(bottom, top, 201)
        assert rows[50] <= 1.0 <= rows[51] and image.origin == "lower"

    def test_padding_that_comes_first(self, ax):
        valid = np.arange(48_000) >= 16_000
        figures.plot_waveform(np.zeros(48_000), 16_000, ax, valid_samples=valid)
        assert covered(ax.patches[0]) == pytest.approx((0, 1))

    def test_mfcc_panels(self):
        """Coefficient 0 is a line; the scale of colours holds 99 % of all others."""
        long, short = np.zeros((300, 40)), np.zeros((100, 40))
        long[:, 0], long[:, 1:] = -400, 10
        short[:, 1:], short[0, 5] = -10, -500
        figure = Figure()
        panels = {"long": long, "short": short}
        figures.plot_mfcc_panels(panels, figure.subplots(), **FRAMES, valid_frames=[300, 60])
        line, _, image, other = figure.axes[1:5]
        assert line.get_title() == "long" and set(line.lines[0].get_ydata()) == {-400}
        assert image.images[0].get_clim() == other.images[0].get_clim() == (-10, 10)
        assert image.get_ylim() == (0.5, 39.5)  # no. 0 is left out
        assert image.get_xlim() == other.get_xlim() == (0, 3.0)
        assert covered(other.patches[0]) == pytest.approx((0.595, 0.995))

    def test_a_spectrogram_without_colour_bar(self, ax):
        figures.plot_spectrogram(np.zeros((201, 3)), n_fft=800, ax=ax, **FRAMES, colour_bar=False)
        assert ax.figure.axes == [ax]

    def test_short_waveform_is_drawn_sample_by_sample(self, ax):
        waveform = np.sin(np.arange(100))
        figures.plot_waveform(waveform, 16_000, ax, valid_samples=80)
        assert np.array_equal(ax.lines[0].get_ydata(), waveform)
        assert covered(ax.patches[0]) == pytest.approx((80 / 16_000, 100 / 16_000))

    def test_envelope_keeps_a_single_peak(self, ax):
        waveform = np.zeros(48_000)
        waveform[12_345] = 0.9
        figures.plot_waveform(waveform, 16_000, ax)
        vertices = ax.collections[0].get_paths()[0].vertices
        assert vertices[:, 1].max() == 0.9
        assert vertices[vertices[:, 1] == 0.9, 0] == pytest.approx(12_345 / 16_000, abs=0.003)  # 48 samples

    def test_coattention_frames(self, ax):
        weights = np.zeros(149)
        weights[10] = 2.0
        figures.plot_coattention(weights, ax, sample_rate=16_000, waveform=np.zeros(48_000))
        front = ax.figure.axes[-1]
        stems = np.array(front.collections[0].get_segments())  # (frames, ends, x and y)
        # frame 10 looks at samples 3200 to 3600
        assert stems[10].ravel() == pytest.approx([3400 / 16_000, 0, 3400 / 16_000, 2])
        assert len(stems) == 149 and (stems[:, 1, 1] > 0).sum() == 1

    def test_coattention_over_spectrogram(self, ax):
        spectrogram = np.zeros((200, 300))
        figures.plot_coattention(np.ones(149), ax, spectrogram_db=spectrogram, sample_rate=16_000)
        assert ax.images[0].get_extent()[1] == pytest.approx(2.995)
        assert (ax.get_xlim(), ax.get_ylim()) == ((0, 3.0), (0, 4.0))  # so that the last ticks are drawn
        assert not ax.texts

    def test_panels_that_are_compared_share_a_scale_and_padding_is_shaded(self, ax):
        figures.plot_coattention(
            np.ones(149), ax, sample_rate=16_000, waveform=np.zeros(48_000), valid_s=1.2, top=10.0
        )
        assert ax.figure.axes[-1].get_ylim() == (0, 10.5)
        shade = ax.patches[0].get_extents().transformed(ax.transData.inverted())
        assert (shade.x0, shade.x1) == pytest.approx((1.2, 3.0)) and ax.texts[0].get_text() == "padding"


def segments(probabilities, starts=None, ends=None, peak=-6.0):
    n = len(probabilities)
    starts = 3.0 * np.arange(n) if starts is None else starts
    ends = np.asarray(starts) + 3.0 if ends is None else ends
    table = pd.DataFrame(np.asarray(probabilities, float), columns=[f"p_{label}" for label in LABELS])
    return table.assign(start_s=starts, end_s=ends, peak_dbfs=peak)


def stairs(ax):
    """(values, edges, baseline) of the area and of the strip of each label."""
    return [patch.get_data() for patch in ax.patches if hasattr(patch, "get_data")]


def test_areas_by_hand(ax):
    table = segments([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])
    assert plot_timeline(table, ax=ax) is ax
    drawn = stairs(ax)
    assert drawn[0].edges.tolist() == [0, 3, 6]
    np.testing.assert_allclose(
        [area.values for area in drawn[::2]], [[10, 70], [30, 80], [60, 90], [100, 100]]
    )
    np.testing.assert_allclose([area.baseline for area in drawn[::2]], [[0, 0], [10, 70], [30, 80], [60, 90]])
    strips = [(strip.values > 105).tolist() for strip in drawn[1::2]]
    assert strips == [[False, True], [False, False], [False, False], [True, False]]  # neutral, then angry
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(LABELS)
    assert [patch.get_facecolor()[:3] for patch in ax.get_legend().get_patches()] == [
        mpl.colors.to_rgb(EMOTION_COLOURS[label]) for label in LABELS
    ]
    assert (ax.get_xlabel(), ax.get_xlim()) == ("time (s)", (0, 6))


def test_overlapping_last_piece_begins_where_the_one_before_ends(ax):
    plot_timeline(segments(np.full((4, 4), 0.25), starts=[0, 3, 6, 7]), ax=ax)
    assert stairs(ax)[0].edges.tolist() == [0, 3, 6, 9, 10]


def test_piece_without_length_is_left_out(ax):
    plot_timeline(segments(np.full((2, 4), 0.25), starts=[0, 3], ends=[3, 3]), ax=ax)
    assert stairs(ax)[0].edges.tolist() == [0, 3]


def test_many_segments_are_averaged_and_it_is_said(ax):
    probability = np.tile([[1, 0, 0, 0], [0, 1, 0, 0]], (400, 1))
    plot_timeline(segments(probability), ax=ax)
    drawn = stairs(ax)
    assert len(drawn[0].values) == 400
    np.testing.assert_allclose(drawn[0].values, 50)
    assert drawn[0].edges[-1] == 2400
    assert ax.get_xlabel() == "time (h:min:s), each step the mean of 2 segments"


def test_silence_is_hatched_and_named(ax):
    plot_timeline(segments(np.full((3, 4), 0.25), peak=[-6.0, -np.inf, -59.0]), ax=ax)
    hatched = [patch for patch in ax.patches if patch.get_hatch()]
    assert [covered(patch) for patch in hatched] == [(3, 6)]
    assert ax.get_legend().get_texts()[-1].get_text() == "silence"


@pytest.mark.parametrize(
    ("seconds", "ticks"), [(720, ["0:00:00", "0:02:00", "0:04:00"]), (7200, ["0:00:00", "0:20:00"])]
)
def test_time_is_written_as_on_a_clock(ax, seconds, ticks):
    plot_timeline(segments(np.full((seconds // 3, 4), 0.25)), ax=ax)
    ax.figure.draw_without_rendering()
    assert ax.get_xlabel().startswith("time (h:min:s)")
    assert [tick.get_text() for tick in ax.get_xticklabels()][: len(ticks)] == ticks


@pytest.mark.parametrize("n", [1, 4, 240])
def test_nothing_is_cut_off(ax, n):
    plot_timeline(segments(np.full((n, 4), 0.25), peak=-80.0), ax=ax)
    ax.figure.draw_without_rendering()
    box, page = ax.get_tightbbox(), ax.figure.bbox
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1
