"""Which cut of a network makes the most of a time? Choose, cut, measure, correct the budget.

Example: a network takes 20 ms, and 10 ms are asked for. The programme chooses a cut for a budget of
10 ms, which is then measured: 11 ms. So 1 ms predicted is 1.1 ms measured, and the next budget is
10 · 10 / 11 = 9.1 ms. Its cut is measured at 9.9 ms, which is within the tolerance of 2 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from import_param import Pruning
from models.costs import count_operations
from models.darknet import Darknet
from models.netdef import NetDef
from pruning.importance import Importance
from pruning.latency.meter import LatencyMeter, RunImages
from pruning.latency.options import DEFAULTS, SearchOptions
from pruning.latency.predictor import LatencyPredictor
from pruning.latency.search_space import (
    Configuration,
    Floats,
    RankedUnits,
    SearchSpace,
    expect_search_space,
    find_search_space,
    rank_units,
    width_options,
)
from pruning.latency.solver import Solution, solve
from pruning.layer_shares import expect_layer_shares, fixed_counts
from pruning.residual_blocks import residual_blocks
from pruning.selection import group_step
from pruning.surgeon import Plan, cut, cut_netdef
from utils.console.progress import track
from utils.errors import InputError
from utils.timing import ms_in_words


@dataclass(frozen=True, eq=False)
class PruningProblem:
    """What there is to choose from in a network, and how important and how slow it is.

    Attributes:
        space: its widths and blocks.
        ranking: its units by their importance.
        widths: by group, the numbers of units that it may keep, ascending.
        predictor: of milliseconds.
        removed_blocks: the shortcuts of blocks that were removed before.
        summed: whether the importance of different layers is added up as it is, see `importance`.
    """

    space: SearchSpace
    ranking: RankedUnits
    widths: Sequence[Sequence[int]]
    predictor: LatencyPredictor
    removed_blocks: tuple[int, ...] = ()
    summed: bool = False

    @staticmethod
    def of(
        netdef: NetDef,
        importance: Importance,
        predictor: LatencyPredictor,
        settings: Pruning,
        before: Plan | None = None,
        summed: bool = False,
    ) -> PruningProblem:
        """The problem of a network.

        Args:
            netdef: the network before all cuts.
            importance: of its channels.
            predictor: of its milliseconds.
            settings: the least share that a layer keeps, and what widths are rounded to.
            before: what was cut of the network already and stays removed; its channels must be
                less important than all others.
            summed: see `PruningProblem`.

        Raises:
            InputError: there is nothing to cut.
        """
        space = expect_search_space(netdef)
        widths = width_options(
            space, settings.layer_keep, predictor.table.channel_step, settings.round_to
        )
        removed: tuple[int, ...] = ()
        if before:
            removed, space = before.blocks, space.without(before.blocks)
            left = space.configuration(before).counts
            widths = [
                [*(count for count in counts if count < most), most]
                for counts, most in zip(widths, left, strict=True)
            ]
        steps = {
            n: group_step(group, settings.round_to, predictor.table.channel_step)
            for n, group in enumerate(space.groups)
        }
        expect_layer_shares(netdef, settings.shares_by_layer, "latency")
        for number, kept in fixed_counts(space.groups, settings.shares_by_layer, steps).items():
            widths[number] = [min(kept, widths[number][-1])]
        return PruningProblem(
            space, rank_units(space, importance), widths, predictor, removed, summed
        )

    def importance(self) -> dict[int, tuple[int, Floats]]:
        """By convolution, its group and the importance that is left at each width: [widths].

        It is a share of the layer's, or where `summed`, of that of the most important layer.

        By shares, what a layer needs is compared with itself only. The plain sum, as in HALP, takes
        a channel for a channel. Neither is always the better one (`pruning.latency.candidates`
        tries both): of gamma, the sum buys many cheap channels of late layers for few dear ones of
        early layers, which nothing after them makes up for; taylor says what a channel means to
        the loss, whatever its layer. With BN re-estimated and no fine-tuning, mAP@.5 by shares and
        by sums was .556 and .004 of gamma, and .241 and .228 of taylor, on yolov3-tiny trained
        densely on BCCD and cut to a half and a quarter of its time; of taylor .155 and .384 on
        yolov3-mobilenetv2 trained densely on mcu and cut to a third.
        """
        layers = self.ranking.cumulative
        most = max((float(sums[-1]) for _, sums in layers.values()), default=0.0)
        at_widths = {n: (group, sums[self.widths[group]]) for n, (group, sums) in layers.items()}
        return {
            layer: (group, left / ((most if self.summed else left[-1]) or 1.0))
            for layer, (group, left) in at_widths.items()
        }

    def block_order(self) -> list[tuple[int, ...]]:
        """By kind of blocks that are alike, in which order they go: the least important first.

        Where layers are weighed alike, nothing else tells such blocks apart; and there are far
        fewer ways to choose from.
        """
        sums = {layer: float(left[-1]) for layer, (_, left) in self.ranking.cumulative.items()}
        of_block: dict[int, float] = {}
        for term in self.space.terms:
            of_block[term.block] = of_block.get(term.block, 0.0) + sums.get(term.layer, 0.0)
        return [
            tuple(sorted(blocks, key=lambda block: (of_block[block], block)))
            for blocks in self.space.alike_blocks()
        ]

    def solve(self, budget: float, options: SearchOptions = DEFAULTS) -> Solution | None:
        """The most important network of at most `budget` milliseconds; None where there is none."""
        for_layers = budget - self.predictor.coefficients.constant
        importance, latency = self.importance(), self.predictor.layer
        order = self.block_order()
        return solve(self.space, self.widths, importance, latency, for_layers, options, order)

    def plan(self, configuration: Configuration) -> Plan:
        """The plan that leaves a configuration's widths, by the most important units."""
        blocks = {*self.removed_blocks, *configuration.removed_blocks}
        keep = self.ranking.keep(self.space.channels, configuration.counts)
        return Plan(self.space.netdef, keep, tuple(sorted(blocks)))

    def predict(self, configuration: Configuration) -> float:
        """Milliseconds of a configuration."""
        return self.predictor.network(self.space, configuration)

    @property
    def widest(self) -> Configuration:
        """The network as it is."""
        return Configuration(tuple(max(counts) for counts in self.widths))

    @property
    def narrowest(self) -> Configuration:
        """The fastest network that there is to choose."""
        counts = tuple(min(counts) for counts in self.widths)
        return Configuration(counts, tuple(sorted(self.space.outer_blocks)))

    def without_dead(self, importance: Importance, threshold: float) -> Configuration:
        """The narrowest network that keeps each unit with a channel of at least this importance."""
        kept = []
        for group, counts in zip(self.space.groups, self.widths, strict=True):
            layers = [importance[m.layer][m.positions].max(1) for m in group.deciding_members]
            alive = int((np.max(layers, axis=0) >= threshold).sum()) if layers else len(group)
            kept.append(next(count for count in counts if count >= min(alive, counts[-1])))
        return Configuration(tuple(kept))


