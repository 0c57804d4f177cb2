"""What does a NetDef compute? `propagate`, the one walk over its layer graph, and the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from models.blocks import ONE_INPUT, Convolution, Shape, build, shape_text, slide
from models.head import Head
from models.netdef import NetDef
from utils.errors import InputError

T = TypeVar("T")

# Numbers that a kernel, or a map, may have: far more than any machine computes with, and few enough
# for 64 bits.
LARGEST_KERNEL = 2**40
LARGEST_MAP = 2**60


def propagate(
    netdef: NetDef,
    image: T,
    *,
    conv: Callable[[int, T], T],
    add: Callable[[int, list[T]], T],
    cat: Callable[[int, list[T]], T],
    part: Callable[[int, T, int, int], T],
    other: Callable[[int, T], T] = lambda index, value: value,
) -> Iterator[T]:
    r"""Walk the layers in order, carrying a value along each tensor; yield each layer's value.

    What a value is, the caller decides: a tensor, a shape, the ids of channels. With texts, the
    walk writes down what a network computes:

    >>> from models.netdef import parse
    >>> netdef = parse("[net]\n[conv]\n[conv]\n[shortcut]\nfrom=-2\n[route]\nlayers=-1,0")
    >>> values = propagate(
    ...     netdef,
    ...     "image",
    ...     conv=lambda index, value: f"conv{index}({value})",
    ...     add=lambda index, inputs: f"({' + '.join(inputs)})",
    ...     cat=lambda index, inputs: f"[{', '.join(inputs)}]",
    ...     part=lambda index, value, groups, group_id: f"{value}[{group_id}/{groups}]",
    ... )
    >>> list(values)[-1]
    '[(conv1(conv0(image)) + conv0(image)), conv0(image)]'

    A value is forgotten once its last reader has had it, so a forward pass holds few maps.

    Args:
        netdef: the network's definition.
        image: the value of the input.
        conv: a convolution: (index, value) → value.
        add: maps combined point by point (shortcut, sam, scale_channels): (index, values) → value.
            A shortcut's first map says how many channels come out; of others with fewer or more,
            the first that both have are added.
        cat: a route's concatenation: (index, values) → value.
        part: a grouped route's slice of one input: (index, value, groups, group_id) → value.
        other: layers that keep the channels as they are (pooling, upsample, dropout, yolo), and
            reorg: (index, value) → value.
    """
    sources = [netdef.sources(index) for index in range(len(netdef.layers))]
    last_reader = {source: index for index, read in enumerate(sources) for source in read}
    values: dict[int, T] = {-1: image}
    for index, section in enumerate(netdef.layers):
        inputs = [values[source] for source in sources[index]]
        for source in set(sources[index]):
            if last_reader[source] == index:
                del values[source]
        if section.kind == "convolutional":
            value = conv(index, inputs[0])
        elif section.kind in ("shortcut", "sam", "scale_channels"):
            value = add(index, inputs)
        elif section.kind == "route":
            groups = section.integer("groups", 1, at_least=1)
            if groups > 1:
                group_id = section.integer("group_id", 0, at_least=0)
                inputs = [part(index, value, groups, group_id) for value in inputs]
            value = inputs[0] if len(inputs) == 1 else cat(index, inputs)
        else:
            value = other(index, inputs[0])
        if index in last_reader:
            values[index] = value
        yield value


def shapes(netdef: NetDef, size: tuple[int, int] | None = None) -> list[Shape]:
    """Each layer's output shape.

    Args:
        netdef: the network.
        size: (width, height) of the input in pixels; the cfg's own by default.

    Raises:
        InputError: the layers do not fit together; with file and line.
    """
    width, height = size or netdef.size
    layers = netdef.layers

    def conv(index: int, shape: Shape) -> Shape:
        section = layers[index]
        filters = section.integer("filters", 1, at_least=1)
        if filters * shape[0] * section.integer("size", 1, at_least=1) ** 2 > LARGEST_KERNEL:
            raise section.error(f"expected at most {LARGEST_KERNEL} weights", "size")
        return slide(section, shape, filters)

    def add(index: int, inputs: list[Shape]) -> Shape:
        section = layers[index]
        if section.kind == "scale_channels":
            vector, full = inputs
            if vector != (full[0], 1, 1):
                raise section.error(
                    f"expected {full[0]}x1x1 before it, found {shape_text(vector)}", "from"
                )
            return full
        for other in inputs[1:]:
            if other != inputs[0] and (section.kind != "shortcut" or other[1:] != inputs[0][1:]):
                wanted = "height and width" if section.kind == "shortcut" else "shape"
                raise section.error(
                    f"cannot add {shape_text(other)} to {shape_text(inputs[0])}: expected maps of "
                    f"one {wanted}",
                    "from",
                )
        return inputs[0]

    def cat(index: int, inputs: list[Shape]) -> Shape:
        for other in inputs[1:]:
            if other[1:] != inputs[0][1:]:
                raise layers[index].error(
                    f"cannot concatenate {shape_text(other)} with {shape_text(inputs[0])}", "layers"
                )
        return sum(shape[0] for shape in inputs), *inputs[0][1:]

    def part(index: int, shape: Shape, groups: int, group_id: int) -> Shape:
        if group_id >= groups:
            raise layers[index].error(f"expected less than groups={groups}", "group_id")
        if shape[0] % groups:
            raise layers[index].error(f"expected a divisor of {shape[0]} channels", "groups")
        return shape[0] // groups, *shape[1:]

    def other(index: int, shape: Shape) -> Shape:
        return ONE_INPUT[layers[index].kind].shape(layers[index], shape)

    image = (netdef.channels, height, width)
    outputs: list[Shape] = []
    for shape in propagate(netdef, image, conv=conv, add=add, cat=cat, part=part, other=other):
        if math.prod(shape) > LARGEST_MAP:
            section = layers[len(outputs)]
            raise section.error(f"a map of {shape_text(shape)}: expected at most 2^60 numbers")
        outputs.append(shape)
    return outputs


def stride(netdef: NetDef) -> int:
    """The number of pixels that sides of the input should be multiples of.

    These are the pixels of the input per cell of the coarsest head, along the axis where they are
    more; or 2, 4 or 8 times as many where maps between are coarser and must fit others.
    """
    side = 1024 * 3**2 * 5 * 7  # a multiple of all strides in use, whatever the .cfg's own size
    try:
        pixels = _coarsest(netdef, (side, side))
    except InputError:  # it upsamples a map of one cell by a factor for the .cfg's own size
        pixels = side
    if pixels == side:
        pixels = _coarsest(netdef, netdef.size)
    return next((n * pixels for n in (1, 2, 4, 8) if _takes_multiples(netdef, n * pixels)), pixels)


def _takes_multiples(netdef: NetDef, step: int) -> bool:
    """Whether the maps fit together at sizes that are odd multiples of a step."""
    try:
        for n in (5, 7):
            shapes(netdef, (n * step, n * step))
    except InputError:
        return False
    return True


def _coarsest(netdef: NetDef, size: tuple[int, int]) -> int:
    """Pixels per cell of the coarsest head for an input of that size."""
    outputs, (width, height) = shapes(netdef, size), size
    maps = [outputs[index][1:] for index in netdef.heads]  # padding may add one to a map's cells
    return max((max(1, round(height / h), round(width / w)) for h, w in maps), default=1)


class Darknet(nn.Module):
    """The network of a NetDef.

    Attributes:
        netdef: its definition.
        layers: a module for each of its layers.
        heads: of its [yolo] layers, in the order of the .cfg.
    """

    def __init__(self, netdef: NetDef) -> None:
        """Build the layers, with random weights.

        Raises:
            InputError: the layers do not fit together; with file and line.
        """
        super().__init__()
        self.netdef = netdef
        outputs: dict[int, Shape] = {-1: (netdef.channels, 0, 0), **dict(enumerate(shapes(netdef)))}
        self.layers = nn.ModuleList()
        for index, section in enumerate(netdef.layers):
            sources = netdef.sources(index)
            self.layers.append(build(section, len(sources), outputs[sources[0]][0]))
        for module in self.layers.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = netdef.bn_epsilon
        self.heads = tuple(Head.of(netdef.layers[index]) for index in netdef.heads)
        for index, head in zip(netdef.heads, self.heads, strict=True):
            if head.classes != self.heads[0].classes:
                first = netdef.layers[netdef.heads[0]].lines.get("classes", 0)
                raise netdef.layers[index].error(
                    f"expected {self.heads[0].classes}, as on line {first}", "classes"
                )

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def forward(self, images: Tensor) -> list[Tensor]:
        """The raw maps, of which `models.head.decode` makes boxes.

        Args:
            images: RGB, 0 to 1, [B, 3, H, W].

        Returns:
            [B, A·(5+C), h, w] for each head.
        """
        return self.maps_and_features(images)[0]

    def maps_and_features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The raw maps, as `forward`, and the features that each was made of.

        Returns:
            The raw maps, and for each head the input [B, channels, h, w] of the convolution before
            its [yolo].
        """
        heads = self.netdef.heads
        convolutions = [self.netdef.sources(index)[0] for index in heads]
        features = [self.netdef.sources(index)[0] for index in convolutions]
        outputs = self._outputs(images, {*heads, *features})
        return [outputs[index] for index in heads], [outputs[index] for index in features]

    def _outputs(self, images: Tensor, wanted: Collection[int]) -> dict[int, Tensor]:
        """The outputs of the wanted layers, by index; -1 is the image."""
        values = propagate(
            self.netdef,
            images,
            conv=lambda index, x: self.layers[index](x),
            add=lambda index, inputs: self.layers[index](*inputs),
            cat=lambda index, inputs: torch.cat(inputs, 1),
            part=_slice,
            other=lambda index, x: self.layers[index](x),
        )
        return {-1: images} | {n: value for n, value in enumerate(values) if n in wanted}

    def init_heads_(self, layers: Sequence[int], prior: float = 0.01) -> None:
        """Start heads so that objects are rare at first.

        The bias of objectness is the logit of `prior` (RetinaNet, Lin et al., ICCV 2017, section
        4.1), and that of each class the logit of 1 / classes: otherwise the first steps are spent
        on unlearning thousands of false objects.

        Args:
            layers: the [yolo] layers whose convolution is changed, by index.
            prior: the objectness to start with, 0 to 1.
        """
        for index, head in zip(self.netdef.heads, self.heads, strict=True):
            before = self.layers[index - 1]
            if index not in layers or not isinstance(before, Convolution):
                continue
            shift = before.conv.bias if before.bn is None else before.bn.bias
            assert shift is not None
            bias = shift.detach().view(len(head.anchors), -1)
            bias.zero_()
            bias[:, 4] = torch.logit(torch.tensor(prior))
            bias[:, 5:] = torch.logit(torch.tensor(1 / max(2, head.classes)))


def _slice(index: int, x: Tensor, groups: int, group_id: int) -> Tensor:
    width = x.shape[1] // groups
    return x[:, group_id * width : (group_id + 1) * width]
