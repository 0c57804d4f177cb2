"""How long will a network take once it is cut, and which cut makes the most of a time?"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from models.darknet import Darknet
from models.netdef import NetDef
from pruning.budget import Choice, cheapest, choose
from pruning.costs import (
    CostTable,
    Kind,
    Open,
    Run,
    Span,
    kind_of,
    measure_table_,
    picture,
    read_shapes,
    take_turns,
)
from pruning.layout import LayerCost, Layout, Width, Worth, find_layout, find_worth
from pruning.scores import Scores
from pruning.strategies import group_step
from pruning.surgeon import Plan, cut
from utils.errors import InputError

Floats = NDArray[np.float64]
Rng = np.random.Generator

OPTIONS = 10  # widths of a group that are weighed
SAMPLES = 16  # random cuts that are measured whole for a calibration
ROUNDS = 12  # in which networks take turns to be measured
PRIOR = 0.05  # how much a factor is held near 1, as a share of a network's time
GONE = 0.2  # chance of a residual block to be gone in a random cut
FAMILIES = ("1x1", "kxk", "grouped", "pooling")  # of layers in the table, see `Kind.family`
MOVED = ("shortcut", "route")  # layers that combine maps; they cost by what they write


@dataclass(frozen=True)
class Calibration:
    """What a layer's time alone becomes in a whole network.

    factors: by family, of the table's milliseconds; by name of a layer that only combines maps,
    milliseconds for a million values that it writes. constant: milliseconds of everything else.
    error: by how much predictions of these networks are off, the mean as a share.
    """

    factors: Mapping[str, float]
    constant: float = 0.0
    error: float = 0.0


PLAIN = Calibration({**dict.fromkeys(FAMILIES, 1.0), **dict.fromkeys(MOVED, 0.0)})


class Clock:
    """Predicts what a network takes, by a table and a calibration, from its layers' widths."""

    def __init__(
        self, netdef: NetDef, size: tuple[int, int], table: CostTable, how: Calibration = PLAIN
    ) -> None:
        self.table, self.how = table, how
        self.maps = read_shapes(netdef, size)
        self.kinds = [kind_of(netdef, n, read[0]) for n, read in enumerate(self.maps)]
        self.names = [section.kind for section in netdef.layers]

    def __call__(self, layer: int, reads: Floats, writes: Floats) -> Floats:
        """A `LayerCost`: milliseconds of a layer."""
        return self.how.factors.get(self.family(layer), 0.0) * self.plain(layer, reads, writes)

    def family(self, layer: int) -> str:
        kind = self.kinds[layer]
        return kind.family if kind else self.names[layer]

    def plain(self, layer: int, reads: Floats, writes: Floats) -> Floats:
        """The table's milliseconds; of a layer that is not in it, the million values it writes."""
        kind = self.kinds[layer]
        if kind:
            return self.table.ms(kind, reads, writes)
        _, height, width = self.maps[layer][0]
        return writes * (height * width / 1e6)

    def features(self, layout: Layout, choice: Choice) -> Floats:
        """[factors + 1]: what each factor is to be multiplied by, and 1 for the constant."""
        names = [*FAMILIES, *MOVED]
        sums = dict.fromkeys(names, 0.0)
        for name in names:
            only = lambda layer, i, o, name=name: (  # noqa: E731
                self.plain(layer, i, o) if self.family(layer) == name else 0 * o
            )
            sums[name] = layout.cost(only, choice.counts, choice.blocks)
        return np.array([*sums.values(), 1.0])

    def network(self, layout: Layout, choice: Choice) -> float:
        """Milliseconds of a whole network."""
        return self.how.constant + layout.cost(self, choice.counts, choice.blocks)


def calibrate(features: Floats, measured: Floats) -> Calibration:
    """The factors and the constant that predict measured networks best, by the mean square of the
    relative error, with a pull to 1 (0 for what combines maps) where these networks say little.

    features: [networks, factors + 1]. measured: [networks], milliseconds.
    """
    names = [*FAMILIES, *MOVED]
    wanted = np.array([*PLAIN.factors.values(), 0.0])
    relative = features / measured[:, None]
    weight = PRIOR * relative.max(0)  # a family of a large share is known well by itself
    rows = np.vstack([relative, np.diag(weight)])
    goal = np.append(np.ones(len(measured)), weight * wanted)
    found = lsq_linear(rows, goal, bounds=(0, np.inf)).x
    error = float(np.abs(relative @ found - 1).mean())
    return Calibration(dict(zip(names, found[:-1].tolist(), strict=True)), float(found[-1]), error)


def width_options(layout: Layout, layer_keep: float, step: int, round_to: int = 0) -> list[list[int]]:
    """By group, the numbers of units that it may keep, ascending: about `OPTIONS`, each so much wider,
    in steps of `round_to` channels, or of what is fast where that is 0."""
    found = []
    for number, group in enumerate(layout.groups):
        size = len(group)
        if not layout.free(number):
            found.append([size])
            continue
        each = group_step(group, round_to, step)
        least = min(size, _up(max(1, math.ceil(layer_keep * size - 1e-9)), each))
        spread = np.geomspace(least, size, OPTIONS)
        found.append(sorted({min(size, _up(round(count), each)) for count in spread.tolist()}))
    return found


def _up(count: int, step: int) -> int:
    return -(-count // step) * step


def spans(layout: Layout, clock: Clock) -> list[Span]:
    """The widths in which layers may come, for `measure_table_`: down to one step or a tenth."""
    options = width_options(layout, 0.0, clock.table.step)
    least, most = ([pick(found) for found in options] for pick in (min, max))
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
