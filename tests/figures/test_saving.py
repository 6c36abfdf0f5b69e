"""Saving: style, what is written, the same bytes each time; tables with the same numbers in three formats."""

import io
import json
import os
import re
import subprocess
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from serkit import figures, metrics, runs
from serkit.constants import LABELS
from serkit.errors import ParameterError, RunError
from serkit.evaluation import Estimate
from serkit.figures import save_table

mpl.use("Agg")

TRUTH = ["angry"] * 4 + ["sad"] * 2 + ["happy"] * 3 + ["neutral"]
PREDICTION = ["angry"] * 3 + ["sad", "sad", "sad", "happy", "angry", "neutral", "neutral"]
DATA = pd.DataFrame({"x": [0.1, 0.2], "y": [1, 2]})


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

    @pytest.mark.filterwarnings("error:.*Glyph")
    def test_names_of_classes_in_another_script_take_an_installed_font(self, monkeypatch, caplog):
        """One that comes with matplotlib stands for it: DejaVu Sans lacks this character too."""
        manager, strange = mpl.font_manager.fontManager, "\u1d81"
        font = Path(mpl.get_data_path(), "fonts/ttf/STIXGeneral.ttf")
        other = mpl.font_manager.FontEntry(fname=str(font), name="WenQuanYi Micro Hei", weight=400)

        def draw():
            with figures.paper_style():
                fig = Figure()
                figures.plot_confusion_matrix(
                    [strange], [strange], labels=(strange, "sad"), ax=fig.subplots()
                )
                fig.savefig(io.BytesIO())

        monkeypatch.setattr(
            manager, "ttflist", [entry for entry in manager.ttflist if "DejaVu" in entry.name]
        )
        with pytest.raises(UserWarning, match="missing from font"):
            draw()
        monkeypatch.setattr(manager, "ttflist", [*manager.ttflist, other])
        draw()
        assert not caplog.records

    def test_errors(self):
        with pytest.raises(ParameterError, match="columns=3"):
            figures.paper_style(3)
        with pytest.raises(ParameterError, match=r"height=60 in.*millimetres"):
            figures.paper_style(1, height=60)

    def test_emotions_can_be_told_apart_in_grey_print(self):
        """By lightness L* of CIE 1976: 5 is a clear difference side by side."""
        linear = [
            [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in mpl.colors.to_rgb(colour)]
            for colour in figures.EMOTION_COLOURS.values()
        ]
        lightness = 116 * np.cbrt(np.array(linear) @ (0.2126, 0.7152, 0.0722)) - 16
        assert list(figures.EMOTION_COLOURS) == list(LABELS)
        assert np.diff(np.sort(lightness)).min() > 5


def confusion_figure():
    with figures.paper_style():
        fig = Figure()
        figures.plot_confusion_matrix(TRUTH, PREDICTION, labels=LABELS, ax=fig.subplots())
    return fig


def mfcc_figure():
    with figures.paper_style():
        fig = Figure()
        about = {"hop_length": 160, "sample_rate": 16_000, "valid_frames": [20]}
        figures.plot_mfcc_panels({"hatched": np.eye(30, 20)}, fig.subplots(), **about)
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
        assert record["commit"] == runs.current_commit() and "serkit" in record

    def test_csv_in_full_precision(self, tmp_path):
        data = pd.DataFrame({"x": [1 / 3, 2 / 3]})
        assert pd.read_csv(save(tmp_path, data=data)[3])["x"].tolist() == [1 / 3, 2 / 3]

    @pytest.mark.parametrize("make", [confusion_figure, mfcc_figure])
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

    def test_leak_notice_on_page_and_in_caption(self, tmp_path, caplog):
        fig = confusion_figure()
        plain = save(tmp_path / "clean", fig, parameters={"selection": "clean"})
        leaking = save(tmp_path / "published", fig, parameters={"selection": "published"})
        assert not caplog.records  # such as fonts that are named and not installed
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

    @pytest.mark.parametrize(
        "stem", ["", "a/b", "a b", "../a", ".hidden", "a.png", None, "ä", "cm_2026-07-31", "20260731_cm"]
    )
    def test_bad_stems(self, tmp_path, stem):
        with pytest.raises(ParameterError, match=r"stem=.*without folder, extension or date"):
            save(tmp_path, stem=stem)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"run": "a/b"}, "run='a/b'"),
            ({"data": [1, 2]}, r"numbers are a list of shape \(2,\), expected a pandas DataFrame"),
            ({"data": DATA.iloc[:0]}, r"of shape \(0, 2\)"),
            ({"caption": ""}, "caption=''"),
            ({"parameters": [1]}, "expected names with text"),
            (
                {"parameters": {"x": float("nan")}},
                "not JSON compliant.*; expected names with text, finite numbers",
            ),
            ({"parameters": {"x": object()}}, "not object"),
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
            save(tmp_path, mfcc_figure())
        assert path.read_bytes() == before
        assert not [each for each in path.parent.iterdir() if each.name.endswith(".part")]

    def test_commit_is_unknown_without_git(self, monkeypatch):
        def missing(*args, **kwargs):
            raise FileNotFoundError("git")

        monkeypatch.setattr(subprocess, "run", missing)
        assert runs.current_commit() is None

    def test_commit_of_another_repository_is_not_ours(self, tmp_path, monkeypatch):
        git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.check_call([*git, "init", "-q"])
        subprocess.check_call([*git, "commit", "-q", "--allow-empty", "-m", "theirs"])
        monkeypatch.setattr(runs, "__file__", str(tmp_path / "serkit" / "runs.py"))
        assert len(runs.current_commit()) == 40
        monkeypatch.setattr(runs, "__file__", str(tmp_path / "packages" / "serkit" / "runs.py"))
        assert runs.current_commit() is None


