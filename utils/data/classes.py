"""How do a network's classes and a data set's meet?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from utils.errors import InputError

Relation = Literal["equal", "unnamed", "renamed", "reordered", "more", "fewer"]
MOST_SHOWN = 5  # names in a message


def relation(network: Sequence[str], data: Sequence[str]) -> Relation:
    """What a data set's classes are to a network's.

    `unnamed` is a network whose classes are called by their numbers, as those of a Darknet file
    without names are. In `reordered` ones a name of the network's stands at another number, so that
    one class would be taken for another.

    >>> relation(("cat", "dog"), ("cat", "dog", "bird"))
    'more'
    >>> relation(("cat", "dog"), ("dog", "puma"))
    'reordered'
    >>> relation(("cat", "dog"), ("puma", "dog"))
    'renamed'
    """
    if len(network) != len(data):
        return "more" if len(data) > len(network) else "fewer"
    if tuple(network) == tuple(data):
        return "equal"
    if tuple(network) == tuple(map(str, range(len(network)))) and not set(network) & set(data):
        return "unnamed"
    return "renamed" if _moved(network, data) is None else "reordered"


def match_classes(
    network: Sequence[str], data: Sequence[str], data_place: str, network_place: str = "the network"
) -> str:
    """Refuse classes that cannot be right; a note of those that may be meant, else nothing.

    Args:
        network: the network's names.
        data: the data set's.
        data_place: the data set's file, for messages.
        network_place: what the network is called in them.

    Raises:
        InputError: the data set has more or fewer classes, or the same ones in another order.
    """
    found = relation(network, data)
    if found in ("more", "fewer"):
        only_data = [name for name in data if name not in network]
        only_network = [name for name in network if name not in data]
        named = relation(network, data[: len(network)]) != "unnamed"
        raise InputError(
            f"{data_place}: {len(data)} classes: expected {len(network)}, as {network_place} has"
            + (f"; only the data set has {_listed(only_data)}" if only_data and named else "")
            + (f"; it lacks {_listed(only_network)}" if only_network and named else "")
        )
    if found == "reordered":
        name = _moved(network, data)
        assert name is not None
        raise InputError(
            f"{data_place}: class {data.index(name)} is {name!r}, in {network_place} it is "
            f"class {network.index(name)}: expected its order: {_listed(network)}"
        )
    if found == "renamed":
        pairs = [
            (ours, theirs) for ours, theirs in zip(network, data, strict=True) if ours != theirs
        ]
        ours, theirs = pairs[0]
        more = f" (and {len(pairs) - 1} more)" if len(pairs) > 1 else ""
        return f"{network_place} calls the data set's {theirs!r} {ours!r}{more}"
    return ""


def _moved(network: Sequence[str], data: Sequence[str]) -> str | None:
    """A name of the network's that the data set has at another number only."""
    pairs = zip(network, data, strict=True)
    return next((ours for ours, theirs in pairs if ours != theirs and ours in data), None)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:MOST_SHOWN]))
    return shown if len(names) <= MOST_SHOWN else f"{shown}, …"
