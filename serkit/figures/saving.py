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
from numbers import Integral, Real
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from tabulate import tabulate

import serkit
from serkit.errors import ParameterError, RunError, reported_as, shown
from serkit.evaluation import Estimate
from serkit.evaluation.predictions import speakers_of
from serkit.files import read_toml, replacing
from serkit.runs import check_run_name, current_commit, leak_notice, project_home, show_path

COLUMN_IN, TEXT_IN = 3.4, 7.0  # inch, width of one column and of both
PNG_DPI = 300  # dots per inch
NOTICE_PT, NOTICE_IN = 6, 0.3  # footnote under a figure: pt, and inch of room for its two lines

# Okabe and Ito's palette, told apart with any of the common colour vision deficiencies
BLUE, ORANGE, GREEN, VERMILLION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999"
# the dark grey differs from orange in grey print, which the palette's own does not
EMOTION_COLOURS = {"angry": VERMILLION, "sad": BLUE, "happy": ORANGE, "neutral": "#404040"}
VIEW_COLOURS = {"spectrogram": "#56B4E9", "mfcc": "#CC79A7", "speech": GREEN}  # none is that of an emotion
SPLIT_COLOURS = {"train": BLUE, "validation": VERMILLION, "test": ORANGE}
SPEAKER_COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, "#CC79A7", GREY)  # of a fold
OTHER_COLOURS = (GREEN, "#CC79A7", "#56B4E9", "#F0E442", "#000000")  # labels of other tasks

STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_=-]{0,199}")
DATE = re.compile(r"(19|20)\d\d[-_]?(0\d|1[0-2])[-_]?([0-2]\d|3[01])")
DIGEST = "predictions"  # parameter of a sidecar: which predictions a figure shows
NO_JSON = (TypeError, ValueError, RecursionError)  # why a value can't be written
PAPER = Path(__file__).with_name("paper.mplstyle")
UNDATED = {"png": ["Software"], "pdf": ["Creator", "Producer", "CreationDate"], "svg": ["Creator", "Date"]}

# what begins something in Markdown: code, emphasis, formulas, tags, links, entities, addresses, headings and lists
MARKDOWN_SPECIAL = re.compile(
    r"[\\|*`~$]|<(?=[A-Za-z/!?])|\](?=[(\[:])|&(?=#?\w+;)|:(?=//)|(?<!\w)_|_(?!\w)|^[#>+=-]"
)  # inside a word GitHub leaves _ alone
WORDS = read_toml(__file__, "words.toml")
LATEX_SPECIAL = str.maketrans(WORDS["latex"])
LATEX_UNKNOWN = re.compile(f"[^ -\u017f“”‘’—{''.join(chr(key) for key in LATEX_SPECIAL if key > 127)}]")
AS_WIDE_AS_THE_PAGE = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"  # at most
THIN_SPACE = "\u202f"  # in whole numbers of five digits and more; it doesn't break
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
        raise ParameterError(f"columns={shown(columns)}: expected 1 ({COLUMN_IN} in) or 2 ({TEXT_IN} in)")
    if not 0.5 <= height <= 10:
        raise ParameterError(f"height={shown(height)} in, expected 0.5 to 10 in; did you give millimetres?")
    # Loads the backend now. Loaded inside the context, Jupyter's switch to showing figures by itself
    # would be undone on leaving it, and every figure but the first would stay invisible.
    plt.draw_if_interactive()
    size = {"figure.figsize": (COLUMN_IN if columns == 1 else TEXT_IN, height)}
    wanted = mpl.rc_params_from_file(PAPER)["font.family"]
    fonts = {"font.family": [name for name in wanted if name in mpl.font_manager.get_font_names()]}
    return mpl.style.context(["default", PAPER, size | fonts])  # nothing of a reader's own matplotlibrc


def colours_of(labels) -> list[str]:
    """One colour for each label; emotions keep theirs, labels of other tasks take turns."""
    others = itertools.cycle(OTHER_COLOURS)
    return [EMOTION_COLOURS.get(label) or next(others) for label in labels]


