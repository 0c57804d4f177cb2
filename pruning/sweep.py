"""How much can be cut of a network before its mAP falls, without fine-tuning?"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, fields, replace

from terminaltables import AsciiTable

from import_param import Pruning, Runtime
from models.costs import count_operations, count_parameters
from models.darknet import Darknet
from pruning.batch_norm import reestimate_bn_
from pruning.importance import gamma
from pruning.latency.meter import open_meter
from pruning.strategies import strategy_named
from pruning.surgeon import Plan, cut
from utils.console.progress import say, track
from utils.errors import InputError
from utils.structures import Batch

PERCENTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
SAFE_LOSS = 0.02  # of mAP that a cut may cost before fine-tuning to count as safe,
SAFE_SHARE = 0.05  # and as a share of the uncut network's mAP: the less of both
LEAST_MAP = 0.1  # of the uncut network; below it, a fall of mAP says nothing of what a cut costs
BATCHES = 32  # to re-estimate batch normalisation with
ROUNDS = 5  # in which a cut network and the whole one are timed in turns


@dataclass(frozen=True)
class SweepPoint:
    """What is left of a network at a share.

    Attributes:
        percent: the share that was cut, 0 to 1.
        as_cut: its mAP@.5 (NaN where there is none) with the statistics of the whole network.
        reestimated: its mAP@.5 with BN re-estimated.
        parameters: how many it has.
        operations: for one image.
        ms: milliseconds that it takes for one; NaN where that was not measured.
    """

    percent: float
    as_cut: float
    reestimated: float
    parameters: int
    operations: int
    ms: float = math.nan

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
    milliseconds: Callable[[Darknet], float] = lambda model: math.nan,
) -> list[SweepPoint]:
    """Cut a network by each of `percents` and measure it, without fine-tuning.

    Each is measured before and after BN is re-estimated.

    Args:
        model: the network; it stays as it is.
        strategy: one of `STRATEGIES`, or the user's.
        target: what the strategy is to heed beside the share.
        measure: a network's mAP@.5.
        batches: training photos, without augmentation, to re-estimate BN on.
        percents: the shares, ascending; those that cut no more than the one before are left out.
        milliseconds: that a network takes for one image.

    Returns:
        The network as it is, at 0, and then a point a share.
    """
    importance = gamma(model)
    whole = measure(model.eval())
    points = [_point(0.0, whole, whole, model, milliseconds(model))]
    before: Plan | None = None
    for percent in track(percents, "mAP by the share cut"):
        plan = strategy_named(strategy)(model.netdef, importance, replace(target, percent=percent))
        if before and before.equals(plan):
            continue  # nothing is left that may go, or not one block more
        before = plan
        small = cut(model, plan)
        as_cut = measure(small)
        reestimate_bn_(small, batches, BATCHES)
        points.append(_point(percent, as_cut, measure(small), small, milliseconds(small)))
    return points


def _point(
    percent: float, as_cut: float, reestimated: float, model: Darknet, ms: float
) -> SweepPoint:
    operations = count_operations(model.netdef)
    return SweepPoint(percent, as_cut, reestimated, count_parameters(model), operations, ms)


def milliseconds_beside(
    model: Darknet, size: tuple[int, int], runtime: Runtime, batch: int = 1
) -> Callable[[Darknet], float]:
    """What measures the milliseconds of cuts of a network; they are its own times a factor.

    Each cut network takes turns with the whole one, so that a machine that is busy at one time and
    not at another does not bend the curve. Where the engine cannot run them nothing is measured.

    Args:
        model: the whole network.
        size: (width, height) of its input in pixels.
        runtime: the engine.
        batch: images at once.
    """
    try:
        meter = open_meter(model, size, runtime, batch=batch)
        whole = meter.open(model, size)
    except InputError as error:
        say(f"warning: {error}: nothing is timed")
        return lambda small: math.nan
    own: list[float] = []

    def milliseconds(small: Darknet) -> float:
        try:
            runs = [whole, meter.open(small, size)]
        except InputError as error:
            say(f"warning: {error}")
            return math.nan
        before, after = meter.time_runs(runs, size, ROUNDS).tolist()
        own.append(before)
        return float(own[0] * after / before)

    return milliseconds


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
            *([f"{point.ms:.2f}"] if math.isfinite(points[0].ms) else []),
        ]
        for point in points
    ]
    head = ["percent", "mAP as cut", "with new BN", "parameters", "operations", "ms"]
    return str(AsciiTable([head[: len(rows[0])], *rows]).table)


def sweep_csv(points: Sequence[SweepPoint]) -> str:
    """A row a point, a column for each field of `SweepPoint`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(SweepPoint))
    writer.writerows(map(astuple, points))
    return text.getvalue()