TABLE = pd.DataFrame(
    {"speaker": ["1F", "5M"], "n": [528, 651], "UA (%)": [71.0512, float("nan")], "delta_UA": [-0.5, -0.001]}
)
KEYWORDS = {"run": "demo", "caption": "UA by speaker, 10 folds & 2 seeds."}


def save_one(tmp_path, table=TABLE, stem="ua_by_speaker", **keywords):
    return save_table(table, stem, root=tmp_path, **{**KEYWORDS, **keywords})


def test_by_hand(tmp_path):
    csv, markdown, latex, sidecar = save_one(tmp_path)
    assert csv == tmp_path / "demo" / "ua_by_speaker.csv"
    assert csv.read_text() == "speaker,n,UA (%),delta_UA\n1F,528,71.0512,-0.5\n5M,651,,-0.001\n"
    assert markdown.read_text() == (
        "UA by speaker, 10 folds & 2 seeds.\n\n"
        "| speaker   |   n |   UA (%) |   delta UA |\n"
        "|:----------|----:|---------:|-----------:|\n"
        "| 1F        | 528 |    71.05 |      −0.50 |\n"
        "| 5M        | 651 |        – |       0.00 |\n"
    )
    text = latex.read_text()
    assert r"\begin{tabular}{lrrr}" in text
    assert r"speaker & n & UA (\%) & delta UA \\" in text
    assert r"1F & 528 & 71.05 & $-$0.50 \\" in text
    assert r"5M & 651 & -- & 0.00 \\" in text
    assert r"\caption{UA by speaker, 10 folds \& 2 seeds.}" in text
    assert r"\label{tab:ua_by_speaker}" in text
    record = json.loads(sidecar.read_text())
    assert record["kind"] == "table" and record["caption"] == KEYWORDS["caption"]
    assert record["files"] == ["ua_by_speaker.csv", "ua_by_speaker.md", "ua_by_speaker.tex"]


def test_a_probability_is_never_shown_as_zero(tmp_path):
    table = pd.DataFrame(
        {"views": list("abcd"), "p_holm": [0.0024, 0.0004, 0.05399, float("nan")], "part": [0.0004] * 4}
    )
    csv, markdown, latex, _ = save_one(tmp_path, table)
    cells = [
        [cell.strip() for cell in line.split("|")[2:4]] for line in markdown.read_text().splitlines()[4:]
    ]
    assert cells == [["0.002", "0.00"], ["<0.001", "0.00"], ["0.054", "0.00"], ["–", "0.00"]]
    assert r"b & \textless{}0.001 & 0.00 \\" in latex.read_text()
    assert "0.0004" in csv.read_text()


