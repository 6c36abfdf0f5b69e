"""Writing figures and tables: every format, the numbers behind them, and where they came from.

Files of one run lie in one folder and are named by a stem that holds no date; written again from
the same code and data, they are the same bytes. A sidecar ``<stem>.json`` holds the caption, the
parameters and the commit.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import textwrap
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from serkit.errors import ParameterError, RunError
from serkit.experiment import project_home
from serkit.files import replacing
from serkit.runs import check_run_name, current_commit, leak_notice

PNG_DPI = 300  # dots per inch
NOTICE_PT = 6  # pt, footnote under a figure
SETTLING_DRAWS = 4  # after the second, constrained layout moves by less than a millionth of the width
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_=-]*")
DIGEST = "predictions"  # parameter of a sidecar: which predictions a figure shows
DATE = re.compile(r"(19|20)\d\d[-_]?(0\d|1[0-2])[-_]?([0-2]\d|3[01])")

# Text stays text in PDF, ids in SVG do not depend on the process, pages keep their size.
SAVING_RC = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.hashsalt": "serkit", "savefig.bbox": None}
UNDATED = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Creator": None, "Date": None},
}


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
        Left as it was.
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
        figure say that the checkpoint was chosen on the test speakers, see :func:`leak_notice`.

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
    check_frame(data, "data")
    files = {".csv": to_csv(data)}
    record = Sidecar("figure", stem, run, caption, root, parameters)
    notice = leak_notice(parameters)
    with _held_layout(fig):
        images = {f".{suffix}": _render(fig, suffix, notice) for suffix in UNDATED}
    return record.write(images | files)


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


class Sidecar:
    """Target and origin of one figure or table: checked first, then written with its files.

    Parameters
    ----------
    kind : {"figure", "table"}
    stem, run, caption, root, parameters
        As in :func:`save_figure`.
    """

    def __init__(self, kind, stem, run, caption, root, parameters):
        _check_name("stem", stem, "confusion_matrix")
        check_run_name(run)
        if not isinstance(caption, str) or not caption.strip():
            raise ParameterError(
                f"caption={caption!r}: expected a sentence that says what is shown and how it was made"
            )
        if parameters is not None and not isinstance(parameters, Mapping):
            raise ParameterError(
                f"parameters={parameters!r}: expected a mapping of names to values; use dataclasses.asdict"
            )
        self.kind, self.stem, self.run = kind, stem, run
        self.folder = Path(root or project_home() / "figures") / run
        self.caption = " ".join([*caption.split(), *leak_notice(parameters).split()])
        self.parameters = _plain(dict(parameters or {}))
        self._check_stem_is_free()

    def write(self, files: dict[str, bytes]) -> list[Path]:
        """Write ``{suffix: content}``, then the sidecar; each file appears whole or not at all."""
        content = {
            "kind": self.kind,
            "run": self.run,
            "caption": self.caption,
            "parameters": self.parameters,
            "files": [self.stem + suffix for suffix in files],
            "sha256": {
                self.stem + suffix: hashlib.sha256(blob).hexdigest() for suffix, blob in files.items()
            },
            "commit": current_commit(),
            "serkit": serkit_version(),
        }
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        files = files | {".json": text.encode()}
        return [write_file(self.folder / (self.stem + suffix), blob) for suffix, blob in files.items()]

    def _check_stem_is_free(self):
        """Figure and table both write a CSV and a sidecar: one would overwrite the other's."""
        path = self.folder / f"{self.stem}.json"
        try:
            kind = json.loads(path.read_text(encoding="utf-8")).get("kind")
        except (OSError, ValueError, AttributeError):
            return  # not there, or not readable as a sidecar: nothing to protect
        if kind != self.kind:
            raise ParameterError(
                f"stem={self.stem!r}: {path} belongs to a {kind}, expected a {self.kind}; "
                f"choose another stem, such as {self.stem + '_' + self.kind!r}"
            )


