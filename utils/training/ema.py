"""The running mean of the weights, which is what is evaluated and saved."""

import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

EMA_RAMP = 100  # steps after which the running mean forgets almost as slowly as asked


def running_mean(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a model's weights and BN statistics.

    Of n steps it remembers with decay · (1 - exp(-n / EMA_RAMP)), so that the random first weights
    are soon forgotten. The averaged network is `.module`; call `.update_parameters(model)` after
    each step.
    """

    def average(averaged: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
        if not averaged.is_floating_point():
            return current  # BN's count of batches
        keep = decay * (1 - math.exp(-int(steps) / EMA_RAMP))
        return torch.lerp(current, averaged, keep)

    mean = AveragedModel(model, avg_fn=average, use_buffers=True)
    mean.module.eval()
    return mean