@dataclass(frozen=True)
class LatencyTarget:
    """The time asked for: milliseconds an image, or how many times faster; the other one is 0.

    Attributes:
        target_ms: milliseconds an image.
        target_speedup: how many times faster than before the cut.
        progress: the share of the milliseconds between now and then that are to be saved so far.

    Raises:
        InputError: not one of the two is asked for.
    """

    target_ms: float = 0.0
    target_speedup: float = 0.0
    progress: float = 1.0

    def __post_init__(self) -> None:
        if (self.target_ms > 0) == (self.target_speedup > 0):
            raise InputError(
                f"target_ms={self.target_ms:g}, target_speedup={self.target_speedup:g}: "
                "expected one of them above 0"
            )

    @property
    def name(self) -> str:
        """As a part of a file's name."""
        return f"{self.target_speedup:g}x" if self.target_speedup else f"{self.target_ms:g}ms"

    def ms(self, before: float) -> float:
        """Milliseconds asked of a network that takes `before` milliseconds."""
        end = self.target_ms or before / self.target_speedup
        return end if self.progress == 1 else before - self.progress * (before - end)

    def at(self, progress: float) -> LatencyTarget:
        """The same, but this share of the way there only."""
        return replace(self, progress=progress)


@dataclass(frozen=True)
class LatencyResult:
    """What a cut to a time came to, in milliseconds of the whole network.

    Attributes:
        before: measured without the cut.
        asked: the time that was asked for.
        predicted: for the cut; None without a predictor.
        measured: with the cut, in turns with `before`.
        attempts: how often was chosen and measured.
    """

    before: float
    asked: float
    predicted: float | None
    measured: float
    attempts: int

    @property
    def slow(self) -> bool:
        """Whether it takes longer than asked."""
        return self.measured > self.asked

    @property
    def missed(self) -> float:
        """By how much the measured time differs from the asked one, as a share."""
        return abs(self.measured / self.asked - 1)

    @property
    def share(self) -> float:
        """The share of its time that the network is to lose."""
        return max(0.0, 1 - self.asked / self.before)

    @property
    def _predicted(self) -> str:
        return "" if self.predicted is None else f"predicted {ms_in_words(self.predicted)}, "

    def line(self) -> str:
        """For a report of one cut."""
        return (
            f"asked {ms_in_words(self.asked)} ({self.before / self.asked:.2f} times faster), "
            f"{self._predicted}measured {ms_in_words(self.measured)} "
            f"({self.before / self.measured:.2f} times faster), attempts: {self.attempts}"
        )

    def step(self) -> str:
        """For one of several cuts: only after the last one a factor is told, see `outcome`."""
        return (
            f"asked {ms_in_words(self.asked)} of {ms_in_words(self.before)}, {self._predicted}"
            f"measured {ms_in_words(self.measured)}, attempts: {self.attempts}"
        )

    def outcome(self) -> str:
        """For a network that was cut several times: `before` is without any cut."""
        note = self.note()
        return (
            f"{ms_in_words(self.before)} before all cuts, asked {ms_in_words(self.asked)} "
            f"({self.before / self.asked:.2f} times faster), measured {ms_in_words(self.measured)} "
            f"({self.before / self.measured:.2f} times faster)" + (f"; {note}" if note else "")
        )

    def note(self, options: SearchOptions = DEFAULTS) -> str:
        """By how much the time was missed, where that is worth telling; else empty."""
        if self.asked > (1 + options.reported_miss) * self.before:
            took = ms_in_words(self.before)
            return f"more time was asked for than the {took} that the network took"
        if self.missed > options.reported_miss:
            return f"{self.missed:.1%} off the time, the nearest of what was tried"
        return ""


