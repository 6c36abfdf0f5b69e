"""What the parts of the kit import: programs start quickly, and imports go upward only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "serkit"
SLOW = {  # what takes a second and more to import, and is not needed by whoever imports the module
    "serkit.cli": ("torch", "papermill", "matplotlib", "numba"),
    "serkit.encoders": ("torchvision",),
    "serkit.execution": ("numpy", "papermill", "torch"),
    "serkit.plan": ("torch", "matplotlib", "numba"),
    "serkit.runs": ("torch", "papermill", "matplotlib"),
    "serkit.verify": ("torch", "papermill", "nbconvert"),
    "serkit.report": ("torch", "papermill", "nbconvert"),
}


@pytest.mark.parametrize("module", SLOW)
def test_a_program_does_not_wait_for_what_it_does_not_need(module):
    program = f"import sys, {module}; print(*[name for name in {SLOW[module]} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def imported(path, known):
    """Modules of the package that a module imports when it is imported itself."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module.startswith("serkit"):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & known - {"serkit"}


def test_no_two_modules_import_each_other_by_any_way():
    paths = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }
    left = {name: imported(path, set(paths)) - {name} for name, path in paths.items()}
    assert "serkit.constants" in left["serkit.corpora.prosody"] and len(left) > 80
    while left:  # whatever imports nothing that is left may come next
        free = {name for name, needs in left.items() if not needs & set(left)}
        assert free, f"a circle among {sorted(left)}"
        left = {name: needs for name, needs in left.items() if name not in free}
