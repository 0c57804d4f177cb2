"""A network on disk: saved with everything that opening it or going on with its training needs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from import_param import PruneSettings, TrainedNetwork, TrainSettings
from models import netdef as cfg_files
from models.darknet import Darknet, shapes, stride
from models.netdef import NetDef
from models.weights import fill_, read_weights, torchvision_trunk, write_weights
from utils.data.definition import read_names
from utils.errors import InputError
from utils.files import atomic, require_file, write_text
from utils.version import VERSION

FORMAT = 1
CHECKPOINT_SUFFIXES = (".pt", ".pth")  # of what torch.save wrote
PARTS = {"cfg": str, "names": list, "model": dict, "settings": dict, "training": dict}


@dataclass(frozen=True)
class Network:
    """A network ready to use: in eval mode, on its device.

    Attributes:
        model: in channels-last memory format.
        names: of its classes.
        size: (width, height) of its input in pixels.
        letterbox: whether photos keep their aspect.
    """

    model: Darknet
    names: tuple[str, ...]
    size: tuple[int, int]
    letterbox: bool


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What `save_checkpoint` wrote, on the CPU.

    Attributes:
        netdef: the network's definition.
        names: of its classes.
        model: the weights to use, a state dict.
        settings: what the run was started with, by group; `utils.settings.restore` makes settings
            of them, also of those that older versions wrote.
        training: what going on with the training needs: tensors and plain values.
        version: of the project that wrote it; empty before 0.2.0.
    """

    netdef: NetDef
    names: tuple[str, ...]
    model: Mapping[str, Tensor]
    settings: Mapping[str, Any]
    training: Mapping[str, Any]
    version: str


