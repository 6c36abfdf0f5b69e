"""Figures: what is drawn, what is written, and that it is the same bytes each time."""

import json
import os
import subprocess

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from serkit import metrics, runs
from serkit.constants import LABELS
from serkit.errors import ParameterError, RunError
from serkit.figures import plots as figures
from serkit.figures import saving as export
from serkit.figures.tables import save_table

mpl.use("Agg")

TRUTH = ["angry"] * 4 + ["sad"] * 2 + ["happy"] * 3 + ["neutral"]
PREDICTION = ["angry"] * 3 + ["sad", "sad", "sad", "happy", "angry", "neutral", "neutral"]
FRAMES = {"hop_length": 160, "sample_rate": 16_000}
DATA = pd.DataFrame({"x": [0.1, 0.2], "y": [1, 2]})
MANIFEST = pd.DataFrame(
    {
        "label": ["angry", "angry", "sad", "neutral", None],
        "speaker": ["1F", "1M", "1F", "1F", "1F"],
        "session": [1, 1, 1, 1, 1],
        "num_samples": [16_000, 40_000, 48_000, 56_000, 90_000],
        "sample_rate": 16_000,
    }
)
HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "train_loss": [1.4, 1.0, 0.7],
        "validation_loss": [1.5, 1.2, 1.3],
        "train_ua": [0.25, 0.5, 0.75],
        "validation_ua": [np.nan] * 3,
    }
)


@pytest.fixture
def ax():
    with figures.paper_style():
        yield Figure().subplots()


def texts(ax):
    return [text.get_text() for text in ax.texts]


