"""Which boxes of many overlap, without comparing each with each?

Where the IoU of two boxes is above t, so is that of their shadows on either axis. Then their sides
differ by less than a factor 1 / t, and their centres by less than (1 - t) / (1 + t) of the mean
side. So boxes are sorted by class, octave of width, octave of height, column and centre, and one
looks for another in neighbouring octaves only, in two columns, and there within a stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]
Boxes = NDArray[np.float32]  # [N, 4], xyxy
Removes = Callable[[Boxes, Boxes], NDArray[np.bool_]]  # of pairs [4, P], the better first
Stretches = tuple[Ints, Ints, Ints]  # a box, and where those begin and end that it may overlap

SLACK = 1.001  # for what float32 rounds
SMALLEST = 1e-15  # of a side, in pixels: a product of smaller ones has no precision in float32
MOST_PAIRS = 1_500_000  # that are looked at in one go; beyond it the best boxes thin out the others
HEAD = 500  # the best boxes, that do so
HEIGHT_BITS, COLUMN_BITS, OCTAVE_BITS = 20, 14, 7  # of a key; the label has the rest
# Octaves of width and height from a box to others: of all pairs one way, and both ways.
ONE_WAY = ((0, 0), (0, 1), (1, -1), (1, 0), (1, 1))
BOTH_WAYS = tuple((wide, high) for wide in (-1, 0, 1) for high in (-1, 0, 1))


def survivors(boxes: Boxes, labels: Ints, least: float, removes: Removes) -> Ints:
    """Candidates, best first → the indices that survive, rising.

    removes: says it of pairs of one class; it must say no where the IoU is `least` or below.
    No side may lie between 0 and SMALLEST, and no corner beyond a million pixels.
    """
    kept = [np.flatnonzero((boxes[:, 2:] <= boxes[:, :2]).any(1))]  # no area: overlaps nothing
    left = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(1))
    count = HEAD
    while len(left):
        index = Index(boxes[left], labels[left], least)
        ranges = list(index.ranges(np.arange(len(left)), ONE_WAY))
        if sum(int((last - first).sum()) for _, first, last in ranges) <= MOST_PAIRS:
            kept.append(left[_greedy(*index.pairs(ranges, removes), len(left))])
            break
        head = left[: min(count, len(left) // 2)]
        best = survivors(boxes[head], labels[head], least, removes)
        kept.append(left[best])
        _, worse = index.pairs(index.ranges(best, BOTH_WAYS), removes)
        gone = np.zeros(len(left), bool)
        gone[worse] = gone[: len(head)] = True
        left = left[~gone]
        count *= 2
    return np.sort(np.concatenate(kept))


class Index:
    """Boxes [N, 4] with an area, sorted so that what may overlap a box lies in a few stretches."""

    def __init__(self, boxes: Boxes, labels: Ints, least: float) -> None:
        self._boxes, self._labels = np.ascontiguousarray(boxes.T), labels
        ratio = max(SLACK / least, 1.6)
        self._near = SLACK * max((1 - least) / (1 + least), 0.01)
        corners = self._boxes.astype(np.float64)
        self._sides = corners[2:] - corners[:2]  # [2, N]
        self._centres = (corners[2:] + corners[:2]) / 2
        self._octaves = (np.log(self._sides / SMALLEST) / np.log(ratio)).astype(np.int64) + 1
        self._largest = SMALLEST * ratio ** np.arange(1 << OCTAVE_BITS)  # side in each octave
        self._lowest = self._centres[1].min()
        self._units = ((1 << HEIGHT_BITS) - 1) / max(np.ptp(self._centres[1]), 1.0)
        wide, high = self._octaves
        column = np.floor(self._centres[0] / self._column(wide)).astype(np.int64)
        keys = self._rows(labels, wide, high, column) + self._height(self._centres[1])
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self._ends = np.append(self._keys, np.iinfo(np.int64).max)
        reach = self._near / 2 * self._sides
        self._stretches = [
            (c[self._order], r[self._order]) for c, r in zip(self._centres, reach, strict=True)
        ]
        self._place = np.argsort(self._order)

    def _column(self, wide: Ints) -> Floats:
        """How wide the columns of an octave are: a box looks into two or three."""
        return 2 * self._near * self._largest[wide]

    def _height(self, y: Floats) -> Ints:
        units = (y - self._lowest) * self._units
        return np.clip(units, 0, (1 << HEIGHT_BITS) - 1).astype(np.int64)

    def _rows(self, labels: Ints, wide: Ints, high: Ints, column: Ints) -> Ints:
        """Distant columns may share a number: it only brings pairs that do not overlap."""
        row = (labels << OCTAVE_BITS | wide) << OCTAVE_BITS | high
        return (row << COLUMN_BITS | column & ((1 << COLUMN_BITS) - 1)) << HEIGHT_BITS

    def ranges(self, boxes: Ints, steps: tuple[tuple[int, int], ...]) -> Iterator[Stretches]:
        """For some boxes, where in the order those lie that they may overlap.

        In their own octaves, with ONE_WAY, only those that come after them.
        """
        boxes = self._order[np.sort(self._place[boxes])]
        labels, places = self._labels[boxes], self._place[boxes]
        (x, y), sides = self._centres[:, boxes], self._sides[:, boxes]
        for step in steps:
            wide, high = self._octaves[:, boxes] + np.array(step)[:, None]
            across = self._near * (sides[0] + self._largest[wide]) / 2
            along = self._near * (sides[1] + self._largest[high]) / 2
            column = self._column(wide)
            left, right = np.floor([(x - across) / column, (x + across) / column]).astype(np.int64)
            low, above = self._height(y - along), self._height(y + along) + 1
            for number in range(int((right - left).max()) + 1):
                row = self._rows(labels, wide, high, left + number)
                first = np.searchsorted(self._keys, row + low)
                if step == (0, 0) and steps == ONE_WAY:
                    first = np.maximum(first, places + 1)
                end = row + above
                some = (self._ends[first] < end) & (left + number <= right)
                first = first[some]
                yield places[some], first, np.searchsorted(self._keys, end[some])

    def pairs(self, ranges: Iterable[Stretches], removes: Removes) -> tuple[Ints, Ints]:
        """The pairs (better, worse) of which the worse one goes if the better one stays."""
        found = [self._pairs(*stretches, removes) for stretches in ranges]
        better, worse = (np.concatenate(part) for part in zip(*found, strict=True))
        return better, worse

    def _pairs(self, box: Ints, first: Ints, last: Ints, removes: Removes) -> tuple[Ints, Ints]:
        counts = last - first
        starts = np.cumsum(counts) - counts
        other = np.arange(counts.sum()) - np.repeat(starts - first, counts)
        box = np.repeat(box, counts)
        for centre, reach in self._stretches:
            near = np.abs(centre[box] - centre[other]) <= reach[box] + reach[other]
            chosen = np.flatnonzero(near)
            box, other = box[chosen], other[chosen]
        box, other = self._order[box], self._order[other]
        better, worse = np.minimum(box, other), np.maximum(box, other)
        chosen = np.flatnonzero(removes(self._boxes[:, better], self._boxes[:, worse]))
        return better[chosen], worse[chosen]


def _greedy(better: Ints, worse: Ints, count: int) -> Ints:
    """The survivors of `count` boxes, best first, of which the better removes the worse one."""
    gone = bytearray(count)
    order = np.argsort(better, kind="stable")  # all that may remove a box come before what it may
    for one, other in zip(better[order].tolist(), worse[order].tolist(), strict=True):
        if not gone[one]:
            gone[other] = 1
    return np.flatnonzero(np.frombuffer(gone, np.uint8) == 0)
