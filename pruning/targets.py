"""How much of a network is to go, and how much of it went?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from import_param import Pruning
from models.darknet import shapes
from models.netdef import NetDef
from pruning.channels import Bools, ChannelGroups, Group, Ints, channel_groups
from pruning.residual_blocks import Block, residual_blocks, without_blocks
from pruning.surgeon import Plan, same_units

Floats = NDArray[np.float64]
Measure = Literal["channels", "parameters", "operations"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
NEAR = 0.01  # of the whole: a share that is further off what was asked is told


@dataclass(frozen=True)
class CutShares:
    """The shares of a network that a plan takes away, 0 to 1.

    channels: of those that the strategy may cut. parameters, operations: of all.
    blocks: of the removable residual blocks; 0 where there is none.
    """

    channels: float
    parameters: float
    operations: float
    blocks: float

    def of(self, what: str) -> float:
        """what: as `target_measure` names it."""
        return float(getattr(self, what))


def target_measure(strategy: str, percent_of: str) -> str:
    """What `percent` is a share of: for `layer`, channels mean the residual blocks."""
    return "blocks" if strategy == "layer" and percent_of == "channels" else percent_of


def deviation_note(strategy: str, target: Pruning, shares: CutShares) -> str:
    """By how much a cut is not what was asked for, and why; empty where it is."""
    reached = shares.of(target_measure(strategy, target.percent_of))
    if abs(reached - target.percent) <= NEAR:
        return ""
    text = f"percent={target.percent:g}: {reached:.3f} reached"
    if strategy == "layer":
        why = "no more may go" if shares.blocks == 1 else "these come nearest"
        return f"{text}: whole blocks go, and {why}"
    if reached < target.percent:
        return (
            f"{text}: layer_keep={target.layer_keep:g} and round_to={target.round_to} allow no more"
        )
    return f"{text}: with round_to={target.round_to} nothing nearer was found"


def may_cut(strategy: str, group: Group) -> bool:
    """Whether a strategy may cut channels of a group."""
    if group.kept_because or strategy == "layer":
        return False
    return not (strategy == "normal" and group.added)


def cuttable_units(channels: ChannelGroups, strategy: str) -> Bools:
    """[units], whether a strategy may cut them."""
    found = np.zeros(channels.count, bool)
    for group in channels.groups:
        found[group.units] = may_cut(strategy, group)
    return found


def cut_shares(netdef: NetDef, plan: Plan, strategy: str) -> CutShares:
    """What a plan of a strategy takes away, counted on the definitions alone."""
    every = channel_groups(netdef)
    counted = cuttable_units(every, strategy)
    whole = GroupCosts(netdef, every, counted)
    trimmed, channels, units = without(netdef, plan.blocks)
    rest = GroupCosts(trimmed, channels, counted[units])
    counts = rest.counts(plan.keep[units])
    totals = {name: whole.count(whole.sizes, name) for name in MEASURES}
    gone = {name: 1 - rest.count(counts, name) / (totals[name] or 1) for name in MEASURES}
    if not totals["channels"]:
        gone["channels"] = 0.0
    chosen = [block for block in residual_blocks(netdef) if block.shortcut in plan.blocks]
    return CutShares(**gone, blocks=blocks_share(netdef, chosen))


def savings(netdef: NetDef, measure: str) -> tuple[dict[int, float], dict[int, float]]:
    """What goes with one unit of each group, and with each removable block, all else being whole.

    measure: `parameters` or `operations`. Returns them by the number of a group's first unit, and
    by a block's shortcut.
    """
    channels = channel_groups(netdef)
    costs = GroupCosts(netdef, channels)
    total = costs.count(costs.sizes, measure)
    by_layer = costs.by_layer(costs.sizes, measure)
    units = {
        int(group.units[0]): total - costs.count(costs.sizes - one, measure)
        for group, one in zip(channels.groups, np.eye(len(costs.sizes), dtype=int), strict=True)
    }
    blocks = {
        block.shortcut: sum(by_layer.get(n, 0.0) for n in (block.shortcut, *block.inside))
        for block in residual_blocks(netdef)
    }
    return units, blocks


def blocks_share(netdef: NetDef, chosen: Sequence[Block]) -> float:
    """The share of the removable blocks that go with some: these, and the blocks inside them."""
    blocks = residual_blocks(netdef)
    gone = {layer for block in chosen for layer in (block.shortcut, *block.inside)}
    return sum(block.shortcut in gone for block in blocks) / max(1, len(blocks))


def without(netdef: NetDef, blocks: Sequence[int]) -> tuple[NetDef, ChannelGroups, Ints]:
    """The net without blocks, its channels, and for each of its units its number in the whole."""
    whole = channel_groups(netdef)
    if not blocks:
        return netdef, whole, np.arange(whole.count)
    trimmed, moved = without_blocks(netdef, blocks)
    channels = channel_groups(trimmed)
    return trimmed, channels, same_units(whole, channels, moved)


class GroupCosts:
    """What a network costs, given how many units of each group it keeps.

    sizes: [groups], how many units each has. counted: [units], those whose channels are counted
    where `channels` are asked for; without blocks, those of the whole network that still are.
    """

    def __init__(
        self, netdef: NetDef, channels: ChannelGroups, counted: Bools | None = None
    ) -> None:
        self.groups = channels.groups
        self.sizes = np.array([len(group) for group in channels.groups])
        self._group_of = np.full(channels.count, len(self.sizes))  # the image's units are last
        for number, group in enumerate(channels.groups):
            self._group_of[group.units] = number
        every = np.ones(channels.count, bool) if counted is None else counted
        self._counted = np.array([every[group.units].mean() for group in channels.groups])
        outputs = shapes(netdef)
        rows = {i: self._row(netdef, channels, outputs, i) for i in range(len(netdef.layers))}
        self._layers = [index for index, row in rows.items() if row is not None]
        table = [row for row in rows.values() if row is not None]
        self._inputs = np.array([row["inputs"] for row in table])  # [rows, groups + 1]
        self._fixed = np.array([row["fixed"] for row in table])  # used where not 0, see `_row`
        self._outputs = np.array([row["outputs"] for row in table])
        self._kernel, self._extra, self._pixels, self._constant = (
            np.array([row[key] for row in table], float)
            for key in ("kernel", "extra", "pixels", "constant")
        )

    def _widths(self, units: Ints) -> Floats:
        """By group, the channels that each of its units has among these; last, the image's."""
        found = np.bincount(self._group_of[units], minlength=len(self.sizes) + 1)
        return found / np.append(self.sizes, 1)

    def _row(
        self, netdef: NetDef, channels: ChannelGroups, outputs: list[Any], index: int
    ) -> dict[str, Any] | None:
        """One layer's weights: kernel · inputs · outputs, `extra` for each output, `constant`.

        fixed: what stands for the inputs of a convolution with groups, whose number never changes.
        """
        section = netdef.layers[index]
        widths = self._widths(channels.outputs[index])
        row = {"inputs": widths * 0, "fixed": 0, "outputs": widths, "kernel": 0, "extra": 0,
               "constant": 0, "pixels": outputs[index][1] * outputs[index][2]}  # fmt: skip
        sources = netdef.sources(index)
        if section.kind == "shortcut":
            weights = section.options.get("weights_type", "none")
            each = "extra" if weights == "per_channel" else "constant"
            return None if weights == "none" else row | {each: len(sources)}
        if section.kind != "convolutional":
            return None
        units = channels.outputs[sources[0]]
        groups = section.integer("groups", 1)
        return row | {
            "inputs": self._widths(units),
            "fixed": len(units) // groups if groups > 1 else 0,
            "kernel": section.integer("size", 1) ** 2,
            "extra": 2 if section.flag("batch_normalize") else 1,
        }

    def counts(self, keep: Bools) -> Ints:
        """By group, how many units a mask keeps."""
        found = np.bincount(self._group_of, keep, len(self.sizes) + 1)[: len(self.sizes)]
        return found.astype(np.int64)

    def by_layer(self, counts: Ints, measure: str) -> dict[int, float]:
        """counts: [groups]. Each layer's channels that may be cut, parameters, or operations."""
        return dict(zip(self._layers, self._costs(counts, measure).tolist(), strict=True))

    def count(self, counts: Ints, measure: str) -> float:
        """The same of the whole network."""
        return float(self._costs(counts, measure).sum())

    def _costs(self, counts: Ints, measure: str) -> Floats:
        if measure == "channels":
            return (self._outputs @ np.append(counts * self._counted, 0)) * (self._kernel > 0)
        with_image = np.append(counts, 1)
        outputs = self._outputs @ with_image
        inputs = np.where(self._fixed > 0, self._fixed, self._inputs @ with_image)
        weights = self._kernel * inputs * outputs
        if measure == "operations":
            return 2 * weights * self._pixels
        return weights + self._extra * outputs + self._constant
