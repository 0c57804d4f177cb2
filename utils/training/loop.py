"""One epoch of training."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from import_param import Training, TrainSettings
from models.darknet import Darknet
from models.distillation import DistillationLoss, MapsAndFeatures
from models.loss import DetectionLoss, Losses
from models.netdef import NetDef
from models.shared_batch_norm import share_batch_norm_
from utils import distributed
from utils.devices import has_fast_bfloat16
from utils.errors import InputError
from utils.files import write_text
from utils.progress import Wait
from utils.structures import Batch
from utils.training.ema import running_mean
from utils.training.lr_schedule import warmup_cosine
from utils.training.optimizer import make_optimizer


def autocast(device: torch.device, enabled: bool) -> contextlib.AbstractContextManager[object]:
    """bfloat16 where it is asked for and the device is fast with it, else float32."""
    if enabled and has_fast_bfloat16(device):
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def _train_mode(model: Darknet) -> None:
    """Training mode, but for the layers that `freeze_` froze."""
    model.train()
    for layer in model.layers:
        parameters = list(layer.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            layer.eval()


class Penalty(Protocol):
    """A penalty on scales of batch normalisation, as pruning.sparsity has; steps count from 0."""

    def add_gradient_(self, step: int) -> None:
        """Before the optimizer's step, after clipping."""
        ...

    def shrink_(self, step: int, optimizer: Optimizer) -> None:
        """After the optimizer's step."""
        ...

    def keep_zeros_(self, averaged: Darknet) -> None:
        """After the running mean has followed the step."""
        ...


class _Forward(nn.Module):
    """What `Darknet.maps_and_features` makes of images, as a module that processes can share."""

    def __init__(self, model: Darknet) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> MapsAndFeatures:
        """See `Darknet.maps_and_features`."""
        return self.model.maps_and_features(images)


def has_idle_layers(netdef: NetDef) -> bool:
    """Whether there are layers that no head depends on."""
    used, waiting = set[int](), list(netdef.heads)
    while waiting:
        index = waiting.pop()
        if index >= 0 and index not in used:
            used.add(index)
            waiting += netdef.sources(index)
    return len(used) < len(netdef.layers)


@dataclass
class Trainer:
    """What takes part in each training step.

    Attributes:
        forward: the model, whose gradients processes that train together share.
        run_folder: where the photos of a batch whose loss is no number are listed.
        penalty: shrinks scales of batch normalisation, which then are the optimizer's group
            `utils.training.optimizer.SCALES`.
        distillation: a teacher to learn from.
    """

    model: Darknet
    forward: nn.Module
    loss: DetectionLoss
    optimizer: Optimizer
    schedule: LambdaLR
    mean: AveragedModel
    settings: Training
    run_folder: Path
    penalty: Penalty | None = None
    distillation: DistillationLoss | None = None

    @property
    def device(self) -> torch.device:
        """Where the network is, and its batches are to be."""
        return next(self.model.parameters()).device

    @property
    def averaged(self) -> Darknet:
        """The network with the running mean of the weights: the one to evaluate and save."""
        return cast(Darknet, self.mean.module)


@dataclass(frozen=True)
class TrainerFactory:
    """Makes the trainer of a network, from its first step.

    Attributes:
        settings: of the optimizer, the schedule, the loss and the distillation.
        epoch_steps: steps of the optimizer in an epoch.
        run_folder: see `Trainer`.
        teacher: a network to learn from, on the device to train on.
    """

    settings: TrainSettings
    epoch_steps: int
    run_folder: Path
    teacher: Darknet | None = None

    def __call__(
        self, model: Darknet, penalty: Penalty | None = None, scale_lr: float = 0.0
    ) -> Trainer:
        """The trainer of a network that is on its device.

        Args:
            model: what is trained.
            penalty: on its BN scales.
            scale_lr: a learning rate of their own; 0 for that of all others.
        """
        settings = self.settings.training
        model = model.to(memory_format=torch.channels_last)
        loss = DetectionLoss(model.heads, self.settings.loss)
        distillation = (
            DistillationLoss(self.teacher, loss, self.settings.distillation)
            if self.teacher
            else None
        )
        if distributed.world() > 1 and settings.sync_bn:
            share_batch_norm_(model)
        optimizer = make_optimizer(model, settings, scale_lr)
        return Trainer(
            model=model,
            forward=distributed.parallel(_Forward(model), has_idle_layers(model.netdef)),
            loss=loss,
            optimizer=optimizer,
            schedule=warmup_cosine(optimizer, self.epoch_steps, settings),
            mean=running_mean(model, settings.ema_decay),
            settings=settings,
            run_folder=self.run_folder,
            penalty=penalty,
            distillation=distillation,
        )


