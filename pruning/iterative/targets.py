"""What is a network to come to by several cuts: a share of it gone, or a latency budget?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

from annotated_types import Len

from import_param import Pruning
from models.darknet import Darknet
from models.netdef import NetDef
from pruning.channels import channel_groups
from pruning.importance import Importance, gamma
from pruning.iterative.state import PruningState
from pruning.latency.meter import LatencyMeter
from pruning.latency.options import SearchOptions
from pruning.latency.predictor import UNFITTED, Coefficients, LatencyPredictor, fit_predictor
from pruning.latency.search import (
    LatencyResult,
    LatencySearch,
    LatencyTarget,
    PruningProblem,
    too_fast,
)
from pruning.latency.search_space import find_search_space
from pruning.residual_blocks import without_blocks
from pruning.sparsity import DEAD
from pruning.strategies import strategy_named
from pruning.surgeon import Plan, cut
from pruning.targets import Measure, cut_shares, deviation_note, target_measure
from utils.errors import InputError
from utils.settings.schema import shown, structured
from utils.timing import ms_in_words

TIMING = SearchOptions(timing_rounds=20)  # rounds in which it is timed beside the original one
MAX_SHARE = 0.999  # a share to cut is below 1, even if all channels are dead
LEAST_SAVING = 0.05  # of its time that a network must save without its dead channels for a cut

Step = TypeVar("Step")


class PruningTarget(Protocol[Step]):
    """What a network is to come to by several cuts. A step is a target on the way there."""

    def at(self, progress: float) -> Step:
        """The step at so much of the way, 0 to 1, along which equal shares are cut."""
        ...

    def without_dead(
        self, state: PruningState, model: Darknet, dead: float, steady: bool
    ) -> Step | None:
        """The step that the dead channels allow.

        Args:
            state: the cuts so far.
            model: as it is now.
            dead: the share of its sets of channels whose scales are near zero.
            steady: whether hardly any more die, so that they are worth a cut of their own.

        Returns:
            The target itself where they suffice for it; None where nothing is to be cut yet.
        """
        ...

    def cut(
        self, state: PruningState, model: Darknet, step: Step
    ) -> tuple[PruningState, Plan, bool]:
        """The state after a step, the plan for the model, and whether the target is reached."""
        ...

    def describe(self, state: PruningState, reached: bool) -> str:
        """How far the cuts have come, in words; reached: and come no further."""
        ...

    def as_state(self) -> dict[str, Any]:
        """What a checkpoint needs of it: plain values."""
        ...

    def latencies(self, model: Darknet) -> str:
        """What the cuts and the network at the end were timed at; empty where none was."""
        ...


@dataclass(frozen=True)
class ShareTarget:
    """A share of the network is to go, cut by a strategy of `STRATEGIES`."""

    target: Pruning

    def at(self, progress: float) -> Pruning:
        """See `PruningTarget`."""
        return self._step(progress * self.target.percent, self.target.percent_of)

    def without_dead(
        self, state: PruningState, model: Darknet, dead: float, steady: bool
    ) -> Pruning | None:
        """See `PruningTarget`."""
        channels = state.share(self.target.strategy, "channels")
        share = min(channels + dead * (1 - channels), MAX_SHARE)
        enough = self.target.percent_of == "channels" and share >= self.target.percent
        return self._step(share, "channels") if enough or steady else None

    def cut(
        self, state: PruningState, model: Darknet, step: Pruning
    ) -> tuple[PruningState, Plan, bool]:
        """See `PruningTarget`."""

        def cut_to(target: Pruning) -> tuple[PruningState, Plan]:
            strategy = strategy_named(target.strategy)
            return state.cut_further(
                model.netdef, gamma(model), lambda net, scales: strategy(net, scales, target)
            )

        last = cut_to(self.target)
        now = cut_to(self._beside_blocks(step, last[0]))
        share = now[0].share(self.target.strategy, self.target.percent_of)
        reached = share >= self.target.percent - 1e-6
        if step == self.target or reached or now[0].plan.equals(last[0].plan):
            return *last, True  # or as nearly as may be: the rest would cut no more
        return *now, False

    def describe(self, state: PruningState, reached: bool) -> str:
        """See `PruningTarget`."""
        strategy = self.target.strategy
        shares = cut_shares(state.plan, strategy)
        measure = target_measure(strategy, self.target.percent_of)
        note = deviation_note(strategy, self.target, shares) if reached else ""
        return f"{shares.of(measure):.1%} of the {measure} are gone" + (
            f" ({note})" if note else ""
        )

    def as_state(self) -> dict[str, Any]:
        """Nothing beside the settings."""
        return {}

    def latencies(self, model: Darknet) -> str:
        """None: a share is not timed."""
        return ""

    def _beside_blocks(self, step: Pruning, last: PruningState) -> Pruning:
        """A step that takes no more channels than go beside the blocks that the last cut takes.

        What is cut does not come back.
        """
        if step == self.target or step.strategy == "layer":
            return step
        beside = PruningState(replace(last.plan, blocks=()))
        most = beside.share(step.strategy, step.percent_of)
        return replace(step, percent=min(step.percent, most))

    def _step(self, percent: float, measure: Measure) -> Pruning:
        """A target on the way. Residual blocks go with the last cut."""
        if percent >= self.target.percent - 1e-9 and measure == self.target.percent_of:
            return self.target
        return replace(self.target, percent=percent, percent_of=measure, percent_blocks=0.0)


@dataclass(frozen=True)
class BudgetTarget:
    """The network is to take a latency budget on an engine, cut as `pruning.latency` does.

    Each cut is timed beside the original network, so twice as fast stays twice as fast as the
    original, whatever else the machine does meanwhile.

    Attributes:
        budget: milliseconds an image, or how many times faster.
        settings: their `layer_keep` and `round_to` hold.
        original: the network before all cuts, with any weights: these do not change a latency.
        meter: what networks are timed with.
        predictor: of the latencies of cuts.
        results: of the cuts so far.
    """

    budget: LatencyTarget
    settings: Pruning
    original: Darknet
    meter: LatencyMeter
    predictor: LatencyPredictor
    results: list[LatencyResult] = field(default_factory=list)

    @staticmethod
    def fitted(
        netdef: NetDef,
        settings: Pruning,
        meter: LatencyMeter,
        tell: Callable[[str], None],
        state: Mapping[str, Any] | None = None,
    ) -> BudgetTarget:
        """Measure layers and fit the predictor, as `fit_predictor` does.

        Args:
            netdef: of the original network.
            settings: the budget, and the file of the latency table.
            meter: what networks are timed with.
            tell: prints a line.
            state: of a checkpoint, so that nothing is measured again on the same machine.

        Raises:
            InputError: without a state, where the network takes no more than the budget or cannot
                take so little.
        """
        budget = LatencyTarget(settings.target_ms, settings.target_speedup)
        stored = _StoredTimes.read(state) if state else None
        conditions, coefficients = meter.conditions.as_text(), None
        original = Darknet(netdef).eval()
        if not stored:
            _expect_slower(original, budget, meter)
        elif stored.conditions == conditions:
            coefficients = Coefficients.of(stored.coefficients)
        else:
            tell(f"note: cuts were timed with {stored.conditions}; now they are with {conditions}")
        path = Path(settings.latency_table or meter.table_path)
        predictor = fit_predictor(
            original, netdef.size, meter, path, tell, settings.round_to, coefficients
        )
        results = list(stored.results) if stored else []
        target = BudgetTarget(budget, settings, original, meter, predictor, results)
        if not state:
            target._expect_possible()
        return target

    def at(self, progress: float) -> LatencyTarget:
        """See `PruningTarget`."""
        return self.budget.at(progress)

    def without_dead(
        self, state: PruningState, model: Darknet, dead: float, steady: bool
    ) -> LatencyTarget | None:
        """See `PruningTarget`."""
        importance = state.original_importance(model.netdef, gamma(model))
        problem = self._problem(state, importance)
        now, then = (
            problem.predict(configuration)
            for configuration in (problem.widest, problem.without_dead(importance, DEAD))
        )
        before = self._predicted_original
        end = self.budget.ms(before)
        if then <= end:
            return self.budget
        worth_it = steady and then <= (1 - LEAST_SAVING) * now
        return self.at((before - then) / (before - end)) if worth_it else None

    def cut(
        self, state: PruningState, model: Darknet, step: LatencyTarget
    ) -> tuple[PruningState, Plan, bool]:
        """See `PruningTarget`."""

        def plan(original: NetDef, importance: Importance) -> Plan:
            problem = self._problem(state, importance)
            search = LatencySearch(self.original, original.size, step, self.meter, TIMING)
            made, result = search.prune(problem, nearest=True)
            self.results.append(result)
            return made

        state, now = state.cut_further(model.netdef, gamma(model), plan)
        rest = channel_groups(without_blocks(state.original, state.plan.blocks)[0])
        nothing_left = all(group.kept_because for group in rest.groups)
        return state, now, step == self.budget or nothing_left

    def describe(self, state: PruningState, reached: bool) -> str:
        """See `PruningTarget`."""
        return self.results[-1].step()

    def as_state(self) -> dict[str, Any]:
        """See `PruningTarget`."""
        return {
            "conditions": self.meter.conditions.as_text(),
            "coefficients": self.predictor.coefficients.vector.tolist(),
            "results": [asdict(result) for result in self.results],
        }

    def measure(self, model: Darknet) -> LatencyResult:
        """What the last cut has come to, measured anew."""
        before, after = _times([self.original, model], self.meter)
        last = self.results[-1]
        return replace(last, before=before, asked=self.budget.ms(before), measured=after)

    def latencies(self, model: Darknet) -> str:
        """See `PruningTarget`."""
        cuts = [f"cut {n}: {result.step()}" for n, result in enumerate(self.results, 1)]
        return "\n".join([*cuts, f"at the end: {self.measure(model).outcome()}"])

    @cached_property
    def _predicted_original(self) -> float:
        """Milliseconds of the original network."""
        space = find_search_space(self.original.netdef)
        return self.predictor.network(space, space.uncut)

    def _problem(self, state: PruningState, importance: Importance) -> PruningProblem:
        original, before = state.original, state.plan
        return PruningProblem.of(original, importance, self.predictor, self.settings, before)

    def _expect_possible(self) -> None:
        problem = self._problem(PruningState.uncut(self.original.netdef), gamma(self.original))
        plan = problem.plan(problem.narrowest)
        before, least = _times([self.original, cut(self.original, plan)], self.meter)
        result = LatencyResult(before, self.budget.ms(before), None, least, 1)
        if result.slow:
            raise too_fast(plan, plan.netdef.size, result)


@dataclass(frozen=True)
class _StoredTimes:
    """What `BudgetTarget.as_state` is to hold."""

    conditions: dict[str, str]
    coefficients: Annotated[tuple[float, ...], Len(len(UNFITTED.vector), len(UNFITTED.vector))]
    results: tuple[LatencyResult, ...]

    @staticmethod
    def read(state: Mapping[str, Any]) -> _StoredTimes:
        """Of a checkpoint."""
        place = "the checkpoint's latencies"
        state = {**state, "coefficients": _with_joins(state.get("coefficients"))}
        results = state.get("results")
        if not isinstance(results, list) or not all(isinstance(r, dict) for r in results):
            raise InputError(f"{place}: results={shown(results)}: expected a list of dicts")
        read = [structured(LatencyResult, result, place) for result in results]
        if not all(min(result.before, result.asked, result.measured) > 0 for result in read):
            raise InputError(f"{place}: expected milliseconds above 0")
        stored = structured(_StoredTimes, {**state, "results": read}, place)
        # Versions before 0.5 timed one image at a time and did not say so.
        return replace(stored, conditions={"batch": "1", **stored.conditions})


def _with_joins(coefficients: object) -> object:
    """Coefficients of versions before 0.5, to which a shortcut or route took no time of its own."""
    if isinstance(coefficients, list | tuple) and len(coefficients) == len(UNFITTED.vector) - 1:
        return [*coefficients[:-1], 0.0, coefficients[-1]]
    return coefficients


def _times(networks: Sequence[Darknet], meter: LatencyMeter) -> list[float]:
    """Milliseconds of networks that take turns."""
    size = networks[0].netdef.size
    times = meter.time_networks(networks, size, TIMING.timing_rounds)
    return [float(time) for time in times]


def _expect_slower(original: Darknet, budget: LatencyTarget, meter: LatencyMeter) -> None:
    (before,) = _times([original], meter)
    if budget.ms(before) >= before:
        took = ms_in_words(before)
        raise InputError(
            f"{budget.name}: expected less time than the {took} that the network takes"
        )
