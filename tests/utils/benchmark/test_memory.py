"""Does a network's memory grow with the network?"""

import io
from collections.abc import Callable

import pytest
import torch

from models.darknet import Darknet
from models.netdef import NetDef, parse
from utils.benchmark import memory
from utils.benchmark.latency import make_rows
from utils.benchmark.memory import SMALL, with_memory
from utils.benchmark.networks import Candidate, Key


def network(filters: int) -> NetDef:
    return parse(SMALL.replace("filters=8\nsize=3", f"filters={filters}\nsize=99"), "wide")


@pytest.mark.slow  # it starts processes
def test_the_weights_are_in_what_is_measured() -> None:
    candidates = [
        Candidate(name, Darknet(network(filters)).eval(), (64, 64))
        for name, filters in (("thin", 8), ("wide", 800))
    ]
    times = {Key(c.name, "torch", "fp32", 1): [1.0] for c in candidates}
    thin, wide = with_memory(candidates, make_rows(candidates, times, peaks={"cpu": 1e9}), 1, {})
    more = wide.memory_mb - thin.memory_mb
    weights = wide.file_mb - thin.file_mb
    assert 0.8 * weights < more < 4 * weights


def test_on_a_card_the_most_that_torch_held_there_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond what it held before; not what was needed to open the network alone."""
    held = {"now": 100, "most": 100, "cached": 0}

    def take(lasting: int, passing: int) -> None:
        held["now"] += lasting
        held["cached"] += passing
        held["most"] = max(held["most"], held["now"] + held["cached"])

    def empty_cache() -> None:
        held["cached"] = 0

    def reset(device: torch.device) -> None:
        held["most"] = held["now"] + held["cached"]

    def open_one(*_: object) -> Callable[[torch.Tensor], None]:
        take(30, 1000)  # folding takes a copy
        return lambda images: take(0, 5)

    card = torch.device("cuda")
    fakes = {
        "empty_cache": empty_cache,
        "reset_peak_memory_stats": reset,
        "memory_reserved": lambda device: held["now"] + held["cached"],
        "max_memory_reserved": lambda device: held["most"],
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(memory, "open_one", open_one)
    monkeypatch.setattr(memory, "choose_device", lambda name: card)
    monkeypatch.setattr(memory, "_run", lambda run, candidate, key: [run(None) for _ in range(3)])
    candidate = Candidate("thin", Darknet(network(8)).eval(), (64, 64))
    parcel = io.BytesIO()
    torch.save((candidate, Key("thin", "torch", "fp32", 1, "cuda"), 0, {}), parcel)
    assert memory._added_bytes(parcel.getvalue()) == 30 + 3 * 5
