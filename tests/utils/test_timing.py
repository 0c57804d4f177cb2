"""Do the runs take turns, and does the last call of a turn count?"""

from utils.timing import interleaved, spread


def test_the_second_call_of_each_turn_counts() -> None:
    now = 0.0
    calls: list[str] = []

    def run(name: str, first: float, later: float) -> None:
        nonlocal now
        fresh = not calls or calls[-1] != name
        calls.append(name)
        now += first if fresh else later

    times = interleaved(
        {"a": lambda: run("a", 5, 1), "b": lambda: run("b", 7, 2)},
        rounds=3,
        warm_up=1,
        settle=0,
        clock=lambda: now,
    )
    assert times == {"a": [1000.0] * 3, "b": [2000.0] * 3}
    assert calls == ["a", "b"] + ["a", "a", "b", "b"] * 3


def test_short_runs_settle_before_they_count() -> None:
    now = 0.0
    calls: list[float] = []

    def run() -> None:
        nonlocal now
        calls.append(now)
        now += 2 if len(calls) < 6 else 1

    times = interleaved({"a": run}, 1, warm_up=0, settle=9.5, clock=lambda: now)
    assert times == {"a": [1000.0]}
    assert len(calls) == 5 + 1


def test_it_ends_in_time_but_measures_once() -> None:
    now = 0.0

    def slow() -> None:
        nonlocal now
        now += 10

    assert interleaved({"a": slow}, 9, seconds=15, clock=lambda: now) == {"a": [10_000.0]}


def test_spread_is_median_and_quartiles() -> None:
    assert spread([1.0, 2.0, 3.0, 4.0, 100.0]) == (3.0, 2.0, 4.0)
    assert spread([7.0]) == (7.0, 7.0, 7.0)


def test_times_so_far_are_told_after_each_round() -> None:
    told: list[int] = []
    interleaved(
        {"a": lambda: None, "b": lambda: None},
        3,
        settle=0,
        after_round=lambda times: told.append(sum(map(len, times.values()))),
    )
    assert told == [2, 4, 6]
