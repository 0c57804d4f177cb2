"""What is going on, and how long will it take? All that scripts tell goes through here.

In a terminal a wait is a bar on stderr, which goes when the wait is over. Elsewhere, as in a file
or a pipe, it is a plain line now and then, so that a log holds neither bars nor carriage returns.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sized
from typing import Any, ClassVar, Self, TypeVar

T = TypeVar("T")

DELAY = 0.7  # seconds before a wait is shown in a terminal; most are shorter
INTERVAL = 0.5  # seconds between two looks at it
FIRST_LINE = 15.0  # seconds before a wait is told elsewhere; each next line takes twice as long,
LONGEST_PAUSE = 300.0  # up to this
LONGEST_TITLE = 26  # characters
LEAST_BAR = 10  # columns that what stands beside a bar leaves it
WITH_TOTAL = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {elapsed}<{remaining}{postfix}"
# A bar without a total is blank; with one in the format, tqdm cuts the line to the terminal.
WITHOUT_TOTAL = "{desc} … {elapsed}{postfix}{bar}"
COUNTED = "{desc} {n_fmt} {unit}, {elapsed}{postfix}{bar}"


class _State:
    """What is shown at the moment, in all threads."""

    silent = False
    waits: ClassVar[list[Wait]] = []  # that are open
    bars = 0  # that are drawn
    lock = threading.RLock()  # of whoever draws
    seen = 0.0  # when something was told or drawn last, on the clock of time.monotonic


def say(text: str = "", *, stderr: bool = False) -> None:
    """Print a line or several, above the bars; at once, so that a log can be followed.

    In one write, so that lines of processes that share a terminal or a log do not mix; ``print``
    writes a line's end on its own where PYTHONUNBUFFERED is set, as in many containers.
    """
    if _State.silent:
        return
    stream = sys.stderr if stderr else sys.stdout
    _State.seen = time.monotonic()
    with _State.lock:
        _erase_background()
        if _State.bars:
            from tqdm import tqdm

            tqdm.write(f"{text}\n", file=stream, end="")
        else:
            stream.write(f"{text}\n")
        stream.flush()


def say_error(text: str) -> None:
    """The same on stderr."""
    say(text, stderr=True)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Tell nothing: for what is used as a library, and for all but one of several processes."""
    before, _State.silent = _State.silent, True
    try:
        yield
    finally:
        _State.silent = before


