"""Load a trained network, give it pictures, get boxes."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from import_param import Detection, DetectSettings, Nms, Runtime, TrainedNetwork
from utils.backends.exported import thresholds
from utils.backends.runtime import load_any_network, open_runtime
from utils.detection.background import StageTimer
from utils.detection.detector import Detector as NetworkDetector
from utils.errors import InputError
from utils.images import as_rgb, read_image
from utils.settings.loader import check
from utils.structures import Detections, Image
from utils.visualization.draw import draw_boxes, write_image

if TYPE_CHECKING:
    import supervision

logger = logging.getLogger("yolov3")

Picture = str | os.PathLike[str] | Pillow.Image | NDArray[Any]


@dataclass(frozen=True, eq=False)
class Result:
    """What was detected on one picture, best first.

    Attributes:
        image: the picture, uint8 [H, W, 3], RGB, upright.
        boxes: float32 [K, 4], left, top, right, bottom in pixels of `image`.
        scores: float32 [K], 0 to 1.
        labels: int64 [K], class numbers from 0.
        names: of all classes, by number.
    """

    image: Image
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.scores)

    def draw(self) -> Image:
        """A copy of the picture with boxes, class names and scores on it, uint8 [H, W, 3], RGB."""
        return draw_boxes(self.image, self.boxes, self.labels, self.names, self.scores)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the drawn picture, in the format of the suffix.

        Raises:
            InputError: the suffix names no format, or the file cannot be written.
        """
        write_image(Path(path), self.draw())

    def to_supervision(self) -> supervision.Detections:
        """As the `supervision` library has it, with `class_name` in its `data`.

        Raises:
            ImportError: it is not installed: `pip install supervision`.
        """
        import supervision

        return supervision.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.labels.copy(),
            data={"class_name": np.array([self.names[label] for label in self.labels], dtype=str)},
        )


class Detector:
    """A trained network on an engine; `load` makes one. Call it with pictures."""

    def __init__(self, detector: NetworkDetector) -> None:
        self._detector = detector

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, by number."""
        return tuple(self._detector.names)

    @overload
    def __call__(self, pictures: Picture, *, bgr: bool = False) -> Result: ...
    @overload
    def __call__(
        self, pictures: list[Any] | tuple[Any, ...], *, bgr: bool = False
    ) -> list[Result]: ...
    def __call__(
        self, pictures: Picture | list[Any] | tuple[Any, ...], *, bgr: bool = False
    ) -> Result | list[Result]:
        """Detect objects on a picture, or on each of several.

        Args:
            pictures: a path, a PIL picture, or an array uint8 [H, W, 3], RGB, or [H, W], grey; or a
                list or tuple of these.
            bgr: arrays have their channels as OpenCV's `imread` and `VideoCapture` give them.

        Returns:
            A result; for a list or tuple a list of results, in its order.

        Raises:
            InputError: a file cannot be read, or an array is no picture.
        """
        if isinstance(pictures, (list, tuple)):
            return [self._detect(picture, bgr) for picture in pictures]
        return self._detect(pictures, bgr)

    def _detect(self, picture: Picture, bgr: bool) -> Result:
        image = _as_image(picture, bgr)
        (detected,) = self._detector.detect([self._detector.picture(image, key="", file="")])
        return _result(image, detected.detections, self.names)


def load(
    weights: str | os.PathLike[str],
    *,
    cfg: str | os.PathLike[str] = "",
    names: str | os.PathLike[str] = "",
    engine: Literal["torch", "auto", "onnxruntime", "openvino", "ncnn", "opencv"] = "torch",
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "fp32",
    threads: int = 0,
    device: str = "auto",
    conf_thres: float = Nms().conf_thres,
    nms_thres: float = Nms().nms_thres,
    max_detections: int = Nms().max_detections,
    classes: Sequence[str] = (),
    img_size: int = 0,
    letterbox: Literal["auto", "yes", "no"] = "auto",
) -> Detector:
    """Open a trained network.

    Args:
        weights: a checkpoint of this project (.pt), Darknet's .weights, or what export.py wrote for
            ONNX Runtime (.onnx), OpenVINO (.xml) or ncnn (.param). Such a file says itself what its
            classes, size, engine and precision are, and refuses others.
        cfg: of a .weights; empty for the file beside it with the same name.
        names: class names, a line each; empty for the network's own.
        engine: the library that runs it; `auto` measures those that are installed, once for a
            network and machine, and takes the fastest.
        precision: of its arithmetic.
        threads: on a CPU; 0 for as many as torch uses.
        device: `cpu`, `cuda`, `cuda:1`, ...; `auto` for the graphics card where there is one.
        conf_thres: lowest score to keep.
        nms_thres: of two boxes of a class that overlap more (IoU), the one with the lower score
            goes.
        max_detections: at most so many a picture; 0 for any number.
        classes: names or numbers of the classes to keep; none for all.
        img_size: width and height of its input, pixels; 0 for its own.
        letterbox: keep a picture's aspect; `auto` for what it was trained with.

    Raises:
        InputError: a file is missing or does not fit, or a value is out of range.
    """
    settings = DetectSettings(
        network=TrainedNetwork(
            cfg=os.fspath(cfg),
            weights=os.fspath(weights),
            img_size=img_size,
            letterbox=letterbox,
            device=device,
            names=os.fspath(names),
        ),
        detection=Detection(classes=tuple(classes)),
        nms=Nms(conf_thres, nms_thres, max_detections),
        runtime=Runtime(engine, precision, threads),
    )
    check(settings)
    asked = _other_than_defaults(settings.runtime, Runtime(engine="torch"))
    asked |= _other_than_defaults(settings.nms, Nms())
    network = load_any_network(settings.network, settings.runtime, asked)
    used = thresholds(network.model, settings.nms, asked)
    run = open_runtime(network, 1, settings.runtime, report=logger.info)
    return Detector(NetworkDetector(network, run, StageTimer(), used, settings.detection.classes))


def _other_than_defaults(group: Runtime | Nms, defaults: Runtime | Nms) -> set[str]:
    names = [field.name for field in dataclasses.fields(group)]
    return {name for name in names if getattr(group, name) != getattr(defaults, name)}


def _as_image(picture: Picture, bgr: bool) -> Image:
    if isinstance(picture, (str, os.PathLike)):
        return read_image(Path(picture))
    if isinstance(picture, Pillow.Image):
        return as_rgb(picture)
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        raise InputError(
            f"an array of {array.dtype} {list(array.shape)}: expected a picture, uint8 [H, W, 3] "
            "or [H, W]"
        )
    if not array.size:
        raise InputError(f"an array of shape {list(array.shape)}: expected a picture with pixels")
    if array.ndim == 2:
        return np.repeat(array[..., None], 3, axis=2)
    return np.ascontiguousarray(array[..., ::-1] if bgr else array)


def _result(image: Image, detections: Detections, names: tuple[str, ...]) -> Result:
    return Result(
        image=image,
        boxes=detections.boxes.cpu().numpy(),
        scores=detections.scores.cpu().numpy(),
        labels=detections.labels.cpu().numpy(),
        names=names,
    )
