"""Which of the installed engines, and in which precision, is the fastest for this network, here?

Measured once for a network (its .cfg, not its weights), what it is opened for, a machine and the
versions of the libraries. The answer is kept in a JSON file that a user can read or delete:
`engines.json` in the cache folder (`utils.files.paths.cache_folder`).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from utils.backends.base import Engine, EngineOptions
from utils.console.progress import track
from utils.errors import InputError
from utils.files.cache import fingerprint, note
from utils.files.paths import cache_folder, exists
from utils.files.reading import read_text
from utils.files.writing import write_text
from utils.settings.schema import shown, structured
from utils.timing import interleaved, spread, to_its_end, version

Opener = Callable[[], Engine]
Meter = Callable[..., dict[str, list[float]]]  # as `utils.timing.interleaved`


@dataclass(frozen=True)
class AutoOptions:
    """How long engines are compared."""

    first_rounds: int = 5  # rounds after which an engine that is far slower is given up
    hopeless_ratio: float = 2.0  # far slower: this many times the other's milliseconds
    rounds: int = 20  # rounds of the comparison of the others
    seconds: float = 3.0  # at most, about, of each of the two measurements


OPTIONS = AutoOptions()
MAX_MEASUREMENTS = 500  # that are kept; of more, the oldest go
MAX_BYTES = 2**20  # of the file that holds them


@dataclass(frozen=True)
class Measurement:
    """Which engine was the fastest, and what that holds for; the latter for people who read it."""

    chosen: str  # an engine, and its precision where that was `auto`
    milliseconds: dict[str, Annotated[float, Ge(0)]]  # by engine, as `chosen`
    size: tuple[int, ...]  # width and height of the input in pixels
    precision: str
    batch: int
    machine: str
    versions: dict[str, str]  # by package


def open_fastest(
    openers: Mapping[str, Opener],
    cfg: str,
    options: EngineOptions,
    packages: Iterable[str],
    machine: str,
) -> tuple[Engine, str]:
    """The fastest engine, and a line that says which it is and how fast each was.

    Args:
        openers: what opens an engine, by its name, with its precision where that is open, too.
        cfg: the network's text, which the measurement holds for.
        options: what the engines are opened for.
        packages: the libraries whose versions the measurement holds for.
        machine: in words.

    Raises:
        InputError: no engine can run the network.
    """
    versions = {package: version(package) for package in sorted(packages)}
    run = (options.size, options.precision, options.batch, options.threads)
    key = fingerprint((cfg, run, machine, list(versions.items())))
    path = cache_folder() / "engines.json"
    if (known := read_measurements(path).get(key)) and known.chosen in openers:
        line = f"engine: {_line(known.chosen, known.milliseconds)}, as measured before"
        # With other weights it may be refused, as int8 is that loses too much: then it is told.
        with contextlib.suppress(InputError):
            return openers[known.chosen](), line
    chosen, engine, milliseconds, refused = fastest(openers, options)
    line = f"engine: {_line(chosen, milliseconds)}"
    if refused:
        line += f"; cannot run it: {', '.join(refused)}"
    if not milliseconds:
        return engine, line
    measurement = Measurement(
        chosen,
        {name: round(value, 3) for name, value in milliseconds.items()},
        options.size,
        options.precision,
        options.batch,
        machine,
        versions,
    )
    try:  # beside what other processes measured meanwhile
        write_measurements(path, read_measurements(path) | {key: measurement})
    except (InputError, OSError) as error:
        note(f"not kept for the next time: {error}")
    return engine, line


def fastest(
    openers: Mapping[str, Opener], options: EngineOptions, meter: Meter = interleaved
) -> tuple[str, Engine, dict[str, float], dict[str, str]]:
    """The fastest engine and its name, the milliseconds of each, and why some cannot run here.

    One after another is opened and takes turns with the fastest one so far, so that no more than
    two are in memory. All milliseconds are scaled to what they would have been in the last
    comparison: the engine that took part in two of them says how fast the machine was in each.

    Raises:
        InputError: no engine can run the network.
    """
    best: Engine | None = None
    chosen = ""
    milliseconds: dict[str, float] = {}
    refused: dict[str, str] = {}
    engines = track(openers.items(), "choosing the engine")
    for name, opener in engines:
        try:
            challenger = opener()
        except InputError as error:
            refused[name] = str(error)
            continue
        if best is None:
            chosen, best = name, challenger
            continue
        best_ms, challenger_ms = compare(best, challenger, options, meter)
        scale = best_ms / milliseconds.get(chosen, best_ms)
        milliseconds = {other: ms * scale for other, ms in milliseconds.items()}
        milliseconds |= {chosen: best_ms, name: challenger_ms}
        if challenger_ms < best_ms:
            chosen, best = name, challenger
        del challenger  # the slower one leaves memory before the next is opened
    if best is None:
        raise InputError("; ".join(refused.values()))
    return chosen, best, milliseconds, refused


def compare(
    first: Engine, second: Engine, options: EngineOptions, meter: Meter
) -> tuple[float, float]:
    """The milliseconds of two engines that take turns.

    The lower quartile counts: the median of the better half of the rounds, which a machine that
    is busy otherwise disturbs least.
    """
    images = options.random_images()
    runs = {"first": to_its_end(first, images), "second": to_its_end(second, images)}

    def measure(rounds: int) -> tuple[float, float]:
        times = meter(runs, rounds, seconds=OPTIONS.seconds)
        return spread(times["first"])[1], spread(times["second"])[1]

    times = measure(OPTIONS.first_rounds)
    hopeless = max(times) > OPTIONS.hopeless_ratio * min(times)
    return times if hopeless else measure(OPTIONS.rounds)


def read_measurements(path: Path) -> dict[str, Measurement]:
    """What was measured before, by key; a damaged file is told and counts as none."""
    if not exists(path):
        return {}
    try:
        return _measurements(json.loads(read_text(path, MAX_BYTES)))
    except (InputError, ValueError, RecursionError) as error:
        note(f"{path}: damaged and thrown away: {error}")
    with contextlib.suppress(OSError):
        path.unlink()
    return {}


def _measurements(content: object) -> dict[str, Measurement]:
    """What a file holds, checked."""
    if not isinstance(content, dict):
        raise InputError("expected measurements by key")
    measurements = {}
    for key, values in content.items():
        if not isinstance(values, dict):
            raise InputError(f"{shown(key)}: expected a measurement")
        measurements[key] = structured(Measurement, values, shown(key))
        if measurements[key].chosen not in measurements[key].milliseconds:
            raise InputError(
                f"{shown(key)}: expected `milliseconds` of the engine that is `chosen`"
            )
    return measurements


def write_measurements(path: Path, measurements: Mapping[str, Measurement]) -> None:
    """Write what `read_measurements` reads, the newest last."""
    newest = list(measurements.items())[-MAX_MEASUREMENTS:]
    content = {key: asdict(measurement) for key, measurement in newest}
    write_text(path, json.dumps(content, indent=2) + "\n")


def _line(chosen: str, milliseconds: Mapping[str, float]) -> str:
    if not milliseconds:
        return f"{chosen}, the only one that is installed"
    others = sorted((value, name) for name, value in milliseconds.items() if name != chosen)
    rest = ", ".join(f"{name} {value:.1f}" for value, name in others)
    return f"{chosen}, {milliseconds[chosen]:.1f} ms ({rest})"
