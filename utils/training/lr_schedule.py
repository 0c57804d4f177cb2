"""How does the learning rate change over a training?"""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


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
