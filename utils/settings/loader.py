"""From flags, files and edited defaults to settings, and back to a file.

The groups themselves stand in import_param.py; tools define theirs where they use them. A bad
value is refused here, wherever it comes from, with one line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any, TypeVar, cast

import tyro

from import_param import PruneSettings, Pruning
from utils.errors import InputError
from utils.files.writing import write_text
from utils.settings.help import FLAGS, help_text
from utils.settings.schema import check_fields, check_kinds, fields
from utils.version import VERSION

S = TypeVar("S")

RENAMED = {
    "backend": "engine",
    "engines": "engine",
    "precisions": "precision",
    "batches": "batch_size",
    "cfgs": "cfg",
    "seeds": "seed",
    "score": "importance",
    "score_batches": "importance_batches",
    "cost_table": "latency_table",
}
SHORT = {
    f"--{flag}": ("--monitor", monitor)
    for flag, monitor in (("visdom", "visdom"), ("no_visdom", "none"), ("no-visdom", "none"))
}
PRUNING_FLAGS = (
    *("weights", "data", "pruned_id", "percent", "percent_of", "target_ms", "target_speedup"),
    *("latency_batch_size", "importance", "engine", "name"),
)


def load(
    settings: type[S],
    argv: Sequence[str] | None = None,
    default: S | None = None,
    *,
    about: str | None = None,
    first: Sequence[str] = (),
) -> S:
    """The settings of one script: the defaults, changed by its flags.

    Args:
        settings: a dataclass of groups, such as `import_param.TrainSettings`.
        argv: the flags; None for those of the command line.
        default: what the flags change; None for the defaults as import_param.py has them.
        about: the script's docstring, for `--help`.
        first: the settings that `--help` tells; see `utils.settings.help`.

    Raises:
        InputError: a flag is unknown or renamed, or a value (of a flag or an edited default) is
            not of its kind or out of range.
    """
    start = settings() if default is None else default
    if hasattr(start, "monitoring"):
        argv = [part for flag in _flags(argv) for part in SHORT.get(flag, (flag,))]
    _check_kinds(start)
    names = given(argv)
    if names & set(FLAGS) or "-h" in _flags(argv):
        print(help_text(start, about or "", first, everything="help_all" in names), end="")
        raise SystemExit(0)
    _refuse_renamed(start, names)
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            loaded = tyro.cli(
                settings,
                args=argv,
                default=start,
                config=(tyro.conf.OmitArgPrefixes,),
                add_help=False,  # the text is ours
                use_underscores=True,  # shown as import_param.py has them; hyphens are taken, too
            )
    except SystemExit:
        raise InputError(_one_line(message.getvalue())) from None
    check(loaded)
    return loaded


def load_pruning(
    argv: Sequence[str] | None = None, strategy: str = "", about: str | None = None
) -> PruneSettings:
    """The settings of a pruning script.

    Args:
        argv: the flags; None for those of the command line.
        strategy: the one that the script is for; empty for any.
        about: the script's docstring.
    """
    if not strategy:
        return load(PruneSettings, argv, about=about, first=PRUNING_FLAGS)
    own = Pruning(pruned_id=cast(Any, strategy))
    first = [name for name in PRUNING_FLAGS if name != "pruned_id"]
    settings = load(PruneSettings, argv, PruneSettings(pruning=own), about=about, first=first)
    if settings.pruning.strategy != strategy:
        raise InputError(
            f"pruned_id={settings.pruning.pruned_id!r}: expected {strategy!r}, which this script "
            "is for; prune.py takes any"
        )
    return settings


def given(argv: Sequence[str] | None = None) -> frozenset[str]:
    """The names of the settings that flags name, whatever their value: `--no_amp` names `amp`.

    >>> sorted(given(["--lr", "0.1", "--no_amp", "--img-size=416"]))
    ['amp', 'img_size', 'lr']
    """
    names = (flag[2:].partition("=")[0] for flag in _flags(argv) if flag.startswith("--"))
    return frozenset(name.replace("-", "_").removeprefix("no_") for name in names)


def _flags(argv: Sequence[str] | None) -> Sequence[str]:
    return sys.argv[1:] if argv is None else argv


def check(settings: object) -> None:
    """Check kinds and ranges of all values, and that they do not contradict each other.

    Raises:
        InputError: for the first value that is wrong.
    """
    _check_kinds(settings)
    for group in _groups(settings):
        check_fields(group)
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


def _check_kinds(settings: object) -> None:
    for group in _groups(settings):
        check_kinds(group)


def _refuse_renamed(settings: object, names: frozenset[str]) -> None:
    own = {name for group in _groups(settings) for name, _, _ in fields(group)}
    for old, new in RENAMED.items():
        if old in names and new in own:  # other scripts never had it
            raise InputError(f"--{old}: is called --{new} now")


def _one_line(box: str) -> str:
    """The first part of tyro's boxed message, and the flags that it proposes, in one line."""
    lines = [line.strip("╭╮╰╯│ ─-") for line in box.splitlines()[1:]]  # some lines are rules
    said = " ".join(takewhile(bool, dropwhile(lambda line: not line, lines))).rstrip(".")
    near = re.findall(r"^[^\w-]{4,6}(--\w+)", box, re.MULTILINE)
    return f"{said}; see {', '.join(near)}" if near else f"{said}; --help_all lists the flags"
