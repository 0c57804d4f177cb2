"""Networks in other programs' formats: written, opened again, and compared before they are kept."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from import_param import Export, Nms
from models.darknet import Darknet
from models.head import Head, decode, expect_finite
from utils.backends import install_command, standalone
from utils.backends.description import KEY, Description, describe
from utils.backends.file_readme import readme
from utils.backends.fold import folded
from utils.checkpoint.darknet_files import write_pair
from utils.checkpoint.network import Network, reopen
from utils.console.progress import track
from utils.errors import InputError
from utils.evaluation.nms import non_maximum_suppression
from utils.files.writing import fill, folder_within, guarded, put

if TYPE_CHECKING:
    from utils.backends.quantization import Tools

# The largest difference of a float32 file's maps from torch's, as a share of their largest value.
TOLERANCE = 1e-3
NMS_FORMATS = ("onnx", "openvino")  # that can have decoding and NMS in the graph


@dataclass(frozen=True)
class Exported:
    """What was written, and the largest difference to torch.

    The difference is one of raw maps in logits, or with NMS in the graph of boxes in pixels and
    scores together.
    """

    format: str
    files: tuple[Path, ...]
    difference: float
    largest: float  # value that the difference compares with
    run: Callable[[Tensor], list[Tensor]]  # the reloaded network; with NMS in it, what is before
    int8_loss: float | None = None  # of float's detections, see `utils.backends.int8_loss`
    nms_inside: bool = False


@dataclass(frozen=True)
class _Source:
    """What a file is written from."""

    network: Network
    images: Tensor
    settings: Export
    nms: Nms
    calibration: Tensor | None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the input in pixels."""
        return self.images.shape[-1], self.images.shape[-2]

    def in_int8(self) -> bool:
        return self.settings.precision == "int8"

    def description(self, stem: Path, input_name: str) -> Description:
        """What the file is to carry."""
        return describe(
            replace(self.network, size=self.size),
            stem.name,
            self.nms,
            input_name=input_name,
            precision=self.settings.precision,
            varies=self.settings.dynamic,
            nms_inside=self.settings.nms,
        )

    def quantized(self, graph: bytes, tools: Tools) -> tuple[bytes, float]:
        """The graph in int8, and its `int8_loss`; refused where that is too large."""
        from utils.backends.quantization import calibration_batches, check_loss, least_loss

        limit = self.settings.int8_loss
        photos = [] if self.calibration is None else [self.calibration]
        batches = calibration_batches(photos, 1)
        content, loss = least_loss(graph, self.network.model, batches, tools, limit)
        check_loss(loss, limit, tools.packages[0])
        return content, loss


def export(
    network: Network,
    file_format: str,
    stem: Path,
    images: Tensor,
    settings: Export,
    nms: Nms,
    calibration: Tensor | None = None,
) -> Exported:
    """Write a network; the files appear only once they have been compared with torch.

    Args:
        network: on the CPU.
        file_format: one of `FORMATS`.
        stem: of the files' names; each gets a suffix.
        images: photos [N, 3, H, W], float32, 0 to 1, on which the reloaded files are compared.
        settings: its `precision`, `dynamic`, `nms` and `standalone` count.
        nms: the thresholds, where NMS is in the graph.
        calibration: photos [N, 3, H, W] to calibrate int8 on.

    Raises:
        InputError: a format cannot be written here, or computes something else.
    """
    check_format(file_format, settings)
    model = network.model
    if settings.standalone and model.heads[-1].nms_power is not None:
        raise InputError(
            "standalone=True: expected a .cfg with nms_kind=default: its detector knows IoU alone"
        )
    source = _Source(network, images, settings, nms, calibration)
    with folder_within(stem.parent) as folder:
        written = FORMATS[file_format].write(source, folder / stem.name)
        files, run, maps = written.files, written.run, written.maps
        if maps:
            reference = maps if settings.precision == "int8" else model
            difference = _compare_detections(run, reference, model.heads, images, nms)
            largest = float(images.shape[-1])  # as far as a box's corner can be from another's
        else:
            difference, largest = _compare_maps(run, model, images)
        if (settings.precision == "fp32" or maps) and difference > TOLERANCE * largest:
            raise InputError(
                f"format={file_format!r}: differs by {difference:.3g} from torch, whose largest "
                f"value is {largest:.3g}: not written"
            )
        if written.description:
            page = readme(written.description, file_format, files[0].name)
            if settings.standalone:
                files += standalone.write(folder, file_format, files[0].name, page)
            else:
                files.append(folder / f"{files[0].name}.README.md")
                fill(files[-1], page)
        kept = tuple(reversed(put(files[::-1], stem.parent)))  # the first is what others open
    return Exported(
        file_format,
        kept,
        difference,
        largest,
        maps or run,
        written.int8_loss,
        nms_inside=maps is not None,
    )


