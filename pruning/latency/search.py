"""How long will a network take once it is cut, and which cut makes the most of a time?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from models.darknet import Darknet
from models.netdef import NetDef
from pruning.importance import Scores
from pruning.latency.search_space import Layout, Worth, find_layout, find_worth
from pruning.latency.solver import Choice, choose
from pruning.latency.table import (
    CostTable,
    Open,
    Span,
    kind_of,
    measure_step,
    measure_table_,
    picture,
    read_shapes,
    read_table,
    take_turns,
)
from pruning.strategies import group_step, round_up
from pruning.surgeon import Plan, cut
from utils.errors import InputError

Floats = NDArray[np.float64]
Rng = np.random.Generator

OPTIONS = 10  # widths of a group that are weighed
SAMPLES = 20  # random cuts that are measured whole for a calibration
TOGETHER = 5  # networks that are in memory at once, and take turns
ROUNDS = 9  # in which they do
ATTEMPTS = 5  # to choose, cut and measure, with what was measured taken into account
STEP, STEPS = 0.01, 10  # of a budget, as a share, where it led to a plan that is known
HALVINGS = 8  # of the interval in which a share of the operations is looked for
NEAR = 0.02  # of the asked time: what is as near is not improved on
FAR = 0.05  # of the asked time: what is further off is told, and refused if it is the narrowest cut
PRIOR = 0.03  # how much a factor is held near that of the table, beside what was measured
LEAST, MOST = 0.2, 5.0  # a family's factor beside that of a whole network; beyond, it is noise
SLOWEST = 10.0  # milliseconds that a million values may take to move, with the table's times
GONE = 0.2  # chance of a residual block to be gone in a random cut
FAMILIES = ("1x1", "kxk", "grouped", "pooling")  # of layers in the table, see `Kind.family`
MOVED = ("read", "shortcut", "route")  # million values: that those read, and that others write


@dataclass(frozen=True)
class Calibration:
    """What a layer's time alone becomes in a whole network.

    factors: by family, of the table's milliseconds. moved: milliseconds for a million values:
    "read" that a layer of the table reads (alone, it finds them in the cache), "shortcut" and
    "route" that such a layer writes. constant: milliseconds of all else.
    """

    factors: Mapping[str, float]
    moved: Mapping[str, float]
    constant: float

    @property
    def vector(self) -> Floats:
        """[features], see `Clock.features`."""
        return np.array([*self.factors.values(), *self.moved.values(), self.constant])

    @staticmethod
    def of(vector: Sequence[float]) -> Calibration:
        count = len(FAMILIES)
        return Calibration(
            dict(zip(FAMILIES, vector[:count], strict=True)),
            dict(zip(MOVED, vector[count:-1], strict=True)),
            vector[-1],
        )


PLAIN = Calibration.of([*[1.0] * len(FAMILIES), *[0.0] * len(MOVED), 0.0])


class Clock:
    """Predicts what a network takes, by a table and a calibration, from its layers' widths."""

    def __init__(
        self, netdef: NetDef, size: tuple[int, int], table: CostTable, how: Calibration = PLAIN
    ) -> None:
        self.table, self.how = table, how
        self._maps = read_shapes(netdef, size)
        self._names = [section.kind for section in netdef.layers]
        self.kinds = [kind_of(netdef, n, read[0]) for n, read in enumerate(self._maps)]

    def __call__(self, layer: int, reads: Floats, writes: Floats) -> Floats:
        """A `LayerCost`: milliseconds of a layer."""
        parts = self._parts(layer, reads, writes)
        rates = {**self.how.factors, **self.how.moved}
        return sum((rates[name] * amount for name, amount in parts.items()), 0.0 * reads)

    def _parts(self, layer: int, reads: Floats, writes: Floats) -> dict[str, Floats]:
        """By family, milliseconds alone, and by what moves, million values."""
        kind, (_, height, width) = self.kinds[layer], self._maps[layer][0]
        values = height * width / 1e6
        if kind:
            return {kind.family: self.table.ms(kind, reads, writes), "read": reads * values}
        name = self._names[layer]
        return {name: writes * values} if name in MOVED else {}

    def features(self, layout: Layout, choice: Choice) -> Floats:
        """What a network's prediction is made of: its parts' sums, and 1 for the constant."""
        names = (*FAMILIES, *MOVED)

        def part(name: str) -> float:
            def cost(layer: int, reads: Floats, writes: Floats) -> Floats:
                return self._parts(layer, reads, writes).get(name, 0.0 * reads)

            return layout.cost(cost, choice.counts, choice.blocks)

        return np.array([*map(part, names), 1.0])

    def network(self, layout: Layout, choice: Choice) -> float:
        """Milliseconds of a whole network."""
        return float(self.features(layout, choice) @ self.how.vector)


