"""Is what the programme chooses the best there is, and does it cost what it is said to?"""

import itertools
import random

import numpy as np
import pytest

from models.darknet import Darknet
from models.netdef import NetDef, parse
from pruning.latency.search import random_plan
from pruning.latency.search_space import LayerCost, Layout, find_layout, find_worth
from pruning.latency.solver import GAP, Choice, _binned, choose
from pruning.latency.table import read_shapes
from pruning.surgeon import cut
from tests.pruning.clocks import operations
from tests.pruning.nets import config, random_net
from tests.pruning.test_strategies import scores_of

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


def few_options(layout: Layout, rng: random.Random) -> list[list[int]]:
    """At most three widths a group that may be cut."""
    found = []
    for number, group in enumerate(layout.groups):
        size = len(group)
        widths = {size} | {rng.randint(1, size) for _ in range(2)}
        found.append(sorted(widths) if layout.free(number) else [size])
    return found


def worths(netdef: NetDef, layout: Layout, options: list[list[int]], seed: int) -> dict:
    worth = find_worth(layout, scores_of(netdef, seed))
    return {layer: (group, sums[options[group]]) for layer, (group, sums) in worth.layers.items()}


def all_choices(
    layout: Layout, options: list[list[int]], values: dict, cost: LayerCost
) -> list[Choice]:
    found = []
    blocks = list(layout.outer)
    for count in range(len(blocks) + 1):
        for gone in itertools.combinations(sorted(blocks), count):
            if layout.gone(gone) != set(gone):
                continue  # a block within another one that is gone is gone, too
            inside = {t.layer for t in layout.terms if t.block in layout.gone(gone)}
            for counts in itertools.product(*options):
                worth = sum(
                    each[options[group].index(counts[group])]
                    for layer, (group, each) in values.items()
                    if layer not in inside
                )
                ms = layout.cost(cost, counts, gone)
                found.append(Choice(counts, gone, float(worth), ms, 0.0))
    return found


def size_of_search(layout: Layout, options: list[list[int]]) -> int:
    return 2 ** len(layout.outer) * int(np.prod([len(found) for found in options]))


def test_it_finds_what_a_search_of_everything_finds() -> None:
    tried = with_blocks = 0
    for seed in range(60):
        rng = random.Random(seed)
        netdef = random_net(rng, most=9)
        layout = find_layout(netdef)
        options = few_options(layout, rng)
        if not 2 < size_of_search(layout, options) <= 300:
            continue
        tried += 1
        with_blocks += bool(layout.outer)
        cost, values = operations(netdef), worths(netdef, layout, options, seed)
        everything = all_choices(layout, options, values, cost)
        costs = [choice.cost for choice in everything]
        budget = rng.uniform(min(costs), max(costs)) + 1e-6
        best = max(c.worth for c in everything if c.cost <= budget)
        found = choose(layout, options, values, cost, budget)
        assert found is not None
        assert found.cost <= budget * (1 + 1e-6)
        assert found.worth == pytest.approx(best, rel=2 * GAP)
        again = next(
            c for c in everything
            if c.blocks == found.blocks and c.cost == pytest.approx(found.cost)
            and c.worth == pytest.approx(found.worth, rel=1e-5)
        )  # fmt: skip
        assert again
        assert choose(layout, options, values, cost, min(costs) * 0.99 - 1e-6) is None
    assert tried >= 15 and with_blocks >= 3


@pytest.mark.parametrize("name", ["yolov3", "yolov3-tiny", "yolov3-spp", "yolov3-mobilenetv2"])
def test_widths_are_those_of_the_cut_network(name: str) -> None:
    netdef = config(name, thinner=16)
    layout, rng = find_layout(netdef), random.Random(0)
    for _ in range(3):
        counts = [rng.choice(found) for found in few_options(layout, rng)]
        small = cut(Darknet(netdef), random_plan(layout, Choice(tuple(counts), (), 0, 0, 0))).netdef
        reads = read_shapes(small, small.size)
        for term in layout.terms:
            assert term.reads.of(counts) == sum(
                c for c, _, _ in (reads[term.layer] if term.reads.parts and
                                  netdef.layers[term.layer].kind == "route"
                                  else reads[term.layer][:1])
            )  # fmt: skip
            if netdef.layers[term.layer].kind == "convolutional":
                assert term.writes.of(counts) == small.layers[term.layer].integer("filters")


def test_more_milliseconds_are_never_worth_less() -> None:
    netdef = config("yolov3-mobilenetv2", thinner=8)
    layout, rng = find_layout(netdef), random.Random(0)
    options = few_options(layout, rng)
    cost, values = operations(netdef), worths(netdef, layout, options, 0)
    whole = layout.cost(cost, [len(group) for group in layout.groups], ())
    found = [choose(layout, options, values, cost, share * whole) for share in (0.3, 0.5, 0.8, 1)]
    assert all(choice is not None for choice in found)
    worth = [choice.worth for choice in found]
    assert all(b >= a * (1 - 2 * GAP) for a, b in itertools.pairwise(worth))
    assert found[-1].counts == tuple(len(group) for group in layout.groups)
    assert not found[-1].blocks


def test_a_block_goes_when_what_it_costs_is_worth_more_elsewhere() -> None:
    netdef = parse(RESIDUAL)
    layout = find_layout(netdef)
    cost = operations(netdef)
    options = [[len(group)] for group in layout.groups]  # no other way to save time
    values = worths(netdef, layout, options, 0)
    whole = layout.cost(cost, [o[0] for o in options], ())
    assert choose(layout, options, values, cost, whole + 1e-6).blocks == ()
    assert choose(layout, options, values, cost, 0.9 * whole).blocks == (3,)


def test_near_widths_share_a_number_where_there_are_too_many() -> None:
    values = np.array([5.0, 1, 2, 9, 5, 2.1])
    assert _binned(values, 5).tolist() == [3, 0, 1, 4, 3, 2]
    assert _binned(values, 4).tolist() == [2, 0, 1, 3, 2, 1]
