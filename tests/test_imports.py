"""Do imports point one way: scripts → pruning, engine → models → types and boxes?"""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPTS = {path.stem for path in ROOT.glob("*.py")}
FOLDERS = ("models", "pruning", "utils")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
# The parts of utils that know networks; `models` must not know them.
ABOVE_MODELS = {
    "utils.engine", "utils.checkpoint", "utils.detector", "utils.backends", "utils.benchmark",
    "utils.export", "utils.peers", "utils.training_peers", "utils.memory",
}  # fmt: skip
# What models may use: nothing that knows a network, a data set or a setting.
BELOW_MODELS = {"utils.types", "utils.boxes", "utils.errors", "utils.files"}


def imports(path: Path) -> set[str]:
    """The project's own modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    own = {*FOLDERS, *SCRIPTS}
    return {name for name in found if name.split(".")[0] in own}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_libraries_import_no_script(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & SCRIPTS


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.parent.name != "pruning"], ids=lambda path: path.stem
)
def test_nothing_below_knows_pruning(path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] == "pruning"}


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.py")), ids=lambda p: p.stem)
def test_models_stand_on_types_and_boxes_only(path: Path) -> None:
    modules = {".".join(name.split(".")[:2]) for name in imports(path) if name.startswith("utils.")}
    assert modules <= BELOW_MODELS


@pytest.mark.parametrize("name", sorted(BELOW_MODELS))
def test_the_ground_floor_stands_on_itself(name: str) -> None:
    path = ROOT / Path(*name.split(".")).with_suffix(".py")
    assert {".".join(n.split(".")[:2]) for n in imports(path)} <= BELOW_MODELS | {"utils"}


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.relative_to(ROOT).parts[0] == "utils"], ids=lambda p: p.stem
)
def test_only_some_of_utils_know_networks(path: Path) -> None:
    knows = any(name.split(".")[0] == "models" for name in imports(path))
    module = path.relative_to(ROOT).with_suffix("").parts
    assert not knows or ".".join(module[:2]) in ABOVE_MODELS


@pytest.mark.parametrize("script", sorted(SCRIPTS - {"import_param"}))
def test_no_script_imports_a_script(script: str) -> None:
    found = {name.split(".")[0] for name in imports(ROOT / f"{script}.py")} & SCRIPTS
    assert found <= {"import_param"}
