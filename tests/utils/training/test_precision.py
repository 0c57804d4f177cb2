"""Which type does training compute in, and does fp16 train?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from import_param import Sparsity, Training, TrainSettings
from pruning.sparsity import SparsityPenalty
from tests.pruning.test_sparsity import batches
from tests.utils.training.test_loop import EPOCH_STEPS, PLAIN, network, trainer, weights
from utils.training import precision
from utils.training.loop import TrainerFactory, train_one_epoch
from utils.training.optimizer import SCALES
from utils.training.precision import autocast, loss_scaler, training_dtype

CPU, CARD = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("device", "fast_bfloat16", "asked", "dtype"),
    [
        (CPU, True, Training(), torch.bfloat16),
        (CPU, False, Training(), torch.float32),
        (CARD, True, Training(), torch.bfloat16),
        (CARD, False, Training(), torch.float16),
        (CARD, False, Training(amp_dtype="bf16"), torch.bfloat16),
        (CPU, False, Training(amp_dtype="fp16"), torch.float16),
        (CARD, True, Training(amp=False, amp_dtype="fp16"), torch.float32),
    ],
)
def test_the_type_is_what_was_asked_for_or_suits_the_device(
    monkeypatch: pytest.MonkeyPatch,
    device: torch.device,
    fast_bfloat16: bool,
    asked: Training,
    dtype: torch.dtype,
) -> None:
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda _: fast_bfloat16)
    assert training_dtype(asked, device) == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_convolutions_compute_in_the_type_and_only_fp16_is_scaled(dtype: torch.dtype) -> None:
    with autocast(CPU, dtype):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert loss_scaler(CPU, dtype).is_enabled() == (dtype == torch.float16)


@pytest.mark.parametrize("clip", [0.0, 10.0])
def test_fp16_trains_as_float32_does(tmp_path: Path, clip: float) -> None:
    moved = []
    for amp in (False, True):
        train = trainer(tmp_path, clip=clip, amp=amp, amp_dtype="fp16")
        if amp:  # with torch's first scale, the first step overflows
            train.scaler.load_state_dict(train.scaler.state_dict() | {"scale": 1024.0})
        before = weights(train.model)
        means = train_one_epoch(train, batches(train.model.netdef, 4), 4, "")
        moved.append((weights(train.model) - before, means["box"]))
    (wanted, box), (reached, box_in_fp16) = moved
    assert box_in_fp16 == pytest.approx(box, rel=0.02)
    assert (reached - wanted).norm() < 0.05 * wanted.norm()


@pytest.mark.parametrize("clip", [0.0, 10.0])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_step_whose_gradients_overflow_is_left_out_with_its_penalty(
    tmp_path: Path, kind: Literal["sgd", "adamw"], clip: float
) -> None:
    settings = replace(PLAIN, amp=True, amp_dtype="fp16", optimizer=kind, clip=clip)
    factory = TrainerFactory(TrainSettings(training=settings), EPOCH_STEPS, tmp_path)
    train = factory(network(), scale_lr=0.01)
    sparsity = Sparsity(is_pruned=True, sparse_rate=10.0)
    train.penalty = SparsityPenalty.of(train.model, sparsity, "slim", EPOCH_STEPS)
    before, given = weights(train.model), batches(train.model.netdef, 1)

    train.scaler.load_state_dict(train.scaler.state_dict() | {"scale": 1e30})
    train_one_epoch(train, given, 1, "")
    assert torch.equal(weights(train.model), before)
    assert train.scaler.get_scale() == pytest.approx(5e29)

    train.scaler.update(1024.0)
    train_one_epoch(train, given, 1, "")
    scales = torch.cat([p.detach() for p in train.optimizer.param_groups[SCALES]["params"]])
    assert weights(train.model).isfinite().all()
    assert (scales < 1).any()  # the penalty shrank them


def test_momentum_is_sound_after_a_first_step_that_overflows(tmp_path: Path) -> None:
    """torch's fused SGD would keep memory as it was found."""
    train = trainer(tmp_path, amp=True, amp_dtype="fp16", momentum=0.9)
    train.scaler.load_state_dict(train.scaler.state_dict() | {"scale": 1e30})
    given = batches(train.model.netdef, 1)
    train_one_epoch(train, given, 1, "")
    momenta = [state["momentum_buffer"] for state in train.optimizer.state.values()]
    assert momenta and not any(momentum.any() for momentum in momenta)
