"""What lies in ``figures/<run>/`` and what is wrong with it, and one HTML page of the whole run."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path

from serkit import runs
from serkit.experiment import project_home, show_path
from serkit.figures import DIGEST, write_file

NOTEBOOKS = (
    "01_prepare_corpus",
    "02_mfcc",
    "03_spectrogram",
    "04_wav2vec2",
    "05_train_coattention",
    "06_confusion_matrix",
)
OF_A_FOLD = re.compile(r"_fold[^_]+_seed\d+$")  # end of a stem
THUMBNAIL = 240  # pixels wide
SCREEN = 0.45  # pixels on a screen for each of a picture at 300 dpi: text is as large as the page's
GLANCE = 5  # lines of what is missing that are shown at once
# Nothing is fetched, nothing runs, whatever a notebook's output holds
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; height: auto; } figure { margin: 1.5rem 0; } figcaption { color: #444; }
table { border-collapse: collapse; margin: 0.8rem 0; font-size: 13px; display: block; overflow-x: auto; }
th, td { padding: 0.2rem 0.7rem; border-bottom: 1px solid #ddd; } thead th { border-bottom: 2px solid #444; }
pre { background: #f5f5f5; padding: 0.5rem; overflow-x: auto; font-size: 12.5px; white-space: pre-wrap; }
details { margin: 0.6rem 0; border-left: 3px solid #0072b2; padding-left: 0.8rem; }
summary { cursor: pointer; font-weight: bold; } .fault { color: #a63c00; } .prompt { display: none; }
"""


@dataclass(frozen=True)
class Entry:
    """One figure or table."""

    stem: str
    kind: str = ""  # figure or table; empty if that can't be known
    caption: str = ""
    files: tuple[str, ...] = ()  # names of the files that are there
    faults: tuple[str, ...] = ()  # what is wrong with it; empty: nothing
    parameters: dict = field(default_factory=dict)  # what it was made with


def read_catalogue(run, *, digests=(), not_made=None, root=None):
    """Every figure and table of a run, as their sidecars describe them.

    A figure is out of date if its sidecar names predictions that are none of ``digests``, or if it was
    made of another corpus. A file with other bytes than the sidecar says was changed by hand.

    Parameters
    ----------
    run : str
    digests : sequence of str, optional
        Of the predictions that the run holds now, of all variants and of each, from
        :func:`serkit.figures.digest_of`. Without them only the corpus is compared.
    not_made : dict of str to str, optional
        Stems that could not be made now, and why.
    root : path, optional
        Folder that holds one folder for each run; default ``figures`` of the project.

    Returns
    -------
    list of Entry
        Sorted by stem.
    """
    folder = Path(root or project_home() / "figures") / run
    corpus = runs.shared_parameters(run).get("corpus")
    stems = {}
    for path in sorted(folder.glob("[!.]*")):
        stems.setdefault(path.name.partition(".")[0], []).append(path.name)
    stems.pop("README", None)
    entries = {stem: _entry(folder, stem, tuple(files), digests, corpus) for stem, files in stems.items()}
    for stem, why in (not_made or {}).items():
        old = entries.get(stem, Entry(stem))
        fault = f"left from before, can't be made now: {why}" if old.files else f"missing: {why}"
        entries[stem] = replace(old, faults=(fault,))
    return [entries[stem] for stem in sorted(entries)]


def write_catalogue(run, entries, root=None):
    """Write ``figures/<run>/README.md``: thumbnail, caption and files of each entry; returns its path."""
    lines = [f"# Figures and tables of the run `{run}`", "", "Made by `serkit report`.", ""]
    faulty = [f"- `{entry.stem}`: {'; '.join(entry.faults)}" for entry in entries if entry.faults]
    if faulty:
        lines += ["## Missing or out of date", "", *faulty, ""]
    for kind in ("figure", "table"):
        chosen = [entry for entry in entries if entry.kind == kind and entry.files]
        if chosen:
            lines += [f"## {kind.capitalize()}s", "", "| | caption | files |", "| :-- | :-- | :-- |"]
            lines += [_row(*group) for group in _alike(chosen)] + [""]
    folder = Path(root or project_home() / "figures") / run
    return write_file(folder / "README.md", "\n".join(lines).encode())


