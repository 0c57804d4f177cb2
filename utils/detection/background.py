"""How do reading, inference and writing go on at the same time, and how long does each take?"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from utils.errors import InputError

T = TypeVar("T")

CLOSE_TIMEOUT = 5.0  # seconds that closing waits for a thread; a dead camera's may never come back


class Background(Generic[T]):
    """An iterator whose items are made ahead of need, in order, by a worker thread of its own.

    What the worker raises is raised where the items are taken, after those that it made before.
    Use it in a `with`: leaving stops the worker, and waits for it.

    Args:
        items: makes the items; closed in the worker's thread.
        depth: how many items may wait in the queue.
        newest: where items come faster than they are taken, the oldest waiting one is dropped (for
            a camera); otherwise the worker waits (for a file).
        changed: shared by workers that `in_turn` takes from.
    """

    def __init__(
        self,
        items: Iterable[T],
        depth: int = 2,
        newest: bool = False,
        changed: threading.Condition | None = None,
    ) -> None:
        self.dropped = 0  # items that were made and never taken, because newer ones came
        self._items = items
        self._depth = depth
        self._newest = newest
        self._queue: deque[T] = deque()
        self._changed = changed or threading.Condition()
        self._ended = False  # nothing more will come
        self._stopped = False  # nothing more is wanted
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._make, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._ended or self._stopped)
            if self._stopped:
                raise StopIteration
            if self._queue:
                item = self._queue.popleft()
                self._changed.notify_all()
                return item
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    @property
    def ready(self) -> bool:
        """Whether `next` need not wait: there is an item, or there will be no more."""
        return bool(self._queue) or self._ended or self._stopped

    def __enter__(self) -> "Background[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop making items and forget those that wait.

        Returns once the worker has ended, or after five seconds where it hangs in a camera.
        """
        with self._changed:
            self._stopped = True
            self._queue.clear()
            self._changed.notify_all()
        self._thread.join(CLOSE_TIMEOUT)

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
            if self._newest and len(self._queue) >= self._depth:
                self._queue.popleft()
                self.dropped += 1
            self._changed.wait_for(lambda: len(self._queue) < self._depth or self._stopped)
            if self._stopped:
                return False
            self._queue.append(item)
            self._changed.notify_all()
            return True


def in_turn(
    workers: Sequence[Background[T]],
    changed: threading.Condition,
    failed: Callable[[InputError], object],
) -> Iterator[T]:
    """What several workers make: one item of each in turn, of those that have one by then.

    None of them waits for another: one that makes nothing is passed over, until it has ended.

    Args:
        workers: made with this `changed`.
        changed: tells of each new item.
        failed: takes the error that has ended one of them; the others go on.
    """
    left = deque(workers)
    while left:
        with changed:
            changed.wait_for(lambda: any(worker.ready for worker in left))
            worker = next(worker for worker in left if worker.ready)
        left.remove(worker)
        try:
            item = next(worker)
        except StopIteration:
            continue
        except InputError as error:
            failed(error)
            continue
        left.append(worker)
        yield item


class StageTimer:
    """Seconds spent in each stage of the work, such as "read" and "network".

    Stages may run in different threads; one in several at a time counts that often.
    """

    def __init__(self) -> None:
        self._adding = threading.Lock()
        self.restart()

    def restart(self) -> None:
        """Forget all stages, and start anew."""
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block that follows as a part of a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds to a stage."""
        with self._adding:
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def report(self, count: int, stages: Iterable[str]) -> str:
        """The time for each of `count` pictures, in all and by stage.

        Stages that run at the same time add up to more than the time that passed.
        """
        each = 1000 / max(1, count)
        parts = [f"{name} {self.seconds.get(name, 0) * each:.1f}" for name in stages]
        total = f"{self.elapsed * each:.1f} ms a picture"
        return f"{total}; stages, at the same time: {', '.join(parts)} ms"
