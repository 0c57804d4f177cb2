r"""Which widths and blocks are most important within a number of milliseconds?

A mixed-integer linear programme, with the variables of MDP (Sun et al., CVPR 2025):

variables     keep[b]        1 where residual block b stays, else 0
              width[g, i]    1 where group g keeps its i-th number of units, else 0
              pair[l, i, j]  1 where layer l reads width i and writes width j, else 0

constraints   keep[b] <= keep[block around b]
              keep[b] <= keep[the next more important block that is alike]
              sum over i of width[g, i] = 1, or = keep[b] for a group inside block b
              sum over j of pair[l, i, j] = width[group read, i],
              sum over i of pair[l, i, j] = width[group written, j]
              sum over l, i, j of ms[l, i, j] * pair[l, i, j] <= budget

objective     the most: sum over l, i of importance[l, i] * width[group of l, i]

Once keep and width are whole numbers, pair is, too, so the latency is exact; and the relaxation is
far tighter than with the usual bounds of a product. Of a concatenation, the pairs of its parts'
widths, put together by their sums, are the widths.

Example: convolution 0 writes group 0 (4 units), which convolution 1 reads; nobody cuts what that
one writes (6 channels, group 1). A layer takes reads times writes microseconds. 4 units make
(3*4 + 4*6) / 1000 = 0.036 ms and 2 units half of it; 3 units, if they were offered, 0.027 ms.

>>> from models.netdef import parse
>>> from pruning.latency.search_space import find_search_space
>>> conv = "[convolutional]\nsize=1\nactivation=linear\n"
>>> yolo = "[yolo]\nmask=0\nanchors=8,8\nclasses=1\nnum=1"
>>> layers = f"{conv}batch_normalize=1\nfilters=4\n{conv}filters=6\n{yolo}"
>>> space = find_search_space(parse(f"[net]\nwidth=8\nheight=8\n{layers}"))
>>> importance = {0: (0, np.array([0.7, 1.0]))}  # of layer 0, in group 0: with 2 and with 4 units
>>> microseconds = lambda layer, reads, writes: reads * writes / 1000
>>> solve(space, [[2, 4], [6]], importance, microseconds, budget=0.04).configuration.counts
(4, 6)
>>> solve(space, [[2, 4], [6]], importance, microseconds, budget=0.02).configuration.counts
(2, 6)
>>> solve(space, [[2, 4], [6]], importance, microseconds, budget=0.01) is None
True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pruning.latency.options import DEFAULTS, SearchOptions
from pruning.latency.search_space import (
    Configuration,
    Floats,
    LatencyTerm,
    LayerLatency,
    SearchSpace,
    Width,
)

if TYPE_CHECKING:
    from scipy.sparse import coo_array

Variables = NDArray[np.int64]  # their numbers
ALWAYS = -1  # instead of a variable: what stands for 1


@dataclass(frozen=True)
class Solution:
    """What the programme chooses.

    Attributes:
        configuration: the widths and the removed blocks.
        importance: of what is kept.
        latency: milliseconds, by the table.
        gap: how much more importance there might be, as a share; 0 where there is none.
    """

    configuration: Configuration
    importance: float
    latency: float
    gap: float


def solve(
    space: SearchSpace,
    widths: Sequence[Sequence[int]],
    importance: Mapping[int, tuple[int, Floats]],
    layer_latency: LayerLatency,
    budget: float,
    options: SearchOptions = DEFAULTS,
    block_order: Sequence[Sequence[int]] = (),
) -> Solution | None:
    """The most importance within `budget` milliseconds; None where nothing takes so little.

    Args:
        space: the network's layers, groups and blocks.
        widths: by group, the numbers of units that it may keep.
        importance: by convolution, its group and [widths], the importance that is left where its
            group keeps that many units; where its block is removed, none is.
        layer_latency: milliseconds of a layer by its widths.
        budget: milliseconds that all layers may take together.
        options: when to stop looking for a better solution.
        block_order: blocks of which each one goes before the next, the first one first.
    """
    programme = _Programme(space, widths, importance, layer_latency, options, block_order)
    return programme.solve(budget)


@dataclass(frozen=True, eq=False)
class _Widths:
    """What width something may have: of the variables, the one that is 1 says which.

    Attributes:
        variables: [n]; none for a width that is fixed.
        channels: [n].
        block: the variable that they sum to: of the block without which there is no such width.
    """

    variables: Variables
    channels: Floats
    block: int


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Variables of a layer: [a, b], 1 where a's and b's are, all 0 where its block is removed."""

    variables: Variables
    a: _Widths
    b: _Widths
    block: int


@dataclass(frozen=True, eq=False)
class _Single:
    """Variables of a layer: 1 where those of `widths` are, all 0 where its block is removed."""

    variables: Variables
    widths: _Widths
    block: int


@dataclass(frozen=True, eq=False)
class _Sum:
    """The widths of a concatenation of two: which pairs (numbers in `pairs`) each stands for."""

    pairs: _Pairs
    members: Sequence[Variables]
    widths: _Widths


