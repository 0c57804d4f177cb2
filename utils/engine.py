"""One epoch of training, one pass of evaluation, one batch of detection."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from models.darknet import Darknet
from models.distill import Distillation
from models.head import decode
from models.loss import Loss, Losses
from utils.boxes import Fit, clip
from utils.errors import InputError
from utils.files import write_text
from utils.metrics import Metrics, compute_metrics
from utils.nms import nms
from utils.schedule import make_optimizer, running_mean, warmup_cosine
from utils.types import Batch, Detections, Targets

Run = Callable[[Tensor], list[Tensor]]  # images [B, 3, H, W] → the raw map of each head


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
    `utils.schedule.SCALES`.
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
    scale_lr: see `utils.schedule.parameter_groups`.
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


@torch.inference_mode()
def predict(
    model: Darknet,
    images: Tensor,
    sizes: Sequence[tuple[int, int]],
    *,
    conf_thres: float,
    nms_thres: float,
    max_detections: int | None,
    letterbox: bool,
    run: Run | None = None,
    on_network_done: Callable[[], None] = lambda: None,
) -> list[Detections]:
    """Detect on a batch.

    images: float32 [B, 3, H, W], 0 to 1, fitted by `utils.boxes.fit_image`. sizes: the B original
    photos' (width, height). run: what computes the network's maps, such as an engine of
    `utils.backends`; None for the model itself. Returns B Detections, boxes in pixels of the
    original photos, cut to them. on_network_done is called between the network and NMS, for those
    who take the time.
    """
    net = (images.shape[-1], images.shape[-2])
    maps = (run or model)(images.contiguous(memory_format=torch.channels_last))
    on_network_done()
    found = nms(
        decode(maps, model.heads, net),
        conf_thres,
        nms_thres,
        max_detections,
        model.heads[-1].nms_power,  # Darknet, too, asks the last head
    )
    return [
        _on_photo(detections, Fit.of(size, net, letterbox), size)
        for detections, size in zip(found, sizes, strict=True)
    ]


def _on_photo(detections: Detections, fit: Fit, size: tuple[int, int]) -> Detections:
    boxes = clip(fit.back(detections.boxes), size)
    return Detections(boxes.cpu(), detections.scores.cpu(), detections.labels.cpu())


def detect_all(
    model: Darknet,
    loader: Iterable[Batch],
    *,
    conf_thres: float,
    nms_thres: float,
    max_detections: int | None,
    letterbox: bool,
    run: Run | None = None,
    title: str = "evaluate",
) -> list[Detections]:
    """Detect on every photo of a loader, in its order, with a progress bar."""
    device = next(model.parameters()).device
    found: list[Detections] = []
    for batch in tqdm(loader, title, leave=False, dynamic_ncols=True):
        found += predict(
            model,
            batch.images.to(device, non_blocking=True),
            batch.sizes,
            conf_thres=conf_thres,
            nms_thres=nms_thres,
            max_detections=max_detections,
            letterbox=letterbox,
            run=run,
        )
    return found


def evaluate(
    model: Darknet,
    loader: Iterable[Batch],
    targets: Sequence[Targets],
    *,
    rule: str,
    iou_thres: float,
    conf_thres: float,
    nms_thres: float,
    max_detections: int,
    plus_one: bool,
    letterbox: bool,
    run: Run | None = None,
) -> tuple[Metrics, list[Detections]]:
    """Detect on every photo of a loader and measure it against `targets`, in the same order.

    The thresholds and rules are those of `utils.nms.nms` and `utils.metrics.compute_metrics`;
    max_detections is 0 for any number of boxes a photo; run is that of `predict`.
    """
    found = detect_all(
        model,
        loader,
        conf_thres=conf_thres,
        nms_thres=nms_thres,
        max_detections=max_detections or None,
        letterbox=letterbox,
        run=run,
    )
    classes = model.heads[0].classes
    metrics = compute_metrics(
        targets, found, classes, rule=rule, iou_thres=iou_thres, plus_one=plus_one
    )
    return metrics, found
