"""Texts that would like to be more than texts: in notebooks, captions, tables and the names of files."""

import json
import re
import shutil
from html.parser import HTMLParser

import nbformat
import pandas as pd
import pytest
from nbconvert.filters import markdown2html

from serkit import figures
from serkit.reproduction import page

FAR = "https://far.example/x"
TEXTS = [
    f"[link](javascript:run()) [far]({FAR})", f"![picture]({FAR}.png)", f"[name]: {FAR}", f"<{FAR}>", FAR,
    "<script>run()</script>", "<img src=x onerror=run()>", f"<img src={FAR}.png>", f"{FAR}\\<img src=x onerror=run()>",
    "&lt;img src=x onerror=run()&gt;", "<svg onload=run()><script>run()</script></svg>", f"<iframe src={FAR}></iframe>",
    f"<meta http-equiv=refresh content='0;url={FAR}'>", f"<base href={FAR}>", f"<link rel=stylesheet href={FAR}>",
    f"<style>@import '{FAR}'</style>", f"<p style='background:url({FAR})'>p</p>", f"<form action={FAR}><button>b</form>",
    f"<object data={FAR}></object><embed src={FAR}>", f"<video src={FAR} poster={FAR}></video>", "<math><a xlink:href=x>",
    "<a href='data:text/html,<script>run()</script>'>a</a>", "<details open ontoggle=run()>", "$\\href{javascript:run()}{x}$",
    "</title></head><script>run()</script>", '"><script>run()</script>', "a | b\n\n| c |\r\n# head\x0b\x1c\u2028x", "`code` *b* _i_",
    "\\write18{run} \\input{/etc/passwd} ^^5cinput", "\x00\x07\x1b[31m\u202e\u2066 turned", "你好 😀 עברית",
]  # fmt: skip
TAGS_OF_THE_PAGE = {"html", "head", "meta", "title", "style", "body"}  # and none of them from elsewhere


class Seen(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def assert_nothing_runs_or_is_fetched(html):
    seen = Seen(html)
    assert not {*seen.tags} & {
        "script", "iframe", "object", "embed", "link", "base", "form", "svg", "math", "video", "button", "a", "input"
    }  # fmt: skip
    for name, value in seen.attributes:
        assert not name.startswith("on"), (name, value)
        assert name not in ("href", "action", "data", "style", "poster", "srcset"), (name, value)
        if name == "src":
            assert value.startswith("data:"), value
    return seen


@pytest.fixture
def home(project):
    """A run with a finished fold, and every text in every place of its report."""
    (project / "runs/trial/v/fold=1/seed=1").mkdir(parents=True)
    (project / "runs/trial/v/fold=1/seed=1/DONE").write_text("x")
    (project / "runs/trial/notebooks").mkdir()
    cells = []
    for text in (text.encode(errors="replace").decode() for text in TEXTS):
        outputs = [
            nbformat.v4.new_output("display_data", data={kind: text})
            for kind in (
                "text/html",
                "text/markdown",
                "text/latex",
                "text/plain",
                "image/svg+xml",
                "application/javascript",
            )
        ]
        outputs += [
            nbformat.v4.new_output("stream", text=text),
            nbformat.v4.new_output("error", ename=text, evalue=text, traceback=[text]),
        ]
        cells += [nbformat.v4.new_markdown_cell(text), nbformat.v4.new_raw_cell(text)]
        cells.append(nbformat.v4.new_code_cell(text, outputs=outputs))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), project / "runs/trial/notebooks/02_mfcc.ipynb")
    nbformat.write(
        nbformat.v4.new_notebook(), project / "runs/trial/notebooks/<img src=x onerror=run()>.ipynb"
    )
    (project / "runs/trial/notebooks/06_confusion_matrix.ipynb").write_text("[" * 100_000)
    folder = project / "figures/trial"
    for number, text in enumerate(TEXTS):
        table = pd.DataFrame({f"{text}{number}": [text, "x"]}, index=pd.Index([text, 1], name=text))
        figures.save_table(table, f"table{number}", run="trial", caption=text, parameters={"x": text})
        name = re.sub(r"[/\0]", "", text).encode(errors="replace").decode()[:40]
        (folder / f"{name}.png").write_bytes(b"")
        (folder / f"hostile{number}.md").write_text(text, errors="replace")
        record = {"kind": "table", "caption": text, "parameters": {}, "sha256": {text: text}}
        (folder / f"hostile{number}.json").write_text(json.dumps(record))
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "number.json").write_text(
        '{"kind": 1, "caption": {"a": []}, "parameters": {"predictions": []}, "sha256": {}}'
    )
    (folder / "folder.png").mkdir()
    (folder / "bytes.md").write_bytes(b"\xff\xfe")
    return project


