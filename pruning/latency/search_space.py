"""What may be chosen in a network: widths by group, blocks; and the terms of its latency."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.darknet import shapes
from models.netdef import NetDef, Section
from pruning.channels import Bools, ChannelGroups, Group, Ints, channel_groups
from pruning.importance import Importance
from pruning.latency.options import DEFAULTS, SearchOptions
from pruning.residual_blocks import residual_blocks
from pruning.selection import group_step, round_up
from pruning.surgeon import Plan
from utils.errors import InputError

Floats = NDArray[np.float64]
# (layer, channels read, channels written) → milliseconds; the arrays have one shape.
LayerLatency = Callable[[int, Floats, Floats], Floats]
WITHOUT_TIME = ("yolo", "dropout")  # layers that only stand for something


@dataclass(frozen=True)
class Configuration:
    """One network of the search space.

    Attributes:
        counts: by group, the units that are kept.
        removed_blocks: the shortcuts of residual blocks that are removed, ascending.
    """

    counts: tuple[int, ...]
    removed_blocks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Width:
    """A number of channels: what is fixed, and so many for each unit that a group keeps.

    Attributes:
        fixed: channels that cannot be cut.
        parts: (group, channels a unit), ascending.
    """

    fixed: int
    parts: tuple[tuple[int, int], ...]

    def channels(self, counts: Sequence[int]) -> int:
        """The number of channels where the groups keep `counts` units."""
        return self.fixed + sum(per_unit * counts[group] for group, per_unit in self.parts)


@dataclass(frozen=True)
class LatencyTerm:
    """A layer that takes time.

    Attributes:
        layer: its number.
        reads: the channels that it reads.
        writes: the channels that it writes.
        block: the innermost removable block (its shortcut) that it is in; -1 for none.
        tied: what it writes says what it reads.
    """

    layer: int
    reads: Width
    writes: Width
    block: int
    tied: bool


@dataclass(frozen=True, eq=False)
class SearchSpace:
    """The networks that cuts can make of one: how many units each group keeps, which blocks stay.

    Attributes:
        netdef: the network as it is.
        channels: its channels and their groups.
        terms: the layers whose milliseconds add up to the network's.
        group_blocks: by group, the innermost block that holds all of its convolutions; -1 for none.
        outer_blocks: by block, the one around it; -1 for none.
    """

    netdef: NetDef
    channels: ChannelGroups
    terms: tuple[LatencyTerm, ...]
    group_blocks: tuple[int, ...]
    outer_blocks: Mapping[int, int]

    @property
    def groups(self) -> tuple[Group, ...]:
        """The channels that are kept or removed together."""
        return self.channels.groups

    @property
    def uncut(self) -> Configuration:
        """The network as it is."""
        return Configuration(tuple(len(group) for group in self.groups))

    def can_cut(self, number: int) -> bool:
        """Whether a group's units may be cut."""
        return not self.groups[number].kept_because

    @property
    def can_cut_channels(self) -> bool:
        """Whether the units of any group may be cut."""
        return any(map(self.can_cut, range(len(self.groups))))

    def latency(self, layer_latency: LayerLatency, configuration: Configuration) -> float:
        """Milliseconds of all layers that a configuration leaves."""
        layers = self.layers(configuration)
        return sum((float(layer_latency(*layer)[0]) for layer in layers), 0.0)

    def layers(self, configuration: Configuration) -> Iterator[tuple[int, Floats, Floats]]:
        """The layers that a configuration leaves, and the channels that each reads and writes."""
        removed = self.with_inner_blocks(configuration.removed_blocks)
        for term in self.terms:
            if term.block not in removed:
                reads, writes = (
                    np.array([width.channels(configuration.counts)], float)
                    for width in (term.reads, term.writes)
                )
                yield term.layer, reads, writes

    def with_inner_blocks(self, blocks: Sequence[int]) -> set[int]:
        """These blocks and those in them."""
        removed = set(blocks)
        for block in sorted(self.outer_blocks, reverse=True):  # an outer block's shortcut is later
            if self.outer_blocks[block] in removed:
                removed.add(block)
        return removed

    def without(self, blocks: Sequence[int]) -> SearchSpace:
        """What is left to choose once blocks are removed. Groups inside them take no time."""
        removed = self.with_inner_blocks(blocks)
        return replace(
            self,
            terms=tuple(term for term in self.terms if term.block not in removed),
            group_blocks=tuple(-1 if block in removed else block for block in self.group_blocks),
            outer_blocks={
                block: outer for block, outer in self.outer_blocks.items() if block not in removed
            },
        )

    def alike_blocks(self) -> list[tuple[int, ...]]:
        """Blocks of one trunk that save the same time, whichever of them go: their shortcuts."""
        maps = shapes(self.netdef)
        inside: dict[int, list[LatencyTerm]] = {block: [] for block in self.outer_blocks}
        for term in self.terms:
            inside.get(term.block, []).append(term)
        alike: dict[object, list[int]] = {}
        for block, terms in sorted(inside.items()):
            sections = [self.netdef.layers[term.layer] for term in terms]
            layers = tuple(
                (section.kind, maps[term.layer], *_without_links(section))
                for term, section in zip(terms, sections, strict=True)
            )
            holds_others = block if block in self.outer_blocks.values() else -1
            trunk = terms[-1].writes
            key = (trunk, layers, self.outer_blocks[block], holds_others)
            alike.setdefault(key, []).append(block)
        return [tuple(blocks) for blocks in alike.values()]

    def configuration(self, plan: Plan) -> Configuration:
        """What a plan makes of the network."""
        counts = tuple(int(plan.keep[group.units].sum()) for group in self.groups)
        return Configuration(counts, plan.blocks)


