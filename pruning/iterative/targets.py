"""What is a network to come to by several cuts, and what does each of them take away?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from import_param import Pruning
from models.darknet import Darknet
from models.netdef import NetDef
from pruning.channels import Bools, channel_groups
from pruning.importance import Importance, gamma
from pruning.latency.meter import LatencyMeter
from pruning.latency.options import SearchOptions
from pruning.latency.predictor import Coefficients, LatencyPredictor, fit_predictor
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
from pruning.strategies import STRATEGIES
from pruning.surgeon import Plan, cut, keep_everything
from pruning.targets import Measure, cut_shares, deviation_note, target_measure
from utils.errors import InputError

MOST = 0.999  # a share to cut is below 1, even if all are dead
FASTER = 0.05  # the least share of its time that a network without its dead must save for a cut
TIMED = SearchOptions(timing_rounds=20)  # rounds in which a network is timed beside the whole one


@dataclass(frozen=True, eq=False)
class Gone:
    """What a network has lost so far.

    whole: its definition before the first cut. plan: all cuts so far, as one of the whole.
    """

    whole: NetDef
    plan: Plan

    @staticmethod
    def nothing(whole: NetDef) -> Gone:
        return Gone(whole, keep_everything(whole))

    def share(self, strategy: str, measure: str) -> float:
        """The share that is gone of what `percent_of` measures, counted as `percent` is."""
        return cut_shares(self.plan, strategy).of(target_measure(strategy, measure))

    def more(
        self, present: NetDef, importance: Importance, plan: Callable[[NetDef, Importance], Plan]
    ) -> tuple[Gone, Plan]:
        """Cut on: what is gone then, and the plan for the network as it is now, `present`, whose
        importance is given.

        `plan` is made for the whole network, in which whatever is gone is worth least: so
        `layer_keep`, `percent` and times are of the whole, however often it is cut.
        """
        moved = self._places(present)
        made = plan(self.whole, self.of_whole(present, importance))
        blocks = tuple(sorted({*self.plan.blocks, *made.blocks}))
        total = Plan(self.whole, self.plan.keep & made.keep, blocks)
        return Gone(self.whole, total), self._of_present(present, total, moved)

    def _places(self, present: NetDef) -> dict[int, int]:
        """Where the convolutions and shortcuts of the whole network are now: in the same order."""
        kinds = ("convolutional", "shortcut")
        left = without_blocks(self.whole, self.plan.blocks)[1]
        old = [n for n in sorted(left) if self.whole.layers[n].kind in kinds]
        new = [n for n, section in enumerate(present.layers) if section.kind in kinds]
        return dict(zip(old, new, strict=True))

    def of_whole(self, present: NetDef, importance: Importance) -> Importance:
        """Importance by the channels of the whole network; those that are gone have -1."""
        moved, kept = self._places(present), self.plan.layer_masks
        found = {}
        for layer, section in enumerate(self.whole.layers):
            if section.kind == "convolutional" and section.flag("batch_normalize"):
                found[layer] = np.full(len(kept[layer]), -1.0)
                if layer in moved:
                    found[layer][kept[layer]] = importance[moved[layer]]
        return found

    def _of_present(self, present: NetDef, plan: Plan, moved: Mapping[int, int]) -> Plan:
        """A plan of the whole network as one of the network as it is now."""
        before, after = channel_groups(self.whole), channel_groups(present)
        kept = self.plan.layer_masks
        keep: Bools = np.ones(after.count, bool)
        for layer, now in moved.items():
            units = before.outputs[layer][kept[layer]]
            keep[after.outputs[now]] = plan.keep[units]
        # A block inside one that went before is gone with it.
        new = [moved[n] for n in plan.blocks if n in moved and n not in self.plan.blocks]
        return Plan(present, keep, tuple(sorted(new)))


Step = TypeVar("Step")


class Aim(Protocol[Step]):
    """What a network is to come to. A step is an aim on the way there."""

    def part(self, way: float) -> Step:
        """So far on the way, 0 to 1: what is to go is cut in equal shares."""
        ...

    def without_dead(self, gone: Gone, model: Darknet, dead: float, flat: bool) -> Step | None:
        """What to cut to while the dead (a share of the sets of channels) decide, or None for
        nothing yet. flat: whether they are worth a cut of their own."""
        ...

    def cut(self, gone: Gone, model: Darknet, step: Step) -> tuple[Gone, Plan, bool]:
        """What is gone then, the plan for the model, and whether the aim is met."""
        ...

    def line(self, gone: Gone, met: bool) -> str:
        """How far it has come, in words; met: and comes no further."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs of it: plain values."""
        ...


