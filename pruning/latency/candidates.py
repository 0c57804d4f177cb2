"""Ways to cut a network to a time: which strategy, and how it weighs the channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from models.darknet import Darknet
from pruning.importance import Scores
from pruning.latency.search import (
    FAR,
    Goal,
    Problem,
    Timing,
    approach,
    by_prediction,
    expect_cuttable,
    learn_clock,
    prune_share_to,
    prune_to,
)
from pruning.latency.table import Timer
from pruning.strategies import STRATEGIES, Target
from pruning.surgeon import Plan
from utils.errors import InputError

# How the programme weighs channels of different layers, see `pruning.latency.search.Problem.values`.
SUMMED = {"shares of layers": False, "plain sums": True}
OTHERS = ("slim", "layer_channel")  # strategies that know no times; the last one needs blocks
Cut = tuple[Plan, Timing]


@dataclass(frozen=True)
class CutsToTime:
    """Cuts of a network that take a time on an engine.

    size: (width, height) of the input in pixels. target: its `layer_keep`, `round_to` and
    `percent_blocks` hold. rounds: in which a cut network and the whole one take turns to be timed.
    """

    model: Darknet
    size: tuple[int, int]
    scores: Scores
    target: Target
    goal: Goal
    engine: Timer
    rounds: int

    def by_share(self, strategy: str) -> Cut:
        """By a strategy that knows shares only: the share that takes the time."""
        step = self.target.round_to
        plan_of = partial(self._plan, strategy, step)
        return prune_share_to(
            self.model, plan_of, self.goal, self.engine.open, self.size, self.rounds
        )

    def every_way(self, table: Path) -> dict[str, Cut]:
        """By each way that there is. table: the file of the costs, read and added to.

        Raises InputError where the network has nothing to cut, or no cut takes the time.
        """
        model, step, engine = self.model, self.target.round_to, self.engine
        layout = expect_cuttable(model.netdef)  # before anything is timed
        clock = learn_clock(model, self.size, table, engine.about, engine.open, print, step)
        how = (self.goal, engine.open, self.size, self.rounds)
        found: dict[str, Cut] = {}
        for name, summed in SUMMED.items():
            problem = Problem.of(
                model.netdef, self.scores, clock, self.target.layer_keep, step, summed=summed
            )
            found[name] = prune_to(model, problem, *how)
        others = OTHERS if layout.outer else OTHERS[:1]
        for name in others if layout.any_free else ():
            plan_of = partial(self._plan, name, step or clock.table.step)
            try:
                found[name] = approach(model, by_prediction(layout, clock, plan_of), *how)
            except InputError as error:  # it has nothing to judge by, say
                print(f"not tried: {name}: {error}")
        return found

    def _plan(self, strategy: str, step: int, share: float) -> Plan:
        wanted = replace(self.target, percent=share, percent_of="operations", round_to=step)
        return STRATEGIES[strategy](self.model.netdef, self.scores, wanted)


def least_loss(found: Mapping[str, Cut], judge: Callable[[Plan], float]) -> Cut:
    """The cut whose network `judge` finds to lose least, of those that take the time; where none
    does, the one nearest to it."""
    losses = {name: judge(plan) for name, (plan, _) in found.items()}
    missed = {name: max(FAR, timing.missed) for name, (_, timing) in found.items()}
    best = min(found, key=lambda name: (missed[name], losses[name]))
    told = ", ".join(
        f"{name} {loss:.4f}" + (" (off the time)" if missed[name] > FAR else "")
        for name, loss in losses.items()
    )
    print(f"loss on training photos of ways to that time: {told}: {best} taken")
    return found[best]
