"""Does the running mean forget as said?"""

import pytest
import torch
from torch import nn

from utils.training.ema import EMA_RAMP, RunningMean


def test_the_running_mean_follows_slowly_and_copies_counts() -> None:
    model = nn.BatchNorm1d(1)
    mean = RunningMean(model, decay=0.9)
    with torch.no_grad():
        model.weight.fill_(5)
        model.running_mean.fill_(5)
        model.num_batches_tracked.fill_(7)
    for _ in range(3 * EMA_RAMP):
        before = mean.module.weight.item()
        mean.update_parameters(model)
        assert before <= mean.module.weight.item() <= 5
    assert mean.module.weight.item() == pytest.approx(5, abs=1e-3)
    assert mean.module.running_mean.item() == pytest.approx(5, abs=1e-3)
    assert mean.module.num_batches_tracked.item() == 7


def test_the_running_mean_keeps_the_share_that_it_is_told() -> None:
    model = nn.Linear(1, 1, bias=False)
    mean = RunningMean(model, decay=0.5)
    mean.n_averaged.fill_(100 * EMA_RAMP)
    with torch.no_grad():
        mean.module.weight.fill_(0)
        model.weight.fill_(1)
    mean.update_parameters(model)
    assert mean.module.weight.item() == pytest.approx(0.5)