def write_page(run, *, summary, entries, predictions="", root=None):
    """Write ``runs/<run>/report.html``, which needs nothing else; the same run gives the same bytes.

    Parameters
    ----------
    run : str
    summary : list of str
        Paragraphs at the top, plain text.
    entries : list of Entry
        Figures and tables; faults are named where they stand, missing ones in a list at the top.
    predictions : str, optional
        Digest of the predictions that it shows, see :func:`serkit.figures.digest_of`; kept in its head.
    root : path, optional
        Folder that holds one folder of figures for each run; default ``figures`` of the project.

    Returns
    -------
    Path

    Raises
    ------
    RunError
        If the run folder can't be written to.
    """
    folder = Path(root or project_home() / "figures") / run
    home = project_home() / "runs" / run
    notebooks = _notebooks(run)
    faults = [f"{entry.stem}: {'; '.join(entry.faults)}" for entry in entries if entry.faults]
    faults += [f"notebook {show_path(path)}: not there" for path in notebooks if not path.is_file()]
    parts = [
        f"<h1>Run {escape(run)}</h1>",
        *(f"<p>{escape(text)}</p>" for text in summary),
        _fault_list(faults),
    ]
    for kind in ("table", "figure"):
        # results come first, then those of others, then what was looked at before training
        shown = [entry for entry in entries if entry.kind == kind and entry.files]
        shown.sort(key=lambda entry: (DIGEST not in entry.parameters, entry.stem != "literature"))
        parts += [f"<h2>{kind.capitalize()}s</h2>", *(_shown(folder, *group) for group in _alike(shown))]
    parts.append("<h2>Notebooks as they were run</h2>")
    for path in filter(Path.is_file, notebooks):
        name = escape(path.relative_to(home).as_posix())
        parts.append(f"<details><summary>{name}</summary>{_notebook(path)}</details>")
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    head += f'<title>Run {escape(run)}</title><meta name="{DIGEST}" content="{escape(predictions)}">'
    body = _self_contained("\n".join(parts))
    html = f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>{body}</body></html>\n'
    return write_file(home / runs.REPORT, html.encode())


def _entry(folder, stem, files, digests, corpus):
    try:
        record = json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))
        kind, caption, hashes = record["kind"], record["caption"], dict(record["sha256"])
        parameters = dict(record["parameters"])
    except (OSError, ValueError, KeyError, TypeError):
        return Entry(
            stem, files=files, faults=(f"{stem}.json is missing or can't be read: its origin is unknown",)
        )
    faults = []
    for name, recorded in hashes.items():
        if name not in files:
            faults.append(f"{name} is missing")
        elif hashlib.sha256((folder / name).read_bytes()).hexdigest() != recorded:
            faults.append(f"{name} was changed after it was made")
    if digests and parameters.get(DIGEST, digests[0]) not in digests:
        faults.append("out of date: made from other predictions than the run holds now")
    if parameters.get("corpus", corpus) != corpus:
        faults.append(f"out of date: made of corpus {parameters['corpus']}, the run is of {corpus}")
    return Entry(stem, kind, caption, files, tuple(faults), parameters)


def _alike(entries):
    """Groups of entries that show the same thing, each for another fold and seed."""
    groups = {}
    for entry in entries:
        groups.setdefault(OF_A_FOLD.sub("", entry.stem), []).append(entry)
    return groups.values()


