"""OpenVINO on the CPU."""

from __future__ import annotations

import openvino
import torch
from torch import Tensor

from models.darknet import Darknet
from utils.backends.base import FixedBatch, Wanted
from utils.backends.onnx_graph import to_onnx
from utils.backends.quantize import float_layers, in_batches, quantized_openvino

# Left to itself, OpenVINO computes in bfloat16 where the CPU has it, whatever the model says.
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


def precisions() -> tuple[str, ...]:
    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("fp32", *(["bf16"] if "BF16" in able else []), "int8")


def compiled(
    graph: openvino.Model, precision: str = "fp32", threads: int = 0
) -> openvino.CompiledModel:
    """A graph made ready for one image after the other."""
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": HINTS[precision]}
    if threads:
        options["INFERENCE_NUM_THREADS"] = str(threads)
    return openvino.Core().compile_model(graph, "CPU", options)


def to_openvino(model: Darknet, size: tuple[int, int], batch: int = 1) -> openvino.Model:
    """The network as OpenVINO's graph, from images of one shape to the raw maps."""
    return openvino.Core().read_model(to_onnx(model, size, batch))


class OpenVinoEngine(FixedBatch):
    name = "openvino"

    def __init__(self, model: Darknet, wanted: Wanted) -> None:
        super().__init__(wanted)
        wanted.refuse_precision(self.name, precisions())
        graph = to_openvino(model, wanted.size, wanted.batch)
        if wanted.precision == "int8":
            images = in_batches(wanted.calibration, wanted.batch)
            graph = quantized_openvino(graph, images, float_layers(model, images))
        self._request = compiled(graph, wanted.precision, wanted.threads).create_infer_request()

    def run(self, images: Tensor) -> list[Tensor]:
        found = self._request.infer([images.cpu().contiguous().numpy()], share_inputs=True)
        return [torch.from_numpy(found[n]) for n in range(len(found))]
