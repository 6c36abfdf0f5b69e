"""What lies in ``figures/<run>/`` and what is wrong with it, and one HTML page of the whole run."""

import base64
import io
import json
import re
from dataclasses import dataclass, field, replace
from html import escape
from itertools import groupby
from pathlib import Path

import jinja2

from serkit import runs
from serkit.figures import DIGEST, markdown_text, printable, write_file
from serkit.files import read_toml
from serkit.reproduction.jobs import one_line
from serkit.reproduction.plan import ANALYSIS, PREPARATION, TRAINING

ABOUT_WEIGHTS = "What the co-attention does"  # a section
# section -> beginnings of the stems in it, in the order of the story; the first that fits counts
STORY = read_toml(__file__, "story.toml")
EMBEDDED = re.compile(r"data:(image/png|audio/wav);base64,([A-Za-z0-9+/=]+)")
COLOURS = 64  # of an embedded picture
OF_A_FOLD = re.compile(r"_fold[^_]+_seed\d+$")  # end of a stem


@dataclass(frozen=True)
class Entry:
    """One figure or table."""

    stem: str
    caption: str = ""
    files: tuple[str, ...] = ()  # names of the files that are there
    faults: tuple[str, ...] = ()  # what is wrong with it; empty: nothing
    parameters: dict = field(default_factory=dict)  # what it was made with

    @property
    def headline(self):
        """What is seen, for who can't see it: the caption up to its protocol.

        >>> Entry("curves", caption="UA by epoch, fold 1.5 dropped. All five folds.").headline
        'UA by epoch, fold 1.5 dropped'
        """
        return self.caption.partition(". ")[0].removesuffix(".")

    @property
    def is_of_a_fold(self):
        """Whether it is about a single fold, of many."""
        return bool(OF_A_FOLD.search(self.stem))


def read_catalogue(run, *, digests, not_made=None):
    """Every figure and table of a run, as their sidecars describe them.

    A figure is out of date if its sidecar names predictions that are none of ``digests``. A file with other
    bytes than the sidecar says was changed by hand.

    Parameters
    ----------
    run : str
    digests : sequence of str
        Of the predictions that the run holds now, of all variants and of each, from
        :func:`serkit.figures.digest_of`.
    not_made : dict of str to str, optional
        Stems that could not be made now, and why.

    Returns
    -------
    list of Entry
        In the order of the story: scores, corpus, views, training, results.
    """
    folder = runs.project_home() / "figures" / run
    names = sorted(path.name for path in folder.glob("[!.]*") if path.is_file())
    groups = groupby(names, key=lambda name: name.partition(".")[0])
    entries = {stem: _entry(folder, stem, tuple(files), digests) for stem, files in groups}
    entries.pop("README", None)  # the catalogue itself
    for stem, why in (not_made or {}).items():
        entries[stem] = replace(entries.get(stem, Entry(stem)), faults=(f"can't be made now: {why}",))
    return [entries[stem] for stem in sorted(entries, key=_place)]


def _place(stem):
    """Section of the story that a stem belongs to, and its place there.

    >>> [list(STORY)[_place(stem)[0]] for stem in ("scores", "scores_by_variant", "mine")]
    ['Results on unseen speakers', 'Scores and verdict', 'More']
    """
    places = ((i, j, name) for i, names in enumerate(STORY.values()) for j, name in enumerate(names))
    return next((i, j, stem) for i, j, name in places if stem.startswith(name))


def _sections(entries):
    """Sections of the story with their entries."""
    sections = groupby(entries, key=lambda entry: list(STORY)[_place(entry.stem)[0]])
    return [(name, list(members)) for name, members in sections]


def write_catalogue(run, entries):
    """Write ``figures/<run>/README.md``: picture, caption and files of each entry, by section; returns its path."""
    path = runs.project_home() / "figures" / run / "README.md"
    return _write(path, "catalogue.md", run, sections=_sections(entries))


