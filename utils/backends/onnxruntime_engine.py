"""ONNX Runtime on the CPU."""

from __future__ import annotations

import onnxruntime
import torch
from torch import Tensor

from models.darknet import Darknet
from utils.backends.base import EngineOptions, FixedBatch
from utils.backends.onnx_graph import IMAGES, to_onnx
from utils.backends.quantization import Tools, quantized, quantized_onnx
from utils.evaluation.evaluate import Run


def session(graph: bytes | str, threads: int = 0) -> onnxruntime.InferenceSession:
    """An ONNX graph, or a file of one, ready to run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only
    # Its threads would wait for more work, busily, and slow down whatever comes next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def runner(graph: bytes | str, threads: int = 0) -> Run:
    """From images to raw maps through an ONNX graph, or a file of one."""
    opened = session(graph, threads)

    def run(images: Tensor) -> list[Tensor]:
        feeds = {IMAGES: images.cpu().contiguous().numpy()}
        return [torch.from_numpy(raw) for raw in opened.run(None, feeds)]

    return run


INT8 = Tools(quantized_onnx, runner, ("onnxruntime",))


class OnnxRuntimeEngine(FixedBatch):
    """ONNX Runtime, in float32 or int8."""

    name = "onnxruntime"

    def __init__(self, model: Darknet, options: EngineOptions) -> None:
        """Write the network as an ONNX graph and open it."""
        super().__init__(options)
        options.check_precision(self.name, ("fp32", "int8"))
        graph = to_onnx(model, options.size, options.batch)
        if options.precision == "int8":
            graph = quantized(graph, model, options, INT8)
        self._run = runner(graph, options.threads)

    def run(self, images: Tensor) -> list[Tensor]:
        """Exactly `batch` images → the maps."""
        return self._run(images)
