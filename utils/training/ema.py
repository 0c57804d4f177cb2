"""The running mean of the weights, which is what is evaluated and saved."""

import math
from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

EMA_RAMP = 100  # steps after which the running mean forgets almost as slowly as asked


class RunningMean(AveragedModel):
    """An exponential moving average of a model's weights and BN statistics.

    Of n steps it remembers with decay · (1 - exp(-n / EMA_RAMP)), so that the random first weights
    are soon forgotten. The averaged network is `.module`; `.n_averaged` counts the steps, on the
    CPU, where it can be read without waiting for a card.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.module.eval()
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Follow a step of the model; the first is copied."""
        averaged, current = _tensors(self.module), _tensors(model)
        steps = int(self.n_averaged)
        if steps:
            keep = self._decay * (1 - math.exp(-steps / EMA_RAMP))
            floating = [index for index, mean in enumerate(averaged) if mean.is_floating_point()]
            starts, ends = [current[i] for i in floating], [averaged[i] for i in floating]
            means = torch._foreach_lerp(starts, ends, keep)
            for index, mean in zip(floating, means, strict=True):
                current[index] = mean  # all others are BN's counts of batches
        torch._foreach_copy_(averaged, current)
        self.n_averaged += 1


def _tensors(model: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in chain(model.parameters(), model.buffers())]
