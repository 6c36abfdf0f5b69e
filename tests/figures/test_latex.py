"""What is saved goes into a LaTeX document as it is: it compiles, and nothing sticks out of its column."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from serkit.evaluation import Estimate
from serkit.figures import COLUMN_IN, TEXT_IN, latex_caption, paper_style, save_figure, save_table

# Two columns of a conference paper, as wide as the figures are made
HEAD = rf"""\documentclass[twocolumn]{{article}}
\usepackage{{booktabs,graphicx}}
\setlength{{\textwidth}}{{{TEXT_IN}in}}
\setlength{{\columnsep}}{{{TEXT_IN - 2 * COLUMN_IN:.1f}in}}
\begin{{document}}
"""
NASTY = (
    "95 % of_a & b #1 $x$ {y} ~z ^2 \\cmd <3> | ±2 ≥ 9 s, 3–4 s, −0.5 × 10 µm → “Müßiggänger” naïve, ca. 5°…"
)


@pytest.fixture
def compiled(tmp_path):
    """A function that compiles a document and returns its log."""
    program = shutil.which("pdflatex")
    if not program:
        pytest.skip(
            "no pdflatex here; on Debian it comes with texlive-latex-base and texlive-latex-recommended"
        )

    def compile_document(body):
        (tmp_path / "paper.tex").write_text(HEAD + body + "\n\\end{document}\n", encoding="utf-8")
        command = [program, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=120, errors="replace"
        )
        log = (tmp_path / "paper.log").read_text(errors="replace")
        assert done.returncode == 0, [line for line in log.splitlines() if line.startswith(("!", "l."))]
        assert (tmp_path / "paper.pdf").stat().st_size > 1000
        return log

    return compile_document


def figure(pdf, caption):
    """A figure at its own size, over both columns if it was made for both."""
    points = float(re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", pdf.read_bytes())[1])
    name = "figure" if points < 72 * (COLUMN_IN + 0.1) else "figure*"
    inside = rf"\includegraphics{{{pdf}}}\caption{{{latex_caption(caption)}}}"
    return rf"\begin{{{name}}}\centering {inside}\end{{{name}}}"


def assert_nothing_sticks_out(log):
    assert not [line for line in log.splitlines() if line.startswith("Overfull \\hbox")]


def test_the_log_of_something_too_wide_says_so(compiled):
    assert "Overfull \\hbox" in compiled(r"\noindent\rule{3.6in}{1pt}")


def test_tables_and_figures_of_both_widths_with_every_special_character(compiled, tmp_path):
    narrow = pd.DataFrame({"Größe_1": ["[a", "*b"], "UA (%)": [Estimate(64.1, 58.0, 70.2), Estimate(-0.5)]})
    wide = pd.DataFrame({f"{NASTY[:20]} {i}": [NASTY[:30], NASTY[-30:]] for i in range(5)})
    body = []
    for stem, table in {"narrow": narrow, "wide": wide}.items():
        files = save_table(table, stem, run="trial", caption=NASTY, root=tmp_path)
        body.append(rf"\input{{{next(path for path in files if path.suffix == '.tex')}}}")
    for columns in (1, 2):
        with paper_style(columns=columns):
            drawn, ax = plt.subplots()
            ax.plot([0, 1], [0, 1])
            ax.set(xlabel="50 % ± 2", title="Ärger_1")
        files = save_figure(
            drawn, f"columns_{columns}", run="trial", data=narrow, caption=NASTY, root=tmp_path
        )
        plt.close(drawn)
        body.append(figure(next(path for path in files if path.suffix == ".pdf"), NASTY))
    assert_nothing_sticks_out(compiled("\n".join(body)))


def test_everything_in_the_gallery(compiled, request):
    folder = Path(request.config.rootpath) / "figures" / "gallery"
    body, kinds = [], set()
    for sidecar in sorted(folder.glob("*.json")):
        record = json.loads(sidecar.read_text(encoding="utf-8"))
        kinds.add(record["kind"])
        table = rf"\input{{{sidecar.with_suffix('.tex')}}}"
        body.append(
            table if record["kind"] == "table" else figure(sidecar.with_suffix(".pdf"), record["caption"])
        )
        body.append(r"\clearpage")
    assert kinds == {"figure", "table"}
    assert_nothing_sticks_out(compiled("\n".join(body)))
