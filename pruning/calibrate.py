"""What do the channels of a network amount to on real photos, now that others are gone?"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
from torch import nn

from models.darknet import Darknet
from models.loss import Loss
from utils.types import Batch


@torch.no_grad()
def reestimate_bn_(model: Darknet, loader: Iterable[Batch], batches: int) -> int:
    """Measure the means and variances of batch normalisation anew, over some batches.

    After a cut the statistics of the whole network no longer fit. Judging a cut network only after
    this is EagleEye's finding (Li et al., ECCV 2020). Every batch counts alike; weights stay.
    Returns how many batches there were; without any, the statistics stay, too.
    """
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta, was_training = [norm.momentum for norm in norms], model.training
    device = next(model.parameters()).device
    model.eval()  # dropout stays off
    for norm in norms:
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    count = 0
    try:
        for count, batch in enumerate(islice(loader, batches), start=1):
            if count == 1:
                for norm in norms:
                    norm.reset_running_stats()
            images = batch.images.to(device).contiguous(memory_format=torch.channels_last)
            model(images)
    finally:
        model.train(was_training)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return count


@torch.no_grad()
def mean_loss(model: Darknet, loader: Iterable[Batch], batches: int) -> float:
    """The training loss of a network in eval mode, its mean over some batches; 0 without any."""
    loss, device = Loss(model.heads), next(model.parameters()).device
    found = [
        float(loss(model(batch.images), batch).total)
        for batch in (batch.to(device) for batch in islice(loader, batches))
    ]
    return sum(found) / max(1, len(found))
