"""Batches of many sizes on a device: `main` compares a card's with the CPU's.

For test_batches.py, and for test_pretended_card.py, which runs it as a script.
"""

from __future__ import annotations

from pathlib import Path

import torch

from import_param import Data, Model, Training, TrainSettings
from models import netdef
from tests.conftest import ROOT
from utils.data.recognition import recognise
from utils.data.splits import load_split
from utils.training.batches import TrainingBatches

SPREAD = 0.5


def of_many_sizes(data: str, device: str) -> TrainingBatches:
    """The photos of a data set for yolov3-lite at 96 pixels, more or less, by fours."""
    settings = TrainSettings(
        data=Data(data=data, batch_size=4, workers=0),
        model=Model(device=device),
        training=Training(multi_scale=SPREAD),
    )
    definition = netdef.load(ROOT / "config" / "yolov3-lite.cfg").with_classes(10)
    photos = load_split(recognise(Path(data)), "train", progress=False)
    return TrainingBatches(settings, photos, definition.with_net_options(width=96, height=96))


def main(flags: list[str]) -> None:
    """An epoch of the data set that is named, to the bit."""
    (data,) = flags
    card, cpu = (list(of_many_sizes(data, device).epoch(0)) for device in ("cuda", "cpu"))
    assert len({batch.images.shape for batch in cpu}) > 1
    for on_card, on_cpu in zip(card, cpu, strict=True):
        images = on_card.for_network(torch.device("cuda", 0)).images
        assert images.device.type == "cuda" and images.dtype == torch.float32
        assert torch.equal(images.on_cpu, on_cpu.for_network(torch.device("cpu")).images)  # type: ignore[attr-defined]
        assert torch.equal(on_card.boxes, on_cpu.boxes)
