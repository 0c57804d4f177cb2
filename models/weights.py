"""How do weights get into a network, and out? Darknet's .weights files and torchvision's trunks."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.blocks import Convolution, Shortcut
from models.darknet import Darknet
from models.netdef import NetDef
from utils.errors import InputError
from utils.files.reading import read_bytes
from utils.files.writing import write_bytes

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
COCO_CLASSES = 80  # of the detectors that Darknet's authors publish
NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Header:
    """The first bytes of a .weights file.

    Attributes:
        version: Darknet's major, minor and revision.
        seen: images that the network was trained on.
    """

    version: tuple[int, int, int] = (0, 2, 5)
    seen: int = 0

    @property
    def format(self) -> str:
        """For `struct`: `seen` takes eight bytes from version 0.2 on, four before."""
        return "<iiiQ" if self.version[0] * 10 + self.version[1] >= 2 else "<iiiI"

    def to_bytes(self) -> bytes:
        """As it stands in a file."""
        return struct.pack(self.format, *self.version, self.seen)

    @staticmethod
    def of(data: bytes, path: str | Path) -> tuple[Header, int]:
        """The header that a file begins with, and its length in bytes.

        Args:
            data: the file's.
            path: names it in errors.

        Raises:
            InputError: the file is shorter than a header.
        """
        if len(data) < 12:
            raise InputError(f"{path}: {len(data)} bytes: expected a .weights header of 16 or 20")
        version = struct.unpack_from("<iii", data)
        length = struct.calcsize(Header(version).format)
        if len(data) < length:
            raise InputError(f"{path}: {len(data)} bytes: expected a header of {length}")
        return Header(version, struct.unpack_from(Header(version).format, data)[3]), length


def _layer_tensors(layer: nn.Module) -> list[tuple[str, Tensor]]:
    """One layer's tensors, by name, in the order in which Darknet stores them."""
    if isinstance(layer, Shortcut):
        return [] if layer.weights is None else [("weights", layer.weights)]
    if not isinstance(layer, Convolution):
        return []
    if layer.bn is None:
        assert layer.conv.bias is not None
        return [("conv.bias", layer.conv.bias), ("conv.weight", layer.conv.weight)]
    assert layer.bn.running_mean is not None and layer.bn.running_var is not None
    return [
        ("bn.bias", layer.bn.bias),
        ("bn.weight", layer.bn.weight),
        ("bn.running_mean", layer.bn.running_mean),
        ("bn.running_var", layer.bn.running_var),
        ("conv.weight", layer.conv.weight),
    ]


def _stored(model: Darknet) -> Iterator[tuple[int, list[tuple[str, Tensor]]]]:
    """(layer index, its tensors) for each layer that a .weights file holds something of."""
    for index, layer in enumerate(model.layers):
        if tensors := _layer_tensors(layer):
            yield index, tensors


def read_weights(path: str | Path, netdef: NetDef) -> tuple[dict[str, Tensor], Header]:
    """Read a .weights file.

    Args:
        path: the file, whole or cut off after a layer.
        netdef: the network that it was written for.

    Returns:
        A state dict with the tensors of the layers that the file holds, and its header.

    Raises:
        InputError: the file ends inside a layer, or is longer than the network.
    """
    with torch.device("meta"):  # only the shapes are wanted
        skeleton = Darknet(netdef)
    data = read_bytes(path, 4 * _total(skeleton) + 2**20)  # some more: it is counted below
    header, offset = Header.of(data, path)
    if (len(data) - offset) % 4:
        raise InputError(f"{path}: {len(data)} bytes: expected whole 4-byte floats")
    floats = np.frombuffer(data, "<f4", offset=offset)
    state: dict[str, Tensor] = {}
    position = 0
    for index, tensors in _stored(skeleton):
        if position == len(floats):
            break  # a cut-off file
        count = sum(tensor.numel() for _, tensor in tensors)
        if position + count > len(floats):
            raise InputError(
                f"{path}: {len(floats)} floats: layer {index} ends at {position + count}; expected "
                f"an end there, or {position} for a file cut off before it, or "
                f"{_total(skeleton)} for the whole network"
            )
        for name, tensor in tensors:
            values = floats[position : position + tensor.numel()].copy()
            state[f"layers.{index}.{name}"] = torch.from_numpy(values).view(tensor.shape)
            position += tensor.numel()
    if position < len(floats):
        raise InputError(f"{path}: {len(floats)} floats found, expected {position} for this .cfg")
    if not state:
        raise InputError(f"{path}: no layer in it: expected up to {_total(skeleton)} floats")
    return state, header


