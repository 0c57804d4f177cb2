"""Which of the installed engines is the fastest for this network, here?

Measured once for a network (its .cfg, not its weights), a way of running it, a machine and the
versions of the libraries; kept in a JSON file that a user can read or delete:
`$XDG_CACHE_HOME/yolov3/engines.json`, by default below `~/.cache`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.backends.base import Engine, Wanted
from utils.backends.kept import cache_folder
from utils.backends.timing import interleaved, machine, spread, version
from utils.errors import InputError
from utils.files import write_text

ROUNDS = 20
SECONDS = 4.0  # of measuring, at most
FIRST_ROUNDS = 5
HOPELESS = 2.0  # times as slow as the fastest in the first rounds: not looked at further
Opener = Callable[[], Engine]


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
    clock: Callable[..., dict[str, list[float]]] = interleaved,
) -> tuple[Engine, dict[str, float], dict[str, str]]:
    """The fastest engine, the milliseconds of each, and why some cannot run this network.

    The milliseconds are the lower quartile: of the rounds, the better half's median, which a
    machine that is busy with other things disturbs least. Raises InputError where none can.
    """
    engines: dict[str, Engine] = {}
    refused: dict[str, str] = {}
    for name, opener in openers.items():
        try:
            engines[name] = opener()
        except InputError as error:
            refused[name] = str(error)
    if not engines:
        raise InputError("; ".join(refused.values()))
    if len(engines) == 1:
        (engine,) = engines.values()
        return engine, {}, refused
    images = wanted.images()

    def measure(names: Sequence[str], rounds: int) -> dict[str, float]:
        runs = {name: lambda engine=engines[name]: engine(images) for name in names}
        return {name: spread(t)[1] for name, t in clock(runs, rounds, seconds=SECONDS).items()}

    times = measure(list(engines), FIRST_ROUNDS)
    hopeful = [name for name in times if times[name] <= HOPELESS * min(times.values())]
    if len(hopeful) > 1:
        times |= measure(hopeful, ROUNDS)
    return engines[min(hopeful, key=lambda name: times[name])], times, refused


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
