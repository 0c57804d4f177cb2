"""A network as an ONNX graph, written layer by layer.

By hand, since torch's exporter takes seconds for a network of any size: a table of layers' times
(`pruning.latency.meter`) opens some hundred of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from models.blocks import Convolution, Logistic, Pool, Reorg, Scale, Shortcut, Upsample
from models.darknet import Darknet, shapes
from utils.backends.layer_writer import Layer, Map, padding, write_layers
from utils.version import VERSION

OPSET, IR_VERSION = 20, 9  # the first with Gelu, and the file format of its time
IMAGES = "images"
Shape = Sequence[int | str | None]  # of a tensor: lengths, or names of those that vary


class Graph:
    """An ONNX graph that grows node by node.

    prefix: begins the names of its nodes and constants, to tell them from another graph's.
    """

    def __init__(self, prefix: str = "") -> None:
        """Begin without nodes."""
        self._prefix = prefix
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def node(self, operation: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node of one output, which is called as the node is."""
        name = name or f"{self._prefix}{operation}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operation, inputs, [name], name, **attributes))
        return name

    def split(self, value: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Add a node that cuts a tensor into parts of these sizes along an axis."""
        name = f"{self._prefix}Split_{len(self._nodes)}"
        parts = [f"{name}_{number}" for number in range(len(sizes))]
        inputs = [value, self.integers(sizes)]
        self._nodes.append(helper.make_node("Split", inputs, parts, name, axis=axis))
        return parts

    def constant(self, values: ArrayLike, dtype: DTypeLike = np.float32) -> str:
        """Add a constant tensor; its name."""
        name = f"{self._prefix}constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def integers(self, values: ArrayLike) -> str:
        """Add a constant tensor of integers; its name."""
        return self.constant(values, np.int64)

    def model(
        self, inputs: Mapping[str, Shape], outputs: Mapping[str, tuple[int, Shape]]
    ) -> onnx.ModelProto:
        """The whole graph.

        Args:
            inputs: by name, the shape of a float32 tensor.
            outputs: by name of a node, its element type and shape.
        """
        read = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in inputs.items()
        ]
        results = [helper.make_tensor_value_info(name, *type_) for name, type_ in outputs.items()]
        graph = helper.make_graph(self._nodes, "network", read, results, self._constants)
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def to_onnx(model: Darknet, size: tuple[int, int] | None = None, batch: int = 1) -> bytes:
    """A network as the bytes of a .onnx file.

    It goes from images [batch, C, height, width] to the raw maps, which are called map0, map1, ...;
    its convolutions are called as `node_name` says.

    Args:
        model: the network.
        size: (width, height) in pixels; None for images of any number and size.
        batch: the number of images, where the size is given.

    Raises:
        InputError: a pooling has no counterpart.
    """
    graph, netdef = Graph(), model.netdef
    outputs: dict[str, tuple[int, Shape]] = {}
    map_shapes = shapes(netdef, size)
    for number, (index, raw) in enumerate(zip(netdef.heads, raw_maps(graph, model), strict=True)):
        name = graph.node("Identity", raw, name=f"map{number}")
        channels, height, width = map_shapes[index]
        fixed: Shape = (batch, channels, height, width)
        outputs[name] = (TensorProto.FLOAT, fixed if size else ("batch", channels, None, None))
    images = {IMAGES: image_shape(model, size, batch)}
    content: bytes = graph.model(images, outputs).SerializeToString()
    return content


def with_metadata(content: bytes, entries: Mapping[str, str]) -> bytes:
    """A .onnx file's bytes with these entries in its metadata, and who wrote it."""
    model = onnx.load_from_string(content)
    helper.set_model_props(model, dict(entries))
    model.producer_name, model.producer_version = "yolov3", VERSION
    described: bytes = model.SerializeToString()
    return described


def node_name(index: int) -> str:
    """The name of the convolution of a layer."""
    return f"layer_{index}"


def image_shape(model: Darknet, size: tuple[int, int] | None, batch: int = 1) -> Shape:
    """The shape of a network's input; arguments as for `to_onnx`."""
    channels = model.netdef.channels
    return (batch, channels, size[1], size[0]) if size else ("batch", channels, "rows", "columns")


def raw_maps(graph: Graph, model: Darknet) -> list[str]:
    """Add a network's layers to an empty graph; the names of its raw maps."""
    return write_layers(
        model,
        IMAGES,
        layer=lambda layer: WRITERS[type(layer.module)](graph, layer),
        cat=lambda names: graph.node("Concat", *names, axis=1),
        part=lambda name, start, stop: _part(graph, name, start, stop),
    )


def _part(graph: Graph, name: str, start: int, stop: int) -> str:
    """Some channels of a map."""
    return graph.node("Slice", name, *(graph.integers([n]) for n in (start, stop, 1)))


def _convolution(graph: Graph, layer: Layer) -> Map:
    conv = layer.module.conv
    name = graph.node(
        "Conv",
        layer.inputs[0].name,
        graph.constant(conv.weight.cpu()),
        graph.constant(conv.bias.cpu()),
        name=node_name(layer.index),
        kernel_shape=conv.kernel_size,
        strides=conv.stride,
        pads=conv.padding * 2,
        dilations=conv.dilation,
        group=conv.groups,
    )
    return Map(_activated(graph, layer, name), conv.out_channels)


def _pool(graph: Graph, layer: Layer) -> Map:
    """Neither operation lets what is padded take part: Darknet's rule."""
    pool = layer.module
    before, after = padding(layer, "ONNX")
    name = graph.node(
        "AveragePool" if pool.mean else "MaxPool",
        layer.inputs[0].name,
        kernel_shape=(pool.size, pool.size),
        strides=pool.stride,
        pads=(before, before, after, after),
    )
    return Map(name, layer.inputs[0].channels)


def _mean(graph: Graph, layer: Layer) -> Map:
    return Map(graph.node("GlobalAveragePool", layer.inputs[0].name), layer.inputs[0].channels)


def _shortcut(graph: Graph, layer: Layer) -> Map:
    channels = layer.inputs[0].channels
    names = [_with_channels(graph, value, channels) for value in layer.inputs]
    if (weights := layer.module.normalized()) is not None:  # [inputs, 1 or C, 1, 1]
        names = [
            graph.node("Mul", name, graph.constant(weight.cpu()))
            for name, weight in zip(names, weights, strict=True)
        ]
    total = names[0]
    for name in names[1:]:
        total = graph.node("Add", total, name)
    return Map(_activated(graph, layer, total), channels)


def _with_channels(graph: Graph, value: Map, channels: int) -> str:
    """A map's first channels, or with zeros after its own: what a [shortcut] adds."""
    if value.channels > channels:
        return _part(graph, value.name, 0, channels)
    if value.channels < channels:
        ends = graph.integers([0, 0, 0, 0, 0, channels - value.channels, 0, 0])
        return graph.node("Pad", value.name, ends)
    return value.name


def _scale(graph: Graph, layer: Layer) -> Map:
    product = graph.node("Mul", *layer.names)
    return Map(_activated(graph, layer, product), layer.inputs[0].channels)


def _upsample(graph: Graph, layer: Layer) -> Map:
    factor = layer.module.stride
    name = graph.node(
        "Resize",
        layer.inputs[0].name,
        "",
        graph.constant([1, 1, factor, factor]),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    if layer.module.scale != 1:
        name = graph.node("Mul", name, graph.constant(layer.module.scale))
    return Map(name, layer.inputs[0].channels)


def _reorg(graph: Graph, layer: Layer) -> Map:
    """As models.blocks.Reorg, for maps of any size: 0 is a length as it was, -1 what is left."""
    (name, channels), s = layer.inputs[0], layer.module.stride
    height = graph.node("Div", graph.node("Shape", name, start=2, end=3), graph.integers([s]))
    ends = (graph.integers([0, channels * s * s]), height, graph.integers([-1]))
    shape = graph.node("Concat", *ends, axis=0)
    name = graph.node("Reshape", name, graph.integers([0, channels // (s * s), 0, s, -1, s]))
    name = graph.node("Transpose", name, perm=(0, 3, 5, 1, 2, 4))
    return Map(graph.node("Reshape", name, shape), channels * s * s)


def _same(graph: Graph, layer: Layer) -> Map:
    return layer.inputs[0]


WRITERS: dict[type[nn.Module], Callable[[Graph, Layer], Map]] = {
    Convolution: _convolution,
    Pool: _pool,
    nn.AdaptiveAvgPool2d: _mean,
    Shortcut: _shortcut,
    Scale: _scale,
    Upsample: _upsample,
    Reorg: _reorg,
    nn.Dropout: _same,
    nn.Identity: _same,
}


def _activated(graph: Graph, layer: Layer, name: str) -> str:
    return ACTIVATIONS[type(layer.module.activation)](graph, name)


ACTIVATIONS: dict[type[nn.Module], Callable[[Graph, str], str]] = {
    nn.Identity: lambda graph, x: x,
    nn.LeakyReLU: lambda graph, x: graph.node("LeakyRelu", x, alpha=0.1),
    nn.ReLU: lambda graph, x: graph.node("Relu", x),
    nn.ReLU6: lambda graph, x: graph.node("Clip", x, graph.constant(0), graph.constant(6)),
    nn.Mish: lambda graph, x: graph.node("Mish", x),
    nn.SiLU: lambda graph, x: graph.node("Mul", x, graph.node("Sigmoid", x)),
    Logistic: lambda graph, x: graph.node("Sigmoid", x),
    nn.Tanh: lambda graph, x: graph.node("Tanh", x),
    nn.ELU: lambda graph, x: graph.node("Elu", x),
    nn.SELU: lambda graph, x: graph.node("Selu", x),
    nn.GELU: lambda graph, x: graph.node("Gelu", x, approximate="tanh"),
}
