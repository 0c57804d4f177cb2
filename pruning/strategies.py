"""Given what channels are worth, which of them are kept, and which blocks?

A strategy is a pure function from a network's definition, scores and a target to a plan.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from import_param import Pruning
from models.darknet import shapes
from models.netdef import NetDef
from pruning.channels import Bools, Channels, Group, Ints, find_channels
from pruning.importance import Scores
from pruning.residual_blocks import Block, expect_blocks, residual_blocks, without_blocks
from pruning.surgeon import Plan, same_units
from utils.errors import InputError

Floats = NDArray[np.float64]
MEASURES = ("channels", "parameters", "operations")
# With as many operations, multiples of 8 take 0.7 to 0.9 of the time that any widths take on a CPU
# (measured: PyTorch, AMD EPYC, yolov3-tiny and -mobilenetv2 at 320×320); larger ones hardly less.
# Where a layer has few channels, a quarter of them is a coarse enough step.
FAST_STEP = 8
COARSEST = 4
NEAR = 0.01  # of what was asked: any further off is told


@dataclass(frozen=True)
class Target:
    """How much to cut.

    percent: the share that goes, 0 to below 1, of what `percent_of` says: of the channels that the
    strategy may cut, of all parameters, or of all operations. (For `layer`, `channels` means the
    residual blocks.) layer_keep: the share of its channels that every layer keeps at least.
    round_to: a layer keeps a multiple of so many channels, or all; 0 for what is fast on a CPU.
    blocks: the share of the residual blocks that `layer_channel` removes.
    """

    percent: float
    percent_of: str = "channels"
    layer_keep: float = 0.1
    round_to: int = 1
    blocks: float = 0.25

    def __post_init__(self) -> None:
        self._expect("percent", 0 <= self.percent < 1, "from 0 to below 1")
        self._expect("percent_of", self.percent_of in MEASURES, f"one of {', '.join(MEASURES)}")
        self._expect("layer_keep", 0 <= self.layer_keep <= 1, "from 0 to 1")
        self._expect("round_to", self.round_to >= 0, "at least 0")
        self._expect("blocks", 0 <= self.blocks <= 1, "from 0 to 1")

    def _expect(self, name: str, good: bool, what: str) -> None:
        if not good:
            raise InputError(f"{name}={getattr(self, name)!r}: expected {what}")


def target_of(pruning: Pruning) -> Target:
    return Target(
        pruning.percent,
        pruning.percent_of,
        pruning.layer_keep,
        pruning.round_to,
        pruning.percent_blocks,
    )


@dataclass(frozen=True)
class Shares:
    """The shares of a network that a plan takes away, 0 to 1.

    channels: of those that the strategy may cut. parameters, operations: of all.
    blocks: of the removable residual blocks; 0 where there is none.
    """

    channels: float
    parameters: float
    operations: float
    blocks: float

    def of(self, what: str) -> float:
        """what: as `asked_for` names it."""
        return float(getattr(self, what))


def asked_for(strategy: str, percent_of: str) -> str:
    """What `percent` is a share of: for `layer`, channels mean the residual blocks."""
    return "blocks" if strategy == "layer" and percent_of == "channels" else percent_of


def missed(strategy: str, target: Target, found: Shares) -> str:
    """By how much a cut is not what was asked for, and why; empty where it is."""
    reached = found.of(asked_for(strategy, target.percent_of))
    if abs(reached - target.percent) <= NEAR:
        return ""
    text = f"percent={target.percent:g}: {reached:.3f} reached"
    if strategy == "layer":
        why = "no more may go" if found.blocks == 1 else "these come nearest"
        return f"{text}: whole blocks go, and {why}"
    if reached < target.percent:
        return (
            f"{text}: layer_keep={target.layer_keep:g} and round_to={target.round_to} allow no more"
        )
    return f"{text}: with round_to={target.round_to} nothing nearer was found"


def normal(netdef: NetDef, scores: Scores, target: Target) -> Plan:
    """One threshold for all channels but those that a shortcut adds, which all stay."""
    return _channel_plan(netdef, scores, target, "normal")


def shortcut(netdef: NetDef, scores: Scores, target: Target) -> Plan:
    """One threshold for all channels; along a chain of shortcuts the first convolution decides."""
    return _channel_plan(netdef, scores, target, "shortcut")


def slim(netdef: NetDef, scores: Scores, target: Target) -> Plan:
    """One threshold for all channels; along a chain of shortcuts a channel stays as long as any
    convolution wants it (SlimYOLOv3, Zhang et al., 2019)."""
    return _channel_plan(netdef, scores, target, "slim")


def layer(netdef: NetDef, scores: Scores, target: Target) -> Plan:
    """The residual blocks go whose last convolutions are worth least on average.

    As many as come nearest to the target, at least one if anything is to go.
    """
    channels = find_channels(netdef)
    keep = np.ones(channels.count, bool)
    ranked = _ranked_blocks(netdef, scores, channels.kept(keep))
    if not target.percent:
        return Plan(keep)
    if target.percent_of == "channels":
        reached = [_share_gone(netdef, ranked[:count]) for count in range(1, len(ranked) + 1)]
    else:
        costs = _Costs(netdef, channels)
        reached = _shares_of_blocks(costs, ranked, target.percent_of)
    count = 1 + int(np.argmin(np.abs(np.array(reached) - target.percent)))
    return Plan(keep, _shortcuts(ranked[:count]))


def layer_channel(netdef: NetDef, scores: Scores, target: Target) -> Plan:
    """`slim`, then blocks by what is left of them, then channels anew until the target is met.

    Fewer blocks than `target.blocks` go where they alone would exceed the target.
    """
    whole = find_channels(netdef)
    first = slim(netdef, scores, target)
    ranked = _ranked_blocks(netdef, scores, whole.kept(first.keep))
    wanted = max(1, round(target.blocks * len(ranked))) if target.blocks else 0
    costs = _Costs(netdef, whole, _may_go(whole, "layer_channel"))
    reached = _shares_of_blocks(costs, ranked[:wanted], target.percent_of)
    count = sum(share <= target.percent for share in reached) if target.percent else 0
    return _channel_plan(netdef, scores, target, "layer_channel", _shortcuts(ranked[:count]))


STRATEGIES: dict[str, Callable[[NetDef, Scores, Target], Plan]] = {
    "normal": normal,
    "layer": layer,
    "slim": slim,
    "shortcut": shortcut,
    "layer_channel": layer_channel,
}
LATENCY = "latency"  # what `pruning.latency.search` does, by measured times instead of a `Target`
NUMBERS = {
    "1": "normal",
    "2": "layer",
    "3": "slim",
    "4": "shortcut",
    "5": "layer_channel",
    "6": LATENCY,
}


def strategy_name(pruned_id: str | int) -> str:
    """The strategy that a number or a name means. Raises InputError for others."""
    text = str(pruned_id)
    name = NUMBERS.get(text, text)
    if name not in NUMBERS.values():
        near = difflib.get_close_matches(name, NUMBERS.values(), 1)
        hint = f", perhaps {near[0]!r}" if near else ""
        names = ", ".join(f"{number} {name}" for number, name in NUMBERS.items())
        raise InputError(f"pruned_id={text!r}: expected one of {names}{hint}")
    return name


def may_cut(strategy: str, group: Group) -> bool:
    """Whether a strategy may cut channels of a group."""
    if group.kept_because or strategy == "layer":
        return False
    return not (strategy == "normal" and group.added)


def _may_go(channels: Channels, strategy: str) -> Bools:
    """[units], whether a strategy may cut them."""
    found = np.zeros(channels.count, bool)
    for group in channels.groups:
        found[group.units] = may_cut(strategy, group)
    return found


def shares(netdef: NetDef, plan: Plan, strategy: str) -> Shares:
    """What a plan of a strategy takes away, counted on the definitions alone."""
    every = find_channels(netdef)
    counted = _may_go(every, strategy)
    whole = _Costs(netdef, every, counted)
    trimmed, channels, units = _trimmed(netdef, plan.blocks)
    rest = _Costs(trimmed, channels, counted[units])
    counts = rest.counts(plan.keep[units])
    totals = {name: whole.count(whole.sizes, name) for name in MEASURES}
    gone = {name: 1 - rest.count(counts, name) / (totals[name] or 1) for name in MEASURES}
    if not totals["channels"]:
        gone["channels"] = 0.0
    chosen = [block for block in residual_blocks(netdef) if block.shortcut in plan.blocks]
    return Shares(**gone, blocks=_share_gone(netdef, chosen))


def savings(netdef: NetDef, measure: str) -> tuple[dict[int, float], dict[int, float]]:
    """What goes with one unit of each group, and with each removable block, all else being whole.

    measure: `parameters` or `operations`. Returns them by the number of a group's first unit, and
    by a block's shortcut.
    """
    channels = find_channels(netdef)
    costs = _Costs(netdef, channels)
    total = costs.count(costs.sizes, measure)
    by_layer = costs.by_layer(costs.sizes, measure)
    units = {
        int(group.units[0]): total - costs.count(costs.sizes - one, measure)
        for group, one in zip(channels.groups, np.eye(len(costs.sizes), dtype=int), strict=True)
    }
    blocks = {
        block.shortcut: sum(by_layer.get(n, 0.0) for n in (block.shortcut, *block.inside))
        for block in residual_blocks(netdef)
    }
    return units, blocks


def _name(netdef: NetDef) -> str:
    return netdef.net.path or "the network"


def _shortcuts(blocks: Sequence[Block]) -> tuple[int, ...]:
    return tuple(sorted(block.shortcut for block in blocks))


def _share_gone(netdef: NetDef, chosen: Sequence[Block]) -> float:
    """The share of the removable blocks that go with some: these, and the blocks inside them."""
    blocks = residual_blocks(netdef)
    gone = {layer for block in chosen for layer in (block.shortcut, *block.inside)}
    return sum(block.shortcut in gone for block in blocks) / max(1, len(blocks))


def _ranked_blocks(netdef: NetDef, scores: Scores, kept: Mapping[int, Bools]) -> list[Block]:
    """The removable blocks, the least worth first: by the mean score of the kept channels that
    are added to the trunk."""
    blocks = expect_blocks(netdef, _name(netdef))
    worth = {}
    for block in blocks:
        found = [scores[n][kept[n]] for n in block.writers if n in scores]
        if found:
            worth[block.shortcut] = float(np.concatenate(found).mean())
    if not worth:
        raise InputError(
            f"{_name(netdef)}: expected batch normalisation at the end of a residual block"
        )
    judged = [block for block in blocks if block.shortcut in worth]
    return sorted(judged, key=lambda block: (worth[block.shortcut], block.shortcut))


def _shares_of_blocks(costs: _Costs, ranked: Sequence[Block], measure: str) -> list[float]:
    """What goes with the first block, the first two, and so on, as a share of the whole."""
    by_layer = costs.by_layer(costs.sizes, measure)
    total = sum(by_layer.values())
    gone: set[int] = set()
    found = []
    for block in ranked:
        gone |= {block.shortcut, *block.inside}
        found.append(sum(by_layer.get(n, 0.0) for n in gone) / (total or 1))
    return found


def _trimmed(netdef: NetDef, blocks: Sequence[int]) -> tuple[NetDef, Channels, Ints]:
    """The net without blocks, its channels, and for each of its units its number in the whole."""
    whole = find_channels(netdef)
    if not blocks:
        return netdef, whole, np.arange(whole.count)
    trimmed, moved = without_blocks(netdef, blocks)
    channels = find_channels(trimmed)
    return trimmed, channels, same_units(whole, channels, moved)


def _channel_plan(
    netdef: NetDef, scores: Scores, target: Target, strategy: str, blocks: tuple[int, ...] = ()
) -> Plan:
    """The channels that a strategy keeps beside the blocks that go."""
    whole = find_channels(netdef)
    trimmed, channels, units = _trimmed(netdef, blocks)
    if blocks:
        _, moved = without_blocks(netdef, blocks)
        scores = {new: scores[old] for old, new in moved.items() if old in scores}
    free = [group for group in channels.groups if may_cut(strategy, group)]
    if not free and not blocks:
        reasons = {group.kept_because or "a shortcut adds it" for group in channels.groups}
        raise InputError(
            f"{_name(netdef)}: expected channels that {strategy!r} may cut, found none: "
            + "; ".join(sorted(reasons))
        )
    judge = _first if strategy == "shortcut" else _best
    worth = {id(group): judge(group, scores) for group in free}
    counted = _may_go(whole, strategy)
    total = _Costs(netdef, whole, counted)
    budget = (1 - target.percent) * total.count(total.sizes, target.percent_of)
    counts = _fit(_Costs(trimmed, channels, counted[units]), worth, budget, target)
    kept = np.ones(channels.count, bool)
    for group, count in zip(channels.groups, counts, strict=True):
        if id(group) in worth:
            order = np.argsort(-worth[id(group)], kind="stable")
            kept[group.units[order[count:]]] = False
    keep = np.ones(whole.count, bool)
    # Units that are apart without the blocks may be one with them: it stays if any of them does.
    keep[units] = False
    keep[units[kept]] = True
    return Plan(keep, blocks)


def _member_scores(group: Group, scores: Scores) -> list[Floats]:
    """[n] for each member that scores: the best of the channels that it has in a unit."""
    return [scores[m.layer][m.positions].max(1) for m in group.scored_by]


def _best(group: Group, scores: Scores) -> Floats:
    return np.max(_member_scores(group, scores), axis=0)


def _first(group: Group, scores: Scores) -> Floats:
    return _member_scores(group, scores)[0]


class _Costs:
    """What a network costs, given how many units of each group it keeps.

    sizes: [groups], how many units each has. counted: [units], those whose channels are counted
    where `channels` are asked for; without blocks, those of the whole network that still are.
    """

    def __init__(self, netdef: NetDef, channels: Channels, counted: Bools | None = None) -> None:
        self.groups = channels.groups
        self.sizes = np.array([len(group) for group in channels.groups])
        self._group_of = np.full(channels.count, len(self.sizes))  # the image's units are last
        for number, group in enumerate(channels.groups):
            self._group_of[group.units] = number
        every = np.ones(channels.count, bool) if counted is None else counted
        self._counted = np.array([every[group.units].mean() for group in channels.groups])
        outputs = shapes(netdef)
        rows = {i: self._row(netdef, channels, outputs, i) for i in range(len(netdef.layers))}
        self._layers = [index for index, row in rows.items() if row is not None]
        table = [row for row in rows.values() if row is not None]
        self._inputs = np.array([row["inputs"] for row in table])  # [rows, groups + 1]
        self._fixed = np.array([row["fixed"] for row in table])  # used where not 0, see `_row`
        self._outputs = np.array([row["outputs"] for row in table])
        self._kernel, self._extra, self._pixels, self._constant = (
            np.array([row[key] for row in table], float)
            for key in ("kernel", "extra", "pixels", "constant")
        )

    def _widths(self, units: Ints) -> Floats:
        """By group, the channels that each of its units has among these; last, the image's."""
        found = np.bincount(self._group_of[units], minlength=len(self.sizes) + 1)
        return found / np.append(self.sizes, 1)

    def _row(
        self, netdef: NetDef, channels: Channels, outputs: list[Any], index: int
    ) -> dict[str, Any] | None:
        """One layer's weights: kernel · inputs · outputs, `extra` for each output, `constant`.

        fixed: what stands for the inputs of a convolution with groups, whose number never changes.
        """
        section = netdef.layers[index]
        widths = self._widths(channels.outputs[index])
        row = {"inputs": widths * 0, "fixed": 0, "outputs": widths, "kernel": 0, "extra": 0,
               "constant": 0, "pixels": outputs[index][1] * outputs[index][2]}  # fmt: skip
        sources = netdef.sources(index)
        if section.kind == "shortcut":
            weights = section.options.get("weights_type", "none")
            each = "extra" if weights == "per_channel" else "constant"
            return None if weights == "none" else row | {each: len(sources)}
        if section.kind != "convolutional":
            return None
        units = channels.outputs[sources[0]]
        groups = section.integer("groups", 1)
        return row | {
            "inputs": self._widths(units),
            "fixed": len(units) // groups if groups > 1 else 0,
            "kernel": section.integer("size", 1) ** 2,
            "extra": 2 if section.flag("batch_normalize") else 1,
        }

    def counts(self, keep: Bools) -> Ints:
        """By group, how many units a mask keeps."""
        found = np.bincount(self._group_of, keep, len(self.sizes) + 1)[: len(self.sizes)]
        return found.astype(np.int64)

    def by_layer(self, counts: Ints, measure: str) -> dict[int, float]:
        """counts: [groups]. Each layer's channels that may be cut, parameters, or operations."""
        return dict(zip(self._layers, self._costs(counts, measure).tolist(), strict=True))

    def count(self, counts: Ints, measure: str) -> float:
        """The same of the whole network."""
        return float(self._costs(counts, measure).sum())

    def _costs(self, counts: Ints, measure: str) -> Floats:
        if measure == "channels":
            return (self._outputs @ np.append(counts * self._counted, 0)) * (self._kernel > 0)
        with_image = np.append(counts, 1)
        outputs = self._outputs @ with_image
        inputs = np.where(self._fixed > 0, self._fixed, self._inputs @ with_image)
        weights = self._kernel * inputs * outputs
        if measure == "operations":
            return 2 * weights * self._pixels
        return weights + self._extra * outputs + self._constant


