"""A network as an ONNX graph, by torch's own exporter."""

from __future__ import annotations

import logging
import re
import warnings
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from models.darknet import Darknet
from utils.backends.fold import folded

OPSET = 18


def to_onnx(model: Darknet, images: Tensor) -> bytes:
    """The bytes of a .onnx file: from images of one shape [B, 3, H, W] to the raw maps.

    The convolution of layer 7 is called `layer_7` there.
    """
    graph = export(folded(model).cpu(), images, map_names(model))
    return named(graph).SerializeToString()


def map_names(model: Darknet) -> list[str]:
    """What the raw maps are called in a graph, in order."""
    return [f"map{number}" for number in range(len(model.heads))]


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Name each convolution after its layer, whose parameters' names the exporter keeps."""
    for node in model.graph.node:
        if node.op_type == "Conv" and (found := re.search(r"layers\.(\d+)\.", node.input[1])):
            node.name = f"layer_{found[1]}"
    return model


def export(
    module: nn.Module,
    images: Tensor,
    outputs: list[str],
    dynamic: dict[int, Any] | None = None,
) -> onnx.ModelProto:
    """Any module from images to some tensors. dynamic: a `torch.export.Dim` for
    each axis that may vary."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's notes on its own insides
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module.eval(),
            (images,),
            input_names=["images"],
            output_names=outputs,
            opset_version=OPSET,
            dynamic_shapes=None if dynamic is None else ({**dynamic},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto
