"""What does `--help` print? The few flags that matter first; `--help_all` prints every one."""

from __future__ import annotations

import dataclasses
import inspect
import io
import shutil
import textwrap
import tokenize
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from utils.settings.schema import fields, range_in_words

FLAGS = ("help", "help_all")
WIDTHS = (60, 100)  # columns of the text, at least and at most
COLUMN = 24  # where the meaning of a flag begins
EDITING = "Flags have the names of import_param.py, where an edited default holds without a flag."
KINDS = {int: "N", float: "X", str: "TEXT"}


def help_text(settings: Any, about: str, first: Sequence[str], everything: bool = False) -> str:
    """The text for `--help`, or with `everything` for `--help_all`.

    Args:
        settings: a dataclass of groups, with the defaults to tell.
        about: the script's docstring: what it does, and below it, indented, whole commands.
        first: the settings that most people need; none for those of the first group.
        everything: tell all settings, group by group, and the docstring in whole.
    """
    width = min(max(shutil.get_terminal_size().columns, WIDTHS[0]), WIDTHS[1])
    paragraphs = inspect.cleandoc(about or type(settings).__doc__ or "").split("\n\n")
    flags = dict(_flags(settings, width, everything))
    if everything:
        lines = [*paragraphs, *_groups(settings, flags)]
    else:
        examples = next((each for each in paragraphs[1:] if each.startswith("    ")), "")
        names = first or [name for name, _, _ in fields(_first_group(settings))]
        told = "\n".join(flags[name] for name in names)
        lines = [paragraphs[0], *([examples] if examples else []), told]
        if len(flags) > len(names):
            lines.append(
                textwrap.fill(f"{len(flags) - len(names)} more: --help_all. {EDITING}", width)
            )
    return "\n\n".join(lines) + "\n"


def comments(group: type) -> dict[str, str]:
    """The comment of each field of a dataclass: at the end of its line, or above it.

    >>> from import_param import Training
    >>> comments(Training)["epochs"]
    'passes over the training photos'
    """
    meanings: dict[str, str] = {}
    for kind in reversed(group.__mro__):
        if dataclasses.is_dataclass(kind):
            meanings |= _own_comments(kind)
    return meanings


def _own_comments(kind: type) -> dict[str, str]:
    source = textwrap.dedent(inspect.getsource(kind))
    lines = source.splitlines()
    told = {
        token.start[0]: token.string[1:].strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    meanings = {}
    for number, line in enumerate(lines, 1):
        name = line.strip().partition(":")[0]
        if line.startswith("    ") and name in kind.__annotations__ and name not in meanings:
            above: list[str] = []
            while lines[number - 2 - len(above)].strip().startswith("#"):
                above.insert(0, told[number - 1 - len(above)])
            meanings[name] = told.get(number) or " ".join(above)
    return meanings


def _first_group(settings: Any) -> Any:
    return getattr(settings, dataclasses.fields(settings)[0].name)


def _groups(settings: Any, flags: dict[str, str]) -> Iterator[str]:
    """A paragraph for each group: what it is about, and its flags."""
    heads = comments(type(settings))
    for field in dataclasses.fields(settings):
        group = getattr(settings, field.name)
        head = heads[field.name] or inspect.cleandoc(type(group).__doc__ or field.name)
        yield "\n".join([head, *(flags[name] for name, _, _ in fields(group))])


def _flags(settings: Any, width: int, with_range: bool) -> Iterator[tuple[str, str]]:
    """The name and the lines of each flag."""
    for field in dataclasses.fields(settings):
        group = getattr(settings, field.name)
        meanings = comments(type(group))
        for name, value, kind in fields(group):
            limits = range_in_words(kind) if with_range else ""
            notes = "; ".join(filter(None, [_default(value, meanings[name]), limits]))
            meaning = f"{meanings[name]} ({notes})" if notes else meanings[name]
            yield name, _flag(_head(name, value, kind), meaning, width)


def _head(name: str, value: Any, kind: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}, --no_{name}" if value else f"--{name}"
    return f"--{name} {_metavar(kind)}"


def _metavar(kind: Any) -> str:
    """What is to stand behind a flag.

    >>> _metavar(tuple[float, ...]), _metavar(Literal["onnx", "ncnn"])
    ('X ...', 'onnx|ncnn')
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _metavar(inner[0])
    if origin is Literal:
        return "|".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return "|".join(map(_metavar, inner))
    if origin is tuple:
        return f"{_metavar(inner[0])} ..."
    return KINDS[kind]


def _default(value: Any, meaning: str) -> str:
    """A default, where the meaning does not tell it.

    >>> [_default(value, "0 = any") for value in (True, False, (1, 2), 0.5, 0)]
    ['on', '', '1 2', '0.5', '']
    """
    if isinstance(value, bool):
        return "on" if value else ""
    if isinstance(value, tuple):
        shown = " ".join(map(str, value))
    else:
        shown = f"{value:g}" if isinstance(value, float) else str(value)
    return "" if f"{shown} = " in meaning else shown


def _flag(head: str, meaning: str, width: int) -> str:
    """A flag and beside it, or below it where it is long, what it means."""
    indent = " " * COLUMN
    fits = len(head) + 4 <= COLUMN
    text = textwrap.fill(
        meaning, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return f"  {head}{text[len(head) + 2 :]}" if fits else f"  {head}\n{text}"
