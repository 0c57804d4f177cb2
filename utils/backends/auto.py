"""Which of the installed engines is the fastest for this network, here?

Measured once for a network (its .cfg, not its weights), a way of running it, a machine and the
versions of the libraries; kept in a JSON file that a user can read or delete:
`$XDG_CACHE_HOME/yolov3/engines.json`, by default below `~/.cache`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from utils.backends.base import Engine, Wanted
from utils.backends.cache import cache_folder
from utils.errors import InputError
from utils.files import write_text
from utils.timing import interleaved, machine, spread, version

ROUNDS = 20
SECONDS = 3.0  # of measuring two of them, at most
FIRST_ROUNDS = 5
HOPELESS = 2.0  # times as slow as the other in the first rounds: not looked at further
Opener = Callable[[], Engine]
Clock = Callable[..., dict[str, list[float]]]  # as `utils.timing.interleaved`


def cache_file() -> Path:
    return cache_folder() / "engines.json"


def key(cfg: str, wanted: Wanted, where: str, packages: Sequence[str]) -> str:
    """What a measurement holds for. where: the machine in words."""
    versions = [f"{package} {version(package)}" for package in sorted(set(packages))]
    parts = [cfg, wanted.size, wanted.precision, wanted.batch, wanted.threads, where, versions]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def remembered(identity: str, path: Path) -> dict[str, Any] | None:
    """What was measured before; nothing where the file is missing, damaged or another's."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))[identity]
        return found if isinstance(found["chosen"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(identity: str, found: Mapping[str, Any], path: Path) -> str:
    """Add a measurement to the file; empty, or why that was not possible."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = {}
    content = content if isinstance(content, dict) else {}
    try:
        write_text(path, json.dumps({**content, identity: found}, indent=2) + "\n")
    except (InputError, OSError) as error:  # no such folder, or no room
        return f"; not kept: {error}"
    return ""


def fastest(
    openers: Mapping[str, Opener],
    wanted: Wanted,
    clock: Clock = interleaved,
) -> tuple[Engine, dict[str, float], dict[str, str]]:
    """The fastest engine, the milliseconds of each, and why some cannot run this network.

    One after another is opened and takes turns with the fastest one so far, so that no more than
    two are in memory. The milliseconds of all are as if measured with the last one: its turns say
    how fast the machine was. Raises InputError where no engine can run it.
    """
    best: Engine | None = None
    times: dict[str, float] = {}
    refused: dict[str, str] = {}
    for name, opener in openers.items():
        try:
            other = opener()
        except InputError as error:
            refused[name] = str(error)
            continue
        if best is None:
            best = other
            continue
        mine, its = compare(best, other, wanted, clock)
        before = times.get(best.name, mine)
        times = {name: value * mine / before for name, value in times.items()}
        times |= {best.name: mine, name: its}
        if its < mine:
            best = other
        del other  # the slower one, before the next is opened
    if best is None:
        raise InputError("; ".join(refused.values()))
    return best, times, refused


def compare(one: Engine, other: Engine, wanted: Wanted, clock: Clock) -> tuple[float, float]:
    """The milliseconds of two engines that take turns: the lower quartile, which is the median of
    the better half of the rounds, and what a machine that is busy otherwise disturbs least."""
    images = wanted.images()
    runs = {"one": partial(one, images), "other": partial(other, images)}

    def measure(rounds: int) -> tuple[float, float]:
        found = clock(runs, rounds, seconds=SECONDS)
        return spread(found["one"])[1], spread(found["other"])[1]

    first = measure(FIRST_ROUNDS)
    return first if max(first) > HOPELESS * min(first) else measure(ROUNDS)


def open_fastest(
    openers: Mapping[str, Opener],
    cfg: str,
    wanted: Wanted,
    packages: Sequence[str],
    where: str = "",
) -> tuple[Engine, str]:
    """The engine to use, and a line that says which and why."""
    where, path = where or machine(), cache_file()
    identity = key(cfg, wanted, where, packages)
    known = remembered(identity, path)
    if known is not None and known["chosen"] in openers:
        engine = openers[known["chosen"]]()
        return (
            engine,
            f"engine: {_line(known['chosen'], known['milliseconds'])}, as measured before",
        )
    engine, times, refused = fastest(openers, wanted)
    line = f"engine: {_line(engine.name, times)}"
    if refused:
        line += f"; cannot run it: {', '.join(refused)}"
    if not times:
        return engine, line
    found = {
        "chosen": engine.name,
        "milliseconds": {name: round(value, 3) for name, value in times.items()},
        "size": wanted.size,
        "precision": wanted.precision,
        "batch": wanted.batch,
        "machine": where,
        "versions": {package: version(package) for package in sorted(set(packages))},
    }
    return engine, line + remember(identity, found, path)


def _line(chosen: str, times: Mapping[str, float]) -> str:
    if not times:
        return f"{chosen}, the only one that is installed"
    others = sorted((value, name) for name, value in times.items() if name != chosen)
    rest = ", ".join(f"{name} {value:.1f}" for value, name in others)
    return f"{chosen}, {times[chosen]:.1f} ms ({rest})"