def _without_links(section: Section) -> list[tuple[str, str]]:
    """What a section says but for where its maps come from."""
    return sorted(item for item in section.options.items() if item[0] not in ("from", "layers"))


def find_search_space(netdef: NetDef) -> SearchSpace:
    """The search space of a network."""
    channels = channel_groups(netdef)
    owners = _owners(channels)
    insides = {b.shortcut: {*b.inside, b.shortcut} for b in residual_blocks(netdef)}
    blocks_around = [
        {block for block, inside in insides.items() if layer in inside}
        for layer in range(len(netdef.layers))
    ]
    by_size = sorted(insides, key=lambda block: len(insides[block]))

    def innermost(blocks: set[int]) -> int:
        return next((block for block in by_size if block in blocks), -1)

    terms = []
    for index, section in enumerate(netdef.layers):
        sources = netdef.sources(index)
        if section.kind in WITHOUT_TIME or (section.kind == "route" and len(sources) == 1):
            continue
        writes = _width(channels, owners, channels.outputs[index])
        untied = section.kind == "convolutional" and section.integer("groups", 1) == 1
        read = channels.outputs[sources[0]] if section.kind != "route" else channels.outputs[index]
        reads = _width(channels, owners, read)
        terms.append(LatencyTerm(index, reads, writes, innermost(blocks_around[index]), not untied))
    group_blocks = tuple(
        innermost(set.intersection(*(blocks_around[member.layer] for member in group.members)))
        for group in channels.groups
    )
    outer_blocks = {block: innermost(blocks_around[block] - {block}) for block in insides}
    return SearchSpace(netdef, channels, tuple(terms), group_blocks, outer_blocks)


def expect_search_space(netdef: NetDef) -> SearchSpace:
    """The search space of a network that has something to cut.

    Raises:
        InputError: it has nothing to cut.
    """
    space = find_search_space(netdef)
    if not space.outer_blocks and not space.can_cut_channels:
        reasons = "; ".join(sorted({group.kept_because for group in space.groups}))
        raise InputError(
            f"{netdef.name}: expected channels that 'latency' may cut, found none: {reasons}"
        )
    return space


def _owners(channels: ChannelGroups) -> Ints:
    """By unit, its group; -1 for the image's."""
    owners = np.full(channels.count, -1)
    for number, group in enumerate(channels.groups):
        owners[group.units] = number
    return owners


