"""Do the commands that the pages show run?"""

import importlib
import shlex
from typing import Any

import pytest

from tests.commands import commands
from tests.conftest import ROOT
from utils import settings

PAGES = ("README.md", "README.zh-CN.md", "RESULTS.md", "docs/*.md")


class ParsedError(Exception):
    """The flags were right; nothing else is to be done."""


def all_commands() -> list[str]:
    pages = [page for pattern in PAGES for page in sorted(ROOT.glob(pattern))]
    shown = {shlex.join(words) for page in pages for words in commands(page)}
    return sorted(line for line in shown if not line.startswith(("python -c", "python -m venv")))


@pytest.mark.parametrize("command", all_commands())
def test_a_shown_command_has_flags_that_its_script_takes(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [word for word in shlex.split(command)[1:] if word != "-m"]
    module = importlib.import_module(words[0].removesuffix(".py"))

    def stop(parsed: Any) -> Any:
        raise ParsedError

    for name in ("load", "load_pruning"):
        if hasattr(module, name):
            read = getattr(settings, name)
            monkeypatch.setattr(module, name, lambda *of, read=read, **by: stop(read(*of, **by)))
    with pytest.raises(SystemExit if "--help" in words else ParsedError):
        module.main(words[1:])
