"""Cross-layer equalization: how large are the scales of a layer, and how do layers compare?

They do not compare in trained networks: dividing a layer's scales and shifts by some factor and
multiplying the kernels that read it by the same changes nothing that the network computes, as long
as what lies between is homogeneous (leaky, relu, linear, pooling, adding, concatenating). So
nothing in training ties them together, and one threshold for all layers means little before they
are brought to one size.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from models.blocks import Convolution
from models.darknet import Darknet, propagate
from models.netdef import NetDef

HOMOGENEOUS = ("linear", "leaky", "relu")  # f(a·x) = a·f(x) for a > 0

Writers = frozenset[int]  # the convolutions whose output a tensor is made of


class _Ties:
    """Which layers must have one factor, since their outputs are added, and which keep theirs."""

    def __init__(self, netdef: NetDef) -> None:
        self.netdef = netdef
        self.tied: dict[int, set[int]] = {}  # layer → all layers with its factor
        self.fixed: set[int] = set()
        walk = propagate(
            netdef,
            Writers(),
            conv=self._conv,
            add=self._add,
            cat=lambda index, inputs: Writers().union(*inputs),
            part=lambda index, writers, groups, group_id: writers,
            other=self._other,
        )
        for _ in walk:
            pass

    def sets(self) -> list[set[int]]:
        """The layers in sets that have one factor each."""
        return [layers for first, layers in self.tied.items() if first == min(layers)]

    def _conv(self, index: int, writers: Writers) -> Writers:
        self.tied[index] = {index}
        section = self.netdef.layers[index]
        if not self._homogeneous(index) or not section.flag("batch_normalize"):
            self.fixed.add(index)
        return Writers([index])

    def _add(self, index: int, inputs: list[Writers]) -> Writers:
        writers = Writers().union(*inputs)
        if self.netdef.layers[index].kind != "shortcut" or not self._homogeneous(index):
            self.fixed |= writers  # a product, or an activation for which size matters
        together = set().union(*(self.tied[layer] for layer in writers))
        for layer in together:
            self.tied[layer] = together
        return writers

    def _other(self, index: int, writers: Writers) -> Writers:
        if self.netdef.layers[index].kind in ("yolo", "reorg"):
            self.fixed |= writers
        return writers

    def _homogeneous(self, index: int) -> bool:
        section = self.netdef.layers[index]
        default = "linear" if section.kind == "shortcut" else "logistic"
        return section.options.get("activation", default) in HOMOGENEOUS


def normalized(model: Darknet) -> list[tuple[int, Convolution]]:
    """The convolutions with batch normalisation, and their layers' numbers."""
    layers = [(n, layer) for n, layer in enumerate(model.layers) if isinstance(layer, Convolution)]
    return [(index, layer) for index, layer in layers if layer.bn is not None]


def typical_scales(model: Darknet) -> dict[int, float]:
    """By convolution with batch normalisation, how large a scale is that counts there.

    It is the mean of |γ| weighted by |γ| itself, over all layers whose outputs are added: unlike a
    mean or a median it hardly moves when sparse training sends most scales to zero.
    """
    scales: dict[int, float] = {}
    for layers in _Ties(model.netdef).sets():
        norms = {layer: norm for layer in layers if (norm := _gamma(model, layer)) is not None}
        if norms:
            gamma = torch.cat(list(norms.values())).double()
            total = float(gamma.sum())
            scales |= dict.fromkeys(norms, float((gamma**2).sum()) / total if total else 1.0)
    return scales


def equalising_factors(model: Darknet) -> dict[int, float]:
    """By layer, what `rescale_` must divide it by so that its typical scale is 1.

    Layers where that would change the network (mish, swish, logistic, relu6, …, what a product or
    a [yolo] reads) are left out: they keep their scales.
    """
    ties = _Ties(model.netdef)
    scales = typical_scales(model)
    free = [layers for layers in ties.sets() if not layers & ties.fixed]
    return {layer: scales[layer] for layers in free for layer in layers}


@torch.no_grad()
def rescale_(model: Darknet, factors: Mapping[int, float]) -> None:
    """Divide scales and shifts of some layers, and multiply whatever reads them, by factors.

    The network computes the same, in eval and in training mode. `rescale_(model, inverse(factors))`
    undoes it.

    Example: layer 0 has scales (2, 4) and layer 1 reads it. With a factor of 2 for layer 0, its
    scales are (1, 2), its shifts halve, and all kernels of layer 1 double.

    Args:
        model: the network.
        factors: by layer, as `equalising_factors` gives them.
    """
    device = model.device

    def conv(index: int, inputs: Tensor) -> Tensor:
        layer = model.layers[index]
        assert isinstance(layer, Convolution)
        kernel = layer.conv.weight  # [filters, inputs / groups, k, k]
        by_filter = inputs.view(layer.conv.groups, 1, -1).expand(
            layer.conv.groups, len(kernel) // layer.conv.groups, kernel.shape[1]
        )
        kernel *= by_filter.reshape(len(kernel), -1, 1, 1).to(kernel.dtype)
        factor = factors.get(index, 1.0)
        if index in factors:
            assert layer.bn is not None
            layer.bn.weight.div_(factor)
            layer.bn.bias.div_(factor)
        return inputs.new_full((len(kernel),), factor)

    walk = propagate(
        model.netdef,
        torch.ones(model.netdef.channels, dtype=torch.float64, device=device),
        conv=conv,
        add=lambda index, inputs: inputs[0],
        cat=lambda index, inputs: torch.cat(inputs),
        part=lambda index, factors, n, k: factors.view(n, -1)[k],
        other=lambda index, factors: _through(model.netdef, index, factors),
    )
    for _ in walk:
        pass


def _through(netdef: NetDef, index: int, factors: Tensor) -> Tensor:
    section = netdef.layers[index]
    if section.kind == "reorg":  # what it reads is not rescaled
        return factors.repeat(section.integer("stride", 1) ** 2)
    return factors


def inverse(factors: Mapping[int, float]) -> dict[int, float]:
    """The factors that undo these."""
    return {layer: 1 / factor for layer, factor in factors.items()}


def _gamma(model: Darknet, layer: int) -> Tensor | None:
    """|γ| [filters] of a convolution; None without batch normalisation."""
    convolution = model.layers[layer]
    assert isinstance(convolution, Convolution)
    return None if convolution.bn is None else convolution.bn.weight.detach().abs()
