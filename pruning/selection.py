"""Which channels stay: from importance and a target to a keep mask.

The units of all groups that a strategy may cut stand in one line, the least important first, and
one threshold moves along it until the rest is within the budget, which is `1 - percent` of the
whole network's channels, parameters or operations:

- Order: by importance. Ties: of equal units of a group the later one goes first; of equal units of
  two groups, the one whose group comes first in the network.
- `layer_shares`: the groups of these layers lose just that, and never stand in the line.
- `layer_keep`: each group's most important units, so many as every layer keeps, never stand in the
  line.
- `round_to`: what a group keeps is rounded up to a multiple, so rounding never costs a unit that is
  more important than the last one that went.
- The last step: what it took beyond the budget is given back, to the most important of the units
  that went and still fit. Where that step alone took far more than the budget asks for, its group
  keeps it after all, and the next units in the line go instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from import_param import Pruning
from models.netdef import NetDef
from pruning.channels import Bools, ChannelGroups, Group, Ints, channel_groups
from pruning.importance import Importance
from pruning.layer_shares import expect_layer_shares, fixed_counts
from pruning.residual_blocks import Block, expect_blocks
from pruning.surgeon import Plan, trim
from pruning.targets import TOLERANCE, GroupCosts, Measure, cuttable_units, may_cut
from utils.errors import InputError

Floats = NDArray[np.float64]
NO_SHARES: Mapping[int, float] = MappingProxyType({})

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
    """The plan that keeps the most important channels within the target's budget.

    Example: two convolutions of four channels, of importance .9 .1 .8 .7 and .6 .2 .3 .5, and
    percent 0.5. The line is .1 | .2 .3 .5 .6 .7 .8 .9; with `round_to` 1, the four units up to .5
    go, and the first layer keeps three channels, the second one.

    Args:
        netdef: the network.
        importance: of its channels.
        target: how much is to go, and what every layer keeps.
        strategy: which groups may be cut, and who decides on a unit, see `unit_importance`.
        blocks: the shortcuts, ascending, of residual blocks that go as well, within the budget.

    Raises:
        InputError: there is nothing that the strategy may cut.
    """
    rest = trim(netdef, blocks)
    by_layer = {new: importance[old] for old, new in rest.moved.items() if old in importance}
    by_group = {
        group.number: unit_importance(group, by_layer, strategy)
        for group in rest.groups.groups
        if may_cut(strategy, group)
    }
    if not by_group and not blocks:
        reasons = {group.kept_because or "a shortcut adds it" for group in rest.groups.groups}
        raise InputError(
            f"{netdef.name}: expected channels that {strategy!r} may cut, found none: "
            + "; ".join(sorted(reasons))
        )
    counted = cuttable_units(channel_groups(netdef), strategy)
    whole = GroupCosts(netdef, counted)
    budget = (1 - target.percent) * whole.count(whole.sizes, target.percent_of)
    shares = target.shares_by_layer
    expect_layer_shares(netdef, shares, strategy)
    left = {rest.moved[layer]: share for layer, share in shares.items() if layer in rest.moved}
    costs = GroupCosts(rest.netdef, counted[rest.units])
    threshold = _Threshold(costs, by_group, budget, target, left)
    return Plan(netdef, rest.whole_mask(_keep_best(rest.groups, by_group, threshold.fit())), blocks)


def unit_importance(group: Group, importance: Importance, strategy: str) -> Floats:
    """[units of the group]: the importance of a unit, which may have channels in several layers.

    It is the largest that any deciding member gives to a channel of the unit, so a unit stays as
    long as any layer needs it; for `shortcut`, the largest that the first deciding member gives.
    """
    by_member = [importance[m.layer][m.positions].max(1) for m in group.deciding_members]
    return by_member[0] if strategy == "shortcut" else np.asarray(np.max(by_member, axis=0))


def _keep_best(groups: ChannelGroups, by_group: Mapping[int, Floats], counts: Ints) -> Bools:
    """[units]: of each group so many of its most important units; of equal ones, the first."""
    keep = np.ones(groups.count, bool)
    for number, values in by_group.items():
        order = np.argsort(-values, kind="stable")
        keep[groups.groups[number].units[order[counts[number] :]]] = False
    return keep


class _Threshold:
    """The line of units, and how many each group keeps when the first `cut` of the line go.

    Counts are int64 [groups] throughout.
    """

    def __init__(
        self,
        costs: GroupCosts,
        by_group: Mapping[int, Floats],
        budget: float,
        target: Pruning,
        shares: Mapping[int, float] = NO_SHARES,
    ) -> None:
        """The line. shares: by layer, what is fixed, and so does not stand in the line."""
        self.costs, self.budget, self.target = costs, budget, target
        self.steps = [group_step(group, target.round_to) for group in costs.groups]
        self.least = [
            least_count(size, target.layer_keep, step)
            for size, step in zip(costs.sizes.tolist(), self.steps, strict=True)
        ]
        self.fixed = fixed_counts(costs.groups, shares, dict(enumerate(self.steps)))
        self.falling = {
            number: -np.sort(-values)
            for number, values in by_group.items()
            if number not in self.fixed
        }
        self.line = self._line()

    def _line(self) -> Ints:
        """By place in the line, the number of the unit's group."""
        places = [
            (value, number, place)
            for number, values in self.falling.items()
            for place, value in enumerate(values[::-1][: len(values) - self.least[number]].tolist())
        ]
        return np.array([number for _, number, _ in sorted(places)], np.int64)

    def counts(self, cut: int) -> Ints:
        """What each group keeps when the first units of the line go, rounded up."""
        raw = self.costs.sizes - np.bincount(self.line[:cut], minlength=len(self.costs.sizes))
        groups = zip(raw.tolist(), self.costs.sizes.tolist(), self.steps, self.least, strict=True)
        counts = np.array([min(n, max(low, round_up(c, step))) for c, n, step, low in groups])
        counts[list(self.fixed)] = list(self.fixed.values())
        return counts

    def cost(self, counts: Ints) -> float:
        return self.costs.count(counts, self.target.percent_of)

    def fits(self, counts: Ints) -> bool:
        return self.cost(counts) <= self.budget * (1 + 1e-12)

    def least_cut(self, low: int) -> int:
        """How many units of the line go at least, no fewer than `low`, so that the rest fits."""
        high = len(self.line)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.fits(self.counts(middle)) else (middle + 1, high)
        return low

    def fit(self) -> Ints:
        """What each group keeps so that the cost is within the budget, or as near as may be."""
        far = TOLERANCE * self.cost(self.costs.sizes)
        cut = self.least_cut(0)
        best = counts = self.give_back(self.counts(cut))
        while cut and self.fits(counts) and self.budget - self.cost(best) > far:
            before, rest = self.line[: cut - 1], self.line[cut - 1 :]
            self.line = np.append(before, rest[rest != rest[0]])  # that group loses no more units
            cut = self.least_cut(cut - 1)
            counts = self.give_back(self.counts(cut))
            best = max(best, counts, key=self.cost) if self.fits(counts) else best
        return best

    def give_back(self, counts: Ints) -> Ints:
        """Raise counts, the most important unit first, as long as the budget lasts."""
        if not self.fits(counts):
            return counts
        growing = set(self.falling)
        while growing := {n for n in growing if counts[n] < self.costs.sizes[n]}:
            best = max(growing, key=lambda n: (self.falling[n][counts[n]], -n))
            more = counts.copy()
            more[best] = min(
                self.costs.sizes[best], round_up(int(counts[best]) + 1, self.steps[best])
            )
            if self.fits(more):
                counts = more
            else:
                growing.remove(best)
        return counts


