"""Networks in other programs' formats: written, opened again, and compared before they are kept."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from import_param import Nms, TrainedNetwork
from models.darknet import Darknet
from models.head import decode
from utils.backends import ENGINES, install_command
from utils.backends.fold import folded
from utils.checkpoint import Network, load_network, write_pair
from utils.errors import InputError
from utils.evaluation.nms import non_maximum_suppression

FORMATS = ("darknet", "onnx", "openvino", "ncnn", "torchscript")
NEEDS = {"darknet": "torch", "torchscript": "torch", "onnx": "onnxruntime"}  # others: as named
NEAR = 1e-3  # of float32 maps, against their largest value


@dataclass(frozen=True)
class Options:
    """precision: fp32, or int8 for ONNX and OpenVINO, calibrated on `calibration` [N, 3, H, W].
    dynamic, nms: ONNX with any batch and size, and with decoding and NMS in the graph; the
    thresholds are those of `utils.evaluation.nms`."""

    precision: str = "fp32"
    calibration: Tensor | None = None
    dynamic: bool = False
    nms: bool = False
    conf_thres: float = 0.25
    nms_thres: float = 0.45
    max_detections: int = 300


@dataclass(frozen=True)
class Exported:
    """What was written, and the largest difference to torch: of raw maps in logits, or with NMS in
    the graph of boxes in pixels and scores together."""

    format: str
    files: tuple[Path, ...]
    difference: float
    largest: float
    run: Callable[[Tensor], list[Tensor]] | None  # the reloaded network, unless it has NMS in it


def export(network: Network, kind: str, stem: Path, images: Tensor, options: Options) -> Exported:
    """Write a network as `stem` with the suffixes of a format. images: photos [N, 3, H, W], float32
    0 to 1, on which the reloaded files are compared with torch. The network is on the CPU.

    Files appear only once they have been compared. Raises InputError where a format cannot be
    written here, or computes something else.
    """
    check(kind, options)
    model = network.model
    stem.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=stem.parent, prefix=".export-") as folder:
        files, run = WRITERS[kind](network, Path(folder) / stem.name, images, options)
        if options.nms:
            difference = _compare_detections(run, model, images, options)
            largest = float(images.shape[-1])  # as far as a box's corner can be from another's
        else:
            difference, largest = _compare_maps(run, model, images)
        if options.precision == "fp32" and difference > NEAR * largest:
            raise InputError(
                f"format={kind!r}: differs by {difference:.3g} from torch, whose largest value is "
                f"{largest:.3g}: not written"
            )
        moved = tuple(file.replace(stem.parent / file.name) for file in files)
    for file in moved:
        file.chmod(0o644)
    return Exported(kind, moved, difference, largest, None if options.nms else run)


def check(kind: str, options: Options) -> None:
    """Refuse what a format cannot be, or what it needs and is not installed."""
    if kind not in FORMATS:
        raise InputError(f"format={kind!r}: expected some of {', '.join(FORMATS)}")
    for name in ("dynamic", "nms"):
        if getattr(options, name) and kind != "onnx":
            raise InputError(f"{name}=True: expected format='onnx' alone, found {kind!r}")
    if options.precision not in ("fp32", "int8"):
        raise InputError(f"precision={options.precision!r}: expected fp32 or int8")
    if options.precision == "int8":
        if kind not in ("onnx", "openvino"):
            raise InputError(f"precision='int8': expected format onnx or openvino, found {kind!r}")
        if options.dynamic or options.nms:
            raise InputError("precision='int8': expected neither dynamic nor nms")
        if options.calibration is None:
            raise InputError("precision='int8': expected photos to calibrate on")
    engine = NEEDS.get(kind, kind)
    assert engine in ENGINES
    if command := install_command(engine, options.precision):
        raise InputError(f"format={kind!r}: not installed: {command}")


def _photos(options: Options) -> list[Tensor]:
    return [] if options.calibration is None else [options.calibration]


Written = tuple[list[Path], Callable[[Tensor], Any]]


def _darknet(network: Network, stem: Path, images: Tensor, options: Options) -> Written:
    width, height = network.size
    netdef = network.model.netdef.with_net_options(
        width=width, height=height, letter_box=int(network.letterbox)
    )
    write_pair(stem, network.model, netdef, network.names)
    files = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".cfg", ".weights", ".names")]
    opened = load_network(TrainedNetwork(weights=str(files[1]), device="cpu")).model
    return files, torch.inference_mode()(opened)


def _torchscript(network: Network, stem: Path, images: Tensor, options: Options) -> Written:
    file = stem.with_name(f"{stem.name}.torchscript")
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # torch would rather have its newer format written
        traced = torch.jit.trace(folded(network.model), images[:1])
        torch.jit.freeze(traced).save(str(file))
        opened = torch.jit.load(str(file))
    return [file], lambda batch: list(opened(batch))


def _onnx(network: Network, stem: Path, images: Tensor, options: Options) -> Written:
    from utils.backends.nms_graph import with_nms
    from utils.backends.onnx_graph import to_onnx
    from utils.backends.onnxruntime_engine import session
    from utils.backends.quantization import calibration_batches, float_nodes, quantized_onnx

    model = network.model
    size = None if options.dynamic else (images.shape[-1], images.shape[-2])
    if options.nms:
        thresholds = Nms(options.conf_thres, options.nms_thres, options.max_detections)
        content = with_nms(model, size, thresholds)
    else:
        content = to_onnx(model, size)
    if options.precision == "int8":
        batches = calibration_batches(_photos(options), 1)
        content = quantized_onnx(content, batches, float_nodes(model, batches))
    file = stem.with_name(f"{stem.name}.onnx")
    file.write_bytes(content)
    opened = session(str(file))
    return [file], lambda batch: [
        torch.from_numpy(found) for found in opened.run(None, {"images": batch.numpy()})
    ]


def _openvino(network: Network, stem: Path, images: Tensor, options: Options) -> Written:
    import openvino

    from utils.backends.onnx_graph import to_onnx
    from utils.backends.openvino_engine import compiled
    from utils.backends.quantization import calibration_batches, float_nodes, quantized_openvino

    size = (images.shape[-1], images.shape[-2])
    graph = openvino.Core().read_model(to_onnx(network.model, size))
    if options.precision == "int8":
        batches = calibration_batches(_photos(options), 1)
        graph = quantized_openvino(graph, batches, float_nodes(network.model, batches))
    files = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".xml", ".bin")]
    openvino.save_model(graph, files[0], compress_to_fp16=False)
    opened = compiled(openvino.Core().read_model(files[0]))
    count = len(network.model.heads)

    def run(batch: Tensor) -> list[Tensor]:
        found = opened([batch.numpy()])
        return [torch.from_numpy(found[number].copy()) for number in range(count)]

    return files, run


def _ncnn(network: Network, stem: Path, images: Tensor, options: Options) -> Written:
    from utils.backends.ncnn_engine import infer, load, write

    files = write(network.model, stem.with_name(f"{stem.name}.ncnn"))
    net = load(*files)
    count = len(network.model.heads)
    return list(files), lambda batch: infer(net, batch[0], count)


WRITERS: dict[str, Callable[[Network, Path, Tensor, Options], Written]] = {
    "darknet": _darknet,
    "onnx": _onnx,
    "openvino": _openvino,
    "ncnn": _ncnn,
    "torchscript": _torchscript,
}


@torch.inference_mode()
def _compare_maps(
    run: Callable[[Tensor], Sequence[Tensor]], model: Darknet, images: Tensor
) -> tuple[float, float]:
    """The largest difference of raw maps, and their largest value, over photos one by one."""
    difference = largest = 0.0
    for image in images.split(1):
        for ours, theirs in zip(run(image), model(image), strict=True):
            difference = max(difference, float((ours - theirs).abs().max()))
            largest = max(largest, float(theirs.abs().max()))
    return difference, largest


@torch.inference_mode()
def _compare_detections(
    run: Callable[[Tensor], Sequence[Tensor]], model: Darknet, images: Tensor, options: Options
) -> float:
    """The largest difference of boxes and scores in the graph's own detections; infinite where
    another number of a class is found."""
    difference = 0.0
    for image in images.split(1):
        predictions = decode(model(image), model.heads, (image.shape[-1], image.shape[-2]))
        (wanted,) = non_maximum_suppression(
            predictions, Nms(options.conf_thres, options.nms_thres, max_detections=0)
        )
        _, labels, found, confidence = run(image)
        for label in range(predictions.classes.shape[-1]):
            theirs, ours = wanted.labels == label, labels == label
            theirs_rows = torch.cat([wanted.boxes, wanted.scores[:, None]], 1)[theirs]
            theirs_rows = theirs_rows[: options.max_detections]
            ours_rows = torch.cat([found, confidence[:, None]], 1)[ours]
            difference = max(difference, _farthest(ours_rows, theirs_rows))
    return difference


def _farthest(ours: Tensor, theirs: Tensor) -> float:
    """How far a row [N, 5] can be from the nearest one of the others."""
    if len(ours) != len(theirs):
        return float("inf")
    if not len(ours):
        return 0.0
    apart = (ours[:, None] - theirs[None]).abs().amax(2)  # [N, N]
    return float(max(apart.amin(0).max(), apart.amin(1).max()))
