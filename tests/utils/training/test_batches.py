"""What does a network see in an epoch where the size changes from batch to batch?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.darknet import stride
from models.netdef import NetDef
from tests.processes import small_data_set
from tests.utils.training.sizes import SPREAD, of_many_sizes
from utils.boxes import resize
from utils.devices import CPU
from utils.processes import distributed
from utils.training import batches
from utils.training.batches import MULTI_SCALE, TrainingBatches


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data")
    small_data_set(folder, 12, 2)
    return str(folder / "demo.data")


def one_size(other: TrainingBatches) -> TrainingBatches:
    training = replace(other.settings.training, multi_scale=0.0)
    return TrainingBatches(replace(other.settings, training=training), other.photos, other.netdef)


def size_of_batch(netdef: NetDef, epoch: int, index: int) -> tuple[int, int]:
    """The (width, height) of a batch."""
    factor = np.random.default_rng((0, epoch, index, MULTI_SCALE)).uniform(1 - SPREAD, 1 + SPREAD)
    step = stride(netdef)
    width, height = (round(side * factor / step) * step for side in netdef.size)
    return width, height


def test_batches_are_the_floats_of_their_photos_resized(data: str) -> None:
    resized = of_many_sizes(data, "cpu")
    sizes = set()
    for epoch in range(3):
        plain = one_size(resized).epoch(epoch)
        for index, (batch, whole) in enumerate(zip(resized.epoch(epoch), plain, strict=True)):
            width, height = size_of_batch(resized.netdef, epoch, index)
            floats = whole.images.float() / 255
            if (width, height) != resized.netdef.size:
                floats = resize(floats, width, height)
            assert torch.equal(batch.for_network(CPU).images, floats)
            sizes.add((width, height))
    assert len(sizes) > 1


def test_processes_that_train_together_see_the_same_sizes(
    data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_expect_same_photos", lambda *_: None)
    monkeypatch.setattr(distributed, "world", lambda: 2)
    shapes = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        seen = of_many_sizes(data, "cpu")
        shapes.append([b.images.shape[2:] for epoch in range(4) for b in seen.epoch(epoch)])
    assert shapes[0] == shapes[1]
    assert len(set(shapes[0])) > 1
