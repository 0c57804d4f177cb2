"""Which channels must live or die together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from models.darknet import propagate, shapes
from models.netdef import NetDef

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

IMAGE = -1  # the image's place among the layers


@dataclass(frozen=True, eq=False)
class Member:
    """A convolution's channels in a group.

    Attributes:
        layer: the convolution's.
        positions: int64 [n, m], the m channels of the layer that belong to each of the n units.
        decides: whether the scales of its batch normalisation say how important a unit is.
    """

    layer: int
    positions: Ints
    decides: bool


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that must be kept or removed together, unit by unit.

    Example: conv A (4 filters) and conv B (4 filters) meet in a shortcut, whose sum conv C reads.
    Their group has 4 units: unit i is filter i of A, filter i of B and input i of C. All units of a
    group are alike: each has as many channels as the others in the same convolutions.

    Attributes:
        number: its place among the network's groups.
        units: int64 [n], their numbers.
        members: the convolutions that write its channels, in order.
        added: whether a shortcut (or sam, scale_channels) combines channels of several layers.
        frozen: why no unit can be cut; empty where any can.
    """

    number: int
    units: Ints
    members: tuple[Member, ...]
    added: bool
    frozen: str

    def __len__(self) -> int:
        """How many units it has."""
        return len(self.units)

    @property
    def deciding_members(self) -> tuple[Member, ...]:
        """Those whose scales say how important a unit is."""
        return tuple(member for member in self.members if member.decides)

    @property
    def kept_because(self) -> str:
        """Why no strategy cuts a unit; empty where one may."""
        if self.frozen or self.deciding_members:
            return self.frozen
        return "it has no batch normalisation, so nothing judges it"


@dataclass(frozen=True, eq=False)
class ChannelGroups:
    """The structure of a network: which of its channels live or die together.

    Units are numbered in the order of their first channels, the image's first.

    Attributes:
        outputs: by layer, int64 [channels], the unit that each output channel belongs to; -1 is the
            image.
        groups: the units of all convolutions, each in one group.
        count: how many units there are.
    """

    outputs: Mapping[int, Ints]
    groups: tuple[Group, ...]
    count: int

    @cached_property
    def group_of_unit(self) -> Ints:
        """[units], the number of each unit's group; how many groups there are for the image's."""
        numbers = np.full(self.count, len(self.groups))
        for group in self.groups:
            numbers[group.units] = group.number
        return numbers

    def layer_masks(self, keep: Bools) -> dict[int, Bools]:
        """By layer, which output channels a mask over the units keeps."""
        return {layer: keep[units] for layer, units in self.outputs.items()}


@lru_cache(maxsize=64)
def channel_groups(netdef: NetDef) -> ChannelGroups:
    r"""The structure of a network; worked out once for equal networks.

    It walks the layers with the ids of channels: an add unites them, a concatenation joins them.

    - A convolution's outputs are new channels. One with groups reads each input channel for some
      of its outputs only: those and the inputs of one of its groups live or die together. So a
      depthwise convolution loses single channels, and any other a whole group of its own.
    - Of maps with unequal channels, a shortcut adds the first that both have: these are united, and
      the rest of the wider map is free. So a cut leaves as many of them in both, in one order.
    - A grouped route slices into parts of one width: the first channels of all parts live or die
      together, and so on. The maps that [reorg] rearranges and that a [yolo] reads keep theirs.
    - The scales of a convolution decide on a unit where something else reads it than a depthwise
      convolution with batch normalisation: that one makes up for any scale before it, so its own
      scale alone says how important the channel is.

    Two convolutions that a shortcut adds are one group of units; the image has units 0 to 2:

    >>> from models.netdef import parse
    >>> conv = "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=1\n"
    >>> structure = channel_groups(parse("[net]\n" + conv + conv + "[shortcut]\nfrom=-2\n"))
    >>> [(group.units.tolist(), [m.layer for m in group.members]) for group in structure.groups]
    [([3, 4, 5, 6], [0, 1])]

    Raises:
        InputError: the layers do not fit together.
    """
    shapes(netdef)
    return _Walk(netdef).channels()


@dataclass(frozen=True, eq=False)
class _Value:
    """ids: of a tensor's channels. writers: the convolutions whose output it is made of."""

    ids: Ints
    writers: frozenset[int]