@dataclass(frozen=True)
class ShareAim:
    """The aim that a share of the network is gone, cut by a strategy of `STRATEGIES`."""

    strategy: str
    target: Pruning

    def part(self, way: float) -> Pruning:
        return self._part(way * self.target.percent, self.target.percent_of)

    def without_dead(self, gone: Gone, model: Darknet, dead: float, flat: bool) -> Pruning | None:
        channels = gone.share(self.strategy, "channels")
        goal = min(channels + dead * (1 - channels), MOST)
        enough = self.target.percent_of == "channels" and goal >= self.target.percent
        return self._part(goal, "channels") if enough or flat else None

    def cut(self, gone: Gone, model: Darknet, step: Pruning) -> tuple[Gone, Plan, bool]:
        def more(target: Pruning) -> tuple[Gone, Plan]:
            plan = STRATEGIES[self.strategy]
            return gone.more(model.netdef, gamma(model), lambda net, s: plan(net, s, target))

        last = more(self.target)
        found = more(self._beside_blocks(step, last[0]))
        share = found[0].share(self.strategy, self.target.percent_of)
        reached = share >= self.target.percent - 1e-6
        if step == self.target or reached or found[0].plan.equals(last[0].plan):
            return *last, True  # or as nearly as may be: the rest would cut no more
        return *found, False

    def line(self, gone: Gone, met: bool) -> str:
        found = cut_shares(gone.plan, self.strategy)
        what = target_measure(self.strategy, self.target.percent_of)
        note = deviation_note(self.strategy, self.target, found) if met else ""
        return f"{found.of(what):.1%} of the {what} are gone" + (f" ({note})" if note else "")

    def state(self) -> dict[str, Any]:
        return {}

    def _beside_blocks(self, step: Pruning, last: Gone) -> Pruning:
        """No more channels than go beside the blocks that the last cut takes: what is gone does
        not come back."""
        if step == self.target or self.strategy == "layer":
            return step
        beside = Gone(last.whole, replace(last.plan, blocks=()))
        most = beside.share(self.strategy, step.percent_of)
        return replace(step, percent=min(step.percent, most))

    def _part(self, percent: float, measure: Measure) -> Pruning:
        """A target on the way. Residual blocks go with the last cut."""
        if percent >= self.target.percent - 1e-9 and measure == self.target.percent_of:
            return self.target
        return replace(self.target, percent=percent, percent_of=measure, percent_blocks=0.0)


