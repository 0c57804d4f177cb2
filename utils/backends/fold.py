"""A network without batch normalisation: its scale and shift are folded into the convolutions."""

from __future__ import annotations

import copy

import torch
from torch.nn.utils import fuse_conv_bn_eval

from models.blocks import Convolution
from models.darknet import Darknet


@torch.no_grad()
def folded(model: Darknet) -> Darknet:
    """A copy in eval mode that computes the same, on the same device."""
    model = copy.deepcopy(model).eval()
    for layer in model.layers:
        if isinstance(layer, Convolution) and layer.bn is not None:
            layer.conv = fuse_conv_bn_eval(layer.conv, layer.bn)
            layer.bn = None
    return model.requires_grad_(False)