def calibrate(features: Floats, measured: Floats) -> Calibration:
    """What predicts measured networks best, by the mean square of the relative error, with a pull
    to the table as it is where these networks say little, and within what can be: where a busy
    machine disturbed the times, a fit would else explain them by one part of the network alone.

    features: [networks, features]. measured: [networks], milliseconds.
    """
    relative = features / measured[:, None]
    pull = np.maximum(PRIOR * np.sqrt((relative**2).sum(0)), 1e-9)  # 0: there is none of it
    rows = np.vstack([relative, np.diag(pull)])
    goal = np.append(np.ones(len(measured)), pull * PLAIN.vector)
    whole = float(np.median(measured / (features @ PLAIN.vector)))
    low = [*[LEAST * whole] * len(FAMILIES), *[0.0] * len(MOVED), 0.0]
    high = [*[MOST * whole] * len(FAMILIES), *[SLOWEST * whole] * len(MOVED), np.inf]
    return Calibration.of(lsq_linear(rows, goal, bounds=(low, high)).x.tolist())


def width_options(
    layout: Layout, layer_keep: float, step: int, round_to: int = 0
) -> list[list[int]]:
    """By group, the numbers of units that it may keep, ascending.

    There are at most `OPTIONS`, each wider than the one before by about one factor, multiples of
    `round_to` channels, or of `step` (less in narrow groups) where that is 0.
    """
    found = []
    for number, group in enumerate(layout.groups):
        size = len(group)
        if not layout.free(number):
            found.append([size])
            continue
        each = group_step(group, round_to, step)
        least = min(size, round_up(max(1, math.ceil(layer_keep * size - 1e-9)), each))
        spread = np.geomspace(least, size, OPTIONS)
        found.append(sorted({min(size, round_up(round(count), each)) for count in spread.tolist()}))
    return found


def spans(layout: Layout, clock: Clock, round_to: int = 0) -> list[Span]:
    """The widths in which layers may come, for `measure_table_`: down to one step of the latency,
    or of `round_to` channels where that is less."""
    steps = {0, round_to}
    options = [width_options(layout, 0.0, clock.table.step, step) for step in steps]
    merged = [[count for found in each for count in found] for each in zip(*options, strict=True)]
    least, most = ([pick(found) for found in merged] for pick in (min, max))
    found = []
    for term in layout.terms:
        kind = clock.kinds[term.layer]
        if kind:
            reads, writes = (
                (width.of(least), width.of(most)) for width in (term.reads, term.writes)
            )
            found.append(Span(kind, reads, writes))
    return found


def random_choices(
    layout: Layout, options: Sequence[Sequence[int]], count: int, rng: Rng
) -> Iterator[Choice]:
    """Cuts of every extent, from none to all that the options allow, the same for no two layers."""
    for number in range(count):
        extent = number / max(1, count - 1)
        shares = np.clip((1 - 0.9 * extent) * rng.uniform(1 - extent / 2, 1.5, len(options)), 0, 1)
        places = [round(s * (len(found) - 1)) for s, found in zip(shares, options, strict=True)]
        counts = [found[place] for found, place in zip(options, places, strict=True)]
        blocks = [block for block in layout.outer if rng.random() < GONE * extent]
        yield Choice(tuple(counts), tuple(sorted(blocks)), 0.0, 0.0, 0.0)


