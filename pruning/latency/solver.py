"""Which widths and blocks are worth most in a number of milliseconds? A mixed-integer programme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from pruning.latency.search_space import LayerCost, Layout, Term, Width

Floats = NDArray[np.float64]

# How far from the best worth a solution may be, as a share, and how long the solver may look.
GAP, SECONDS = 2e-3, 40.0
SUMS = 48  # different widths of a concatenation that are told apart


@dataclass(frozen=True)
class Choice:
    """counts: by group, the units to keep. blocks: the shortcuts of blocks to remove, ascending.
    worth, cost: their worth, and their milliseconds by the table. gap: how much more worth there
    might be, as a share: 0 where the choice is the best one."""

    counts: tuple[int, ...]
    blocks: tuple[int, ...]
    worth: float
    cost: float
    gap: float


def choose(
    layout: Layout,
    options: Sequence[Sequence[int]],
    values: Mapping[int, tuple[int, Floats]],
    cost: LayerCost,
    budget: float,
    seconds: float = SECONDS,
) -> Choice | None:
    """The most worth within `budget` milliseconds; None where no choice is.

    options: by group, the numbers of units that it may keep. values: by convolution, its group and
    [options], what it is worth where that many of them are kept, and 0 where its block is gone.

    One variable a group and option, and one a block, are 0 or 1. A layer that reads one group and
    writes another costs what its pair of widths costs: a variable a pair, whose sums over rows and
    columns are the groups' variables. With these whole, the pairs are, too, so the cost is exact;
    and the relaxation is far tighter than with the usual bounds of a product. (The variables are
    those of MDP, Sun et al., CVPR 2025.) Of concatenations, the pairs of widths are the options.
    """
    return _Programme(layout, options, values, cost).solve(budget, seconds)


@dataclass(frozen=True, eq=False)
class _Spread:
    """Variables of which one is 1, or none where their `total` is 0: what width something has.

    variables: [n]; none for a width that is fixed. widths: [n]. total: the variable of the block
    without which there is no such width; -1 for none.
    """

    variables: NDArray[np.int64]
    widths: Floats
    total: int


class _Programme:
    def __init__(
        self,
        layout: Layout,
        options: Sequence[Sequence[int]],
        values: Mapping[int, tuple[int, Floats]],
        cost: LayerCost,
    ) -> None:
        self.layout, self.options, self.values, self.cost = layout, options, values, cost
        self.count = 0
        self.costs: dict[int, float] = {}  # by variable; of -1, which is always 1
        self.worths: dict[int, float] = {}
        self.rows: list[tuple[list[int], list[float], float, float]] = []
        self.blocks = {block: self._new(1)[0] for block in layout.outer}
        for block, outer in layout.outer.items():
            if outer >= 0:
                self._row([self.blocks[block], self.blocks[outer]], [1, -1], -np.inf, 0)
        self.groups = [self._group(number) for number in range(len(options))]
        self.whole = self.count  # the variables up to here are whole numbers
        self.spreads: dict[tuple[Width, int], _Spread] = {}
        for term in layout.terms:
            self._term(term)

    def _new(self, count: int) -> NDArray[np.int64]:
        self.count += count
        return np.arange(self.count - count, self.count)

    def _row(
        self, variables: Sequence[int], factors: Sequence[float], low: float, high: float
    ) -> None:
        self.rows.append((list(variables), list(factors), low, high))

    def _sums_to(self, variables: NDArray[np.int64], block: int) -> None:
        """One of them is 1; none where the block (a variable) is gone."""
        if block < 0:
            self._row(variables.tolist(), [1] * len(variables), 1, 1)
        else:
            self._row([*variables.tolist(), block], [1] * len(variables) + [-1], 0, 0)

    def _group(self, number: int) -> _Spread:
        home = self.blocks.get(self.layout.homes[number], -1)
        variables = self._new(len(self.options[number]))
        self._sums_to(variables, home)
        return _Spread(variables, np.array(self.options[number], float), home)

    def _spread(self, width: Width, block: int) -> _Spread:
        """The widths that something may have; `block`: the variable of the block that it is in."""
        if (width, block) not in self.spreads:
            found: _Spread | None = None
            for group, each in width.parts:
                own = self.groups[group]
                part = _Spread(own.variables, own.widths * each, own.total)
                found = part if found is None else self._sum(found, part, block)
            nothing = np.zeros(0, np.int64)
            found = found or _Spread(nothing, np.zeros(1), -1)
            spread = _Spread(found.variables, found.widths + width.fixed, found.total)
            self.spreads[width, block] = spread
        return self.spreads[width, block]

    def _sum(self, a: _Spread, b: _Spread, block: int) -> _Spread:
        pairs = self._pairs(a, b, block)
        sums = (a.widths[:, None] + b.widths).ravel()
        places = _binned(sums, SUMS)
        variables = self._new(int(places.max()) + 1)
        widths = np.zeros(len(variables))
        for place, variable in enumerate(variables.tolist()):
            inside = np.flatnonzero(places == place)
            widths[place] = sums[inside].mean()
            self._row([*pairs.ravel()[inside].tolist(), variable], [1] * len(inside) + [-1], 0, 0)
        return _Spread(variables, widths, block)

    def _pairs(self, a: _Spread, b: _Spread, block: int) -> NDArray[np.int64]:
        """[a, b] variables: 1 where a's and b's are, and all 0 where the block is gone."""
        pairs = self._new(len(a.variables) * len(b.variables)).reshape(len(a.variables), -1)
        self._bound(pairs, a, block)
        self._bound(pairs.T, b, block)
        if a.total != block and b.total != block:
            self._sums_to(pairs.ravel(), block)
        return pairs

    def _bound(self, pairs: NDArray[np.int64], spread: _Spread, block: int) -> None:
        """Rows sum to the spread's variables, or to less if only these are there without it."""
        low = 0.0 if spread.total == block else -np.inf
        for row, variable in zip(pairs.tolist(), spread.variables.tolist(), strict=True):
            self._row([*row, variable], [1] * len(row) + [-1], low, 0)

    def _term(self, term: Term) -> None:
        block = self.blocks.get(term.block, -1)
        if term.layer in self.values:
            group, worth = self.values[term.layer]
            self._add(self.worths, self._only(self.groups[group], block), block, worth)
        writes = self._spread(term.writes, block)
        if term.narrow:
            ms = self.cost(term.layer, self._narrow_reads(term, writes), writes.widths)
            self._add(self.costs, self._only(writes, block), block, ms)
            return
        reads = self._spread(term.reads, block)
        ms = self.cost(term.layer, *np.broadcast_arrays(reads.widths[:, None], writes.widths))
        if reads.variables.size and writes.variables.size:
            self._add(self.costs, self._pairs(reads, writes, block), block, ms)
        else:
            one = reads if reads.variables.size else writes
            self._add(self.costs, self._only(one, block), block, ms.ravel())

    def _narrow_reads(self, term: Term, writes: _Spread) -> Floats:
        """What a layer reads that writes so many channels: as many, times a fixed factor."""
        ones = [1] * len(self.options)
        return writes.widths * (term.reads.of(ones) / term.writes.of(ones))

    def _only(self, spread: _Spread, block: int) -> NDArray[np.int64]:
        """The variables of a spread, 0 where the block is gone."""
        if not spread.variables.size or spread.total == block:
            return spread.variables
        variables = self._new(len(spread.variables))
        self._bound(variables[:, None], spread, block)
        self._sums_to(variables, block)
        return variables

    def _add(
        self, to: dict[int, float], variables: NDArray[np.int64], block: int, amounts: Floats
    ) -> None:
        """Let the variables stand for these amounts; without any, the block, or what is always."""
        if not variables.size:
            variables = np.array([block])
        pairs = zip(variables.ravel().tolist(), amounts.ravel().tolist(), strict=True)
        for variable, amount in pairs:
            to[variable] = to.get(variable, 0.0) + amount

    def solve(self, budget: float, seconds: float) -> Choice | None:
        worth, cost = self._vector(self.worths), self._vector(self.costs)
        matrix, low, high = self._matrix(cost, budget - self.costs.get(-1, 0.0))
        scale = max(1e-30, float(np.abs(worth).max(initial=0.0)))
        whole = np.arange(self.count) < self.whole
        found = milp(
            -worth / scale,
            integrality=whole.astype(int),
            bounds=Bounds(0, 1),
            constraints=LinearConstraint(matrix, low, high),
            options={"mip_rel_gap": GAP, "time_limit": seconds},
        )
        if found.x is None:
            return None
        total = self.worths.get(-1, 0.0) + float(worth @ found.x)
        return self._choice(found.x, float(found.mip_gap or 0.0), total)

    def _vector(self, amounts: Mapping[int, float]) -> Floats:
        vector = np.zeros(self.count)
        for variable, amount in amounts.items():
            if variable >= 0:
                vector[variable] = amount
        return vector

    def _matrix(self, cost: Floats, budget: float) -> tuple[coo_array, Floats, Floats]:
        """All rows, and the budget, with their bounds."""
        variables = np.flatnonzero(cost)
        rows = [*self.rows, (variables.tolist(), cost[variables].tolist(), -np.inf, budget)]
        lengths = [len(row[0]) for row in rows]
        matrix = coo_array(
            (
                np.concatenate([row[1] for row in rows]),
                (np.repeat(np.arange(len(rows)), lengths), np.concatenate([r[0] for r in rows])),
            ),
            shape=(len(rows), self.count),
        )
        return matrix, np.array([row[2] for row in rows]), np.array([row[3] for row in rows])

    def _choice(self, x: Floats, gap: float, worth: float) -> Choice:
        blocks = tuple(sorted(block for block, n in self.blocks.items() if x[n] < 0.5))
        counts = tuple(
            found[int(np.argmax(x[group.variables]))]
            for group, found in zip(self.groups, self.options, strict=True)
        )
        cost = self.layout.cost(self.cost, counts, blocks)
        return Choice(counts, blocks, worth, cost, gap)


def _binned(values: Floats, most: int) -> NDArray[np.int64]:
    """Numbers from 0 on for values, ascending: near ones share one where there are too many."""
    different, places = np.unique(values, return_inverse=True)
    while len(different) > most:
        nearest = int(np.argmin(np.diff(different)))
        places[places > nearest] -= 1
        different = np.delete(different, nearest + 1)
    return np.asarray(places, np.int64)
