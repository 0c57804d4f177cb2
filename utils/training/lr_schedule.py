"""How does the learning rate warm up and fall over a training?"""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from import_param import Training

# How far AdamW may move a BN scale in all: on BCCD as far was enough, a fifth was not.
SCALE_TRAVEL = 12.0
MAX_SCALE_LR = 0.1  # the highest learning rate that scales get for the sake of SCALE_TRAVEL


def warmup_cosine(optimizer: Optimizer, epoch_steps: int, settings: Training) -> LambdaLR:
    """A linear warm-up, then half a cosine down to `final_lr` times the learning rate.

    Args:
        optimizer: the learning rates of its groups are all multiplied by one factor.
        epoch_steps: steps of the optimizer in an epoch.
        settings: `epochs`, `warmup_epochs` and `final_lr` are read.
    """
    return LambdaLR(optimizer, warmup_cosine_factor(epoch_steps, settings))


def warmup_cosine_factor(epoch_steps: int, settings: Training) -> Callable[[int], float]:
    """By step, what `warmup_cosine` multiplies the learning rate by.

    A warm-up longer than half the training is cut to half.
    """
    total = epoch_steps * settings.epochs
    warmup = min(round(epoch_steps * settings.warmup_epochs), total // 2)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        cosine = (1 + math.cos(math.pi * progress)) / 2
        return settings.final_lr + (1 - settings.final_lr) * cosine

    return factor


def set_step_(schedule: LambdaLR, step: int) -> None:
    """Let a schedule go on at a step other than the one that it had come to."""
    schedule.last_epoch = step
    for group, base, factor in zip(
        schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
    ):
        group["lr"] = base * factor(step)


def scale_lr(settings: Training, epoch_steps: int, steps: int) -> float:
    """The learning rate for BN scales that a penalty shrinks during the first `steps` steps.

    They start at about 1, and AdamW moves a parameter by at most the learning rate a step: so a
    short training, or a small data set, needs a higher one to shrink as many. Never below `lr`, and
    otherwise at most `MAX_SCALE_LR`, so that a scale dies over many steps and not by chance.
    """
    total = 0.0
    for factor in map(warmup_cosine_factor(epoch_steps, settings), range(steps)):
        total += factor
        if SCALE_TRAVEL / total <= settings.lr:  # the rest, of however many steps, makes it less
            return settings.lr
    return max(settings.lr, min(MAX_SCALE_LR, SCALE_TRAVEL / total))
