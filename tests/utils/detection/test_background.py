"""Work in a thread beside the main one."""

import threading
import time
from collections.abc import Iterator

import pytest

from utils.detection.background import Background, StageTimer, in_turn
from utils.errors import InputError


def test_items_come_in_order_whoever_is_faster() -> None:
    with Background(iter(range(200)), depth=3) as items:
        assert list(items) == list(range(200))
        assert items.dropped == 0


def test_a_maker_waits_until_its_items_are_taken() -> None:
    made = []

    def make() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number

    with Background(make(), depth=2) as items:
        assert next(items) == 0
        time.sleep(0.05)
        assert len(made) <= 4  # one taken, two waiting, one in hand


def test_of_a_live_source_the_newest_is_kept() -> None:
    ready = threading.Event()

    def camera() -> Iterator[int]:
        yield from range(50)
        ready.set()

    with Background(camera(), depth=2, newest=True) as items:
        assert ready.wait(60)
        assert list(items) == [48, 49]
        assert items.dropped == 48


def test_what_was_made_before_an_error_comes_first() -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("camera on fire")

    with Background(broken()) as items:
        assert [next(items), next(items)] == [1, 2]
        with pytest.raises(OSError, match="on fire"):
            next(items)
        assert list(items) == []


@pytest.mark.parametrize("taken", [0, 3])
def test_leaving_stops_and_cleans_up_a_chain_of_makers(taken: int) -> None:
    cleaned = []

    def endless() -> Iterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            cleaned.append(threading.current_thread())

    first = Background(endless())
    second = Background(number * 2 for number in first)
    start = time.perf_counter()
    with second, first:
        assert [next(second) for _ in range(taken)] == [0, 2, 4][:taken]
    assert time.perf_counter() - start < 60  # the source never ends
    assert len(cleaned) == 1
    assert cleaned[0] is not threading.current_thread()
    assert list(second) == []


def test_stages_are_timed_and_reported_for_each_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    timer = StageTimer()
    timer.add("read", 0.010)
    timer.add("read", 0.020)
    with timer.stage("draw"):
        now += 0.5
    with pytest.raises(ZeroDivisionError), timer.stage("draw"):
        now += 0.25
        raise ZeroDivisionError  # the time until an error counts
    assert timer.seconds == pytest.approx({"read": 0.03, "draw": 0.75})
    assert timer.elapsed == pytest.approx(0.75)
    report = timer.report(2, ["read", "network"])
    assert report.startswith("375.0 ms a picture; ") and report.endswith(
        "read 15.0, network 0.0 ms"
    )
    assert timer.report(0, ["read"]).startswith("750.0 ms")
    timer.restart()
    assert not timer.seconds and timer.elapsed == 0


def test_workers_take_turns_and_none_waits_for_another() -> None:
    changed = threading.Condition()
    silent = threading.Event()

    def stalled() -> Iterator[str]:
        yield "s"
        silent.wait(30)

    def broken() -> Iterator[str]:
        yield "b"
        raise InputError("lost")

    failed: list[InputError] = []
    sources = [iter("aaaa"), stalled(), broken()]
    workers = [Background(source, changed=changed) for source in sources]
    items = in_turn(workers, changed, failed.append)
    taken = [next(items) for _ in range(6)]
    assert sorted(taken) == ["a", "a", "a", "a", "b", "s"]
    silent.set()
    assert list(items) == []
    assert [str(error) for error in failed] == ["lost"]
