"""A network's ONNX graph that also decodes boxes and suppresses those that overlap.

Decoding is that of `models.head`, written as nodes, so that the size of the images may vary. It is
written by hand since torch's exporter takes 19 seconds for these two steps alone (this takes half a
second with the network), needs two more packages, and has no operator for NonMaxSuppression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto

import import_param
from models.head import Head
from utils.backends.onnx_graph import IMAGES, Graph, Shape
from utils.errors import InputError

ANY_NUMBER = 2**31 - 1  # ONNX takes 0 boxes a class for none at all


def with_nms(network: bytes, heads: Sequence[Head], settings: import_param.Nms) -> bytes:
    """A network with decoding and NMS as the bytes of a .onnx file.

    It goes from images to what `detection_graph` tells.

    Args:
        network: as `to_onnx` writes it, also in int8.
        heads: of the network.
        settings: see `detection_graph`.

    Raises:
        InputError: the network's heads ask for another overlap than IoU.
    """
    whole = onnx.load_from_string(network)
    inputs = [*whole.graph.input, *whole.graph.output]
    shapes = {each.name: _shape(each) for each in inputs}
    detection = detection_graph(heads, shapes, settings).graph
    whole.graph.node.extend(detection.node)
    whole.graph.initializer.extend(detection.initializer)
    del whole.graph.output[:]
    whole.graph.output.extend(detection.output)
    content: bytes = whole.SerializeToString()
    return content


def detection_graph(
    heads: Sequence[Head], inputs: Mapping[str, Shape], settings: import_param.Nms
) -> onnx.ModelProto:
    """Decoding and NMS alone.

    It goes from images, whose size alone counts, and raw maps to N detections, in the order of
    image, class and falling score: image_index [N], labels [N], boxes [N, 4] (xyxy in pixels of the
    input) and scores [N]. The rule is that of `utils.evaluation.nms`: a box may be of several
    classes, and suppression goes class by class.

    Args:
        heads: of the network.
        inputs: the shapes of the images and then of each map, by name.
        settings: the thresholds; `max_detections` is for each class of an image, 0 for any number.

    Raises:
        InputError: the heads ask for another overlap than IoU.
    """
    if heads[-1].nms_power is not None:
        raise InputError(
            "nms=True: expected a .cfg with nms_kind=default: ONNX knows no overlap by distance"
        )
    graph = Graph("detection_")
    _, *maps = inputs
    boxes, scores = _decoded(graph, maps, heads)
    selected = graph.node(  # [N, 3]: image, class, box
        "NonMaxSuppression",
        boxes,
        scores,
        graph.integers([settings.max_detections or ANY_NUMBER]),
        graph.constant([settings.nms_thres]),
        graph.constant([settings.conf_thres]),
    )
    image_and_box = graph.node("Gather", selected, graph.integers([0, 2]), axis=1)
    graph.node("Gather", selected, graph.integers(0), name="image_index", axis=1)
    graph.node("Gather", selected, graph.integers(1), name="labels", axis=1)
    graph.node("GatherND", boxes, image_and_box, name="boxes")
    graph.node("GatherND", scores, selected, name="scores")
    outputs: dict[str, tuple[int, Shape]] = {
        "image_index": (TensorProto.INT64, ["N"]),
        "labels": (TensorProto.INT64, ["N"]),
        "boxes": (TensorProto.FLOAT, ["N", 4]),
        "scores": (TensorProto.FLOAT, ["N"]),
    }
    return graph.model(inputs, outputs)


def _shape(value: onnx.ValueInfoProto) -> list[int | str | None]:
    """The shape of a graph's input or output."""
    sides = value.type.tensor_type.shape.dim
    return [side.dim_value or side.dim_param or None for side in sides]


def _decoded(graph: Graph, maps: Sequence[str], heads: Sequence[Head]) -> tuple[str, str]:
    """Boxes [B, P, 4] and scores [B, C, P] of all heads."""
    parts = [_head(graph, raw, head) for raw, head in zip(maps, heads, strict=True)]
    boxes, scores = zip(*parts, strict=True)
    return graph.node("Concat", *boxes, axis=1), graph.node("Concat", *scores, axis=2)


def _head(graph: Graph, raw: str, head: Head) -> tuple[str, str]:
    """Boxes [B, A·h·w, 4] and scores [B, C, A·h·w] of a raw map [B, A·(5+C), h, w]."""
    count = len(head.anchors)
    cells = graph.node("Reshape", raw, graph.integers([0, count, 5 + head.classes, -1]))
    xy, wh, objectness, classes = graph.split(cells, (2, 2, 1, head.classes), 2)  # [B, A, ., h·w]
    corner, cell = _cells(graph, raw)  # [2, h·w], [2, 1]

    centre = graph.node("Mul", _probability(graph, xy, head), graph.constant(head.scale_xy))
    centre = graph.node("Sub", centre, graph.constant((head.scale_xy - 1) / 2))
    centre = graph.node("Mul", graph.node("Add", centre, corner), cell)
    if head.new_coords:
        wh = graph.node("Mul", _probability(graph, wh, head), graph.constant(2))
        extent = graph.node("Mul", wh, wh)
    else:
        extent = graph.node("Exp", graph.node("Clip", wh, graph.constant(-10), graph.constant(20)))
    halves = np.array(head.anchors)[:, :, None] / 2  # [A, 2, 1]
    half = graph.node("Mul", extent, graph.constant(halves))
    edges = (graph.node("Sub", centre, half), graph.node("Add", centre, half))
    boxes = graph.node("Concat", *edges, axis=2)  # [B, A, 4, h·w]
    boxes = graph.node("Transpose", boxes, perm=(0, 1, 3, 2))

    factors = [_probability(graph, logits, head) for logits in (objectness, classes)]
    scores = graph.node("Mul", *factors)
    scores = graph.node("Transpose", scores, perm=(0, 2, 1, 3))  # [B, C, A, h·w]
    return (
        graph.node("Reshape", boxes, graph.integers([0, -1, 4])),
        graph.node("Reshape", scores, graph.integers([0, head.classes, -1])),
    )


def _probability(graph: Graph, value: str, head: Head) -> str:
    """With `new_coords` the map went through a sigmoid already."""
    return value if head.new_coords else graph.node("Sigmoid", value)


def _cells(graph: Graph, raw: str) -> tuple[str, str]:
    """Where the cells of a map begin, (column, row) [2, h·w], and the pixels of one, [2, 1]."""
    lengths = [graph.node("Shape", name, start=2) for name in (raw, IMAGES)]  # height, width
    count = graph.node("ReduceProd", lengths[0], keepdims=0)
    numbers = graph.node("Range", graph.integers(0), count, graph.integers(1))
    width = graph.node("Gather", lengths[0], graph.integers(1))
    row = graph.node("Div", numbers, width)
    column = graph.node("Mod", numbers, width)
    ends = [graph.node("Unsqueeze", value, graph.integers([0])) for value in (column, row)]
    corner = graph.node("Cast", graph.node("Concat", *ends, axis=0), to=TensorProto.FLOAT)
    swapped = [graph.node("Gather", value, graph.integers([[1], [0]])) for value in lengths]
    sizes = [graph.node("Cast", value, to=TensorProto.FLOAT) for value in swapped]  # [2, 1] each
    return corner, graph.node("Div", sizes[1], sizes[0])
