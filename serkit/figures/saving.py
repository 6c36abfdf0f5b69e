"""Figures and tables for print: their style, and writing them with the numbers and the origin beside them.

Make figures inside ``with paper_style():``. Files of one run lie in one folder and are named by a stem
that holds no date; written again from the same code and data, they are the same bytes.
"""

import hashlib
import io
import itertools
import json
import os
import re
import textwrap
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from tabulate import tabulate

import serkit
from serkit.errors import ParameterError, RunError
from serkit.evaluation import Estimate
from serkit.experiment import project_home
from serkit.files import replacing
from serkit.runs import check_run_name, current_commit, leak_notice

COLUMN_IN = 3.4  # inch, one column
TEXT_IN = 7.0  # inch, both columns
PNG_DPI = 300  # dots per inch
NOTICE_PT = 6  # pt, footnote under a figure
SETTLING_DRAWS = 3  # after the second, constrained layout moves by less than a millionth of the width

# Okabe and Ito's palette, told apart with any of the common colour vision deficiencies
BLUE, ORANGE, GREEN, VERMILLION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999"
# the dark grey differs from orange in grey print, which the palette's own does not
EMOTION_COLOURS = {"angry": VERMILLION, "sad": BLUE, "happy": ORANGE, "neutral": "#404040"}
OTHER_COLOURS = (GREEN, "#CC79A7", "#56B4E9", "#F0E442", "#000000")  # labels of other tasks

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_=-]*")
DATE = re.compile(r"(19|20)\d\d[-_]?(0\d|1[0-2])[-_]?([0-2]\d|3[01])")
DIGEST = "predictions"  # parameter of a sidecar: which predictions a figure shows
# Text stays text in PDF, ids in SVG do not depend on the process, pages keep their size
SAVING_RC = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.hashsalt": "serkit", "savefig.bbox": None}
UNDATED = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Creator": None, "Date": None},
}
PAPER_RC = {
    **SAVING_RC,
    "font.family": "DejaVu Sans", "font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7, "legend.frameon": False,
    "legend.handlelength": 1.4, "legend.columnspacing": 1.0, "axes.linewidth": 0.6,
    "axes.spines.top": False, "axes.spines.right": False, "xtick.major.width": 0.6,
    "ytick.major.width": 0.6, "lines.linewidth": 1.2, "lines.markersize": 4, "patch.linewidth": 0.6,
    "hatch.linewidth": 0.5, "image.interpolation": "nearest", "figure.constrained_layout.use": True,
    "figure.dpi": 150, "savefig.dpi": PNG_DPI,
    "axes.prop_cycle": mpl.cycler(color=[BLUE, VERMILLION, GREEN, ORANGE, GREY]),
}  # fmt: skip

LATEX_SPECIAL = str.maketrans({
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "–": "--",
    **{char: "\\" + char for char in "%_&#${}"},
    "≥": r"$\geq$", "≤": r"$\leq$", "−": "$-$", "×": r"$\times$", "±": r"$\pm$", "→": r"$\to$",
    "≈": r"$\approx$", "µ": r"$\mu$", "μ": r"$\mu$", "…": r"\ldots{}", "°": r"$^\circ$",
})  # fmt: skip
AS_WIDE_AS_THE_PAGE = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"  # at most
P_DIGITS = 3  # decimals that a probability shows at least
COLUMN_CHARACTERS = 48  # about what fits one column of 3.4 in; a wider table goes over both


def paper_style(columns: int = 1, height: float = 2.4):
    """Context manager: figures made inside have 8 pt text, the width of the page, and no cut labels.

    Parameters
    ----------
    columns : {1, 2}
        Width of a new figure: 3.4 in (one column) or 7.0 in (both).
    height : float
        Height of a new figure in inches.

    Raises
    ------
    ParameterError
        If ``columns`` or ``height`` can't be used.
    """
    if columns not in (1, 2):
        raise ParameterError(f"columns={columns!r}: expected 1 ({COLUMN_IN} in) or 2 ({TEXT_IN} in)")
    if not 0.5 <= height <= 10:
        raise ParameterError(f"height={height!r} in, expected 0.5 to 10 in; did you give millimetres?")
    # Loads the backend now. Loaded inside the context, Jupyter's switch to showing figures by itself
    # would be undone on leaving it, and every figure but the first would stay invisible.
    plt.draw_if_interactive()
    return mpl.rc_context({**PAPER_RC, "figure.figsize": (COLUMN_IN if columns == 1 else TEXT_IN, height)})


def colours_of(labels) -> list[str]:
    """One colour for each label; emotions keep theirs, labels of other tasks take turns."""
    others = itertools.cycle(OTHER_COLOURS)
    return [EMOTION_COLOURS.get(label) or next(others) for label in labels]


