"""Tables for a report: CSV to compute with, Markdown to read, LaTeX to print."""

import os
import re
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from serkit.errors import ParameterError
from serkit.evaluation.intervals import Estimate
from serkit.figures.saving import Sidecar, check_frame, to_csv

LATEX_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "–": "--",
    **{char: "\\" + char for char in "%_&#${}"},
    "≥": r"$\geq$", "≤": r"$\leq$", "−": "$-$", "×": r"$\times$", "±": r"$\pm$", "→": r"$\to$",
    "≈": r"$\approx$", "µ": r"$\mu$", "μ": r"$\mu$", "…": r"\ldots{}", "°": r"$^\circ$",
}  # fmt: skip
P_DIGITS = 3  # decimals that a probability shows at least
COLUMN_CHARACTERS = 48  # about what fits one column of 3.4 in; a wider table goes over both


def save_table(
    table: pd.DataFrame,
    stem: str,
    *,
    run: str,
    caption: str,
    root: str | os.PathLike | None = None,
    parameters: Mapping | None = None,
    decimals: int = 2,
) -> list[Path]:
    r"""Write a table as CSV, Markdown and LaTeX, with its origin beside it.

    Parameters
    ----------
    table : pd.DataFrame
        One row per line. The index becomes the first column unless it only counts rows; levels
        of column names are joined by a space. Cells may be :class:`Estimate`.
    stem, run, caption, root, parameters
        As in :func:`serkit.figures.saving.save_figure`, the notice of a leaking selection included. The
        caption is plain text: special characters are escaped.
    decimals : int, 0 to 10
        Of fractional numbers in Markdown and LaTeX; the CSV holds full precision. Columns that are
        called ``p`` or ``p_...`` hold probabilities: they get three at least, and ``<0.001``.

    Returns
    -------
    list of Path
        The files written: ``.csv .md .tex .json``. The LaTeX needs ``\usepackage{booktabs,graphicx}``
        and is referred to as ``tab:<stem>``; a table wider than the text is made smaller.

    Raises
    ------
    ParameterError
        If the table is empty or not a DataFrame, an argument can't be used, or a figure of this
        run has the same stem.
    RunError
        If the files can't be written.
    """
    check_frame(table, "table")
    if not isinstance(decimals, Integral) or not 0 <= decimals <= 10:
        raise ParameterError(
            f"decimals={decimals!r}: expected a whole number of digits from 0 to 10; use 2 for percent"
        )
    record = Sidecar("table", stem, run, caption, root, parameters)
    flat = _flat(table)
    numeric = [_is_numeric(flat.iloc[:, i]) for i in range(flat.shape[1])]
    header = [str(name) for name in flat.columns]
    columns = [
        [
            _p_value(value, decimals) if _holds_p_values(name) else _cell(value, decimals)
            for value in flat.iloc[:, i]
        ]
        for i, name in enumerate(header)
    ]
    body = [list(row) for row in zip(*columns, strict=True)]
    markdown = f"{_markdown_text(record.caption)}\n\n{markdown_table(header, body, numeric)}"
    latex = latex_table(header, body, numeric, caption=record.caption, label=f"tab:{stem}")
    return record.write({".csv": table_csv(table), ".md": markdown.encode(), ".tex": latex.encode()})


def table_csv(table: pd.DataFrame) -> bytes:
    """The CSV that :func:`save_table` writes: full precision, three columns for each :class:`Estimate`.

    Examples
    --------
    >>> table_csv(pd.DataFrame({"UA": [Estimate(64.0, 58.0, 70.0)]})).decode().split()
    ['UA,UA_low,UA_high', '64.0,58.0,70.0']
    """
    return to_csv(_split_estimates(_flat(table)))


