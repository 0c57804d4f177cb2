"""Does a cut meet its time where launches bind, where arithmetic does, and where both do?

Where kernels are launched one by one, narrower layers are no faster: blocks must go.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from import_param import Pruning
from models.darknet import Darknet
from models.netdef import NetDef, parse
from pruning.importance import gamma
from pruning.latency.candidates import LatencyCandidates
from pruning.latency.options import SearchOptions
from pruning.latency.predictor import any_plan, fit_predictor
from pruning.latency.search import (
    LatencyResult,
    LatencySearch,
    LatencyTarget,
    PruningProblem,
    too_fast,
)
from pruning.latency.search_space import Configuration, find_search_space, width_options
from pruning.surgeon import Plan, cut
from tests.pruning.fake_device import FakeDevice, kernels, time_on
from tests.pruning.nets import config, trained
from utils.errors import InputError

OPTIONS = SearchOptions(
    least_runs=1,
    least_seconds=0,
    sampled_cuts=12,
    sample_rounds=1,
    timing_rounds=1,
    widths_per_group=4,
)
CONV = """
[convolutional]
batch_normalize=1
filters={}
size={}
stride={}
pad=1
activation=leaky
"""
ADD = "[shortcut]\nfrom=-3\nactivation=linear\n"
HEAD = """
[convolutional]
filters=7
size=1
activation=linear
[yolo]
mask=0
anchors=4,4
classes=2
num=1
"""


@cache
def residual(blocks: int = 6, width: int = 16) -> Darknet:
    """Two stages of residual blocks, as in darknet-53: 6 kernels, and 3 for each block."""
    text = "[net]\nwidth=32\nheight=32\nchannels=3\n" + CONV.format(width, 3, 1)
    for stage in (1, 2):
        text += CONV.format(stage * width, 3, 2)
        block = CONV.format(stage * width // 2, 1, 1) + CONV.format(stage * width, 3, 1)
        text += (block + ADD) * blocks
    return trained(parse(text + HEAD), 0)


def device(netdef: NetDef, arithmetic: float, half: float = 0.5, **more: object) -> FakeDevice:
    """One that computes for so many times as long as it launches, for one image."""
    work = kernels(netdef, netdef.size)
    rate = sum(work) * (1 + half) / (arithmetic * 5.0 * len(work))
    return FakeDevice(5.0, rate, half=half, **more)  # type: ignore[arg-type]  # its fields


def pruned(
    model: Darknet,
    on: FakeDevice,
    speedup: float,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch: int = 1,
) -> tuple[Plan, LatencyResult]:
    time_on(on, monkeypatch)
    meter, size, netdef = on.meter(batch), model.netdef.size, model.netdef
    path = folder / f"{batch}.csv"
    predictor = fit_predictor(model, size, meter, path, lambda _: None, options=OPTIONS)
    problem = PruningProblem.of(netdef, gamma(model), predictor, Pruning())
    search = LatencySearch(model, size, LatencyTarget(target_speedup=speedup), meter, OPTIONS)
    plan, result = search.prune(problem)
    small = on.milliseconds(cut(model, plan).netdef, size, batch)
    assert result.measured == pytest.approx(small)
    assert on.milliseconds(netdef, size, batch) / small == pytest.approx(speedup, rel=0.05)
    return plan, result


def kept(plan: Plan) -> float:
    """The share of the channels that is left of the layers that are left."""
    small, whole = cut(Darknet(plan.netdef), plan).netdef, Plan(plan.netdef, plan.keep | True)
    beside = cut(Darknet(plan.netdef), replace(whole, blocks=plan.blocks)).netdef
    sums = [
        sum(s.integer("filters") for s in net.layers if s.kind == "convolutional")
        for net in (small, beside)
    ]
    return sums[0] / sums[1]


@pytest.mark.parametrize(
    ("speedup", "queued"),
    [
        (3.0, False),
        pytest.param(2.0, False, marks=pytest.mark.slow),
        pytest.param(2.0, True, marks=pytest.mark.slow),
        pytest.param(3.0, True, marks=pytest.mark.slow),
    ],
)
def test_where_launches_bind_blocks_go_and_channels_stay(
    speedup: float, queued: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a CUDA graph, and in eager mode, where a card computes while the next is launched."""
    model = residual(width=8)
    on = device(model.netdef, 0.03, queued=queued, gap=1.0 if queued else 0.0)
    plan, _ = pruned(model, on, speedup, tmp_path, monkeypatch)
    before, after = (
        len(kernels(netdef, netdef.size)) for netdef in (plan.netdef, cut(model, plan).netdef)
    )
    assert after == pytest.approx(before / speedup, abs=1.6)
    assert len(plan.blocks) == (before - after) / 3 and kept(plan) > 0.95


@pytest.mark.parametrize("speedup", [2.0, pytest.param(3.0, marks=pytest.mark.slow)])
def test_where_arithmetic_binds_channels_go(
    speedup: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = residual(3)
    plan, _ = pruned(model, device(model.netdef, 30.0), speedup, tmp_path, monkeypatch)
    assert not plan.blocks and kept(plan) < 0.85


@pytest.mark.slow
@pytest.mark.parametrize("speedup", [2.0, 3.0])
def test_where_both_bind_both_go(
    speedup: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = residual()
    plan, _ = pruned(model, device(model.netdef, 1.0), speedup, tmp_path, monkeypatch)
    assert len(plan.blocks) >= 2 and kept(plan) < 0.9


@pytest.mark.slow
def test_on_one_card_blocks_go_for_one_image_and_channels_for_sixteen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = residual()
    on = device(model.netdef, 0.3)
    one, _ = pruned(model, on, 2.0, tmp_path, monkeypatch)
    sixteen, _ = pruned(model, on, 2.0, tmp_path, monkeypatch, batch=16)
    assert len(one.blocks) >= 5 and len(sixteen.blocks) <= 1 and kept(sixteen) < kept(one)


def test_without_blocks_it_is_told_what_can_be_reached_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(config("yolov3-tiny", 32, 16), 0)
    with pytest.raises(InputError) as error:
        pruned(model, device(model.netdef, 0.1), 2.0, tmp_path, monkeypatch)
    said = str(error.value)
    assert re.search(r"at least 0\.\d+ ms, which its fastest cut takes, but 0\.\d+ ms is", said)
    assert "layers take time here at any width, and it has no residual block that could go" in said
    assert "\n" not in said


def test_where_all_blocks_are_gone_or_a_strategy_takes_none_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, target = residual(1), LatencyTarget(target_speedup=20.0)
    size, on = model.netdef.size, device(model.netdef, 0.03)
    time_on(on, monkeypatch)
    search = LatencySearch(model, size, target, on.meter(), OPTIONS)
    with pytest.raises(InputError, match=r"at any width, and 2 of 2 residual blocks are left, whi"):
        LatencyCandidates(search, gamma(model), Pruning()).by_share("slim")
    space = find_search_space(model.netdef)
    least = tuple(map(min, width_options(space, 0.1, 4)))
    plan = any_plan(space, Configuration(least, tuple(space.outer_blocks)))
    ms = [on.milliseconds(netdef, size) for netdef in (plan.netdef, cut(model, plan).netdef)]
    said = str(too_fast(plan, size, LatencyResult(ms[0], 0.001, None, ms[1], 1)))
    assert "all 2 residual blocks are gone" in said and ": 4 layers take time here" in said
