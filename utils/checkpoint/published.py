"""Which published weights does a network start from, where are they, and are they whole?

`train.py --pretrained` without `--weights` takes them from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from import_param import TrainSettings
from models import netdef as cfg_files
from models.darknet import Darknet
from models.netdef import NetDef
from models.weights import COCO_CLASSES, file_sizes, torchvision_trunk
from utils.checkpoint.downloads import Unreachable, fetch, sha256_of
from utils.checkpoint.network import check_size
from utils.console.progress import say
from utils.errors import InputError

FOLDER = Path("weights")
DARKNET = "https://data.pjreddie.com/files/"  # where pjreddie.com/media/files/ leads since 2025
MIRROR = "https://github.com/hank-ai/darknet/releases/download/v2.0/"


@dataclass(frozen=True)
class Published:
    """A file of weights that others publish.

    Attributes:
        name: of the file.
        content: what it holds.
        size: in bytes.
        addresses: where it is, the first one first.
        sha256: of the file; empty where nobody whom we could check says it.
        checked: how we know that sum.
    """

    name: str
    content: str
    size: int
    addresses: tuple[str, ...]
    sha256: str = ""
    checked: str = ""

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return FOLDER / self.name

    def __str__(self) -> str:
        return f"{self.name} ({self.content}, {self.size / 1e6:.0f} MB)"


# Darknet's detectors, trained on COCO: for each network that differs in its classes alone.
DETECTORS = (
    Published(
        "yolov3.weights",
        "YOLOv3, trained on COCO",
        248_007_048,
        (f"{DARKNET}yolov3.weights", f"{MIRROR}yolov3.weights"),
        "523e4e69e1d015393a1b0a441cef1d9c7659e3eb2d7e15f793f060a21b32f297",
        "eight public projects, three of which have the right one of yolov3-tiny.weights, too",
    ),
    Published(
        "yolov3-spp.weights",
        "YOLOv3-SPP, trained on COCO",
        252_209_544,
        (f"{DARKNET}yolov3-spp.weights",),
        "87a1e8c85c763316f34e428f2295e1db9ed4abcec59dd9544f8052f50de327b4",
        "three public projects, all of which have the right one of yolov3-tiny.weights, too",
    ),
    Published(
        "yolov3-tiny.weights",
        "YOLOv3-tiny, trained on COCO",
        35_434_956,
        (f"{DARKNET}yolov3-tiny.weights", f"{MIRROR}yolov3-tiny.weights"),
        "dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c",
        "the file itself, as its scores on photos are Darknet's",
    ),
)
# A classifier's first layers: for each network that begins with them.
TRUNKS = (
    Published(
        "darknet53.conv.74",
        "the first 74 layers of YOLOv3, trained on ImageNet",
        162_482_580,
        (f"{DARKNET}darknet53.conv.74",),
    ),
)
TORCHVISION = Published(  # MobileNet_V2_Weights.IMAGENET1K_V1; there is none of the first MobileNet
    "mobilenet_v2-b0353104.pth",
    "torchvision's MobileNetV2, trained on ImageNet",
    14_212_972,
    ("https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",),
    "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    "the file itself, whose name has the first digits",
)


def with_pretrained(settings: TrainSettings) -> TrainSettings:
    """The settings with `weights` filled in where `pretrained` is asked for without any.

    Raises:
        InputError: nobody publishes weights for the .cfg, or they cannot be fetched.
    """
    model = settings.model
    if not model.pretrained or model.weights:
        return settings
    netdef = cfg_files.load(model.cfg)
    check_size(netdef, netdef.size, model)
    weights = str(obtain(published_for(netdef, model.cfg)))
    return replace(settings, model=replace(model, weights=weights))


def published_for(netdef: NetDef, cfg: str) -> Published:
    """The file that fills most of a network.

    Args:
        netdef: the network, with any number of classes.
        cfg: its file, for errors.

    Raises:
        InputError: there is none.
    """
    fitting = next(_fitting(netdef), None)
    if fitting is None:
        raise InputError(
            f"pretrained=True: no published weights are known for {cfg}: expected a network of "
            "YOLOv3, YOLOv3-SPP, YOLOv3-tiny or MobileNetV2, or a file of yours as weights"
        )
    return fitting


def _fitting(netdef: NetDef) -> Iterator[Published]:
    """The files that fit, the one that fills most first."""
    whole = file_sizes(netdef.with_classes(COCO_CLASSES))[-1]
    yield from (file for file in DETECTORS if file.size == whole)
    cuts = file_sizes(netdef)
    yield from (file for file in TRUNKS if file.size in cuts)
    if _begins_as_mobilenet(netdef):
        yield TORCHVISION


def _begins_as_mobilenet(netdef: NetDef) -> bool:
    """Whether torchvision's MobileNetV2 fills a network with at least half of its convolutions."""
    from torchvision.models import mobilenet_v2

    with torch.device("meta"):  # only shapes are compared
        trunk = mobilenet_v2().state_dict()
        try:
            filled = torchvision_trunk(trunk, Darknet(netdef), TORCHVISION.name)
        except InputError:
            return False
    ours, all_of_it = (
        sum(tensor.ndim == 4 for tensor in state.values()) for state in (filled, trunk)
    )
    return bool(ours * 2 >= all_of_it)


def obtain(file: Published) -> Path:
    """The file, fetched where it is not there yet; a line says which.

    Raises:
        InputError: it cannot be fetched, or what is there is another file.
    """
    path = file.path
    there = path.exists()
    if not there:
        say(f"pretrained: fetching {file} from {file.addresses[0]}")
        try:
            fetch(file.addresses, path, file.size, file.sha256)
        except Unreachable as problem:
            raise InputError(f"{path}: cannot be fetched ({problem}); {_by_hand(file)}") from None
    _expect_whole(file)
    say(f"pretrained: {path}" + (", fetched before" if there else ""))
    return path


def _expect_whole(file: Published) -> None:
    """Refuse another file of the name; print the sum of one that cannot be checked."""
    size = file.path.stat().st_size
    if size != file.size:
        raise InputError(
            f"{file.path}: {size} bytes: expected {file.size}; remove it to have it fetched anew"
        )
    digest = sha256_of(file.path)
    if not file.sha256:
        say(f"note: {file.path}: SHA-256 {digest}; no published one is known to compare it with")
    elif digest != file.sha256:
        raise InputError(
            f"{file.path}: SHA-256 {digest}: expected {file.sha256}; remove it to have it fetched "
            "anew"
        )


def _by_hand(file: Published) -> str:
    """What to do without a network."""
    known = f"SHA-256 {file.sha256}" if file.sha256 else "no published SHA-256 is known"
    return (
        f"put it there by hand and run this again: {' or '.join(file.addresses)}, "
        f"{file.size} bytes, {known}"
    )
