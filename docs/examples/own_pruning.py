"""An importance and a strategy of one's own, as docs/research.md explains them.

python prune.py --weights weights/sparse/best.pt --data my_photos \
        --importance docs/examples/own_pruning.py:entropy
python prune.py --weights weights/sparse/best.pt --data my_photos \
        --pruned_id docs/examples/own_pruning.py:even
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from import_param import Pruning
from models.darknet import Darknet
from models.netdef import NetDef
from pruning.channels import channel_groups
from pruning.equalization import normalized
from pruning.importance import Importance, LossFunction
from pruning.selection import unit_importance
from pruning.surgeon import Plan
from utils.structures import Batch

BINS = 20


def entropy(
    model: Darknet, loss: LossFunction, batches: Iterable[Batch]
) -> dict[int, NDArray[np.float64]]:
    """How much a channel's mean output varies from photo to photo (Luo and Wu, arXiv 1706.05791).

    By layer, the entropy of each filter's mean outputs. A function with these three arguments is
    given training photos; one of the model alone is not.
    """
    outputs: dict[int, list[Tensor]] = {index: [] for index, _ in normalized(model)}
    hooks = [
        layer.bn.register_forward_hook(
            lambda module, inputs, output, index=index: outputs[index].append(output.mean((2, 3)))
        )
        for index, layer in normalized(model)
        if layer.bn is not None
    ]
    model.eval()
    with torch.no_grad():
        for batch in batches:
            model(batch.images.to(model.device))
    for hook in hooks:
        hook.remove()
    return {index: _entropies(torch.cat(means)) for index, means in outputs.items()}


def _entropies(means: Tensor) -> NDArray[np.float64]:
    """[photos, filters] → [filters]."""
    columns = means.double().cpu().numpy().T
    shares = np.array([np.histogram(column, BINS)[0] / len(column) for column in columns])
    return np.asarray(-np.sum(shares * np.log(np.maximum(shares, 1e-12)), axis=1) + 0.0)


def kernel_l2(model: Darknet) -> dict[int, Tensor]:
    """The length of each filter's kernel."""
    return {
        index: layer.conv.weight.detach().flatten(1).norm(dim=1)
        for index, layer in normalized(model)
    }


def even(netdef: NetDef, importance: Importance, target: Pruning) -> Plan:
    """The same share of every group of channels goes, the least important ones."""
    channels = channel_groups(netdef)
    keep = np.ones(channels.count, bool)
    for group in channels.groups:
        if group.kept_because:
            continue
        kept = max(1, round((1 - target.percent) * len(group)))
        order = np.argsort(-unit_importance(group, importance, "slim"), kind="stable")
        keep[group.units[order[kept:]]] = False
    return Plan(netdef, keep)
