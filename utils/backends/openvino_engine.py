"""OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import openvino
import torch
from torch import Tensor

from import_param import Nms
from models.darknet import Darknet
from models.head import Head
from utils.backends.base import EngineOptions, FixedBatch
from utils.backends.nms_graph import detection_graph
from utils.backends.onnx_graph import to_onnx
from utils.backends.quantization import CalibrationBatches, Tools, quantized, quantized_openvino
from utils.errors import InputError
from utils.evaluation.evaluate import Run
from utils.files.writing import scratch_folder

# Left to itself, OpenVINO computes in bfloat16 where the CPU has it, whatever the model says.
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


@cache
def core() -> openvino.Core:
    """OpenVINO, loaded once and kept until the process ends.

    Every Core loads the CPU's plugin anew. That gives the calling thread a signal stack, and when
    it is closed puts back the one from before, even where another Core has freed that: the next
    signal, such as one of a loader process that ends, is then a segmentation fault.
    """
    loaded = openvino.Core()
    loaded.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin, before NNCF's own Cores do
    return loaded


def precisions() -> tuple[str, ...]:
    """What OpenVINO computes natively on this CPU."""
    capabilities = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("fp32", *(["bf16"] if "BF16" in capabilities else []), "int8")


def compiled(
    graph: openvino.Model, precision: str = "fp32", threads: int = 0
) -> openvino.CompiledModel:
    """A graph made ready for one image after the other."""
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": HINTS[precision]}
    if threads:
        hints["INFERENCE_NUM_THREADS"] = str(threads)
    return core().compile_model(graph, "CPU", hints)


def write_model(graph: openvino.Model, path: Path) -> openvino.Model:
    """Write a graph as an .xml and a .bin beside it, and read it from there.

    Raises:
        InputError: it cannot be written whole.
    """
    try:
        openvino.save_model(graph, path, compress_to_fp16=False)
        return core().read_model(path)
    except RuntimeError as error:  # whose reason is a place in OpenVINO's source
        raise InputError(f"{path}: cannot be written; is the disk full?") from error


def packed(graph: openvino.Model) -> bytes:
    """OpenVINO's two files in one: how long the .xml is, the .xml, and the .bin."""
    with scratch_folder() as folder:
        write_model(graph, folder / "net.xml")
        xml, weights = ((folder / f"net.{name}").read_bytes() for name in ("xml", "bin"))
    return len(xml).to_bytes(8, "little") + xml + weights


def unpacked(content: bytes) -> openvino.Model:
    """The graph that `packed` made bytes of."""
    end = 8 + int.from_bytes(content[:8], "little")
    weights = np.frombuffer(content[end:], np.uint8)
    return core().read_model(content[8:end], openvino.Tensor(weights))


def with_nms(network: openvino.Model, heads: Sequence[Head], settings: Nms) -> openvino.Model:
    """A network with decoding and NMS, as `utils.backends.nms_graph` tells; also one in int8.

    Raises:
        InputError: the network's heads ask for another overlap than IoU.
    """
    shapes = {
        each.get_any_name(): list(each.get_shape()) for each in (*network.inputs, *network.outputs)
    }
    detection = core().read_model(detection_graph(heads, shapes, settings).SerializeToString())
    values = [network.input(0), *(result.input_value(0) for result in network.get_results())]
    for parameter, value in zip(detection.get_parameters(), values, strict=True):
        parameter.output(0).replace(value.get_node().output(value.get_index()))
    return openvino.Model(detection.get_results(), network.get_parameters(), "network")


def runner(graph: openvino.Model, precision: str = "fp32", threads: int = 0) -> Run:
    """From images to raw maps through a graph."""
    request = compiled(graph, precision, threads).create_infer_request()

    def run(images: Tensor) -> list[Tensor]:
        maps = request.infer([images.cpu().contiguous().numpy()], share_inputs=True)
        return [torch.from_numpy(maps[n]) for n in range(len(maps))]

    return run


def _quantize(graph: bytes, batches: CalibrationBatches, in_float: Sequence[str]) -> bytes:
    return packed(quantized_openvino(core().read_model(graph), batches, in_float))


INT8 = Tools(_quantize, lambda content: runner(unpacked(content), "int8"), ("openvino", "nncf"))


class OpenVinoEngine(FixedBatch):
    """OpenVINO, in float32, int8, and bfloat16 where the CPU has it."""

    name = "openvino"

    def __init__(self, model: Darknet, options: EngineOptions) -> None:
        """Write the network as an ONNX graph and compile it."""
        super().__init__(options)
        options.check_precision(self.name, precisions())
        graph = to_onnx(model, options.size, options.batch)
        if options.precision == "int8":
            network = unpacked(quantized(graph, model, options, INT8))
        else:
            network = core().read_model(graph)
        self._run = runner(network, options.precision, options.threads)

    def run(self, images: Tensor) -> list[Tensor]:
        """Exactly `batch` images → the maps."""
        return self._run(images)
