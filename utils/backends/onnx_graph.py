"""A network as an ONNX graph, by torch's own exporter."""

from __future__ import annotations

import logging
import warnings

import torch
from torch import Tensor, nn

from models.darknet import Darknet
from utils.backends.fold import folded

OPSET = 18


def to_onnx(model: Darknet, images: Tensor) -> bytes:
    """The bytes of a .onnx file: from images of one shape [B, 3, H, W] to the raw maps."""
    return export(folded(model).cpu(), images, [f"map{n}" for n in range(len(model.heads))])


def export(
    module: nn.Module,
    images: Tensor,
    outputs: list[str],
    dynamic: dict[int, str] | None = None,
) -> bytes:
    """Any module from images to some tensors. dynamic: names of the axes that may vary."""
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
    return program.model_proto.SerializeToString()
