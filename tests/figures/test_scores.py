"""Pictures of scores: what is drawn is what the tables say, and bad tables draw nothing."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import prediction_tables as tables
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy import stats

from serkit import evaluation, figures
from serkit.constants import LABELS
from serkit.errors import FoldError, ParameterError, RunError
from serkit.evaluation import Estimate, class_recall
from serkit.figures import EMOTION_COLOURS
from serkit.folds import fold_table, make_folds

mpl.use("Agg")

TRUTH = ["angry"] * 4 + ["sad"] * 2 + ["happy"] * 3 + ["neutral"]
PREDICTION = ["angry"] * 3 + ["sad", "sad", "sad", "happy", "angry", "neutral", "neutral"]
MANIFEST = pd.DataFrame(
    {
        "label": ["angry", "angry", "sad", "neutral", None],
        "speaker": ["1F", "1M", "1F", "1F", "1F"],
        "session": [1, 1, 1, 1, 1],
        "num_samples": [16_000, 40_000, 48_000, 56_000, 90_000],
        "sample_rate": 16_000,
    }
)


@pytest.fixture
def ax():
    with figures.paper_style():
        figure, ax = plt.subplots()
        yield ax
    plt.close(figure)


@pytest.fixture(scope="module")
def about():
    """Ten speakers, 8 utterances each; durations that depend on the number."""
    table = tables.manifest()
    number = table["utterance_id"].str[-3:].astype(int)
    known = {"gender": table["speaker"].str[-1], "scripted": number % 2 == 0, "agreement": float("nan")}
    return table.assign(num_samples=16_000 * (1 + number), sample_rate=16_000, **known)


@pytest.fixture(scope="module")
def predictions(about):
    return tables.predict(about)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def bar_heights(ax):
    return [patch.get_height() for patch in ax.patches]


def cells(ax):
    """What the colours of a matrix show, NaN where it is empty."""
    return np.ma.filled(ax.collections[0].get_array().astype(float), np.nan)


def contrast(foreground, background):
    """WCAG 2 contrast ratio, 1 to 21."""

    def luminance(colour):
        channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]

    bright, dark = sorted([luminance(foreground), luminance(background)], reverse=True)
    return (bright + 0.05) / (dark + 0.05)


class TestScores:
    def test_confusion_matrix_by_hand(self, ax):
        assert figures.plot_confusion_matrix(TRUTH, PREDICTION, labels=LABELS, ax=ax) is ax
        shown = texts(ax)
        assert shown[:4] == ["75.0 %\n(3)", "25.0 %\n(1)", "0.0 %\n(0)", "0.0 %\n(0)"]
        assert shown[8:12] == ["33.3 %\n(1)", "0.0 %\n(0)", "33.3 %\n(1)", "33.3 %\n(1)"]
        assert [text.get_text() for text in ax.get_yticklabels()] == [
            "angry\nn = 4", "sad\nn = 2", "happy\nn = 3", "neutral\nn = 1",
        ]  # fmt: skip
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")
        assert list(cells(ax).sum(axis=1)) == pytest.approx([100] * 4)

    def test_cells_are_readable_at_every_share(self, ax):
        # 4.5 is what WCAG 2 asks of small text; here for shares from 0 to 100 %
        for right in range(0, 101, 5):
            ax.clear()
            prediction = ["sad"] * right + ["angry"] * (100 - right)
            figures.plot_confusion_matrix(["sad"] * 100, prediction, labels=("sad", "angry"), ax=ax)
            for text, colour in zip(ax.texts, ax.collections[0].get_facecolors(), strict=True):
                assert contrast(text.get_color(), colour) >= 4.5

    def test_absent_class_has_no_shares(self, ax):
        figures.plot_confusion_matrix(["sad"], ["happy"], labels=LABELS, ax=ax)
        assert texts(ax)[:4] == ["–"] * 4
        assert texts(ax)[4:8] == ["0.0 %\n(0)", "0.0 %\n(0)", "100.0 %\n(1)", "0.0 %\n(0)"]

    def test_speaker_scores(self, ax):
        table = pd.DataFrame({"speaker": ["1F", "1M"], "n": [10, 20], "wa": [0.5, 0.7], "ua": [0.4, 0.8]})
        figures.plot_speaker_scores(table, ax)
        assert ax.lines[0].get_ydata() == pytest.approx([40, 80])  # UA
        assert ax.lines[2].get_ydata() == pytest.approx([50, 70])  # WA
        assert legend_of(ax) == [
            "UA, mean 60.0 %",
            "WA, mean 60.0 %",
            "chance UA",
        ]  # two speakers: no interval

    def test_the_mean_over_speakers_has_its_interval(self, ax):
        ua = [0.4, 0.5, 0.6, 0.7, 0.8]
        table = pd.DataFrame({"speaker": list("abcde"), "wa": 0.5, "ua": ua})
        figures.plot_speaker_scores(table, ax)
        band = ax.patches[0].get_extents().transformed(ax.transData.inverted())
        interval = stats.ttest_1samp(100 * np.array(ua), 0).confidence_interval(0.95)
        assert (band.y0, band.y1) == pytest.approx(tuple(interval))

    def test_class_probabilities(self, ax):
        figures.plot_class_probabilities({"angry": 0.7, "sad": 0.2, "happy": 0.1, "neutral": 0.0}, ax)
        assert [patch.get_width() for patch in ax.patches] == pytest.approx([70, 20, 10, 0])
        assert [text.get_text() for text in ax.get_yticklabels()] == list(LABELS)


class TestCorpus:
    def test_class_counts(self, ax):
        figures.plot_class_counts(MANIFEST, ax)
        # bars by label (angry, sad, happy, neutral), in each the speakers 1F and 1M
        assert bar_heights(ax) == [1, 1, 1, 0, 0, 0, 1, 0]
        assert [text for text in texts(ax) if text] == ["3", "1"]
        assert [text.get_text() for text in ax.get_xticklabels()] == ["1F", "1M"]

    def test_durations(self, ax):
        figures.plot_durations(MANIFEST, ax)
        tops = np.array([patch.get_y() + patch.get_height() for patch in ax.patches]).reshape(4, -1)
        # 1.0, 2.5, 3.0 and 3.5 s in bins of 0.5 s: a value on an edge belongs to the bin that starts there
        assert tops[-1].tolist() == [0, 0, 1, 0, 0, 1, 1, 1]
        assert ax.lines[0].get_xdata()[0] == 3.0


class TestFolds:
    """Four speakers in two sessions: 1F says three utterances, the others two each."""

    def rows(self, selection):
        speakers = ["1F", "1F", "1F", "1M", "1M", "2F", "2F", "2M", "2M"]
        table = pd.DataFrame({"speaker": speakers, "session": [name[0] for name in speakers], "label": "sad"})
        table["utterance_id"] = [f"{speaker}_{n}" for n, speaker in enumerate(speakers)]
        return fold_table(make_folds(table, "speaker", selection)).merge(table[["utterance_id", "speaker"]])

    def roles(self, ax):
        """Roles by the colours of the squares, a line for each fold."""
        names = {to_rgb(colour): split for split, colour in figures.SPLIT_COLOURS.items()}
        squares = [names[tuple(colour[:3])] for colour in ax.collections[0].get_facecolors()]
        return [squares[n : n + 4] for n in range(0, 16, 4)]

    def test_colours_are_roles_and_numbers_are_utterances(self, ax):
        figures.plot_folds(self.rows("clean"), ax)
        assert self.roles(ax) == [
            ["test", "validation", "train", "train"], ["validation", "test", "train", "train"],
            ["train", "train", "test", "validation"], ["train", "train", "validation", "test"],
        ]  # fmt: skip
        assert texts(ax) == ["3", "2", "2", "2"] * 4
        assert [label.get_text() for label in ax.get_xticklabels()] == ["1F", "1M", "2F", "2M"]
        assert legend_of(ax) == ["train", "validation", "test"]

    def test_validation_on_the_tested_speakers_is_named(self, ax):
        figures.plot_folds(self.rows("published"), ax)
        assert self.roles(ax)[0] == ["test", "train", "train", "train"]
        assert texts(ax) == ["3", "2", "2", "2"] * 4 and legend_of(ax) == ["train", "test and validation"]

    def test_without_validation_it_is_not_in_the_legend(self, ax):
        figures.plot_folds(self.rows("last"), ax)
        assert legend_of(ax) == ["train", "test"]


class TestSpeakerConfusions:
    def test_cells_hold_the_counts_of_each_speaker(self, predictions, ax):
        table = figures.speaker_confusions(predictions)
        own = predictions[(predictions["split"] == "test") & (predictions["speaker"] == "2M")]
        row = table[(table["speaker"] == "2M") & (table["truth"] == "happy")].iloc[0]
        assert row["sad"] == ((own["truth"] == "happy") & (own["prediction"] == "sad")).sum()
        assert figures.plot_speaker_confusions(predictions, ax) is ax
        counts = [int(text) for text in texts(ax) if text.isdigit()]
        assert counts[:4] == table.loc[0, list(LABELS)].tolist() and sum(counts) == 80
        assert sum("UA" in text for text in texts(ax)) == 10

    def test_colour_is_the_share_of_the_row_and_matrices_stay_apart(self, predictions, ax):
        figures.plot_speaker_confusions(predictions, ax)
        shares = cells(ax)  # two rows of five matrices, an empty row and column between them
        assert shares.shape == (9, 24) and np.isnan(shares[4]).all() and np.isnan(shares[:, 4::5]).all()
        assert np.allclose(np.nansum(np.delete(shares, 4, axis=0), axis=1), 500)
        assert ax.collections[0].get_clim() == (0, 100)


class TestConfusionDifference:
    def test_points_by_hand(self, ax):
        a, b = tables.with_counts([3, 1], 4), tables.with_counts([2, 1], 4, variant="other")
        points = figures.confusion_difference(a, b)
        assert points.loc["sad", "sad"] == 12.5 and points.loc["sad", "happy"] == -12.5  # 4/8 - 3/8
        assert points.loc["angry"].isna().all()
        figures.plot_confusion_difference(a, b, ax)
        assert "+12.5" in texts(ax) and "−12.5" in texts(ax) and texts(ax).count("–") == 12
        assert ax.collections[0].get_clim() == (-12.5, 12.5)

    def test_a_variant_with_itself_is_nothing(self, predictions):
        assert (figures.confusion_difference(predictions, predictions) == 0).all(axis=None)

    def test_other_utterances_are_refused(self, predictions):
        other = tables.predict(tables.manifest(per_speaker=4))
        with pytest.raises(ParameterError, match=r"utterance 1F_004 .* is tested in"):
            figures.confusion_difference(predictions, other)


class TestCertainty:
    def test_bars_and_whiskers_are_recall_and_interval(self, predictions, ax):
        figures.plot_recall_intervals(predictions, ax)
        table = class_recall(predictions)
        assert np.allclose([bar.get_height() for bar in ax.patches], 100 * table["recall"])
        ends = np.array([line.get_ydata() for line in ax.lines if line.get_linestyle() == "None"])
        assert np.allclose(ends, 100 * table[["low", "high"]].to_numpy().T)
        assert f"UA {100 * table['recall'].mean():.1f} %" in legend_of(ax)

    def test_classes_keep_their_colours(self, predictions, ax):
        figures.plot_recall_intervals(predictions, ax)
        colours = [plt.matplotlib.colors.to_hex(bar.get_facecolor()).upper() for bar in ax.patches]
        assert colours == [EMOTION_COLOURS[label] for label in LABELS]

    def test_reliability_by_hand(self, ax):
        # confidence 0.7 throughout, 10 of 20 right: a gap of 20 points in one bin
        figures.plot_reliability(tables.with_counts([1, 2, 2, 3, 2], 4), ax)
        assert [bar.get_height() for bar in ax.patches] == [50, 0]  # the second is there for the legend
        dot = next(line for line in ax.lines if line.get_label() == "at the mean predicted probability")
        assert np.allclose(dot.get_xydata(), [[70, 50]])
        assert {"20", "ECE 20.0 points\n(10 bins)"} <= set(texts(ax)) and "perfect calibration" in legend_of(
            ax
        )

    def test_a_bar_of_few_answers_is_pale(self, ax):
        few, many = tables.with_counts([1, 1, 1, 1, 1], 1), tables.with_counts([9, 9, 9, 9, 9], 18)
        few = tables.with_probabilities(few.assign(utterance_id="few" + few["utterance_id"]), confidence=0.95)
        figures.plot_reliability(pd.concat([few, many]), ax)
        alphas = {
            round(bar.get_x() + bar.get_width() / 2): bar.get_alpha() or bar.get_facecolor()[3]
            for bar in ax.patches
        }
        assert alphas[95] < 0.2 and alphas[65] == pytest.approx(0.6)


class TestSlices:
    def test_a_row_for_each_part(self, predictions, about, ax):
        table = evaluation.slice_table(predictions, about)
        figures.plot_slices(table, ax)
        names = [tick.get_text() for tick in ax.get_yticklabels()]
        assert names[:3] == ["all: utterances (n = 80)", "gender: female (n = 40)", "gender: male (n = 40)"]
        assert f"UA {table['UA'][0].value:.1f} %" in legend_of(ax)
        dots = np.concatenate([line.get_xydata() for line in ax.lines if line.get_marker() == "o"])
        assert np.allclose(dots[:, 0], [cell.value for cell in table["UA"]])


PLOTS = {
    "speakers": lambda p, m, ax: figures.plot_speaker_confusions(p, ax),
    "difference": lambda p, m, ax: figures.plot_confusion_difference(p, p, ax),
    "recall": lambda p, m, ax: figures.plot_recall_intervals(p, ax),
    "reliability": lambda p, m, ax: figures.plot_reliability(p, ax),
}


@pytest.mark.parametrize("name", PLOTS)
class TestEveryPlot:
    def test_a_missing_fold_is_named(self, name, predictions, about, ax):
        part = predictions[predictions["fold"] != "3F"]
        with pytest.raises(RunError, match="missing folds: 3F"):
            PLOTS[name](part, about, ax)

    def test_a_speaker_in_two_splits_is_named(self, name, predictions, about, ax):
        edited = predictions.copy()
        edited.loc[edited.index[edited["fold"] == "3F"][0], "split"] = "test"
        with pytest.raises(FoldError, match=r"fold 3F: speaker 3M is in validation \(7 .* and in test \(1\)"):
            PLOTS[name](edited, about, ax)


def test_across_corpora_by_hand():
    """Two corpora, three runs: what was not run stays empty, an unknown interval is not shown."""
    table = pd.DataFrame({
        "trained_on": ["a", "a", "b"], "tested_on": ["a", "b", "b"],
        "ua": [Estimate(80.0, 70.0, 90.0), Estimate(40.04, 30.0, 50.0), Estimate(60.0)],
    })  # fmt: skip
    ax = Figure().subplots()
    figures.plot_across(table, ax)
    assert [text.get_text() for text in ax.texts] == ["80.0\n[70.0, 90.0]", "40.0\n[30.0, 50.0]", "60.0"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("tested on", "trained on")
