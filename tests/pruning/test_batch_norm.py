"""Is a cut network judged as the training would judge it?"""

import math

import pytest
import torch

from import_param import Loss
from models.loss import DetectionLoss
from pruning.batch_norm import mean_loss, reestimate_bn_, settle_bn_
from tests.pruning.nets import as_batch, config, photos, trained
from tests.pruning.test_channels import conv, net


@torch.no_grad()
def test_a_mean_loss_is_that_of_the_first_batches() -> None:
    model = trained(config("yolov3-tiny", thinner=16), 0)
    batches = [as_batch(photos(model.netdef, 2, seed)) for seed in range(3)]
    loss = DetectionLoss(model.heads, Loss())
    each = [float(loss(model(batch.images), batch).total) for batch in batches]
    assert mean_loss(model, batches, 1) == pytest.approx(each[0])
    assert mean_loss(model, batches, 2) == pytest.approx(sum(each[:2]) / 2)
    assert mean_loss(model, batches, 9) == pytest.approx(sum(each) / 3)
    assert mean_loss(model, [], 2) == 0


NAN = math.nan


@pytest.mark.parametrize(
    ("mean_aps", "losses", "kept"),
    [
        ((0.5, 0.4), (2.0, 1.0), "old"),  # the loss falls, and mAP with it
        ((0.4, 0.5), (1.0, 2.0), "new"),
        ((0.0, 0.0), (2.0, 1.0), "new"),
        ((0.0, 0.0), (1.0, 1.0), "new"),
        ((0.0, 0.0), (1.0, 2.0), "old"),
        ((0.5, NAN), (2.0, 1.0), "old"),
        ((NAN, 0.5), (1.0, 2.0), "new"),
        ((0.5, 0.5), (1.0, NAN), "old"),
        ((0.5, 0.5), (NAN, 1.0), "new"),
    ],
)
def test_the_statistics_that_detect_more_stay(
    mean_aps: tuple[float, float],
    losses: tuple[float, float],
    kept: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = trained(config("yolov3-tiny", thinner=16), 0)
    batches = [as_batch(photos(model.netdef, 2, seed)) for seed in range(2)]
    norm = model.layers[0].bn
    assert isinstance(norm, torch.nn.BatchNorm2d) and norm.running_mean is not None
    old = norm.running_mean.clone()
    found = iter(losses)
    monkeypatch.setattr("pruning.batch_norm.mean_loss", lambda *_: next(found))
    new, line = settle_bn_(model, batches, 2, 1, mean_aps[0], lambda _: mean_aps[1])
    assert torch.equal(norm.running_mean, old) == (kept == "old") and new == (kept == "new")
    assert line == (
        f"BN {'is' if new else 'is not'} re-estimated: mAP@.5 would go from {mean_aps[0]:.4f} to "
        f"{mean_aps[1]:.4f}, the loss on training photos from {losses[0]:.4f} to {losses[1]:.4f}"
    )


def test_a_batch_of_one_photo_says_nothing_of_a_variance() -> None:
    model = trained(config("yolov3-tiny", thinner=16), 0)
    batches = [as_batch(photos(model.netdef, count, 0)) for count in (1, 2, 1)]
    assert reestimate_bn_(model, batches, 3) == 1
    new, line = settle_bn_(model, batches[:1], 3, 1, 0.5, lambda _: 1.0)
    assert not new and line.endswith("not re-estimated: that takes 2 photos to train on, or more")


def test_statistics_are_those_of_the_batches_and_modes_are_kept() -> None:
    netdef = net(conv(4), "[dropout]\nprobability=0.5\n", conv(5))
    model = trained(netdef, 0).train()
    weights = [p.clone() for p in model.parameters()]
    batches = [as_batch(photos(netdef, 4, seed)) for seed in range(3)]
    reestimate_bn_(model, batches, 2)
    assert model.training and model.layers[1].training
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    norm = model.layers[0].bn
    assert isinstance(norm, torch.nn.BatchNorm2d) and norm.num_batches_tracked is not None
    assert norm.momentum == 0.1 and int(norm.num_batches_tracked) == 2
    with torch.no_grad():
        maps = [model.layers[0].conv(batch.images) for batch in batches[:2]]
    means = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
    torch.testing.assert_close(norm.running_mean, means)
    assert norm.running_mean is not None
    before = norm.running_mean.clone()
    assert reestimate_bn_(model, [], 2) == 0
    assert torch.equal(norm.running_mean, before) and norm.momentum == 0.1
