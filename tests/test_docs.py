"""Do the pages tell the truth: the examples of architecture.md, files, links, rooms?"""

import doctest
import re
from collections.abc import Iterator
from pathlib import Path
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


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(
        re.findall(r"\b(?:models|pruning|utils|tools|tests|docs)/[\w/]+\.(?:py|md)\b", text)
    )
    assert not [path for path in named if not (ROOT / path).is_file()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in anchors, link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_of_code_end_and_those_of_python_compile(page: Path) -> None:
    parts = re.split(r"^ *```(.*)\n", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    fences = parts[1::2]
    assert len(fences) % 2 == 0 and not any(fences[1::2]), "a block that does not end"
    for language, text in zip(fences[::2], parts[2::4], strict=True):
        if language == "python" and not text.startswith(">>>"):  # those are tested above
            compile(text, page.name, "exec")


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