def _fit(costs: _Costs, worth: Mapping[int, Floats], budget: float, target: Target) -> Ints:
    """How many units each group keeps so that the cost is within the budget, or as near as may be.

    Units go in the order of their worth, but never more of a group than `layer_keep` allows. Each
    group's count is rounded up, so that rounding never costs a unit that is worth more than the
    last one that went: as few go as the budget asks for. What a last step left of the budget is
    given back to the groups that lost the most valuable units. Where that step alone took far more
    than the budget asks for, its group keeps it, and the next units in the order go instead.
    """
    steps = [group_step(group, target.round_to) for group in costs.groups]
    least = [
        min(n, round_up(max(1, math.ceil(target.layer_keep * n - 1e-9)), step))
        for n, step in zip(costs.sizes.tolist(), steps, strict=True)
    ]
    order = _order(costs.groups, worth, least)

    def counts(cut: int) -> Ints:
        raw = costs.sizes - np.bincount(order[:cut], minlength=len(costs.sizes))
        found = zip(raw.tolist(), costs.sizes.tolist(), steps, least, strict=True)
        return np.array([min(n, max(low, round_up(c, step))) for c, n, step, low in found])

    def cost(found: Ints) -> float:
        return costs.count(found, target.percent_of)

    def fits(found: Ints) -> bool:
        return cost(found) <= budget * (1 + 1e-12)

    def least_cut(low: int) -> int:
        """How many units in the order go at least, so that the rest fits."""
        high = len(order)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(counts(middle)) else (middle + 1, high)
        return low

    cut = least_cut(0)
    best = found = _fill(costs, counts(cut), worth, steps, fits)
    while cut and fits(found) and budget - cost(best) > NEAR * cost(costs.sizes):
        done, rest = order[: cut - 1], order[cut - 1 :]
        order = np.append(done, rest[rest != rest[0]])
        cut = least_cut(cut - 1)
        found = _fill(costs, counts(cut), worth, steps, fits)
        best = max(best, found, key=cost) if fits(found) else best
    return best


