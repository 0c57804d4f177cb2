"""One epoch of training."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from import_param import Training, TrainSettings
from models.darknet import Darknet
from models.distillation import DistillationLoss, MapsAndFeatures
from models.loss import DetectionLoss, Losses
from models.netdef import NetDef
from models.shared_batch_norm import share_batch_norm_
from utils.console.progress import Wait
from utils.errors import InputError
from utils.files.writing import write_text
from utils.processes import distributed
from utils.structures import Batch
from utils.training.ema import RunningMean
from utils.training.lr_schedule import warmup_cosine
from utils.training.optimizer import begin_momentum_, make_optimizer
from utils.training.precision import autocast, loss_scaler, training_dtype


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

    def shrink_(self, step: int, optimizer: Optimizer, taken: Tensor | None = None) -> None:
        """After the optimizer's step; taken: a bool [], whether it was one, None for yes."""
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
        dtype: what convolutions compute in.
        scaler: of the loss, where that is fp16.
        penalty: shrinks scales of batch normalisation, which then are the optimizer's group
            `utils.training.optimizer.SCALES`.
        distillation: a teacher to learn from.
    """

    model: Darknet
    forward: nn.Module
    loss: DetectionLoss
    optimizer: Optimizer
    schedule: LambdaLR
    mean: RunningMean
    settings: Training
    run_folder: Path
    dtype: torch.dtype
    scaler: GradScaler
    penalty: Penalty | None = None
    distillation: DistillationLoss | None = None

    @property
    def device(self) -> torch.device:
        """Where the network is, and its batches are to be."""
        return self.model.device

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
        device = model.device
        dtype = training_dtype(settings, device)
        scaler = loss_scaler(device, dtype)
        if scaler.is_enabled():
            begin_momentum_(optimizer)
        return Trainer(
            model=model,
            forward=distributed.parallel(_Forward(model), has_idle_layers(model.netdef)),
            loss=loss,
            optimizer=optimizer,
            schedule=warmup_cosine(optimizer, self.epoch_steps, settings),
            mean=RunningMean(model, settings.ema_decay),
            settings=settings,
            run_folder=self.run_folder,
            dtype=dtype,
            scaler=scaler,
            penalty=penalty,
            distillation=distillation,
        )


PARTS = tuple(field.name for field in fields(Losses))
READ_EVERY = 20  # batches, on a card


def read_every(device: torch.device) -> int:
    """After how many batches losses are read, which a card would be waited for."""
    return 1 if device.type == "cpu" else READ_EVERY


class _EpochLosses:
    """The losses of an epoch, on the device.

    To read them is to wait for a card, so that is done every so many batches.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._sums = torch.zeros(len(PARTS), device=trainer.device)
        self._unread: list[tuple[Sequence[str], Tensor]] = []  # the files of a batch, its loss
        self._every = read_every(trainer.device)
        self._batches, self._total = 0, 0.0

    def add(self, batch: Batch, losses: Losses) -> str:
        """Add those of a batch; what there is to say of all so far, where they were read.

        Raises:
            InputError: a loss of those that were read is no finite number.
        """
        self._sums += torch.stack([getattr(losses, part).detach().float() for part in PARTS])
        self._unread.append((batch.paths, losses.total.detach()))
        self._batches += 1
        if self._batches % self._every:
            return ""
        self._read()
        return f"loss {self._total / self._batches:.4g}"

    def means(self) -> dict[str, float]:
        """By part, the mean.

        Raises:
            InputError: see `add`.
        """
        self._read()
        sums = self._sums.tolist()
        return {part: value / self._batches for part, value in zip(PARTS, sums, strict=True)}

    def _read(self) -> None:
        if not self._unread:
            return
        files, losses = zip(*self._unread, strict=True)
        self._unread = []
        for paths, loss in zip(files, torch.stack(losses).tolist(), strict=True):
            if not math.isfinite(loss):
                raise self._not_finite(paths, loss)
            self._total += loss

    def _not_finite(self, paths: Sequence[str], loss: float) -> InputError:
        listed = self._trainer.run_folder / "not_finite.txt"
        names = [name for everyones in distributed.gather(paths) for name in everyones]
        distributed.on_main(lambda: write_text(listed, "".join(f"{name}\n" for name in names)))
        lr = self._trainer.optimizer.param_groups[0]["lr"]
        return InputError(
            f"the loss is {loss}: the files of this batch are listed in {listed}; "
            f"a lower lr than {lr:.2g} may help"
            + (", or --no_amp" if self._trainer.scaler.is_enabled() else "")
        )


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
    sums = _EpochLosses(trainer)
    images = 0
    start = time.perf_counter()
    with Wait(title, steps) as wait:
        for step, batch in enumerate(batches, start=1):
            first = (step - 1) // accumulate * accumulate  # batches before those of this step
            together = min(accumulate, steps - first)  # fewer at the epoch's end
            only_add = step < first + together
            losses = _losses(trainer, batch, only_add)
            note = sums.add(batch, losses)
            # Processes that train together take the mean of their gradients, and want the sum.
            loss = losses.total / together * distributed.world()
            trainer.scaler.scale(loss).backward()
            if not only_add:
                _optimizer_step(trainer)
            images += len(batch.paths)
            wait.advance(note=note)
    means = sums.means()
    _check_weights(trainer)
    means["lr"] = trainer.optimizer.param_groups[0]["lr"]
    (images,) = distributed.totals([images])
    return {**means, "images_per_second": images / (time.perf_counter() - start)}


def _losses(trainer: Trainer, batch: Batch, only_add: bool) -> Losses:
    """The losses of a batch. only_add: its gradients are not of the step's last batch."""
    images = batch.for_network(trainer.device, torch.channels_last).images
    with (
        autocast(trainer.device, trainer.dtype),
        distributed.without_reducing(trainer.forward, only_add),
    ):
        maps, features = trainer.forward(images)
        teacher = trainer.distillation.run_teacher(images) if trainer.distillation else None
    losses = trainer.loss(maps, batch)  # in float32
    if trainer.distillation and teacher:
        distance = trainer.distillation((maps, features), teacher, batch)
        losses = replace(losses, teacher=distance)
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
    trainer.scaler.unscale_(trainer.optimizer)
    taken = _clip_(trainer)
    if trainer.penalty:
        trainer.penalty.add_gradient_(step)
    trainer.scaler.step(trainer.optimizer)
    trainer.scaler.update()
    if trainer.penalty:
        trainer.penalty.shrink_(step, trainer.optimizer, taken)
    trainer.optimizer.zero_grad(set_to_none=True)
    trainer.schedule.step()
    if not trainer.settings.sync_bn:
        _average_statistics_(trainer.model)
    trainer.mean.update_parameters(trainer.model)
    if trainer.penalty:
        trainer.penalty.keep_zeros_(trainer.averaged)


def _clip_(trainer: Trainer) -> Tensor | None:
    """Clip the gradients; where the loss is scaled, whether the step will be taken, a bool []."""
    parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    norm = None
    if trainer.settings.clip:
        norm = nn.utils.clip_grad_norm_(parameters, trainer.settings.clip)
    elif trainer.scaler.is_enabled():
        norm = nn.utils.get_total_norm(p.grad for p in parameters if p.grad is not None)
    return norm.isfinite() if norm is not None and trainer.scaler.is_enabled() else None


def _average_statistics_(model: Darknet) -> None:
    """Give all processes the same BN statistics, where each normalises by its own photos."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    buffers = [tensor for norm in norms for tensor in norm.buffers() if tensor.is_floating_point()]
    distributed.average_(buffers)
