"""Five ways to decide what is cut, and their table.

A strategy is a pure function from a network's definition, the importance of its channels and a
target to a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from import_param import Pruning
from models.netdef import NetDef
from pruning.channels import Bools, channel_groups
from pruning.importance import Importance
from pruning.residual_blocks import Block, expect_blocks
from pruning.selection import select_channels
from pruning.surgeon import Plan
from pruning.targets import GroupCosts, blocks_share, cuttable_units
from utils.errors import InputError


def normal(netdef: NetDef, importance: Importance, target: Pruning) -> Plan:
    """One threshold for all channels but those that a shortcut adds, which all stay."""
    return select_channels(netdef, importance, target, "normal")


def shortcut(netdef: NetDef, importance: Importance, target: Pruning) -> Plan:
    """One threshold for all channels; along a chain of shortcuts the first convolution decides."""
    return select_channels(netdef, importance, target, "shortcut")


def slim(netdef: NetDef, importance: Importance, target: Pruning) -> Plan:
    """One threshold for all channels; along a chain of shortcuts a channel stays as long as any
    convolution wants it (SlimYOLOv3, Zhang et al., 2019)."""
    return select_channels(netdef, importance, target, "slim")


def layer(netdef: NetDef, importance: Importance, target: Pruning) -> Plan:
    """The residual blocks go whose last convolutions are worth least on average.

    As many as come nearest to the target, at least one if anything is to go.
    """
    channels = channel_groups(netdef)
    keep = np.ones(channels.count, bool)
    ranked = _ranked_blocks(netdef, importance, channels.kept(keep))
    if not target.percent:
        return Plan(keep)
    if target.percent_of == "channels":
        reached = [blocks_share(netdef, ranked[:count]) for count in range(1, len(ranked) + 1)]
    else:
        costs = GroupCosts(netdef, channels)
        reached = _shares_of_blocks(costs, ranked, target.percent_of)
    count = 1 + int(np.argmin(np.abs(np.array(reached) - target.percent)))
    return Plan(keep, _shortcuts(ranked[:count]))


def layer_channel(netdef: NetDef, importance: Importance, target: Pruning) -> Plan:
    """`slim`, then blocks by what is left of them, then channels anew until the target is met.

    Fewer blocks than `target.percent_blocks` go where they alone would exceed the target.
    """
    whole = channel_groups(netdef)
    first = slim(netdef, importance, target)
    ranked = _ranked_blocks(netdef, importance, whole.kept(first.keep))
    wanted = max(1, round(target.percent_blocks * len(ranked))) if target.percent_blocks else 0
    costs = GroupCosts(netdef, whole, cuttable_units(whole, "layer_channel"))
    reached = _shares_of_blocks(costs, ranked[:wanted], target.percent_of)
    count = sum(share <= target.percent for share in reached) if target.percent else 0
    return select_channels(netdef, importance, target, "layer_channel", _shortcuts(ranked[:count]))


STRATEGIES: dict[str, Callable[[NetDef, Importance, Pruning], Plan]] = {
    "normal": normal,
    "layer": layer,
    "slim": slim,
    "shortcut": shortcut,
    "layer_channel": layer_channel,
}
LATENCY = "latency"  # not in the table: `pruning.latency` cuts to a measured time, not to a share


def _shortcuts(blocks: Sequence[Block]) -> tuple[int, ...]:
    return tuple(sorted(block.shortcut for block in blocks))


def _ranked_blocks(
    netdef: NetDef, importance: Importance, kept: Mapping[int, Bools]
) -> list[Block]:
    """The removable blocks, the least worth first: by the mean score of the kept channels that
    are added to the trunk."""
    blocks = expect_blocks(netdef, netdef.name)
    worth = {}
    for block in blocks:
        found = [importance[n][kept[n]] for n in block.writers if n in importance]
        if found:
            worth[block.shortcut] = float(np.concatenate(found).mean())
    if not worth:
        raise InputError(
            f"{netdef.name}: expected batch normalisation at the end of a residual block"
        )
    judged = [block for block in blocks if block.shortcut in worth]
    return sorted(judged, key=lambda block: (worth[block.shortcut], block.shortcut))


def _shares_of_blocks(costs: GroupCosts, ranked: Sequence[Block], measure: str) -> list[float]:
    """What goes with the first block, the first two, and so on, as a share of the whole."""
    by_layer = costs.by_layer(costs.sizes, measure)
    total = sum(by_layer.values())
    gone: set[int] = set()
    found = []
    for block in ranked:
        gone |= {block.shortcut, *block.inside}
        found.append(sum(by_layer.get(n, 0.0) for n in gone) / (total or 1))
    return found
