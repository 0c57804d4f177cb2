"""How important is a channel? By its scale, its kernel, the slope of the loss, or its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.darknet import Darknet
from models.loss import Losses
from pruning.equalization import normalized, typical_scales
from pruning.own_functions import OwnFunction, own_function
from utils.console.progress import say
from utils.errors import InputError
from utils.structures import Batch

Importance = Mapping[int, NDArray[np.float64]]  # by convolution with BN: [filters], at least 0
LossFunction = Callable[[list[Tensor], Batch], Losses]  # such as models.loss.DetectionLoss


def gamma(model: Darknet) -> Importance:
    """|γ|, Network Slimming's importance (Liu et al., ICCV 2017), as if layers were equalised.

    It is in units of the layer's typical scale, see `pruning.equalization`.
    """
    scales = typical_scales(model)
    return checked({n: c.bn.weight.abs() / scales[n] for n, c in normalized(model)})  # type: ignore[union-attr]


def filter_l1(model: Darknet) -> Importance:
    """The L1 norm of a filter's kernel (Li et al., ICLR 2017), in units of the layer's typical one.

    Batch normalisation takes a kernel's size away, so sizes of different layers do not compare.
    """
    sums = {n: c.conv.weight.abs().double().sum((1, 2, 3)) for n, c in normalized(model)}
    return checked({n: s * s.sum() / (s**2).sum().clamp(min=1e-30) for n, s in sums.items()})


def taylor(model: Darknet, loss: LossFunction, batches: Iterable[Batch]) -> Importance:
    """How much the loss would change without a channel, to first order.

    It is the mean over batches of (γ·∂L/∂γ + β·∂L/∂β)² (Molchanov et al., CVPR 2019, section 3;
    HALP, arXiv 2110.10811).

    Args:
        model: the network; gradients and what needs them stay as they are.
        loss: of its raw maps and a batch, such as `models.loss.DetectionLoss`.
        batches: training photos; without any, all channels have importance 0. Those whose loss or
            slopes are not finite are left out, and told.

    Raises:
        InputError: none of them has a finite loss.
    """
    layers = normalized(model)
    scales = [c.bn.weight for _, c in layers]  # type: ignore[union-attr]
    shifts = [c.bn.bias for _, c in layers]  # type: ignore[union-attr]
    sums = [torch.zeros_like(scale, dtype=torch.float64) for scale in scales]
    needed = [parameter.requires_grad for parameter in model.parameters()]
    model.eval()  # one photo's importance should not depend on the others of its batch
    count = skipped = 0
    try:
        for parameter in (*scales, *shifts):
            parameter.requires_grad_(True)
        for batch in batches:
            batch = batch.to(scales[0].device)
            total = loss(model(batch.images), batch).total
            slopes = torch.autograd.grad(total, [*scales, *shifts], allow_unused=True)
            changes = _changes(scales, slopes[: len(scales)], shifts, slopes[len(scales) :])
            if not all(values.isfinite().all() for values in (total, *changes)):
                skipped += 1
                continue
            for sum_, change in zip(sums, changes, strict=True):
                sum_ += change.double() ** 2
            count += 1
    finally:
        for parameter, need in zip(model.parameters(), needed, strict=True):
            parameter.requires_grad_(need)
    if skipped:
        told = f"the loss of {skipped} of {count + skipped} batches is not a finite number"
        if not count:
            raise InputError(f"importance='taylor': {told}")
        say(f"note: importance='taylor': {told}: left out")
    return checked({n: sum_ / max(1, count) for (n, _), sum_ in zip(layers, sums, strict=True)})


def uniform(model: Darknet) -> Importance:
    """Every channel's place in its layer, so that all layers lose the same share: a control."""
    counts = {n: c.conv.out_channels for n, c in normalized(model)}
    return {n: 1 - np.arange(count) / count for n, count in counts.items()}


def _changes(
    scales: list[Tensor],
    of_scales: tuple[Tensor | None, ...],
    shifts: list[Tensor],
    of_shifts: tuple[Tensor | None, ...],
) -> list[Tensor]:
    """γ·∂L/∂γ + β·∂L/∂β of each layer; zero for a layer that no head depends on."""
    parts = zip(scales, of_scales, shifts, of_shifts, strict=True)
    return [
        torch.zeros_like(scale)
        if of_scale is None or of_shift is None
        else scale.detach() * of_scale + shift.detach() * of_shift
        for scale, of_scale, shift, of_shift in parts
    ]


def checked(importance: Mapping[int, Tensor] | Importance) -> Importance:
    """The same as arrays.

    Raises:
        InputError: a channel's is not a finite number, which no threshold could be compared with.
    """
    tensors = {layer: torch.as_tensor(values).detach() for layer, values in importance.items()}
    for layer, values in tensors.items():
        if not values.isfinite().all():
            raise InputError(f"layer {layer}: its channels' importance is not a finite number")
    return {layer: values.double().cpu().numpy() for layer, values in tensors.items()}


def importance_named(name: str) -> tuple[Callable[..., Importance], bool]:
    """The function of `IMPORTANCE`, or the user's, and whether it needs a loss and batches.

    A user's is called with the network, or where it takes three arguments with what `taylor` takes.

    Raises:
        InputError: a user's file cannot be read or run, or has no such function.
    """
    if name in IMPORTANCE:
        return IMPORTANCE[name]
    own = own_function(name, "importance")
    if own.parameters not in (1, 3):
        raise own.error("expected the arguments (model), or (model, loss, batches)")

    def measure(model: Darknet, *loss_and_batches: Any) -> Importance:
        return _expect_importance(own, own(model, *loss_and_batches), model)

    return measure, own.parameters == 3


def _expect_importance(own: OwnFunction, values_by_layer: Any, model: Darknet) -> Importance:
    """What a user's function gave, as arrays; an InputError where it is no importance."""
    if not isinstance(values_by_layer, Mapping):
        raise own.error(
            f"expected a dict of numbers by layer, found {type(values_by_layer).__name__}"
        )
    counts = {layer: convolution.conv.out_channels for layer, convolution in normalized(model)}
    arrays = {}
    for layer, count in counts.items():
        if layer not in values_by_layer:
            raise own.error(f"layer {layer}: expected {count} numbers, found none")
        try:
            values = torch.as_tensor(values_by_layer[layer]).detach().double().cpu().numpy()
        except (TypeError, ValueError, RuntimeError):
            raise own.error(f"layer {layer}: expected {count} numbers") from None
        if values.shape != (count,):
            raise own.error(f"layer {layer}: expected {count} numbers, found {values.shape}")
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise own.error(f"layer {layer}: expected finite numbers of at least 0")
        arrays[layer] = values
    return arrays


# By the name of the setting: the function, and whether it needs a loss and batches.
IMPORTANCE: dict[str, tuple[Callable[..., Importance], bool]] = {
    "gamma": (gamma, False),
    "l1": (filter_l1, False),
    "taylor": (taylor, True),
    "uniform": (uniform, False),
}
