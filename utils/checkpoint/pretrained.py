"""Weights to start a training from, whatever program wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from models.darknet import Darknet
from models.netdef import NetDef
from models.weights import COCO_CLASSES, file_sizes, read_weights, torchvision_trunk
from utils.checkpoint.checkpoint import CHECKPOINT_SUFFIXES, checked_checkpoint
from utils.checkpoint.darknet_files import class_count, names_beside
from utils.checkpoint.tensor_files import PlainTensor, read_tensors
from utils.data.definition import read_names
from utils.errors import InputError
from utils.files.reading import require_file
from utils.settings.schema import structured


@dataclass(frozen=True, eq=False)
class _StateDict:
    """What the file of a state dict is to hold."""

    tensors: dict[str, PlainTensor]


@dataclass(frozen=True, eq=False)
class Pretrained:
    """Weights to start from.

    Attributes:
        state: a state dict.
        netdef: the network to start; where a checkpoint's heads belong to the weights, with the
            anchors and rules of those heads.
        names: the classes of those heads; empty where the file does not say.
    """

    state: dict[str, Tensor]
    netdef: NetDef
    names: tuple[str, ...] = ()


def read_pretrained(path: str | Path, netdef: NetDef) -> Pretrained:
    """Weights to start `netdef` from.

    Args:
        path: a checkpoint of ours, Darknet's file (whole or cut off), or torchvision's state dict,
            told apart by the suffix.
        netdef: the network to start.

    Raises:
        InputError: the file cannot be read, or nothing in it is of use to the network.
    """
    if Path(path).suffix not in CHECKPOINT_SUFFIXES:
        beside = names_beside(Path(path), class_count(netdef))
        names = read_names(beside) if beside else ()
        return Pretrained(read_weights(path, _written_for(path, netdef))[0], netdef, names)
    content = read_tensors(path)
    if isinstance(content, dict) and "format" in content:
        checkpoint = checked_checkpoint(content, str(path))
        return Pretrained(
            dict(checkpoint.model), _with_heads_of(netdef, checkpoint.netdef), checkpoint.names
        )
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"{path}: expected a checkpoint, or a state dict of names with tensors")
    structured(_StateDict, {"tensors": dict(content)}, str(path))
    with torch.device("meta"):
        skeleton = Darknet(netdef)
    return Pretrained(torchvision_trunk(content, skeleton, path), netdef)


def _written_for(path: str | Path, netdef: NetDef) -> NetDef:
    """The network of a .weights file: with COCO's classes, where the file is as long as that one.

    Most published files are, and fill all but the heads of a network for other classes.
    """
    published = netdef.with_classes(COCO_CLASSES)
    size = require_file(path)
    return published if size == file_sizes(published)[-1] else netdef


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