def choose_device(name: str) -> torch.device:
    """The device of a name such as `cuda:1`; `auto` is the graphics card where there is one.

    Raises:
        InputError: torch has no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device={name!r}: expected one that torch has here: {reason}") from error
    return device


def save_checkpoint(
    path: Path,
    netdef: NetDef,
    names: Sequence[str],
    model: Mapping[str, Tensor],
    settings: TrainSettings | PruneSettings,
    training: Mapping[str, Any],
) -> None:
    """Write a checkpoint that opens alone; `Checkpoint` tells its parts.

    Raises:
        InputError: it cannot be written.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "cfg": netdef.text(),
        "names": list(names),
        "model": dict(model),
        "settings": asdict(settings),
        "training": dict(training),
    }
    with atomic(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:
            if "inline_container" not in str(error):  # torch's file writer
                raise
            raise InputError(f"{path}: cannot be written; is the disk full?") from error


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of ours, onto the CPU.

    Raises:
        InputError: the file cannot be read, or is any other file.
    """
    content = _torch_load(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: expected a checkpoint of this project (format {FORMAT})")
    for name, kind in PARTS.items():
        if not isinstance(content.get(name), kind):
            raise InputError(f"{path}: expected {name!r} to be a {kind.__name__}")
    if not all(isinstance(value, Tensor) for value in content["model"].values()):
        raise InputError(f"{path}: expected 'model' to hold tensors")
    return Checkpoint(
        cfg_files.parse(content["cfg"], f"{path} (its cfg)"),
        tuple(content["names"]),
        content["model"],
        content["settings"],
        content["training"],
        content.get("version", ""),
    )


def _torch_load(path: str | Path) -> Any:
    require_file(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # of any kind, where bytes are damaged
        raise InputError(
            f"{path}: damaged, or not a file of tensors that torch.save wrote"
        ) from error


def read_pretrained(path: str | Path, netdef: NetDef) -> tuple[dict[str, Tensor], NetDef]:
    """Weights to start `netdef` from.

    Args:
        path: a checkpoint of ours, Darknet's file (whole or cut off), or torchvision's state dict,
            told apart by the suffix.
        netdef: the network to start.

    Returns:
        A state dict, and `netdef`; where a checkpoint's heads belong to the weights, with the
        anchors and rules of those heads.

    Raises:
        InputError: the file cannot be read, or nothing in it is of use to the network.
    """
    if Path(path).suffix not in CHECKPOINT_SUFFIXES:
        return read_weights(path, netdef)[0], netdef
    content = _torch_load(path)
    if isinstance(content, dict) and "format" in content:
        checkpoint = read_checkpoint(path)
        return dict(checkpoint.model), _with_heads_of(netdef, checkpoint.netdef)
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"{path}: expected a checkpoint, or a state dict of names with tensors")
    with torch.device("meta"):
        skeleton = Darknet(netdef)
    return torchvision_trunk(content, skeleton, path), netdef


def _with_heads_of(netdef: NetDef, other: NetDef) -> NetDef:
    if netdef.heads != other.heads:
        return netdef
    layers = list(netdef.layers)
    for index in netdef.heads:
        layers[index] = other.layers[index]
    return replace(netdef, layers=tuple(layers))


def untrained_heads(netdef: NetDef, state: Mapping[str, Tensor]) -> list[int]:
    """The [yolo] layers whose convolution `state` does not fill."""
    with torch.device("meta"):
        skeleton = Darknet(netdef)
    own = skeleton.state_dict()
    names = [(index, f"layers.{index - 1}.conv.weight") for index in netdef.heads]
    return [i for i, name in names if name not in state or state[name].shape != own[name].shape]


def write_pair(
    path: Path, model: Darknet, netdef: NetDef, names: Sequence[str]
) -> tuple[Path, Path]:
    """Write `path`.cfg and `path`.weights, which Darknet and OpenCV read, and `path`.names."""
    # A dot in the name, as in yolo-fastest-1.1, begins no suffix.
    cfg, weights, listed = (Path(f"{path}.{suffix}") for suffix in ("cfg", "weights", "names"))
    netdef.write(cfg)
    write_weights(weights, model)
    write_text(listed, "".join(f"{name}\n" for name in names))
    return cfg, weights


def newest_weights(folder: Path = Path("weights")) -> Path:
    """The best.pt in the run folders of `folder` that was written last.

    Raises:
        InputError: there is none.
    """
    paths = sorted(folder.glob("*/best.pt"), key=lambda path: path.stat().st_mtime)
    if not paths:
        raise InputError(f"weights='': found no {folder}/*/best.pt; run train.py or name a file")
    return paths[-1]


def load_network(settings: TrainedNetwork) -> Network:
    """Open a trained network: a checkpoint of ours, or Darknet's .weights with its .cfg.

    Without `settings.names`, its classes are called as the checkpoint says, or the one .names file
    beside the .weights; else by their numbers.

    Raises:
        InputError: a file is missing or does not fit.
    """
    path = Path(settings.weights) if settings.weights else newest_weights()
    netdef, state, own_names = _read_trained(path, settings.cfg)
    for note in netdef.notes:
        print(f"note: {note}", file=sys.stderr)
    check_for_photos(netdef)
    model = Darknet(netdef)
    filled = fill_(model, state)
    if filled.missing:
        raise InputError(f"{path}: holds only a part of the network: {filled}")
    size = (settings.img_size, settings.img_size) if settings.img_size else netdef.size
    check_size(netdef, size)
    names_file = settings.names or (_names_beside(path) if path.suffix == ".weights" else "")
    names = read_names(names_file) if names_file else own_names
    letterbox = settings.letterbox
    return Network(
        model.to(choose_device(settings.device)).to(memory_format=torch.channels_last).eval(),
        _class_names(model, names, names_file or str(path)),
        size,
        netdef.letterbox if letterbox == "auto" else letterbox == "yes",
    )


def _read_trained(
    path: Path, cfg: str
) -> tuple[NetDef, Mapping[str, Tensor], tuple[str, ...] | None]:
    """A network's definition, its state dict, and the names of its classes that the file holds."""
    if path.suffix in CHECKPOINT_SUFFIXES:
        if cfg:
            raise InputError(f"cfg={cfg!r}: expected none: {path} holds its own")
        checkpoint = read_checkpoint(path)
        return checkpoint.netdef, checkpoint.model, checkpoint.names
    if path.suffix != ".weights":
        raise InputError(
            f"weights={str(path)!r}: expected a .pt of this project, or a .weights file"
        )
    netdef = cfg_files.load(Path(cfg) if cfg else path.with_suffix(".cfg"))
    state, _ = read_weights(path, netdef)
    return netdef, state, None


def check_for_photos(netdef: NetDef) -> None:
    """Refuse a network that finds no objects, or not on colour photos."""
    if not netdef.heads:
        raise netdef.net.error("expected at least one [yolo] section after it")
    if netdef.channels != 3:
        raise netdef.net.error("expected 3: photos are read as RGB", "channels")


def check_size(netdef: NetDef, size: tuple[int, int]) -> None:
    """Refuse an input size whose maps would not line up."""
    step = stride(netdef)
    if size[0] % step or size[1] % step:
        raise InputError(
            f"img_size={size[0]}x{size[1]}: expected multiples of {step}, the network's stride"
        )
    shapes(netdef, size)


def _names_beside(path: Path) -> str:
    """`best.names` of best.weights, or the only .names file in the folder, or nothing."""
    own = path.with_suffix(".names")
    if own.is_file():
        return str(own)
    others = sorted(path.parent.glob("*.names"))
    return str(others[0]) if len(others) == 1 else ""


def _class_names(model: Darknet, names: tuple[str, ...] | None, source: str) -> tuple[str, ...]:
    classes = model.heads[0].classes
    if names is None:
        return tuple(str(number) for number in range(classes))
    if len(names) != classes:
        raise InputError(f"{source}: {len(names)} class names for a network of {classes} classes")
    return names
