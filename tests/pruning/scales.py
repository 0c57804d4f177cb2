"""The scales of batch normalisation that a penalty is about, group by group."""

import torch
from torch import Tensor

from models.blocks import Convolution
from models.darknet import Darknet
from pruning.sparsity import Place


def size(scales: Tensor) -> Tensor:
    """[n, w] → [n]: the root mean square of each unit, which for a single scale is |γ|."""
    return scales.square().mean(1).sqrt()


def read(model: Darknet, places: tuple[Place, ...], name: str = "weight") -> Tensor:
    """The scales (or `bias`, the shifts) at `places`: [n, all m]."""
    parts = []
    for layer, positions in places:
        convolution = model.layers[layer]
        assert isinstance(convolution, Convolution) and convolution.bn is not None
        parts.append(getattr(convolution.bn, name).detach()[positions])
    return torch.cat(parts, 1)
