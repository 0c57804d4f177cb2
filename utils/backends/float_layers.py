"""Which layers stay in float when a network is quantised to 8-bit integers?

Those that write the raw maps, since a box's width is an exponential of what they say, and those
that lose most when they alone are rounded. Measured on yolov3-tiny trained on BCCD and on mcu: the
first two or three of the thirteen convolutions make four fifths of the whole error, with a tenth of
the operations. Networks of depthwise convolutions can need more: so there are several choices, of
which `utils.backends.quantization` takes the first that is good enough as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from models.blocks import Convolution
from models.costs import layer_operations
from models.darknet import Darknet
from models.netdef import NetDef
from utils.backends.fold import folded
from utils.console.progress import track


@dataclass(frozen=True)
class FloatLayerOptions:
    """How many layers stay in float beside those that write the raw maps."""

    photos: int = 4  # calibration photos on which errors are measured
    # by choice: the share of the error that may stay
    error_shares: tuple[float, ...] = (0.5, 0.25, 0.1)
    # by choice: the share of the network's operations that may stay in float
    operations_shares: tuple[float, ...] = (0.1, 0.25, 0.5)


OPTIONS = FloatLayerOptions()


def float_layers(model: Darknet, images: Tensor) -> list[tuple[int, ...]]:
    """The convolutions that stay in float, by their layers' indices; several choices.

    Args:
        model: the network.
        images: calibration photos [N, 3, H, W], float32, 0 to 1, of which the first
            `OPTIONS.photos` are looked at.

    Returns:
        The choices, with more and more layers.
    """
    images = images[: OPTIONS.photos]
    heads = head_convolutions(model.netdef)
    errors = rounding_errors(model, images, heads)
    operations = layer_operations(model.netdef, (images.shape[-1], images.shape[-2]))
    choices = (
        tuple(sorted({*heads, *sensitive_layers(errors, operations, *shares)}))
        for shares in zip(OPTIONS.error_shares, OPTIONS.operations_shares, strict=True)
    )
    return list(dict.fromkeys(choices))


def head_convolutions(netdef: NetDef) -> tuple[int, ...]:
    """The layers that write the raw maps."""
    layers = []
    for index in netdef.heads:
        while netdef.layers[index].kind != "convolutional":
            index = netdef.sources(index)[0]
        layers.append(index)
    return tuple(layers)


def sensitive_layers(
    errors: Mapping[int, float],
    operations: Mapping[int, float],
    error_share: float,
    operations_share: float,
) -> tuple[int, ...]:
    """The convolutions with the most error for their operations.

    They are taken one by one, until no more than `error_share` of the error is left; those that
    would exceed `operations_share` of the network's operations are passed over.

    Args:
        errors: of each convolution that may be rounded.
        operations: of each layer.
        error_share: 0 to 1.
        operations_share: 0 to 1.
    """
    remaining_error = sum(errors.values())
    allowed_error = error_share * remaining_error
    budget = operations_share * sum(operations.values())
    layers = []
    for index in sorted(errors, key=lambda index: -errors[index] / operations[index]):
        if remaining_error <= allowed_error:
            break
        if operations[index] <= budget:
            layers.append(index)
            remaining_error -= errors[index]
            budget -= operations[index]
    return tuple(sorted(layers))


@torch.inference_mode()
def rounding_errors(
    model: Darknet, images: Tensor, excluded: Collection[int] = ()
) -> dict[int, float]:
    """What each convolution loses when it alone is computed in 8-bit integers.

    Its kernel and its input are rounded as the engines do it: symmetric with a scale a channel for
    kernels, asymmetric for the input as a whole, with the range that it has on these images.

    Args:
        model: the network.
        images: photos [N, 3, H, W], float32.
        excluded: layers that are not asked.

    Returns:
        By layer: the mean squared error of the raw maps, relative to their own variance.
    """
    plain = folded(model)
    reference = plain(images)
    errors = {}
    for index, layer in track(list(enumerate(plain.layers)), "int8, layer by layer"):
        if index in excluded or not isinstance(layer, Convolution):
            continue
        with _rounded(layer):
            errors[index] = _relative_error(plain(images), reference)
    return errors


@contextmanager
def _rounded(layer: Convolution) -> Iterator[None]:
    kernel = layer.conv.weight.data
    layer.conv.weight.data = round_kernel(kernel)
    hook = layer.register_forward_pre_hook(lambda _, inputs: (round_input(inputs[0]),))
    try:
        yield
    finally:
        hook.remove()
        layer.conv.weight.data = kernel


def round_kernel(kernel: Tensor) -> Tensor:
    """[filters, C, k, k] in 255 steps, symmetric about zero, for each filter."""
    scale = kernel.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12) / 127
    return (kernel / scale).round() * scale


def round_input(x: Tensor) -> Tensor:
    """A map in 256 steps from its lowest value to its highest, zero among them."""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = ((high - low) / 255).clamp(min=1e-12)
    zero = (low / scale).round()
    return ((x / scale).round().clamp(zero, zero + 255)) * scale


def _relative_error(maps: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    # A map that is the same everywhere, such as one of 1x1, has no variance to compare with.
    parts = [
        (a - b).square().mean() / b.var(unbiased=False).clamp(min=1e-12)
        for a, b in zip(maps, reference, strict=True)
    ]
    return float(torch.stack(parts).mean())
