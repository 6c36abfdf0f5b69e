"""The timeline: what is drawn where."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from serkit.constants import LABELS
from serkit.errors import ParameterError
from serkit.figures.plots import EMOTION_COLOURS, paper_style
from serkit.figures.timeline import plot_timeline

mpl.use("Agg")


@pytest.fixture
def ax():
    with paper_style(columns=2):
        yield Figure().subplots()


def segments(probabilities, starts=None, ends=None, peak=-6.0):
    n = len(probabilities)
    starts = 3.0 * np.arange(n) if starts is None else starts
    ends = np.asarray(starts) + 3.0 if ends is None else ends
    table = pd.DataFrame(np.asarray(probabilities, float), columns=[f"p_{label}" for label in LABELS])
    return table.assign(start_s=starts, end_s=ends, peak_dbfs=peak)


def stairs(ax):
    """(values, edges, baseline) of the four areas, then of the four strips."""
    return [patch.get_data() for patch in ax.patches if hasattr(patch, "get_data")]


def test_areas_by_hand(ax):
    table = segments([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])
    assert plot_timeline(table, ax=ax) is ax
    drawn = stairs(ax)
    assert drawn[0].edges.tolist() == [0, 3, 6]
    np.testing.assert_allclose(
        [area.values for area in drawn[:4]], [[10, 70], [30, 80], [60, 90], [100, 100]]
    )
    np.testing.assert_allclose([area.baseline for area in drawn[:4]], [[0, 0], [10, 70], [30, 80], [60, 90]])
    strips = [(strip.values > 105).tolist() for strip in drawn[4:]]
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
    assert ax.get_xlabel() == "time (min:s), each step the mean of 2 segments"


def test_silence_is_hatched_and_named(ax):
    plot_timeline(segments(np.full((3, 4), 0.25), peak=[-6.0, -np.inf, -59.0]), ax=ax)
    hatched = [patch for patch in ax.patches if patch.get_hatch()]
    assert [(patch.get_x(), patch.get_width()) for patch in hatched] == [(3, 3)]
    assert ax.get_legend().get_texts()[-1].get_text() == "silence"


@pytest.mark.parametrize(
    ("seconds", "label", "ticks"),
    [(720, "time (min:s)", ["0:00", "2:00", "4:00"]), (7200, "time (h:min:s)", ["0:00:00", "0:20:00"])],
)
def test_time_is_written_as_on_a_clock(ax, seconds, label, ticks):
    plot_timeline(segments(np.full((seconds // 3, 4), 0.25)), ax=ax)
    ax.figure.draw_without_rendering()
    assert ax.get_xlabel().startswith(label)
    assert [tick.get_text() for tick in ax.get_xticklabels()][: len(ticks)] == ticks


@pytest.mark.parametrize("n", [1, 4, 240])
def test_nothing_is_cut_off(ax, n):
    plot_timeline(segments(np.full((n, 4), 0.25), peak=-80.0), ax=ax)
    ax.figure.draw_without_rendering()
    box, page = ax.get_tightbbox(), ax.figure.bbox
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1


def test_errors(ax):
    with pytest.raises(ParameterError, match=r"segments lack peak_dbfs; give Prediction.segments"):
        plot_timeline(segments(np.full((2, 4), 0.25)).drop(columns="peak_dbfs"), ax=ax)
    with pytest.raises(ParameterError, match=r"1 rows without any length"):
        plot_timeline(segments(np.full((1, 4), 0.25), starts=[0], ends=[0]), ax=ax)
