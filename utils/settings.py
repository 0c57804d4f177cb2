"""From flags, files and edited defaults to settings, and back to a file.

The groups themselves stand in import_param.py; tools define theirs where they use them. A bad
value is refused here, wherever it comes from, with one line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

import tyro
from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt, Predicate
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from import_param import PruneSettings, Pruning
from utils.errors import InputError
from utils.files import write_text
from utils.version import VERSION

S = TypeVar("S")

RENAMED = {
    "score": "importance",
    "score_batches": "importance_batches",
    "cost_table": "latency_table",
}


def load(settings: type[S], argv: Sequence[str] | None = None, default: S | None = None) -> S:
    """The settings of one script: the defaults, changed by its flags.

    Args:
        settings: a dataclass of groups, such as `import_param.TrainSettings`.
        argv: the flags; None for those of the command line.
        default: what the flags change; None for the defaults as import_param.py has them.

    Raises:
        InputError: a flag is unknown or renamed, or a value (of a flag or an edited default) is
            not of its kind or out of range.
    """
    start = settings() if default is None else default
    _check_kinds(start)
    _refuse_renamed(start, given(argv))
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            loaded = tyro.cli(
                settings, args=argv, default=start, config=(tyro.conf.OmitArgPrefixes,)
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(_one_line(message.getvalue())) from None
    check(loaded)
    return loaded


def load_pruning(argv: Sequence[str] | None = None, strategy: str = "") -> PruneSettings:
    """The settings of a pruning script. strategy: the one that it is for; empty for any."""
    if not strategy:
        return load(PruneSettings, argv)
    own = Pruning(pruned_id=cast(Any, strategy))
    settings = load(PruneSettings, argv, PruneSettings(pruning=own))
    if settings.pruning.strategy != strategy:
        raise InputError(
            f"pruned_id={settings.pruning.pruned_id!r}: expected {strategy!r}, which this script "
            "is for; prune.py takes any"
        )
    return settings


def given(argv: Sequence[str] | None = None) -> frozenset[str]:
    """The names of the settings that flags name, whatever their value: `--no-amp` names `amp`.

    >>> sorted(given(["--lr", "0.1", "--no-amp", "--img-size=416"]))
    ['amp', 'img_size', 'lr']
    """
    flags = sys.argv[1:] if argv is None else argv
    names = (flag[2:].partition("=")[0] for flag in flags if flag.startswith("--"))
    return frozenset(name.replace("-", "_").removeprefix("no_") for name in names)


def check(settings: object) -> None:
    """Check kinds and ranges of all values, and that they do not contradict each other.

    Raises:
        InputError: for the first value that is wrong.
    """
    _check_kinds(settings)
    for group in _groups(settings):
        for name, value, kind in _values(group):
            _check_range(name, value, kind)
        if hasattr(group, "check"):
            try:
                group.check()
            except ValueError as error:
                raise InputError(str(error)) from None


def save(settings: Any, path: str | Path) -> None:
    """Write resolved settings as JSON, with the version of the project that used them."""
    write_text(
        path, json.dumps({"version": VERSION, **dataclasses.asdict(settings)}, indent=2) + "\n"
    )


def restore(settings: type[S], values: Mapping[str, Any]) -> S:
    """The settings that `save` wrote or a checkpoint holds; what they lack has its default.

    A setting's name is its own in all groups of a script, so one that an older version had in
    another group, or under another name, is found.
    """
    stored = {
        RENAMED.get(name, name): tuple(value)
        if isinstance(value, list)
        else value  # JSON has no tuples
        for group in values.values()
        if isinstance(group, Mapping)
        for name, value in group.items()
    }
    start: Any = settings()
    groups = {
        field.name: dataclasses.replace(
            group, **{f.name: stored[f.name] for f in dataclasses.fields(group) if f.name in stored}
        )
        for field in dataclasses.fields(start)
        for group in [getattr(start, field.name)]
    }
    restored: S = dataclasses.replace(start, **groups)
    check(restored)
    return restored


def _groups(settings: Any) -> list[Any]:
    return [getattr(settings, field.name) for field in dataclasses.fields(settings)]


def _values(group: Any) -> Iterator[tuple[str, Any, Any]]:
    """The name, value and type of each setting of a group."""
    kinds = get_type_hints(type(group), include_extras=True)
    for field in dataclasses.fields(group):
        yield field.name, getattr(group, field.name), kinds[field.name]


def _check_kinds(settings: object) -> None:
    for group in _groups(settings):
        for name, value, kind in _values(group):
            try:
                check_type(value, kind, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
            except TypeCheckError:
                raise InputError(f"{name}={value!r}: expected {_kind_name(kind)}") from None


def _kind_name(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def _check_range(name: str, value: Any, kind: Any) -> None:
    if isinstance(value, tuple):
        for item in value:
            _check_range(name, item, get_args(kind)[0])
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{name}={value!r}: expected a finite number")
    limits = _limits(kind)
    if not all(_holds(limit, value) for limit in limits):
        raise InputError(f"{name}={value!r}: expected {_wanted(limits)}")


def _limits(kind: Any) -> list[Any]:
    """The limits in an annotated type, and where they need words, these as a string."""
    metadata = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    return [
        limit
        for item in metadata
        for limit in (item if isinstance(item, GroupedMetadata) else [item])
    ]


def _holds(limit: Any, value: Any) -> bool:
    match limit:
        case Ge(ge=least):
            return bool(value >= least)
        case Gt(gt=below):
            return bool(value > below)
        case Le(le=most):
            return bool(value <= most)
        case Lt(lt=above):
            return bool(value < above)
        case Predicate(func=holds):
            return bool(holds(value))
    return True


def _wanted(limits: Sequence[Any]) -> str:
    """The limits in words: `from 0 to below 1`."""
    words = [limit for limit in limits if isinstance(limit, str)]
    if words:
        return str(words[0])
    low, high = "", ""
    for limit in limits:
        match limit:
            case Ge(ge=least):
                low = f"from {least:g}"
            case Gt(gt=below):
                low = f"above {below:g}"
            case Le(le=most):
                high = f"to {most:g}"
            case Lt(lt=above):
                high = f"to below {above:g}"
    if low and high:
        return f"{low} {high}"
    return low.replace("from", "at least").replace("above", "more than") + high.replace(
        "to", "at most"
    )


def _refuse_renamed(settings: object, names: frozenset[str]) -> None:
    own = {name for group in _groups(settings) for name, _, _ in _values(group)}
    for old, new in RENAMED.items():
        if old in names and new in own:  # other scripts never had it
            raise InputError(f"--{old}: is called --{new} now")


def _one_line(box: str) -> str:
    """The first part of tyro's boxed message, and the flags that it proposes, in one line."""
    lines = [line.strip("╭╮╰╯│ ") for line in box.splitlines()[1:]]
    parts = [
        list(part)
        for is_rule, part in groupby(lines, lambda line: not line.strip("─-"))
        if not is_rule
    ]
    said = " ".join(parts[0]).rstrip(".")
    near = [line.split()[0] for part in parts[1:] for line in part if line.startswith("--")]
    return f"{said}; see {', '.join(near)}" if near else f"{said}; --help lists the flags"
