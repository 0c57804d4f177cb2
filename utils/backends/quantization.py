"""A network in 8-bit integers: which layers, and by whose tools.

Post-training quantisation: weights become int8 with a scale a channel, activations 8-bit with a
scale a tensor, whose range is taken from photos like those to come. The convolutions that write the
raw maps stay in float, since a box's width is an exponential of what they say; decoding is outside
the graph, in float32, in any case.
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
from models.netdef import NetDef
from utils.backends.base import Wanted
from utils.backends.cache import identity, kept
from utils.backends.sensitivity import DEAREST, ENOUGH, PHOTOS, too_sensitive
from utils.errors import InputError
from utils.timing import version

Images = list[NDArray[np.float32]]  # [B, 3, H, W] each


def in_batches(calibration: Iterable[Tensor] | None, batch: int) -> Images:
    """Photos in batches of one size; the last is filled up with the first photos.

    Raises InputError where there are none.
    """
    photos = list(calibration or ())
    if not sum(map(len, photos)):
        raise InputError("precision='int8': expected photos to calibrate on, found none")
    images = torch.cat(photos).cpu().numpy()
    count = -(-len(images) // batch) * batch
    order = np.arange(count) % len(images)
    return [images[order[start : start + batch]] for start in range(0, count, batch)]


def head_convolutions(netdef: NetDef) -> tuple[int, ...]:
    """The layers that write the raw maps."""
    found = []
    for index in netdef.heads:
        while netdef.layers[index].kind != "convolutional":
            index = netdef.sources(index)[0]
        found.append(index)
    return tuple(found)


def float_layers(model: Darknet, images: Images) -> list[str]:
    """The names of the convolutions that stay in float, as `onnx_graph` gives them: those
    that write the raw maps, and those that `sensitivity` finds."""
    heads = head_convolutions(model.netdef)
    few = torch.from_numpy(np.concatenate(images[:PHOTOS]))
    device = next(model.parameters()).device
    return [f"layer_{n}" for n in sorted({*heads, *too_sensitive(model, few.to(device), heads)})]


def quantized(
    graph: bytes,
    model: Darknet,
    wanted: Wanted,
    quantize: Callable[[bytes, Images, list[str]], bytes],
    tools: Sequence[str],
) -> bytes:
    """What `quantize` makes of a network's ONNX graph, from the cache where it is there.

    tools: the packages that have a part in it.
    """
    images = in_batches(wanted.calibration, wanted.batch)

    def make() -> bytes:
        return quantize(graph, images, float_layers(model, images))

    if not wanted.keep:
        return make()
    versions = [f"{name} {version(name)}" for name in tools]
    rules = f"int8 {versions} {PHOTOS} {ENOUGH} {DEAREST}"  # and which layers stay in float
    return kept("int8", identity([rules.encode(), graph, *(x.tobytes() for x in images)]), make)


def quantized_onnx(graph: bytes, images: Images, in_float: list[str]) -> bytes:
    """An ONNX graph with QDQ nodes, by ONNX Runtime's own tools."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._images: Iterator[Any] = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self._images, None)
            return None if image is None else {"images": image}

    with TemporaryDirectory() as folder:
        ready, target = Path(folder) / "ready.onnx", Path(folder) / "int8.onnx"
        ready.write_bytes(graph)
        logging.disable(logging.WARNING)  # it asks for what the exporter has done
        quantize_static(
            ready,
            target,
            Reader(),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=in_float,
        )
        logging.disable(logging.NOTSET)
        return target.read_bytes()


def quantized_openvino(graph: Any, images: Images, in_float: list[str]) -> Any:
    """An openvino.Model with FakeQuantize nodes, by NNCF."""
    import nncf

    present = {op.get_friendly_name() for op in graph.get_ops()}
    names = [name for name in present if name.partition("/")[0] in in_float]
    nncf.set_log_level(logging.ERROR)
    with redirect_stdout(StringIO()):  # progress bars, of each of a table's hundreds of networks
        return nncf.quantize(
            graph,
            nncf.Dataset(images),
            preset=nncf.QuantizationPreset.MIXED,  # leaky leaves few negative values
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(names=names) if names else None,
        )