def readable_on(background) -> str:
    """Black or white, whichever stands out more (WCAG 2 relative luminance)."""
    rgb = np.array(to_rgb(background))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def legend_above(ax, columns=None):
    """Put the legend above the axes, in one line unless ``columns`` says otherwise."""
    names = ax.get_legend_handles_labels()[1]
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns or len(names), borderaxespad=0.2)
    return ax


def save_figure(
    fig: Figure,
    stem: str,
    *,
    run: str,
    data: pd.DataFrame,
    caption: str,
    root: str | os.PathLike | None = None,
    parameters: Mapping | None = None,
) -> list[Path]:
    """Write a figure as PNG (300 dpi), PDF and SVG, with its numbers and its origin beside it.

    Parameters
    ----------
    fig : matplotlib Figure
        Its axes stay where they are from now on, whatever is drawn later.
    stem : str
        File name without extension: letters, digits, ``_``, ``-`` and ``=``, no date.
    run : str
        Name of the run, used as folder name.
    data : pd.DataFrame
        The plotted numbers, for the CSV. The index is written unless it only counts rows.
    caption : str
        Says what is shown and under which protocol.
    root : path, optional
        Folder that holds one folder for each run; default ``figures`` of the project.
    parameters : mapping, optional
        What the figure was made with, for the sidecar. With ``selection="published"`` caption and
        figure say that the checkpoint was chosen on the test speakers.

    Returns
    -------
    list of Path
        The files written: ``.png .pdf .svg .csv .json``.

    Raises
    ------
    ParameterError
        If the stem, run, caption or parameters can't be used, ``data`` is not a filled DataFrame, or
        a table of this run has the same stem.
    RunError
        If the files can't be written. None is left half-written.
    """
    if not isinstance(fig, Figure):
        raise ParameterError(
            f"fig={fig!r}: expected a matplotlib Figure; give ax.figure or the fig of plt.subplots"
        )
    _check_frame(data, "data")
    sidecar = _sidecar("figure", stem, run, caption, root, parameters)
    _settle_layout(fig)
    notice = leak_notice(parameters)
    images = {f".{suffix}": _render(fig, suffix, notice) for suffix in UNDATED}
    return _write(sidecar, root, images | {".csv": _csv(data)})


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
        of column names are joined by a space. Cells may be :class:`serkit.evaluation.Estimate`.
    stem, run, caption, root, parameters
        As in :func:`save_figure`. The caption is plain text: special characters are escaped.
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
    ParameterError, RunError
        As :func:`save_figure`.
    """
    _check_frame(table, "table")
    if not isinstance(decimals, Integral) or not 0 <= decimals <= 10:
        raise ParameterError(
            f"decimals={decimals!r}: expected a whole number of digits from 0 to 10; use 2 for percent"
        )
    sidecar = _sidecar("table", stem, run, caption, root, parameters)
    flat = _flat(table)
    header = [str(name) for name in flat.columns]
    columns = [flat.iloc[:, i] for i in range(len(header))]
    align = ["right" if _is_numeric(column) else "left" for column in columns]
    cells = [
        [_cell(value, decimals, p=name == "p" or name.startswith("p_")) for value in column]
        for name, column in zip(header, columns, strict=True)
    ]
    body = [list(row) for row in zip(*cells, strict=True)]
    escaped = [[_markdown_text(text) for text in row] for row in [header, *body]]
    lines = tabulate(escaped[1:], escaped[0], tablefmt="pipe", disable_numparse=True, colalign=align)
    markdown = f"{_markdown_text(sidecar['caption'])}\n\n{lines}\n"
    latex = _latex(header, body, align, sidecar["caption"], f"tab:{stem}")
    return _write(sidecar, root, {".csv": table_csv(table), ".md": markdown.encode(), ".tex": latex.encode()})


def digest_of(predictions: pd.DataFrame) -> str:
    """Short hash of a prediction table, whatever the order of its rows: for parameter ``predictions``.

    Examples
    --------
    >>> table = pd.DataFrame({"utterance_id": ["a", "b"], "truth": ["sad", "happy"]})
    >>> digest_of(table) == digest_of(table[::-1]), digest_of(table) == digest_of(table[:1])
    (True, False)
    """
    hashes = pd.util.hash_pandas_object(predictions[sorted(predictions.columns)], index=False)
    return hashlib.sha256(np.sort(hashes.to_numpy()).tobytes()).hexdigest()[:12]


def table_csv(table: pd.DataFrame) -> bytes:
    """The CSV that :func:`save_table` writes: full precision, three columns for each estimate.

    Examples
    --------
    >>> table_csv(pd.DataFrame({"UA": [Estimate(64.0, 58.0, 70.0)]})).decode().split()
    ['UA,UA_low,UA_high', '64.0,58.0,70.0']
    """
    flat, parts = _flat(table), []
    for i in range(flat.shape[1]):
        column = flat.iloc[:, i]
        if any(isinstance(value, Estimate) for value in column):
            cells = [value if isinstance(value, Estimate) else Estimate(value) for value in column]
            names = [f"{column.name}{suffix}" for suffix in ("", "_low", "_high")]
            column = pd.DataFrame(cells, index=flat.index, dtype=float).set_axis(names, axis="columns")
        parts.append(column)
    return _csv(pd.concat(parts, axis=1))


def latex_caption(text: str) -> str:
    r"""Plain text, such as the caption in a figure's sidecar, as LaTeX.

    Names of variants are long and may be broken after an underscore.

    Examples
    --------
    >>> print(latex_caption("UA < 50 % of demo_1"))
    UA \textless{} 50 \% of demo\_\allowbreak 1
    """
    return text.translate(LATEX_SPECIAL).replace(r"\_", r"\_\allowbreak ")


def write_file(path: Path, content: bytes) -> Path:
    """Write a file in one step; a folder that can't be written to gets one message.

    Raises
    ------
    RunError
        If the disk is full or the folder is write-protected. Nothing is left half-written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # trainings side by side may write the same one
        with replacing(path, tag=f".{os.getpid()}") as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise RunError(
            f"{path}: can't write {len(content)} bytes ({error.strerror or error}), expected a writable folder "
            "with space left; free some space, mend the permissions, or give another root=..."
        ) from error
    return path


