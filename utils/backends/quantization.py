"""A network in 8-bit integers, by ONNX Runtime's and OpenVINO's own tools.

Post-training quantisation: weights become int8 with a scale a channel, activations 8-bit with a
scale a tensor, whose range is taken from photos like those to come (calibration). Which layers stay
in float is decided in `utils.backends.float_layers`; decoding is outside the graph, in float32, in
any case.
"""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.darknet import Darknet
from utils.backends.base import EngineOptions
from utils.backends.float_layers import OPTIONS as FLOAT_LAYERS
from utils.backends.float_layers import float_layers
from utils.backends.int8_loss import int8_loss
from utils.console.progress import track
from utils.errors import InputError
from utils.evaluation.evaluate import Run
from utils.files.cache import cached, note
from utils.files.writing import fill, scratch_folder
from utils.timing import version

CalibrationBatches = list[NDArray[np.float32]]  # [B, 3, H, W] each, 0 to 1
LOSS = struct.Struct("<d")  # that a network in the cache begins with


@dataclass(frozen=True)
class ComparisonOptions:
    """How a network in int8 is compared with itself in float."""

    photos: int = 32  # calibration photos that it detects on
    enough: float = 0.02  # a loss at which no better choice of layers is looked for


OPTIONS = ComparisonOptions()


@dataclass(frozen=True)
class Tools:
    """What an engine has for int8.

    Attributes:
        quantize: from a graph, photos and the names of nodes that stay in float to the network in
            int8, as bytes.
        open: makes these ready to run on the photos' shape.
        packages: that have a part in it, whose versions the cache minds; the engine's first.
    """

    quantize: Callable[[bytes, CalibrationBatches, Sequence[str]], bytes]
    open: Callable[[bytes], Run]
    packages: tuple[str, ...]


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


def float_nodes(model: Darknet, batches: CalibrationBatches) -> list[list[str]]:
    """By choice, the names that `onnx_graph` gives to the convolutions that stay in float."""
    from utils.backends.onnx_graph import node_name

    images = torch.from_numpy(np.concatenate(batches[: FLOAT_LAYERS.photos]))
    choices = float_layers(model, images.to(model.device))
    return [[node_name(index) for index in layers] for layers in choices]


def least_loss(
    graph: bytes,
    model: Darknet,
    batches: CalibrationBatches,
    tools: Tools,
    limit: float | None,
) -> tuple[bytes, float]:
    """A network in int8 that detects what it detects in float, and what it loses of that.

    Layers are judged together, and all operators with them: with more and more layers in float, the
    whole network is quantised and run, until its loss is small enough.

    Args:
        graph: the network as `onnx_graph` writes it.
        model: the network.
        batches: to calibrate on, and to compare on.
        tools: of the engine.
        limit: the loss that is allowed; None where it does not count, as of a network that does
            not detect anything yet.

    Returns:
        The best that was seen, with its `int8_loss`: NaN where that is not known.
    """
    compared = batches[: -(-OPTIONS.photos // len(batches[0]))]
    best, least = b"", math.inf
    for in_float in track(float_nodes(model, batches), "quantising to int8"):
        content = tools.quantize(graph, batches, in_float)
        if limit is None:
            return content, math.nan
        loss = int8_loss(model, tools.open(content), compared)
        if math.isnan(loss):
            return content, loss
        if loss < least:
            best, least = content, loss
        if least <= min(limit, OPTIONS.enough):
            break
    return best, least


def check_loss(loss: float, limit: float | None, name: str) -> None:
    """Refuse a network that loses more in int8 than is allowed; say so where that is not known.

    Args:
        loss: from `least_loss`.
        limit: as there.
        name: of the engine.

    Raises:
        InputError: the loss is above the limit.
    """
    if limit is None:
        return
    if math.isnan(loss):
        note(f"int8 on {name} is not compared with float: nothing is on the calibration photos")
    elif loss > limit:
        raise InputError(
            f"precision='int8': on {name} this network loses {loss:.3f} of the AP of its own "
            f"detections in float, on the calibration photos: expected int8_loss={limit:g} at most"
        )


def quantized(graph: bytes, model: Darknet, options: EngineOptions, tools: Tools) -> bytes:
    """A network's ONNX graph in int8, from the cache where the same one was quantised before.

    Args:
        graph: the network as `onnx_graph` writes it.
        model: the network.
        options: with photos to calibrate on, and the loss that is allowed.
        tools: of the engine.

    Raises:
        InputError: it loses more than `options` allow.
    """
    batches = calibration_batches(options.calibration, options.batch)

    def compute() -> bytes:
        content, loss = least_loss(graph, model, batches, tools, options.int8_loss)
        return LOSS.pack(loss) + content

    if options.use_cache:
        versions = [(name, version(name)) for name in tools.packages]
        key = (versions, FLOAT_LAYERS, OPTIONS, options.int8_loss, graph, batches)
        content = cached("int8", key, compute)
    else:
        content = compute()
    check_loss(LOSS.unpack_from(content)[0], options.int8_loss, tools.packages[0])
    return content[LOSS.size :]


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

    with scratch_folder() as folder:
        source, target = folder / "float.onnx", folder / "int8.onnx"
        fill(source, graph)
        logging.disable(logging.WARNING)  # it asks for what `onnx_graph` has done
        quantize_static(
            source,
            target,
            Reader(),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*in_float, *_readers(graph, in_float)],
        )
        logging.disable(logging.NOTSET)
        return target.read_bytes()


def _readers(graph: bytes, names: Collection[str]) -> list[str]:
    """The nodes, but for convolutions, that read what these nodes compute: their activations.

    Rounded on its own, a map before a leaky ReLU spends most of its steps on negative values.
    """
    import onnx

    nodes = onnx.load_from_string(graph).graph.node
    outputs = {output for node in nodes if node.name in names for output in node.output}
    return [node.name for node in nodes if node.op_type != "Conv" and outputs & {*node.input}]


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
