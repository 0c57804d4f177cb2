"""A file that export.py wrote, used as a network: its description and library are all it needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from import_param import Nms, Runtime, TrainedNetwork
from models.darknet import Darknet
from models.head import Head, expect_finite
from utils.backends.description import KEY, Description, parse
from utils.backends.registry import check_installed, install_command
from utils.console.progress import say
from utils.data.definition import read_names
from utils.errors import InputError
from utils.evaluation.ranking import best_first
from utils.files.reading import read_text
from utils.structures import Detections

ENGINES_BY_SUFFIX = {
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".param": ("ncnn",),
}
Outputs = Sequence[Tensor]


@dataclass(frozen=True)
class ExportedFile:
    """An exported file, which is not opened yet.

    Attributes:
        path: the file, that of several which others open.
        description: what it carries.
        heads: that decode its maps.
    """

    path: Path
    description: Description
    heads: tuple[Head, ...]
    device = torch.device("cpu")

    @property
    def engines(self) -> tuple[str, ...]:
        """Those that run it, the first one by default."""
        return ENGINES_BY_SUFFIX[self.path.suffix.lower()]

    @property
    def bytes(self) -> int:
        """Its size, with that of the file beside it that holds the weights."""
        files = (self.path, self.path.with_suffix(".bin"))
        own = files if self.path.suffix.lower() != ".onnx" else files[:1]
        return sum(file.stat().st_size for file in own)

    def open(
        self, engine: str, precision: str, threads: int, size: tuple[int, int]
    ) -> ExportedEngine:
        """Make it ready to run.

        Args:
            engine: one of `engines`.
            precision: its own, or bf16 on OpenVINO.
            threads: 0 for as many as torch uses.
            size: (width, height) of the input.

        Raises:
            InputError: its library is not installed, or cannot read it, or it computes other maps
                than it tells, or something that is not finite.
        """
        check_installed(engine, "fp32")
        threads = threads or torch.get_num_threads()
        run = _read(self.path, engine, lambda: OPENERS[engine](self, precision, threads))
        opened = ExportedEngine(self, run, engine, precision, size)
        opened.check()
        return opened


@dataclass(frozen=True)
class ExportedNetwork:
    """An exported file, as `utils.checkpoint.network.Network` is a network of torch's.

    Attributes:
        model: the file.
        names: of its classes.
        size: (width, height) of its input in pixels.
        letterbox: whether photos keep their aspect.
        engine: that is to run it.
        precision: in which it is to run.
    """

    model: ExportedFile
    names: tuple[str, ...]
    size: tuple[int, int]
    letterbox: bool
    engine: str
    precision: str

    @property
    def path(self) -> str:
        """The file."""
        return str(self.model.path)

    @property
    def origin(self) -> str:
        """A line that says which file that is."""
        return f"network: {self.path}: exported, {self.precision}, for {self.engine}"


@dataclass(eq=False)
class ExportedEngine:
    """An engine of `utils.backends`, or where NMS is in the file, what gives detections.

    Attributes:
        file: what it runs.
        run: exactly one image, or where the file takes any number, all, to its outputs.
        name: of the library.
        precision: of its arithmetic.
        size: (width, height) of the input.
    """

    file: ExportedFile
    run: Callable[[Tensor], Outputs]
    name: str
    precision: str
    size: tuple[int, int]

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> list[Any]:
        """Images [B, 3, H, W] → the raw map of each head; or Detections of each image.

        Raises:
            InputError: the images have another size than it was opened for.
        """
        width, height = self.size
        if images.shape[1:] != (3, height, width):
            raise InputError(
                f"images of {tuple(images.shape)}: expected (B, 3, {height}, {width}), "
                f"the size that {self.file.path} was opened for"
            )
        varies = self.file.description.input.varies
        chunks = [images] if varies else images.split(1)
        outputs = [self.run(chunk) for chunk in chunks]
        if self.file.description.nms.inside:
            pairs = zip(outputs, chunks, strict=True)
            return [each for maps, chunk in pairs for each in _by_image(maps, len(chunk))]
        return [torch.cat(maps) for maps in zip(*outputs, strict=True)]

    def synchronize(self) -> None:
        """Nothing: these files run on the CPU, and what they compute is done when it returns."""

    def check(self) -> None:
        """Run it on grey, and refuse what does not fit its description."""
        width, height = self.size
        outputs = self.run(torch.full((1, 3, height, width), 0.5))
        expect_finite([each for each in outputs if each.is_floating_point()], str(self.file.path))
        expected = len(self.file.description.outputs)
        fits = len(outputs) == expected
        if fits and not self.file.description.nms.inside:
            pairs = zip(outputs, self.file.heads, strict=True)
            fits = all(raw.ndim == 4 and raw.shape[1] == head.channels for raw, head in pairs)
        if not fits:
            shapes = ", ".join(str(list(each.shape)) for each in outputs)
            raise InputError(f"{self.file.path}: computes {shapes}: expected what it describes")


def _by_image(outputs: Outputs, count: int) -> list[Detections]:
    """What a graph with NMS found on `count` images, best first."""
    image_index, labels, boxes, scores = outputs
    detections = []
    for number in range(count):
        own = (image_index == number).nonzero().squeeze(1)
        own = own[best_first(scores[own])]
        detections.append(Detections(boxes[own], scores[own], labels[own]))
    return detections


def is_exported(path: str) -> bool:
    """Whether a file's name is that of an exported network."""
    return Path(path).suffix.lower() in ENGINES_BY_SUFFIX


