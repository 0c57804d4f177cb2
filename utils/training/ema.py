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
        floating = [index for index, mean in enumerate(averaged) if mean.is_floating_point()]
        counts = [index for index, mean in enumerate(averaged) if not mean.is_floating_point()]
        means, values = [averaged[i] for i in floating], [current[i] for i in floating]
        if steps := int(self.n_averaged):
            keep = self._decay * (1 - math.exp(-steps / EMA_RAMP))
            values = list(torch._foreach_lerp(values, means, keep))
        torch._foreach_copy_(means, values)
        if counts:  # BN's, of batches
            torch._foreach_copy_([averaged[i] for i in counts], [current[i] for i in counts])
        self.n_averaged += 1


def _tensors(model: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in chain(model.parameters(), model.buffers())]