def contrast(foreground, background):
    """WCAG 2 contrast ratio, 1 to 21."""

    def luminance(colour):
        channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]

    bright, dark = sorted([luminance(foreground), luminance(background)], reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def bar_heights(ax):
    return [patch.get_height() for patch in ax.patches]


class TestStyle:
    @pytest.mark.parametrize(("columns", "width"), [(1, 3.4), (2, 7.0)])
    def test_width_and_text_size(self, columns, width):
        with figures.paper_style(columns, height=2.0):
            assert Figure().get_size_inches().tolist() == [width, 2.0]
            assert mpl.rcParams["font.size"] == 8 and mpl.rcParams["pdf.fonttype"] == 42

    def test_style_ends_with_the_block(self):
        before = dict(mpl.rcParams)
        with figures.paper_style():
            pass
        assert dict(mpl.rcParams) == before

    def test_errors(self):
        with pytest.raises(ParameterError, match="columns=3"):
            figures.paper_style(3)
        with pytest.raises(ParameterError, match=r"height=60 in.*millimetres"):
            figures.paper_style(1, height=60)

    def test_each_label_has_its_own_colour(self):
        assert list(figures.EMOTION_COLOURS) == list(LABELS)
        assert len(set(figures.EMOTION_COLOURS.values())) == len(LABELS)


class TestScores:
    def test_confusion_matrix_by_hand(self, ax):
        assert figures.plot_confusion_matrix(TRUTH, PREDICTION, labels=LABELS, ax=ax) is ax
        cells = texts(ax)
        assert cells[:4] == ["75.0%\n(3)", "25.0%\n(1)", "0.0%\n(0)", "0.0%\n(0)"]
        assert cells[8:12] == ["33.3%\n(1)", "0.0%\n(0)", "33.3%\n(1)", "33.3%\n(1)"]
        assert [text.get_text() for text in ax.get_yticklabels()] == [
            "angry\nn = 4", "sad\nn = 2", "happy\nn = 3", "neutral\nn = 1",
        ]  # fmt: skip
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")
        shares = ax.images[0].get_array()
        assert list(shares.sum(axis=1)) == pytest.approx([100] * 4)

    def test_cells_are_readable_at_every_share(self, ax):
        # 4.5 is what WCAG 2 asks of small text; here for every share from 0 to 100 %
        for right in range(0, 101, 2):
            ax.clear()
            prediction = ["sad"] * right + ["angry"] * (100 - right)
            figures.plot_confusion_matrix(["sad"] * 100, prediction, labels=("sad", "angry"), ax=ax)
            image = ax.images[0]
            for text, share in zip(ax.texts, np.ravel(image.get_array()), strict=True):
                assert contrast(text.get_color(), image.cmap(image.norm(share))) >= 4.5

    def test_absent_class_has_no_shares(self, ax):
        figures.plot_confusion_matrix(["sad"], ["happy"], labels=LABELS, ax=ax)
        assert texts(ax)[:4] == ["–"] * 4
        assert texts(ax)[4:8] == ["0.0%\n(0)", "0.0%\n(0)", "100.0%\n(1)", "0.0%\n(0)"]

    def test_recall_by_hand(self, ax):
        figures.plot_recall(TRUTH, PREDICTION, labels=LABELS, ax=ax)
        assert bar_heights(ax) == pytest.approx([75, 100, 100 / 3, 100])
        assert ax.lines[0].get_ydata()[0] == pytest.approx((75 + 100 + 100 / 3 + 100) / 4)
        assert texts(ax) == ["75.0", "100.0", "33.3", "100.0"]

    def test_recall_of_absent_class(self, ax):
        figures.plot_recall(["sad"], ["sad"], labels=LABELS, ax=ax)
        assert texts(ax) == ["–", "100.0", "–", "–"]

    def test_speaker_scores(self, ax):
        table = pd.DataFrame({"speaker": ["1F", "1M"], "n": [10, 20], "wa": [0.5, 0.7], "ua": [0.4, 0.8]})
        figures.plot_speaker_scores(table, ax)
        assert ax.lines[0].get_ydata() == pytest.approx([40, 80])  # UA
        assert ax.lines[2].get_ydata() == pytest.approx([50, 70])  # WA
        assert "UA, mean 60.0" in [text.get_text() for text in ax.get_legend().get_texts()]
        with pytest.raises(ParameterError, match="several rows for one speaker"):
            figures.plot_speaker_scores(pd.concat([table, table]), ax)
        with pytest.raises(ParameterError, match=r"lacks \['session'\]"):
            figures.plot_speaker_scores(table, ax, by="session")

    @pytest.mark.parametrize(
        "given", [[0.7, 0.2, 0.1, 0.0], {"neutral": 0.0, "happy": 0.1, "sad": 0.2, "angry": 0.7}]
    )
    def test_class_probabilities(self, ax, given):
        figures.plot_class_probabilities(given, ax, truth="sad")
        assert [patch.get_width() for patch in ax.patches] == pytest.approx([70, 20, 10, 0])
        assert [text.get_text() for text in ax.get_yticklabels()] == [
            "angry",
            "sad (true)",
            "happy",
            "neutral",
        ]

    @pytest.mark.parametrize("given", [[2.0, -1.0, 0.0, 0.0], [0.5, 0.5], {"angry": 1.0}, [0.1] * 4])
    def test_what_is_no_probability(self, ax, given):
        with pytest.raises(ParameterError, match="summing to 1"):
            figures.plot_class_probabilities(given, ax)


class TestCorpus:
    def test_class_counts(self, ax):
        figures.plot_class_counts(MANIFEST, ax)
        # bars by label (angry, sad, happy, neutral), in each the speakers 1F and 1M
        assert bar_heights(ax) == [1, 1, 1, 0, 0, 0, 1, 0]
        assert texts(ax) == ["3", "1"]
        assert [text.get_text() for text in ax.get_xticklabels()] == ["1F", "1M"]

    def test_durations(self, ax):
        figures.plot_durations(MANIFEST, ax)
        tops = np.array([patch.get_y() + patch.get_height() for patch in ax.patches]).reshape(4, -1)
        # 1.0, 2.5, 3.0 and 3.5 s in bins of 0.5 s: a value on an edge belongs to the bin that starts there
        assert tops[-1].tolist() == [0, 0, 1, 0, 0, 1, 1, 1]
        assert ax.lines[0].get_xdata()[0] == 3.0

    def test_errors(self, ax):
        with pytest.raises(ParameterError, match=r"manifest lacks \['speaker'\]"):
            figures.plot_class_counts(MANIFEST.drop(columns="speaker"), ax)
        with pytest.raises(ParameterError, match="no utterance labelled"):
            figures.plot_durations(MANIFEST.assign(label="bored"), ax)
        with pytest.raises(ParameterError, match=r"'session' is missing for 4 of 4"):
            figures.plot_class_counts(MANIFEST.assign(session=None), ax, by="session")
        with pytest.raises(ParameterError, match="bin_s=0"):
            figures.plot_durations(MANIFEST, ax, bin_s=0)


class TestSignals:
    def test_spectrogram_axes(self, ax):
        spectrogram = np.linspace(-80, 0, 200 * 300).reshape(200, 300)
        figures.plot_spectrogram(spectrogram, **FRAMES, n_fft=800, ax=ax, valid_frames=250)
        # frame t is centred on t * 10 ms and bin f on f * 20 Hz
        assert ax.images[0].get_extent() == pytest.approx([-0.005, 2.995, -0.01, 3.99])
        left, right = ax.patches[0].get_x(), ax.patches[0].get_x() + ax.patches[0].get_width()
        assert (left, right) == pytest.approx((2.495, 2.995))
        assert ax.figure.axes[-1].get_ylabel() == "level (dB)"

    def test_a_tone_is_drawn_at_its_frequency(self, ax):
        spectrogram = np.full((200, 10), -80.0)
        spectrogram[50] = 0.0  # 1 kHz
        figures.plot_spectrogram(spectrogram, **FRAMES, n_fft=800, ax=ax)
        image = ax.images[0]
        bottom, top = image.get_extent()[2:]
        rows = np.linspace(bottom, top, 201)
        assert rows[50] <= 1.0 <= rows[51] and image.origin == "lower"

    def test_mfcc(self, ax):
        mfcc = np.zeros((300, 40))
        mfcc[:, 0], mfcc[0, 5] = -400, 30
        figures.plot_mfcc(mfcc, **FRAMES, ax=ax, valid_frames=np.arange(300) >= 100)
        assert ax.images[0].get_clim() == (-30, 30)  # coefficient 0 left out
        assert ax.images[0].get_array().shape == (40, 300)
        assert ax.patches[0].get_width() == pytest.approx(1.0)

    def test_short_waveform_is_drawn_sample_by_sample(self, ax):
        waveform = np.sin(np.arange(100))
        figures.plot_waveform(waveform, 16_000, ax, valid_samples=80)
        assert np.array_equal(ax.lines[0].get_ydata(), waveform)
        assert ax.patches[0].get_x() == pytest.approx(80 / 16_000)

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
        seconds, drawn = front.lines[0].get_data()
        # frame 10 looks at samples 3200 to 3600
        assert seconds[np.argmax(drawn)] == pytest.approx(3400 / 16_000)
        assert len(drawn) == 149

    def test_coattention_over_spectrogram(self, ax):
        spectrogram = np.zeros((200, 300))
        figures.plot_coattention(np.ones(149), ax, spectrogram_db=spectrogram, n_fft=800, **FRAMES)
        assert ax.images[0].get_extent()[1] == pytest.approx(2.995)

    def test_errors(self, ax):
        with pytest.raises(ParameterError, match="give exactly one"):
            figures.plot_coattention(np.ones(149), ax, sample_rate=16_000)
        with pytest.raises(ParameterError, match="n_fft=None"):
            figures.plot_coattention(np.ones(149), ax, spectrogram_db=np.zeros((2, 2)), **FRAMES)
        with pytest.raises(ParameterError, match=r"mfcc has shape \(40,\)"):
            figures.plot_mfcc(np.ones(40), **FRAMES, ax=ax)
        with pytest.raises(ParameterError, match="finite"):
            figures.plot_waveform([0.0, np.nan], 16_000, ax)
        with pytest.raises(ParameterError, match="sample_rate=0"):
            figures.plot_waveform([0.0], 0, ax)
        for valid in (301, -1, np.ones(299, bool)):
            with pytest.raises(ParameterError, match="from 0 to 300"):
                figures.plot_mfcc(np.ones((300, 40)), **FRAMES, ax=ax, valid_frames=valid)


class TestHistory:
    def test_loss(self, ax):
        figures.plot_history(HISTORY, ax, best_epoch=2)
        assert [list(line.get_ydata()) for line in ax.lines[:2]] == [[1.4, 1.0, 0.7], [1.5, 1.2, 1.3]]
        assert ax.lines[2].get_xdata()[0] == 2

    def test_ua_in_percent_without_validation(self, ax):
        figures.plot_history(HISTORY, ax, what="ua")
        assert list(ax.lines[0].get_ydata()) == [25, 50, 75]
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["train", "chance"]

    def test_errors(self, ax):
        with pytest.raises(ParameterError, match="what='accuracy'"):
            figures.plot_history(HISTORY, ax, what="accuracy")
        with pytest.raises(ParameterError, match="no train_wa or validation_wa"):
            figures.plot_history(HISTORY, ax, what="wa")
        with pytest.raises(ParameterError, match="best_epoch=9"):
            figures.plot_history(HISTORY, ax, best_epoch=9)


def confusion_figure():
    with figures.paper_style():
        fig = Figure()
        figures.plot_confusion_matrix(TRUTH, PREDICTION, labels=LABELS, ax=fig.subplots())
    return fig


def spectrogram_figure():
    with figures.paper_style():
        fig = Figure()
        figures.plot_spectrogram(np.eye(20, 30), **FRAMES, n_fft=800, ax=fig.subplots(), valid_frames=20)
    return fig


def save(root, fig=None, stem="confusion_matrix", **keywords):
    keywords = {"run": "demo", "data": DATA, "caption": "Two points.", **keywords}
    return figures.save_figure(fig or confusion_figure(), stem, root=root, **keywords)


class TestSaving:
    def test_files_and_numbers(self, tmp_path):
        counts = metrics.confusion_matrix(TRUTH, PREDICTION)
        paths = save(
            tmp_path, data=counts, parameters={"seed": np.int64(111), "root": tmp_path, "x": (1, 2.5)}
        )
        suffixes = [".png", ".pdf", ".svg", ".csv", ".json"]
        assert paths == [tmp_path / "demo" / f"confusion_matrix{suffix}" for suffix in suffixes]
        assert sorted(paths) == sorted((tmp_path / "demo").iterdir())  # nothing temporary left
        pd.testing.assert_frame_equal(
            pd.read_csv(paths[3], index_col="truth"), counts, check_names=False, check_index_type=False
        )
        record = json.loads(paths[4].read_text())
        assert record["caption"] == "Two points." and record["run"] == "demo"
        assert record["parameters"] == {"seed": 111, "root": tmp_path.as_posix(), "x": [1, 2.5]}
        assert record["commit"] == export.current_commit() and "serkit" in record

    def test_csv_in_full_precision(self, tmp_path):
        data = pd.DataFrame({"x": [1 / 3, 2 / 3]})
        assert pd.read_csv(save(tmp_path, data=data)[3])["x"].tolist() == [1 / 3, 2 / 3]

    @pytest.mark.parametrize("make", [confusion_figure, spectrogram_figure])
    @pytest.mark.parametrize("parameters", [None, {"selection": "published"}])
    def test_same_bytes(self, tmp_path, make, parameters):
        fig = make()
        first = [path.read_bytes() for path in save(tmp_path / "a", fig, parameters=parameters)]
        again = [path.read_bytes() for path in save(tmp_path / "b", fig, parameters=parameters)]
        anew = [path.read_bytes() for path in save(tmp_path / "c", make(), parameters=parameters)]
        assert first == again == anew

    def test_no_dates_and_no_program_inside(self, tmp_path):
        png, pdf, svg, _, _ = (path.read_bytes() for path in save(tmp_path))
        assert b"tEXt" not in png and b"tIME" not in png
        assert b"CreationDate" not in pdf and b"Producer" not in pdf
        assert b"<dc:date>" not in svg

    def test_fonts_are_embedded_as_truetype(self, tmp_path):
        pdf = save(tmp_path)[1].read_bytes()
        assert b"/FontFile2" in pdf and b"/Type3" not in pdf

    def test_resolution_and_page(self, tmp_path):
        image = mpl.image.imread(save(tmp_path)[0])
        assert image.shape[:2] == (720, 1020)  # 2.4 in x 3.4 in at 300 dpi

    def test_leak_notice_on_page_and_in_caption(self, tmp_path):
        fig = confusion_figure()
        plain = save(tmp_path / "clean", fig, parameters={"selection": "clean"})
        leaking = save(tmp_path / "published", fig, parameters={"selection": "published"})
        notice = runs.leak_notice({"selection": "published"})
        assert json.loads(leaking[4].read_text())["caption"] == f"Two points. {notice}"
        assert "Leak" not in plain[4].read_text()
        before, after = (mpl.image.imread(paths[0]) for paths in (plain, leaking))
        assert after.shape[1] == before.shape[1] and after.shape[0] > before.shape[0] + 20
        below = after[before.shape[0] :, :, :3]
        assert below.min() < 0.2  # dark letters below the figure
        assert below[:, -6:].min() == 1.0 and below[-3:].min() == 1.0  # none cut off
        # the figure itself is untouched
        assert fig.texts == []
        assert plain[0].read_bytes() == save(tmp_path / "again", fig)[0].read_bytes()

    def test_table_and_figure_do_not_overwrite_each_other(self, tmp_path):
        save(tmp_path, stem="scores")
        with pytest.raises(ParameterError, match=r"belongs to a figure.*'scores_table'"):
            save_table(DATA, "scores", run="demo", caption="c", root=tmp_path)
        save(tmp_path, stem="scores")  # the same figure again is fine

    @pytest.mark.parametrize("stem", ["", "a/b", "a b", "../a", ".hidden", "a.png", None, "ä"])
    def test_bad_stems(self, tmp_path, stem):
        with pytest.raises(ParameterError, match="stem="):
            save(tmp_path, stem=stem)

    @pytest.mark.parametrize("stem", ["cm_2026-07-31", "20260731_cm"])
    def test_stems_hold_no_date(self, tmp_path, stem):
        with pytest.raises(ParameterError, match="holds a date"):
            save(tmp_path, stem=stem)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"run": "a/b"}, "run='a/b'"),
            ({"data": [1, 2]}, "data is a list, expected a pandas DataFrame"),
            ({"data": DATA.iloc[:0]}, r"data has shape \(0, 2\)"),
            ({"caption": ""}, "caption=''"),
            ({"parameters": [1]}, "expected a mapping"),
            ({"parameters": {"x": float("nan")}}, "parameters hold nan"),
            ({"parameters": {"x": object()}}, "of type object"),
            ({"fig": "figure"}, "expected a matplotlib Figure"),
        ],
    )
    def test_refused_before_anything_is_written(self, tmp_path, changes, message):
        with pytest.raises(ParameterError, match=message):
            save(tmp_path, **changes)
        assert not list(tmp_path.iterdir())

    def test_root_that_is_a_file(self, tmp_path):
        (tmp_path / "taken").write_text("")
        with pytest.raises(RunError, match=r"taken.demo.confusion_matrix\.png: can't write.*root="):
            save(tmp_path / "taken")

    def test_full_disk_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = save(tmp_path)[0]
        before = path.read_bytes()

        def full(*args):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(RunError, match=r"No space left on device.*free some space"):
            save(tmp_path, spectrogram_figure())
        assert path.read_bytes() == before
        assert not [each for each in path.parent.iterdir() if each.name.endswith(".part")]

    def test_commit_is_unknown_without_git(self, monkeypatch):
        def missing(*args, **kwargs):
            raise FileNotFoundError("git")

        monkeypatch.setattr(subprocess, "run", missing)
        assert export.current_commit() is None

    def test_commit_of_another_repository_is_not_ours(self, monkeypatch):
        done = subprocess.CompletedProcess([], 0, stdout="/elsewhere\n" + "a" * 40 + "\n")
        monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: done)
        assert export.current_commit() is None
