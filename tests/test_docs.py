"""Does docs/architecture.md tell the truth: its examples, its files, its rooms?"""

import doctest
import re
from collections.abc import Iterator
from typing import Any

import pytest

from models import blocks, netdef
from pruning.importance import IMPORTANCE
from pruning.strategies import STRATEGIES
from tests.conftest import ROOT
from utils.backends.registry import ENGINES
from utils.data.labels import FORMATS

ARCHITECTURE = ROOT / "docs" / "architecture.md"
TABLES: tuple[dict[str, Any], ...] = (
    netdef.KEYS,
    blocks.ONE_INPUT,
    IMPORTANCE,
    STRATEGIES,
    ENGINES,
    FORMATS,
)


@pytest.fixture
def tables_as_before() -> Iterator[None]:
    """The examples add entries to tables."""
    names = [set(table) for table in TABLES]
    yield
    for table, before in zip(TABLES, names, strict=True):
        for name in set(table) - before:
            del table[name]


@pytest.mark.usefixtures("tables_as_before")
def test_the_examples_hold() -> None:
    results = doctest.testfile(str(ARCHITECTURE), module_relative=False)
    assert results.attempted > 30 and not results.failed


@pytest.mark.parametrize("page", ["docs/architecture.md", "README.md", "CONTRIBUTING.md"])
def test_files_that_are_named_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(
        re.findall(r"\b(?:models|pruning|utils|tools|tests|docs)/[\w/]+\.(?:py|md)\b", text)
    )
    assert named and not [path for path in named if not (ROOT / path).is_file()]


def test_every_room_is_drawn() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    rooms = {
        f"{path.parent.relative_to(ROOT).as_posix()}/"
        for folder in ("models", "pruning", "utils", "tools")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert not [
        room for room in rooms - {"utils/", "utils/data/labels/"} if f"`{room}`" not in text
    ]


def test_the_tests_that_the_table_of_faults_names_are_there() -> None:
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    file = ""
    for path, name in re.findall(r"`(tests/[\w/.]+)?(?:::(\w+))?`", text):
        if not path and not name:
            continue  # code that is no test
        file = path or file
        assert (ROOT / file).is_file(), file
        source = (ROOT / file).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in source, f"{file}::{name}"
