"""Is a training's state taken whole by the trainer that would save the same, and by no other?"""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from import_param import Training, TrainSettings
from models.darknet import Darknet
from models.netdef import parse
from tests.models.test_darknet import RESIDUAL
from utils.checkpoint.checkpoint import TrainingState
from utils.errors import InputError
from utils.training.fit import load_
from utils.training.loop import Trainer, TrainerFactory
from utils.training.precision import loss_scaler

Kind = Literal["adamw", "sgd"]


def new_trainer(kind: Kind = "adamw", momentum: float = 0.9) -> Trainer:
    torch.manual_seed(0)
    settings = TrainSettings(training=Training(optimizer=kind, momentum=momentum))
    return TrainerFactory(settings, 5, Path())(Darknet(parse(RESIDUAL)))


def after_steps(kind: Kind = "adamw", momentum: float = 0.9) -> Trainer:
    trainer = new_trainer(kind, momentum)
    for _ in range(2):
        step(trainer)
    return trainer


def step(trainer: Trainer) -> None:
    torch.manual_seed(1)
    maps, _ = trainer.model.maps_and_features(torch.rand(2, 3, 32, 32))
    trainer.optimizer.zero_grad()
    sum(m.square().mean() for m in maps).backward()
    trainer.optimizer.step()
    trainer.schedule.step()
    trainer.mean.update_parameters(trainer.model)


def state_of(trainer: Trainer) -> TrainingState:
    return copy.deepcopy(
        TrainingState(
            1,
            0.5,
            0,
            "a",
            trainer.model.state_dict(),
            trainer.optimizer.state_dict(),
            trainer.schedule.state_dict(),
            int(trainer.mean.n_averaged),
        )
    )


def put(trainer: Trainer, old: Trainer, state: TrainingState) -> None:
    load_(trainer, old.averaged.state_dict(), state, "a.pt")


