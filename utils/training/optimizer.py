"""Which parameters does which optimizer change, and which of them decay?"""

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from import_param import Training

SCALES = 2  # the place of BN's scales among an optimizer's groups, where they have their own


def make_optimizer(model: nn.Module, settings: Training, scale_lr: float = 0.0) -> Optimizer:
    """AdamW or SGD with Nesterov's momentum, over `parameter_groups`.

    Fused: AdamW's step on yolov3-tiny and one core takes 5 ms so, 17 ms else.
    """
    lr, momentum = settings.lr, settings.momentum
    groups = parameter_groups(model, settings.weight_decay, scale_lr)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr, betas=(momentum, 0.999), fused=True)
    return torch.optim.SGD(groups, lr, momentum=momentum, nesterov=momentum > 0, fused=True)


def begin_momentum_(optimizer: Optimizer) -> None:
    """Let SGD's momentum begin at 0, as it does anyway.

    For when the first step may be left out, because fp16's gradients overflow: torch's fused SGD
    would then take memory as it is for the momentum.
    """
    for group in optimizer.param_groups:
        if isinstance(optimizer, torch.optim.SGD) and group["momentum"]:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def parameter_groups(
    model: nn.Module, weight_decay: float, scale_lr: float = 0.0
) -> list[dict[str, Any]]:
    """The trainable parameters: kernels with weight decay; BN scales and every bias without.

    Args:
        model: parameters that do not require a gradient are left out.
        weight_decay: of the kernels.
        scale_lr: a learning rate for BN scales, which then are a group of their own, `SCALES`;
            0 for that of all others.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    scales = [n.weight for n in norms if n.weight.requires_grad and scale_lr]
    apart = {id(scale) for scale in scales}
    kernels = [p for p in trainable if p.ndim > 1]
    others = [p for p in trainable if p.ndim <= 1 and id(p) not in apart]
    groups: list[dict[str, Any]] = [
        {"params": kernels, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if scale_lr:
        groups.append({"params": scales, "weight_decay": 0.0, "lr": scale_lr})
    return groups
