"""Is a cut network judged as the training would judge it?"""

import pytest
import torch

from models.loss import Loss
from pruning.calibrate import mean_loss
from tests.pruning.nets import as_batch, config, photos, trained


@torch.no_grad()
def test_a_mean_loss_is_that_of_the_first_batches() -> None:
    model = trained(config("yolov3-tiny", thinner=16), 0)
    batches = [as_batch(photos(model.netdef, 2, seed)) for seed in range(3)]
    loss = Loss(model.heads)
    each = [float(loss(model(batch.images), batch).total) for batch in batches]
    assert mean_loss(model, batches, 2) == pytest.approx(sum(each[:2]) / 2)
    assert mean_loss(model, batches, 9) == pytest.approx(sum(each) / 3)
    assert mean_loss(model, [], 2) == 0
