"""How do reading, inference and writing go on at the same time, and how long does each take?"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE = 5.0  # seconds that closing waits for a thread; a dead camera's may never come back


class Background(Generic[T]):
    """An iterator whose items are made ahead of need, in a thread of its own, in order.

    depth: how many items may wait. newest: where they come faster than they are taken, the
    oldest waiting one is dropped (for a camera); otherwise their maker waits (for a file).
    What the maker raises is raised where the items are taken, after those that it made before.
    Use it in a `with`: leaving stops the thread, and waits for it.
    """

    def __init__(self, items: Iterable[T], depth: int = 2, newest: bool = False) -> None:
        self.dropped = 0  # items that were made and never taken, because newer ones came
        self._items = items
        self._depth = depth
        self._newest = newest
        self._waiting: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = False  # nothing more will come
        self._stopped = False  # nothing more is wanted
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._make, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended or self._stopped)
            if self._stopped:
                raise StopIteration
            if self._waiting:
                item = self._waiting.popleft()
                self._changed.notify_all()
                return item
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def __enter__(self) -> "Background[T]":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop making items and forget those that wait. Returns once the thread has ended, or
        after five seconds where it hangs in a camera."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join(PATIENCE)

    def _make(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._items:
                if not self._offer(item):
                    break
        except BaseException as problem:
            error = problem  # raised again in the thread that takes the items
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()  # a generator's own clean-up, in the thread that ran it
            with self._changed:
                self._error, self._ended = error, True
                self._changed.notify_all()

    def _offer(self, item: T) -> bool:
        """Put an item where it can be taken; False where nobody wants it any more."""
        with self._changed:
            if self._newest and len(self._waiting) >= self._depth:
                self._waiting.popleft()
                self.dropped += 1
            self._changed.wait_for(lambda: len(self._waiting) < self._depth or self._stopped)
            if self._stopped:
                return False
            self._waiting.append(item)
            self._changed.notify_all()
            return True


class Stopwatch:
    """Seconds spent in each stage of the work. Each stage is timed in one thread at a time."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def report(self, count: int, stages: Iterable[str]) -> str:
        """The time for each of `count` pictures, as it passed and as the stages took it.

        Stages that overlap add up to more than what passed.
        """
        each = 1000 / max(1, count)
        parts = [f"{name} {self.seconds.get(name, 0) * each:.1f}" for name in stages]
        return f"{self.elapsed * each:.1f} ms a picture; stages, overlapping: {', '.join(parts)} ms"