def track(items: Iterable[T], title: str, total: int | None = None, unit: str = "") -> Generator[T]:
    """The items, while it is shown how many of them are done.

    Args:
        items: what is worked on, one after the other.
        title: what is done, in a few words.
        total: how many there are, where they do not tell; None where nobody knows.
        unit: what they are, in the plural, where there is no total.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Wait(title, total, unit) as wait:
        for item in items:
            yield item
            wait.advance()


class Wait:
    """Work that takes a while. In a `with` it is shown, from a thread of its own.

    So a wait costs the work nothing, and its seconds go on where a single step takes long.
    """

    foreground = True  # what is drawn is news

    def __init__(self, title: str, total: int | None = None, unit: str = "") -> None:
        """See `track`."""
        self.title, self.total, self.unit = title, total, unit
        self.done, self.note = 0, ""
        self._began = time.time()
        self._over = threading.Event()
        self._ticker: threading.Thread | None = None
        self._bar: Any = None
        self._next_line = FIRST_LINE

    def advance(self, count: int = 1, note: str = "") -> None:
        """So much more is done; `note`: what is to be seen beside it."""
        self.done += count
        self.note = note or self.note

    def __enter__(self) -> Self:
        if not _State.silent:
            _State.waits.append(self)
            self._ticker = threading.Thread(target=self._show, daemon=True)
            self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._ticker:
            self._over.set()
            self._ticker.join()
            self._ticker = None
            _State.waits.remove(self)

    def _show(self) -> None:
        """Until it is over: a bar, or lines."""
        tick = self._draw if in_terminal() else self._tell
        pause = DELAY
        while not self._over.wait(pause):
            pause = INTERVAL
            with _State.lock, contextlib.suppress(OSError):  # a terminal that is gone
                tick()
        with _State.lock:
            self.erase()

    def _draw(self) -> None:
        if self._bar is None and self.foreground:
            _erase_background()  # so that the first line is free
        if self._bar is None:  # not by its truth, which a bar without a total does not have
            from tqdm import tqdm

            class Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
                monitor_interval = 0  # no thread beside this one

            _State.bars += 1
            self._bar = Bar(
                total=self.total,
                desc=_short(self.title, LONGEST_TITLE),
                leave=False,
                ncols=columns(),
                unit=self.unit,
                bar_format=WITH_TOTAL if self.total else COUNTED if self.unit else WITHOUT_TOTAL,
                delay=INTERVAL,  # so that nothing is drawn before the next lines
            )
            self._bar.start_t = self._began
        self._bar.ncols = columns()  # people change it
        self._bar.n = self.done if self.total is None else min(self.done, self.total)
        self._bar.set_postfix_str(self._fitting_note(), refresh=False)
        self._bar.refresh()
        self._bar.last_print_t = time.time()  # else `close` takes it for never drawn
        if self.foreground:
            _State.seen = time.monotonic()

    def _fitting_note(self) -> str:
        """The note, as far as it leaves the bar its place."""
        if not self.total:
            return self.note
        beside = len("title 100%|| / 0:00:00<0:00:00, ") - len("title")
        beside += min(len(self.title), LONGEST_TITLE) + 2 * len(str(self.total))
        room = columns() - beside - LEAST_BAR
        return _short(self.note, room) if room >= min(len(self.note), LEAST_BAR) else ""

    def erase(self) -> None:
        """Take the bar away, until it is drawn again."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
            _State.bars -= 1

    def _tell(self) -> None:
        seconds = time.time() - self._began
        if seconds < self._next_line:
            return
        self._next_line = seconds + min(self._next_line, LONGEST_PAUSE)
        parts = [f"{duration(seconds)} so far", self.note]
        if self.total:
            left = seconds * (self.total - self.done) / self.done if self.done else 0.0
            parts = [f"{self.done} of {self.total}", *parts]
            parts += [f"about {duration(left)} left"] if left else []
        elif self.unit:
            parts = [f"{self.done} {self.unit}", *parts]
        say_error(f"{self.title}: {', '.join(filter(None, parts))}")


class Background(Wait):
    """Seconds that go on wherever a script works for a while and nothing else is to be seen."""

    foreground = False

    def __init__(self, title: str = "working") -> None:
        super().__init__(title)

    def __enter__(self) -> Self:
        super().__enter__()
        _State.seen = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        """End what was opened since, such as the `track` of a loop that an error left."""
        since = _State.waits[_State.waits.index(self) + 1 :] if self in _State.waits else []
        for wait in reversed(since):
            wait.__exit__()
        super().__exit__()

    def _draw(self) -> None:
        """While it is quiet."""
        is_drawn = self._bar is not None
        if _State.bars > is_drawn or time.monotonic() < _State.seen + DELAY:
            self.erase()
            return
        if not is_drawn:
            self._began = time.time()
        super()._draw()

    def _tell(self) -> None:
        """Nothing: what takes long says so itself."""


def _erase_background() -> None:
    for wait in list(_State.waits):
        if not wait.foreground:
            wait.erase()


def in_terminal() -> bool:
    """Whether somebody sees bars."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def columns() -> int:
    """Of the terminal, that a line may take without an end that wraps."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns - 1
    except (OSError, ValueError):  # none, or it does not tell
        return 79


def duration(seconds: float) -> str:
    """A time that people read, in at most 8 characters.

    >>> duration(7.2), duration(75), duration(3 * 3600 + 61), duration(3e6)
    ('0:07', '1:15', '3:01:01', '34 d 17 h')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 100:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest // 2]}…{text[-longest // 2 + 1 :]}"
