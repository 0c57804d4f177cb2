"""How much of a network is to go, and how much of it went?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from import_param import Pruning
from models.costs import layer_costs
from models.netdef import NetDef
from pruning.channels import Bools, ChannelGroups, Group, Ints, channel_groups
from pruning.residual_blocks import Block, residual_blocks
from pruning.surgeon import Plan, trim

Floats = NDArray[np.float64]
Measure = Literal["channels", "parameters", "operations"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
TOLERANCE = 0.01  # of the whole: a share that is further off what was asked is told


@dataclass(frozen=True)
class CutShares:
    """The shares of a network that a plan takes away, 0 to 1.

    Attributes:
        channels: of those that the strategy may cut.
        parameters: of all.
        operations: of all.
        blocks: of the removable residual blocks; 0 where there is none.
    """

    channels: float
    parameters: float
    operations: float
    blocks: float

    def of(self, measure: str) -> float:
        """The share of what `target_measure` names."""
        return float(getattr(self, measure))


def target_measure(strategy: str, percent_of: str) -> str:
    """What `percent` is a share of: for `layer`, channels mean the residual blocks."""
    return "blocks" if strategy == "layer" and percent_of == "channels" else percent_of


def deviation_note(strategy: str, target: Pruning, shares: CutShares) -> str:
    """By how much a cut is not what was asked for, and why; empty where it is."""
    reached = shares.of(target_measure(strategy, target.percent_of))
    if abs(reached - target.percent) <= TOLERANCE:
        return ""
    text = f"percent={target.percent:g}: {reached:.3f} reached"
    if strategy.partition(":")[2]:
        return f"{text}: {strategy} decides"
    if strategy == "layer":
        why = "no more may go" if shares.blocks == 1 else "these come nearest"
        return f"{text}: whole blocks go, and {why}"
    if reached < target.percent:
        return f"{text}: {_limits(target)} allow no more"
    return f"{text}: with round_to={target.round_to} nothing nearer was found"


def _limits(target: Pruning) -> str:
    """The settings that limit a cut, in words."""
    limits = [f"layer_keep={target.layer_keep:g}", f"round_to={target.round_to}"]
    for name in ("protected", "layer_shares"):
        if values := getattr(target, name):
            limits.insert(0, f"{name}={' '.join(map(str, values))}")
    return f"{', '.join(limits[:-1])} and {limits[-1]}"


def may_cut(strategy: str, group: Group) -> bool:
    """Whether a strategy may cut channels of a group."""
    if group.kept_because or strategy == "layer":
        return False
    return not (strategy == "normal" and group.added)


def cuttable_units(groups: ChannelGroups, strategy: str) -> Bools:
    """[units], whether a strategy may cut them."""
    cuttable = np.zeros(groups.count, bool)
    for group in groups.groups:
        cuttable[group.units] = may_cut(strategy, group)
    return cuttable


def cut_shares(plan: Plan, strategy: str) -> CutShares:
    """What a plan of a strategy takes away, counted on the definitions alone."""
    counted = cuttable_units(plan.groups, strategy)
    whole = GroupCosts(plan.netdef, counted)
    trimmed = trim(plan.netdef, plan.blocks)
    rest = GroupCosts(trimmed.netdef, counted[trimmed.units])
    counts = rest.counts(plan.keep[trimmed.units])
    totals = {name: whole.count(whole.sizes, name) for name in MEASURES}
    shares = {name: 1 - rest.count(counts, name) / (totals[name] or 1) for name in MEASURES}
    if not totals["channels"]:
        shares["channels"] = 0.0
    removed = [block for block in residual_blocks(plan.netdef) if block.shortcut in plan.blocks]
    return CutShares(**shares, blocks=blocks_share(plan.netdef, removed))


def blocks_share(netdef: NetDef, removed: Sequence[Block]) -> float:
    """The share of the removable blocks that go with some: these, and the blocks inside them."""
    blocks = residual_blocks(netdef)
    layers = {layer for block in removed for layer in (block.shortcut, *block.inside)}
    return sum(block.shortcut in layers for block in blocks) / max(1, len(blocks))


def savings(netdef: NetDef, measure: Measure) -> tuple[dict[int, float], dict[int, float]]:
    """What goes with one unit of each group, and with each removable block, all else being whole.

    Returns:
        By a group's number, and by a block's shortcut.
    """
    costs = GroupCosts(netdef)
    total = costs.count(costs.sizes, measure)
    by_layer = costs.by_layer(costs.sizes, measure)
    units = {
        group.number: total - costs.count(costs.sizes - one, measure)
        for group, one in zip(costs.groups, np.eye(len(costs.sizes), dtype=int), strict=True)
    }
    blocks = {
        block.shortcut: sum(by_layer.get(n, 0.0) for n in (block.shortcut, *block.inside))
        for block in residual_blocks(netdef)
    }
    return units, blocks


class GroupCosts:
    """What a network costs, given how many units of each group it keeps.

    Attributes:
        groups: the network's.
        sizes: int64 [groups], how many units each has.
    """

    def __init__(self, netdef: NetDef, counted: Bools | None = None) -> None:
        """Prepare a network.

        Args:
            netdef: the network.
            counted: [units], those that count as `channels`; None for all.
        """
        channels = channel_groups(netdef)
        self.groups = channels.groups
        self.sizes = np.array([len(group) for group in channels.groups])
        every = np.ones(channels.count, bool) if counted is None else counted
        self._counted = np.array([every[group.units].mean() for group in channels.groups])
        self._costs = layer_costs(netdef)
        layers = self._costs.layers.tolist()
        self._reads = self._widths(channels, [netdef.sources(layer)[0] for layer in layers])
        self._writes = self._widths(channels, layers)

    def _widths(self, channels: ChannelGroups, layers: Sequence[int]) -> Floats:
        """[layers, groups + 1]: a map's channels for each unit of a group; last, the image's."""
        rows = [
            np.bincount(channels.group_of_unit[channels.outputs[n]], minlength=len(self.sizes) + 1)
            for n in layers
        ]
        return np.asarray(np.array(rows) / np.append(self.sizes, 1))

    def counts(self, keep: Bools) -> Ints:
        """[groups], how many of its units a mask over the units keeps."""
        return np.array([int(keep[group.units].sum()) for group in self.groups], np.int64)

    def by_layer(self, counts: Ints, measure: Measure) -> dict[int, float]:
        """The channels that may be cut, the parameters or the operations of each layer.

        Args:
            counts: [groups], how many units they keep.
            measure: which of the three.
        """
        layers = self._costs.layers.tolist()
        return dict(zip(layers, self._measure(counts, measure).tolist(), strict=True))

    def count(self, counts: Ints, measure: Measure) -> float:
        """The same of the whole network."""
        return float(self._measure(counts, measure).sum())

    def _measure(self, counts: Ints, measure: Measure) -> Floats:
        if measure == "channels":
            convolutions = self._costs.kernel > 0
            return np.asarray((self._writes @ np.append(counts * self._counted, 0)) * convolutions)
        with_image = np.append(counts, 1)
        reads, writes = self._reads @ with_image, self._writes @ with_image
        if measure == "operations":
            return self._costs.operations(reads, writes)
        return self._costs.parameters(reads, writes)