class _Walk:
    def __init__(self, netdef: NetDef) -> None:
        self.netdef = netdef
        self.parent: list[int] = []  # of each channel, for finding its unit
        self.frozen: dict[int, str] = {}
        self.added: set[int] = set()
        self.read_as_they_are: set[int] = set()  # convolutions, see `channel_groups`
        image = _Value(self._new(netdef.channels), frozenset())
        self._freeze(image, "it is the image")
        walk = propagate(
            netdef, image, conv=self._conv, add=self._add, cat=_cat, part=self._part,
            other=self._other,
        )  # fmt: skip
        self.values = {IMAGE: image, **dict(enumerate(walk))}

    def _new(self, count: int) -> Ints:
        first = len(self.parent)
        self.parent += range(first, first + count)
        return np.arange(first, first + count)

    def _find(self, channel: int) -> int:
        while self.parent[channel] != channel:
            self.parent[channel] = self.parent[self.parent[channel]]
            channel = self.parent[channel]
        return channel

    def _unite(self, channels: Iterable[int]) -> None:
        roots = {self._find(channel) for channel in channels}
        first = min(roots)
        for root in roots:
            self.parent[root] = first

    def _freeze(self, value: _Value, reason: str) -> None:
        for channel in value.ids.tolist():
            self.frozen.setdefault(channel, reason)

    def _conv(self, index: int, value: _Value) -> _Value:
        section = self.netdef.layers[index]
        groups = section.integer("groups", 1)
        ids = self._new(section.integer("filters", 1))
        if groups > 1:
            inputs = value.ids.reshape(groups, -1)
            for pair in np.hstack([inputs, ids.reshape(groups, -1)]).tolist():
                self._unite(pair)
        if section.flag("protected"):
            self._freeze(_Value(ids, frozenset()), f"layer {index} is protected")
        depthwise = groups > 1 and groups == len(value.ids)
        if not (depthwise and section.flag("batch_normalize")):
            self.read_as_they_are |= value.writers
        return _Value(ids, frozenset([index]))

    def _add(self, index: int, inputs: list[_Value]) -> _Value:
        first, *others = (value.ids for value in inputs)
        for ids in others:  # of a shortcut, perhaps with fewer or more channels
            for together in zip(first.tolist(), ids.tolist(), strict=False):
                self._unite(together)
                self.added.update(together)
        return _Value(inputs[0].ids, frozenset().union(*(value.writers for value in inputs)))

    def _part(self, index: int, value: _Value, groups: int, group_id: int) -> _Value:
        for alike in value.ids.reshape(groups, -1).T.tolist():
            self._unite(alike)
        width = len(value.ids) // groups
        return _Value(value.ids[group_id * width : (group_id + 1) * width], value.writers)

    def _other(self, index: int, value: _Value) -> _Value:
        section = self.netdef.layers[index]
        if section.kind == "yolo":
            self._freeze(value, f"layer {index}, a [yolo], reads it")
            self.read_as_they_are |= value.writers
        if section.kind == "reorg":
            self._freeze(value, f"layer {index} rearranges channels")
            return _Value(np.tile(value.ids, section.integer("stride", 1) ** 2), value.writers)
        return value

    def channels(self) -> ChannelGroups:
        roots = [self._find(channel) for channel in range(len(self.parent))]
        unit_of_root = {root: unit for unit, root in enumerate(dict.fromkeys(roots))}
        units = np.array([unit_of_root[root] for root in roots], np.int64)
        outputs = {layer: units[value.ids] for layer, value in self.values.items()}
        return ChannelGroups(outputs, self._groups(units, outputs), len(unit_of_root))

    def _groups(self, units: Ints, outputs: Mapping[int, Ints]) -> tuple[Group, ...]:
        count = int(units.max()) + 1
        added = np.zeros(count, bool)
        added[units[list(self.added)]] = True
        frozen: dict[int, str] = {}
        for channel, reason in self.frozen.items():
            frozen.setdefault(int(units[channel]), reason)
        reasons = list(dict.fromkeys(frozen.values()))
        alike = added.astype(np.int64)  # units with one number are alike, by all that is seen yet
        for unit, reason in frozen.items():
            alike[unit] += 2 * (1 + reasons.index(reason))
        layers = [n for n, s in enumerate(self.netdef.layers) if s.kind == "convolutional"]
        for layer in layers:
            alike = _told_apart(alike, np.bincount(outputs[layer], minlength=count))
        places: dict[int, dict[int, Ints]] = {}  # group → layer → positions
        for layer in layers:
            numbers = alike[outputs[layer]]
            for number in np.unique(numbers).tolist():
                channels = np.flatnonzero(numbers == number)
                order = np.argsort(outputs[layer][channels], kind="stable")
                places.setdefault(number, {})[layer] = channels[order]
        groups: list[Group] = []
        for number, positions in places.items():
            members = np.flatnonzero(alike == number)
            shaped = {n: channels.reshape(len(members), -1) for n, channels in positions.items()}
            first = int(members[0])
            deciding = self._deciding(shaped)
            of_layers = tuple(Member(n, where, n in deciding) for n, where in shaped.items())
            groups.append(
                Group(len(groups), members, of_layers, bool(added[first]), frozen.get(first, ""))
            )
        return tuple(groups)

    def _deciding(self, layers: Collection[int]) -> set[int]:
        """Those of a group's convolutions whose scales say how important a unit is."""
        scaled = {n for n in layers if self.netdef.layers[n].flag("batch_normalize")}
        return scaled & self.read_as_they_are or scaled


def _told_apart(alike: Ints, counts: Ints) -> Ints:
    """Numbers that differ where they did, and where units have other counts of channels."""
    touched = np.flatnonzero(counts)
    pairs = alike[touched] * (int(counts.max()) + 1) + counts[touched]
    _, numbers = np.unique(pairs, return_inverse=True)
    told = alike.copy()
    told[touched] = int(alike.max()) + 1 + numbers
    return told


def _cat(index: int, inputs: list[_Value]) -> _Value:
    return _Value(
        np.concatenate([value.ids for value in inputs]),
        frozenset().union(*(value.writers for value in inputs)),
    )