def _width(channels: ChannelGroups, owners: Ints, units: Ints) -> Width:
    numbers, counts = np.unique(owners[units], return_counts=True)
    fixed, parts = 0, []
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        if number < 0 or channels.groups[number].kept_because:
            fixed += count
        else:
            parts.append((number, count // len(channels.groups[number])))
    return Width(fixed, tuple(parts))


def width_options(
    space: SearchSpace,
    layer_keep: float,
    channel_step: int,
    round_to: int = 0,
    options: SearchOptions = DEFAULTS,
) -> list[list[int]]:
    """By group, the numbers of units that it may keep, ascending.

    There are at most `widths_per_group`, each wider than the one before by about one factor.

    Args:
        space: what may be cut.
        layer_keep: the share of its units that a group keeps at least.
        channel_step: widths are multiples of so many channels (less in narrow groups),
        round_to: or of so many, where this is above 0.
        options: says how many.
    """
    widths = []
    for number, group in enumerate(space.groups):
        size = len(group)
        if not space.can_cut(number):
            widths.append([size])
            continue
        step = group_step(group, round_to, channel_step)
        least = min(size, round_up(max(1, math.ceil(layer_keep * size - 1e-9)), step))
        ideal = np.geomspace(least, size, options.widths_per_group).tolist()
        widths.append(sorted({min(size, round_up(round(count), step)) for count in ideal}))
    return widths


def random_configurations(
    space: SearchSpace,
    options: Sequence[Sequence[int]],
    count: int,
    rng: np.random.Generator,
    block_removal: float = DEFAULTS.block_removal,
) -> Iterator[Configuration]:
    """Cuts of every extent, from none to all that the options allow, the same for no two layers.

    Args:
        space: what may be cut.
        options: by group, the numbers of units that it may keep, ascending.
        count: how many configurations; the first ones are the widest.
        rng: where the random numbers come from.
        block_removal: the chance of a block to be removed in the narrowest of them.
    """
    for number in range(count):
        extent = number / max(1, count - 1)
        shares = np.clip((1 - 0.9 * extent) * rng.uniform(1 - extent / 2, 1.5, len(options)), 0, 1)
        counts = [
            widths[round(share * (len(widths) - 1))]
            for widths, share in zip(options, shares, strict=True)
        ]
        blocks = [b for b in space.outer_blocks if rng.random() < block_removal * extent]
        yield Configuration(tuple(counts), tuple(sorted(blocks)))


@dataclass(frozen=True, eq=False)
class RankedUnits:
    """A network's units by their importance.

    Attributes:
        order: by group, its units, the most important first.
        cumulative: by convolution that importance is known of, its group and [units + 1], the
            importance of its channels in the first 0, 1, …, n units of that order.
    """

    order: tuple[Ints, ...]
    cumulative: Mapping[int, tuple[int, Floats]]

    def keep(self, channels: ChannelGroups, counts: Sequence[int]) -> Bools:
        """The mask that keeps so many of each group's most important units."""
        keep = np.ones(channels.count, bool)
        for group, order, count in zip(channels.groups, self.order, counts, strict=True):
            keep[group.units[order[count:]]] = False
        return keep


def rank_units(space: SearchSpace, importance: Importance) -> RankedUnits:
    """Order each group's units: one is as important as its channels together, which go with it."""
    orders = []
    cumulative: dict[int, tuple[int, Floats]] = {}
    for number, group in enumerate(space.groups):
        by_layer = {
            m.layer: importance[m.layer][m.positions].sum(1) for m in group.deciding_members
        }
        total = sum(by_layer.values(), np.zeros(len(group)))
        ranked = np.argsort(-total, kind="stable")
        orders.append(ranked if space.can_cut(number) else np.arange(len(group)))
        for layer, units in by_layer.items():
            cumulative[layer] = (number, np.append(0.0, np.cumsum(units[orders[-1]])))
    return RankedUnits(tuple(orders), cumulative)
