"""What must be known of an exported network to use it? One description, which its file carries.

It is JSON: in an ONNX file the entry `yolov3` of its metadata, in OpenVINO's .xml the runtime
information of that name, in TorchScript an extra file of that name, and for ncnn a .json beside
its two files.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Interval, MinLen

from import_param import Count, Nms, Positive, Share, Whole
from models.costs import count_operations, count_parameters
from models.darknet import shapes, stride
from models.head import Head
from utils.checkpoint.network import Network
from utils.errors import InputError
from utils.settings.schema import shown, structured
from utils.version import VERSION

KEY = "yolov3"  # of the description among a file's metadata
FORMAT = 1
DETECTIONS = ("image_index", "labels", "boxes", "scores")  # outputs of a graph with NMS in it

T = TypeVar("T")


@dataclass(frozen=True)
class InputDescription:
    """The photos that the network reads: float32 [N, 3, height, width], RGB.

    Attributes:
        name: of the tensor; ncnn's has no N.
        width: in pixels; where it may vary, what the network was trained for.
        height: as `width`.
        varies: whether both may be any multiple of `stride`, and N any number; else N is 1.
        stride: see `varies`.
        fit: `letterbox` keeps a photo's aspect, centres it and fills the rest with `fill`;
            `stretch` does not keep it.
        fill: see `fit`.
        colours: the order of the channels.
        lowest: the value of a black pixel.
        highest: the value of a white pixel.
        resize: how a photo is brought to this size. OpenCV's own bilinear lays pixels' centres, not
            the corner pixels, on each other: scores then differ by some hundredths.
    """

    name: str
    width: Count
    height: Count
    varies: bool
    stride: Count
    fit: Literal["letterbox", "stretch"]
    fill: float = 0.5
    colours: Literal["RGB"] = "RGB"
    lowest: float = 0.0
    highest: float = 1.0
    resize: Literal["bilinear, corner pixels on corner pixels"] = (
        "bilinear, corner pixels on corner pixels"
    )


@dataclass(frozen=True)
class HeadDescription:
    """How one raw map [N, A·(5+C), h, w] becomes boxes; see `models.head`.

    Attributes:
        output: the name of the map; empty where decoding is inside the graph.
        anchors: (width, height) of each of A, in pixels of the input.
        stride: pixels of the input a cell.
        scale_x_y: a cell's centres range over so many cells' widths.
        new_coords: whether the map went through a sigmoid already.
    """

    output: str
    anchors: Annotated[tuple[tuple[float, float], ...], MinLen(1), "at least one"]
    stride: Positive
    scale_x_y: float
    new_coords: bool


@dataclass(frozen=True)
class NmsDescription:
    """Which boxes become detections.

    Attributes:
        inside: whether decoding and NMS are in the graph, with these thresholds; else they are
            what the network was exported with, and may be others.
        conf_thres: lowest score, objectness times class probability.
        nms_thres: of two boxes of a class that overlap by more (IoU), the lower score goes.
        max_detections: at most so many, of a photo and inside the graph of a class; 0 for any.
        distance_power: overlap is IoU less a power of the distance of centres; None for IoU.
    """

    inside: bool
    conf_thres: Share
    nms_thres: Share
    max_detections: Whole
    distance_power: float | None = None


@dataclass(frozen=True)
class Description:
    """All that using an exported network takes.

    Attributes:
        format: of this description.
        version: of the project that wrote it.
        network: what the file is called, without suffixes.
        names: of the classes, by number.
        precision: of the weights and the arithmetic.
        input: the photos.
        outputs: the names of what the file computes, in its order.
        heads: how raw maps become boxes, in the order of the outputs.
        nms: how boxes become detections.
        parameters: of the network, a count.
        operations: of its convolutions for one photo of the input's size, two a multiply-add.
    """

    format: Annotated[int, Interval(ge=FORMAT, le=FORMAT)]
    version: str
    network: str
    names: Annotated[tuple[str, ...], MinLen(1), "at least one"]
    precision: Literal["fp32", "int8"]
    input: InputDescription
    outputs: Annotated[tuple[str, ...], MinLen(1), "at least one"]
    heads: Annotated[tuple[HeadDescription, ...], MinLen(1), "at least one"]
    nms: NmsDescription
    parameters: Annotated[int, Ge(0)]
    operations: Annotated[int, Ge(0)]

    def text(self) -> str:
        """As JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the input in pixels."""
        return self.input.width, self.input.height

    @property
    def letterbox(self) -> bool:
        """Whether photos keep their aspect."""
        return self.input.fit == "letterbox"

    def models_heads(self) -> tuple[Head, ...]:
        """The heads that decode the file's maps."""
        return tuple(
            Head(
                head.anchors,
                len(self.names),
                head.scale_x_y,
                head.new_coords,
                self.nms.distance_power,
            )
            for head in self.heads
        )


