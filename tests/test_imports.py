"""Do imports point downwards: scripts and tools → pruning → utils → models → the ground floor?"""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

GROUND_FLOOR = (
    "import_param", "utils.boxes", "utils.console.progress", "utils.devices", "utils.errors",
    "utils.files.numbers", "utils.files.paths", "utils.files.reading", "utils.files.temporary",
    "utils.files.writing", "utils.fonts", "utils.images", "utils.processes.distributed",
    "utils.processes.workers", "utils.structures", "utils.timing",
)  # fmt: skip
FLOORS = ("ground floor", "models", "utils", "pruning", "scripts")  # from the lowest up
SCRIPTS = {path.stem for path in ROOT.glob("*.py")}
FOLDERS = ("models", "utils", "pruning", "tools")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(
        [*ROOT.glob("*.py"), *(p for f in FOLDERS for p in (ROOT / f).rglob("*.py"))]
    )
}


def imported(path: Path) -> set[str]:
    """The project's own modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            names |= submodules or {node.module}
    return {name for name in names if name in MODULES or f"{name}.__init__" in MODULES}


def floor(module: str) -> int:
    if module in GROUND_FLOOR:
        return 0
    top = module.split(".")[0]
    return FLOORS.index("scripts" if top == "tools" or top in SCRIPTS else top)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module: str) -> None:
    above = {name for name in imported(MODULES[module]) if floor(name) > floor(module)}
    assert not above


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] in SCRIPTS])
def test_no_script_imports_a_script(module: str) -> None:
    assert not (imported(MODULES[module]) & SCRIPTS) - {"import_param"}


def test_rooms_have_no_circular_imports() -> None:
    """A room is a folder, or a file that stands alone in utils/ or models/."""

    def room(module: str) -> str:
        folder, _, _ = module.removesuffix(".__init__").rpartition(".")
        alone = folder in ("", "utils", "models", "pruning")
        return module.removesuffix(".__init__") if alone else folder

    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        used = {room(name) for name in imported(path)}
        graph.setdefault(room(module), set()).update(used - {room(module)})
    TopologicalSorter(graph).prepare()  # raises CycleError