def write_page(run, *, summary, entries, notes=None, predictions=""):
    """Write ``runs/<run>/report.html``, which needs nothing else; the same run gives the same bytes.

    It begins with scores and verdict and tells the rest in the order of the story. Of the notebooks that trained
    folds the first is on it, the others are named: with all of them, the page would grow with every fold.

    Parameters
    ----------
    run : str
    summary : list of str
        Paragraphs at the top, plain text: what must be known before any number.
    entries : list of Entry
        Figures and tables; faults are named where they stand, missing ones in a list at the end.
    notes : dict of str to list of str, optional
        Paragraphs at the beginning of a section.
    predictions : str, optional
        Digest of the predictions that it shows, see :func:`serkit.figures.digest_of`; kept in its head.

    Returns
    -------
    Path

    Raises
    ------
    RunError
        If the run folder can't be written to.
    """
    home = runs.project_home() / "runs" / run
    notebooks = _notebooks(run)
    there = [path for path in notebooks if path.is_file()]
    of_other_folds = [path for path in there if path.stem == TRAINING][1:]
    return _write(
        home / runs.REPORT, "page.html", run, summary=summary, notes=notes or {}, predictions=predictions,
        digest=DIGEST,
        sections=_sections(entry for entry in entries if entry.files),
        faulty=[entry for entry in entries if entry.faults],
        missing=[runs.show_path(path) for path in notebooks if not path.is_file()],
        notebooks=[(path.relative_to(home), _notebook(path)) for path in there if path not in of_other_folds],
        of_other_folds=[runs.show_path(path).as_posix() for path in of_other_folds],
    )  # fmt: skip


def _write(path, template, run, **values):
    """Fill in a template that lies beside this file, which may show pictures and tables of the run; HTML escapes values."""
    # here, and what else reads notebooks: whoever only wants scores need not wait for it
    from nbconvert.filters import markdown2html

    folder = runs.project_home() / "figures" / run
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=jinja2.select_autoescape(),
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "markdown": lambda text: markdown_text(printable(text)),
        "table": lambda name: markdown2html((folder / name).read_text(encoding="utf-8", errors="replace")),
        "base64": lambda name: base64.b64encode((folder / name).read_bytes()).decode(),
        "self_contained": _self_contained,
    }
    return write_file(path, environment.get_template(template).render(values, run=run).encode())


def _entry(folder, stem, files, digests):
    try:
        record = json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))
        caption, parameters = printable(str(record["caption"])), dict(record["parameters"])
        faults = [
            f"{name} is missing or was changed after it was made"
            for name, recorded in dict(record["sha256"]).items()
            if name not in files or runs.sha256_of(folder / name) != recorded
        ]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        fault = f"{stem}.json is missing or can't be read: its origin is unknown"
        return Entry(stem, files=files, faults=(fault,))
    if parameters.get(DIGEST, digests[0]) not in digests:
        faults.append("out of date: made from other predictions than the run holds now")
    return Entry(stem, caption, files, tuple(faults), parameters)


def _notebooks(run):
    """Where the executed notebooks of a run lie or should lie, in order."""
    folder = runs.project_home() / "runs" / run / "notebooks"
    finished = runs.finished_folders(run)
    variants = sorted({runs.variant_of(path) for path in finished})
    # what puts folds together is run once for each variant
    names = [f"{ANALYSIS}_{variant}" for variant in variants] if len(variants) > 1 else [ANALYSIS]
    expected = [folder / f"{name}.ipynb" for name in PREPARATION]
    expected += [path / f"{TRAINING}.ipynb" for path in finished]
    expected += [folder / f"{name}.ipynb" for name in names]
    return expected + sorted(set(folder.glob("*.ipynb")) - set(expected))


def _notebook(path):
    import nbformat
    from nbconvert import HTMLExporter

    try:
        notebook = nbformat.read(path, as_version=4)
        return HTMLExporter(template_name="basic", exclude_anchor_links=True).from_notebook_node(notebook)[0]
    except Exception as error:  # nbformat's own errors have no common base
        return f'<p class="fault">can\'t be read: {escape(one_line(f"{type(error).__name__}: {error}"))}</p>'


def _self_contained(html):
    """The same page without scripts, links, and anything that a browser would fetch; pictures and sounds smaller."""
    import nh3

    tags = nh3.ALLOWED_TAGS - {"a"} | {"section", "audio", "source"}
    attributes = nh3.ALLOWED_ATTRIBUTES | {
        "*": {"class"}, "audio": {"controls", "src"}, "source": {"src", "type"},
    }  # fmt: skip
    clean = nh3.clean(html, tags=tags, attributes=attributes, url_schemes={"data"}, url_relative="deny")
    return EMBEDDED.sub(_smaller, clean)


def _smaller(match):
    """An embedded picture in few colours, a sound as MP3: together a third of the bytes; else as it is."""
    import soundfile
    from PIL import Image

    content, out, kind = io.BytesIO(base64.b64decode(match[2])), io.BytesIO(), match[1]
    try:
        if kind == "audio/wav":
            sound, rate = soundfile.read(content)
            soundfile.write(out, sound, rate, format="MP3")
            kind = "audio/mpeg"
        else:
            picture = Image.open(content).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            picture.save(out, "PNG", optimize=True)
    except Exception:  # cut short, a rate that MP3 doesn't know, a picture of a billion pixels
        return match[0]
    return f"data:{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
