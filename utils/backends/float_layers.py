"""Which layers stay in float when a network is quantised to 8-bit integers?

Those that write the raw maps, since a box's width is an exponential of what they say, and those
that lose most when they alone are rounded. Measured on yolov3-tiny trained on BCCD and on mcu: the
first two or three of the thirteen convolutions make four fifths of the whole error, with a tenth of
the operations.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from models.blocks import Convolution
from models.costs import layer_operations
from models.darknet import Darknet
from models.netdef import NetDef
from utils.backends.fold import folded


@dataclass(frozen=True)
class FloatLayerOptions:
    """How many layers stay in float beside those that write the raw maps."""

    photos: int = 4  # calibration photos on which errors are measured
    error_share: float = 0.5  # share of the error that may stay
    operations_share: float = 0.1  # share of the network's operations that may stay in float


OPTIONS = FloatLayerOptions()


def float_layers(model: Darknet, images: Tensor) -> tuple[int, ...]:
    """The convolutions that stay in float, by their layers' indices.

    Args:
        model: the network.
        images: calibration photos [N, 3, H, W], float32, 0 to 1, of which the first
            `OPTIONS.photos` are looked at.
    """
    heads = head_convolutions(model.netdef)
    return tuple(sorted({*heads, *sensitive_layers(model, images[: OPTIONS.photos], heads)}))


def head_convolutions(netdef: NetDef) -> tuple[int, ...]:
    """The layers that write the raw maps."""
    layers = []
    for index in netdef.heads:
        while netdef.layers[index].kind != "convolutional":
            index = netdef.sources(index)[0]
        layers.append(index)
    return tuple(layers)


def sensitive_layers(model: Darknet, images: Tensor, excluded: Collection[int]) -> tuple[int, ...]:
    """The convolutions with the most error for their operations.

    They are taken one by one, until no more than `OPTIONS.error_share` of the error is left; those
    that would exceed `OPTIONS.operations_share` of the network's operations are passed over.

    Args:
        model: the network.
        images: photos [N, 3, H, W].
        excluded: layers that are in float in any case, and whose error does not count.
    """
    errors = rounding_errors(model, images, excluded)
    operations = layer_operations(model.netdef, (images.shape[-1], images.shape[-2]))
    remaining_error = sum(errors.values())
    allowed_error = OPTIONS.error_share * remaining_error
    budget = OPTIONS.operations_share * sum(operations.values())
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
    for index, layer in enumerate(plain.layers):
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
    parts = [(a - b).square().mean() / b.var() for a, b in zip(maps, reference, strict=True)]
    return float(torch.stack(parts).mean())