def _total(model: Darknet) -> int:
    return sum(tensor.numel() for _, tensors in _stored(model) for _, tensor in tensors)


def file_sizes(netdef: NetDef) -> list[int]:
    """The bytes of the .weights files that a network can be filled from: cut off, or whole, last.

    They are counted with today's header of 20 bytes.
    """
    with torch.device("meta"):  # only the shapes are wanted
        skeleton = Darknet(netdef)
    layers = (sum(tensor.numel() for _, tensor in tensors) for _, tensors in _stored(skeleton))
    return [len(Header().to_bytes()) + 4 * floats for floats in accumulate(layers)]


def write_weights(
    path: str | Path, model: Darknet, header: Header | None = None, layers: int | None = None
) -> None:
    """Write a .weights file, or with `layers` a cut-off one of the layers 0 to `layers` - 1.

    Raises:
        InputError: it cannot be written.
    """
    write_bytes(path, to_bytes(model, header, layers))


def to_bytes(
    model: Darknet,
    header: Header | None = None,
    layers: int | None = None,
    epsilon: float | None = None,
) -> bytes:
    """The content of the file that `write_weights` writes.

    epsilon: what its reader adds to variances where that is not the network's own `bn_epsilon`:
    they are stored so much smaller or larger, perhaps below 0, that it computes the same.
    """
    shift = 0.0 if epsilon is None else model.netdef.bn_epsilon - epsilon
    parts = [(header or Header()).to_bytes()]
    for index, tensors in _stored(model):
        if layers is None or index < layers:
            parts += [
                (tensor.detach() + shift if shift and name == "bn.running_var" else tensor.detach())
                .cpu()
                .float()
                .contiguous()
                .numpy()
                .astype("<f4")
                .tobytes()
                for name, tensor in tensors
            ]
    return b"".join(parts)


def torchvision_trunk(
    state: Mapping[str, Tensor], model: Darknet, path: str | Path
) -> dict[str, Tensor]:
    """The part of a torchvision classifier that is the beginning of a network, as a state dict.

    Convolutions are matched in order as long as their kernels have equal shapes. torchvision's
    networks expect images less ImageNet's mean, over its deviation, while ours expect 0 to 1:
    that is folded into the first layer (exact but for a one-pixel border, where padding is black
    here and mean grey there).

    Args:
        state: the classifier's state dict.
        model: the network.
        path: of the classifier's file, for errors.

    Raises:
        InputError: not even the first convolution fits.
    """
    kernels = [name for name, tensor in state.items() if tensor.ndim == 4]
    following = dict(zip(state, list(state)[1:], strict=False))
    filled: dict[str, Tensor] = {}
    convolutions = [(i, m) for i, m in enumerate(model.layers) if isinstance(m, Convolution)]
    for name, (index, layer) in zip(kernels, convolutions, strict=False):
        norm = following.get(name, "").rpartition(".")[0]  # its BN stands right after it
        if layer.bn is None or state[name].shape != layer.conv.weight.shape:
            break
        parts = [state.get(f"{norm}.{part}") for part in NORM_PARTS]
        if any(part is None or part.shape != layer.bn.bias.shape for part in parts):
            break
        filled[f"layers.{index}.conv.weight"] = state[name].float()
        for part in NORM_PARTS:
            filled[f"layers.{index}.bn.{part}"] = state[f"{norm}.{part}"].float()
    if not filled:
        raise InputError(f"{path}: its first convolution is not the .cfg's: nothing can be filled")
    _fold_input_normalization(filled)
    return filled


