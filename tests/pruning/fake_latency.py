"""Latencies that depend on nothing but a network, in place of every measurement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from torch import Tensor

from models.costs import count_operations
from models.darknet import Darknet
from models.netdef import NetDef
from pruning.latency import meter
from pruning.latency.options import SearchOptions
from pruning.latency.predictor import input_shapes
from pruning.latency.search_space import LayerLatency
from pruning.latency.table import Conditions, Floats

CONDITIONS = Conditions("none", "fp32", "", "any", 1)
METER = meter.LatencyMeter("none", lambda model, size: model, CONDITIONS)


def counted_layer_latency(netdef: NetDef) -> LayerLatency:
    """A layer's multiply-adds, in thousands, and a little for each value that it writes."""
    maps = input_shapes(netdef, netdef.size)

    def latency(layer: int, reads: Floats, writes: Floats) -> Floats:
        section = netdef.layers[layer]
        channels, height, width = maps[layer][0]
        if section.kind != "convolutional":
            return writes * height * width / 1e5
        groups, stride = section.integer("groups", 1), section.integer("stride", 1)
        each = np.full_like(writes, channels / groups) if groups > 1 else reads
        return section.integer("size", 1) ** 2 * each * writes * height * width / stride**2 / 1e3

    return latency


def counted_latency(netdef: NetDef) -> float:
    """A millisecond for a million operations, and half of one for the network itself."""
    return 0.5 + count_operations(netdef) / 1e6


def count_instead_of_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every network take its `counted_latency`, on every engine."""

    def time_in_turns(runs: Sequence[Darknet], image: Tensor, rounds: int) -> Floats:
        return np.array([counted_latency(run.netdef) for run in runs])

    def shortest_time(run: Darknet, image: Tensor, options: SearchOptions) -> float:
        return counted_latency(run.netdef)

    monkeypatch.setattr(meter, "time_in_turns", time_in_turns)
    monkeypatch.setattr(meter, "shortest_time", shortest_time)
    monkeypatch.setattr(meter, "open_engine", lambda name, model, options: model)
