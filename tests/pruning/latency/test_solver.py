"""Is what the programme chooses the best there is, and does it take as long as it is said to?"""

import itertools
import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.darknet import Darknet
from models.netdef import NetDef, parse
from pruning.latency.options import DEFAULTS
from pruning.latency.predictor import any_plan, input_shapes
from pruning.latency.search_space import (
    Configuration,
    Floats,
    LayerLatency,
    SearchSpace,
    find_search_space,
    rank_units,
)
from pruning.latency.solver import Solution, _binned, solve
from pruning.surgeon import cut
from tests.pruning.fake_latency import counted_layer_latency
from tests.pruning.nets import config, random_importance, random_net
from tests.pruning.test_channels import conv, net

RESIDUAL = """
[net]
width=16
height=16
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=4
size=1
activation=leaky
[convolutional]
batch_normalize=1
filters=8
size=3
pad=1
activation=leaky
[shortcut]
from=-3
activation=linear
[convolutional]
filters=18
size=1
activation=linear
[yolo]
mask=0,1,2
anchors=4,4, 8,8, 12,12
classes=1
num=3
"""


def few_options(space: SearchSpace, rng: random.Random) -> list[list[int]]:
    """At most three widths a group that may be cut."""
    found = []
    for number, group in enumerate(space.groups):
        size = len(group)
        widths = {size} | {rng.randint(1, size) for _ in range(2)}
        found.append(sorted(widths) if space.can_cut(number) else [size])
    return found


def importance_of(
    netdef: NetDef, space: SearchSpace, options: list[list[int]], seed: int
) -> dict[Any, Any]:
    ranking = rank_units(space, random_importance(netdef, seed))
    return {
        layer: (group, sums[options[group]]) for layer, (group, sums) in ranking.cumulative.items()
    }


def all_solutions(
    space: SearchSpace, options: list[list[int]], values: dict[Any, Any], latency: LayerLatency
) -> list[Solution]:
    found = []
    blocks = list(space.outer_blocks)
    for count in range(len(blocks) + 1):
        for removed in itertools.combinations(sorted(blocks), count):
            if space.with_inner_blocks(removed) != set(removed):
                continue  # a block within another one that is removed is removed, too
            inside = {t.layer for t in space.terms if t.block in space.with_inner_blocks(removed)}
            for counts in itertools.product(*options):
                importance = sum(
                    each[options[group].index(counts[group])]
                    for layer, (group, each) in values.items()
                    if layer not in inside
                )
                configuration = Configuration(counts, removed)
                ms = space.latency(latency, configuration)
                found.append(Solution(configuration, float(importance), ms, 0.0))
    return found


def size_of_search(space: SearchSpace, options: list[list[int]]) -> int:
    return int(2 ** len(space.outer_blocks) * math.prod(map(len, options)))


def test_it_finds_what_a_search_of_everything_finds() -> None:
    tried = with_blocks = 0
    for seed in range(60):
        rng = random.Random(seed)
        netdef = random_net(rng, most=9)
        space = find_search_space(netdef)
        options = few_options(space, rng)
        if not 2 < size_of_search(space, options) <= 300:
            continue
        tried += 1
        with_blocks += bool(space.outer_blocks)
        latency, values = counted_layer_latency(netdef), importance_of(netdef, space, options, seed)
        everything = all_solutions(space, options, values, latency)
        latencies = [solution.latency for solution in everything]
        budget = rng.uniform(min(latencies), max(latencies)) + 1e-6
        best = max(s.importance for s in everything if s.latency <= budget)
        found = solve(space, options, values, latency, budget)
        assert found is not None
        assert found.latency <= budget * (1 + 1e-6)
        assert found.importance == pytest.approx(best, rel=2 * DEFAULTS.gap)
        again = next(
            s for s in everything
            if s.configuration.removed_blocks == found.configuration.removed_blocks
            and s.latency == pytest.approx(found.latency)
            and s.importance == pytest.approx(found.importance, rel=1e-5)
        )  # fmt: skip
        assert again
        assert solve(space, options, values, latency, min(latencies) * 0.99 - 1e-6) is None
    assert tried >= 15 and with_blocks >= 3


@pytest.mark.parametrize("name", ["yolov3", "yolov3-tiny", "yolov3-spp", "yolov3-mobilenetv2"])
def test_widths_are_those_of_the_cut_network(name: str) -> None:
    netdef = config(name, thinner=16)
    space, rng = find_search_space(netdef), random.Random(0)
    for _ in range(3):
        counts = [rng.choice(found) for found in few_options(space, rng)]
        small = cut(Darknet(netdef), any_plan(space, Configuration(tuple(counts)))).netdef
        reads = input_shapes(small, small.size)
        for term in space.terms:
            assert term.reads.channels(counts) == sum(
                c for c, _, _ in (reads[term.layer] if term.reads.parts and
                                  netdef.layers[term.layer].kind == "route"
                                  else reads[term.layer][:1])
            )  # fmt: skip
            if netdef.layers[term.layer].kind == "convolutional":
                assert term.writes.channels(counts) == small.layers[term.layer].integer("filters")


