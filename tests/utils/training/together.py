"""One of several processes that train together, for test_together.py: `together.py FOLDER`.

Alone it is the one process that they are compared with. The batches are the same in any case; each
process has its part of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from import_param import Data, Distillation, Pruning, Sparsity, Training, TrainSettings
from models import netdef
from models.darknet import Darknet
from pruning.iterative.while_training import pruning_while_training
from pruning.latency.meter import LatencyMeter
from tests.conftest import ROOT
from tests.pruning.fake_latency import METER, count_instead_of_timing
from utils.data.recognition import recognise
from utils.data.splits import load_split
from utils.processes import distributed
from utils.structures import Batch
from utils.training.batches import ValidationBatches
from utils.training.loop import TrainerFactory, train_one_epoch

PHOTOS, STEPS, SIZE, CLASSES = 4, 10, 96, 10  # of a batch; of each of two epochs
SPARSE = Sparsity(is_pruned=True, sparse_rate=0.01)
DENSE = TrainSettings(training=Training(epochs=4, lr=1e-3, warmup_epochs=0.5, amp=False))
SGD = replace(DENSE, training=replace(DENSE.training, optimizer="sgd", lr=0.01))
CASES = {
    "dense": DENSE,
    "sgd": SGD,
    "accumulated": replace(DENSE, training=replace(DENSE.training, accumulate=3)),
    "own statistics": replace(DENSE, training=replace(DENSE.training, sync_bn=False)),
    "sparse": replace(DENSE, sparsity=SPARSE),
    # AdamW divides by the size of gradients: one that is nearly zero would be the loss's rounding.
    "taught": replace(SGD, distillation=Distillation(teacher="one", teacher_features=1.0)),
    "cut": replace(
        DENSE,
        sparsity=replace(SPARSE, prune_while_training=True, cut_epochs=(1,)),
        pruning=Pruning(percent=0.4),
    ),
    "cut to a time": replace(
        DENSE,
        sparsity=replace(SPARSE, prune_while_training=True, cut_epochs=(1,)),
        pruning=Pruning("latency", target_speedup=1.5, latency_table="times.csv"),
    ),
}


def network(seed: int) -> Darknet:
    """yolov3-lite in float64, in which sums hardly depend on their order; its loss has float32."""
    torch.manual_seed(seed)
    definition = netdef.load(ROOT / "config" / "yolov3-lite.cfg").with_classes(CLASSES)
    return Darknet(definition.with_net_options(width=SIZE, height=SIZE)).double()


def whole_batches(epoch: int) -> Iterator[Batch]:
    """The batches of an epoch for all processes, with as many objects as it comes."""
    generator = torch.Generator().manual_seed(epoch)
    for number in range(STEPS):
        photos = PHOTOS - number % 2  # also a number that cannot be halved
        objects = int(torch.randint(1, 9, (), generator=generator))
        corner = torch.rand(objects, 2, generator=generator) * SIZE / 2
        extent = (0.1 + torch.rand(objects, 2, generator=generator)) * SIZE / 3
        yield Batch(
            torch.rand(photos, 3, SIZE, SIZE, generator=generator).double(),
            torch.cat([corner, corner + extent], 1),
            torch.randint(CLASSES, (objects,), generator=generator),
            torch.randint(photos, (objects,), generator=generator).sort().values,
            ("",) * photos,
            ((SIZE, SIZE),) * photos,
        )


def own_part(batch: Batch) -> Batch:
    """This process's photos of a batch: the earlier processes have one less if it must be."""
    photos, world = len(batch.images), distributed.world()
    start, end = (photos * n // world for n in (distributed.rank(), distributed.rank() + 1))
    mine = (batch.image_index >= start) & (batch.image_index < end)
    return Batch(
        batch.images[start:end],
        batch.boxes[mine],
        batch.labels[mine],
        batch.image_index[mine] - start,
        batch.paths[start:end],
        batch.sizes[start:end],
    )


def train(settings: TrainSettings, folder: Path) -> dict[str, torch.Tensor | float]:
    """What two epochs come to: the losses of each, and both networks."""
    model = network(seed=0)
    teacher = network(seed=1).eval() if settings.distillation.teacher else None
    pruning = pruning_while_training(settings, model, None)
    epoch_steps = -(-STEPS // settings.training.accumulate)
    factory = TrainerFactory(settings, epoch_steps, folder, teacher)
    trainer = pruning.start(model, factory)
    result: dict[str, torch.Tensor | float] = {}
    for epoch in range(2):
        parts = [own_part(batch) for batch in whole_batches(epoch)]
        means = train_one_epoch(trainer, parts, STEPS, "")
        trainer, _ = pruning.after_epoch(trainer, epoch + 1, factory)
        result |= {f"{epoch}: {name}": value for name, value in means.items() if name != SPEED}
    for kind, network_ in (("model", trainer.model), ("averaged", trainer.averaged)):
        result |= {f"{kind}.{name}": value for name, value in network_.state_dict().items()}
    return result


def count_on_the_main_process(patch: pytest.MonkeyPatch) -> None:
    """Let the main process count operations instead of timing, and no other do either."""

    def meter(*_: object) -> LatencyMeter:
        assert distributed.rank() == 0, "only the main process measures"
        return METER

    count_instead_of_timing(patch)
    patch.setattr("pruning.iterative.while_training.open_meter", meter)


def evaluated(folder: Path) -> dict[str, torch.Tensor | float]:
    """What is measured on the photos of FOLDER/demo.data."""
    photos = load_split(recognise(folder / "demo.data"), "valid", progress=False)
    settings = replace(DENSE, data=Data(batch_size=8, workers=0))
    model = network(seed=0).float().eval()
    metrics, detections = ValidationBatches(settings, photos, model.netdef).evaluate(model)
    return {
        "photos": len(detections),
        "mAP": metrics.mean_ap,
        "mAP 50-95": metrics.mean_ap_50_95,
        "AP": torch.as_tensor(metrics.ap),
        "recall": metrics.mean_recall,
        "boxes": torch.cat([photo.boxes for photo in detections]),
        "scores": torch.cat([photo.scores for photo in detections]),
    }


SPEED = "images_per_second"


def main(folder: Path) -> None:
    """Train as each case says; results go to FOLDER/<rank of so many>.pt."""
    torch.set_num_threads(1)
    distributed.join()
    with pytest.MonkeyPatch.context() as patch:
        count_on_the_main_process(patch)
        results = {name: train(settings, folder) for name, settings in CASES.items()}
    results["evaluated"] = evaluated(folder)
    results["one photo"] = evaluated(folder / "one")
    torch.save(results, folder / f"{distributed.rank()} of {distributed.world()}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