def _fold_input_normalization(state: dict[str, Tensor]) -> None:
    """Put the normalisation of images into the first kernel and running mean.

    w · (x - mean) / std = (w / std) · x - sum(w · mean / std)
    """
    name = next(iter(state))
    mean = torch.tensor(IMAGENET_MEAN)[:, None, None]
    std = torch.tensor(IMAGENET_STD)[:, None, None]
    kernel = state[name] / std  # [filters, 3, k, k]
    running_mean = name.replace("conv.weight", "bn.running_mean")
    state[name] = kernel
    state[running_mean] = state[running_mean] + (kernel * mean).sum((1, 2, 3))


@dataclass(frozen=True)
class Filled:
    """Which layers of a network were filled from a file, and why others were not.

    Attributes:
        layers: indices of those that were.
        missing: (index, reason) of the others that hold weights.
    """

    layers: tuple[int, ...]
    missing: tuple[tuple[int, str], ...]

    def __str__(self) -> str:
        """One line for a person."""
        total = len(self.layers) + len(self.missing)
        text = f"filled {len(self.layers)} of {total} layers that hold weights"
        reasons: dict[str, list[int]] = {}
        for index, reason in self.missing:
            reasons.setdefault(reason, []).append(index)
        return text + "".join(
            f"; not layer {', '.join(map(str, indices))}: {reason}"
            for reason, indices in reasons.items()
        )


def fill_(model: Darknet, state: Mapping[str, Tensor], source: str | Path) -> Filled:
    """Copy into `model` every layer of `state` whose tensors have the layer's shapes.

    Args:
        model: the network.
        state: a state dict, also of a part of it, or of another network.
        source: of the state, for errors.

    Raises:
        InputError: see `expect_computable`.
    """
    layers: list[int] = []
    missing: list[tuple[int, str]] = []
    with torch.no_grad():
        for index, tensors in _stored(model):
            stored = {name: state.get(f"layers.{index}.{name}") for name, _ in tensors}
            reason = _mismatch(tensors, stored)
            if reason:
                missing.append((index, reason))
                continue
            layers.append(index)
            for name, tensor in tensors:
                tensor.copy_(stored[name])  # type: ignore[arg-type]  # `_mismatch` saw that it is there
    expect_computable(model, source)
    return Filled(tuple(layers), tuple(missing))


def expect_computable(model: Darknet, source: str | Path) -> None:
    """Refuse a network that holds what no other can compute with.

    All tensors come in by here, and go out by here: NaN passes every comparison, so a network with
    one would be measured, pruned and exported like any other. (14 ms for the 62 million numbers of
    yolov3.)

    Args:
        model: the network.
        source: of its tensors, or where they are to go, for errors.

    Raises:
        InputError: a number is not finite, or a variance so far below 0 that it has no root.
    """
    epsilon = model.netdef.bn_epsilon
    for index, tensors in _stored(model):
        for name, tensor in tensors:
            lowest, highest = tensor.detach().aminmax()  # both are NaN where any is
            if wrong := [float(n) for n in (lowest, highest) if not n.isfinite()]:
                raise InputError(f"{source}: layer {index}: {name} holds {wrong[0]}: damaged?")
            if name == "bn.running_var" and lowest + epsilon <= 0:
                raise InputError(
                    f"{source}: layer {index}: a variance of {float(lowest):g}: expected more than "
                    f"{-epsilon:g}; is the file another network's?"
                )


def _mismatch(tensors: list[tuple[str, Tensor]], stored: Mapping[str, Tensor | None]) -> str:
    """Why a layer's tensors cannot be filled with the stored ones; empty where they can."""
    for name, tensor in tensors:
        other = stored[name]
        if other is None:
            return "not in the file"
        if other.shape != tensor.shape:
            return f"{name} is {_shape(other)} in the file and {_shape(tensor)} here"
    return ""


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
