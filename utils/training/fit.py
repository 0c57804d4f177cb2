"""Does what a checkpoint holds of a training fit the trainer that goes on?

Nothing of the file reaches torch before it is known to be what this trainer itself would save.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from models.weights import expect_computable
from utils.checkpoint.checkpoint import TrainingState
from utils.checkpoint.tensor_files import is_plain
from utils.errors import InputError
from utils.settings.schema import shown
from utils.training.loop import Trainer

# What the optimizer remembers of a parameter, beside its number of steps.
MEMORY = {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}
STATE_DICT = (("param_groups", list), ("state", dict))  # what a state dict is to hold


def load_(
    trainer: Trainer, averaged: Mapping[str, Tensor], state: TrainingState, place: str
) -> None:
    """Put a training's state into the trainer.

    Args:
        trainer: as it is before its first step.
        averaged: the state dict of the network to use.
        state: the rest.
        place: of the file, for messages.

    Raises:
        InputError: it is not of this network and these settings; the trainer is then half-filled.
    """
    training = f"{place}: training"
    _expect_weights(averaged, trainer.averaged.state_dict(), f"{place}: model")
    _expect_weights(state.model, trainer.model.state_dict(), f"{training}.model")
    optimizer = _optimizer_state(trainer, state.optimizer, f"{training}.optimizer")
    schedule = _schedule_state(trainer, state.schedule, f"{training}.schedule")
    scaler = _scaler_state(trainer, state.scaler or {}, f"{training}.scaler")
    trainer.model.load_state_dict(state.model)
    trainer.averaged.load_state_dict(averaged)
    expect_computable(trainer.model, f"{training}.model")
    expect_computable(trainer.averaged, f"{place}: model")
    trainer.mean.n_averaged.fill_(state.averaged)
    trainer.optimizer.load_state_dict(optimizer)
    if scaler:
        trainer.scaler.load_state_dict(scaler)
    trainer.schedule.load_state_dict(schedule)


def _expect_weights(stored: Mapping[str, Tensor], own: Mapping[str, Tensor], place: str) -> None:
    """Refuse a state dict of another network."""
    if missing := own.keys() - stored.keys():
        raise InputError(f"{place}: {min(missing)!r} is missing")
    if more := stored.keys() - own.keys():
        raise InputError(f"{place}: {shown(min(more))}: the network has no such tensor")
    for name, tensor in own.items():
        _expect_like(stored[name], tensor, f"{place}: {name}")


def _expect_like(stored: Any, own: Tensor, place: str) -> Tensor:
    """A stored value, which is to be a tensor of the same shape and kind, of finite numbers."""
    if not isinstance(stored, Tensor) or not is_plain(stored):
        raise InputError(f"{place}={shown(stored)}: expected an ordinary tensor")
    if (stored.shape, stored.dtype) != (own.shape, own.dtype):
        raise InputError(f"{place}={shown(stored)}: expected {shown(own)}")
    if not stored.isfinite().all():
        raise InputError(f"{place}: expected finite numbers")
    return stored


def _optimizer_state(trainer: Trainer, stored: Mapping[str, Any], place: str) -> dict[str, Any]:
    """What the optimizer remembers, and its learning rates; all else is as the settings say."""
    state = trainer.optimizer.state_dict()
    groups, memory = (_entry(stored, name, kind, place) for name, kind in STATE_DICT)
    if len(groups) != len(state["param_groups"]):
        raise InputError(f"{place}: {len(groups)} groups: expected {len(state['param_groups'])}")
    for number, (group, own) in enumerate(zip(groups, state["param_groups"], strict=True)):
        where = f"{place}: param_groups[{number}]"
        if not isinstance(group, dict) or group.get("params") != own["params"]:
            raise InputError(f"{where}: expected the parameters {shown(own['params'])}")
        for name in ("lr", "initial_lr"):
            own[name] = _number(group, name, where)
    parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    names = MEMORY[trainer.settings.optimizer]
    for number, parameter in enumerate(parameters):
        if number in memory:  # else no loss depends on it
            where = f"{place}: state[{number}]"
            state["state"][number] = _memory(memory[number], parameter, names, where)
    return state


def _memory(
    stored: Any, parameter: Tensor, names: tuple[str, ...], place: str
) -> dict[str, Tensor | None]:
    """What the optimizer remembers of one parameter, laid out in memory as the parameter is."""
    if not isinstance(stored, dict):
        raise InputError(f"{place}={shown(stored)}: expected a dict")
    loaded: dict[str, Tensor | None] = {}
    if "exp_avg" in names:
        loaded["step"] = _expect_like(stored.get("step"), torch.zeros(()), f"{place}.step")
    for name in names:
        value = stored.get(name)
        if value is None and name == "momentum_buffer":
            loaded[name] = None
            continue
        same = _expect_like(value, parameter, f"{place}.{name}")
        loaded[name] = torch.empty_like(parameter, device="cpu").copy_(same)
    return loaded


def _schedule_state(trainer: Trainer, stored: Mapping[str, Any], place: str) -> dict[str, Any]:
    """How far the learning rate has come; all else is as the settings say."""
    state = trainer.schedule.state_dict()
    for name in ("last_epoch", "_step_count"):
        state[name] = _steps(stored, name, place)
    for name in ("base_lrs", "_last_lr"):
        rates = _entry(stored, name, list, place)
        if len(rates) != len(state[name]):
            raise InputError(f"{place}: {name}: expected {len(state[name])} learning rates")
        by_place = {f"{name}[{number}]": rate for number, rate in enumerate(rates)}
        state[name] = [_number(by_place, entry, place) for entry in by_place]
    return state


def _scaler_state(trainer: Trainer, stored: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The scale of fp16's loss, and how long it has been good; all else is as torch has it."""
    state = trainer.scaler.state_dict()
    if not stored or not state:  # fp16 was used before alone, or is from now on
        return state
    state["scale"] = _number(stored, "scale", place)
    if not state["scale"]:
        raise InputError(f"{place}: scale=0: expected more")
    state["_growth_tracker"] = _steps(stored, "_growth_tracker", place)
    return state


def _entry(stored: Mapping[str, Any], name: str, kind: type, place: str) -> Any:
    if not isinstance(stored.get(name), kind):
        raise InputError(f"{place}: expected {name!r} to be a {kind.__name__}")
    return stored[name]


def _steps(stored: Mapping[str, Any], name: str, place: str) -> int:
    value = _number(stored, name, place)
    if not value.is_integer() or value > 2**53:
        raise InputError(f"{place}: {name}={value:g}: expected a number of steps")
    return int(value)


def _number(stored: Mapping[str, Any], name: str, place: str) -> float:
    """A finite number that is not negative."""
    value = stored.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{place}: {name}={shown(value)}: expected a number")
    if not 0 <= value <= 2**63 or not math.isfinite(value):
        raise InputError(f"{place}: {name}={shown(value)}: expected a finite number from 0 on")
    return float(value)