def too_fast(plan: Plan, size: tuple[int, int], result: LatencyResult) -> InputError:
    """What to say where the fastest cut was measured, and takes more than is asked.

    Args:
        plan: the cut.
        size: (width, height) of the network's images in pixels.
        result: what it came to.
    """
    least, asked = ms_in_words(result.measured), ms_in_words(result.asked)
    return InputError(
        f"{plan.netdef.name}: expected a time of at least {least}, which its fastest cut takes, "
        f"but {asked} is asked for ({_why_slow(plan, size, result)})"
    )


def _why_slow(plan: Plan, size: tuple[int, int], result: LatencyResult) -> str:
    """Why a cut takes no less: too many channels are to stay, or layers take time at any width."""
    small = cut_netdef(plan)
    operations = count_operations(small, size) / count_operations(plan.netdef, size)
    time = result.measured / result.before
    if time <= operations + DEFAULTS.beside_operations:
        return "layer_keep may be lowered"
    layers, blocks = len(find_search_space(small).terms), len(residual_blocks(plan.netdef))
    left = len(residual_blocks(small))
    if not blocks:
        rest = "it has no residual block that could go"
    elif left:
        rest = f"{left} of {blocks} residual blocks are left, which pruned_id=latency may take"
    else:
        rest = f"all {blocks} residual blocks are gone"
    return (
        f"{operations:.0%} of the operations take {time:.0%} of the time: {layers} layers take "
        f"time here at any width, and {rest}; with more images at once, see latency_batch_size, "
        "they may take less an image"
    )