def check_format(file_format: str, settings: Export) -> None:
    """Refuse what a format cannot be, or what it needs and is not installed.

    Raises:
        InputError: for the first thing that is wrong.
    """
    possible = {
        "dynamic": ("onnx",),
        "nms": NMS_FORMATS,
        "standalone": tuple(standalone.ENGINES),
    }
    for name, formats in possible.items():
        if getattr(settings, name) and file_format not in formats:
            raise InputError(
                f"{name}=True: expected format {' or '.join(formats)}, found {file_format!r}"
            )
    if settings.precision == "int8":
        if file_format not in ("onnx", "openvino"):
            raise InputError(
                f"precision='int8': expected format onnx or openvino, found {file_format!r}"
            )
        if settings.dynamic:
            raise InputError("precision='int8': expected dynamic=False")
    if command := install_command(FORMATS[file_format].engine, settings.precision):
        raise InputError(f"format={file_format!r}: not installed: {command}")


@dataclass(frozen=True)
class Written:
    """What a format's writer leaves.

    Attributes:
        files: that first which others open and which leads them to the rest.
        run: the network in them.
        description: what they carry.
        maps: with NMS in the graph, the network before it.
        int8_loss: see `utils.backends.int8_loss`; None in float.
    """

    files: list[Path]
    run: Callable[[Tensor], Any]
    description: Description | None = None
    maps: Callable[[Tensor], list[Tensor]] | None = None
    int8_loss: float | None = None


def _darknet(source: _Source, stem: Path) -> Written:
    network = source.network
    width, height = network.size
    netdef = network.model.netdef.with_net_options(
        width=width, height=height, letter_box=int(network.letterbox)
    )
    netdef = netdef.with_bn_epsilon_of(source.settings.bn_epsilon)
    write_pair(stem, network.model, netdef, network.names)
    files = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".weights", ".cfg", ".names")]
    opened = reopen(files[0], "cpu").model
    return Written(files, torch.inference_mode()(opened))


def _torchscript(source: _Source, stem: Path) -> Written:
    file = stem.with_name(f"{stem.name}.torchscript")
    description = source.description(stem, "images")
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # torch would rather have its newer format written
        traced = torch.jit.trace(folded(source.network.model), source.images[:1])
        with guarded(file) as output:  # given a name, torch ends the process on a full disk
            extra = {KEY: description.text()}
            torch.jit.save(torch.jit.freeze(traced), output, _extra_files=extra)
        opened = torch.jit.load(str(file))
    return Written([file], lambda batch: list(opened(batch)), description)


def _onnx(source: _Source, stem: Path) -> Written:
    from utils.backends.nms_graph import with_nms
    from utils.backends.onnx_graph import IMAGES, to_onnx, with_metadata
    from utils.backends.onnxruntime_engine import INT8, runner

    model = source.network.model
    content = to_onnx(model, None if source.settings.dynamic else source.size)
    loss = maps = None
    if source.in_int8():
        content, loss = source.quantized(content, INT8)
    if source.settings.nms:
        maps = runner(content)
        content = with_nms(content, model.heads, source.nms)
    description = source.description(stem, IMAGES)
    file = stem.with_name(f"{stem.name}.onnx")
    fill(file, with_metadata(content, {KEY: description.text()}))
    return Written([file], runner(str(file)), description, maps, loss)


