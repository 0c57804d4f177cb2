"""Five ways to decide what is cut, and their table.

A strategy is a pure function from a network's definition, the importance of its channels and a
target to a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from import_param import Pruning
from models.netdef import NetDef
from pruning.channels import channel_groups
from pruning.importance import Importance
from pruning.layer_shares import expect_layer_shares
from pruning.own_functions import own_function
from pruning.residual_blocks import Block, residual_blocks
from pruning.selection import rank_blocks, select_channels, shares_of_blocks
from pruning.surgeon import Plan, check, keep_everything
from pruning.targets import GroupCosts, blocks_share, cuttable_units


def normal(netdef: NetDef, importance: Importance, target: Pruning) -> Plan:
    """One threshold for all channels but those that a shortcut adds, which all stay."""
    return select_channels(netdef, importance, target, "normal")


def shortcut(netdef: NetDef, importance: Importance, target: Pruning) -> Plan:
    """One threshold for all channels; along a chain of shortcuts the first convolution decides."""
    return select_channels(netdef, importance, target, "shortcut")


def slim(netdef: NetDef, importance: Importance, target: Pruning) -> Plan:
    """One threshold for all channels; along a chain of shortcuts any convolution can save one.

    The largest importance decides (SlimYOLOv3, Zhang et al., 2019).
    """
    return select_channels(netdef, importance, target, "slim")


def layer(netdef: NetDef, importance: Importance, target: Pruning) -> Plan:
    """The residual blocks go whose last convolutions are the least important on average.

    As many as come nearest to the target, at least one if anything is to go.
    """
    whole = keep_everything(netdef)
    ranked = rank_blocks(netdef, importance, whole.keep)
    if not target.percent:
        return whole
    if target.percent_of == "channels":
        shares = [blocks_share(netdef, ranked[:count]) for count in range(1, len(ranked) + 1)]
    else:
        shares = shares_of_blocks(GroupCosts(netdef), ranked, target.percent_of)
    count = 1 + int(np.argmin(np.abs(np.array(shares) - target.percent)))
    return replace(whole, blocks=_shortcuts(ranked[:count]))


def layer_channel(netdef: NetDef, importance: Importance, target: Pruning) -> Plan:
    """`slim`, then blocks by what is left of them, then channels anew until the target is met.

    Fewer blocks than `target.percent_blocks` go where they alone would exceed the target.
    """
    thinned = slim(netdef, importance, target)
    ranked = rank_blocks(netdef, importance, thinned.keep)
    wanted = max(1, round(target.percent_blocks * len(ranked))) if target.percent_blocks else 0
    costs = GroupCosts(netdef, cuttable_units(thinned.groups, "layer_channel"))
    shares = shares_of_blocks(costs, ranked[:wanted], target.percent_of)
    count = sum(share <= target.percent for share in shares) if target.percent else 0
    return select_channels(netdef, importance, target, "layer_channel", _shortcuts(ranked[:count]))


def _shortcuts(blocks: Sequence[Block]) -> tuple[int, ...]:
    return tuple(sorted(block.shortcut for block in blocks))


Strategy = Callable[[NetDef, Importance, Pruning], Plan]
STRATEGIES: dict[str, Strategy] = {
    "normal": normal,
    "layer": layer,
    "slim": slim,
    "shortcut": shortcut,
    "layer_channel": layer_channel,
}


def strategy_named(name: str) -> Strategy:
    """The function of `STRATEGIES`, or the user's, whose plans are checked.

    Raises:
        InputError: a user's file cannot be read or run, or has no such function.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    own = own_function(name, "pruned_id")

    def plan(netdef: NetDef, importance: Importance, target: Pruning) -> Plan:
        expect_layer_shares(netdef, target.shares_by_layer, name)
        plan = own(netdef, importance, target)
        if not isinstance(plan, Plan):
            raise own.error(f"expected a Plan, found {type(plan).__name__}")
        try:
            plan.expect_made_for(netdef)
            check(channel_groups(netdef), plan.keep)
        except ValueError as error:
            raise own.error(str(error)) from error
        unknown = set(plan.blocks) - {block.shortcut for block in residual_blocks(netdef)}
        if unknown:
            raise own.error(f"blocks={sorted(unknown)}: no shortcuts of blocks that can be removed")
        return plan

    return plan


LATENCY = "latency"  # not in the table: `pruning.latency` cuts to a measured time, not to a share