class MeasuredCuts:
    """Cuts of a network, each measured whole in turns with the network before the cut."""

    def __init__(self, search: LatencySearch) -> None:
        self._search, self._uncut = search, search.meter.open(search.model, search.size)
        (self.before,) = self._time(self._uncut)
        self.asked = search.target.ms(self.before)
        self.results: list[tuple[Plan, LatencyResult]] = []

    def measure(self, plan: Plan, predicted: float | None = None) -> LatencyResult:
        """Cut the network and time it; the asked time is that of the network at the moment."""
        search = self._search
        small = search.meter.open(cut(search.model, plan), search.size)
        before, after = self._time(self._uncut, small)
        attempt = len(self.results) + 1
        result = LatencyResult(before, search.target.ms(before), predicted, after, attempt)
        self.results.append((plan, result))
        return result

    def _time(self, *runs: RunImages) -> list[float]:
        search = self._search
        times = search.meter.time_runs(runs, search.size, search.options.timing_rounds)
        return [float(time) for time in times]

    def result_of(self, plan: Plan) -> LatencyResult | None:
        """What a plan came to; None where it was not measured yet."""
        return next((result for other, result in self.results if plan.equals(other)), None)

    @property
    def is_near(self) -> bool:
        """Whether a cut came so near to the asked time that nothing is to be told."""
        return self.nearest()[1].missed <= self._search.options.reported_miss

    def nearest(self) -> tuple[Plan, LatencyResult]:
        """The cut that came nearest to the asked time."""
        plan, result = min(self.results, key=lambda pair: pair[1].missed)
        return plan, replace(result, attempts=len(self.results))


@dataclass(frozen=True)
class LatencySearch:
    """Search for a cut of a network that takes a time on an engine.

    Attributes:
        model: the network before the cut.
        size: (width, height) of its images in pixels.
        target: the time asked for.
        meter: what it is measured with.
        options: how long and how carefully.
    """

    model: Darknet
    size: tuple[int, int]
    target: LatencyTarget
    meter: LatencyMeter
    options: SearchOptions = DEFAULTS

    def prune(self, problem: PruningProblem, nearest: bool = False) -> tuple[Plan, LatencyResult]:
        """The most important network that takes the time.

        Raises:
            InputError: even the narrowest cut is too slow; with `nearest`, that one is taken.
        """

        def plan_for(budget: float) -> tuple[Plan, float]:
            solution = problem.solve(budget, self.options)
            configuration = solution.configuration if solution else problem.narrowest
            return problem.plan(configuration), problem.predict(configuration)

        plan, result = self.correct_budget(plan_for)
        narrowest = plan.equals(problem.plan(problem.narrowest))
        if narrowest and not nearest:
            self._expect_near(plan, result)
        return plan, result

    def correct_budget(
        self, plan_for: Callable[[float], tuple[Plan, float]]
    ) -> tuple[Plan, LatencyResult]:
        """After each attempt the budget moves by what was missed; the nearest one is taken.

        Args:
            plan_for: from a budget in milliseconds to a plan and its predicted milliseconds.
        """
        cuts = MeasuredCuts(self)
        budget = cuts.asked
        tried: list[tuple[float, LatencyResult]] = []
        for attempt in track(range(self.options.most_attempts), "cuts to the time, at most"):
            if attempt >= self.options.max_attempts and cuts.is_near:
                break
            planned = new_plan(cuts, plan_for, budget, self.options)
            if planned is None:
                break
            plan, predicted = planned
            result = cuts.measure(plan, predicted)
            if result.missed <= self.options.tolerance:
                break
            tried.append((predicted, result))
            budget = next_budget(tried)
        return cuts.nearest()

    def bisect_share(self, plan_for: Callable[[float], Plan]) -> tuple[Plan, LatencyResult]:
        """The same without predictions: halve the interval in which the right share lies.

        Args:
            plan_for: from the share of the operations to cut, 0 to below 1, to a plan.

        Raises:
            InputError: all cuts, up to the largest share, are too slow.
        """
        cuts = MeasuredCuts(self)
        low, high = 0.0, 1.0  # shares: the largest that is too slow, the least that is too fast
        share = max(0.0, 1 - cuts.asked / cuts.before)
        for _ in track(range(self.options.halvings), "cuts to the time, at most"):
            plan = plan_for(share)
            result = cuts.result_of(plan) or cuts.measure(plan)
            if result.missed <= self.options.tolerance:
                break
            low, high = (share, high) if result.slow else (low, share)
            share = (low + high) / 2
        plan, result = cuts.nearest()
        if high == 1:
            self._expect_near(plan, result)
        return plan, result

    def _expect_near(self, plan: Plan, result: LatencyResult) -> None:
        if result.measured > (1 + self.options.reported_miss) * result.asked:
            raise too_fast(plan, self.size, result)


