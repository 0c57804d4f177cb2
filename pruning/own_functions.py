"""Which function does FILE.py:FUNCTION name? A user's own importance or strategy."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from utils.errors import InputError


@dataclass(frozen=True)
class OwnFunction:
    """A function of a user's file; what goes wrong in it is told with the file and the line."""

    path: Path
    function: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        """Call it.

        Raises:
            InputError: it raised anything.
        """
        try:
            return self.function(*args)
        except Exception as error:
            raise self.error(_told(error), error) from error

    @property
    def parameters(self) -> int:
        """How many arguments it takes by their place."""
        by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = inspect.signature(self.function).parameters.values()
        return sum(each.kind in by_place for each in parameters)

    def error(self, message: str, error: BaseException | None = None) -> InputError:
        """An error that names the file and a line: where `error` was raised, or the function's."""
        first = self.function.__code__.co_firstlineno if inspect.isfunction(self.function) else 1
        line = _line(self.path, error) or first
        return InputError(f"{self.path}:{line}: {self.function.__name__}: {message}")


@lru_cache(maxsize=8)
def own_function(name: str, setting: str) -> OwnFunction:
    """The function that FILE.py:FUNCTION names.

    Args:
        name: such as `my.py:entropy`.
        setting: that holds it, for messages.

    Raises:
        InputError: the file cannot be read or run, or has no such function.
    """
    text, _, function_name = name.rpartition(":")
    path = Path(text)
    if not path.is_file():
        raise InputError(f"{setting}={name!r}: {path}: no such file")
    spec = importlib.util.spec_from_file_location(f"own_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses of the file look for themselves there
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise InputError(f"{error.filename or path}:{error.lineno}: {error.msg}") from error
    except Exception as error:
        line = _line(path, error) or 1
        raise InputError(f"{path}:{line}: {_told(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        there = [n for n, _ in inspect.getmembers(module, inspect.isfunction) if n[0] != "_"]
        has = f"it has {', '.join(there)}" if there else "it has none"
        raise InputError(f"{setting}={name!r}: expected a function {function_name!r}; {has}")
    return OwnFunction(path, function)


def _told(error: Exception) -> str:
    message = " ".join(str(error).split())
    return message if isinstance(error, InputError) else f"{type(error).__name__}: {message}"


def _line(path: Path, error: BaseException | None) -> int:
    """The last line of a file on the way to an error; 0 where there is none."""
    frames = traceback.extract_tb(error.__traceback__) if error else []
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path]
    return (lines[-1] if lines else 0) or 0