def random_plan(layout: Layout, choice: Choice) -> Plan:
    """A plan with a choice's widths, whichever units these are: for its time, not for its worth."""
    worth = Worth(tuple(np.arange(len(group)) for group in layout.groups), {})
    return Plan(worth.keep(layout.channels, choice.counts), choice.blocks)


def measure_choices(
    model: Darknet, size: tuple[int, int], layout: Layout, choices: Sequence[Choice], open_: Open
) -> Floats:
    """Milliseconds of a network's cuts, measured whole: [choices]."""
    found: list[float] = []
    for first in range(0, len(choices), TOGETHER):
        some = choices[first : first + TOGETHER]
        runs = [open_(cut(model, random_plan(layout, choice)), size) for choice in some]
        found += take_turns(runs, picture(size), ROUNDS).tolist()
    return np.array(found)


def fill_table(path: Path, about: Mapping[str, str], open_: Open) -> CostTable:
    """The table in a file, or a new one. Raises InputError where the file's does not fit."""
    return read_table(path, about) if path.exists() else CostTable(about, measure_step(open_))


def learn_clock(
    model: Darknet,
    size: tuple[int, int],
    path: Path,
    about: Mapping[str, str],
    open_: Open,
    tell: Callable[[str], None],
    round_to: int = 0,
    how: Calibration | None = None,
) -> Clock:
    """Measure what is needed to predict a network's cuts: its layers, as far as the table at
    `path` lacks them, and some random cuts as a whole.

    about: what it is measured with, see `CostTable`. tell: gets a line now and then.
    round_to: of the cuts to come. how: a calibration from before, which spares the random cuts.
    """
    layout = find_layout(model.netdef)
    table = fill_table(path, about, open_)
    clock = Clock(model.netdef, size, table)
    count = measure_table_(table, spans(layout, clock, round_to), open_, tell)
    if count:
        table.write(path)
    tell(f"{path}: {count} layers measured, the others known; channels in steps of {table.step}")
    if how:
        return Clock(model.netdef, size, table, how)
    options = width_options(layout, 0.1, table.step)
    choices = list(random_choices(layout, options, SAMPLES, np.random.default_rng(0)))
    measured = measure_choices(model, size, layout, choices, open_)
    features = np.array([clock.features(layout, choice) for choice in choices])
    how = calibrate(features, measured)
    errors = np.abs(features @ how.vector / measured - 1)
    tell(f"calibrated on {SAMPLES} random cuts: {errors.mean():.1%} off on average")
    return Clock(model.netdef, size, table, how)


@dataclass(frozen=True, eq=False)
class Check:
    """Predictions beside measurements: [networks] each, milliseconds."""

    predicted: Floats
    measured: Floats

    @property
    def errors(self) -> Floats:
        """[networks], the prediction's error as a share of the measured time."""
        return self.predicted / self.measured - 1


def check_clock(
    model: Darknet, size: tuple[int, int], clock: Clock, open_: Open, count: int
) -> Check:
    """Predict and measure random cuts that the clock was not calibrated on."""
    layout = find_layout(model.netdef)
    options = width_options(layout, 0.1, clock.table.step)
    choices = list(random_choices(layout, options, count, np.random.default_rng(1)))
    measured = measure_choices(model, size, layout, choices, open_)
    return Check(np.array([clock.network(layout, choice) for choice in choices]), measured)


def expect_cuttable(netdef: NetDef) -> Layout:
    """The layout of a network that has something to cut; raises InputError for others."""
    layout = find_layout(netdef)
    if not layout.outer and not layout.any_free:
        reasons = "; ".join(sorted({group.kept_because for group in layout.groups}))
        raise InputError(
            f"{netdef.net.path or 'the network'}: expected channels that 'latency' may cut, "
            f"found none: {reasons}"
        )
    return layout


