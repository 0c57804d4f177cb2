"""Does the learning rate rise and fall as said, and does the running mean forget as said?"""

from typing import Literal

import pytest
import torch
from torch import nn

from import_param import Training
from utils.training.ema import EMA_RAMP, running_mean
from utils.training.lr_schedule import (
    MAX_SCALE_LR,
    SCALE_TRAVEL,
    scale_lr,
    warmup_cosine,
    warmup_cosine_factor,
)
from utils.training.optimizer import make_optimizer, parameter_groups


def rates(epochs: int, warmup: float, steps: int = 10) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    schedule = warmup_cosine(
        optimizer, steps, Training(epochs=epochs, warmup_epochs=warmup, final_lr=0.05)
    )
    found = []
    for _ in range(epochs * steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_the_rate_rises_to_its_highest_and_falls_to_its_last() -> None:
    found = rates(epochs=10, warmup=2)
    assert found[:20] == sorted(found[:20]) and found[0] > 0
    assert found[20:] == sorted(found[20:], reverse=True)
    assert max(found) == found[20] == 1.0
    assert found[-1] == pytest.approx(0.05, abs=2e-3)


def test_a_warm_up_longer_than_the_training_is_cut() -> None:
    found = rates(epochs=1, warmup=5)
    assert found.index(max(found)) == 5


@pytest.mark.parametrize(("epochs", "steps"), [(20, 37), (30, 15)])
def test_scales_can_travel_as_far_in_any_training(epochs: int, steps: int) -> None:
    settings = Training(epochs=epochs, lr=1e-3)
    factor = warmup_cosine_factor(steps, settings)
    lr = scale_lr(settings, steps, epochs * steps)
    assert sum(lr * factor(step) for step in range(epochs * steps)) == pytest.approx(SCALE_TRAVEL)


def test_scales_never_move_slower_than_the_rest() -> None:
    assert scale_lr(Training(lr=1e-3), 10**5, 40 * 10**5) == 1e-3
    assert scale_lr(Training(lr=0.2), 1, 1) == 0.2


def test_scales_do_not_leap_in_a_very_short_training() -> None:
    assert scale_lr(Training(lr=1e-3), 4, 4) == MAX_SCALE_LR


def test_only_kernels_decay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    decayed, others = parameter_groups(model, 0.1)
    assert [p.ndim for p in decayed["params"]] == [4] and decayed["weight_decay"] == 0.1
    assert [p.ndim for p in others["params"]] == [1, 1, 1] and others["weight_decay"] == 0


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_optimizers_leave_frozen_parameters_alone(kind: Literal["adamw", "sgd"]) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    optimizer = make_optimizer(model, Training(optimizer=kind))
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in model[1].parameters()}


def test_the_running_mean_follows_slowly_and_copies_counts() -> None:
    model = nn.BatchNorm1d(1)
    mean = running_mean(model, decay=0.9)
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
    mean = running_mean(model, decay=0.5)
    mean.n_averaged.fill_(100 * EMA_RAMP)
    with torch.no_grad():
        mean.module.weight.fill_(0)
        model.weight.fill_(1)
    mean.update_parameters(model)
    assert mean.module.weight.item() == pytest.approx(0.5)
