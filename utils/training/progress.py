"""How far has a training come, and which of its epochs is the best?"""

from __future__ import annotations

import math
from dataclasses import dataclass

from import_param import Training


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        epoch: epochs done.
        best: the highest mAP@.5 so far; -1 before the first evaluation.
        stale: evaluations since then.
    """

    epoch: int = 0
    best: float = -1.0
    stale: int = 0

    def evaluation_due(self, settings: Training) -> bool:
        """Whether the network is to be evaluated after the epoch that was done last."""
        return self.epoch % settings.eval_every == 0 or self.epoch == settings.epochs

    def judge(self, mean_ap: float, shrinking: bool) -> bool:
        """Take note of an evaluation; whether its epoch is the best so far.

        While a penalty shrinks the network, the last epoch is: earlier ones are better only because
        less of them is gone.
        """
        better = shrinking or mean_ap > self.best
        if better and not math.isnan(mean_ap):  # of validation photos without objects
            self.best = mean_ap
        self.stale = 0 if better else self.stale + 1
        return better

    def forget_best(self) -> None:
        """Compare no more with epochs so far, such as those of a network before it was cut."""
        self.best = -1.0

    def out_of_patience(self, settings: Training) -> bool:
        """Whether to stop, since no evaluation was better for as many as `patience`."""
        return bool(settings.patience) and self.stale >= settings.patience

    def finished(self, settings: Training) -> bool:
        """Whether nothing is left to train."""
        return self.epoch >= settings.epochs or self.out_of_patience(settings)
