"""Do the runs take turns, and does the last call of a turn count?"""

import shutil
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from utils import timing
from utils.timing import clocks, interleaved, machine, spread

CARD = torch.device("cuda")


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


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A card, and what its driver answers."""
    answers = {"driver_version": "580.95.05", "clocks.sm": "1410 MHz", "clocks.max.sm": "1785 MHz"}

    def run(command: list[str], **_: object) -> SimpleNamespace:
        assert command[1] == "--id=GPU-12-34"
        if "failed" in answers:
            raise subprocess.CalledProcessError(9, command)
        questions = command[2].removeprefix("--query-gpu=").split(",")
        return SimpleNamespace(stdout=", ".join(answers[each] for each in questions) + "\n")

    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA GeForce GTX 1660")
    properties = SimpleNamespace(uuid="12-34")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    timing._card.cache_clear()
    yield answers
    timing._card.cache_clear()


def test_a_card_is_named_with_its_driver_but_not_with_its_clock(card: dict[str, str]) -> None:
    """The clock changes from moment to moment, and the name tells latency tables apart."""
    name = "NVIDIA GeForce GTX 1660, driver 580.95.05, CUDA 13.0"
    assert machine(CARD) == name
    assert clocks(CARD) == "clock 1410 MHz of at most 1785 MHz"
    card["clocks.sm"] = "300 MHz"
    assert machine(CARD) == name
    assert clocks(CARD) == "clock 300 MHz of at most 1785 MHz"


@pytest.mark.parametrize("why", ["no program", "failed"])
def test_where_the_driver_does_not_tell_a_card_has_its_name(
    card: dict[str, str], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    card[why] = ""
    if why == "no program":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    assert machine(CARD) == "NVIDIA GeForce GTX 1660, CUDA 13.0"
    assert clocks(CARD) == ""


def test_a_cpu_has_no_clock_to_tell() -> None:
    assert clocks(torch.device("cpu")) == ""
    assert machine(torch.device("cpu")) == machine()