def describe(
    network: Network,
    name: str,
    nms: Nms,
    *,
    input_name: str,
    precision: Literal["fp32", "int8"] = "fp32",
    varies: bool = False,
    nms_inside: bool = False,
) -> Description:
    """The description of a network that is exported.

    Args:
        network: the network.
        name: what the file is called, without suffixes.
        nms: the thresholds.
        input_name: of the file's input.
        precision: of the file.
        varies: whether it takes images of any number and size.
        nms_inside: whether decoding and NMS are in the graph.
    """
    model, (width, height) = network.model, network.size
    maps = tuple(f"map{number}" for number in range(len(model.heads)))
    map_shapes = shapes(model.netdef, network.size)
    heads = tuple(
        HeadDescription(
            "" if nms_inside else output,
            head.anchors,
            width / map_shapes[index][2],
            head.scale_xy,
            head.new_coords,
        )
        for output, index, head in zip(maps, model.netdef.heads, model.heads, strict=True)
    )
    fit: Literal["letterbox", "stretch"] = "letterbox" if network.letterbox else "stretch"
    power = model.heads[-1].nms_power
    return Description(
        FORMAT,
        VERSION,
        name,
        network.names,
        precision,
        InputDescription(input_name, width, height, varies, stride(model.netdef), fit),
        DETECTIONS if nms_inside else maps,
        heads,
        NmsDescription(nms_inside, nms.conf_thres, nms.nms_thres, nms.max_detections, power),
        count_parameters(model),
        count_operations(model.netdef, network.size),
    )


def parse(text: str, place: str | Path) -> Description:
    """The description that `text` wrote.

    Args:
        text: JSON.
        place: of it, for messages.

    Raises:
        InputError: it is none, or one that this version of the project does not know.
    """
    where = f"{place}: its description"
    try:
        values = _tuples(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: expected JSON: {error}") from None
    values = _mapping(values, where)
    if (number := values.get("format")) != FORMAT:
        raise InputError(
            f"{where}: format={shown(number)}: expected {FORMAT}: export it with this version"
        )
    values["input"] = _part(InputDescription, values, "input", where)
    values["nms"] = _part(NmsDescription, values, "nms", where)
    heads = values.get("heads")
    if not isinstance(heads, tuple):
        raise InputError(f"{where}: heads={shown(heads)}: expected a list")
    values["heads"] = tuple(
        structured(HeadDescription, _mapping(head, where), f"{where}: heads") for head in heads
    )
    return structured(Description, values, where)


def _part(kind: type[T], values: Mapping[str, Any], name: str, where: str) -> T:
    return structured(kind, _mapping(values.get(name), f"{where}: {name}"), f"{where}: {name}")


def _mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected values by name, found {shown(value)}")
    return dict(value)


def _tuples(value: Any) -> Any:
    """JSON with tuples for lists, as frozen dataclasses have them."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(map(_tuples, value))
    if isinstance(value, dict):
        return {name: _tuples(each) for name, each in value.items()}
    return value