def check_frame(frame, name: str) -> None:
    """Refuse what is not a DataFrame with rows and columns."""
    if not isinstance(frame, pd.DataFrame):
        raise ParameterError(
            f"{name} is a {type(frame).__name__}, expected a pandas DataFrame; wrap it in pd.DataFrame"
        )
    if frame.empty:
        raise ParameterError(
            f"{name} has shape {frame.shape}, expected rows and columns; was every row filtered out?"
        )


def to_csv(frame: pd.DataFrame) -> bytes:
    """CSV in full precision; the index is written unless it only counts rows."""
    counts_rows = isinstance(frame.index, pd.RangeIndex) and frame.index.name is None
    return frame.to_csv(index=not counts_rows, lineterminator="\n").encode()


def serkit_version() -> str | None:
    """Version of the installed package; None when it runs from a folder that was not installed."""
    try:
        return metadata.version("serkit")
    except metadata.PackageNotFoundError:
        return None


def _check_name(name, value, example):
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ParameterError(
            f"{name}={value!r}: expected a name of letters, digits, '_', '-' and '=' that starts with a "
            f"letter or digit, without folder or extension; use for example {name}={example!r}"
        )
    if DATE.search(value):
        raise ParameterError(
            f"{name}={value!r} holds a date, expected a name that stays the same from run to run; "
            "tell runs apart by run=... instead"
        )


def _plain(value):
    """Parameters as JSON knows them: no NumPy types, paths as text, NaN and infinity refused."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, os.PathLike):
        return Path(value).as_posix()
    if (
        value is None
        or isinstance(value, str | bool | int)
        or (isinstance(value, float) and np.isfinite(value))
    ):
        return value
    raise ParameterError(
        f"parameters hold {value!r} of type {type(value).__name__}, expected text, finite numbers, true or "
        "false, null, lists or mappings; convert it first"
    )


@contextlib.contextmanager
def _held_layout(fig):
    """Hold the axes where they are at 300 dpi, in all formats and however often the figure was drawn.

    A layout engine starts from where the last draw left the axes, so it moves them a little each time.
    """
    engine, dpi = fig.get_layout_engine(), fig.dpi
    if engine is None:
        yield
        return
    fig.dpi = PNG_DPI
    try:
        for _ in range(SETTLING_DRAWS):
            fig.draw_without_rendering()
    finally:
        fig.dpi = dpi
    for ax in fig.axes:
        in_layout = ax.get_in_layout()
        ax.set_position(np.round(ax.get_position(original=True).bounds, 5))
        ax.set_in_layout(in_layout)  # set_position takes it out
    fig.set_layout_engine("none")
    try:
        yield
    finally:
        fig.set_layout_engine(engine)


def _render(fig, suffix, notice):
    """The figure as bytes, the page extended downwards by the notice."""
    width, height = fig.get_size_inches()
    margin = NOTICE_PT / 72  # inch
    per_line = max(
        20, int((width - 2 * margin) * 72 / (0.51 * NOTICE_PT))
    )  # letters are about half an em wide
    lines = textwrap.wrap(notice, per_line)
    depth = (len(lines) * 1.25 + 1) * NOTICE_PT / 72 if lines else 0.0  # inch
    buffer = io.BytesIO()
    with mpl.rc_context(SAVING_RC):
        footnote = fig.text(
            margin / width,
            0.0,
            "\n".join(lines),
            fontsize=NOTICE_PT,
            va="top",
            linespacing=1.25,
            in_layout=False,
        )
        try:
            page = Bbox([[0, -depth], [width, height]]) if lines else None
            fig.savefig(buffer, format=suffix, dpi=PNG_DPI, metadata=UNDATED[suffix], bbox_inches=page)
        finally:
            footnote.remove()
    return buffer.getvalue()


def write_file(path: Path, blob: bytes) -> Path:
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
            partial.write_bytes(blob)
    except OSError as error:
        raise RunError(
            f"{path}: can't write {len(blob)} bytes ({error.strerror or error}), expected a writable folder "
            "with space left; free some space, mend the permissions, or give another root=..."
        ) from error
    return path
