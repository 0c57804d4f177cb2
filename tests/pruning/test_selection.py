"""Does the line of units go in its order, with its exceptions?"""

from typing import Any

import numpy as np
import pytest

from models.netdef import NetDef
from pruning.channels import channel_groups
from pruning.selection import (
    group_step,
    least_count,
    rank_blocks,
    round_up,
    select_channels,
    shares_of_blocks,
)
from pruning.targets import GroupCosts
from tests.pruning.nets import pruning_target
from tests.pruning.test_channels import conv, net

PAIR = net(conv(4), conv(4))  # units 3 to 6, and 7 to 10


def kept(netdef: NetDef, importance: dict[int, list[float]], **target: Any) -> list[list[int]]:
    """By layer of `importance`, which of its channels `slim` keeps."""
    asked = {"layer_keep": 0.0, **target}
    arrays = {layer: np.array(values) for layer, values in importance.items()}
    plan = select_channels(netdef, arrays, pruning_target(**asked), "slim")
    return [np.flatnonzero(plan.layer_masks[layer]).tolist() for layer in importance]


def test_one_threshold_for_all_layers() -> None:
    """The example of `select_channels`."""
    importance = {0: [0.9, 0.1, 0.8, 0.7], 1: [0.6, 0.2, 0.3, 0.5]}
    assert kept(PAIR, importance, percent=0.5) == [[0, 2, 3], [0]]


def test_of_equal_units_the_later_goes_and_of_equal_groups_the_first_loses() -> None:
    importance = {0: [0.5] * 4, 1: [0.5] * 4}
    assert kept(PAIR, importance, percent=3 / 8) == [[0], [0, 1, 2, 3]]
    assert kept(PAIR, {0: [0.5] * 4, 1: [0.4] * 4}, percent=0.25) == [[0, 1, 2, 3], [0, 1]]


def test_every_layer_keeps_its_share_and_one_at_least() -> None:
    importance = {0: [0.4, 0.1, 0.2, 0.3], 1: [5.0, 6, 7, 8]}
    assert kept(PAIR, importance, percent=0.5) == [[0], [1, 2, 3]]
    assert kept(PAIR, importance, percent=0.5, layer_keep=0.5) == [[0, 3], [2, 3]]
    assert kept(PAIR, importance, percent=0.9, layer_keep=0.26) == [[0, 3], [2, 3]]
    assert [least_count(10, share, 1) for share in (0.0, 0.1, 0.11, 0.3, 1.0)] == [1, 1, 2, 3, 10]
    assert [least_count(10, 0.1, step) for step in (2, 4, 16)] == [2, 4, 10]


def test_rounding_up_never_costs_a_unit_that_is_more_important_than_the_last_that_went() -> None:
    """Of layer 0 one unit is below the threshold; with steps of two it stays, or both go."""
    importance = {0: [0.1, 0.5, 0.8, 0.9], 1: [0.2, 0.3, 0.6, 0.7]}
    assert kept(PAIR, importance, percent=0.25, round_to=2) == [[0, 1, 2, 3], [2, 3]]
    assert kept(PAIR, importance, percent=0.5, round_to=2) == [[2, 3], [2, 3]]


def test_what_the_last_step_left_of_the_budget_is_given_back_to_the_most_important() -> None:
    """A unit of layer 0 has 9·3 + 9·8 weights in layers 0 and 1; one of layer 2 has 7 fewer reads.

    The last unit that goes is wide, so the one of layer 1 before it fits into the budget again.
    """
    netdef = net(conv(8), conv(8))
    costs = GroupCosts(netdef)
    total = costs.count(costs.sizes, "parameters")
    counts = costs.sizes.copy()
    counts[0] -= 1
    first = total - costs.count(counts, "parameters")
    importance = {0: [0.3, *[1.0] * 7], 1: [0.2, 0.1, *[1.0] * 6]}
    percent = first / total  # layer 1's two units are cheaper, so layer 0's must go, too
    layers = kept(netdef, importance, percent=percent, percent_of="parameters")
    assert layers == [[1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7]]


def test_where_every_last_unit_overshoots_the_cheapest_goes() -> None:
    """A unit of layer 0 takes 47 of 119 parameters, one of layer 1 takes 27; 12 are asked for."""
    importance = {0: [0.1, 0.9], 1: [0.2, 0.8]}
    assert kept(net(conv(2), conv(2)), importance, percent=0.1, percent_of="parameters") == [
        [0, 1],
        [1],
    ]


def test_steps_make_multiples_in_every_layer() -> None:
    (one,) = [g for g in channel_groups(net(conv(64))).groups if not g.frozen]
    assert [group_step(one, n) for n in (1, 8, 12)] == [1, 8, 12]
    assert group_step(one, 0) == 8 and group_step(one, 0, fast=16) == 16
    assert group_step(one, 0, fast=32) == 16  # a quarter of 64
    both = channel_groups(net(conv(4), conv(8, groups=4))).groups[0]  # two of layer 1 a unit
    assert [group_step(both, n) for n in (1, 2, 8)] == [1, 2, 8]
    alone = channel_groups(net(conv(6), conv(4, groups=2))).groups[0]  # three and two a unit
    assert [group_step(alone, n) for n in (2, 3, 6)] == [2, 3, 6]
    assert [round_up(n, 4) for n in (0, 1, 4, 5)] == [0, 4, 4, 8]


BLOCKS = net(
    conv(4), conv(2), conv(4), "[shortcut]\nfrom=0\n", conv(4), "[shortcut]\nfrom=3\n"
)  # blocks 3 (of 1 and 2) and 5 (of 4)


def test_blocks_go_by_the_mean_of_what_is_kept_of_their_last_convolutions() -> None:
    keep = np.ones(channel_groups(BLOCKS).count, bool)
    importance = {0: np.zeros(4), 1: np.zeros(2), 2: np.array([1.0, 1, 1, 9]), 4: np.full(4, 2.0)}
    assert [block.shortcut for block in rank_blocks(BLOCKS, importance, keep)] == [5, 3]
    keep[channel_groups(BLOCKS).outputs[2][3]] = False
    assert [block.shortcut for block in rank_blocks(BLOCKS, importance, keep)] == [3, 5]
    equal = {layer: np.ones_like(values) for layer, values in importance.items()}
    ranked = rank_blocks(BLOCKS, equal, keep)
    assert [block.shortcut for block in ranked] == [3, 5]
    weights = {0: 9 * 3 * 4, 1: 9 * 4 * 2, 2: 9 * 2 * 4, 4: 9 * 4 * 4, 6: 4 * 7}
    total = sum(weights.values())
    shares = shares_of_blocks(GroupCosts(BLOCKS), ranked, "operations")
    assert shares == pytest.approx([(72 + 72) / total, (72 + 72 + 144) / total])
