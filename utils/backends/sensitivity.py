"""Which layers lose most when they alone are computed in 8-bit integers?

Measured on yolov3-tiny trained on BCCD and on mcu: the first two or three of the thirteen
convolutions make four fifths of the whole error, with a tenth of the operations.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from models.blocks import Convolution
from models.costs import layer_operations
from models.darknet import Darknet
from utils.backends.fold import folded

PHOTOS = 4  # that are looked at
ENOUGH = 0.5  # of the error that may stay
DEAREST = 0.1  # of the operations that may be left in float for it


def too_sensitive(model: Darknet, images: Tensor, given: Collection[int]) -> tuple[int, ...]:
    """The convolutions to leave in float beside those that are `given`.

    Those with the most error for their operations go first, until half of the error is gone or a
    tenth of the operations. images: [N, 3, H, W], of which the first few are looked at.
    """
    images = images[:PHOTOS]
    errors = sensitivities(model, images, given)
    size = (images.shape[-1], images.shape[-2])
    cost = layer_operations(model.netdef, size)
    rest, budget = sum(errors.values()), DEAREST * sum(cost.values())
    allowed = ENOUGH * rest
    found = []
    for index in sorted(errors, key=lambda index: -errors[index] / cost[index]):
        if rest <= allowed:
            break
        if cost[index] <= budget:
            found.append(index)
            rest, budget = rest - errors[index], budget - cost[index]
    return tuple(sorted(found))


@torch.inference_mode()
def sensitivities(model: Darknet, images: Tensor, given: Collection[int] = ()) -> dict[int, float]:
    """By convolution: the error of the raw maps, relative to their own spread, when its kernel and
    its input are rounded to 8 bits and all else stays in float.

    given: layers that are not asked. images: float32 [N, 3, H, W], which ranges are taken from,
    too. The rounding is that of the engines: symmetric with a scale a channel for kernels,
    asymmetric for the input as a whole.
    """
    plain = folded(model)
    wanted = plain(images)
    found = {}
    for index, layer in enumerate(plain.layers):
        if index in given or not isinstance(layer, Convolution):
            continue
        with _rounded(layer):
            found[index] = _error(plain(images), wanted)
    return found


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


def _error(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    parts = [(a - b).square().mean() / b.var() for a, b in zip(found, wanted, strict=True)]
    return float(torch.stack(parts).mean())