@dataclass(frozen=True)
class TimeAim:
    """The aim that the network takes a time on an engine, cut as `pruning.latency.search` does.

    target: its `layer_keep` and `round_to` hold. whole: the network before all cuts, with any
    weights: these do not change a time. Each cut is timed beside it, so twice as fast stays twice
    as fast as the whole, whatever else the machine does meanwhile. meter: what it is timed with.
    timings: of the cuts so far.
    """

    goal: LatencyTarget
    target: Pruning
    whole: Darknet
    meter: LatencyMeter
    predictor: LatencyPredictor
    timings: list[LatencyResult] = field(default_factory=list)

    @staticmethod
    def of(
        netdef: NetDef,
        goal: LatencyTarget,
        target: Pruning,
        meter: LatencyMeter,
        path: Path,
        tell: Callable[[str], None],
        state: Mapping[str, Any] | None = None,
    ) -> TimeAim:
        """Learn how long cuts take, as `fit_predictor` does.

        netdef: of the whole network. path: of the table. state: of a checkpoint. Without one,
        raises InputError where the network takes no more than that time or cannot take so little.
        """
        about, coefficients = meter.conditions.as_text(), None
        timings: list[LatencyResult] = []
        whole = Darknet(netdef).eval()
        if not state:
            _expect_slower(whole, goal, meter)
        elif state["about"] == about:
            coefficients = Coefficients.of(state["calibration"])
        else:
            tell(f"note: cuts were timed with {state['about']}; now they are with {about}")
        predictor = fit_predictor(
            whole, netdef.size, meter, path, tell, target.round_to, coefficients
        )
        if state:
            timings = [LatencyResult(**timing) for timing in state["timings"]]
        aim = TimeAim(goal, target, whole, meter, predictor, timings)
        if not state:
            aim._expect_possible()
        return aim

    def part(self, way: float) -> LatencyTarget:
        return self.goal.at(way)

    def without_dead(
        self, gone: Gone, model: Darknet, dead: float, flat: bool
    ) -> LatencyTarget | None:
        importance = gone.of_whole(model.netdef, gamma(model))
        problem = self._problem(gone, importance)
        now, then = (
            problem.predict(configuration)
            for configuration in (problem.widest, problem.without_dead(importance, DEAD))
        )
        before = self._predicted
        end = self.goal.ms(before)
        if then <= end:
            return self.goal
        saves = flat and then <= (1 - FASTER) * now
        return self.part((before - then) / (before - end)) if saves else None

    def cut(self, gone: Gone, model: Darknet, step: LatencyTarget) -> tuple[Gone, Plan, bool]:
        def plan(whole: NetDef, importance: Importance) -> Plan:
            problem = self._problem(gone, importance)
            search = LatencySearch(self.whole, whole.size, step, self.meter, TIMED)
            made, timing = search.prune(problem, nearest=True)
            self.timings.append(timing)
            return made

        gone, now = gone.more(model.netdef, gamma(model), plan)
        rest = channel_groups(without_blocks(gone.whole, gone.plan.blocks)[0])
        nothing_left = all(group.kept_because for group in rest.groups)
        return gone, now, step == self.goal or nothing_left

    def line(self, gone: Gone, met: bool) -> str:
        return self.timings[-1].line()

    def state(self) -> dict[str, Any]:
        return {
            "about": self.meter.conditions.as_text(),
            "calibration": self.predictor.coefficients.vector.tolist(),
            "timings": [asdict(timing) for timing in self.timings],
        }

    def measure(self, model: Darknet) -> LatencyResult:
        """What the last cut has come to, measured anew."""
        before, after = _times([self.whole, model], self.meter)
        last = self.timings[-1]
        return replace(last, before=before, asked=self.goal.ms(before), measured=after)

    @cached_property
    def _predicted(self) -> float:
        """Milliseconds of the whole network."""
        space = find_search_space(self.whole.netdef)
        return self.predictor.network(space, space.uncut)

    def _problem(self, gone: Gone, importance: Importance) -> PruningProblem:
        keep, step = self.target.layer_keep, self.target.round_to
        return PruningProblem.of(gone.whole, importance, self.predictor, keep, step, gone.plan)

    def _expect_possible(self) -> None:
        problem = self._problem(Gone.nothing(self.whole.netdef), gamma(self.whole))
        narrow = cut(self.whole, problem.plan(problem.narrowest))
        before, least = _times([self.whole, narrow], self.meter)
        asked = self.goal.ms(before)
        if least > asked:
            raise too_fast(self.whole.netdef, asked, least)


def _times(networks: Sequence[Darknet], meter: LatencyMeter) -> list[float]:
    """Milliseconds of networks that take turns."""
    size = networks[0].netdef.size
    return meter.time_networks(networks, size, TIMED.timing_rounds).tolist()


def _expect_slower(whole: Darknet, goal: LatencyTarget, meter: LatencyMeter) -> None:
    (before,) = _times([whole], meter)
    if goal.ms(before) >= before:
        raise InputError(
            f"{goal.name}: expected less time than the {before:.2f} ms that the network takes"
        )