@pytest.mark.parametrize(("kind", "momentum"), [("adamw", 0.9), ("sgd", 0.9), ("sgd", 0.0)])
def test_a_training_goes_on_to_the_bit(kind: Kind, momentum: float) -> None:
    old, new = after_steps(kind, momentum), new_trainer(kind, momentum)
    put(new, old, state_of(old))
    step(old)
    step(new)
    for mine, theirs in zip(new.model.parameters(), old.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    for mine, theirs in zip(new.averaged.parameters(), old.averaged.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert new.optimizer.param_groups[0]["lr"] == old.optimizer.param_groups[0]["lr"]


def at(path: str, value: Any) -> Callable[[TrainingState], None]:
    """What sets an entry, or with `...` removes it; numbers in the path are of lists or dicts."""
    *way, last = (int(part) if part.isdigit() else part for part in path.split("/"))

    def change(state: TrainingState) -> None:
        place: Any = state.values()
        for part in way:
            place = place[part]
        if value is ...:
            del place[last]
        else:
            place[last] = value

    return change


NAN = torch.full((8, 3, 3, 3), torch.nan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (at("model/layers.0.conv.weight", ...), "model: 'layers.0.conv.weight' is missing"),
        (at("model/more", torch.zeros(1)), "model: 'more': the network has no such tensor"),
        (at("model/layers.0.conv.weight", torch.zeros(8)), r"weight=<torch.float32, .8,.>: expect"),
        (at("model/layers.0.conv.weight", NAN), "layers.0.conv.weight: expected finite numbers"),
        (at("model/layers.0.bn.running_var", -torch.ones(8)), "model: layer 0: a variance of -1"),
        (at("optimizer/state", []), "optimizer: expected 'state' to be a dict"),
        (at("optimizer/state/0", None), r"optimizer: state.0.=None: expected a dict"),
        (at("optimizer/state/0/exp_avg", torch.zeros(1)), r"state.0..exp_avg=<torch.float32, .1,."),
        (at("optimizer/state/0/exp_avg", ...), r"state.0..exp_avg=None: expected an ordinary"),
        (at("optimizer/state/0/step", 3), r"state.0..step=3: expected an ordinary tensor"),
        (at("optimizer/state/0/step", torch.zeros(9)), r"state.0..step=<torch.float32, .9,.>"),
        (at("optimizer/param_groups", []), "optimizer: 0 groups: expected 2"),
        (at("optimizer/param_groups/0/params", [0, 0]), r"param_groups.0.: expected the param"),
        (at("optimizer/param_groups/0", 5), r"param_groups.0.: expected the parameters"),
        (at("optimizer/param_groups/0/lr", "x"), r"param_groups.0.: lr='x': expected a number"),
        (at("optimizer/param_groups/0/lr", -1.0), r"lr=-1.0: expected a finite number from 0 on"),
        (
            at("optimizer/param_groups/0/lr", 10**400),
            r"lr=<integer of 1329 bits>: expected a finite number",
        ),
        (at("optimizer/param_groups/0/initial_lr", ...), "initial_lr=None: expected a number"),
        (at("schedule/last_epoch", ...), "schedule: last_epoch=None: expected a number"),
        (at("schedule/last_epoch", 0.5), "schedule: last_epoch=0.5: expected a number of steps"),
        (at("schedule/_last_lr", []), "schedule: _last_lr: expected 2 learning rates"),
        (at("schedule/base_lrs", [True, 1]), r"base_lrs.0.=True: expected a number"),
        (at("schedule/base_lrs", 5), "schedule: expected 'base_lrs' to be a list"),
    ],
)
def test_what_does_not_fit_is_named(change: Callable[[TrainingState], None], message: str) -> None:
    old, new = after_steps(), new_trainer()
    state = state_of(old)
    change(state)
    with pytest.raises(InputError, match=rf"^a\.pt: training.*{message}"):
        put(new, old, state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (at("scaler/scale", 0.0), "scaler: scale=0: expected more"),
        (at("scaler/scale", float("inf")), "scaler: scale=inf: expected a finite number"),
        (at("scaler/_growth_tracker", 0.5), "_growth_tracker=0.5: expected a number of steps"),
    ],
)
def test_the_scale_of_an_fp16_loss_goes_on_or_is_refused(
    change: Callable[[TrainingState], None], message: str
) -> None:
    old, new = after_steps(), new_trainer()
    for trainer in (old, new):
        trainer.scaler = loss_scaler(torch.device("cpu"), torch.float16)
    stored = {**old.scaler.state_dict(), "scale": 4.0, "_growth_tracker": 7}
    state = replace(state_of(old), scaler={**stored, "growth_factor": 9.0})
    put(new, old, state)
    assert new.scaler.state_dict() == stored
    change(state)
    with pytest.raises(InputError, match=rf"^a\.pt: training.*{message}"):
        put(new, old, state)


def test_weights_to_use_of_another_network_are_refused() -> None:
    old, new = after_steps(), new_trainer()
    averaged: dict[str, Tensor] = {}
    with pytest.raises(InputError, match=r"a\.pt: model: 'layers.0.bn.bias' is missing"):
        load_(new, averaged, state_of(old), "a.pt")


def test_weights_to_use_that_cannot_be_computed_with_are_refused() -> None:
    old, new = after_steps(), new_trainer()
    averaged = old.averaged.state_dict()
    averaged["layers.0.bn.running_var"] = -torch.ones(8)
    with pytest.raises(InputError, match=r"a\.pt: model: layer 0: a variance of -1"):
        load_(new, averaged, state_of(old), "a.pt")


def test_nothing_but_what_is_known_is_taken_from_the_file() -> None:
    """A schedule's state could else replace whatever the schedule is made of."""
    old, new = after_steps(), new_trainer()
    state = state_of(old)
    state.schedule["step"] = state.schedule["optimizer"] = None
    state.optimizer["param_groups"][0]["betas"] = (7.0, 8.0)
    put(new, old, state)
    assert callable(new.schedule.step) and new.schedule.optimizer is new.optimizer
    assert new.optimizer.param_groups[0]["betas"] == old.optimizer.param_groups[0]["betas"]
