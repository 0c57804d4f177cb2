"""When is a network cut that is still training, by how much, and how does its training go on?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from models import netdef as cfg_files
from models.darknet import Darknet
from pruning.iterative.targets import Aim, Gone
from pruning.surgeon import Plan, carry_optimizer_, cut, transfer
from utils.errors import InputError
from utils.training.loop import Trainer

FLAT = 0.01  # the pull has flattened when fewer channels than this share die in an epoch
WORTH = 0.05  # the least share of dead channels that is worth a cut
LAST = 2 / 3  # of the training, after which the aim is met in any case: the rest is fine-tuning


def last_cut(epochs: int, cut_epochs: Sequence[int] = ()) -> int:
    """The epochs of a training after which nothing is cut any more."""
    return cut_epochs[-1] if cut_epochs else min(math.ceil(LAST * epochs), epochs - 1)


def check_cut_epochs(cut_epochs: Sequence[int], epochs: int) -> None:
    """Raises InputError for epochs to cut after that are out of order or past the training, and for
    a training that has none to go on in."""
    if epochs < 2:
        raise InputError(f"epochs={epochs}: expected 2 or more, to cut after one and train on")
    if list(cut_epochs) != sorted(set(cut_epochs)) or (cut_epochs and cut_epochs[-1] >= epochs):
        raise InputError(f"cut_epochs={cut_epochs}: expected rising numbers below {epochs}")


@dataclass
class Gradual:
    """Cuts on the way to an aim, as Network Slimming's passes but in one training.

    After each of `cut_epochs`, an equal share of what is to go is cut. Without them, the dead go
    once they suffice for the aim, or once hardly any die any more; and after two thirds of the
    training whatever the aim still asks for.

    epochs: of the whole training. dead: the share of sets that were dead an epoch ago.
    """

    aim: Aim[Any]
    epochs: int
    cut_epochs: tuple[int, ...]
    gone: Gone
    dead: float = 0.0
    met: bool = False

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs beside the settings: plain values and tensors."""
        return {
            "cfg": self.gone.whole.text(),
            "keep": torch.from_numpy(self.gone.plan.keep.copy()),
            "blocks": list(self.gone.plan.blocks),
            "dead": self.dead,
            "met": self.met,
            "aim": self.aim.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; what belongs to the aim is its own to load."""
        whole = cfg_files.parse(state["cfg"])
        plan = Plan(whole, state["keep"].numpy(), tuple(state["blocks"]))
        self.gone = Gone(whole, plan)
        self.dead, self.met = state["dead"], state["met"]

    def plan(self, epoch: int, model: Darknet, dead: float) -> Plan | None:
        """What to cut of `model` now that `epoch` epochs are done, or None for nothing yet.

        dead: the share of the model's sets of channels whose scales are near zero.
        """
        grown, self.dead = dead - self.dead, dead
        step = None if self.met else self._next(epoch, model, dead, grown)
        if step is None:
            return None
        self.gone, plan, self.met = self.aim.cut(self.gone, model, step)
        self.dead = 0.0
        return plan

    def _next(self, epoch: int, model: Darknet, dead: float, grown: float) -> Any:
        """The next step of the aim, or None."""
        if self.cut_epochs:
            if epoch not in self.cut_epochs:
                return None
            return self.aim.part((self.cut_epochs.index(epoch) + 1) / len(self.cut_epochs))
        if epoch >= last_cut(self.epochs):
            return self.aim.part(1.0)
        flat = grown < FLAT and dead >= WORTH
        return self.aim.without_dead(self.gone, model, dead, flat)


def cut_trainer(trainer: Trainer, plan: Plan, make: Callable[[Darknet], Trainer]) -> Trainer:
    """The training of the cut network: every state of the old one goes on for what is left.

    make: a new trainer for a network, with the optimizer's groups in the same order.
    """
    mover = transfer(plan)
    new = make(cut(trainer.model, plan))
    new.averaged.load_state_dict(cut(trainer.averaged, plan).state_dict())
    new.mean.n_averaged.copy_(trainer.mean.n_averaged)
    carry_optimizer_(new.optimizer, new.model, trainer.optimizer, trainer.model, mover)
    new.schedule.load_state_dict(trainer.schedule.state_dict())
    return new
