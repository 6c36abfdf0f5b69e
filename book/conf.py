"""The book of a run, for Sphinx, whose source folder is the whole project: pages are read where they lie.

`make book` sets RUN, and REPOSITORY: its address on GitHub, or nothing.
"""

import json
import os
import re
from pathlib import Path

RUN, REPOSITORY = os.environ.get("RUN", "demo"), os.environ.get("REPOSITORY", "").rstrip("/")
HOME = Path(__file__).parents[1]

project, html_title, root_doc = "serkit", "serkit", "README"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.viewcode", "numpydoc"]
include_patterns = ["*.md", "*/README.md", "serkit/model/*.md", "tests/*/*.md", "notebooks/*.ipynb"]
include_patterns += ["figures/gallery/*.md", f"figures/{RUN}/*.md", "book/api/*.rst"]
exclude_patterns = [".*", "runs", "serkit/model/model_card.md"]
suppress_warnings = [
    "toc.not_included"
]  # the gallery's tables have a link there, and no line in the contents

html_theme = "sphinx_book_theme"
html_theme_options = {
    "navbar_persistent": [],
    "show_navbar_depth": 1,
    "use_download_button": False,
    "footer_content_items": [],
}
if REPOSITORY:
    html_theme_options |= {
        "repository_url": REPOSITORY,
        "repository_branch": "main",
        "use_repository_button": True,
        "launch_buttons": {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
            "notebook_interface": "jupyterlab",
        },
    }
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system has it
html_static_path = html_css_files = ["book.css"]
html_copy_source = html_show_sphinx = html_use_index = False
mathjax_path = "tex-svg.js"  # in the book itself, see setup

myst_enable_extensions = ["dollarmath", "html_image"]
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_render_markdown_format = "myst"
nb_code_prompt_show, nb_code_prompt_hide = "Show the code", "Hide the code"
# buttons and sliders need a running notebook, and code from the network
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
nb_ipywidgets_js = {}
autodoc_member_order, autodoc_typehints = "bysource", "none"
autodoc_preserve_defaults, add_module_names, numpydoc_show_class_members = True, False, False

CONTENTS = {
    "Notebooks": ["notebooks/0*", "notebooks/README"],
    "Results": [f"figures/{RUN}/README", "figures/gallery/README", "figures/README"],
    "Package": ["serkit/README", "serkit/model/README", "book/api/*"],
    "Project": ["data/README", "tests/README", "tests/*/README", "CONTRIBUTING", "CHANGELOG"],
}
EQUATION = re.compile(r"^\$\$(?:(?!\$\$).)*\\tag\{(\d+)\}(?:(?!\$\$).)*\$\$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<=\s)\((\d+)\)(?=[\s,.:;])")


def executed(name):
    """The notebook of that name as the run left it; of a training, that of the first fold."""
    folder = HOME / "runs" / RUN
    found = [*folder.glob(f"notebooks/{name}*.ipynb"), *folder.glob(f"*/fold=*/seed=*/{name}.ipynb")]
    if not found:
        raise SystemExit(f"run {RUN}: {name} was not executed; call `make reproduce report` first")
    return min(found)


def linked(text):
    """Markdown in which a number in brackets leads to the equation that has it.

    >>> print(linked("Power (7):\\n\\n$$p=x^2\\\\tag{7}$$"))
    Power [(7)](#eq-7):
    <BLANKLINE>
    (eq-7)=
    $$p=x^2\\tag{7}$$
    """
    return EQUATION.sub(r"(eq-\1)=\n\g<0>", NUMBER.sub(r"[(\1)](#eq-\1)", text))


def read_source(app, docname, source):
    """Exchange a notebook for the executed one; give the front page its contents, and a table its title."""
    path = Path(app.env.doc2path(docname))
    if path.suffix == ".ipynb":
        notebook = json.loads(executed(path.stem).read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            tags = cell["metadata"].setdefault("tags", [])
            if cell["cell_type"] == "markdown":
                cell["source"] = linked("".join(cell["source"]))
            elif cell["metadata"].get("jupyter", {}).get("source_hidden"):
                tags.append("remove-cell" if "colab" in tags else "hide-input")
        source[0] = json.dumps(notebook)
    elif docname == root_doc:
        for caption, pages in CONTENTS.items():
            listed = "\n".join([":hidden:", ":glob:", f":caption: {caption}", *pages])
            source[0] += f"\n```{{toctree}}\n{listed}\n```\n"
    elif path.stem != "README" and docname.startswith("figures/"):
        source[0] = f"# {path.stem.replace('_', ' ').capitalize()}\n\n{source[0]}"


def link_files(app, doctree):
    """Files of the project that are no pages lie in the book; where the repository is known, only figures do."""
    from docutils import nodes
    from sphinx.addnodes import download_reference

    here = Path(app.env.doc2path(app.env.docname)).parent
    for node in [*doctree.findall(download_reference)]:
        path = Path(os.path.relpath(here / node["reftarget"], HOME)).as_posix()
        if REPOSITORY and not path.startswith("figures/"):
            address = f"{REPOSITORY}/blob/main/{path}"
            node.replace_self(nodes.reference("", "", *node.children, refuri=address))


def write_rooms(folder):
    """A page for each room of the package, from its docstrings."""
    folder.mkdir(exist_ok=True)
    for room in (path.parent for path in (HOME / "serkit").rglob("__init__.py")):
        package = ".".join(room.relative_to(HOME).parts)
        text = f"{package}\n{'=' * len(package)}\n\n.. automodule:: {package}\n"
        for name in sorted(path.stem for path in room.glob("[!_]*.py")):
            text += f"\n{name}\n{'-' * len(name)}\n\n.. automodule:: {package}.{name}\n   :members:\n"
        (folder / f"{package}.rst").write_text(text, encoding="utf-8")


def skip_imported(app, what, name, found, skip, options):
    """Leave out what a module has from other packages."""
    return skip or not str(getattr(found, "__module__", "serkit")).startswith("serkit") or None


def setup(app):
    import mathjax  # packed for Django; all it holds is MathJax

    app.config.html_static_path.append(f"{mathjax.__path__[0]}/static/mathjax/es5/{mathjax_path}")
    write_rooms(HOME / "book/api")
    app.connect("autodoc-skip-member", skip_imported)
    app.connect("source-read", read_source)
    app.connect("doctree-read", link_files, priority=100)  # before Sphinx copies the files
