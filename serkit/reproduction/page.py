"""What lies in ``figures/<run>/`` and what is wrong with it, and one HTML page of the whole run."""

import base64
import io
import json
import re
from dataclasses import dataclass, field, replace
from html import escape
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from serkit import runs
from serkit.experiment import project_home, show_path
from serkit.figures import DIGEST, markdown_text, printable, write_file
from serkit.reproduction.jobs import one_line

PREPARATION = ("01_prepare_corpus", "02_mfcc", "03_spectrogram", "04_wav2vec2")
TRAINING, ANALYSIS = "05_train_coattention", "06_confusion_matrix"
SCORES, ABOUT_WEIGHTS, MORE = "Scores and verdict", "What the co-attention does", "More"
STORY = {  # section -> beginnings of the stems in it, in the order of the story; the first that fits counts
    SCORES: ("scores_by_variant", "paper_comparison", "baselines", "variant_differences"),
    "The corpus": ("corpus",),
    "The three views": ("mfcc", "spectrogram", "wav2vec2"),
    "Training": ("curves", "fold_curves", "coattention"),
    "Results on unseen speakers": (
        "scores", "confusion", "recall", "speaker_scores", "speaker", "duration", "reliability", "embedding", "marked",
    ),
    ABOUT_WEIGHTS: ("attention",),
    "Ablations": ("ablation", "checkpoint_rules"),
    "A recording": ("predict",),
    "Context": ("literature",),
    MORE: ("",),
}  # fmt: skip
EMBEDDED = re.compile(r"data:(image/png|audio/wav);base64,([A-Za-z0-9+/=]+)")
COLOURS = 64  # of an embedded picture
OF_A_FOLD = re.compile(r"_fold[^_]+_seed\d+$")  # end of a stem
THUMBNAIL = 240  # pixels wide
# Nothing is fetched, nothing runs, whatever a notebook's output holds
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"
STYLE = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Entry:
    """One figure or table."""

    stem: str
    kind: str = ""  # figure or table; empty if that can't be known
    caption: str = ""
    files: tuple[str, ...] = ()  # names of the files that are there
    faults: tuple[str, ...] = ()  # what is wrong with it; empty: nothing
    parameters: dict = field(default_factory=dict)  # what it was made with


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
    folder = project_home() / "figures" / run
    names = sorted(path.name for path in folder.glob("[!.]*") if path.is_file())
    groups = groupby(names, key=lambda name: name.partition(".")[0])
    entries = {
        stem: _entry(folder, stem, tuple(files), digests) for stem, files in groups if stem != "README"
    }
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


def _section(entry):
    return list(STORY)[_place(entry.stem)[0]]


def write_catalogue(run, entries):
    """Write ``figures/<run>/README.md``: picture, caption and files of each entry, by section; returns its path."""
    lines = [f"# Figures and tables of the run `{run}`", "", "Made by `serkit report`."]
    for section, members in groupby(entries, key=_section):
        lines += ["", f"## {section}", "", "| | caption | files |", "| :-- | :-- | :-- |"]
        for entry in members:
            faults = (f"**{markdown_text(printable(fault))}**" for fault in entry.faults)
            caption = " ".join([markdown_text(entry.caption), *faults])
            first = f"<code>{markdown_text(printable(entry.stem))}</code>"
            if f"{entry.stem}.png" in entry.files:
                alt = escape(_first_sentence(entry.caption).replace("|", "/"))
                first = f'<img src="{quote(entry.stem)}.png" width="{THUMBNAIL}" alt="{alt}"><br>{first}'
            links = " ".join(
                f"[{markdown_text(printable(name.rpartition('.')[2]))}]({quote(name)})"
                for name in entry.files
            )
            lines.append(f"| {first} | {caption} | {links} |")
    return write_file(project_home() / "figures" / run / "README.md", "\n".join([*lines, ""]).encode())


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
    home = project_home() / "runs" / run
    notebooks = _notebooks(run)
    faults = [f"{entry.stem}: {'; '.join(entry.faults)}" for entry in entries if entry.faults]
    faults += [f"notebook {show_path(path)}: not there" for path in notebooks if not path.is_file()]
    parts = [f"<h1>Run {escape(run)}</h1>", *(f"<p>{escape(text)}</p>" for text in summary)]
    for section, members in groupby((entry for entry in entries if entry.files), key=_section):
        parts.append(f"<h2>{section}</h2>")
        parts += [f"<p>{escape(text)}</p>" for text in (notes or {}).get(section, [])]
        parts += [_shown(run, entry) for entry in members]
    parts.append("<h2>Notebooks as they were run</h2>")
    there = [path for path in notebooks if path.is_file()]
    trained = [path for path in there if path.stem == TRAINING]
    for path in there:
        if path not in trained[1:]:
            parts.append(_folded(path.relative_to(home).as_posix(), _notebook(path)))
    if trained[1:]:
        names = ", ".join(show_path(path).as_posix() for path in trained[1:])
        parts.append(f"<p>The same for the other folds and seeds: {escape(names)}.</p>")
    if faults:
        items = "".join(f"<li>{escape(fault)}</li>" for fault in faults)
        parts.append(_folded(f"Missing or out of date: {len(faults)}", f'<ul class="fault">{items}</ul>'))
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    head += f'<title>Run {escape(run)}</title><meta name="{DIGEST}" content="{escape(predictions)}">'
    body = EMBEDDED.sub(_smaller, _self_contained("\n".join(parts)))
    html = f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>\n{STYLE}</style></head>\n<body>{body}</body></html>\n'
    return write_file(home / runs.REPORT, html.encode())


