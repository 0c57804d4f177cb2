"""A network in 8-bit integers, by ONNX Runtime's and OpenVINO's own tools.

Post-training quantisation: weights become int8 with a scale a channel, activations 8-bit with a
scale a tensor, whose range is taken from photos like those to come (calibration). Which layers stay
in float is decided in `utils.backends.float_layers`; decoding is outside the graph, in float32, in
any case.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.darknet import Darknet
from utils.backends.base import EngineOptions
from utils.backends.cache import cached
from utils.backends.float_layers import OPTIONS, float_layers
from utils.errors import InputError
from utils.timing import version

CalibrationBatches = list[NDArray[np.float32]]  # [B, 3, H, W] each, 0 to 1
Quantize = Callable[[bytes, CalibrationBatches, Sequence[str]], bytes]


def calibration_batches(calibration: Iterable[Tensor] | None, batch: int) -> CalibrationBatches:
    """Photos in batches of one size; the last is filled up with the first photos.

    Raises:
        InputError: there are no photos.
    """
    photos = list(calibration or ())
    if not sum(map(len, photos)):
        raise InputError("precision='int8': expected photos to calibrate on, found none")
    images = torch.cat(photos).cpu().numpy()
    count = -(-len(images) // batch) * batch
    order = np.arange(count) % len(images)
    return [images[order[start : start + batch]] for start in range(0, count, batch)]


def float_nodes(model: Darknet, batches: CalibrationBatches) -> list[str]:
    """The names that `onnx_graph` gives to the convolutions that stay in float."""
    from utils.backends.onnx_graph import node_name

    images = torch.from_numpy(np.concatenate(batches[: OPTIONS.photos]))
    layers = float_layers(model, images.to(next(model.parameters()).device))
    return [node_name(index) for index in layers]


def quantized(
    graph: bytes, model: Darknet, options: EngineOptions, quantize: Quantize, tools: Sequence[str]
) -> bytes:
    """A network's ONNX graph in int8, from the cache where the same one was quantised before.

    Args:
        graph: the network as `onnx_graph` writes it.
        model: the network.
        options: with photos to calibrate on.
        quantize: makes it from the graph, the photos and the names of nodes that stay in float.
        tools: the packages that have a part in it, whose versions the cache minds.
    """
    batches = calibration_batches(options.calibration, options.batch)

    def compute() -> bytes:
        return quantize(graph, batches, float_nodes(model, batches))

    if not options.use_cache:
        return compute()
    versions = [(name, version(name)) for name in tools]
    return cached("int8", (versions, OPTIONS, graph, batches), compute)


def quantized_onnx(graph: bytes, batches: CalibrationBatches, in_float: Sequence[str]) -> bytes:
    """An ONNX graph with QDQ nodes, by ONNX Runtime's own tools."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    from utils.backends.onnx_graph import IMAGES

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self._batches: Iterator[Any] = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            images = next(self._batches, None)
            return None if images is None else {IMAGES: images}

    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(graph)
        logging.disable(logging.WARNING)  # it asks for what `onnx_graph` has done
        quantize_static(
            source,
            target,
            Reader(),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(in_float),
        )
        logging.disable(logging.NOTSET)
        return target.read_bytes()


def quantized_openvino(graph: Any, batches: CalibrationBatches, in_float: Sequence[str]) -> Any:
    """An openvino.Model with FakeQuantize nodes, by NNCF."""
    import nncf

    present = {op.get_friendly_name() for op in graph.get_ops()}
    names = [name for name in present if name.partition("/")[0] in in_float]
    nncf.set_log_level(logging.ERROR)
    with redirect_stdout(StringIO()):  # a latency table quantises hundreds: no progress bars
        return nncf.quantize(
            graph,
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.MIXED,  # leaky leaves few negative values
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(names=names) if names else None,
        )
