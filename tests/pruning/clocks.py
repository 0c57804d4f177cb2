"""Times that depend on nothing but a network: a deterministic stand-in for every clock."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from torch import Tensor

import pruning.iterative.targets
import pruning.latency.search
import pruning.latency.table
import pruning.report
from models.costs import count_operations
from models.darknet import Darknet
from models.netdef import NetDef
from pruning.latency.search_space import LayerCost
from pruning.latency.table import Floats, read_shapes


def operations(netdef: NetDef) -> LayerCost:
    """A layer's multiply-adds, in thousands, and a little for each value that it writes."""
    maps = read_shapes(netdef, netdef.size)

    def cost(layer: int, reads: Floats, writes: Floats) -> Floats:
        section = netdef.layers[layer]
        _, height, width = maps[layer][0]
        if section.kind != "convolutional":
            return writes * height * width / 1e5
        each = reads / section.integer("groups", 1) if section.integer("groups", 1) > 1 else reads
        if section.integer("groups", 1) > 1:
            each = np.full_like(writes, maps[layer][0][0] / section.integer("groups"))
        steps = section.integer("stride", 1) ** 2
        return section.integer("size", 1) ** 2 * each * writes * height * width / steps / 1e3

    return cost


def stop_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every network take a millisecond for a million operations, and half of one for itself."""

    def time_of(run: object) -> float:
        assert isinstance(run, Darknet)
        return 0.5 + count_operations(run.netdef) / 1e6

    def take_turns(runs: Sequence[object], image: Tensor, rounds: int) -> Floats:
        return np.array([time_of(run) for run in runs])

    for module in (
        pruning.iterative.targets,
        pruning.latency.table,
        pruning.latency.search,
        pruning.report,
    ):
        monkeypatch.setattr(module, "take_turns", take_turns)
    monkeypatch.setattr(pruning.latency.search, "SAMPLES", 10)
    monkeypatch.setattr(pruning.latency.table, "shortest", lambda run, image: time_of(run))
    monkeypatch.setattr(
        pruning.latency.table, "open_engine", lambda name, model, size, **how: model
    )