@dataclass(frozen=True, eq=False)
class Problem:
    """What there is to choose from in a network: widths and blocks, their worth and time.

    summed: whether the scores of different layers are added up as they are, see `values`.
    """

    layout: Layout
    worth: Worth
    options: Sequence[Sequence[int]]
    clock: Clock
    gone: tuple[int, ...] = ()  # the shortcuts of blocks that went before
    summed: bool = False

    @staticmethod
    def of(
        netdef: NetDef,
        scores: Scores,
        clock: Clock,
        layer_keep: float,
        round_to: int,
        before: Plan | None = None,
        summed: bool = False,
    ) -> Problem:
        """before: what was cut of the network already, and stays gone; its channels must have
        scores below all others. Raises InputError where there is nothing to cut."""
        layout = expect_cuttable(netdef)
        options = width_options(layout, layer_keep, clock.table.step, round_to)
        gone: tuple[int, ...] = ()
        if before:
            gone, layout = before.blocks, layout.without(before.blocks)
            left = layout.counts(before)
            options = [
                [*(count for count in found if count < most), most]
                for found, most in zip(options, left, strict=True)
            ]
        return Problem(layout, find_worth(layout, scores), options, clock, gone, summed)

    def values(self) -> dict[int, tuple[int, Floats]]:
        """By scored convolution, its group and [options]: the worth that is left at each width, as
        a share of the layer's, or where scores are `summed`, of the layer's that is worth most.

        By shares, what a layer needs is compared with itself only. The sum of plain scores, as in
        HALP, takes a channel for a channel. Neither is always the better one (`pruning.latency.candidates` tries
        both): of gamma, the sum buys many cheap channels of late layers for few dear ones of early
        layers, which nothing after them makes up for; taylor says what a channel means to the loss,
        whatever its layer. With BN re-estimated and no fine-tuning, mAP@.5 by shares and by sums
        was .556 and .004 of gamma, and .241 and .228 of taylor, on yolov3-tiny trained densely on
        BCCD and cut to a half and a quarter of its time; of taylor .155 and .384 on
        yolov3-mobilenetv2 trained densely on mcu and cut to a third.
        """
        layers = self.worth.layers
        most = max((float(sums[-1]) for _, sums in layers.values()), default=0.0)
        return {
            layer: (group, found / ((most if self.summed else found[-1]) or 1.0))
            for layer, (group, sums) in layers.items()
            for found in [sums[self.options[group]]]
        }

    def choose(self, budget: float) -> Choice | None:
        rest = budget - self.clock.how.constant
        return choose(self.layout, self.options, self.values(), self.clock, rest)

    def plan(self, choice: Choice) -> Plan:
        blocks = tuple(sorted({*self.gone, *choice.blocks}))
        return Plan(self.worth.keep(self.layout.channels, choice.counts), blocks)

    @property
    def widest(self) -> Choice:
        """The network as it is."""
        return Choice(tuple(max(found) for found in self.options), (), 0.0, 0.0, 0.0)

    @property
    def narrowest(self) -> Choice:
        """The fastest network that there is to choose."""
        counts = tuple(min(found) for found in self.options)
        return Choice(counts, tuple(sorted(self.layout.outer)), 0.0, 0.0, 0.0)

    def alive(self, scores: Scores, least: float) -> Choice:
        """The narrowest network that keeps every unit of which a score is at least so much."""
        counts = []
        for group, found in zip(self.layout.groups, self.options, strict=True):
            judged = [scores[m.layer][m.positions].max(1) for m in group.scored_by]
            living = int((np.max(judged, axis=0) >= least).sum()) if judged else len(group)
            counts.append(next(count for count in found if count >= min(living, found[-1])))
        return Choice(tuple(counts), (), 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Goal:
    """The time asked for: milliseconds an image, or how many times faster; the other one is 0.

    way: the share of the milliseconds between now and then that are to go for the time being.
    Raises InputError unless one of them is asked for.
    """

    target_ms: float = 0.0
    target_speedup: float = 0.0
    way: float = 1.0

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
        """What it means for a network that takes `before` milliseconds."""
        end = self.target_ms or before / self.target_speedup
        return end if self.way == 1 else before - self.way * (before - end)

    def part(self, way: float) -> Goal:
        """The same time, but so far on the way only."""
        return replace(self, way=way)


@dataclass(frozen=True)
class Timing:
    """A cut to a time, in milliseconds: of the whole network, asked for, predicted by the table
    for what was cut (None without one), and measured whole. attempts: how often was chosen and
    measured."""

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

    def line(self) -> str:
        predicted = "" if self.predicted is None else f"predicted {self.predicted:.2f} ms, "
        return (
            f"asked {self.asked:.2f} ms ({self.before / self.asked:.2f} times faster), "
            f"{predicted}measured {self.measured:.2f} ms "
            f"({self.before / self.measured:.2f} times faster), attempts: {self.attempts}"
        )

    def outcome(self) -> str:
        """The line of a network as it came of its cuts."""
        note = self.note()
        return (
            f"{self.before:.2f} ms before all cuts, asked {self.asked:.2f} ms "
            f"({self.before / self.asked:.2f} times faster), measured {self.measured:.2f} ms "
            f"({self.before / self.measured:.2f} times faster)" + (f"; {note}" if note else "")
        )

    def note(self) -> str:
        """By how much the time was missed, where that is worth telling."""
        if self.asked > (1 + FAR) * self.before:
            return f"more time was asked for than the {self.before:.2f} ms that the network took"
        return (
            f"{self.missed:.1%} off the time, the nearest of what was tried"
            if self.missed > FAR
            else ""
        )


def too_fast(netdef: NetDef, asked: float, least: float) -> InputError:
    """What to say where the narrowest cut was measured, and takes more than is asked."""
    return InputError(
        f"{netdef.net.path or 'the network'}: expected a time of at least {least:.2f} ms, which "
        f"its narrowest cut takes, but {asked:.2f} ms is asked for (layer_keep may be lowered)"
    )


class Trial:
    """Cuts of a network that are measured whole, beside it, until one takes the asked time."""

    def __init__(
        self, model: Darknet, goal: Goal, open_: Open, size: tuple[int, int], rounds: int
    ) -> None:
        self._model, self._goal, self._open, self._size = model, goal, open_, size
        self._rounds, self._image = rounds, picture(size)
        self._whole = open_(model, size)
        self.before = float(take_turns([self._whole], self._image, rounds)[0])
        self.asked = goal.ms(self.before)
        self.found: list[tuple[Plan, Timing]] = []

    def measure(self, plan: Plan, predicted: float | None = None) -> Timing:
        runs = [self._whole, self._open(cut(self._model, plan), self._size)]
        before, after = take_turns(runs, self._image, self._rounds).tolist()
        timing = Timing(before, self._goal.ms(before), predicted, after, len(self.found) + 1)
        self.found.append((plan, timing))
        return timing

    def known(self, plan: Plan) -> Timing | None:
        return next((timing for other, timing in self.found if plan.equals(other)), None)

    def nearest(self) -> tuple[Plan, Timing]:
        plan, timing = min(self.found, key=lambda pair: pair[1].missed)
        return plan, replace(timing, attempts=len(self.found))


def prune_to(
    model: Darknet,
    problem: Problem,
    goal: Goal,
    open_: Open,
    size: tuple[int, int],
    rounds: int,
    nearest: bool = False,
) -> tuple[Plan, Timing]:
    """Choose, cut and measure until the cut network takes the asked time, within `NEAR`.

    Raises InputError where even the narrowest cut is too slow, or with `nearest`, takes that one.
    """

    def plan_of(budget: float) -> tuple[Plan, float]:
        choice = problem.choose(budget) or problem.narrowest
        return problem.plan(choice), problem.clock.network(problem.layout, choice)

    plan, timing = approach(model, plan_of, goal, open_, size, rounds)
    narrowest = plan.equals(problem.plan(problem.narrowest))
    if not nearest and narrowest and timing.measured > (1 + FAR) * timing.asked:
        raise too_fast(model.netdef, timing.asked, timing.measured)
    return plan, timing


def approach(
    model: Darknet,
    plan_of: Callable[[float], tuple[Plan, float]],
    goal: Goal,
    open_: Open,
    size: tuple[int, int],
    rounds: int,
) -> tuple[Plan, Timing]:
    """After each attempt the budget moves by what measuring missed, and the nearest one is taken.

    plan_of: from a budget in milliseconds to a plan, and what it is predicted to take.
    """
    trial = Trial(model, goal, open_, size, rounds)
    budget = trial.asked
    tried: list[tuple[float, Timing]] = []
    for _ in range(ATTEMPTS):
        found = fresh_plan(trial, plan_of, budget)
        if found is None:
            break
        plan, predicted = found
        timing = trial.measure(plan, predicted)
        if timing.missed <= NEAR:
            break
        tried.append((predicted, timing))
        budget = next_budget(tried)
    return trial.nearest()


def fresh_plan(
    trial: Trial, plan_of: Callable[[float], tuple[Plan, float]], budget: float
) -> tuple[Plan, float] | None:
    """The plan of a budget, or where it was measured, the next one on the way to the asked time;
    None where there is none on this side of it, or none near."""
    first: Timing | None = None
    for _ in range(STEPS):
        plan, predicted = plan_of(budget)
        known = trial.known(plan)
        if known is None:
            return plan, predicted
        first = first or known
        if known.slow != first.slow:
            return None
        budget = min(budget, predicted) * (1 - STEP) if known.slow else budget * (1 + STEP)
    return None


def next_budget(tried: Sequence[tuple[float, Timing]]) -> float:
    """What to ask of the table, so that the asked time is measured: between the nearest attempts
    on both sides of it, or where there is but one side, in proportion to the last one.

    tried: what each was predicted to take, and how it went.
    """
    slow = [pair for pair in tried if pair[1].slow]
    fast = [pair for pair in tried if not pair[1].slow]
    if slow and fast:
        above, below = (min(side, key=lambda pair: pair[1].missed) for side in (slow, fast))
        share = below[1].missed / (below[1].missed + above[1].missed)
        return below[0] + share * (above[0] - below[0])
    predicted, last = tried[-1]
    return predicted * last.asked / last.measured


def by_prediction(
    layout: Layout, clock: Clock, plan_of: Callable[[float], Plan]
) -> Callable[[float], tuple[Plan, float]]:
    """For `approach`, from a strategy that knows shares only: the plan that is predicted to come
    nearest to a budget.

    plan_of: from the share of the operations that is to go, 0 to below 1, to a plan.
    """

    @cache
    def predicted(share: float) -> tuple[Plan, float]:
        plan = plan_of(share)
        choice = Choice(tuple(layout.counts(plan)), plan.blocks, 0.0, 0.0, 0.0)
        return plan, clock.network(layout, choice)

    def nearest(budget: float) -> tuple[Plan, float]:
        least, most = 0.0, 1.0
        found = []
        for _ in range(HALVINGS):
            share = (least + most) / 2
            found.append(predicted(share))
            least, most = (share, most) if found[-1][1] > budget else (least, share)
        return min(found, key=lambda pair: abs(pair[1] - budget))

    return nearest


def prune_share_to(
    model: Darknet,
    plan_of: Callable[[float], Plan],
    goal: Goal,
    open_: Open,
    size: tuple[int, int],
    rounds: int,
) -> tuple[Plan, Timing]:
    """The same for a strategy that knows shares only: halve the interval in which the share lies.

    plan_of: from the share of the operations that is to go, 0 to below 1, to a plan.
    Raises InputError where all cuts, up to the widest share, are too slow.
    """
    trial = Trial(model, goal, open_, size, rounds)
    least, most = 0.0, 1.0  # shares: of what is too slow, and of what is too fast
    share = max(0.0, 1 - trial.asked / trial.before)
    for _ in range(HALVINGS):
        plan = plan_of(share)
        timing = trial.known(plan) or trial.measure(plan)
        if timing.missed <= NEAR:
            break
        least, most = (share, most) if timing.slow else (least, share)
        share = (least + most) / 2
    plan, timing = trial.nearest()
    if most == 1 and timing.measured > (1 + FAR) * timing.asked:
        raise too_fast(model.netdef, timing.asked, timing.measured)
    return plan, timing
