"""ONNX Runtime on the CPU."""

from __future__ import annotations

import onnxruntime
import torch
from torch import Tensor

from models.darknet import Darknet
from utils.backends.base import FixedBatch, Wanted
from utils.backends.onnx_graph import to_onnx
from utils.backends.quantization import quantized, quantized_onnx


def session(graph: bytes | str, threads: int = 0) -> onnxruntime.InferenceSession:
    """An ONNX graph, or a file of one, ready to run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only
    # Its threads would wait for more work, busily, and slow down whatever comes next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class OnnxRuntimeEngine(FixedBatch):
    name = "onnxruntime"

    def __init__(self, model: Darknet, wanted: Wanted) -> None:
        super().__init__(wanted)
        wanted.refuse_precision(self.name, ("fp32", "int8"))
        graph = to_onnx(model, wanted.size, wanted.batch)
        if wanted.precision == "int8":
            graph = quantized(graph, model, wanted, quantized_onnx, ("onnxruntime",))
        self._session = session(graph, wanted.threads)

    def run(self, images: Tensor) -> list[Tensor]:
        feeds = {"images": images.cpu().contiguous().numpy()}
        return [torch.from_numpy(raw) for raw in self._session.run(None, feeds)]
