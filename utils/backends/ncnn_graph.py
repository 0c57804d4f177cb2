"""A network as ncnn's two files: a text of layers (.param), and their numbers (.bin).

The layers and the numbers of their settings are those of ncnn's developer guide, operators.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from models.blocks import Convolution, Logistic, Pool, Reorg, Scale, Shortcut, Upsample
from models.darknet import Darknet
from utils.backends.layer_writer import Layer, Map, padding, write_layers

MAGIC = 7767517  # the first line of a .param
IMAGE = "image"
Setting = int | float | Sequence[float]
ADD, MULTIPLY = 0, 2  # of BinaryOp
MAXIMUM, MEAN = 0, 1  # of Pooling


@dataclass(frozen=True)
class Line:
    """A line of a .param: a layer that reads blobs and writes one, with its settings."""

    kind: str
    reads: Sequence[str]
    writes: str
    settings: Mapping[int, Setting]


@dataclass(eq=False)
class Graph:
    """ncnn's layers, one after the other, and the bytes of their weights."""

    lines: list[Line] = field(default_factory=list)
    weights: bytearray = field(default_factory=bytearray)

    def add(
        self, kind: str, *reads: str, settings: Mapping[int, Setting] | None = None, name: str = ""
    ) -> str:
        """Add a layer; the name of what it writes."""
        name = name or f"{kind}_{len(self.lines)}"
        self.lines.append(Line(kind, reads, name, settings or {}))
        return name

    def put(self, values: Tensor) -> None:
        """Add float32 weights."""
        self.weights += values.detach().cpu().contiguous().numpy().astype("<f4").tobytes()

    def text(self) -> str:
        """The .param. A blob has one reader there, so one that has several is split for them."""
        readers = Counter(name for line in self.lines for name in line.reads)
        rows, blobs, copies_read = [], len(self.lines), Counter[str]()

        def read(name: str) -> str:
            if readers[name] < 2:
                return name
            copies_read[name] += 1
            return f"{name}_{copies_read[name]}"

        for line in self.lines:
            reads = [read(name) for name in line.reads]
            rows.append(_row(line.kind, reads, [line.writes], line.settings))
            if (count := readers[line.writes]) > 1:
                parts = [f"{line.writes}_{number + 1}" for number in range(count)]
                rows.append(_row("Split", [line.writes], parts, {}))
                blobs += count
        return "\n".join([str(MAGIC), f"{len(rows)} {blobs}", *rows]) + "\n"


def _row(
    kind: str, reads: Sequence[str], writes: Sequence[str], settings: Mapping[int, Setting]
) -> str:
    blobs = [kind, f"{kind}_{writes[0]}", str(len(reads)), str(len(writes)), *reads, *writes]
    return " ".join(blobs + [_setting(key, value) for key, value in settings.items()])


def _setting(key: int, value: Setting) -> str:
    """Of an array the key is -23300 less the setting's number, and its length comes first."""
    if isinstance(value, Sequence):
        return f"{-23300 - key}={len(value)}," + ",".join(map(repr, value))
    return f"{key}={value!r}"


def to_ncnn(model: Darknet) -> tuple[str, bytes]:
    """A network as the text of a .param and the bytes of a .bin.

    It goes from an image of any size, `IMAGE`, to the raw maps, which are called map0, map1, ...

    Raises:
        InputError: a layer has no counterpart.
    """
    graph = Graph()
    graph.add("Input", name=IMAGE)
    maps = write_layers(
        model,
        IMAGE,
        layer=lambda layer: WRITERS[type(layer.module)](graph, layer),
        cat=lambda names: graph.add("Concat", *names),
        part=lambda name, start, stop: _part(graph, name, start, stop),
    )
    for number, name in enumerate(maps):
        graph.add("Noop", name, name=f"map{number}")
    return graph.text(), bytes(graph.weights)


def _part(graph: Graph, name: str, start: int, stop: int) -> str:
    """Some channels of a map."""
    return graph.add("Crop", name, settings={9: [start], 10: [stop], 11: [0]})


def _convolution(graph: Graph, layer: Layer) -> Map:
    conv = layer.module.conv
    settings: dict[int, Setting] = {
        0: conv.out_channels,
        1: conv.kernel_size[1],
        11: conv.kernel_size[0],
        2: conv.dilation[1],
        3: conv.stride[1],
        13: conv.stride[0],
        4: conv.padding[1],
        5: 1,  # it has a bias
        6: conv.weight.numel(),
    }
    kind = "Convolution"
    if conv.groups > 1:
        kind, settings[7] = "ConvolutionDepthWise", conv.groups
    activation = type(layer.module.activation)
    if activation in FUSED:
        settings |= FUSED[activation]
    name = graph.add(kind, *layer.names, settings=settings)
    graph.weights += bytes(4)  # float32 follows
    graph.put(conv.weight)
    graph.put(conv.bias)
    return Map(name if activation in FUSED else _activated(graph, layer, name), conv.out_channels)


