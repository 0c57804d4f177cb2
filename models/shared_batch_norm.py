"""Batch normalisation over the photos of all processes that train together.

torch's SyncBatchNorm computes on cards alone; this one does everywhere, and is like it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.processes import distributed

OVER = (0, 2, 3)  # the axes that a channel's statistics are taken over


class SharedBatchNorm(nn.BatchNorm2d):
    """In training, the mean and variance of a channel are those of all processes' photos."""

    def forward(self, x: Tensor) -> Tensor:
        """A map of any size [B, C, h, w]."""
        if not self.training or distributed.world() == 1:
            return super().forward(x)
        mean, variance, count = shared_statistics(x)
        assert self.momentum is not None
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
        normalised: Tensor = _Normalise.apply(
            x, self.weight, self.bias, mean, variance, count, self.eps
        )
        return normalised


def share_batch_norm_(model: nn.Module) -> None:
    """Make the batch normalisations of a network those of all processes."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm


@torch.no_grad()
def shared_statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A map's mean [C] and biased variance [C] over all processes, and its values a channel.

    The processes' own are put together as in Chan, Golub and LeVeque, "Updating formulae and a
    pairwise algorithm for computing sample variances" (1979).
    """
    values = x if x.dtype == torch.float64 else x.float()
    own_variance, own_mean = torch.var_mean(values, OVER, correction=0)
    own_count = own_mean.new_full((1,), x.numel() / x.shape[1])
    everyones = distributed.stacked(torch.cat([own_mean, own_variance, own_count]))
    means, variances, counts = everyones.split([x.shape[1], x.shape[1], 1], 1)
    count = counts.sum()
    mean = (means * counts).sum(0) / count
    variance = ((variances + (means - mean).square()) * counts).sum(0) / count
    return mean, variance, count


class _Normalise(torch.autograd.Function):
    """weight · (x - mean) / sqrt(variance + eps) + bias, where mean and variance are of x, too."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        epsilon: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, (variance + epsilon).rsqrt(), count)
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=epsilon)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors

        def on_map(channels: Tensor) -> Tensor:
            return channels[:, None, None]  # [C, 1, 1]

        normalised = (x - on_map(mean)) * on_map(scale)
        bias_gradient = gradient.sum(OVER, dtype=mean.dtype)
        weight_gradient = (gradient * normalised).sum(OVER)
        sums = distributed.total(torch.cat([bias_gradient, weight_gradient])) / count
        through_mean, through_variance = sums.chunk(2)
        x_gradient = on_map(weight * scale) * (
            gradient - on_map(through_mean) - normalised * on_map(through_variance)
        )
        return x_gradient.to(x.dtype), weight_gradient, bias_gradient, None, None, None, None