def _sidecar(kind, stem, run, caption, root, parameters):
    """What ``<stem>.json`` says of the origin of a figure or table, all of it checked."""
    _check_name("stem", stem, "confusion_matrix")
    check_run_name(run)
    if DATE.search(stem):
        raise ParameterError(
            f"stem={stem!r} holds a date, expected a name that stays the same from run to run; "
            "tell runs apart by run=... instead"
        )
    if not isinstance(caption, str) or not caption.strip():
        raise ParameterError(
            f"caption={caption!r}: expected a sentence that says what is shown and how it was made"
        )
    if not isinstance(parameters, Mapping | None):
        raise ParameterError(
            f"parameters={parameters!r}: expected a mapping of names to values; use dataclasses.asdict"
        )
    try:
        plain = json.loads(json.dumps(dict(parameters or {}), default=_plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"parameters: {error}; expected text, finite numbers, true or false, None, lists or mappings"
        ) from error
    path = _folder(root, run) / f"{stem}.json"
    try:
        other = json.loads(path.read_text(encoding="utf-8")).get("kind")
    except (OSError, ValueError, AttributeError):
        other = kind  # not there, or not readable as a sidecar: nothing to protect
    if other != kind:  # figure and table both write a CSV and a sidecar
        raise ParameterError(
            f"stem={stem!r}: {path} belongs to a {other}, expected a {kind}; choose another stem, such as "
            f"'{stem}_{kind}'"
        )
    caption = " ".join([*caption.split(), *leak_notice(parameters).split()])
    return {"kind": kind, "stem": stem, "run": run, "caption": caption, "parameters": plain}


def _write(sidecar, root, files):
    """Write ``{suffix: content}``, then the sidecar; each file appears whole or not at all."""
    stem = sidecar.pop("stem")
    record = sidecar | {
        "files": [stem + suffix for suffix in files],
        "sha256": {stem + suffix: hashlib.sha256(content).hexdigest() for suffix, content in files.items()},
        "commit": current_commit(),
        "serkit": serkit.__version__,
    }
    files = files | {".json": (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()}
    folder = _folder(root, sidecar["run"])
    return [write_file(folder / (stem + suffix), content) for suffix, content in files.items()]


def _folder(root, run):
    return Path(root or project_home() / "figures") / run


def _check_name(name, value, example):
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ParameterError(
            f"{name}={value!r}: expected a name of letters, digits, '_', '-' and '=' that starts with a "
            f"letter or digit, without folder or extension; use for example {name}={example!r}"
        )


def _check_frame(frame, name):
    if not isinstance(frame, pd.DataFrame) or frame.empty:
        given = (
            f"has shape {frame.shape}" if isinstance(frame, pd.DataFrame) else f"is a {type(frame).__name__}"
        )
        raise ParameterError(
            f"{name} {given}, expected a pandas DataFrame with rows and columns; was every row filtered out?"
        )


def _plain(value):
    """What JSON does not know: NumPy's types and paths."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return Path(value).as_posix()
    raise TypeError(f"{value!r} is of type {type(value).__name__}")


def _settle_layout(fig):
    """Fix the axes where they are at 300 dpi, in all formats and however often the figure was drawn.

    A layout engine starts from where the last draw left the axes, so it moves them a little each time.
    """
    if fig.get_layout_engine() is None:
        return
    dpi, fig.dpi = fig.dpi, PNG_DPI
    for _ in range(SETTLING_DRAWS):
        fig.draw_without_rendering()
    fig.dpi = dpi
    for ax in fig.axes:
        ax.set_position(np.round(ax.get_position(original=True).bounds, 5))
    fig.set_layout_engine("none")


def _render(fig, suffix, notice):
    """The figure as bytes, the page extended downwards by the notice."""
    width, height = fig.get_size_inches()
    margin = NOTICE_PT / 72  # inch
    per_line = max(20, int((width - 2 * margin) / (0.51 * margin)))  # letters are about half an em wide
    lines = textwrap.wrap(notice, per_line)
    depth = (len(lines) * 1.25 + 1) * margin if lines else 0.0  # inch
    page = Bbox([[0, -depth], [width, height]]) if lines else None
    buffer = io.BytesIO()
    with mpl.rc_context(SAVING_RC):
        style = {"fontsize": NOTICE_PT, "va": "top", "linespacing": 1.25}
        footnote = fig.text(margin / width, 0.0, "\n".join(lines), **style)
        try:
            fig.savefig(buffer, format=suffix, dpi=PNG_DPI, metadata=UNDATED[suffix], bbox_inches=page)
        finally:
            footnote.remove()
    return buffer.getvalue()


def _csv(frame):
    """CSV in full precision; the index is written unless it only counts rows."""
    return frame.to_csv(index=not _counts_rows(frame.index), lineterminator="\n").encode()


def _counts_rows(index):
    return isinstance(index, pd.RangeIndex) and index.name is None


def _flat(table):
    """One header line, no index, so that all three formats show the same columns."""
    flat = table.copy()
    if isinstance(flat.columns, pd.MultiIndex):
        flat.columns = [" ".join(str(level) for level in name if str(level)) for name in flat.columns]
    if _counts_rows(flat.index):
        return flat
    flat.columns = [str(name) for name in flat.columns]  # categorical column names take no new one
    names = ["" if name is None else str(name) for name in flat.index.names]
    return flat.reset_index(names=names, allow_duplicates=True)


def _is_numeric(column):
    if any(isinstance(value, Estimate) for value in column):
        return True
    return is_numeric_dtype(column.dtype) and not is_bool_dtype(column.dtype)


def _cell(value, decimals, p=False):
    """A value as text; ``p``: of a probability, which is never shown as zero."""
    if isinstance(value, Estimate):
        value, low, high = (_cell(part, decimals) for part in value)
        return value if "–" in (low, high) else f"{value} [{low}, {high}]"
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "–"
    if isinstance(value, Real) and not isinstance(value, Integral) and not pd.api.types.is_bool(value):
        if p and 0 <= value < 0.5 * 10**-P_DIGITS:
            return f"<{10**-P_DIGITS:.{P_DIGITS}f}"
        digits = max(decimals, P_DIGITS) if p else decimals
        return f"{round(float(value), digits) + 0.0:.{digits}f}"  # + 0.0 turns -0.0 into 0.0
    return " ".join(str(value).split())


def _markdown_text(text):
    text = re.sub(r"([\\|*`<])", r"\\\1", text)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # inside a word GitHub leaves it alone


def _latex(header, body, align, caption, label):
    """A table in booktabs style; what is too wide for a column becomes a ``table*``, over both."""
    width = sum(max(map(len, column)) + 2 for column in zip(header, *body, strict=True))
    styler = pd.DataFrame([[_latex_text(text) for text in row] for row in body]).style.hide(axis="index")
    latex = styler.relabel_index([_latex_text(text) for text in header], axis="columns").to_latex(
        hrules=True, position="t", position_float="centering", caption=latex_caption(caption), label=label,
        column_format="".join(side[0] for side in align),
        environment="table" if width <= COLUMN_CHARACTERS else "table*",
    )  # fmt: skip
    latex = latex.replace(r"\begin{tabular}", AS_WIDE_AS_THE_PAGE + "\n" + r"\begin{tabular}")
    return "% needs \\usepackage{booktabs,graphicx}\n" + latex.replace(r"\end{tabular}", r"\end{tabular}}")


def _latex_text(text):
    if re.fullmatch(r"-\d+(\.\d+)?", text):
        return f"$-${text[1:]}"  # a minus sign, not a hyphen
    guard = "{}" if text[:1] in ("[", "*") else ""  # or the line break before takes them as its option
    return guard + text.translate(LATEX_SPECIAL)