def _pool(graph: Graph, layer: Layer) -> Map:
    """Neither kind lets what is padded take part: Darknet's rule."""
    pool = layer.module
    before, after = padding(layer, "ncnn")
    settings: dict[int, Setting] = {
        0: MEAN if pool.mean else MAXIMUM,
        1: pool.size,
        2: pool.stride[1],
        12: pool.stride[0],
    }
    # The default lets the last window hang over the border, where that is all there is to pad. (Any
    # padding copies the map: 6 % of the time of yolov3-tiny.)
    if pool.mean or (pool.size, pool.stride, pool.padding) != (2, (2, 2), 1):
        settings |= {3: before, 13: before, 14: after, 15: after, 5: 1}
    return Map(graph.add("Pooling", *layer.names, settings=settings), layer.inputs[0].channels)


def _mean(graph: Graph, layer: Layer) -> Map:
    settings = {0: MEAN, 7: 1, 8: 1, 18: 1}  # to a map of one pixel
    return Map(graph.add("Pooling", *layer.names, settings=settings), layer.inputs[0].channels)


def _shortcut(graph: Graph, layer: Layer) -> Map:
    channels = layer.inputs[0].channels
    names = [_with_channels(graph, value, channels) for value in layer.inputs]
    if (weights := layer.module.normalized()) is not None:  # [inputs, 1 or C, 1, 1]
        for number, weight in enumerate(weights):
            names[number] = graph.add("Scale", names[number], settings={0: channels})
            graph.put(weight.expand(channels, 1, 1))
    total = names[0]
    for name in names[1:]:
        total = graph.add("BinaryOp", total, name, settings={0: ADD})
    return Map(_activated(graph, layer, total), channels)


def _with_channels(graph: Graph, value: Map, channels: int) -> str:
    """A map's first channels, or with zeros after its own: what a [shortcut] adds."""
    if value.channels > channels:
        return _part(graph, value.name, 0, channels)
    if value.channels < channels:
        return graph.add("Padding", value.name, settings={8: channels - value.channels})
    return value.name


def _product(graph: Graph, layer: Layer) -> Map:
    product = graph.add("BinaryOp", *layer.names, settings={0: MULTIPLY})
    return Map(_activated(graph, layer, product), layer.inputs[0].channels)


def _upsample(graph: Graph, layer: Layer) -> Map:
    factor = float(layer.module.stride)
    name = graph.add("Interp", *layer.names, settings={0: 1, 1: factor, 2: factor})  # 1: nearest
    if layer.module.scale != 1:
        name = graph.add("BinaryOp", name, settings={0: MULTIPLY, 1: 1, 2: layer.module.scale})
    return Map(name, layer.inputs[0].channels)


def _reorg(graph: Graph, layer: Layer) -> Map:
    raise layer.section.error("ncnn has no such layer")


def _same(graph: Graph, layer: Layer) -> Map:
    return layer.inputs[0]


WRITERS: dict[type[nn.Module], Callable[[Graph, Layer], Map]] = {
    Convolution: _convolution,
    Pool: _pool,
    nn.AdaptiveAvgPool2d: _mean,
    Shortcut: _shortcut,
    Scale: _product,
    Upsample: _upsample,
    Reorg: _reorg,
    nn.Dropout: _same,
    nn.Identity: _same,
}
# What a convolution computes itself: its settings for the activation's number and parameters.
FUSED: dict[type[nn.Module], Mapping[int, Setting]] = {
    nn.ReLU: {9: 1},
    nn.LeakyReLU: {9: 2, 10: [0.1]},
    nn.ReLU6: {9: 3, 10: [0.0, 6.0]},
    Logistic: {9: 4},
    nn.Mish: {9: 5},
}
ACTIVATIONS: dict[type[nn.Module], tuple[str, Mapping[int, Setting]]] = {
    nn.LeakyReLU: ("ReLU", {0: 0.1}),
    nn.ReLU: ("ReLU", {}),
    nn.ReLU6: ("Clip", {0: 0.0, 1: 6.0}),
    nn.Mish: ("Mish", {}),
    nn.SiLU: ("Swish", {}),
    Logistic: ("Sigmoid", {}),
    nn.Tanh: ("TanH", {}),
    nn.ELU: ("ELU", {0: 1.0}),
    nn.SELU: ("SELU", {}),
    nn.GELU: ("GELU", {0: 1}),  # 1: with tanh
}


def _activated(graph: Graph, layer: Layer, name: str) -> str:
    activation = type(layer.module.activation)
    if activation is nn.Identity:
        return name
    kind, settings = ACTIVATIONS[activation]
    return graph.add(kind, name, settings=settings)