def readable_on(background) -> str:
    """Black or white, whichever stands out more (WCAG 2 contrast)."""
    luminance = seaborn.utils.relative_luminance(background)
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def legend_above(ax, columns=None):
    """Put the legend above the axes, in one line unless ``columns`` says otherwise."""
    names = ax.get_legend_handles_labels()[1]
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns or len(names), borderaxespad=0.2)
    return ax


def save_figure(fig, stem, *, run, data, caption, root=None, parameters=None) -> list[Path]:
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
    path, record = _origin("figure", data, stem, run, caption, root, parameters)
    notice = leak_notice(parameters)
    # the page is extended downwards by the notice
    page = mpl.transforms.Bbox([[0, -NOTICE_IN], fig.get_size_inches()]) if notice else None
    files = {}
    with paper_style():
        fig.draw_without_rendering()
        fig.set_layout_engine("none")  # or the axes would move a little with each format
        footnote = fig.text(0.02, 0, notice, fontsize=NOTICE_PT, va="top", wrap=True)
        for suffix, unsaid in UNDATED.items():
            buffer, metadata = io.BytesIO(), dict.fromkeys(unsaid)
            fig.savefig(buffer, format=suffix, dpi=PNG_DPI, metadata=metadata, bbox_inches=page)
            files[suffix] = buffer.getvalue()
        footnote.remove()
    return _write(path, record, files | {"csv": table_csv(data)})


