"""A whole network by oneDNN's graph compiler, which PyTorch reaches through TorchScript only.

It lets maps lie as the next layer wants them and prepares each call once, where a call of its own
for each convolution costs 20 to 40 µs. In one interleaved run (320x320, one thread, float32) it was
6, 9, 28, 15, 18 and 16 % faster than these calls on yolov3, mobilenet, mobilenetv2, tiny, lite and
tiny-mobilenet, and 12 to 45 % in bfloat16. On some networks it computes something else, so those
are told apart here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.darknet import Darknet, shapes
from models.netdef import NetDef

# What takes two maps of one shape, and may write what it computes over one of them.
IN_PLACE = ("shortcut", "sam", "scale_channels")
PROFILING_RUNS = 2  # until TorchScript has seen the shapes and compiled for them


def compile_graph(model: Darknet, images: Tensor) -> Callable[[Tensor], list[Tensor]] | None:
    """A folded network, compiled for images of this shape.

    Returns:
        From images to raw maps; None where the compiler fails on the network, as it does on some
        maps of 1x1, or may compute something else of it.
    """
    if any(isinstance(module, nn.GELU) for module in model.modules()):
        return None  # it would compute the other GELU, of erf
    if not sums_may_overwrite(model.netdef):
        return None
    for module in model.modules():
        if isinstance(module, nn.LeakyReLU | nn.ReLU | nn.ReLU6):
            module.inplace = False  # in place, it takes some bfloat16 maps for float32
    before = torch.jit.onednn_fusion_enabled()
    torch.jit.enable_onednn_fusion(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated
            compiled = torch.jit.freeze(torch.jit.trace(model, images, check_trace=False))
            for _ in range(PROFILING_RUNS):
                compiled(images)
    except RuntimeError:
        return None
    finally:
        torch.jit.enable_onednn_fusion(before)
    run: Callable[[Tensor], list[Tensor]] = compiled
    return run


def sums_may_overwrite(netdef: NetDef) -> bool:
    """Whether no layer reads a map after a sum of it with another was computed.

    The compiler writes a sum over the map of one of the summands, even where another layer reads
    that later: of the first 321 random networks of `tests.pruning.nets`, five gave wrong maps. So
    no sum may add a part of a map, as a shortcut of unequal channels does. And
    a convolution with two sums after it can end the process.
    """
    sources, last_reader = _map_owners(netdef)
    channels = {-1: netdef.channels} | {n: shape[0] for n, shape in enumerate(shapes(netdef))}
    for index, section in enumerate(netdef.layers):
        if section.kind in IN_PLACE:
            first, *others = sources[index]
            sum_of_sum = first >= 0 and netdef.layers[first].kind in IN_PLACE
            read_later = any(last_reader[owner] > index for owner in (first, *others))
            unequal = any(channels[other] != channels[first] for other in others)
            if sum_of_sum or len(others) > 1 or read_later or unequal:
                return False
    return True


def _map_owners(netdef: NetDef) -> tuple[list[list[int]], dict[int, int]]:
    """By layer, the layers that made the maps which it reads; by such a layer, its last reader.

    A dropout and a route of one map hand it on, so it stays the map of the layer before. The maps
    that a [yolo] reads are outputs, which are read after all layers.
    """
    owners: list[int] = []  # by layer, the one that made the map that it passes on
    sources: list[list[int]] = []
    last_reader: dict[int, int] = {}
    for index, section in enumerate(netdef.layers):
        read = [owners[source] if source >= 0 else source for source in netdef.sources(index)]
        sources.append(read)
        hands_on = section.kind == "dropout" or (section.kind == "route" and len(read) == 1)
        owners.append(read[0] if hands_on else index)
        reader = len(netdef.layers) if section.kind == "yolo" else index
        for owner in read:
            last_reader[owner] = max(last_reader.get(owner, -1), reader)
    return sources, last_reader