def least_count(size: int, layer_keep: float, step: int) -> int:
    """How many of a group's `size` units stay at least: the share, at least one, rounded up."""
    return min(size, round_up(max(1, math.ceil(layer_keep * size - 1e-9)), step))


def group_step(group: Group, round_to: int, fast: int = FAST_STEP) -> int:
    """How many units make a multiple of `round_to` channels in every layer of a group.

    Where `round_to` is 0, it is a multiple of `fast`, or less in a narrow group.
    """
    if not round_to:
        round_to = fast
        while round_to > max(1, len(group) // COARSEST):
            round_to //= 2
    return math.lcm(*(round_to // math.gcd(round_to, m.positions.shape[1]) for m in group.members))


def round_up(count: int, step: int) -> int:
    """The least multiple of a step that is no less."""
    return -(-count // step) * step


def rank_blocks(netdef: NetDef, importance: Importance, keep: Bools) -> list[Block]:
    """The removable blocks, the least important first; of equal ones, the first in the network.

    A block's importance is the mean over the channels, among those that `keep` [units] keeps, that
    its last convolutions add to the trunk.

    Raises:
        InputError: there is no such block, or none with batch normalisation at its end.
    """
    kept = channel_groups(netdef).layer_masks(keep)
    means = {}
    for block in expect_blocks(netdef, netdef.name):
        added = [importance[n][kept[n]] for n in block.writers if n in importance]
        if added:
            means[block] = float(np.concatenate(added).mean())
    if not means:
        raise InputError(
            f"{netdef.name}: expected batch normalisation at the end of a residual block"
        )
    return sorted(means, key=lambda block: (means[block], block.shortcut))


def shares_of_blocks(costs: GroupCosts, ranked: Sequence[Block], measure: Measure) -> list[float]:
    """What goes with the first block, the first two, and so on, as a share of the whole."""
    by_layer = costs.by_layer(costs.sizes, measure)
    total = sum(by_layer.values())
    removed: set[int] = set()
    shares = []
    for block in ranked:
        removed |= {block.shortcut, *block.inside}
        shares.append(sum(by_layer.get(n, 0.0) for n in removed) / (total or 1))
    return shares
