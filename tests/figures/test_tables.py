"""Tables: the same numbers in three formats, special characters escaped."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from serkit.errors import ParameterError
from serkit.evaluation.intervals import Estimate
from serkit.figures.tables import latex_table, markdown_table, save_table

TABLE = pd.DataFrame(
    {"speaker": ["1F", "5M"], "n": [528, 651], "UA (%)": [71.0512, float("nan")], "delta_UA": [-0.5, -0.001]}
)
KEYWORDS = {"run": "demo", "caption": "UA by speaker, 10 folds & 2 seeds."}


def save(tmp_path, table=TABLE, stem="ua_by_speaker", **keywords):
    return save_table(table, stem, root=tmp_path, **{**KEYWORDS, **keywords})


def test_by_hand(tmp_path):
    csv, markdown, latex, sidecar = save(tmp_path)
    assert csv == tmp_path / "demo" / "ua_by_speaker.csv"
    assert csv.read_text() == "speaker,n,UA (%),delta_UA\n1F,528,71.0512,-0.5\n5M,651,,-0.001\n"
    assert markdown.read_text() == (
        "UA by speaker, 10 folds & 2 seeds.\n\n"
        "| speaker |   n | UA (%) | delta_UA |\n"
        "| :------ | --: | -----: | -------: |\n"
        "| 1F      | 528 |  71.05 |    -0.50 |\n"
        "| 5M      | 651 |      – |     0.00 |\n"
    )
    text = latex.read_text()
    assert r"\begin{tabular}{lrrr}" in text
    assert r"speaker & n & UA (\%) & delta\_UA \\" in text
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
    csv, markdown, latex, _ = save(tmp_path, table)
    cells = [
        [cell.strip() for cell in line.split("|")[2:4]] for line in markdown.read_text().splitlines()[4:]
    ]
    assert cells == [["0.002", "0.00"], [r"\<0.001", "0.00"], ["0.054", "0.00"], ["–", "0.00"]]
    assert r"b & \textless{}0.001 & 0.00 \\" in latex.read_text()
    assert "0.0004" in csv.read_text()


def test_latex_special_characters_are_escaped():
    nasty = r"100% of_a & b #1 $x$ {y} ~z ^2 \cmd <3> |"
    latex = latex_table(["text"], [[nasty]], [False], caption=nasty, label="tab:x")
    expected = (
        r"100\% of\_a \& b \#1 \$x\$ \{y\} \textasciitilde{}z \textasciicircum{}2 "
        r"\textbackslash{}cmd \textless{}3\textgreater{} \textbar{}"
    )
    assert f"    {expected} \\\\\n" in latex
    in_caption = expected.replace(r"of\_a", r"of\_\allowbreak a")
    assert rf"\caption{{{in_caption}}}" in latex


def test_latex_structure_is_balanced():
    latex = latex_table(["a", "b"], [["1", "2"], ["3", "4"]], [True, True], caption="c", label="tab:c")
    begun, ended = re.findall(r"\\begin\{(\w+)\}", latex), re.findall(r"\\end\{(\w+)\}", latex)
    assert begun == ended[::-1] == ["table", "tabular"]
    assert latex.count("{") == latex.count("}")


@pytest.mark.parametrize(("cell", "table"), [("x" * 42, "table"), ("x" * 43, "table*")])
def test_latex_table_that_is_too_wide_for_a_column_goes_over_both(cell, table):
    # 42 and 2 for the space between columns, 2 and 2 of the other column: 48
    latex = latex_table(["a", "b"], [[cell, "12"]], [False, True], caption="c", label="tab:c")
    assert rf"\begin{{{table}}}[t]" in latex and rf"\end{{{table}}}" in latex
    assert latex.count("{") == latex.count("}")
    assert [latex.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert all(line.count("&") == 1 for line in latex.splitlines() if line.endswith(r"\\"))


@pytest.mark.parametrize("cell", ["[70.1, 72.3]", "*"])
def test_latex_row_may_start_with_a_bracket(cell):
    # after a line break LaTeX reads [...] and * as options of the break
    assert "    {}" + cell in latex_table(["a"], [[cell]], [False], caption="c", label="tab:c")


def test_markdown_escapes_what_would_break_the_table():
    rows = markdown_table(["a|b"], [["x*y"], ["_z_"], ["p_angry"]], [False]).splitlines()
    assert rows == ["| a\\|b    |", "| :------ |", "| x\\*y    |", "| \\_z\\_   |", "| p_angry |"]


def test_named_index_becomes_the_first_column(tmp_path):
    counts = pd.DataFrame(
        [[3, 1], [0, 2]], index=pd.Index(["sad", "happy"], name="truth"), columns=["sad", "happy"]
    )
    csv, markdown, _, _ = save(tmp_path, counts)
    assert csv.read_text() == "truth,sad,happy\nsad,3,1\nhappy,0,2\n"
    assert "| truth | sad | happy |" in markdown.read_text()


def test_column_levels_are_joined(tmp_path):
    table = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("UA", "mean"), ("UA", "n")]))
    assert save(tmp_path, table)[0].read_text() == "UA mean,UA n\n1,2\n"


def test_index_named_like_a_column_and_categorical_columns(tmp_path):
    table = pd.DataFrame({"n": [1]}, index=pd.Index(["x"], name="n"))
    assert save(tmp_path, table)[0].read_text() == "n,n\nx,1\n"
    table = pd.DataFrame([[1]], index=["x"], columns=pd.CategoricalIndex(["sad"]))
    assert save(tmp_path, table)[0].read_text() == ",sad\nx,1\n"


def test_mixed_and_missing_values(tmp_path):
    table = pd.DataFrame({"value": [0.125, "a\nb", None, True, 7]})
    lines = save(tmp_path, table, decimals=1)[1].read_text().splitlines()[4:]
    assert [line.strip("| ") for line in lines] == ["0.1", "a b", "–", "True", "7"]


def test_same_bytes_and_input_untouched(tmp_path):
    before = TABLE.copy()
    first = [path.read_bytes() for path in save(tmp_path / "a")]
    assert first == [path.read_bytes() for path in save(tmp_path / "b")]
    pd.testing.assert_frame_equal(TABLE, before)


def test_leak_is_in_every_caption(tmp_path):
    _, markdown, latex, sidecar = save(tmp_path, parameters={"selection": "published"})
    for path in (markdown, latex, sidecar):
        assert (
            "Leak: the checkpoint was chosen on the test speakers (published protocol)." in path.read_text()
        )
    assert "Leak" not in save(tmp_path, parameters={"selection": "clean"})[2].read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": [[1, 2]]}, "table is a list, expected a pandas DataFrame"),
        ({"table": pd.DataFrame()}, r"shape \(0, 0\)"),
        ({"stem": "a/b"}, "stem='a/b'"),
        ({"decimals": -1}, "decimals=-1"),
        ({"caption": " "}, "caption=' '"),
    ],
)
def test_errors(tmp_path, changes, message):
    with pytest.raises(ParameterError, match=message):
        save(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


class TestEstimate:
    TABLE = pd.DataFrame(
        {"run": ["a", "b", "c"], "UA": [Estimate(64.123, 58.0, 70.16), Estimate(50.0), None]}
    )

    def test_markdown_and_latex_show_value_and_interval(self, tmp_path):
        save_table(self.TABLE, "ua", run="trial", caption="UA in %.", root=tmp_path, decimals=1)
        markdown = (tmp_path / "trial" / "ua.md").read_text()
        assert "| a   | 64.1 [58.0, 70.2] |" in markdown and "|              50.0 |" in markdown
        assert "|                 – |" in markdown
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
