"""Does `--help` tell first what matters, in whole commands that work, and `--help_all` all?"""

from __future__ import annotations

import dataclasses
import importlib
import shlex
from types import ModuleType
from typing import Any, NoReturn

import pytest

from tests.conftest import ROOT
from utils.settings import loader
from utils.settings.help import comments

PRUNING = ("normal", "layer", "slim", "shortcut", "layer_channel", "latency")
SCRIPTS = (
    *(
        "train",
        "test",
        "detect_img",
        "detect_video",
        "export",
        "benchmark",
        "check_data",
        "compare",
    ),
    "prune",
    *(f"{strategy}_prune" for strategy in PRUNING),
)
TOOLS = sorted(
    f"tools.{path.stem}"
    for path in (ROOT / "tools").glob("*.py")
    if "from utils.settings.loader import load" in path.read_text(encoding="utf-8")
    and "def main" in path.read_text(encoding="utf-8")
)


class Loaded(Exception):
    """Ends a script where it has its settings, which it brings along."""


def loaded(script: ModuleType, argv: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The settings that a script takes from flags."""

    def stop_after(load: Any) -> Any:
        def load_and_stop(*args: Any, **kwargs: Any) -> NoReturn:
            raise Loaded(load(*args, **kwargs))

        return load_and_stop

    for name in ("load", "load_pruning"):
        if hasattr(script, name):
            monkeypatch.setattr(script, name, stop_after(getattr(loader, name)))
    with pytest.raises(Loaded) as caught:
        script.main(argv)
    return caught.value.args[0]


def examples(script: ModuleType) -> list[list[str]]:
    """The commands in a docstring, as lists of words."""
    lines = (script.__doc__ or "").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("    ")]
    scripts = [command for command in commands if command[:1] == ["python"]]
    return [command[: [*command, "|"].index("|")] for command in scripts]


def said(script: ModuleType, flag: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        script.main([flag])
    assert not stop.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize("name", [*SCRIPTS, *TOOLS])
def test_examples_are_commands_that_the_script_takes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = importlib.import_module(name)
    start = ["python", "-m", name] if name.startswith("tools.") else ["python", f"{name}.py"]
    assert 1 <= len(examples(script)) <= 4
    for command in examples(script):
        assert command[: len(start)] == start
        loaded(script, command[len(start) :], monkeypatch)


@pytest.mark.parametrize("name", [*SCRIPTS, *TOOLS])
def test_the_first_screen_is_one(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    script = importlib.import_module(name)
    text = said(script, "--help", capsys)
    assert text == said(script, "-h", capsys)
    lines = text.splitlines()
    assert len(lines) <= 45 and max(map(len, lines)) <= 100
    assert any(line.startswith("    python ") for line in lines)
    assert ("more: --help_all" in text) or name in TOOLS


@pytest.mark.parametrize("name", [*SCRIPTS, *TOOLS])
def test_everything_is_told_on_request(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = importlib.import_module(name)
    text = said(script, "--help-all", capsys)
    settings = loaded(script, [], monkeypatch)
    for group in dataclasses.fields(settings):
        kind = type(getattr(settings, group.name))
        for setting, comment in comments(kind).items():
            assert f"  --{setting}" in text
            assert comment, f"{kind.__name__}.{setting} has no comment"


def test_comments_are_found_behind_and_above_a_field() -> None:
    assert comments(Commented) == {"one": "behind", "two": "above, in two lines", "three": ""}
    assert comments(Inherits) == {**comments(Commented), "two": "another", "four": "#4"}


@dataclasses.dataclass
class Commented:
    one: int = 1  # behind

    # above,
    # in two lines
    two: tuple[int, ...] = (
        1,
        2,
    )
    three: int = 3


@dataclasses.dataclass
class Inherits(Commented):
    two: tuple[int, ...] = ()  # another
    four: str = "# no comment"  # #4