def save_table(table, stem, *, run, caption, root=None, parameters=None, decimals=2) -> list[Path]:
    r"""Write a table as CSV, Markdown and LaTeX, with its origin beside it.

    Parameters
    ----------
    table : pd.DataFrame
        One row per line. The index becomes the first column unless it only counts rows; levels
        of column names are joined by a space. Cells may be :class:`serkit.evaluation.Estimate`.
    stem, run, caption, root, parameters
        As in :func:`save_figure`. The caption is plain text: special characters are escaped.
    decimals : int
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
    path, record = _origin("table", table, stem, run, caption, root, parameters)
    lines, align = _shown(table, decimals)
    markdown = f"{markdown_text(record['caption'])}\n\n{table_markdown(table, decimals)}\n"
    latex = _latex(lines, align, record["caption"], stem)
    return _write(path, record, {"csv": table_csv(table), "md": markdown.encode(), "tex": latex.encode()})


def save(run, stem, content, caption, *, data=None, decimals=2, **parameters):
    """Save a notebook's figure or table in one call, and print where it went.

    Parameters
    ----------
    run : Run
        What ``start_run`` returned; its corpus is named in the caption, unless :func:`serkit.evaluation.protocol_in_words` did.
    stem, caption : str
        As in :func:`save_figure`.
    content : matplotlib Figure or pd.DataFrame
    data : pd.DataFrame, optional
        The numbers of a figure.
    decimals : int
        Of a table, see :func:`save_table`.
    **parameters
        What it was made with, beside corpus and recipe.

    Raises
    ------
    ParameterError, RunError
        As :func:`save_figure`.
    """
    settings, speakers = run.experiment, speakers_of(run.experiment.corpus)
    caption = caption if speakers in caption else f"{caption} Speech of {speakers}."
    parameters = {"corpus": settings.corpus, "recipe": settings.recipe, **parameters}
    about = {"run": run.name, "caption": caption, "parameters": parameters}
    if isinstance(content, pd.DataFrame):
        written = save_table(content, stem, decimals=decimals, **about)
    else:
        written = save_figure(content, stem, data=data, **about)
    print(f"saved {show_path(written[0].with_suffix(''))} {' '.join(path.suffix for path in written)}")


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


def table_markdown(table: pd.DataFrame, decimals: int = 2) -> str:
    """The table that :func:`save_table` writes as Markdown, without a caption.

    Examples
    --------
    >>> print(table_markdown(pd.DataFrame({"UA": [Estimate(64.0, 58.0, 70.0)]}), decimals=1))
    |                UA |
    |------------------:|
    | 64.0 [58.0, 70.0] |
    """
    lines, align = _shown(table, decimals)
    header, *body = [[markdown_text(text) for text in line] for line in lines]
    return tabulate(body, header, tablefmt="pipe", disable_numparse=True, colalign=align)


def table_csv(table: pd.DataFrame) -> bytes:
    """The CSV of a figure or table: full precision, three columns for each estimate.

    Examples
    --------
    >>> table_csv(pd.DataFrame({"UA": [Estimate(64.0, 58.0, 70.0)]})).decode().split()
    ['UA,UA_low,UA_high', '64.0,58.0,70.0']
    """
    parts = []
    for name, column in _flat(table).items():
        if _holds_estimates(column):
            cells = [value if isinstance(value, Estimate) else Estimate(value) for value in column]
            column = pd.DataFrame(cells, columns=[name, f"{name}_low", f"{name}_high"], dtype=float)
        parts.append(column)
    return pd.concat(parts, axis=1).to_csv(index=False, lineterminator="\n").encode(errors="backslashreplace")


def latex_caption(text: str) -> str:
    r"""Plain text, such as the caption in a figure's sidecar, as LaTeX.

    Names of variants are long and may be broken after an underscore.

    Examples
    --------
    >>> print(latex_caption("UA < 50 % of demo_1"))
    UA \textless{} 50 \% of demo\_\allowbreak 1
    """
    return _latex_text(printable(text)).replace(r"\_", r"\_\allowbreak ")


def write_file(path: Path, content: bytes) -> Path:
    """Write a file in one step; a folder that can't be written to gets one message.

    Raises
    ------
    RunError
        If the disk is full or the folder is write-protected. Nothing is left half-written.
    """
    cure = "free some space, mend the permissions, or give another root=..."
    refused = reported_as(RunError, f"{path}: can't write {len(content)} bytes", cure, OSError)
    with refused, replacing(path) as partial:
        partial.write_bytes(content)
    return path


def _origin(kind, frame, stem, run, caption, root, parameters):
    """Path without suffix of a figure or table, and what its sidecar says of its origin, all of it checked."""
    check_run_name(run)
    if not isinstance(stem, str) or not STEM.fullmatch(stem) or DATE.search(stem):
        expected = "a name of letters, digits, '_', '-' and '=', without folder, extension or date"
        raise ParameterError(f"stem={shown(stem)}: expected {expected}; tell runs apart by run=...")
    if not isinstance(frame, pd.DataFrame) or frame.empty:
        given = f"a {type(frame).__name__} of shape {np.shape(frame)}"
        raise ParameterError(f"{kind} {stem}: its numbers are {given}, expected a pandas DataFrame with rows")
    if not isinstance(caption, str) or not caption.strip():
        raise ParameterError(f"caption={shown(caption)}: expected a sentence that says what is shown")
    known = "expected names with text, finite numbers, true or false, None, lists or mappings"
    with reported_as(ParameterError, "parameters can't be kept", known, NO_JSON):
        plain = json.loads(json.dumps(dict(parameters or {}), default=_plain, allow_nan=False))
    path = Path(root or project_home() / "figures") / run / stem
    other, suffix = {"figure": ("table", "md"), "table": ("figure", "png")}[kind]
    if path.with_name(f"{stem}.{suffix}").exists():  # both write a CSV and a sidecar
        raise ParameterError(f"stem={stem!r} belongs to a {other}; choose another, such as '{stem}_{kind}'")
    caption = printable(f"{caption} {leak_notice(plain)}")
    return path, {"kind": kind, "run": run, "caption": caption, "parameters": plain}


def _write(path, record, files):
    """Write ``{suffix: content}``, then the sidecar; each file appears whole or not at all."""
    contents = {f"{path.name}.{suffix}": content for suffix, content in files.items()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    record |= {"files": list(contents), "sha256": digests}
    record |= {"commit": current_commit(), "serkit": serkit.__version__}
    sidecar = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    contents[f"{path.name}.json"] = sidecar.encode(errors="backslashreplace")
    return [write_file(path.with_name(name), content) for name, content in contents.items()]


def _plain(value):
    """What JSON does not know: NumPy's types and paths."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else os.fspath(value)