def load_exported(
    settings: TrainedNetwork, runtime: Runtime, asked: Collection[str] = ()
) -> ExportedNetwork:
    """Make an exported file a network; see `utils.backends.runtime.load_any_network`."""
    file = open_file(settings.weights)
    return ExportedNetwork(
        file,
        _names(file, settings),
        input_size(file, settings.img_size),
        file.description.letterbox if settings.letterbox == "auto" else settings.letterbox == "yes",
        _engine(file, settings, runtime, asked),
        _precision(file, runtime, asked),
    )


def open_file(path: str | Path) -> ExportedFile:
    """Read the description of an exported file.

    Raises:
        InputError: there is no such file, or export.py did not write it.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if not file.is_file():
        raise InputError(f"weights={str(path)!r}: no such file")
    if suffix == ".param":
        text = _ncnn_description(file)
    else:
        reader = "onnx" if suffix == ".onnx" else "openvino"
        if reader == "openvino":
            check_installed(reader, "fp32")
        text = _read(file, reader, lambda: READERS[suffix](file))
    if not text:
        raise InputError(
            f"{path}: does not say how its maps become boxes: expected a file that export.py of "
            "this project wrote"
        )
    description = parse(text, path)
    return ExportedFile(file, description, description.models_heads())


def thresholds(model: Darknet | ExportedFile, nms: Nms, asked: Collection[str] = ()) -> Nms:
    """The thresholds to detect with: where NMS is in the file, its own unless stricter ones do.

    Args:
        model: the network or file.
        nms: the thresholds that are wanted.
        asked: the names of settings that the user gave; of others the file's own go before.

    Raises:
        InputError: the file has left out already what is asked for.
    """
    if isinstance(model, Darknet) or not model.description.nms.inside:
        return nms
    own, path = model.description.nms, model.path
    inside = f"{path} has NMS in it, with"
    if "conf_thres" in asked and nms.conf_thres < own.conf_thres:
        raise InputError(
            f"conf_thres={nms.conf_thres:g}: {inside} {own.conf_thres:g}: expected at least that"
        )
    if "nms_thres" in asked and nms.nms_thres != own.nms_thres:
        raise InputError(f"nms_thres={nms.nms_thres:g}: {inside} {own.nms_thres:g}: expected that")
    used = replace(nms, conf_thres=max(nms.conf_thres, own.conf_thres), nms_thres=own.nms_thres)
    if used != nms:
        say(
            f"note: {inside} conf_thres={own.conf_thres:g}, nms_thres={own.nms_thres:g}: all that "
            "is detected or measured is what these leave"
        )
    return used


def _names(file: ExportedFile, settings: TrainedNetwork) -> tuple[str, ...]:
    own = file.description.names
    if not settings.names:
        return own
    names = read_names(settings.names)
    if len(names) != len(own):
        raise InputError(
            f"{settings.names}: {len(names)} class names for a network of {len(own)} classes"
        )
    return names


def input_size(file: ExportedFile, side: int) -> tuple[int, int]:
    """The (width, height) of its input. side: what is asked for; 0 for its own.

    Raises:
        InputError: it takes another size only.
    """
    photos = file.description.input
    if not side:
        return file.description.size
    if not photos.varies and (side, side) != file.description.size:
        raise InputError(
            f"img_size={side}: {file.path} reads {photos.width}x{photos.height} px only: export it "
            f"with --img_size {side}, or with --dynamic"
        )
    if side % photos.stride:
        raise InputError(f"img_size={side}: expected a multiple of {photos.stride}")
    return side, side


def _engine(
    file: ExportedFile, settings: TrainedNetwork, runtime: Runtime, asked: Collection[str]
) -> str:
    """The engine to run it on: what is asked for, or its own."""
    if settings.cfg:
        raise InputError(f"cfg={settings.cfg!r}: expected none: {file.path} needs no .cfg")
    if settings.device not in ("auto", "cpu"):
        raise InputError(f"device={settings.device!r}: {file.path} runs on the cpu")
    known = file.engines
    if "engine" not in asked or runtime.engine == "auto":
        return next((name for name in known if not install_command(name)), known[0])
    if runtime.engine not in known:
        raise InputError(f"engine={runtime.engine!r}: {file.path} runs on {' or '.join(known)}")
    return runtime.engine


def _precision(file: ExportedFile, runtime: Runtime, asked: Collection[str]) -> str:
    """The precision to run it in: its own, or bfloat16 where OpenVINO is asked for that."""
    own, precision = file.description.precision, str(runtime.precision)
    if "precision" not in asked or precision in (own, "auto"):
        return own
    if precision == "bf16" and own == "fp32" and runtime.engine == "openvino":
        return precision
    raise InputError(f"precision={precision!r}: {file.path} computes in {own}")


def _read(path: Path, library: str, read: Callable[[], Any]) -> Any:
    """What a library makes of a file; whatever it raises means that it cannot read it."""
    try:
        return read()
    except (InputError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: {library} cannot read it: {reason[:200]}") from error


def _onnx_description(path: Path) -> str:
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return next((str(entry.value) for entry in model.metadata_props if entry.key == KEY), "")


def _openvino_description(path: Path) -> str:
    from utils.backends.openvino_engine import core

    graph = core().read_model(path)
    return str(graph.get_rt_info([KEY]).value) if graph.has_rt_info([KEY]) else ""


def _ncnn_description(path: Path) -> str:
    side_file = path.with_suffix(".json")
    if not side_file.is_file():
        raise InputError(f"{path}: expected {side_file.name} beside it, which export.py writes")
    return read_text(side_file)


READERS = {".onnx": _onnx_description, ".xml": _openvino_description}


def _open_onnxruntime(
    file: ExportedFile, precision: str, threads: int
) -> Callable[[Tensor], Outputs]:
    from utils.backends.onnxruntime_engine import runner

    return runner(str(file.path), threads)


def _open_openvino(file: ExportedFile, precision: str, threads: int) -> Callable[[Tensor], Outputs]:
    from utils.backends.openvino_engine import core, precisions, runner

    if precision not in precisions():
        raise InputError(f"precision={precision!r}: OpenVINO has none on this machine")
    return runner(core().read_model(file.path), precision, threads)


def _open_ncnn(file: ExportedFile, precision: str, threads: int) -> Callable[[Tensor], Outputs]:
    from utils.backends.ncnn_engine import infer, load

    net = load(file.path, file.path.with_suffix(".bin"), threads)
    return lambda images: infer(net, images[0], len(file.heads))


OPENERS = {
    "onnxruntime": _open_onnxruntime,
    "openvino": _open_openvino,
    "ncnn": _open_ncnn,
}
