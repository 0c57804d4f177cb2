"""Does pruning stand on models and utils, and nothing below on pruning?"""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPTS = {path.stem for path in ROOT.glob("*.py")}


def imported(path: Path) -> set[str]:
    """The first names of all modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "pruning").glob("*.py")), ids=lambda p: p.stem)
def test_pruning_imports_no_script(path: Path) -> None:
    assert not imported(path) & SCRIPTS


@pytest.mark.parametrize("folder", ["models", "utils"])
def test_nothing_below_imports_pruning(folder: str) -> None:
    assert not [p for p in (ROOT / folder).glob("*.py") if "pruning" in imported(p)]