def _row(entry, *others):
    """One line of the catalogue; of figures of many folds the first is shown, the others are named."""
    first = f"`{entry.stem}`"
    if f"{entry.stem}.png" in entry.files:
        alt = escape(entry.stem.replace("_", " "))
        first = f'<img src="{entry.stem}.png" width="{THUMBNAIL}" alt="{alt}"><br>{first}'
    caption = " ".join([entry.caption, *(f"**{fault}**" for fault in entry.faults)]).replace("|", "\\|")
    if others:
        caption += " In the same way: " + ", ".join(f"`{other.stem}`" for other in others) + "."
    links = " ".join(f"[{name.rpartition('.')[2]}]({name})" for name in entry.files)
    return f"| {first} | {caption} | {links} |"


def _notebooks(run):
    """Where the executed notebooks of a run lie or should lie, in order."""
    folder = project_home() / "runs" / run / "notebooks"
    finished = runs.finished_folders(run)
    variants = sorted({runs.variant_of(path) for path in finished})
    *before, training, analysis = NOTEBOOKS
    # what puts folds together is run once for each variant
    names = [f"{analysis}_{variant}" for variant in variants] if len(variants) > 1 else [analysis]
    expected = [folder / f"{name}.ipynb" for name in before]
    expected += [path / f"{training}.ipynb" for path in finished]
    expected += [folder / f"{name}.ipynb" for name in names]
    return expected + sorted(set(folder.glob("*.ipynb")) - set(expected))


def _notebook(path):
    import nbformat  # here, and nbconvert too: whoever only wants scores need not wait for them
    from nbconvert import HTMLExporter

    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat's own errors have no common base
        return f'<p class="fault">can\'t be read: {escape(str(error).splitlines()[0])}</p>'
    exporter = HTMLExporter(template_name="basic", embed_images=True, exclude_anchor_links=True)
    html, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"path": str(path.parent)}})
    failed = any(
        output.output_type == "error" for cell in notebook.cells for output in cell.get("outputs", ())
    )
    return ('<p class="fault">This notebook ended in an error.</p>' if failed else "") + html


def _self_contained(html):
    """The same page without scripts, links, and anything that a browser would fetch."""
    import nh3

    tags = nh3.ALLOWED_TAGS - {"a"} | {"section", "audio", "source"}
    attributes = nh3.ALLOWED_ATTRIBUTES | {
        "*": {"class"}, "audio": {"controls", "src"}, "source": {"src", "type"},
    }  # fmt: skip
    return nh3.clean(html, tags=tags, attributes=attributes, url_schemes={"data"}, url_relative="deny")


def _fault_list(faults):
    """What is missing; more than a reader takes in at a glance is folded."""
    if not faults:
        return ""
    items = "<ul>" + "".join(f"<li>{escape(fault)}</li>" for fault in faults) + "</ul>"
    if len(faults) > GLANCE:
        items = f"<details><summary>{len(faults)} figures, tables or notebooks</summary>{items}</details>"
    return f'<section class="fault"><h2>Missing or out of date</h2>{items}</section>'


def _shown(folder, entry, *others):
    """A figure or table, the same of other folds to unfold."""
    faults = f'<p class="fault">{escape("; ".join(entry.faults))}</p>' if entry.faults else ""
    html = f"<p>{escape(entry.caption)}</p>"
    if entry.kind == "table" and f"{entry.stem}.md" in entry.files:
        from nbconvert.filters import markdown2html

        html = markdown2html((folder / f"{entry.stem}.md").read_text(encoding="utf-8"))
    elif f"{entry.stem}.png" in entry.files:
        data = (folder / f"{entry.stem}.png").read_bytes()
        width = round(SCREEN * int.from_bytes(data[16:20], "big"))  # from the header of the PNG
        source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        image = f'<img alt="{escape(entry.stem)}" width="{width}" src="{source}">'
        html = f"<figure>{image}<figcaption>{escape(entry.caption)}</figcaption></figure>"
    if others:
        more = "".join(_shown(folder, other) for other in others)
        return f"{html}{faults}<details><summary>{len(others)} more of other folds</summary>{more}</details>"
    return html + faults
