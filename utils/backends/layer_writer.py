"""A network's layers one after the other, to be written in another program's format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from models.darknet import Darknet, propagate
from models.netdef import Section
from utils.backends.fold import folded


class Map(NamedTuple):
    """What a layer computes."""

    name: str  # in the other format
    channels: int


@dataclass(frozen=True)
class Layer:
    """A layer to write."""

    index: int
    section: Section
    module: Any  # what models.blocks made of the section, with batch normalisation folded
    inputs: Sequence[Map]  # what it reads

    @property
    def names(self) -> list[str]:
        """The names of what it reads."""
        return [value.name for value in self.inputs]


def write_layers(
    model: Darknet,
    image: str,
    *,
    layer: Callable[[Layer], Map],
    cat: Callable[[Sequence[str]], str],
    part: Callable[[str, int, int], str],
) -> list[str]:
    """Let every layer be written.

    Args:
        model: the network.
        image: the input's name.
        layer: writes what stands in a .cfg.
        cat: writes a concatenation of channels, and gives its name.
        part: writes the channels of a map from one number up to another, and gives its name.

    Returns:
        The names of the raw maps.
    """
    netdef, modules = model.netdef, folded(model).layers

    def write(index: int, inputs: Sequence[Map]) -> Map:
        return layer(Layer(index, netdef.layers[index], modules[index], inputs))

    def slice_(index: int, value: Map, groups: int, group_id: int) -> Map:
        width = value.channels // groups
        return Map(part(value.name, group_id * width, (group_id + 1) * width), width)

    values = propagate(
        netdef,
        Map(image, netdef.channels),
        conv=lambda index, value: write(index, [value]),
        add=write,
        cat=lambda index, inputs: Map(
            cat([value.name for value in inputs]), sum(value.channels for value in inputs)
        ),
        part=slice_,
        other=lambda index, value: write(index, [value]),
    )
    return [value.name for index, value in enumerate(values) if index in netdef.heads]


def padding(layer: Layer, program: str) -> tuple[int, int]:
    """What a pooling adds before (left and above) and after, in pixels.

    Raises:
        InputError: a window could lie beside the map, which other programs refuse.
    """
    pool = layer.module
    before = pool.padding // 2
    after = pool.padding - before
    if after >= pool.size > 1:
        limit = 2 * pool.size - 1
        raise layer.section.error(f"expected less than {limit} for {program}", "padding")
    return before, after