def _flat(table):
    """One header line, and an index only if it does more than count rows, as the first columns."""
    levels = (name if isinstance(name, tuple) else (name,) for name in table.columns)
    flat = table.set_axis([" ".join(filter(None, map(str, name))) for name in levels], axis="columns")
    if isinstance(flat.index, pd.RangeIndex) and flat.index.name is None:
        return flat.reset_index(drop=True)
    names = ["" if name is None else str(name) for name in flat.index.names]
    return flat.reset_index(names=names, allow_duplicates=True)


def _shown(table, decimals):
    """Header and rows of a table as text, and on which side each column is aligned."""
    columns, align = [], []
    for name, column in _flat(table).items():
        number = _holds_estimates(column) or pd.api.types.is_any_real_numeric_dtype(column)
        align.append("right" if number else "left")
        p = re.match("p(_|$)", name)
        columns.append([_head(name), *(cell_text(value, decimals, p) for value in column)])
    return list(zip(*columns, strict=True)), align


def _head(name):
    """A column's name in words.

    >>> _head("p_holm"), _head("length_mfcc"), _head("UA (%)")
    ('p (Holm)', 'length MFCC', 'UA (%)')
    """
    words = (WORDS["abbreviations"].get(word, word) for word in name.split("_"))
    return WORDS["heads"].get(name) or printable(" ".join(words))


def _holds_estimates(column):
    return any(isinstance(value, Estimate) for value in column)


def cell_text(value, decimals, p=False):
    """A value as text; ``p``: of a probability, which is never shown as zero."""
    if isinstance(value, Estimate):
        value, low, high = (cell_text(part, decimals) for part in value)
        return value if "–" in (low, high) else f"{value} [{low}, {high}]"
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "–"
    if not isinstance(value, Real) or pd.api.types.is_bool(value):
        return printable(str(value))
    if isinstance(value, Integral):
        text = f"{value:,}".replace(",", THIN_SPACE) if abs(value) >= 10_000 else f"{value}"
    elif p and 0 <= value < 0.5 * 10**-P_DIGITS:
        text = f"<{10**-P_DIGITS:.{P_DIGITS}f}"
    else:
        digits = max(decimals, P_DIGITS) if p else decimals
        text = f"{round(float(value), digits) + 0.0:.{digits}f}"  # + 0.0 turns -0.0 into 0.0
    return text.replace("-", "−")


def printable(text):
    """Text without line breaks and without characters that are not seen, such as those that turn the direction.

    >>> printable("a\\n b\\x00c\\u202e")
    'a b c'
    """
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def markdown_text(text):
    r"""A line of plain text as Markdown: nothing in it is a link, a tag, a formula or a new column.

    >>> print(markdown_text("[x](javascript:a) <b> p < 0.05 & y_1"))
    [x\](javascript:a) \<b> p < 0.05 & y_1
    """
    return MARKDOWN_SPECIAL.sub(r"\\\g<0>", text)


def _latex(lines, align, caption, stem):
    """A table in booktabs style; what is too wide for a column becomes a ``table*``, over both."""
    width = sum(max(map(len, column)) + 2 for column in zip(*lines, strict=True))
    header, *body = [[_latex_text(text) for text in line] for line in lines]
    header = [text.replace("{", "{{").replace("}", "}}") for text in header]  # they are no formats
    styler = pd.DataFrame(body).style.hide(axis="index").relabel_index(header, axis="columns")
    latex = styler.to_latex(
        hrules=True, position="t", position_float="centering", caption=latex_caption(caption),
        label=f"tab:{stem}", column_format="".join(side[0] for side in align),
        environment="table" if width <= COLUMN_CHARACTERS else "table*",
    )  # fmt: skip
    latex = latex.replace(r"\begin{tabular}", AS_WIDE_AS_THE_PAGE + "\n" + r"\begin{tabular}")
    return "% needs \\usepackage{booktabs,graphicx}\n" + latex.replace(r"\end{tabular}", r"\end{tabular}}")


def _latex_text(text):
    guard = "{}" if text[:1] in ("[", "*") else ""  # or the line break before takes them as its option
    return guard + LATEX_UNKNOWN.sub(lambda found: f"[U+{ord(found[0]):04X}]", text).translate(LATEX_SPECIAL)
