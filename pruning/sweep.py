"""How much can be cut of a network before its mAP falls?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from terminaltables import AsciiTable

from import_param import Pruning
from models.costs import count_operations, count_parameters
from models.darknet import Darknet
from pruning.batch_norm import reestimate_bn_
from pruning.importance import gamma
from pruning.strategies import STRATEGIES
from pruning.surgeon import Plan, cut
from utils.structures import Batch

PERCENTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
LOSS = 0.02  # of mAP that a cut may cost before fine-tuning to count as borne
BATCHES = 32  # to re-estimate batch normalisation with


@dataclass(frozen=True)
class Point:
    """What is left of a network at a `percent`: its mAP as it was cut, and with BN re-estimated;
    parameters, and operations per image."""

    percent: float
    as_cut: float
    reestimated: float
    parameters: int
    operations: int

    @property
    def mean_ap(self) -> float:
        """The better one: where only the dead are cut, their statistics still fit best."""
        return max(self.as_cut, self.reestimated)


def bearing(
    model: Darknet,
    strategy: str,
    target: Pruning,
    measure: Callable[[Darknet], float],
    calibration: Iterable[Batch],
    percents: Sequence[float] = PERCENTS,
) -> list[Point]:
    """Cut a network by each of `percents` and measure it, before and after BN is re-estimated, but
    without fine-tuning.

    target: what else the strategy is to heed. measure: a network's mAP. calibration: batches of
    training photos, without augmentation. The first point is the network as it is.
    """
    importance = gamma(model)
    whole = measure(model.eval())
    points = [_point(0.0, whole, whole, model)]
    before: Plan | None = None
    for percent in percents:
        plan = STRATEGIES[strategy](model.netdef, importance, replace(target, percent=percent))
        if before and before.equals(plan):
            continue  # all that may go is gone, or not one block more
        before = plan
        small = cut(model, plan)
        as_cut = measure(small)
        reestimate_bn_(small, calibration, BATCHES)
        points.append(_point(percent, as_cut, measure(small), small))
    return points


def _point(percent: float, as_cut: float, reestimated: float, model: Darknet) -> Point:
    operations = count_operations(model.netdef)
    return Point(percent, as_cut, reestimated, count_parameters(model), operations)


def borne(points: Sequence[Point]) -> Point:
    """The last point before mAP falls by more than `LOSS` below the uncut network's."""
    last = points[0]
    for point in points[1:]:
        if point.mean_ap < points[0].mean_ap - LOSS:
            break
        last = point
    return last


def bearing_line(points: Sequence[Point]) -> str:
    """What the network would bear, in words."""
    whole, last = points[0], borne(points)
    if whole.mean_ap <= LOSS:
        return f"Too little is found yet to tell what it would bear: mAP {whole.mean_ap:.4f} uncut"
    return (
        f"It would bear percent={last.percent:g}: mAP {last.mean_ap:.4f}, {whole.mean_ap:.4f} "
        f"uncut, with {whole.operations / last.operations:.1f} times fewer operations"
    )


def bearing_table(points: Sequence[Point]) -> str:
    rows = [
        [
            f"{point.percent:g}",
            f"{point.as_cut:.4f}",
            f"{point.reestimated:.4f}",
            f"{point.parameters / 1e6:.3f} M",
            f"{point.operations / 1e9:.3f} G",
        ]
        for point in points
    ]
    return AsciiTable(
        [["percent", "mAP as cut", "with new BN", "parameters", "operations"], *rows]
    ).table