def markdown_table(header: list[str], body: list[list[str]], numeric: list[bool]) -> str:
    """GitHub Markdown, numbers to the right, columns lined up for reading as plain text.

    Examples
    --------
    >>> print(markdown_table(["label", "n"], [["sad", "1084"], ["angry", "1103"]], [False, True]), end="")
    | label |    n |
    | :---- | ---: |
    | sad   | 1084 |
    | angry | 1103 |
    """
    rows = [[_markdown_text(cell) for cell in row] for row in [header, *body]]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rules = [
        "-" * (w - 1) + ":" if right else ":" + "-" * (w - 1)
        for w, right in zip(widths, numeric, strict=True)
    ]
    lines = []
    for row in [rows[0], rules, *rows[1:]]:
        cells = [
            c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("| " + " | ".join(cells) + " |\n")
    return "".join(lines)


def latex_table(
    header: list[str], body: list[list[str]], numeric: list[bool], *, caption: str, label: str
) -> str:
    r"""A LaTeX table in booktabs style, special characters escaped.

    What is too wide for a column becomes a ``table*``, which goes over both; what is wider than that is
    made as small as it has to be.

    Examples
    --------
    >>> print(latex_table(["UA (%)"], [["71.05"]], [True], caption="A & B", label="tab:ua"), end="")
    % needs \usepackage{booktabs,graphicx}
    \begin{table}[t]
      \centering
      \caption{A \& B}
      \label{tab:ua}
      \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%
      \begin{tabular}{r}
        \toprule
        UA (\%) \\
        \midrule
        71.05 \\
        \bottomrule
      \end{tabular}}
    \end{table}
    """
    rows = [" & ".join(map(_latex_text, row)) + r" \\" for row in [header, *body]]
    widths = [max(map(len, column)) + 2 for column in zip(header, *body, strict=True)]
    table = "table" if sum(widths) <= COLUMN_CHARACTERS else "table*"
    tabular = [r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule"]
    lines = [
        r"% needs \usepackage{booktabs,graphicx}",
        rf"\begin{{{table}}}[t]",
        r"  \centering",
        rf"  \caption{{{latex_caption(caption)}}}",
        rf"  \label{{{label}}}",
        r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"  \begin{{tabular}}{{{''.join('r' if right else 'l' for right in numeric)}}}",
        *(f"    {line}" for line in tabular),
        r"  \end{tabular}}",
        rf"\end{{{table}}}",
    ]
    return "\n".join(lines) + "\n"


def latex_caption(text: str) -> str:
    r"""Plain text, such as the caption in a figure's sidecar, as LaTeX.

    Names of variants are long and may be broken after an underscore.

    Examples
    --------
    >>> print(latex_caption("UA < 50 % of demo_1"))
    UA \textless{} 50 \% of demo\_\allowbreak 1
    """
    return _latex_text(text).replace(r"\_", r"\_\allowbreak ")


def _flat(table):
    """One header line, no index, so that all three formats show the same columns."""
    flat = table.copy()
    if isinstance(flat.columns, pd.MultiIndex):
        flat.columns = [" ".join(str(level) for level in name if str(level)) for name in flat.columns]
    if isinstance(flat.index, pd.RangeIndex) and flat.index.name is None:
        return flat
    flat.columns = [str(name) for name in flat.columns]  # categorical column names take no new one
    names = ["" if name is None else str(name) for name in flat.index.names]
    return flat.reset_index(names=names, allow_duplicates=True)


def _is_numeric(column):
    if any(isinstance(value, Estimate) for value in column):
        return True
    return is_numeric_dtype(column.dtype) and not is_bool_dtype(column.dtype)


def _split_estimates(flat):
    """The same table with value, low and high in columns of their own, to compute with."""
    parts = []
    for i in range(flat.shape[1]):
        column = flat.iloc[:, i]
        if not any(isinstance(value, Estimate) for value in column):
            parts.append(column)
            continue
        cells = [value if isinstance(value, Estimate) else Estimate(value) for value in column]
        for field, suffix in zip(Estimate._fields, ("", "_low", "_high"), strict=True):
            values = [getattr(cell, field) for cell in cells]
            parts.append(pd.Series(values, index=flat.index, name=f"{column.name}{suffix}", dtype=float))
    return pd.concat(parts, axis=1)


def _cell(value, decimals):
    if isinstance(value, Estimate):
        center = _cell(value.value, decimals)
        if not np.isfinite([value.low, value.high]).all():
            return center
        return f"{center} [{_cell(value.low, decimals)}, {_cell(value.high, decimals)}]"
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "–"
    if isinstance(value, Real) and not isinstance(value, Integral) and not pd.api.types.is_bool(value):
        return f"{round(float(value), decimals) + 0.0:.{decimals}f}"  # + 0.0 turns -0.0 into 0.0
    return " ".join(str(value).split())


def _holds_p_values(name):
    return name == "p" or name.startswith("p_")


def _p_value(value, decimals):
    digits = max(decimals, P_DIGITS)
    if isinstance(value, Real) and 0 <= value < 0.5 * 10**-P_DIGITS:
        return f"<{10**-P_DIGITS:.{P_DIGITS}f}"
    return _cell(value, digits)


def _markdown_text(text):
    text = re.sub(r"([\\|*`<])", r"\\\1", text)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # inside a word GitHub leaves it alone


def _latex_text(text):
    if re.fullmatch(r"-\d+(\.\d+)?", text):
        return f"$-${text[1:]}"  # a minus sign, not a hyphen
    guard = "{}" if text[:1] in ("[", "*") else ""  # or the line break before takes them as its option
    return guard + "".join(LATEX_SPECIAL.get(char, char) for char in text)
