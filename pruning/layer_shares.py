"""How many units stay in the groups whose share the user fixed (`layer_shares`)?"""

from __future__ import annotations

from collections.abc import Mapping

from models.netdef import NetDef
from pruning.channels import Group, channel_groups
from pruning.targets import may_cut
from utils.errors import InputError


def expect_layer_shares(netdef: NetDef, shares: Mapping[int, float], strategy: str) -> None:
    """Refuse shares of layers that are not there, or that the strategy may not cut.

    Raises:
        InputError: there is such a layer, or two layers that are cut together have other shares.
    """
    for layer in shares:
        netdef.expect_convolutional(layer, "layer_shares")
        for group in channel_groups(netdef).groups:
            if layer not in _layers(group):
                continue
            others = {n: shares[n] for n in _layers(group) if n in shares}
            if not may_cut(strategy, group):
                reason = group.kept_because or f"pruned_id={strategy} cuts no channels there"
                raise InputError(f"layer_shares: layer {layer}: cannot be cut: {reason}")
            if len(set(others.values())) > 1:
                told = " and ".join(f"{n}:{share:g}" for n, share in others.items())
                raise InputError(f"layer_shares: {told}: are cut together: expected one share")


def fixed_counts(
    groups: tuple[Group, ...], shares: Mapping[int, float], steps: Mapping[int, int]
) -> dict[int, int]:
    """By a group's number, how many of its units stay, of those with a layer in `shares`.

    Args:
        groups: of the network.
        shares: by layer, the share of its channels to cut.
        steps: by a group's number, of what its count is a multiple.
    """
    counts = {}
    for group in groups:
        own = [shares[layer] for layer in _layers(group) if layer in shares]
        if own and not group.kept_because:
            step, size = steps[group.number], len(group)
            nearest = round((1 - own[0]) * size / step) * step
            counts[group.number] = size if own[0] == 0 else min(size, max(step, nearest))
    return counts


def _layers(group: Group) -> list[int]:
    return [member.layer for member in group.members]
