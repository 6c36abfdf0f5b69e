"""What the parts of the kit import: programs start quickly, and imports go upward only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "serkit"
# the order of the house: a room imports only from rooms above it
ROOMS = [
    "(door)", "corpora", "features", "model", "training", "evaluation", "figures", "predict", "widgets", "reproduction",
]  # fmt: skip
SLOW = {  # what takes a second and more to import, and is not needed by whoever imports the module
    "serkit.cli": ("torch", "papermill", "matplotlib", "numba"),
    "serkit.model.encoders": ("torchvision",),
    "serkit.reproduction.jobs": ("papermill", "torch"),
    "serkit.reproduction.plan": ("torch", "papermill", "matplotlib", "numba"),
    "serkit.runs": ("torch", "papermill", "matplotlib"),
    "serkit.reproduction.verify": ("torch", "papermill", "nbconvert"),
    "serkit.reproduction.report": ("torch", "papermill", "nbconvert"),
}


@pytest.mark.parametrize("module", SLOW)
def test_a_program_does_not_wait_for_what_it_does_not_need(module):
    program = f"import sys, {module}; print(*[name for name in {SLOW[module]} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def modules():
    """Every module of the package, with the modules of the package that it names at its top level."""
    paths = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }
    return {name: imported(path, set(paths)) - {name} for name, path in paths.items()}


def imported(path, known):
    """Modules of the package that a module imports when it is imported itself."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module.startswith("serkit"):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & known - {"serkit"}


def room_of(module):
    """Number of a module's room in the order of the house; the door is 0, the command line the last."""
    name = module.split(".")[1]
    return len(ROOMS) if name == "cli" else ROOMS.index(name) if name in ROOMS else 0


def test_no_two_modules_import_each_other_by_any_way():
    left = modules()
    assert "serkit.constants" in left["serkit.experiment"]
    while left:  # whatever imports nothing that is left may come next
        free = {name for name, needs in left.items() if not needs & set(left)}
        assert free, f"a circle among {sorted(left)}"
        left = {name: needs for name, needs in left.items() if name not in free}


def test_a_room_imports_only_from_rooms_above_it():
    assert room_of("serkit.runs") == 0 < room_of("serkit.corpora.demo") < room_of("serkit.reproduction.plan")
    upward = {
        f"{name} -> {need}"
        for name, needs in modules().items()
        if name != "serkit"
        for need in needs
        if room_of(need) > room_of(name)
    }
    assert not upward


def test_the_door_is_quick_and_names_the_rooms():
    program = "import sys, serkit; print(*serkit.__all__); print(*({'torch', 'numpy', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    names, slow = done.stdout.split("\n")[:2]
    assert set(ROOMS[1:]) | {"folds", "PUBLISHED", "CORRECTED", "start_run"} <= set(names.split())
    assert not slow
