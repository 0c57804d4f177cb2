"""Which of several ways to a time is taken? Cuts by each of them, and the one that loses least."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from import_param import Pruning
from pruning.importance import Importance
from pruning.latency.options import DEFAULTS, SearchOptions
from pruning.latency.predictor import fit_predictor
from pruning.latency.search import LatencyResult, LatencySearch, PruningProblem, plan_by_prediction
from pruning.latency.search_space import expect_search_space
from pruning.strategies import strategy_named
from pruning.surgeon import Plan
from utils.console.progress import say, track
from utils.errors import InputError

# By name, whether the solver sums importance as it is, see `PruningProblem.importance`.
SUMMED = {"shares of layers": False, "plain sums": True}
CHANNEL_STRATEGY, BLOCK_STRATEGY = "slim", "layer_channel"  # they know no times
Candidate = tuple[Plan, LatencyResult]


@dataclass(frozen=True)
class LatencyCandidates:
    """Cuts of one network to one time.

    Attributes:
        search: the network, the time and the engine.
        importance: of the network's channels.
        target: its `layer_keep`, `round_to` and `percent_blocks` hold.
    """

    search: LatencySearch
    importance: Importance
    target: Pruning

    def by_share(self, strategy: str) -> Candidate:
        """By a strategy that knows shares only: the share that takes the time."""
        return self.search.bisect_share(self._plan_for(strategy, self.target.round_to))

    def all(self, table: Path) -> dict[str, Candidate]:
        """By the name of each way that there is.

        Args:
            table: the file of the latency table, read and added to.

        Raises:
            InputError: the network has nothing to cut, or no cut takes the time.
        """
        search, round_to = self.search, self.target.round_to
        netdef = search.model.netdef
        space = expect_search_space(netdef)  # before anything is timed
        predictor = fit_predictor(
            search.model,
            search.size,
            search.meter,
            table,
            round_to=round_to,
            options=search.options,
        )
        candidates: dict[str, Candidate] = {}
        for name, summed in SUMMED.items():
            problem = PruningProblem.of(
                netdef, self.importance, predictor, self.target, summed=summed
            )
            candidates[name] = search.prune(problem)
        if not space.can_cut_channels:
            return candidates
        for name in (CHANNEL_STRATEGY, *([BLOCK_STRATEGY] if space.outer_blocks else [])):
            plan_for = self._plan_for(name, round_to or predictor.table.channel_step)
            planned = plan_by_prediction(space, predictor, plan_for, search.options)
            try:
                candidates[name] = search.correct_budget(planned)
            except InputError as error:  # for one, all channels may be equally important
                say(f"not tried: {name}: {error}")
        return candidates

    def _plan_for(self, strategy: str, round_to: int) -> Callable[[float], Plan]:
        """From the share of the operations to cut to the strategy's plan."""

        def plan_for(share: float) -> Plan:
            target = replace(self.target, percent=share, percent_of="operations", round_to=round_to)
            return strategy_named(strategy)(self.search.model.netdef, self.importance, target)

        return plan_for


def choose_candidate(
    candidates: Mapping[str, Candidate],
    loss_of: Callable[[Plan], float],
    options: SearchOptions = DEFAULTS,
) -> Candidate:
    """The cut that loses least of those that take the time; where none does, the nearest one.

    Args:
        candidates: by name.
        loss_of: the loss of the network that a plan leaves; one that is no number is worse than any
            other.
        options: how near is near enough.

    Raises:
        InputError: no cut has a loss that is a finite number.
    """
    losses = {
        name: loss_of(plan) for name, (plan, _) in track(candidates.items(), "comparing the cuts")
    }
    finite = [name for name, loss in losses.items() if math.isfinite(loss)]
    if not finite:
        raise InputError("no cut to that time has a loss on training photos that is finite")
    near = options.reported_miss
    missed = {name: max(near, result.missed) for name, (_, result) in candidates.items()}
    best = min(finite, key=lambda name: (missed[name], losses[name]))
    told = ", ".join(
        f"{name} {loss:.4f}" + (" (off the time)" if missed[name] > near else "")
        for name, loss in losses.items()
    )
    say(f"loss on training photos of ways to that time: {told}: {best} taken")
    return candidates[best]