def _openvino(source: _Source, stem: Path) -> Written:
    from utils.backends.onnx_graph import IMAGES, to_onnx
    from utils.backends.openvino_engine import INT8, core, runner, unpacked, with_nms, write_model

    model = source.network.model
    content = to_onnx(model, source.size)
    loss = maps = None
    if source.in_int8():
        content, loss = source.quantized(content, INT8)
    graph = core().read_model(content) if loss is None else unpacked(content)
    if source.settings.nms:
        maps = runner(graph)
        graph = with_nms(graph, model.heads, source.nms)
    description = source.description(stem, IMAGES)
    graph.set_rt_info(description.text(), [KEY])
    files = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".xml", ".bin")]
    return Written(files, runner(write_model(graph, files[0])), description, maps, loss)


def _ncnn(source: _Source, stem: Path) -> Written:
    from utils.backends.ncnn_engine import infer, load, write
    from utils.backends.ncnn_graph import IMAGE

    model = source.network.model
    files = write(model, stem.with_name(f"{stem.name}.ncnn"))
    description = source.description(stem, IMAGE)
    side_file = stem.with_name(f"{stem.name}.ncnn.json")
    fill(side_file, description.text() + "\n")
    net = load(*files)
    return Written(
        [*files, side_file], lambda batch: infer(net, batch[0], len(model.heads)), description
    )


@dataclass(frozen=True)
class Format:
    """How a format is written, and whose library opens it again."""

    write: Callable[[_Source, Path], Written]
    engine: str  # a key of `utils.backends.ENGINES`


FORMATS = {
    "darknet": Format(_darknet, "torch"),
    "onnx": Format(_onnx, "onnxruntime"),
    "openvino": Format(_openvino, "openvino"),
    "ncnn": Format(_ncnn, "ncnn"),
    "torchscript": Format(_torchscript, "torch"),
}


@torch.inference_mode()
def _compare_maps(
    run: Callable[[Tensor], Sequence[Tensor]], model: Darknet, images: Tensor
) -> tuple[float, float]:
    """The largest difference of raw maps, and their largest value, over photos one by one."""
    difference = largest = 0.0
    for image in track(images.split(1), "comparing with torch"):
        maps, reference = run(image), model(image)
        expect_finite(reference, "this network")
        expect_finite(maps, "what was written")
        for ours, theirs in zip(maps, reference, strict=True):
            difference = max(difference, float((ours - theirs).abs().max()))
            largest = max(largest, float(theirs.abs().max()))
    return difference, largest


@torch.inference_mode()
def _compare_detections(
    run: Callable[[Tensor], Sequence[Tensor]],
    reference_maps: Callable[[Tensor], list[Tensor]],
    heads: Sequence[Head],
    images: Tensor,
    settings: Nms,
) -> float:
    """The largest difference of boxes and scores in the graph's own detections.

    Infinite where a photo has another number of detections of a class.

    Args:
        run: from an image to the graph's detections.
        reference_maps: from an image to raw maps, which our own NMS is for.
        heads: that decode them.
        images: the photos.
        settings: the thresholds.
    """
    difference = 0.0
    for image in track(images.split(1), "comparing with torch"):
        maps = reference_maps(image)
        expect_finite(maps, "this network")
        predictions = decode(maps, heads, (image.shape[-1], image.shape[-2]))
        (reference,) = non_maximum_suppression(predictions, replace(settings, max_detections=0))
        _, labels, boxes, scores = run(image)
        expect_finite([boxes, scores], "what was written")
        for label in range(predictions.classes.shape[-1]):
            rows = torch.cat([boxes, scores[:, None]], 1)[labels == label]
            reference_rows = torch.cat([reference.boxes, reference.scores[:, None]], 1)
            reference_rows = reference_rows[reference.labels == label][
                : settings.max_detections or None
            ]
            difference = max(difference, _largest_distance(rows, reference_rows))
    return difference


def _largest_distance(rows: Tensor, reference: Tensor) -> float:
    """How far a row [N, 5] can be from the nearest one of the others."""
    if len(rows) != len(reference):
        return float("inf")
    if not len(rows):
        return 0.0
    distances = (rows[:, None] - reference[None]).abs().amax(2)  # [N, N]
    return float(max(distances.amin(0).max(), distances.amin(1).max()))
