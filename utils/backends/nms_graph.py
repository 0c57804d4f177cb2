"""A network whose ONNX graph also decodes boxes and suppresses those that overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from models.darknet import Darknet
from models.head import decode
from utils.backends.fold import folded
from utils.errors import InputError

OUTPUTS = ("image_index", "labels", "boxes", "scores")


class Decoded(nn.Module):
    """Images → boxes [B, P, 4], xyxy in pixels of the input, and scores [B, C, P]."""

    def __init__(self, model: Darknet) -> None:
        super().__init__()
        self.model = folded(model).cpu()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        size = (images.shape[-1], images.shape[-2])
        found = decode(self.model(images), self.model.heads, size)
        return found.boxes, (found.objectness[..., None] * found.classes).transpose(1, 2)


def with_nms(
    graph: onnx.ModelProto, conf_thres: float, nms_thres: float, max_detections: int
) -> onnx.ModelProto:
    """The graph of `Decoded`, with outputs image_index [N], labels [N], boxes [N, 4], scores [N].

    The rule is that of `utils.nms`: a box may be of several classes, and suppression goes class by
    class; at most `max_detections` of each class of an image are kept. N detections in the order of
    image, class and falling score.
    """
    start = "nms_"
    constants: dict[str, NDArray[Any]] = {
        "limit": np.array([max_detections], np.int64),
        "overlap": np.array([nms_thres], np.float32),
        "confidence": np.array([conf_thres], np.float32),
        "image_and_box_columns": np.array([0, 2], np.int64),
        "image_scalar": np.array(0, np.int64),
        "class_scalar": np.array(1, np.int64),
    }
    graph.graph.initializer.extend(
        numpy_helper.from_array(value, start + name) for name, value in constants.items()
    )
    boxes, scores = (output.name for output in graph.graph.output)
    chosen, places = start + "chosen", start + "places"  # chosen: [N, 3] of image, class, box
    graph.graph.node.extend(
        [
            helper.make_node(
                "NonMaxSuppression",
                [boxes, scores, *(start + n for n in ("limit", "overlap", "confidence"))],
                [chosen],
            ),
            helper.make_node("Gather", [chosen, start + "image_scalar"], ["image_index"], axis=1),
            helper.make_node("Gather", [chosen, start + "class_scalar"], ["labels"], axis=1),
            helper.make_node("Gather", [chosen, start + "image_and_box_columns"], [places], axis=1),
            helper.make_node("GatherND", [boxes, places], ["boxes"]),
            helper.make_node("GatherND", [scores, chosen], ["scores"]),
        ]
    )
    del graph.graph.output[:]
    whole, real = TensorProto.INT64, TensorProto.FLOAT
    kinds: tuple[tuple[int, list[str | int]], ...]
    kinds = ((whole, ["N"]), (whole, ["N"]), (real, ["N", 4]), (real, ["N"]))
    graph.graph.output.extend(
        helper.make_tensor_value_info(name, kind, shape)
        for name, (kind, shape) in zip(OUTPUTS, kinds, strict=True)
    )
    onnx.checker.check_model(graph)
    return graph


def refuse_distance(model: Darknet) -> None:
    """ONNX suppresses by IoU alone."""
    if model.heads[-1].nms_power is not None:
        raise InputError(
            "nms=True: expected a .cfg with nms_kind=default: ONNX knows no overlap by distance"
        )
