"""Which residual blocks a network could do without, and what it is without some of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache

from models.darknet import shapes
from models.netdef import SECOND_INPUT, NetDef, Section
from utils.errors import InputError


@dataclass(frozen=True)
class Block:
    """A shortcut, and the layers whose output it adds to a trunk.

    Example: conv 0, conv 1, conv 2, and shortcut 3 that adds 0 and 2. Layer 0 is the trunk, 1 and 2
    are inside, 2 writes what is added. Without the block, whatever read 3 reads 0.

    Attributes:
        shortcut: its layer.
        trunk: the layer that takes the shortcut's place when the block goes.
        branch: which of the shortcut's two inputs is the block's own, 0 or 1.
        inside: the layers between trunk and shortcut, ascending.
        writers: those convolutions of them whose output is added, with nothing but dropout and the
            like between.
    """

    shortcut: int
    trunk: int
    branch: int
    inside: tuple[int, ...]
    writers: tuple[int, ...]


def residual_blocks(netdef: NetDef) -> tuple[Block, ...]:
    """The blocks that can be removed, by their shortcuts, ascending.

    Whatever lies between trunk and shortcut counts: any number of layers, depthwise ones, inner
    shortcuts, branches that join again. Not removable is a block whose inside is read from
    elsewhere, one that adds more than two maps or weighs them, one with a protected layer inside,
    one whose shortcut puts out more or fewer channels than the trunk has, and one whose shortcut
    changes its sum by an activation, since the trunk alone is something else then. (A relu is fine
    where the trunk comes out of a relu: it changes nothing.)
    """
    blocks, _ = _blocks_and_reasons(netdef)
    return blocks


def expect_blocks(netdef: NetDef, name: str) -> tuple[Block, ...]:
    """`residual_blocks`; an InputError, naming the network, where there is none."""
    blocks, reasons = _blocks_and_reasons(netdef)
    if not blocks:
        why = "; ".join(dict.fromkeys(reasons)) or "it has no [shortcut]"
        raise InputError(f"{name}: expected a residual block that can be removed: {why}")
    return blocks


@lru_cache(maxsize=64)
def _blocks_and_reasons(netdef: NetDef) -> tuple[tuple[Block, ...], tuple[str, ...]]:
    """The blocks, and why the other shortcuts are none."""
    readers: dict[int, set[int]] = {}
    for index in range(len(netdef.layers)):
        for source in netdef.sources(index):
            readers.setdefault(source, set()).add(index)
    channels = {-1: netdef.channels} | {n: shape[0] for n, shape in enumerate(shapes(netdef))}
    blocks: list[Block] = []
    reasons: list[str] = []
    for index, section in enumerate(netdef.layers):
        if section.kind != "shortcut":
            continue
        block = _refusal(netdef, index) or _block(netdef, index, readers, channels)
        if isinstance(block, Block):
            blocks.append(block)
        else:
            reasons.append(block)
    return tuple(blocks), tuple(reasons)


def _refusal(netdef: NetDef, index: int) -> str:
    section = netdef.layers[index]
    if len(netdef.sources(index)) != 2:
        return f"layer {index} adds more than two maps"
    if section.options.get("weights_type", "none") != "none":
        return f"layer {index} weighs what it adds"
    return ""


def _block(
    netdef: NetDef, index: int, readers: dict[int, set[int]], channels: dict[int, int]
) -> Block | str:
    reason = ""
    first, second = netdef.sources(index)
    for branch, (trunk, end) in enumerate([(second, first), (first, second)]):
        inside = _between(netdef, trunk, end)
        if not any(netdef.layers[layer].kind == "convolutional" for layer in inside):
            continue
        outside = {r for layer in inside for r in readers[layer]} - inside - {index}
        if outside:
            reason = f"layer {min(outside)} reads the inside of the block at layer {index}"
        elif kept := [n for n in sorted(inside) if netdef.layers[n].flag("protected")]:
            reason = f"layer {kept[0]}, inside the block at layer {index}, is protected"
        elif channels[trunk] != channels[index]:
            reason = f"layer {index} puts out other channels than its trunk"
        elif not _changes_nothing(netdef, index, trunk):
            reason = f"the activation of layer {index} changes its trunk"
        else:
            inner = tuple(sorted(inside))
            return Block(index, trunk, branch, inner, _writers(netdef, end, inside))
    return reason or f"layer {index} adds no block to a trunk"


def _between(netdef: NetDef, trunk: int, end: int) -> set[int]:
    """The layers that `end` is made of after `trunk`; none where a way leads past the trunk."""
    stops = {trunk, *_same_map(netdef, trunk)}
    if -1 in stops:  # the image has no channels to spare
        return set()
    inside: set[int] = set()
    waiting = [end]
    while waiting:
        layer = waiting.pop()
        if layer in stops or layer in inside:
            continue
        if layer < 0:
            return set()
        inside.add(layer)
        waiting += netdef.sources(layer)
    return inside


def _same_map(netdef: NetDef, layer: int) -> list[int]:
    """The layers that a chain of plain routes with one source repeats."""
    chain = []
    while layer >= 0 and _is_alias(netdef, layer):
        layer = netdef.sources(layer)[0]
        chain.append(layer)
    return chain


def _is_alias(netdef: NetDef, layer: int) -> bool:
    section = netdef.layers[layer]
    one = section.kind == "route" and len(netdef.sources(layer)) == 1
    return one and section.integer("groups", 1) == 1


def _changes_nothing(netdef: NetDef, index: int, trunk: int) -> bool:
    activation = netdef.layers[index].options.get("activation", "linear")
    source = [trunk, *_same_map(netdef, trunk)][-1]
    before = netdef.layers[source].options.get("activation", "linear")
    return activation == "linear" or (activation == before and activation in ("relu", "relu6"))


def _writers(netdef: NetDef, end: int, inside: set[int]) -> tuple[int, ...]:
    """The convolutions that write what is added."""
    convolutions: set[int] = set()
    waiting = [end]
    while waiting:
        layer = waiting.pop()
        if layer not in inside:
            continue
        if netdef.layers[layer].kind == "convolutional":
            convolutions.add(layer)
        else:
            waiting += netdef.sources(layer)
    return tuple(sorted(convolutions))


def without_blocks(netdef: NetDef, shortcuts: Collection[int]) -> tuple[NetDef, dict[int, int]]:
    r"""The net without the blocks of these shortcuts, and where its layers are now: old → new.

    Two layers that a shortcut adds to the one before them, and what is left without them:

    >>> from models.netdef import parse
    >>> conv = "[convolutional]\nfilters=4\nsize=1\n"
    >>> whole = parse("[net]\n" + 3 * conv + "[shortcut]\nfrom=0\n" + conv)
    >>> netdef, moved = without_blocks(whole, [3])
    >>> [section.kind for section in netdef.layers], moved
    (['convolutional', 'convolutional'], {0: 0, 4: 1})

    Numbers in routes and shortcuts stay relative or absolute, as they were written. Where a layer
    that reads the one before it has lost that, a route to the right one is put before it.

    Raises:
        ValueError: one of these layers is no shortcut of a block that can be removed.
    """
    blocks = {block.shortcut: block for block in residual_blocks(netdef)}
    for shortcut in shortcuts:
        if shortcut not in blocks:
            raise ValueError(f"layer {shortcut} is no shortcut of a block that can be removed")
    removed = {layer for n in shortcuts for layer in (n, *blocks[n].inside)}
    layers: list[Section] = []
    moved: dict[int, int] = {-1: -1}

    def now(layer: int) -> int:
        while layer in removed:
            layer = blocks[layer].trunk
        return moved[layer]

    for index, section in enumerate(netdef.layers):
        if index in removed:
            continue
        sources = [now(source) for source in netdef.sources(index)]
        if section.kind != "route" and sources[0] != len(layers) - 1:
            layers.append(Section("route", {"layers": str(sources[0] - len(layers))}))
        layers.append(_pointing(section, sources, len(layers)))
        moved[index] = len(layers) - 1
    del moved[-1]
    return replace(netdef, layers=tuple(layers)), moved


def _pointing(section: Section, sources: list[int], here: int) -> Section:
    """The section at layer `here`, with its numbers changed so that it reads `sources`."""
    key = "layers" if section.kind == "route" else SECOND_INPUT.get(section.kind, "")
    if not key:
        return section
    old = section.integers(key)
    named = sources if section.kind == "route" else sources[1:]
    new = [n if was >= 0 else n - here for was, n in zip(old, named, strict=True)]
    return section if new == old else section.with_options(**{key: ",".join(map(str, new))})