def _entry(folder, stem, files, digests):
    try:
        record = json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))
        kind, parameters = record["kind"], dict(record["parameters"])
        caption = printable(str(record["caption"]))
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
    return Entry(stem, kind, caption, files, tuple(faults), parameters)


def _notebooks(run):
    """Where the executed notebooks of a run lie or should lie, in order."""
    folder = project_home() / "runs" / run / "notebooks"
    finished = runs.finished_folders(run)
    variants = sorted({runs.variant_of(path) for path in finished})
    # what puts folds together is run once for each variant
    names = [f"{ANALYSIS}_{variant}" for variant in variants] if len(variants) > 1 else [ANALYSIS]
    expected = [folder / f"{name}.ipynb" for name in PREPARATION]
    expected += [path / f"{TRAINING}.ipynb" for path in finished]
    expected += [folder / f"{name}.ipynb" for name in names]
    return expected + sorted(set(folder.glob("*.ipynb")) - set(expected))


def _notebook(path):
    import nbformat  # here, and nbconvert too: whoever only wants scores need not wait for them
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="basic", exclude_anchor_links=True)
    try:
        notebook = nbformat.read(path, as_version=4)
        return exporter.from_notebook_node(notebook)[0]
    except Exception as error:  # nbformat's own errors have no common base
        return f'<p class="fault">can\'t be read: {escape(one_line(f"{type(error).__name__}: {error}"))}</p>'


def _self_contained(html):
    """The same page without scripts, links, and anything that a browser would fetch."""
    import nh3

    tags = nh3.ALLOWED_TAGS - {"a"} | {"section", "audio", "source"}
    attributes = nh3.ALLOWED_ATTRIBUTES | {
        "*": {"class"}, "audio": {"controls", "src"}, "source": {"src", "type"},
    }  # fmt: skip
    return nh3.clean(html, tags=tags, attributes=attributes, url_schemes={"data"}, url_relative="deny")


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


def _first_sentence(caption):
    """What is seen, for who can't see it: a caption up to its protocol.

    >>> _first_sentence("UA by epoch, fold 1.5 dropped. All five folds.")
    'UA by epoch, fold 1.5 dropped'
    """
    return caption.partition(". ")[0].removesuffix(".")


def _folded(summary, html):
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"


def _shown(run, entry):
    """A figure or table with its caption; what is of a single fold has to be unfolded."""
    folder = project_home() / "figures" / run
    html = f"<p>{escape(entry.caption)}</p>"
    if f"{entry.stem}.md" in entry.files:
        from nbconvert.filters import markdown2html

        html = markdown2html((folder / f"{entry.stem}.md").read_text(encoding="utf-8", errors="replace"))
    elif f"{entry.stem}.png" in entry.files:
        data = base64.b64encode((folder / f"{entry.stem}.png").read_bytes()).decode()
        image = f'<img alt="{escape(_first_sentence(entry.caption))}" src="data:image/png;base64,{data}">'
        html = f"<figure>{image}<figcaption>{escape(entry.caption)}</figcaption></figure>"
    html += f'<p class="fault">{escape("; ".join(entry.faults))}</p>'
    return _folded(_first_sentence(entry.caption), html) if OF_A_FOLD.search(entry.stem) else html
