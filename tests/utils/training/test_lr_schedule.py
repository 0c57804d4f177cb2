"""Does the learning rate rise and fall as said?"""

import time

import pytest
import torch

from import_param import Training
from utils.training.lr_schedule import (
    MAX_SCALE_LR,
    SCALE_TRAVEL,
    scale_lr,
    warmup_cosine,
    warmup_cosine_factor,
)


def rates(epochs: int, warmup: float, steps: int = 10) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    schedule = warmup_cosine(
        optimizer, steps, Training(epochs=epochs, warmup_epochs=warmup, final_lr=0.05)
    )
    rates = []
    for _ in range(epochs * steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


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


def test_scales_of_however_long_a_training_have_their_rate_at_once() -> None:
    settings = Training(epochs=10**15, lr=1e-3)
    start = time.monotonic()
    assert scale_lr(settings, 1000, 1000 * settings.epochs) == settings.lr
    assert time.monotonic() - start < 60  # one by one they would take years
