"""The pages for people: short where they must be, and every link in them leads somewhere."""

import doctest
import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

HOME = Path(__file__).parents[1]
PAGES = [
    HOME / name
    for name in (
        "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "notebooks/README.md", "data/README.md", "figures/README.md", "figures/gallery/README.md",
        "serkit/README.md", "serkit/model/README.md", "tests/README.md", "tests/golden/README.md",
    )
]  # fmt: skip
LINK = re.compile(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def prose(page):
    """A page without its blocks of code."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page):
    """The anchors that GitHub gives to the headings of a page."""
    headings = HEADING.findall(prose(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page):
    """Targets in a page that are neither a file of the project nor a heading of it."""
    broken = []
    for target in (markdown or image for markdown, image in LINK.findall(prose(page))):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HOME)))
def test_every_link_leads_somewhere(page):
    assert not broken_links(page)


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        '# Where is …?\n[a](#where-is-) [b](#gone)\n[c](gone.md) <img src="gone.png">\n```\n[d](code)\n```\n'
    )
    assert broken_links(page) == ["#gone", "gone.md", "gone.png"]


def test_the_main_page_is_short():
    assert (HOME / "README.md").stat().st_size <= 9000


def test_every_target_of_make_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (HOME / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        code = [*FENCED.findall(text), *re.findall(r"`make [^`]+`", prose(page))]
        assert set(re.findall(r"^`?make ([a-z-]+)", "\n".join(code), re.MULTILINE)) <= targets, page


def test_the_map_of_the_package_names_every_file_and_no_other():
    named, room = set(), ""
    for name in re.findall(r"^\| \**`([a-z_0-9/]+)`", (HOME / "serkit/README.md").read_text(), re.MULTILINE):
        if name.endswith("/"):
            room = name
        else:
            named.add(room + name)
    package = HOME / "serkit"
    modules = {path.relative_to(package).with_suffix("").as_posix() for path in package.rglob("*.py")}
    assert named == {module for module in modules if not module.endswith("__init__")}


def test_the_map_of_the_package_names_the_data_beside_the_code():
    page = (HOME / "serkit/README.md").read_text()
    data = {
        path for kind in ("toml", "csv", "txt", "md", "js") for path in (HOME / "serkit").rglob(f"*.{kind}")
    }
    assert len(data) > 20
    assert not {path.name for path in data if path.name != "README.md" and f"`{path.name}`" not in page}


def test_the_citation_names_this_version():
    citation = yaml.safe_load((HOME / "CITATION.cff").read_text(encoding="utf-8"))
    changes = (HOME / "CHANGELOG.md").read_text(encoding="utf-8")
    assert citation["version"] == re.search(r"## \[(\d[\d.]*)\]", changes)[1] == version("serkit")
    assert citation["preferred-citation"]["year"] == 2022
    assert json.loads((HOME / ".zenodo.json").read_text(encoding="utf-8"))["title"] == citation["title"]


def test_the_example_for_contributors_is_right():
    result = doctest.testfile(str(HOME / "CONTRIBUTING.md"), module_relative=False)
    assert result.attempted == 4 and not result.failed


def test_the_workflow_calls_targets_that_there_are():
    """What CI runs on other machines is what the Makefile runs here."""
    flow = yaml.safe_load((HOME / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    steps = [step["run"] for job in flow["jobs"].values() for step in job["steps"] if "run" in step]
    targets = re.findall(r"^([a-z-]+):", (HOME / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    called = [
        word for step in steps if step.startswith("make") for word in step.split()[1:] if "=" not in word
    ]
    assert called and set(called) <= set(targets)
