"""How much can be cut of a network before its mAP falls, without fine-tuning?"""

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
SAFE_LOSS = 0.02  # of mAP that a cut may cost before fine-tuning to count as safe,
SAFE_SHARE = 0.05  # and as a share of the uncut network's mAP: the less of both
LEAST_MAP = 0.1  # of the uncut network; below it, a fall of mAP says nothing of what a cut costs
BATCHES = 32  # to re-estimate batch normalisation with


@dataclass(frozen=True)
class SweepPoint:
    """What is left of a network at a share.

    Attributes:
        percent: the share that was cut, 0 to 1.
        as_cut: its mAP@.5 (NaN where there is none) with the statistics of the whole network.
        reestimated: its mAP@.5 with BN re-estimated.
        parameters: how many it has.
        operations: for one image.
    """

    percent: float
    as_cut: float
    reestimated: float
    parameters: int
    operations: int

    @property
    def mean_ap(self) -> float:
        """The better one: where only dead channels are cut, their statistics still fit best."""
        return max(self.as_cut, self.reestimated, key=lambda value: (value == value, value))


def sweep(
    model: Darknet,
    strategy: str,
    target: Pruning,
    measure: Callable[[Darknet], float],
    batches: Iterable[Batch],
    percents: Sequence[float] = PERCENTS,
) -> list[SweepPoint]:
    """Cut a network by each of `percents` and measure it, without fine-tuning.

    Each is measured before and after BN is re-estimated.

    Args:
        model: the network; it stays as it is.
        strategy: one of `STRATEGIES`.
        target: what the strategy is to heed beside the share.
        measure: a network's mAP@.5.
        batches: training photos, without augmentation, to re-estimate BN on.
        percents: the shares, ascending; those that cut no more than the one before are left out.

    Returns:
        The network as it is, at 0, and then a point a share.
    """
    importance = gamma(model)
    whole = measure(model.eval())
    points = [_point(0.0, whole, whole, model)]
    before: Plan | None = None
    for percent in percents:
        plan = STRATEGIES[strategy](model.netdef, importance, replace(target, percent=percent))
        if before and before.equals(plan):
            continue  # nothing is left that may go, or not one block more
        before = plan
        small = cut(model, plan)
        as_cut = measure(small)
        reestimate_bn_(small, batches, BATCHES)
        points.append(_point(percent, as_cut, measure(small), small))
    return points


def _point(percent: float, as_cut: float, reestimated: float, model: Darknet) -> SweepPoint:
    operations = count_operations(model.netdef)
    return SweepPoint(percent, as_cut, reestimated, count_parameters(model), operations)


def safe_point(points: Sequence[SweepPoint]) -> SweepPoint | None:
    """The last point before mAP falls by more than `safe_loss`; None where nothing can be told."""
    if not points[0].mean_ap >= LEAST_MAP:
        return None
    last, least = points[0], points[0].mean_ap - safe_loss(points[0])
    for point in points[1:]:
        if not point.mean_ap >= least:
            break
        last = point
    return last


def safe_loss(whole: SweepPoint) -> float:
    """What of the uncut network's mAP a cut may cost."""
    return min(SAFE_LOSS, SAFE_SHARE * whole.mean_ap)


def safe_ratio_line(points: Sequence[SweepPoint]) -> str:
    """The safe ratio in words: how much can be cut before fine-tuning."""
    whole, safe = points[0], safe_point(points)
    if safe is None:
        return (
            f"Too little is detected yet to tell a safe ratio: mAP {whole.mean_ap:.4f} uncut, "
            f"below {LEAST_MAP:g}"
        )
    if not safe.percent:
        return f"Safe ratio: none: each cut costs more than {safe_loss(whole):.4f} of mAP " + (
            f"{whole.mean_ap:.4f}"
        )
    return (
        f"Safe ratio: percent={safe.percent:g}: mAP {safe.mean_ap:.4f}, {whole.mean_ap:.4f} "
        f"uncut (up to {safe_loss(whole):.4f} less counts as safe), with "
        f"{whole.operations / safe.operations:.1f} times fewer operations"
    )


def sweep_table(points: Sequence[SweepPoint]) -> str:
    """A row a point."""
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
    head = ["percent", "mAP as cut", "with new BN", "parameters", "operations"]
    return str(AsciiTable([head, *rows]).table)
