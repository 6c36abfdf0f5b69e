"""One HTML file of a run that needs nothing else: tables, figures and executed notebooks inside it."""

import base64
import re
from html import escape
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html

from serkit import runs
from serkit.figures.saving import DIGEST, write_file
from serkit.reproduction.catalogue import OF_A_FOLD, SCORES, WRITTEN, alike_entries

PREPARATION = {stem for name, stems in WRITTEN.items() if name < "06" for stem in stems}
SCREEN = 0.45  # pixels on a screen for each of a picture at 300 dpi: text is as large as the page's

STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; height: auto; } figure { margin: 1.5rem 0; } figcaption { color: #444; }
table { border-collapse: collapse; margin: 0.8rem 0; font-size: 13px; display: block; overflow-x: auto; }
th, td { padding: 0.2rem 0.7rem; border-bottom: 1px solid #ddd; } thead th { border-bottom: 2px solid #444; }
pre { background: #f5f5f5; padding: 0.5rem; overflow-x: auto; font-size: 12.5px; white-space: pre-wrap; }
details { margin: 0.6rem 0; border-left: 3px solid #0072b2; padding-left: 0.8rem; }
summary { cursor: pointer; font-weight: bold; } .fault { color: #a63c00; } .anchor-link, .prompt { display: none; }
"""
GLANCE = 5  # lines of what is missing that are shown at once
LINK = re.compile(r"""<a\b[^>]*\bhref\s*=\s*(["'])(?!\#).*?\1[^>]*>(.*?)</a>""", re.I | re.S)
RANDOM_ID = re.compile(r' id="[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"')  # new in each conversion
SCRIPT = re.compile(r"<(script|iframe)\b.*?</\1\s*>|<link\b[^>]*>", re.I | re.S)
IMPORT = re.compile(r"@import[^;<]*;|url\(\s*[\"']?(?:https?:)?//[^)]*\)", re.I)
SOURCE = re.compile(
    r"""<(img|audio|video|source|track|embed)\b[^>]*\bsrc\s*=\s*(["'])(?!data:)(.*?)\2[^>]*>""", re.I | re.S
)


def write_page(run, *, summary, entries, predictions="", root=None):
    """Write ``runs/<run>/report.html``; the same run gives the same bytes.

    Parameters
    ----------
    run : str
    summary : list of str
        Paragraphs at the top, plain text.
    entries : list of serkit.reproduction.catalogue.Entry
        Figures and tables; faults are named where they stand, missing ones in a list at the top.
    predictions : str, optional
        Digest of the predictions that it shows, see :func:`serkit.figures.saving.digest_of`; kept in its head.
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
    folder = Path(root or runs.project_home() / "figures") / run
    notebooks, missing = _notebooks(run)
    faults = [f"{entry.stem}: {'; '.join(entry.faults)}" for entry in entries if entry.faults] + missing
    parts = [f"<h1>Run {escape(run)}</h1>", *(f"<p>{escape(text)}</p>" for text in summary)]
    if faults:
        parts.append(_fault_list(faults))
    for kind, title in (("table", "Tables"), ("figure", "Figures")):
        parts.append(f"<h2>{title}</h2>")
        shown = [entry for entry in entries if entry.kind == kind and entry.files]
        shown.sort(key=_rank)
        parts += [_group(folder, group) for group in alike_entries(shown)]
    parts.append("<h2>Notebooks as they were run</h2>")
    home = runs.project_home() / "runs" / run
    for path in notebooks:
        name = escape(path.relative_to(home).as_posix())
        parts.append(f"<details><summary>{name}</summary>{_notebook(path)}</details>")
    body = self_contained("\n".join(parts))
    head = f'<meta charset="utf-8"><title>Run {escape(run)}</title><style>{STYLE}</style>'
    head += f'<meta name="{DIGEST}" content="{escape(predictions)}">' if predictions else ""
    html = f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'
    return write_file(home / runs.REPORT, html.encode())


def self_contained(html):
    """The same page without anything that a browser would fetch: scripts go, links become their text.

    Examples
    --------
    >>> self_contained('<p>see <a href="https://a.org">there</a><script src="x.js"></script></p>')
    '<p>see there</p>'
    >>> self_contained('<img src="https://a.org/b.png"><img src="data:image/png;base64,AA">')
    '<em>(not shown: https://a.org/b.png)</em><img src="data:image/png;base64,AA">'
    """
    html = RANDOM_ID.sub("", html)
    html = IMPORT.sub("", LINK.sub(r"\2", SCRIPT.sub("", html)))
    return SOURCE.sub(lambda found: f"<em>(not shown: {found[3]})</em>", html)


def _rank(entry):
    """Results come first, then those of others, then what was looked at before training."""
    return (OF_A_FOLD.sub("_{}", entry.stem) in PREPARATION, entry.stem == "literature")


def _notebooks(run):
    """Executed notebooks of a run in order, and a sentence for each that is missing or ended in an error."""
    home = runs.project_home() / "runs" / run
    finished = runs.finished_folders(run)
    variants = sorted({folder.parts[-3] for folder in finished})
    names = [name for name in WRITTEN if not name.startswith("05")]
    if len(variants) > 1:  # what puts folds together is run once for each
        names = [name for name in names if name != SCORES] + [f"{SCORES}_{variant}" for variant in variants]
    places = {name: home / "notebooks" / f"{name}.ipynb" for name in names}
    paths = [path for name, path in places.items() if name < "05"]
    paths += [folder / "05_train_coattention.ipynb" for folder in finished]
    others = sorted((home / "notebooks").glob("*.ipynb")) if (home / "notebooks").is_dir() else []
    paths += [path for path in places.values() if path not in paths]
    paths += [path for path in others if path not in paths]
    missing = [f"notebook {runs.show_path(path)}: not there" for path in paths if not path.is_file()]
    return [path for path in paths if path.is_file()], missing


def _notebook(path):
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat's own errors have no common base
        return f'<p class="fault">can\'t be read: {escape(str(error).splitlines()[0])}</p>'
    # the bare template: no style sheet, no script, no address of a font or of MathJax
    exporter = HTMLExporter(template_name="basic", embed_images=True)
    html, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"path": str(path.parent)}})
    failed = any(one.output_type == "error" for cell in notebook.cells for one in cell.get("outputs", ()))
    return ('<p class="fault">This notebook ended in an error.</p>' if failed else "") + html


def _fault_list(faults):
    """What is missing; more than a reader takes in at a glance is folded."""
    items = "<ul>" + "".join(f"<li>{escape(fault)}</li>" for fault in faults) + "</ul>"
    if len(faults) > GLANCE:
        items = f"<details><summary>{len(faults)} figures, tables or notebooks</summary>{items}</details>"
    return f'<section class="fault"><h2>Missing or out of date</h2>{items}</section>'


def _group(folder, group):
    """The first of several alike, the others to unfold."""
    first, *others = [_entry(folder, entry) for entry in group]
    if others:
        first += f"<details><summary>{len(others)} more of other folds</summary>{''.join(others)}</details>"
    return first


def _entry(folder, entry):
    faults = f'<p class="fault">{escape("; ".join(entry.faults))}</p>' if entry.faults else ""
    if entry.kind == "table" and f"{entry.stem}.md" in entry.files:
        return markdown2html((folder / f"{entry.stem}.md").read_text(encoding="utf-8")) + faults
    if f"{entry.stem}.png" not in entry.files:
        return f"<p>{escape(entry.caption)}</p>{faults}"
    data = (folder / f"{entry.stem}.png").read_bytes()
    width = round(SCREEN * int.from_bytes(data[16:20], "big"))  # from the header of the PNG
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    image = f'<img alt="{escape(entry.stem)}" width="{width}" src="{source}">'
    return f"<figure>{image}<figcaption>{escape(entry.caption)}</figcaption>{faults}</figure>"
