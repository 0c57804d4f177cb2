"""Which channels stay: from importance and a target to a keep mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from import_param import Pruning
from models.netdef import NetDef
from pruning.channels import Group, Ints, channel_groups
from pruning.importance import Importance
from pruning.residual_blocks import without_blocks
from pruning.surgeon import Plan
from pruning.targets import NEAR, GroupCosts, cuttable_units, may_cut, without
from utils.errors import InputError

Floats = NDArray[np.float64]
# With as many operations, multiples of 8 take 0.7 to 0.9 of the time that any widths take on a CPU
# (measured: PyTorch, AMD EPYC, yolov3-tiny and -mobilenetv2 at 320×320); larger ones hardly less.
# Where a layer has few channels, a quarter of them is a coarse enough step.
FAST_STEP = 8
COARSEST = 4


def select_channels(
    netdef: NetDef,
    importance: Importance,
    target: Pruning,
    strategy: str,
    blocks: tuple[int, ...] = (),
) -> Plan:
    """The channels that a strategy keeps beside the blocks that go."""
    whole = channel_groups(netdef)
    trimmed, channels, units = without(netdef, blocks)
    if blocks:
        _, moved = without_blocks(netdef, blocks)
        importance = {new: importance[old] for old, new in moved.items() if old in importance}
    free = [group for group in channels.groups if may_cut(strategy, group)]
    if not free and not blocks:
        reasons = {group.kept_because or "a shortcut adds it" for group in channels.groups}
        raise InputError(
            f"{netdef.name}: expected channels that {strategy!r} may cut, found none: "
            + "; ".join(sorted(reasons))
        )
    judge = _first if strategy == "shortcut" else _best
    worth = {id(group): judge(group, importance) for group in free}
    counted = cuttable_units(whole, strategy)
    total = GroupCosts(netdef, whole, counted)
    budget = (1 - target.percent) * total.count(total.sizes, target.percent_of)
    counts = _fit(GroupCosts(trimmed, channels, counted[units]), worth, budget, target)
    kept = np.ones(channels.count, bool)
    for group, count in zip(channels.groups, counts, strict=True):
        if id(group) in worth:
            order = np.argsort(-worth[id(group)], kind="stable")
            kept[group.units[order[count:]]] = False
    keep = np.ones(whole.count, bool)
    # Units that are apart without the blocks may be one with them: it stays if any of them does.
    keep[units] = False
    keep[units[kept]] = True
    return Plan(keep, blocks)


def _member_importance(group: Group, importance: Importance) -> list[Floats]:
    """[n] for each deciding member: the best of the channels that it has in a unit."""
    return [importance[m.layer][m.positions].max(1) for m in group.deciding_members]


def _best(group: Group, importance: Importance) -> Floats:
    return np.max(_member_importance(group, importance), axis=0)


def _first(group: Group, importance: Importance) -> Floats:
    return _member_importance(group, importance)[0]


def _fit(costs: GroupCosts, worth: Mapping[int, Floats], budget: float, target: Pruning) -> Ints:
    """How many units each group keeps so that the cost is within the budget, or as near as may be.

    Units go in the order of their worth, but never more of a group than `layer_keep` allows. Each
    group's count is rounded up, so that rounding never costs a unit that is worth more than the
    last one that went: as few go as the budget asks for. What a last step left of the budget is
    given back to the groups that lost the most valuable units. Where that step alone took far more
    than the budget asks for, its group keeps it, and the next units in the order go instead.
    """
    steps = [group_step(group, target.round_to) for group in costs.groups]
    least = [
        min(n, round_up(max(1, math.ceil(target.layer_keep * n - 1e-9)), step))
        for n, step in zip(costs.sizes.tolist(), steps, strict=True)
    ]
    order = _order(costs.groups, worth, least)

    def counts(cut: int) -> Ints:
        raw = costs.sizes - np.bincount(order[:cut], minlength=len(costs.sizes))
        found = zip(raw.tolist(), costs.sizes.tolist(), steps, least, strict=True)
        return np.array([min(n, max(low, round_up(c, step))) for c, n, step, low in found])

    def cost(found: Ints) -> float:
        return costs.count(found, target.percent_of)

    def fits(found: Ints) -> bool:
        return cost(found) <= budget * (1 + 1e-12)

    def least_cut(low: int) -> int:
        """How many units in the order go at least, so that the rest fits."""
        high = len(order)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(counts(middle)) else (middle + 1, high)
        return low

    cut = least_cut(0)
    best = found = _fill(costs, counts(cut), worth, steps, fits)
    while cut and fits(found) and budget - cost(best) > NEAR * cost(costs.sizes):
        done, rest = order[: cut - 1], order[cut - 1 :]
        order = np.append(done, rest[rest != rest[0]])
        cut = least_cut(cut - 1)
        found = _fill(costs, counts(cut), worth, steps, fits)
        best = max(best, found, key=cost) if fits(found) else best
    return best


def _order(groups: Sequence[Group], worth: Mapping[int, Floats], least: list[int]) -> Ints:
    """The groups of the units that may go, the least valuable unit first."""
    found: list[tuple[float, int, int]] = []
    for number, group in enumerate(groups):
        if id(group) in worth:
            values = np.sort(worth[id(group)])[: len(group) - least[number]]
            found += [(value, number, place) for place, value in enumerate(values.tolist())]
    return np.array([number for _, number, _ in sorted(found)], np.int64)


def _fill(
    costs: GroupCosts,
    counts: Ints,
    worth: Mapping[int, Floats],
    steps: list[int],
    fits: Callable[[Ints], bool],
) -> Ints:
    """Raise counts, the most valuable first, as long as the budget lasts."""
    if not fits(counts):
        return counts
    ranked = {
        number: -np.sort(-worth[id(group)])
        for number, group in enumerate(costs.groups)
        if id(group) in worth
    }
    open_ = set(ranked)
    while open_ := {n for n in open_ if counts[n] < costs.sizes[n]}:
        best = max(open_, key=lambda n: (ranked[n][counts[n]], -n))
        more = counts.copy()
        more[best] = min(costs.sizes[best], round_up(int(counts[best]) + 1, steps[best]))
        if fits(more):
            counts = more
        else:
            open_.remove(best)
    return counts


def group_step(group: Group, round_to: int, fast: int = FAST_STEP) -> int:
    """How many units make a multiple of `round_to` channels in every layer of a group; where that
    is 0, of `fast`, or less in a narrow group."""
    if not round_to:
        round_to = fast
        while round_to > max(1, len(group) // COARSEST):
            round_to //= 2
    return math.lcm(*(round_to // math.gcd(round_to, m.positions.shape[1]) for m in group.members))


def round_up(count: int, step: int) -> int:
    """The least multiple of a step that is no less."""
    return -(-count // step) * step