PARTS = tuple(field.name for field in fields(Losses))


def train_one_epoch(
    trainer: Trainer, batches: Iterable[Batch], steps: int, title: str
) -> dict[str, float]:
    """Train on `steps` batches.

    Returns:
        The means of the loss's parts, the learning rate at the end, and images per second.

    Raises:
        InputError: the loss is no longer a finite number (the batch's file names are then in the
            run's folder), or a weight is not.
    """
    _train_mode(trainer.model)
    trainer.optimizer.zero_grad(set_to_none=True)
    accumulate = trainer.settings.accumulate
    device = trainer.device
    sums = torch.zeros(len(PARTS))
    images = 0
    start = time.perf_counter()
    with Wait(title, steps) as wait:
        for step, batch in enumerate(batches, start=1):
            first = (step - 1) // accumulate * accumulate  # batches before those of this step
            together = min(accumulate, steps - first)  # fewer at the epoch's end
            only_add = step < first + together
            losses = _losses(trainer, batch.to(device), only_add)
            # Processes that train together take the mean of their gradients, and want the sum.
            (losses.total / together * distributed.world()).backward()
            if not only_add:
                _optimizer_step(trainer)
            sums += torch.stack([getattr(losses, part).detach().float().cpu() for part in PARTS])
            images += len(batch.paths)
            wait.advance(note=f"loss {float(sums.sum()) / step:.4g}")
    means = {part: float(value) / steps for part, value in zip(PARTS, sums, strict=True)}
    _check_weights(trainer)
    means["lr"] = trainer.optimizer.param_groups[0]["lr"]
    (images,) = distributed.totals([images])
    return {**means, "images_per_second": images / (time.perf_counter() - start)}


def _losses(trainer: Trainer, batch: Batch, only_add: bool) -> Losses:
    """The losses of a batch. only_add: its gradients are not of the step's last batch."""
    images = batch.images.contiguous(memory_format=torch.channels_last)
    with (
        autocast(trainer.device, trainer.settings.amp),
        distributed.without_reducing(trainer.forward, only_add),
    ):
        maps, features = trainer.forward(images)
        teacher = trainer.distillation.run_teacher(images) if trainer.distillation else None
    losses = trainer.loss(maps, batch)  # in float32
    if trainer.distillation and teacher:
        distance = trainer.distillation((maps, features), teacher, batch)
        losses = replace(losses, teacher=distance)
    if not losses.total.isfinite():
        path = trainer.run_folder / "not_finite.txt"
        paths = [name for names in distributed.gather(batch.paths) for name in names]
        distributed.on_main(lambda: write_text(path, "".join(f"{name}\n" for name in paths)))
        raise InputError(
            f"the loss is {losses.total.item()}: the files of this batch are listed in {path}; "
            f"a lower lr than {trainer.optimizer.param_groups[0]['lr']:.2g} may help"
        )
    return losses


def _check_weights(trainer: Trainer) -> None:
    """A step can end in nowhere though its loss was finite; nothing of that must be saved."""
    for name, value in trainer.averaged.state_dict().items():  # BN's statistics, too
        if not value.isfinite().all():
            raise InputError(
                f"{name} is no longer finite after an epoch at "
                f"lr={trainer.optimizer.param_groups[0]['lr']:.2g}: a lower one may help"
            )


def _optimizer_step(trainer: Trainer) -> None:
    step = trainer.schedule.last_epoch
    if trainer.settings.clip:
        parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, trainer.settings.clip)
    if trainer.penalty:
        trainer.penalty.add_gradient_(step)
    trainer.optimizer.step()
    if trainer.penalty:
        trainer.penalty.shrink_(step, trainer.optimizer)
    trainer.optimizer.zero_grad(set_to_none=True)
    trainer.schedule.step()
    if not trainer.settings.sync_bn:
        _average_statistics_(trainer.model)
    trainer.mean.update_parameters(trainer.model)
    if trainer.penalty:
        trainer.penalty.keep_zeros_(trainer.averaged)


def _average_statistics_(model: Darknet) -> None:
    """Give all processes the same BN statistics, where each normalises by its own photos."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    buffers = [tensor for norm in norms for tensor in norm.buffers() if tensor.is_floating_point()]
    distributed.average_(buffers)