def test_heads_are_words_and_long_numbers_have_separators(tmp_path):
    table = pd.DataFrame(
        {"wa_fold_mean": [0.5], "p_holm": [0.01], "n": [120_072_409], "length_mfcc": [-9999]}
    )
    csv, markdown, latex, _ = save_one(tmp_path, table)
    assert csv.read_text() == "wa_fold_mean,p_holm,n,length_mfcc\n0.5,0.01,120072409,-9999\n"
    header, _, cells = markdown.read_text().splitlines()[2:]
    words = ["WA, mean of folds", "p (Holm)", "n", "length MFCC"]
    assert [text.strip() for text in header.strip("|").split("|")] == words
    assert [text.strip(" ") for text in cells.strip("|").split("|")] == [
        "0.50", "0.010", "120\u202f072\u202f409", "−9999",
    ]  # fmt: skip
    assert " & ".join(words) in latex.read_text() and r"& 120\,072\,409 & $-$9999 \\" in latex.read_text()


def test_latex_special_characters_are_escaped(tmp_path):
    nasty = r"100% of_a & b #1 $x$ {y} ~z ^2 \cmd <3> |"
    latex = save_one(tmp_path, pd.DataFrame({"text": [nasty]}), caption=nasty)[2].read_text()
    expected = (
        r"100\% of\_a \& b \#1 \$x\$ \{y\} \textasciitilde{}z \textasciicircum{}2 "
        r"\textbackslash{}cmd \textless{}3\textgreater{} \textbar{}"
    )
    assert f"\n{expected} \\\\\n" in latex
    in_caption = expected.replace(r"of\_a", r"of\_\allowbreak a")
    assert rf"\caption{{{in_caption}}}" in latex


@pytest.mark.parametrize(("cell", "table"), [("x" * 42, "table"), ("x" * 43, "table*")])
def test_latex_table_that_is_too_wide_for_a_column_goes_over_both(tmp_path, cell, table):
    # 42 and 2 for the space between columns, 2 and 2 of the other column: 48
    latex = save_one(tmp_path, pd.DataFrame({"a": [cell], "b": [12]}))[2].read_text()
    begun, ended = re.findall(r"\\begin\{(.+?)\}", latex), re.findall(r"\\end\{(.+?)\}", latex)
    assert begun == ended[::-1] == [table, "tabular"]
    assert latex.count("{") == latex.count("}")
    assert [latex.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert all(line.count("&") == 1 for line in latex.splitlines() if line.endswith(r"\\"))


@pytest.mark.parametrize("cell", ["[70.1, 72.3]", "*"])
def test_latex_row_may_start_with_a_bracket(tmp_path, cell):
    # after a line break LaTeX reads [...] and * as options of the break
    assert "\n{}" + cell in save_one(tmp_path, pd.DataFrame({"a": [cell]}))[2].read_text()


def test_markdown_escapes_what_would_break_the_table(tmp_path):
    table = pd.DataFrame({"a|b": ["x*y", "_z_", "p_angry"]})
    rows = save_one(tmp_path, table)[1].read_text().splitlines()[2:]
    assert [row.strip("| ") for row in rows] == [r"a\|b", ":--------", r"x\*y", r"\_z\_", "p_angry"]


def test_named_index_becomes_the_first_column(tmp_path):
    counts = pd.DataFrame(
        [[3, 1], [0, 2]], index=pd.Index(["sad", "happy"], name="truth"), columns=["sad", "happy"]
    )
    csv, markdown, _, _ = save_one(tmp_path, counts)
    assert csv.read_text() == "truth,sad,happy\nsad,3,1\nhappy,0,2\n"
    assert markdown.read_text().splitlines()[2].split() == ["|", "truth", "|", "sad", "|", "happy", "|"]


def test_column_levels_are_joined(tmp_path):
    table = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("UA", "mean"), ("UA", "n")]))
    assert save_one(tmp_path, table)[0].read_text() == "UA mean,UA n\n1,2\n"


def test_index_named_like_a_column_and_categorical_columns(tmp_path):
    table = pd.DataFrame({"n": [1]}, index=pd.Index(["x"], name="n"))
    assert save_one(tmp_path, table)[0].read_text() == "n,n\nx,1\n"
    table = pd.DataFrame([[1]], index=["x"], columns=pd.CategoricalIndex(["sad"]))
    assert save_one(tmp_path, table)[0].read_text() == ",sad\nx,1\n"


def test_mixed_and_missing_values(tmp_path):
    table = pd.DataFrame({"value": [0.125, "a\nb", None, True, 7]})
    lines = save_one(tmp_path, table, decimals=1)[1].read_text().splitlines()[4:]
    assert [line.strip("| ") for line in lines] == ["0.1", "a b", "–", "True", "7"]