def test_more_milliseconds_never_leave_less_importance() -> None:
    netdef = config("yolov3-mobilenetv2", thinner=8)
    space, rng = find_search_space(netdef), random.Random(0)
    options = few_options(space, rng)
    latency, values = counted_layer_latency(netdef), importance_of(netdef, space, options, 0)
    whole = space.latency(latency, space.uncut)
    found = [solve(space, options, values, latency, share * whole) for share in (0.3, 0.5, 0.8, 1)]
    assert all(solution is not None for solution in found)
    importance = [solution.importance for solution in found]
    assert all(b >= a * (1 - 2 * DEFAULTS.gap) for a, b in itertools.pairwise(importance))
    assert found[-1].configuration == space.uncut


def test_a_block_is_removed_where_its_milliseconds_do_more_elsewhere() -> None:
    netdef = parse(RESIDUAL)
    space = find_search_space(netdef)
    latency = counted_layer_latency(netdef)
    options = [[len(group)] for group in space.groups]  # no other way to save time
    values = importance_of(netdef, space, options, 0)
    whole = space.latency(latency, space.uncut)
    assert solve(space, options, values, latency, whole + 1e-6).configuration.removed_blocks == ()
    assert solve(space, options, values, latency, 0.9 * whole).configuration.removed_blocks == (3,)


def test_alike_blocks_go_in_the_order_that_is_given() -> None:
    add = "[shortcut]\nfrom=-2\n"
    netdef = net(conv(4), conv(4), add, conv(4), add, conv(4), add)
    space, latency = find_search_space(netdef), counted_layer_latency(netdef)
    (alike,) = space.alike_blocks()
    options = [[len(group)] for group in space.groups]
    values = importance_of(netdef, space, options, 0)
    whole = space.latency(latency, space.uncut)
    for order in (alike, alike[::-1]):
        found = solve(space, options, values, latency, 0.8 * whole, block_order=[order])
        assert found is not None and found.configuration.removed_blocks == order[:1]


def test_a_block_of_fixed_widths_stays_where_there_is_time_for_it() -> None:
    netdef = net(conv(4), conv(4), "[shortcut]\nfrom=0\n", "[reorg]\nstride=2\n")
    space, latency = find_search_space(netdef), counted_layer_latency(netdef)
    assert not space.can_cut_channels and list(space.outer_blocks) == [2]
    options = [[len(group)] for group in space.groups]
    values = importance_of(netdef, space, options, 0)
    whole = space.latency(latency, space.uncut)
    for budget, removed in [(whole + 1e-6, ()), (0.9 * whole, (2,))]:
        found = solve(space, options, values, latency, budget)
        assert found is not None and found.configuration.removed_blocks == removed


def test_a_grouped_convolution_is_timed_with_what_it_reads_and_writes() -> None:
    """Layer 1 writes two channels for each that it reads."""
    netdef = net(conv(8), conv(16, groups=8))
    space = find_search_space(netdef)
    options = [[4, 8] if space.can_cut(n) else [len(g)] for n, g in enumerate(space.groups)]
    timed: dict[int, tuple[list[float], list[float]]] = {}

    def latency(layer: int, reads: Floats, writes: Floats) -> Floats:
        timed.setdefault(layer, (reads.ravel().tolist(), writes.ravel().tolist()))
        return 0.0 * reads

    solve(space, options, importance_of(netdef, space, options, 0), latency, budget=1.0)
    assert timed == {0: ([3, 3], [4, 8]), 1: ([4, 8], [8, 16]), 2: ([8, 16], [7, 7])}


def test_sums_that_are_not_told_apart_count_as_their_mean() -> None:
    """Layer 3 reads layers 0 and 1 together: 8, 12 or 20 channels, in two widths."""
    netdef = net(conv(4), conv(16), "[route]\nlayers=-1,-2\n", conv(5))
    space = find_search_space(netdef)
    widths = {0: [4], 1: [4, 8, 16]}
    options = [widths.get(n, [len(group)]) for n, group in enumerate(space.groups)]
    read: list[float] = []

    def latency(layer: int, reads: Floats, writes: Floats) -> Floats:
        if layer == 3 and not read:
            read.extend(reads[:, 0].tolist())
        return 0.0 * reads

    values = importance_of(netdef, space, options, 0)
    solve(space, options, values, latency, 1.0, replace(DEFAULTS, sums_per_concatenation=2))
    assert read == [10, 20]


def test_near_widths_share_a_number_where_there_are_too_many() -> None:
    values = np.array([5.0, 1, 2, 9, 5, 2.1])
    assert _binned(values, 5).tolist() == [3, 0, 1, 4, 3, 2]
    assert _binned(values, 4).tolist() == [2, 0, 1, 3, 2, 1]
