"""Batch normalisation after a cut: re-estimate its statistics on real photos, if that helps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sized
from itertools import islice

import torch
from torch import nn

from import_param import Loss
from models.darknet import Darknet
from models.loss import DetectionLoss
from utils.console.progress import track
from utils.structures import Batch

SHORTEST = 2  # photos a batch; batch normalisation needs more than one value a channel


@torch.no_grad()
def reestimate_bn_(model: Darknet, loader: Iterable[Batch], batches: int) -> int:
    """Measure the means and variances of batch normalisation anew, over some batches.

    After a cut the statistics of the whole network no longer fit. Judging a cut network only after
    this is EagleEye's finding (Li et al., ECCV 2020). Every batch counts alike, but those of one
    photo, which are left out; weights stay.

    Returns:
        How many batches there were; without any, the statistics stay, too.
    """
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta, was_training = [norm.momentum for norm in norms], model.training
    device = model.device
    model.eval()  # dropout stays off
    for norm in norms:
        norm.train()
    long = (batch for batch in loader if len(batch.images) >= SHORTEST)
    count = 0
    try:
        for count, batch in enumerate(first_batches(long, batches, "re-estimating BN"), start=1):
            if count == 1:
                for norm in norms:
                    norm.reset_running_stats()
            for norm in norms:
                # A plain mean over the batches, as of None, which waits for a card in each layer.
                norm.momentum = 1 / count
            model(batch.for_network(device, torch.channels_last).images)
    finally:
        model.train(was_training)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return count


def settle_bn_(
    model: Darknet,
    loader: Iterable[Batch],
    batches: int,
    loss_batches: int,
    as_cut: float,
    measure: Callable[[Darknet], float],
) -> tuple[bool, str]:
    """Re-estimate the statistics, and keep those, new or old, with which mAP is higher.

    Where only dead channels went, the old ones fit best. A lower loss does not mean a higher mAP;
    it decides where the two are equal, as where nothing is detected before fine-tuning.

    Args:
        model: the cut network.
        loader: batches of training photos, unchanged.
        batches: how many of them to re-estimate on.
        loss_batches: how many of them the loss is a mean over.
        as_cut: its mAP with the old ones.
        measure: a network's mAP.

    Returns:
        Whether the new ones are kept, and a line on both.
    """
    old = {name: value.clone() for name, value in model.named_buffers()}
    loss_before = mean_loss(model, loader, loss_batches)
    if not reestimate_bn_(model, loader, batches):
        return False, f"BN is not re-estimated: that takes {SHORTEST} photos to train on, or more"
    loss_after, reestimated = mean_loss(model, loader, loss_batches), measure(model)
    kept = _rank(reestimated, loss_after) >= _rank(as_cut, loss_before)
    if not kept:
        model.load_state_dict(old, strict=False)
    return kept, (
        f"BN {'is' if kept else 'is not'} re-estimated: mAP@.5 would go from {as_cut:.4f} to "
        f"{reestimated:.4f}, the loss on training photos from {loss_before:.4f} to {loss_after:.4f}"
    )


def _rank(mean_ap: float, loss: float) -> tuple[float, float]:
    """Higher is better; what is no number is worse than any."""
    return (
        -math.inf if math.isnan(mean_ap) else mean_ap,
        -math.inf if math.isnan(loss) else -loss,
    )


def first_batches(batches: Iterable[Batch], count: int, title: str) -> Iterable[Batch]:
    """The first `count` batches, or as many as there are, with a progress bar."""
    total = min(count, len(batches)) if isinstance(batches, Sized) else count
    return track(islice(batches, count), title, total)


@torch.no_grad()
def mean_loss(model: Darknet, loader: Iterable[Batch], batches: int) -> float:
    """The training loss of a network in eval mode, its mean over some batches; 0 without any.

    Infinite where it is no number, so that any other network is better.
    """
    loss, device = DetectionLoss(model.heads, Loss()), model.device
    losses = [
        float(loss(model(batch.images), batch).total)
        for batch in (
            batch.to(device) for batch in first_batches(loader, batches, "loss after the cut")
        )
    ]
    mean = sum(losses) / max(1, len(losses))
    return mean if math.isfinite(mean) else math.inf