@dataclass(frozen=True, eq=False)
class _Amounts:
    """What it adds to a sum that variables are 1."""

    variables: Variables
    amounts: Floats


class _Programme:
    """The programme of the module's docstring: variables, constraints, objective."""

    def __init__(
        self,
        space: SearchSpace,
        widths: Sequence[Sequence[int]],
        importance: Mapping[int, tuple[int, Floats]],
        layer_latency: LayerLatency,
        options: SearchOptions,
        block_order: Sequence[Sequence[int]],
    ) -> None:
        self.space, self.widths, self.importance = space, widths, importance
        self.block_order = block_order
        self.layer_latency, self.options = layer_latency, options
        self.count = 0  # of variables
        self.links: list[_Pairs | _Single | _Sum] = []  # what ties variables of layers to others
        self.milliseconds: list[_Amounts] = []
        self.gains: list[_Amounts] = []
        self.rows: list[tuple[list[int], list[float], float, float]] = []
        self.add_variables()
        self.add_constraints()

    # variables

    def add_variables(self) -> None:
        self.keep = {block: int(self.new(1)[0]) for block in self.space.outer_blocks}
        self.groups = [self.group(number) for number in range(len(self.widths))]
        self.whole = self.count  # the variables up to here are whole numbers
        self.concatenated: dict[tuple[Width, int], _Widths] = {}
        for term in self.space.terms:
            self.layer(term)

    def new(self, count: int) -> Variables:
        self.count += count
        return np.arange(self.count - count, self.count)

    def group(self, number: int) -> _Widths:
        block = self.keep.get(self.space.group_blocks[number], ALWAYS)
        counts = self.widths[number]
        return _Widths(self.new(len(counts)), np.array(counts, float), block)

    def layer(self, term: LatencyTerm) -> None:
        """A layer's variables, and what importance and milliseconds they stand for."""
        block = self.keep.get(term.block, ALWAYS)
        if term.layer in self.importance:
            group, importance = self.importance[term.layer]
            self.gains.append(_amounts(self.single(self.groups[group], block), block, importance))
        writes = self.width(term.writes, block)
        if term.tied:
            ms = self.layer_latency(term.layer, self.tied_reads(term, writes), writes.channels)
            variables = self.single(writes, block)
        else:
            reads = self.width(term.reads, block)
            grid = np.broadcast_arrays(reads.channels[:, None], writes.channels)
            ms = self.layer_latency(term.layer, *grid)
            if reads.variables.size and writes.variables.size:
                variables = self.pairs(reads, writes, block).variables
            else:
                variables = self.single(reads if reads.variables.size else writes, block)
        self.milliseconds.append(_amounts(variables, block, ms))

    def tied_reads(self, term: LatencyTerm, writes: _Widths) -> Floats:
        """The channels that a layer reads that writes so many: as many, times a fixed factor."""
        one_unit = [1] * len(self.widths)
        ratio = term.reads.channels(one_unit) / term.writes.channels(one_unit)
        return writes.channels * ratio

    def width(self, width: Width, block: int) -> _Widths:
        """The widths that something may have in a block (its variable): of a group, or a sum."""
        if (width, block) not in self.concatenated:
            total: _Widths | None = None
            for number, per_unit in width.parts:
                group = self.groups[number]
                part = _Widths(group.variables, group.channels * per_unit, group.block)
                total = part if total is None else self.sum(total, part, block)
            total = total or _Widths(np.zeros(0, np.int64), np.zeros(1), ALWAYS)
            channels = total.channels + width.fixed
            self.concatenated[width, block] = _Widths(total.variables, channels, total.block)
        return self.concatenated[width, block]

    def sum(self, a: _Widths, b: _Widths, block: int) -> _Widths:
        pairs = self.pairs(a, b, block)
        sums = (a.channels[:, None] + b.channels).ravel()
        places = _binned(sums, self.options.sums_per_concatenation)
        members = [np.flatnonzero(places == place) for place in range(int(places.max()) + 1)]
        channels = np.array([sums[inside].mean() for inside in members])
        widths = _Widths(self.new(len(members)), channels, block)
        self.links.append(_Sum(pairs, members, widths))
        return widths

    def pairs(self, a: _Widths, b: _Widths, block: int) -> _Pairs:
        variables = self.new(len(a.variables) * len(b.variables)).reshape(len(a.variables), -1)
        pairs = _Pairs(variables, a, b, block)
        self.links.append(pairs)
        return pairs

    def single(self, widths: _Widths, block: int) -> Variables:
        if not widths.variables.size or widths.block == block:
            return widths.variables
        single = _Single(self.new(len(widths.variables)), widths, block)
        self.links.append(single)
        return single.variables

    # constraints

    def add_constraints(self) -> None:
        for block, outer in self.space.outer_blocks.items():
            if outer >= 0:
                self.row([self.keep[block], self.keep[outer]], [1, -1], -np.inf, 0)
        for blocks in self.block_order:
            for first, second in pairwise(blocks):
                self.row([self.keep[first], self.keep[second]], [1, -1], -np.inf, 0)
        for group in self.groups:
            self.one_of(group.variables, group.block)
        for link in self.links:
            self.tie(link)

    def row(
        self, variables: Sequence[int], factors: Sequence[float], low: float, high: float
    ) -> None:
        self.rows.append((list(variables), list(factors), low, high))

    def equal(self, variables: Variables, total: int) -> None:
        """Variables sum to another one."""
        self.row([*variables.tolist(), total], [1] * len(variables) + [-1], 0, 0)

    def one_of(self, variables: Variables, block: int) -> None:
        """One of them is 1; none where the block (its variable) is removed."""
        if block == ALWAYS:
            self.row(variables.tolist(), [1] * len(variables), 1, 1)
        else:
            self.equal(variables, block)

    def tie(self, link: _Pairs | _Single | _Sum) -> None:
        if isinstance(link, _Pairs):
            self.follow(link.variables, link.a, link.block)
            self.follow(link.variables.T, link.b, link.block)
            if link.a.block != link.block and link.b.block != link.block:
                self.one_of(link.variables.ravel(), link.block)
        elif isinstance(link, _Single):
            self.follow(link.variables[:, None], link.widths, link.block)
            self.one_of(link.variables, link.block)
        else:
            pairs = link.pairs.variables.ravel()
            for inside, variable in zip(link.members, link.widths.variables.tolist(), strict=True):
                self.equal(pairs[inside], variable)

    def follow(self, variables: Variables, widths: _Widths, block: int) -> None:
        """Rows of [widths, any] sum to the variables of the widths.

        Where the layer's block may be removed without them, to no more than these.
        """
        low = 0.0 if widths.block == block else -np.inf
        for row, variable in zip(variables.tolist(), widths.variables.tolist(), strict=True):
            self.row([*row, variable], [1] * len(row) + [-1], low, 0)

    def matrix(self, budget: float) -> tuple[coo_array, Floats, Floats]:
        """All rows, the budget's last: [rows, variables], and their least and largest values."""
        from scipy.sparse import coo_array

        ms, always = self.total(self.milliseconds)
        within = np.flatnonzero(ms)
        limit = (within.tolist(), ms[within].tolist(), -np.inf, budget - always)
        variables, factors, low, high = zip(*self.rows, limit, strict=True)
        numbers = np.repeat(np.arange(len(variables)), [len(row) for row in variables])
        values = (np.concatenate(factors), (numbers, np.concatenate(variables)))
        return coo_array(values, shape=(len(low), self.count)), np.array(low), np.array(high)

    # objective

    def total(self, terms: Sequence[_Amounts]) -> tuple[Floats, float]:
        """A sum's factor of each variable, and what is always in it."""
        sums = np.zeros(self.count + 1)  # the last one is that of `ALWAYS`
        for term in terms:
            np.add.at(sums, term.variables.ravel(), term.amounts.ravel())
        return sums[:-1], float(sums[ALWAYS])

    def solve(self, budget: float) -> Solution | None:
        from scipy.optimize import Bounds, LinearConstraint, milp

        importance, always = self.total(self.gains)
        scale = max(1e-30, float(np.abs(importance).max(initial=0.0)))
        result = milp(
            -importance / scale,
            integrality=(np.arange(self.count) < self.whole).astype(int),
            bounds=Bounds(0, 1),
            constraints=LinearConstraint(*self.matrix(budget)),
            options={
                "mip_rel_gap": self.options.gap,
                "time_limit": self.options.solver_seconds,
            },
        )
        if result.x is None:
            return None
        configuration = self.configuration(result.x)
        return Solution(
            configuration,
            always + float(importance @ result.x),
            self.space.latency(self.layer_latency, configuration),
            float(result.mip_gap or 0.0),
        )

    def configuration(self, x: Floats) -> Configuration:
        """What values of the variables say."""
        removed = tuple(sorted(block for block, n in self.keep.items() if x[n] < 0.5))
        counts = tuple(
            widths[int(np.argmax(x[group.variables]))]
            for group, widths in zip(self.groups, self.widths, strict=True)
        )
        return Configuration(counts, removed)


def _amounts(variables: Variables, block: int, amounts: Floats) -> _Amounts:
    """What variables stand for; without any, it is the block's, or always there."""
    return _Amounts(variables if variables.size else np.array([block]), amounts)


def _binned(values: Floats, most: int) -> NDArray[np.int64]:
    """Numbers from 0 on for values, ascending: near ones share one where there are too many."""
    different, places = np.unique(values, return_inverse=True)
    while len(different) > most:
        nearest = int(np.argmin(np.diff(different)))
        places[places > nearest] -= 1
        different = np.delete(different, nearest + 1)
    return np.asarray(places, np.int64)
