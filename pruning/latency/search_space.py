"""Which choices does a network leave, and which of them decide what a layer costs and is worth?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.netdef import NetDef
from pruning.channels import Bools, Channels, Group, Ints, find_channels
from pruning.importance import Scores
from pruning.residual_blocks import residual_blocks
from pruning.surgeon import Plan

Floats = NDArray[np.float64]
# (layer, channels read, channels written) → milliseconds; the arrays have one shape.
LayerCost = Callable[[int, Floats, Floats], Floats]
FREE = ("yolo", "dropout")  # layers that only stand for something


@dataclass(frozen=True)
class Width:
    """A number of channels: what is fixed, and so many for each unit that a group keeps.

    parts: (group, channels a unit), ascending.
    """

    fixed: int
    parts: tuple[tuple[int, int], ...]

    def of(self, counts: Sequence[int] | Ints) -> int:
        return self.fixed + sum(each * int(counts[group]) for group, each in self.parts)


@dataclass(frozen=True)
class Term:
    """A layer that costs: what it reads and writes, and the innermost removable block (its
    shortcut) that it is in; -1 for none. narrow: what it writes says what it reads."""

    layer: int
    reads: Width
    writes: Width
    block: int
    narrow: bool


@dataclass(frozen=True, eq=False)
class Layout:
    """A network as a set of choices: how many units each group keeps, and which blocks stay.

    homes: by group, the innermost block that holds all of its convolutions; -1 for none.
    outer: by block, the one around it; -1 for none.
    """

    netdef: NetDef
    channels: Channels
    terms: tuple[Term, ...]
    homes: tuple[int, ...]
    outer: Mapping[int, int]

    @property
    def groups(self) -> tuple[Group, ...]:
        return self.channels.groups

    def free(self, number: int) -> bool:
        """Whether a group's units may be cut."""
        return not self.groups[number].kept_because

    @property
    def any_free(self) -> bool:
        return any(map(self.free, range(len(self.groups))))

    def cost(self, cost: LayerCost, counts: Sequence[int] | Ints, blocks: Sequence[int]) -> float:
        """Milliseconds of all layers, where the groups keep `counts` and `blocks` are gone."""
        gone = self.gone(blocks)
        total = 0.0
        for term in self.terms:
            if term.block not in gone:
                reads, writes = (np.array([w.of(counts)], float) for w in (term.reads, term.writes))
                total += float(cost(term.layer, reads, writes)[0])
        return total

    def gone(self, blocks: Sequence[int]) -> set[int]:
        """These blocks and those in them."""
        found = set(blocks)
        for block in sorted(self.outer, reverse=True):  # an outer block's shortcut is later
            if self.outer[block] in found:
                found.add(block)
        return found

    def without(self, blocks: Sequence[int]) -> Layout:
        """What is left to choose once these blocks are gone. Groups inside them cost nothing."""
        gone = self.gone(blocks)
        return replace(
            self,
            terms=tuple(term for term in self.terms if term.block not in gone),
            homes=tuple(-1 if home in gone else home for home in self.homes),
            outer={block: outer for block, outer in self.outer.items() if block not in gone},
        )

    def counts(self, plan: Plan) -> list[int]:
        return [int(plan.keep[group.units].sum()) for group in self.groups]


def find_layout(netdef: NetDef) -> Layout:
    channels = find_channels(netdef)
    owners = _owners(channels)
    insides = {b.shortcut: {*b.inside, b.shortcut} for b in residual_blocks(netdef)}
    within = [
        [block for block, inside in insides.items() if layer in inside]
        for layer in range(len(netdef.layers))
    ]
    by_size = sorted(insides, key=lambda block: len(insides[block]))

    def innermost(blocks: set[int]) -> int:
        return next((block for block in by_size if block in blocks), -1)

    terms = []
    for index, section in enumerate(netdef.layers):
        sources = netdef.sources(index)
        if section.kind in FREE or (section.kind == "route" and len(sources) == 1):
            continue
        writes = _width(channels, owners, channels.outputs[index])
        plain = section.kind == "convolutional" and section.integer("groups", 1) == 1
        read = channels.outputs[sources[0]] if section.kind != "route" else channels.outputs[index]
        reads = _width(channels, owners, read)
        terms.append(Term(index, reads, writes, innermost(set(within[index])), not plain))
    homes = tuple(
        innermost(set.intersection(*(set(within[member.layer]) for member in group.members)))
        for group in channels.groups
    )
    outer = {block: innermost(set(within[block]) - {block}) for block in insides}
    return Layout(netdef, channels, tuple(terms), homes, outer)


def _owners(channels: Channels) -> Ints:
    """By unit, its group; -1 for the image's."""
    owners = np.full(channels.count, -1)
    for number, group in enumerate(channels.groups):
        owners[group.units] = number
    return owners


def _width(channels: Channels, owners: Ints, units: Ints) -> Width:
    numbers, counts = np.unique(owners[units], return_counts=True)
    fixed, parts = 0, []
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        if number < 0 or channels.groups[number].kept_because:
            fixed += count
        else:
            parts.append((number, count // len(channels.groups[number])))
    return Width(fixed, tuple(parts))


@dataclass(frozen=True, eq=False)
class Worth:
    """What a network's channels are worth.

    order: by group, its units, the one worth most first. layers: by scored convolution, its group
    and [n + 1], what its channels in the first 0, 1, …, n of these units are worth together.
    """

    order: tuple[Ints, ...]
    layers: Mapping[int, tuple[int, Floats]]

    def keep(self, channels: Channels, counts: Sequence[int]) -> Bools:
        """The mask that keeps so many of each group's best units."""
        keep = np.ones(channels.count, bool)
        for group, order, count in zip(channels.groups, self.order, counts, strict=True):
            keep[group.units[order[count:]]] = False
        return keep


def find_worth(layout: Layout, scores: Scores) -> Worth:
    """A unit is worth what its channels are worth together: all of them go with it."""
    orders = []
    layers: dict[int, tuple[int, Floats]] = {}
    for number, group in enumerate(layout.groups):
        values = {m.layer: scores[m.layer][m.positions].sum(1) for m in group.scored_by}
        total = sum(values.values(), np.zeros(len(group)))
        order = np.argsort(-total, kind="stable") if layout.free(number) else np.arange(len(group))
        orders.append(order)
        for layer, each in values.items():
            layers[layer] = (number, np.append(0.0, np.cumsum(each[order])))
    return Worth(tuple(orders), layers)