def test_same_bytes_and_input_untouched(tmp_path):
    before = TABLE.copy()
    first = [path.read_bytes() for path in save_one(tmp_path / "a")]
    assert first == [path.read_bytes() for path in save_one(tmp_path / "b")]
    pd.testing.assert_frame_equal(TABLE, before)


def test_leak_is_in_every_caption(tmp_path):
    _, markdown, latex, sidecar = save_one(tmp_path, parameters={"selection": "published"})
    for path in (markdown, latex, sidecar):
        assert (
            "Leak: the checkpoint was chosen on the test speakers (published protocol)." in path.read_text()
        )
    assert "Leak" not in save_one(tmp_path, parameters={"selection": "clean"})[2].read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": [[1, 2]]}, "are a list .*expected a pandas DataFrame"),
        ({"table": pd.DataFrame()}, r"shape \(0, 0\)"),
        ({"stem": "a/b"}, "stem='a/b'"),
        ({"caption": " "}, "caption=' '"),
    ],
)
def test_errors(tmp_path, changes, message):
    with pytest.raises(ParameterError, match=message):
        save_one(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


class TestEstimate:
    TABLE = pd.DataFrame(
        {"run": ["a", "b", "c"], "UA": [Estimate(64.123, 58.0, 70.16), Estimate(50.0), None]}
    )

    def test_markdown_and_latex_show_value_and_interval(self, tmp_path):
        save_table(self.TABLE, "ua", run="trial", caption="UA in %.", root=tmp_path, decimals=1)
        markdown = (tmp_path / "trial" / "ua.md").read_text()
        cells = [[cell.strip() for cell in line.split("|")[1:3]] for line in markdown.splitlines()[4:]]
        assert cells == [["a", "64.1 [58.0, 70.2]"], ["b", "50.0"], ["c", "–"]]
        latex = (tmp_path / "trial" / "ua.tex").read_text()
        assert (
            r"a & 64.1 [58.0, 70.2] \\" in latex and r"\begin{tabular}{lr}" in latex and r"\toprule" in latex
        )

    def test_csv_holds_three_numbers_in_full(self, tmp_path):
        save_table(self.TABLE, "ua", run="trial", caption="UA in %.", root=tmp_path, decimals=1)
        back = pd.read_csv(tmp_path / "trial" / "ua.csv")
        assert list(back.columns) == ["run", "UA", "UA_low", "UA_high"]
        assert back.loc[0, ["UA", "UA_low", "UA_high"]].tolist() == [64.123, 58.0, 70.16]
        assert back.loc[1, ["UA_low", "UA_high"]].isna().all() and np.isnan(back.loc[2, "UA"])


class TestSaveInOneCall:
    @pytest.fixture
    def run(self, tmp_path, monkeypatch):
        monkeypatch.setattr("serkit.figures.saving.project_home", lambda: tmp_path)
        return runs.start_run("mine", corpus="ravdess", recipe="published+D2")

    def test_the_caption_says_whose_speech_it_is(self, run, tmp_path, capsys):
        figures.save(run, "scores", DATA, "Scores of two runs.")
        record = json.loads((tmp_path / "figures/mine/scores.json").read_text())
        assert record["caption"] == "Scores of two runs. Speech of RAVDESS actors."
        assert record["parameters"] == {"corpus": "ravdess", "recipe": "published+D2"}
        assert capsys.readouterr().out.splitlines()[-1].endswith("figures/mine/scores .csv .md .tex .json")

    def test_a_figure_with_its_numbers_and_further_parameters(self, run, tmp_path):
        figures.save(run, "line", Figure(), "A line.", data=DATA, n_fft=800)
        assert (tmp_path / "figures/mine/line.csv").read_bytes() == figures.table_csv(DATA)
        assert json.loads((tmp_path / "figures/mine/line.json").read_text())["parameters"]["n_fft"] == 800

    def test_a_caption_that_names_the_speakers_needs_no_more(self, run, tmp_path):
        caption = "WA over all 24 folds (900 utterances of 24 RAVDESS actors)."
        figures.save(run, "scores", DATA, caption)
        assert json.loads((tmp_path / "figures/mine/scores.json").read_text())["caption"] == caption