def test_the_page_runs_and_fetches_nothing(home):
    entries = page.read_catalogue("trial", digests=["x"], not_made={"table1": TEXTS[5]})
    path = page.write_page(
        "trial", summary=TEXTS, entries=entries, notes={"More": TEXTS}, predictions=TEXTS[25]
    )
    html = path.read_text(encoding="utf-8")
    seen = assert_nothing_runs_or_is_fetched(html)
    assert [tag for tag in seen.tags if tag in TAGS_OF_THE_PAGE] == [
        "html",
        "head",
        "meta",
        "meta",
        "title",
        "meta",
        "style",
        "body",
    ]
    assert "06_confusion_matrix.ipynb" in html and "can't be read" in html
    policy = dict(seen.attributes[1:4])["content"]
    assert (
        policy.startswith("default-src 'none';")
        and "script-src" not in policy
        and "unsafe-eval" not in policy
    )


def test_a_browser_runs_and_asks_for_nothing(home):
    driver = pytest.importorskip("playwright.sync_api", reason="no Playwright here: pip install playwright")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if not program:
        pytest.skip("no Chromium here")
    entries = page.read_catalogue("trial", digests=["x"])
    path = page.write_page("trial", summary=TEXTS, entries=entries, notes={"More": TEXTS})
    asked, said = [], []
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.add_init_script("window.run = () => console.log('it ran')")
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: said.append(message.text))
        tab.on("dialog", lambda dialog: said.append(dialog.message))
        tab.goto(path.as_uri())
        tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        tab.wait_for_timeout(1000)
        here = tab.url
        browser.close()
    assert (here, said) == (path.as_uri(), [])
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]


def test_the_catalogue_links_to_nothing_but_its_files(home):
    entries = page.read_catalogue("trial", digests=["x"])
    text = page.write_catalogue("trial", entries).read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| <")]
    assert len(rows) == len(entries) and all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)
    seen = Seen(markdown2html(text))
    assert {*seen.tags} <= {
        "h1",
        "h2",
        "p",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "code",
        "img",
        "br",
        "a",
        "strong",
    }
    assert {name for name, _ in seen.attributes} <= {
        "id",
        "href",
        "class",
        "src",
        "width",
        "alt",
        "style",
        "rel",
        "target",
    }
    for name, value in seen.attributes:
        assert name not in ("href", "src") or re.fullmatch(r"[#\w%.~-]+", value), value
        assert name != "style" or value.startswith("text-align"), value


@pytest.mark.parametrize("text", TEXTS)
def test_a_table_in_markdown_shows_the_text_and_keeps_its_shape(tmp_path, text):
    table = pd.DataFrame({"a": [text, "b"], text: ["c", text]})
    _, path, _, _ = figures.save_table(table, "t", run="r", caption=text, root=tmp_path)
    html = markdown2html(path.read_text(encoding="utf-8"))
    seen = assert_nothing_runs_or_is_fetched(re.sub(r' style="text-align:\s?\w+"', "", html))
    assert {*seen.tags} == {"p", "table", "thead", "tbody", "tr", "th", "td"}
    assert (seen.tags.count("tr"), seen.tags.count("th"), seen.tags.count("td")) == (3, 2, 4)
    shown = read_out(html)
    assert shown.count(figures.printable(text)) == 4 - ("_i_" in text)  # heads of columns are words


def read_out(html):
    """What is read on a page."""
    parts = []
    parser = HTMLParser()
    parser.handle_data = parts.append
    parser.feed(html)
    return "".join(parts)


@pytest.mark.parametrize("text", TEXTS)
def test_a_table_in_latex_holds_no_command_of_the_text(tmp_path, text):
    table = pd.DataFrame({"a": [text, "b"], text: ["c", text]})
    latex = figures.save_table(table, "t", run="r", caption=text, root=tmp_path)[2].read_text(
        encoding="utf-8"
    )
    plain = figures.save_table(
        table.map(lambda _: "b").set_axis(["a", "b"], axis=1), "u", run="r", caption="c", root=tmp_path
    )
    usual = plain[2].read_text(encoding="utf-8")
    known = {
        "textbackslash",
        "textasciitilde",
        "textasciicircum",
        "textless",
        "textgreater",
        "textbar",
        "allowbreak",
    }
    assert {*re.findall(r"\\([A-Za-z]+)", latex)} - {*re.findall(r"\\([A-Za-z]+)", usual)} <= known
    assert latex.count("\n") == usual.count("\n") and latex.count(" & ") == usual.count(" & ")
    assert not re.search("[^\n -\u017f]", latex) and not re.search(r"(?<!\\)[$#^~]", latex)
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", latex):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
