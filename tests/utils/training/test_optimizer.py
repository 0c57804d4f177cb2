"""Which parameters decay, and which rates do they have?"""

from typing import Literal

import pytest
from torch import nn

from import_param import Training
from utils.training.optimizer import SCALES, make_optimizer, parameter_groups


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


def test_scales_with_a_rate_of_their_own_are_the_last_group_and_do_not_decay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    groups = parameter_groups(model, 0.1, scale_lr=0.02)
    assert len(groups) == SCALES + 1
    assert [p is model[1].weight for p in groups[SCALES]["params"]] == [True]
    assert groups[SCALES]["lr"] == 0.02
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.0]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