def _order(groups: Sequence[Group], worth: Mapping[int, Floats], least: list[int]) -> Ints:
    """The groups of the units that may go, the least valuable unit first."""
    found: list[tuple[float, int, int]] = []
    for number, group in enumerate(groups):
        if id(group) in worth:
            values = np.sort(worth[id(group)])[: len(group) - least[number]]
            found += [(value, number, place) for place, value in enumerate(values.tolist())]
    return np.array([number for _, number, _ in sorted(found)], np.int64)


def _fill(
    costs: _Costs,
    counts: Ints,
    worth: Mapping[int, Floats],
    steps: list[int],
    fits: Callable[[Ints], bool],
) -> Ints:
    """Raise counts, the most valuable first, as long as the budget lasts."""
    if not fits(counts):
        return counts
    ranked = {
        number: -np.sort(-worth[id(group)])
        for number, group in enumerate(costs.groups)
        if id(group) in worth
    }
    open_ = set(ranked)
    while open_ := {n for n in open_ if counts[n] < costs.sizes[n]}:
        best = max(open_, key=lambda n: (ranked[n][counts[n]], -n))
        more = counts.copy()
        more[best] = min(costs.sizes[best], round_up(int(counts[best]) + 1, steps[best]))
        if fits(more):
            counts = more
        else:
            open_.remove(best)
    return counts


def group_step(group: Group, round_to: int, fast: int = FAST_STEP) -> int:
    """How many units make a multiple of `round_to` channels in every layer of a group; where that
    is 0, of `fast`, or less in a narrow group."""
    if not round_to:
        round_to = fast
        while round_to > max(1, len(group) // COARSEST):
            round_to //= 2
    return math.lcm(*(round_to // math.gcd(round_to, m.positions.shape[1]) for m in group.members))


def round_up(count: int, step: int) -> int:
    """The least multiple of a step that is no less."""
    return -(-count // step) * step
