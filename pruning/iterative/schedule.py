"""When is a network cut that is still training, by how much, and how does its training go on?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from import_param import Share, Whole
from models import netdef as cfg_files
from models.darknet import Darknet
from models.netdef import NetDef
from pruning.iterative.state import PruningState
from pruning.iterative.targets import PruningTarget
from pruning.residual_blocks import residual_blocks
from pruning.surgeon import Plan, carry_optimizer_, cut, cut_netdef, transfer
from utils.checkpoint.tensor_files import PlainTensor
from utils.errors import InputError
from utils.settings.schema import structured
from utils.training.loop import Trainer


@dataclass(frozen=True)
class ScheduleOptions:
    """When a network is cut for which no epochs are given."""

    steady: float = 0.01  # less than this share of the channels dying in an epoch is hardly any
    least_dead: float = 0.05  # the share of dead channels that is worth a cut
    last_cut: float = 2 / 3  # of the training, after which the rest goes; then it is fine-tuned


OPTIONS = ScheduleOptions()


def last_cut(epochs: int, cut_epochs: Sequence[int] = ()) -> int:
    """The epochs of a training after which nothing is cut any more."""
    return cut_epochs[-1] if cut_epochs else min(math.ceil(OPTIONS.last_cut * epochs), epochs - 1)


def check_cut_epochs(cut_epochs: Sequence[int], epochs: int) -> None:
    """Check the epochs to cut after.

    Raises:
        InputError: they are out of order or past the training, or it has no epoch to go on in.
    """
    if epochs < 2:
        raise InputError(f"epochs={epochs}: expected 2 or more, to cut after one and train on")
    if list(cut_epochs) != sorted(set(cut_epochs)) or (cut_epochs and cut_epochs[-1] >= epochs):
        raise InputError(f"cut_epochs={cut_epochs}: expected rising numbers below {epochs}")


@dataclass
class CutSchedule:
    """Cuts on the way to a target, as Network Slimming's passes but in one training.

    After each of `cut_epochs`, an equal share of what is to go is cut. Without them, the dead go
    once they suffice for the target, or once hardly any die any more; and after two thirds of the
    training whatever the target still asks for.

    Attributes:
        target: what the network is to come to.
        epochs: of the whole training.
        cut_epochs: epochs to cut after; none for whenever it is time.
        state: the cuts so far.
        dead: the share of channels that were dead an epoch ago.
        reached: whether nothing more is to be cut.
    """

    target: PruningTarget[Any]
    epochs: int
    cut_epochs: tuple[int, ...]
    state: PruningState
    dead: float = 0.0
    reached: bool = False

    def plan(self, epoch: int, model: Darknet, dead: float) -> Plan | None:
        """What to cut of `model` now that `epoch` epochs are done, or None for nothing yet.

        Args:
            epoch: epochs done.
            model: as it is now.
            dead: the share of its sets of channels whose scales are near zero.
        """
        newly_dead, self.dead = dead - self.dead, dead
        step = None if self.reached else self._next_step(epoch, model, dead, newly_dead)
        if step is None:
            return None
        self.state, plan, self.reached = self.target.cut(self.state, model, step)
        self.dead = 0.0
        return plan

    def _next_step(self, epoch: int, model: Darknet, dead: float, newly_dead: float) -> Any:
        """The next step to the target, or None."""
        if self.cut_epochs:
            if epoch not in self.cut_epochs:
                return None
            return self.target.at((self.cut_epochs.index(epoch) + 1) / len(self.cut_epochs))
        if epoch >= last_cut(self.epochs):
            return self.target.at(1.0)
        steady = newly_dead < OPTIONS.steady and dead >= OPTIONS.least_dead
        return self.target.without_dead(self.state, model, dead, steady)

    def describe(self) -> str:
        """How far the cuts have come, in words."""
        return self.target.describe(self.state, self.reached)

    def as_state(self) -> dict[str, Any]:
        """What a checkpoint needs beside the settings: plain values and tensors."""
        return {
            "original_cfg": self.state.original.text(),
            "keep": torch.from_numpy(self.state.plan.keep.copy()),
            "blocks": list(self.state.plan.blocks),
            "dead": self.dead,
            "reached": self.reached,
            "target": self.target.as_state(),
        }

    def load_state_(self, state: Mapping[str, Any]) -> None:
        """Go on from `as_state`; what belongs to the target is its own to load."""
        original = cfg_files.parse(state["original_cfg"])
        self.state = PruningState(Plan(original, state["keep"].numpy(), tuple(state["blocks"])))
        self.dead, self.reached = state["dead"], state["reached"]


@dataclass(frozen=True, eq=False)
class _StoredCuts:
    """What `CutSchedule.as_state` is to hold."""

    original_cfg: str
    keep: PlainTensor
    blocks: tuple[Whole, ...]
    dead: Share
    reached: bool
    target: dict[str, Any]


def read_state(stored: Mapping[str, Any] | None, present: NetDef, place: str) -> dict[str, Any]:
    """The state of iterative pruning in a checkpoint, which before 0.2.0 had other keys.

    Args:
        stored: what the checkpoint has of it.
        present: the checkpoint's network, which the cuts so far have come to.
        place: of the checkpoint, for messages.

    Raises:
        InputError: it is of no such pruning, or of that of another network.
    """
    if stored is None:
        raise InputError(f"{place}: expected the state of pruning while training")
    state = _with_new_keys(stored)
    cuts = structured(_StoredCuts, state, place)
    original = cfg_files.parse(cuts.original_cfg, f"{place}.original_cfg")
    blocks = {block.shortcut for block in residual_blocks(original)}
    is_mask = cuts.keep.dtype == torch.bool and cuts.keep.ndim == 1
    try:
        if not is_mask or not blocks >= set(cuts.blocks):
            raise ValueError("expected a mask of channels, and blocks that may go")
        left = cut_netdef(Plan(original, cuts.keep.numpy(), cuts.blocks))
    except ValueError as error:
        raise InputError(f"{place}: {error}") from None
    if _widths(left) != _widths(present):
        raise InputError(f"{place}: expected the cuts that make the checkpoint's network")
    return state


def _widths(netdef: NetDef) -> list[str | None]:
    """Of convolutions and shortcuts, which cuts take or keep."""
    kinds = ("convolutional", "shortcut")
    return [layer.options.get("filters") for layer in netdef.layers if layer.kind in kinds]


def _with_new_keys(old: Mapping[str, Any]) -> dict[str, Any]:
    state = {OLD_KEYS.get(key, key): value for key, value in old.items()}
    if isinstance(state.get("target"), Mapping):
        state["target"] = {OLD_KEYS.get(key, key): v for key, v in state["target"].items()}
    return state


OLD_KEYS = {
    "cfg": "original_cfg",
    "met": "reached",
    "aim": "target",
    "about": "conditions",
    "calibration": "coefficients",
    "timings": "results",
}


def cut_trainer(trainer: Trainer, plan: Plan, make: Callable[[Darknet], Trainer]) -> Trainer:
    """The training of the cut network: every state of the old one goes on for what is left.

    Args:
        trainer: of the network before the cut.
        plan: the cut.
        make: a new trainer for a network, with the optimizer's groups in the same order.
    """
    mover = transfer(plan)
    new = make(cut(trainer.model, plan))
    new.averaged.load_state_dict(cut(trainer.averaged, plan).state_dict())
    new.mean.n_averaged.copy_(trainer.mean.n_averaged)
    carry_optimizer_(new.optimizer, new.model, trainer.optimizer, trainer.model, mover)
    new.schedule.load_state_dict(trainer.schedule.state_dict())
    if trainer.scaler.is_enabled():
        new.scaler.load_state_dict(trainer.scaler.state_dict())
    return new
