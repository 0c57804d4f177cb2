"""Is whatever malformed file one clear line? Sound inputs are changed at random, and read.

    python -m tools.fuzz --format cfg coco --inputs 100000 --seconds 60
    python -m tools.fuzz --format cfg --seed 3 --first 4711 --inputs 1 --keep runs/fuzz

Input number n of a format and a seed is always the same. A fault is anything but a return or an
InputError: another exception, a warning of Python or a line of a library that names no file, more
than `slow` seconds or `memory_mb`, a hang, and the end of the process.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from import_param import Count, Positive, Whole
from utils import errors
from utils.errors import InputError
from utils.settings.loader import load

if sys.platform != "win32":
    import resource
if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from tools.fuzz_targets import Target

MakeTarget = Callable[[], "Target"]  # a function of a module, which a new process can import
MOST_FAULTS = 20  # of a format that are told
WATCH = 0.2  # seconds between looks at the process that works
ROOM = 4 * 2**30  # bytes of memory for a reader before it is refused any


@dataclass(frozen=True)
class Fuzz:
    """What is fuzzed, and for how long."""

    format: tuple[str, ...] = ()  # see tools/fuzz_targets.py; none = all
    seed: Whole = 0  # of everything random
    first: Whole = 0  # number of the first input
    inputs: Count = 10_000  # of each format, at most
    seconds: Positive = 60.0  # for each format, at most
    slow: Positive = 2.0  # seconds that an input may take
    memory_mb: Positive = 300.0  # by which an input may let the process grow
    hang: Positive = 20.0  # seconds after which the process that reads it is ended
    keep: str = ""  # folder for inputs that led to a fault; empty = none


@dataclass(frozen=True)
class FuzzSettings:
    """Read malformed files of every format, and tell what is no clear line."""

    fuzz: Fuzz = Fuzz()


@dataclass(frozen=True)
class Fault:
    """What an input led to.

    Attributes:
        number: of the input.
        kind: in a word or two, such as the exception's name; faults of a kind are told once.
        detail: a traceback, or what was measured.
        data: the input.
    """

    number: int
    kind: str
    detail: str
    data: bytes = field(repr=False)


def input_of(target: Target, format: str, seed: int, number: int) -> bytes:
    """An input, by its number."""
    return target.make(random.Random(f"{format} {seed} {number}"))


class Reader:
    """Reads inputs one by one, and says which led to a fault."""

    def __init__(self, target: Target, folder: Path, settings: Fuzz) -> None:
        self.target = target
        self.path = folder / target.file
        self.settings = settings
        self.warned: list[str] = []

    def fault(self, number: int, data: bytes) -> Fault | None:
        """What reading an input led to; None for a return or an InputError."""
        self.path.write_bytes(data)
        _forget_peak()
        before, start = _peak(), time.monotonic()
        raised = self._use()
        seconds, grown = time.monotonic() - start, (_peak() - before) / 2**20
        if raised:
            return Fault(number, raised[0], raised[1], data)
        if self.warned:
            told = self.warned[0]
            kind = re.sub(r"\d+", "#", told[:60])
            return Fault(number, f"told without a place: {kind}", told, data)
        if seconds > self.settings.slow:
            return Fault(number, "slow", f"{seconds:.1f} s", data)
        if grown > self.settings.memory_mb:
            return Fault(number, "large", f"{grown:.0f} MB", data)
        return None

    def _use(self) -> tuple[str, str] | None:
        """The exception's kind and its traceback."""
        self.warned.clear()
        try:
            with warnings.catch_warnings(record=True) as caught, _quiet():
                warnings.simplefilter("always")
                self.target.use(self.path)
        except InputError as error:
            message = str(error)
            if "\n" in message or len(message) > 2000:
                return "no single short line", message[:2000]
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(last.filename).name}:{last.lineno}"
            return f"{type(error).__name__} at {place}", traceback.format_exc()[-3000:]
        self.warned += [str(warning.message) for warning in caught]
        return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what our own code says to the user."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _peak() -> int:
    """Bytes of memory that this process had at most, since `_forget_peak`."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # Linux has it
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def faults_of(
    make: MakeTarget, format: str, numbers: Iterable[int], settings: Fuzz
) -> Iterator[Fault]:
    """Read inputs in this process; the faults."""
    target = make()
    with tempfile.TemporaryDirectory() as folder:
        reader = Reader(target, Path(folder), settings)
        for number in numbers:
            fault = reader.fault(number, input_of(target, format, settings.seed, number))
            if fault:
                yield fault


def _work(
    make: MakeTarget, format: str, first: int, settings: Fuzz, now: Any, faults: Connection
) -> None:
    """In a process of its own: read inputs until the time is up.

    now: the number of the input that is being read, and since when, for whoever watches.
    """
    end = time.monotonic() + settings.seconds
    limit = _address_space() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def numbers() -> Iterator[int]:
        for number in range(first, settings.first + settings.inputs):
            now[0], now[1] = number, time.monotonic()
            if time.monotonic() > end:
                return
            yield number
        now[0] = settings.first + settings.inputs

    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), sys.stderr.fileno())  # of libraries in C
        for fault in faults_of(make, format, numbers(), settings):
            faults.send(fault)
        now[1] = 0.0
        said.seek(0)
        if lines := said.read(2000):
            text = lines.decode(errors="replace")
            faults.send(Fault(int(now[0]), "a library says", text, b""))
    faults.send(None)


def _address_space() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]
    return int(pages) * resource.getpagesize()


def fuzz(
    make: MakeTarget, format: str, settings: Fuzz, tell: Callable[[str], None] = print
) -> list[Fault]:
    """Fuzz a format in a process of its own, watched from this one.

    Returns:
        One fault of each kind.
    """
    now = get_context("spawn").Array("d", 2, lock=False)
    faults: list[Fault] = []
    start, first = time.monotonic(), settings.first
    while first < settings.first + settings.inputs:
        left = settings.seconds - (time.monotonic() - start)
        if left <= 0:
            break
        ended = _watched(make, format, first, replace(settings, seconds=left), now)
        faults += ended.faults
        if not ended.how:
            break
        number = int(now[0])  # of the input that ended the process: go on behind it
        data = input_of(make(), format, settings.seed, number)
        faults.append(Fault(number, ended.how, ended.how, data))
        first = number + 1
    done, seconds = int(now[0]) - settings.first, time.monotonic() - start
    tell(f"{format}: {done} inputs in {seconds:.0f} s, {len(faults)} faults")
    return _tell_kinds(format, settings, faults, tell)


def _tell_kinds(
    format: str, settings: Fuzz, faults: Sequence[Fault], tell: Callable[[str], None]
) -> list[Fault]:
    """Tell one fault of each kind, and how to see it again."""
    kinds = {fault.kind: fault for fault in reversed(faults)}
    counts = Counter(fault.kind for fault in faults)
    for kind, fault in list(kinds.items())[:MOST_FAULTS]:
        again = f"--format {format} --seed {settings.seed} --first {fault.number} --inputs 1"
        tell(f"  {kind} ({counts[kind]} times): python -m tools.fuzz {again}")
        tell("\n".join(f"    {line}" for line in fault.detail.splitlines()[-12:]))
        if settings.keep:
            _keep(Path(settings.keep), format, settings.seed, fault)
    return list(kinds.values())


def _watched(make: MakeTarget, format: str, first: int, settings: Fuzz, now: Any) -> _Ended:
    """Fuzz from an input on in a new process, until it ends."""
    context = get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    now[0], now[1] = first, 0.0
    process = context.Process(target=_work, args=(make, format, first, settings, now, sending))
    process.start()
    sending.close()
    return _watch(process, receiving, now, settings.hang)


@dataclass
class _Ended:
    """How a process ended, empty where it came to its end, and the faults until then."""

    faults: list[Fault]
    how: str = ""


def _watch(process: Any, receiving: Connection, now: Any, hang: float) -> _Ended:
    """Wait for the end of a process, and end it where it hangs."""
    ended = _Ended([])
    while True:
        try:
            if receiving.poll(WATCH):
                fault = receiving.recv()
                if fault is None:
                    process.join()
                    return ended
                ended.faults.append(fault)
                continue
        except EOFError:  # it is gone
            process.join()
            code = process.exitcode
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            ended.how = f"the process ended: {name}"
            return ended
        if now[1] and time.monotonic() - now[1] > hang:
            process.kill()
            process.join()
            ended.how = "hang"
            return ended


def _keep(folder: Path, format: str, seed: int, fault: Fault) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{format}-{seed}-{fault.number}"
    (folder / name).write_bytes(fault.data)
    (folder / f"{name}.txt").write_text(
        f"{fault.kind}\n{fault.detail}\n", encoding="utf-8", errors="replace"
    )


def main(argv: list[str] | None = None) -> None:
    """Fuzz what the flags name; exit code 1 where there was a fault."""
    settings = load(FuzzSettings, argv, about=__doc__).fuzz
    if sys.platform != "linux":
        raise InputError("tools.fuzz: expected Linux, whose /proc says what a reader takes")
    from tools.fuzz_targets import TARGETS

    formats = settings.format or tuple(TARGETS)
    if unknown := set(formats) - TARGETS.keys():
        raise InputError(f"format={min(unknown)!r}: expected one of {', '.join(TARGETS)}")
    faults = [fault for name in formats for fault in fuzz(TARGETS[name], name, settings)]
    if faults:
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(errors.run(main))
