"""Do processes meet, each on a device of its own, or all hear in one line why they cannot?"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import torch
from torch.distributed import HashStore  # type: ignore[attr-defined]

from utils import devices
from utils.errors import InputError
from utils.processes import distributed

T = TypeVar("T")
LIMIT = 30  # seconds


def all_at_once(*calls: Callable[[], T]) -> list[T]:
    """What each call comes to, while the others go on."""
    results: dict[int, T] = {}

    def run(number: int) -> None:
        results[number] = calls[number]()

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    return [results[number] for number in range(len(calls))]


@pytest.mark.parametrize("world", [2, 3])
def test_those_that_are_started_anew_do_not_meet_those_before(world: int) -> None:
    """Also where the main process comes first, and finds what the others before have left."""
    launcher = HashStore()
    for attempt in range(2):
        stores = all_at_once(
            *(lambda rank=rank: distributed._meet(launcher, rank, world) for rank in range(world))
        )
        for rank, store in enumerate(stores):
            assert not store.check([f"rank {rank}"]), "what those before have written"
            store.set(f"rank {rank}", str(attempt))
        assert all(stores[0].get(f"rank {rank}") == b"%d" % attempt for rank in range(world))


def on_a_machine(monkeypatch: pytest.MonkeyPatch, cards: int, processes: int, number: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr("utils.devices.socket.gethostname", lambda: "box")
    for name, value in {
        "RANK": number,
        "LOCAL_RANK": number,
        "WORLD_SIZE": processes,
        "LOCAL_WORLD_SIZE": processes,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": 1,
    }.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(
    ("cards", "processes", "device", "card", "problem"),
    [
        (0, 2, "auto", None, ""),
        (2, 2, "auto", 1, ""),
        (4, 2, "cuda", 1, ""),
        (2, 2, "cpu", None, ""),
        (1, 2, "cpu", None, ""),
        (1, 2, "auto", None, "torchrun: 2 processes and 1 graphics cards on box: expected"),
        (0, 2, "cuda", None, "2 processes and 0 graphics cards on box"),
        (2, 2, "cuda:0", None, "device='cuda:0': 2 processes on this machine: expected cuda, of"),
    ],
)
def test_each_process_has_a_card_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
    cards: int,
    processes: int,
    device: str,
    card: int | None,
    problem: str,
) -> None:
    on_a_machine(monkeypatch, cards, processes, number=1)
    assert devices._own_card(device)[0] == card
    told = devices._own_card(device)[1]
    assert problem in told and bool(problem) == bool(told)


def test_one_process_a_machine_may_choose_its_card(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_machine(monkeypatch, cards=2, processes=2, number=0)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert devices._own_card("cuda:1") == (1, "")


def test_what_is_wrong_with_one_process_is_told_by_all() -> None:
    store = HashStore()

    def told(number: int, card: int | None, problem: str = "") -> str:
        return distributed._common_problem(store, number, 3, card, problem)

    assert all_at_once(
        lambda: told(0, 0), lambda: told(1, None, "no card left"), lambda: told(2, 1)
    ) == 3 * ["no card left"]
    store = HashStore()
    mixed = "torchrun: a card, a CPU, a CPU: expected a card for each process, or --device cpu"
    assert all_at_once(lambda: told(0, 0), lambda: told(1, None), lambda: told(2, None)) == 3 * [
        mixed
    ]


@pytest.mark.parametrize(
    ("cards", "device", "nccl", "backend"),
    [
        (2, "auto", True, "cpu:gloo,cuda:nccl"),
        (2, "cpu", True, "gloo"),
        (0, "auto", True, "gloo"),
        (2, "cuda", False, "gloo"),
    ],
)
def test_nccl_is_used_on_cards_alone_and_each_process_sets_its_own(
    monkeypatch: pytest.MonkeyPatch, cards: int, device: str, nccl: bool, backend: str
) -> None:
    calls: list[Any] = []
    on_a_machine(monkeypatch, cards, processes=2, number=0)
    store = HashStore()
    store.set("here 1", "word")
    store.set("device 1", "a card" if backend != "gloo" or not nccl else "a CPU")
    monkeypatch.setattr(distributed, "_group", None)
    monkeypatch.setattr(distributed, "_meet", lambda *_: store)
    fake = {
        "rendezvous": lambda _: iter([(store, 0, 2)]),
        "is_nccl_available": lambda: nccl,
        "init_process_group": lambda backend, **_: calls.append(backend),
        "new_group": lambda **_: SimpleNamespace(),
        "ProcessGroup": SimpleNamespace,
    }
    for name, function in fake.items():
        monkeypatch.setattr(torch.distributed, name, function)
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    devices.join(device)
    assert calls == ([0, backend] if cards and device != "cpu" else [backend])


def test_too_many_processes_end_with_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_machine(monkeypatch, cards=1, processes=2, number=0)
    monkeypatch.setattr(distributed, "join", lambda card, problem: problem)
    with pytest.raises(InputError, match=r"at most --nproc_per_node=1, or --device cpu$"):
        devices.join("auto")


def test_a_card_that_is_full_is_not_taken_for_a_process_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distributed, "_group", object())
    full = "NCCL error in: x.cpp:1, unhandled cuda error: Cuda failure 2 'out of memory'"
    assert not distributed.is_lost(RuntimeError(full))
    assert distributed.is_lost(RuntimeError("NCCL error: remote process exited"))