def new_plan(
    cuts: MeasuredCuts,
    plan_for: Callable[[float], tuple[Plan, float]],
    budget: float,
    options: SearchOptions = DEFAULTS,
) -> tuple[Plan, float] | None:
    """The plan of a budget, or where that was measured before, the next one to the asked time.

    Returns:
        The plan and its predicted milliseconds; None where the next plan that was not measured is
        on the other side of the asked time, or far.
    """
    first: LatencyResult | None = None
    for _ in range(options.max_budget_steps):
        plan, predicted = plan_for(budget)
        result = cuts.result_of(plan)
        if result is None:
            return plan, predicted
        first = first or result
        if result.slow != first.slow:
            return None
        step = options.budget_step
        budget = min(budget, predicted) * (1 - step) if result.slow else budget * (1 + step)
    return None


def next_budget(tried: Sequence[tuple[float, LatencyResult]]) -> float:
    """What to ask of the predictor, so that the asked time is measured.

    It lies between the nearest attempts on both sides of that time, or where there is but one
    side, is in proportion to the last one.

    Args:
        tried: what each attempt was predicted to take, and what it came to.
    """
    slow = [attempt for attempt in tried if attempt[1].slow]
    fast = [attempt for attempt in tried if not attempt[1].slow]
    if slow and fast:
        above, below = (min(side, key=lambda attempt: attempt[1].missed) for side in (slow, fast))
        share = below[1].missed / (below[1].missed + above[1].missed)
        return below[0] + share * (above[0] - below[0])
    predicted, last = tried[-1]
    return predicted * last.asked / last.measured


def plan_by_prediction(
    space: SearchSpace,
    predictor: LatencyPredictor,
    plan_for: Callable[[float], Plan],
    options: SearchOptions = DEFAULTS,
) -> Callable[[float], tuple[Plan, float]]:
    """From a budget to the plan that is predicted to come nearest, by a strategy of shares.

    `LatencySearch.correct_budget` takes it.

    Args:
        space: of the network that the strategy cuts.
        predictor: of its milliseconds.
        plan_for: from the share of the operations to cut, 0 to below 1, to a plan.
        options: how often the interval of shares is halved.
    """

    @cache
    def predicted(share: float) -> tuple[Plan, float]:
        plan = plan_for(share)
        return plan, predictor.network(space, space.configuration(plan))

    def nearest(budget: float) -> tuple[Plan, float]:
        low, high = 0.0, 1.0
        planned = []
        for _ in range(options.halvings):
            share = (low + high) / 2
            planned.append(predicted(share))
            slow = planned[-1][1] > budget
            low, high = (share, high) if slow else (low, share)
        return min(planned, key=lambda pair: abs(pair[1] - budget))

    return nearest
