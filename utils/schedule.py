"""The learning rate over time, and the running mean of the weights."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

EMA_RAMP = 100  # steps after which the running mean forgets almost as slowly as asked


def warmup_cosine_factor(
    epoch_steps: int, epochs: int, warmup_epochs: float, final: float
) -> Callable[[int], float]:
    """By step, what the learning rate is multiplied by; see `warmup_cosine`."""
    total = epoch_steps * epochs
    warmup = min(round(epoch_steps * warmup_epochs), total // 2)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2

    return factor


def warmup_cosine(
    optimizer: Optimizer, epoch_steps: int, epochs: int, warmup_epochs: float, final: float
) -> LambdaLR:
    """A linear rise from nothing, then half a cosine down to `final` times the learning rate.

    Counted in optimizer steps, `epoch_steps` to an epoch. A warm-up longer than half the training
    is cut to half.
    """
    return LambdaLR(optimizer, warmup_cosine_factor(epoch_steps, epochs, warmup_epochs, final))


REACH = 12.0  # how far AdamW may move a scale in all; on BCCD as far was enough, a fifth was not

HIGHEST = 0.1  # learning rate that scales get for the sake of REACH


def scale_lr(lr: float, factor: Callable[[int], float], steps: int) -> float:
    """The learning rate for scales that are drawn to zero in `steps` steps of a schedule.

    They start at about 1, and AdamW moves a parameter by at most the learning rate a step: so a
    short training, or a small data set, needs a higher one to draw as many. Never below `lr`, and
    otherwise at most a tenth, so that a scale dies over many steps and not by chance.
    """
    return max(lr, min(HIGHEST, REACH / sum(map(factor, range(steps)))))


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


SCALES = 2  # the place of BN's scales among an optimizer's groups, where they have their own


def parameter_groups(
    model: nn.Module, weight_decay: float, scale_lr: float = 0.0
) -> list[dict[str, Any]]:
    """The trainable parameters: kernels with weight decay; BN scales and every bias without.

    scale_lr: a learning rate for BN scales, which then are a group of their own, `SCALES`; 0 for
    that of all others.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    scales = [n.weight for n in norms if n.weight.requires_grad and scale_lr]
    apart = {id(scale) for scale in scales}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {
            "params": [p for p in trainable if p.ndim <= 1 and id(p) not in apart],
            "weight_decay": 0.0,
        },
    ]
    if scale_lr:
        groups.append({"params": scales, "weight_decay": 0.0, "lr": scale_lr})
    return groups


def make_optimizer(
    kind: str,
    model: nn.Module,
    lr: float,
    momentum: float,
    weight_decay: float,
    scale_lr: float = 0.0,
) -> Optimizer:
    """AdamW or SGD with Nesterov's momentum, over `parameter_groups`.

    Fused: AdamW's step on yolov3-tiny and one core takes 5 ms so, 17 ms else.
    """
    groups = parameter_groups(model, weight_decay, scale_lr)
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr, betas=(momentum, 0.999), fused=True)
    return torch.optim.SGD(groups, lr, momentum=momentum, nesterov=momentum > 0, fused=True)
