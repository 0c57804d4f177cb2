"""One epoch of training."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from models.darknet import Darknet
from models.distillation import Distillation
from models.loss import Loss, Losses
from utils.errors import InputError
from utils.files import write_text
from utils.structures import Batch
from utils.training.ema import running_mean
from utils.training.lr_schedule import warmup_cosine
from utils.training.optimizer import make_optimizer


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 natively, where it is faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported()
    return False


def autocast(device: torch.device, enabled: bool) -> contextlib.AbstractContextManager[object]:
    """bfloat16 where it is asked for and the device is fast with it, else float32."""
    if enabled and has_fast_bfloat16(device):
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def freeze_(model: Darknet, layers: int) -> None:
    """Keep the weights and BN statistics of the first `layers` layers as they are."""
    if layers > len(model.layers):
        raise InputError(
            f"freeze={layers}: expected at most {len(model.layers)}, the .cfg's layers"
        )
    for layer in model.layers[:layers]:
        layer.requires_grad_(False)


def _train_mode(model: Darknet) -> None:
    """Training mode, but for the layers that `freeze_` froze."""
    model.train()
    for layer in model.layers:
        parameters = list(layer.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            layer.eval()


class Pull(Protocol):
    """What draws scales to zero, as pruning.sparsity.Sparsity does; steps count from 0."""

    def add_gradient_(self, step: int) -> None: ...

    def shrink_(self, step: int, optimizer: Optimizer) -> None: ...

    def keep_zeros_(self, averaged: Darknet) -> None: ...

    def settle_(self, averaged: Darknet) -> None: ...

    def figures(self) -> dict[str, float]: ...

    @property
    def dead(self) -> float: ...


@dataclass
class Trainer:
    """What takes part in each training step.

    pull: draws scales of batch normalisation to zero, which then are the optimizer's group
    `utils.training.optimizer.SCALES`.
    distillation: a teacher to learn from.
    """

    model: Darknet
    loss: Loss
    optimizer: Optimizer
    schedule: LambdaLR
    mean: AveragedModel
    device: torch.device
    amp: bool
    accumulate: int
    clip: float
    run_folder: Path
    pull: Pull | None = None
    distillation: Distillation | None = None

    @property
    def averaged(self) -> Darknet:
        """The network with the running mean of the weights: the one to evaluate and save."""
        return cast(Darknet, self.mean.module)


def plain_trainer(
    model: Darknet,
    epoch_steps: int,
    folder: Path,
    train: Mapping[str, Any],
    loss: Mapping[str, float],
    scale_lr: float = 0.0,
) -> Trainer:
    """What trains a network from its first step, without pruning or a teacher.

    epoch_steps: steps of the optimizer an epoch. train, loss: settings' groups of these names.
    scale_lr: see `utils.training.optimizer.parameter_groups`.
    """
    model = model.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(
        train["optimizer"], model, train["lr"], train["momentum"], train["weight_decay"], scale_lr
    )
    return Trainer(
        model=model,
        loss=Loss(model.heads, **loss),
        optimizer=optimizer,
        schedule=warmup_cosine(
            optimizer, epoch_steps, train["epochs"], train["warmup_epochs"], train["final_lr"]
        ),
        mean=running_mean(model, train["ema_decay"]),
        device=next(model.parameters()).device,
        amp=train["amp"],
        accumulate=train["accumulate"],
        clip=train["clip"],
        run_folder=folder,
    )


PARTS = tuple(field.name for field in fields(Losses))


def train_one_epoch(
    trainer: Trainer, batches: Iterable[Batch], steps: int, title: str
) -> dict[str, float]:
    """Train on `steps` batches; returns the means of the losses' parts, the learning rate at
    the end, and images per second.

    Raises InputError where the loss is no longer a finite number, after writing the batch's file
    names into the run's folder.
    """
    _train_mode(trainer.model)
    trainer.optimizer.zero_grad(set_to_none=True)
    sums = torch.zeros(len(PARTS))
    images = 0
    start = time.perf_counter()
    with tqdm(batches, title, total=steps, leave=False, dynamic_ncols=True) as progress:
        for step, batch in enumerate(progress, start=1):
            batch = batch.to(trainer.device)
            losses = _losses(trainer, batch)
            before = (step - 1) // trainer.accumulate * trainer.accumulate
            (
                losses.total / min(trainer.accumulate, steps - before)
            ).backward()  # the last are fewer
            if step % trainer.accumulate == 0 or step == steps:
                _step(trainer)
            sums += torch.stack([getattr(losses, part).detach().float().cpu() for part in PARTS])
            images += len(batch.paths)
            progress.set_postfix(
                {
                    part: f"{value / step:.3f}"
                    for part, value in zip(PARTS, sums, strict=True)
                    if part != "teacher" or trainer.distillation
                }
            )
    means = {part: float(value) / steps for part, value in zip(PARTS, sums, strict=True)}
    _check_weights(trainer)
    means["lr"] = trainer.optimizer.param_groups[0]["lr"]
    return {**means, "images_per_second": images / (time.perf_counter() - start)}


def _losses(trainer: Trainer, batch: Batch) -> Losses:
    images = batch.images.contiguous(memory_format=torch.channels_last)
    with autocast(trainer.device, trainer.amp):
        maps, features = trainer.model.maps_and_features(images)
        taught = trainer.distillation.teach(images) if trainer.distillation else None
    losses = trainer.loss(maps, batch)  # in float32
    if trainer.distillation and taught:
        lesson = trainer.distillation((maps, features), taught, batch)
        losses = replace(losses, teacher=lesson)
    if not losses.total.isfinite():
        path = trainer.run_folder / "not_finite.txt"
        write_text(path, "".join(f"{name}\n" for name in batch.paths))
        raise InputError(
            f"the loss is {losses.total.item()}: the files of this batch are listed in {path}; "
            f"a lower lr than {trainer.optimizer.param_groups[0]['lr']:.2g} may help"
        )
    return losses


def _check_weights(trainer: Trainer) -> None:
    """A step can end in nowhere though its loss was finite; nothing of that must be saved."""
    for name, parameter in trainer.averaged.named_parameters():
        if not parameter.isfinite().all():
            raise InputError(
                f"{name} is no longer finite after an epoch at "
                f"lr={trainer.optimizer.param_groups[0]['lr']:.2g}: a lower one may help"
            )


def _step(trainer: Trainer) -> None:
    step = trainer.schedule.last_epoch
    if trainer.clip:
        parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, trainer.clip)
    if trainer.pull:
        trainer.pull.add_gradient_(step)
    trainer.optimizer.step()
    if trainer.pull:
        trainer.pull.shrink_(step, trainer.optimizer)
    trainer.optimizer.zero_grad(set_to_none=True)
    trainer.schedule.step()
    trainer.mean.update_parameters(trainer.model)
    if trainer.pull:
        trainer.pull.keep_zeros_(trainer.averaged)
