"""When is a network cut that is still training, by how much, and how does its training go on?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from models import netdef as cfg_files
from models.darknet import Darknet
from models.netdef import NetDef
from pruning.channels import Bools, find_channels
from pruning.residual import without_blocks
from pruning.scores import Scores, gamma
from pruning.strategies import LATENCY, STRATEGIES, Target, shares
from pruning.surgeon import Plan, carry_optimizer_, cut, transfer
from utils.engine import Trainer
from utils.errors import InputError

FLAT = 0.01  # the pull has flattened when fewer channels than this share die in an epoch
WORTH = 0.05  # the least share of dead channels that is worth a cut
MOST = 0.999  # a share to cut is below 1, even if all are dead
LAST = 2 / 3  # of the training, after which the target is met in any case: the rest is fine-tuning


def last_cut(epochs: int, cut_epochs: Sequence[int] = ()) -> int:
    """The epochs of a training after which nothing is cut any more."""
    return cut_epochs[-1] if cut_epochs else math.ceil(LAST * epochs)


@dataclass(frozen=True, eq=False)
class Gone:
    """What a network has lost so far.

    whole: its definition before the first cut. plan: all cuts so far, as one of the whole.
    """

    whole: NetDef
    plan: Plan

    def share(self, strategy: str, measure: str) -> float:
        """The share that is gone of what `percent_of` measures, counted as `percent` is."""
        found = shares(self.whole, self.plan, strategy)
        if strategy == "layer" and measure == "channels":
            return found.blocks
        return float(getattr(found, measure))

    def more(
        self, present: NetDef, scores: Scores, strategy: str, target: Target
    ) -> tuple[Gone, Plan]:
        """Cut on, until `target` of the whole is met: what is gone then, and the plan for the
        network as it is now, `present`, whose scores are given.

        The strategy plans for the whole network, in which whatever is gone is worth least: so
        `layer_keep` and `percent` mean shares of the whole, however often it is cut.
        """
        moved = self._places(present)
        plan = STRATEGIES[strategy](self.whole, self._of_whole(scores, moved), target)
        blocks = tuple(sorted({*self.plan.blocks, *plan.blocks}))
        total = Plan(self.plan.keep & plan.keep, blocks)
        return Gone(self.whole, total), self._of_present(present, total, moved)

    def _places(self, present: NetDef) -> dict[int, int]:
        """Where the convolutions and shortcuts of the whole network are now: in the same order."""
        kinds = ("convolutional", "shortcut")
        left = without_blocks(self.whole, self.plan.blocks)[1]
        old = [n for n in sorted(left) if self.whole.layers[n].kind in kinds]
        new = [n for n, section in enumerate(present.layers) if section.kind in kinds]
        return dict(zip(old, new, strict=True))

    def _of_whole(self, scores: Scores, moved: Mapping[int, int]) -> Scores:
        """Scores by the channels of the whole network; those that are gone have -1."""
        kept = find_channels(self.whole).kept(self.plan.keep)
        found = {}
        for layer, section in enumerate(self.whole.layers):
            if section.kind == "convolutional" and section.flag("batch_normalize"):
                found[layer] = np.full(len(kept[layer]), -1.0)
                if layer in moved:
                    found[layer][kept[layer]] = scores[moved[layer]]
        return found

    def _of_present(self, present: NetDef, plan: Plan, moved: Mapping[int, int]) -> Plan:
        """A plan of the whole network as one of the network as it is now."""
        before, after = find_channels(self.whole), find_channels(present)
        kept = before.kept(self.plan.keep)
        keep: Bools = np.ones(after.count, bool)
        for layer, now in moved.items():
            units = before.outputs[layer][kept[layer]]
            keep[after.outputs[now]] = plan.keep[units]
        # A block inside one that went before is gone with it.
        new = [moved[n] for n in plan.blocks if n in moved and n not in self.plan.blocks]
        return Plan(keep, tuple(sorted(new)))


@dataclass
class Gradual:
    """Cuts on the way to a target, as Network Slimming's passes but in one training.

    After each of `cut_epochs`, an equal share of the target goes. Without them, the dead go once
    they suffice for the target, or once hardly any die any more; and after two thirds of the
    training whatever the target still asks for.

    epochs: of the whole training. dead: the share of sets that were dead an epoch ago.
    """

    strategy: str
    target: Target
    epochs: int
    cut_epochs: tuple[int, ...]
    gone: Gone
    dead: float = 0.0
    met: bool = False

    @staticmethod
    def start(
        netdef: NetDef, strategy: str, target: Target, epochs: int, cut_epochs: tuple[int, ...]
    ) -> Gradual:
        """Raises InputError for epochs to cut after that are out of order or past the training, and
        for a strategy that needs a clock."""
        if strategy == LATENCY:
            raise InputError(
                "pruned_id='latency': expected another one to prune while training, which counts "
                "shares; train sparsely, and cut to a latency with latency_prune.py"
            )
        if list(cut_epochs) != sorted(set(cut_epochs)) or (cut_epochs and cut_epochs[-1] >= epochs):
            raise InputError(f"cut_epochs={cut_epochs}: expected rising numbers below {epochs}")
        nothing = Plan(np.ones(find_channels(netdef).count, bool))
        return Gradual(strategy, target, epochs, cut_epochs, Gone(netdef, nothing))

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs beside the settings: plain values and tensors."""
        return {
            "cfg": self.gone.whole.text(),
            "keep": torch.from_numpy(self.gone.plan.keep.copy()),
            "blocks": list(self.gone.plan.blocks),
            "dead": self.dead,
            "met": self.met,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        plan = Plan(state["keep"].numpy(), tuple(state["blocks"]))
        self.gone = Gone(cfg_files.parse(state["cfg"]), plan)
        self.dead, self.met = state["dead"], state["met"]

    def plan(self, epoch: int, model: Darknet, dead: float) -> Plan | None:
        """What to cut of `model` now that `epoch` epochs are done, or None for nothing yet.

        dead: the share of the model's sets of channels whose scales are near zero.
        """
        grown, self.dead = dead - self.dead, dead
        target = None if self.met else self._next(epoch, dead, grown)
        if target is None:
            return None
        scores = gamma(model)
        gone, plan = self.gone.more(model.netdef, scores, self.strategy, target)
        last = self.gone.more(model.netdef, scores, self.strategy, self.target)
        reached = gone.share(self.strategy, self.target.percent_of) >= self.target.percent - 1e-6
        self.met = target == self.target or reached or gone.plan.equals(last[0].plan)
        if self.met:  # or as nearly as may be: the rest would cut no more
            gone, plan = last
        self.gone, self.dead = gone, 0.0
        return plan

    def _next(self, epoch: int, dead: float, grown: float) -> Target | None:
        if self.cut_epochs:
            if epoch not in self.cut_epochs:
                return None
            share = (self.cut_epochs.index(epoch) + 1) / len(self.cut_epochs)
            return self._part(share * self.target.percent, self.target.percent_of)
        if epoch >= last_cut(self.epochs):
            return self.target
        channels = self.gone.share(self.strategy, "channels")
        goal = min(channels + dead * (1 - channels), MOST)
        enough = self.target.percent_of == "channels" and goal >= self.target.percent
        flat = grown < FLAT and dead >= WORTH
        return self._part(goal, "channels") if enough or flat else None

    def _part(self, percent: float, measure: str) -> Target:
        """A target on the way. Residual blocks go with the last cut."""
        if percent >= self.target.percent - 1e-9 and measure == self.target.percent_of:
            return self.target
        return replace(self.target, percent=percent, percent_of=measure, blocks=0.0)


def cut_trainer(trainer: Trainer, plan: Plan, make: Callable[[Darknet], Trainer]) -> Trainer:
    """The training of the cut network: every state of the old one goes on for what is left.

    make: a new trainer for a network, with the optimizer's groups in the same order.
    """
    mover = transfer(trainer.model.netdef, plan)
    new = make(cut(trainer.model, plan))
    new.averaged.load_state_dict(cut(trainer.averaged, plan).state_dict())
    new.mean.n_averaged.copy_(trainer.mean.n_averaged)
    carry_optimizer_(new.optimizer, new.model, trainer.optimizer, trainer.model, mover)
    new.schedule.load_state_dict(trainer.schedule.state_dict())
    return new
