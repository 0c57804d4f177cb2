"""Is a step of training what its settings say, however the batches are grouped?"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from import_param import Distillation as DistillationSettings
from import_param import Sparsity, Training, TrainSettings
from models.blocks import Convolution
from models.darknet import Darknet
from models.netdef import parse
from pruning.sparsity import SparsityPenalty
from tests.pruning.test_sparsity import BLOCK, batches
from utils.errors import InputError
from utils.structures import Batch
from utils.training import loop
from utils.training.build import freeze_
from utils.training.ema import EMA_RAMP
from utils.training.loop import (
    Trainer,
    TrainerFactory,
    _EpochLosses,
    _losses,
    _optimizer_step,
    _train_mode,
    train_one_epoch,
)
from utils.training.lr_schedule import warmup_cosine, warmup_cosine_factor
from utils.training.optimizer import parameter_groups

EPOCH_STEPS = 10
PLAIN = Training(
    epochs=1,
    optimizer="sgd",
    lr=0.01,
    final_lr=1.0,
    warmup_epochs=0.0,
    momentum=0.0,
    weight_decay=0.0,
    clip=0.0,
    ema_decay=0.0,
    amp=False,
)


def network(seed: int = 0) -> Darknet:
    torch.manual_seed(seed)
    return Darknet(parse(BLOCK))


def trainer(folder: Path, model: Darknet | None = None, **changes: Any) -> Trainer:
    settings = TrainSettings(training=replace(PLAIN, **changes))
    return TrainerFactory(settings, EPOCH_STEPS, folder)(model or network())


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def still(model: Darknet) -> Darknet:
    """The network with BN that normalises nothing, so that a batch's loss is its photos' alone."""
    for layer in model.layers:
        if isinstance(layer, Convolution) and layer.bn is not None:
            layer.bn.momentum = 0.0
    return model


def gradient_of(model: Darknet, folder: Path, group: list[Batch]) -> torch.Tensor:
    """The mean gradient of batches, worked out without the loop."""
    alone = trainer(folder, copy.deepcopy(model))
    alone.model.train()
    for batch in group:
        (alone.loss(alone.model(batch.images), batch).total / len(group)).backward()
    return torch.cat([p.grad.flatten() for p in alone.model.parameters()])


def test_a_step_is_the_mean_gradient_of_its_batches(tmp_path: Path) -> None:
    """Five batches by twos: the steps are of 2, 2 and 1 batches, each by the mean."""
    train = trainer(tmp_path, accumulate=2)
    expected = copy.deepcopy(train.model)
    given = batches(train.model.netdef, 5)
    for group in (given[:2], given[2:4], given[4:]):
        gradient = gradient_of(expected, tmp_path, group)
        with torch.no_grad():
            start = 0
            for parameter in expected.parameters():
                part = gradient[start : start + parameter.numel()]
                parameter.sub_(0.01 * part.view_as(parameter))
                start += parameter.numel()
    train_one_epoch(train, given, len(given), "")
    torch.testing.assert_close(weights(train.model), weights(expected), rtol=1e-4, atol=1e-6)
    assert train.schedule.last_epoch == 3  # counted in steps of the optimizer


def test_a_gradient_is_clipped_to_the_norm_asked_for(tmp_path: Path) -> None:
    for clip in (1e-3, 1e-2):
        train = trainer(tmp_path, clip=clip, lr=1.0)
        before = weights(train.model)
        train_one_epoch(train, batches(train.model.netdef, 1), 1, "")
        assert (weights(train.model) - before).norm().item() == pytest.approx(clip, rel=1e-3)


def test_a_norm_of_0_clips_nothing(tmp_path: Path) -> None:
    train = trainer(tmp_path)
    given = batches(train.model.netdef, 1)
    gradient = gradient_of(train.model, tmp_path, given)
    before = weights(train.model)
    train_one_epoch(train, given, 1, "")
    moved = before - weights(train.model)
    torch.testing.assert_close(moved, 0.01 * gradient, rtol=1e-3, atol=1e-6)


def test_no_gradient_is_left_from_one_epoch_to_the_next(tmp_path: Path) -> None:
    train = trainer(tmp_path, model=still(network()), lr=1e-9)
    for parameter in train.model.parameters():
        parameter.grad = torch.full_like(parameter, 1e9)
    before = weights(train.model)
    train_one_epoch(train, batches(train.model.netdef, 1), 1, "")
    torch.testing.assert_close(weights(train.model), before, rtol=0, atol=1e-4)
    assert all(p.grad is None for p in train.model.parameters())


def test_the_learning_rate_follows_the_schedule_step_by_step(tmp_path: Path) -> None:
    train = trainer(tmp_path, warmup_epochs=0.5, final_lr=0.1)
    factor = warmup_cosine_factor(EPOCH_STEPS, train.settings)
    means = train_one_epoch(train, batches(train.model.netdef, 3), 3, "")
    assert means["lr"] == pytest.approx(0.01 * factor(3))
    assert factor(0) < factor(1) < factor(2) < factor(3)


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_momentum_is_sgds_and_adamws_first_beta(tmp_path: Path, momentum: float) -> None:
    sgd = trainer(tmp_path, momentum=momentum).optimizer
    assert [(g["momentum"], g["nesterov"]) for g in sgd.param_groups] == [(momentum, True)] * 2
    adamw = trainer(tmp_path, optimizer="adamw", momentum=momentum).optimizer
    assert [group["betas"] for group in adamw.param_groups] == [(momentum, 0.999)] * 2
    assert isinstance(adamw, torch.optim.AdamW) and isinstance(sgd, torch.optim.SGD)


def test_sgd_without_momentum_is_plain() -> None:
    settings = TrainSettings(training=PLAIN)
    groups = TrainerFactory(settings, 1, Path())(network()).optimizer.param_groups
    assert not any(group["nesterov"] for group in groups)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_weight_decay_shrinks_kernels_alone(tmp_path: Path, kind: str) -> None:
    optimizer = trainer(tmp_path, optimizer=kind, lr=0.1, weight_decay=0.1).optimizer
    kernels, others = (group["params"] for group in optimizer.param_groups)
    before = [[p.detach().clone() for p in group] for group in (kernels, others)]
    for parameter in (*kernels, *others):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter, old in zip(kernels, before[0], strict=True):
        torch.testing.assert_close(parameter.detach(), 0.99 * old)
    assert all(map(torch.equal, others, before[1]))


def test_the_running_mean_forgets_the_first_weights_at_its_ramp(tmp_path: Path) -> None:
    train = trainer(tmp_path, ema_decay=0.9)
    first = weights(train.averaged)
    train_one_epoch(train, batches(train.model.netdef, 1), 1, "")
    assert torch.equal(weights(train.averaged), weights(train.model))  # the first is a copy
    between = weights(train.averaged)
    train_one_epoch(train, batches(train.model.netdef, 1), 1, "")
    keep = 0.9 * (1 - torch.tensor(-1 / EMA_RAMP).exp())
    expected = keep * between + (1 - keep) * weights(train.model)
    torch.testing.assert_close(weights(train.averaged), expected)
    assert not torch.equal(first, between)
    assert not train.averaged.training and train.model.training


class Recorder:
    """A penalty that notes when it is asked what."""

    def __init__(self, model: Darknet) -> None:
        self.model, self.calls = model, list[tuple[str, int]]()
        self.before = self.after = torch.zeros(0)

    def add_gradient_(self, step: int) -> None:
        self.calls.append(("gradient", step))
        self.before = weights(self.model)
        norms = [p.grad.norm() for p in self.model.parameters() if p.grad is not None]
        self.norm = float(torch.stack(norms).norm())

    def shrink_(self, step: int, optimizer: Optimizer, taken: Tensor | None = None) -> None:
        self.calls.append(("shrink", step))
        self.after = weights(self.model)

    def keep_zeros_(self, averaged: Darknet) -> None:
        self.calls.append(("zeros", -1))
        assert torch.equal(weights(averaged), self.after)  # ema_decay=0: the mean followed


def test_the_penalty_acts_around_the_step_after_clipping(tmp_path: Path) -> None:
    train = trainer(tmp_path, accumulate=2, clip=1e-3)
    recorder = train.penalty = Recorder(train.model)
    train_one_epoch(train, batches(train.model.netdef, 4), 4, "")
    steps = [[("gradient", n), ("shrink", n), ("zeros", -1)] for n in (0, 1)]
    assert recorder.calls == [*steps[0], *steps[1]]
    assert recorder.norm == pytest.approx(1e-3, rel=1e-3)
    assert not torch.equal(recorder.before, recorder.after)


def test_the_means_are_over_the_batches(tmp_path: Path) -> None:
    train = trainer(tmp_path, lr=1e-12)
    given = batches(train.model.netdef, 3)
    means = train_one_epoch(train, given, 3, "")
    alone = copy.deepcopy(train.model).train()
    with torch.no_grad():
        boxes = [float(train.loss(alone(batch.images), batch).box) for batch in given]
    assert means["box"] == pytest.approx(sum(boxes) / 3, rel=1e-4)
    assert means["teacher"] == 0 and means["images_per_second"] > 0


def test_a_frozen_layer_keeps_weights_and_statistics_and_others_train(tmp_path: Path) -> None:
    model = network()
    freeze_(model, 2)
    before = copy.deepcopy(model.state_dict())
    train_one_epoch(trainer(tmp_path, model), batches(model.netdef, 2), 2, "")
    changed = {n.split(".")[1] for n, t in model.state_dict().items() if (t != before[n]).any()}
    assert changed == {"2", "3", "5", "6"}
    with pytest.raises(InputError, match="freeze=9: expected at most 8"):
        freeze_(model, 9)


def test_a_teacher_counts_in_the_loss(tmp_path: Path) -> None:
    settings = TrainSettings(training=PLAIN, distillation=DistillationSettings(teacher="any.pt"))
    teacher = network(1).eval()
    taught = TrainerFactory(settings, EPOCH_STEPS, tmp_path, teacher)(network())
    plain = trainer(tmp_path)
    given = batches(plain.model.netdef, 1)
    assert train_one_epoch(taught, given, 1, "")["teacher"] > 0
    train_one_epoch(plain, given, 1, "")
    assert not torch.equal(weights(taught.model), weights(plain.model))
    assert torch.equal(weights(teacher), weights(network(1)))


def test_a_batch_whose_loss_is_no_number_is_listed(tmp_path: Path) -> None:
    train = trainer(tmp_path)
    bad = batches(train.model.netdef, 2)
    bad[1] = replace(bad[1], images=bad[1].images * float("nan"), paths=("c", "d"))
    with pytest.raises(InputError, match=r"the loss is nan: .*not_finite\.txt"):
        train_one_epoch(train, bad, 2, "")
    assert (tmp_path / "not_finite.txt").read_text() == "c\nd\n"


def test_weights_that_are_no_number_end_the_training(tmp_path: Path) -> None:
    train = trainer(tmp_path, lr=1e39)
    with pytest.raises(InputError, match="no longer finite after an epoch at lr=1e\\+39"):
        train_one_epoch(train, batches(train.model.netdef, 1), 1, "")


def test_a_variance_that_is_infinite_ends_the_training(tmp_path: Path) -> None:
    """The loss is finite, since the normalised map is 0, and so are all weights."""
    train = trainer(tmp_path)
    bright = batches(train.model.netdef, 1)
    bright[0] = replace(bright[0], images=bright[0].images * 1e30)
    with pytest.raises(InputError, match=r"running_var is no longer finite"):
        train_one_epoch(train, bright, 1, "")


def test_where_losses_are_read_now_and_then_the_bad_batch_is_still_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "read_every", lambda _: 4)
    for count in (3, 9):  # read at the end, and on the way
        train = trainer(tmp_path)
        given = batches(train.model.netdef, count)
        given[1] = replace(given[1], images=given[1].images * float("nan"), paths=("c", "d"))
        with pytest.raises(InputError, match=r"the loss is nan: .*not_finite\.txt"):
            train_one_epoch(train, given, count, "")
        assert (tmp_path / "not_finite.txt").read_text() == "c\nd\n"


def test_how_often_losses_are_read_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for every in (1, 2):
        monkeypatch.setattr(loop, "read_every", lambda _, every=every: every)
        train = trainer(tmp_path)
        means = train_one_epoch(train, batches(train.model.netdef, 3), 3, "")
        del means["images_per_second"]
        results.append((means, weights(train.model).tolist()))
    assert results[0] == results[1]


def test_the_loss_that_is_shown_is_the_mean_of_what_is_minimised(tmp_path: Path) -> None:
    train = trainer(tmp_path, lr=1e-12)
    given = batches(train.model.netdef, 2)
    losses = _EpochLosses(train)
    notes = [losses.add(batch, _losses(train, batch, only_add=False)) for batch in given]
    means = losses.means()
    total = sum(means[part] for part in ("box", "objectness", "classes", "teacher"))
    assert notes[-1] == f"loss {total:.4g}"


@pytest.mark.parametrize("kind", ["dense", "sparse", "taught"])
def test_a_step_does_not_wait_for_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Nobody can read a value on torch's device `meta`: whoever needs one would wait for a card.

    Nor does it take tensors of the CPU.
    """
    model = network().to("meta")
    teacher = network(1).eval().to("meta") if kind == "taught" else None
    settings = TrainSettings(training=replace(PLAIN, clip=10.0, ema_decay=0.9))
    train = TrainerFactory(settings, EPOCH_STEPS, tmp_path, teacher)(model)
    groups = parameter_groups(model, weight_decay=0.1, scale_lr=0.01)
    train.optimizer = torch.optim.AdamW(groups)  # a fused one does not know this device
    train.schedule = warmup_cosine(train.optimizer, EPOCH_STEPS, settings.training)
    if kind == "sparse":
        train.penalty = SparsityPenalty.of(model, Sparsity(is_pruned=True), "slim", 9)
    _train_mode(model)
    losses = _EpochLosses(train)
    for batch in batches(model.netdef, 3):
        parts = _losses(train, batch, only_add=False)
        losses.add(batch, parts)
        train.scaler.scale(parts.total).backward()
        _optimizer_step(train)
