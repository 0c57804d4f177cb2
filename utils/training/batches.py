"""What does a network see in an epoch of training, and what is it evaluated on?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from import_param import Augmentation, TrainSettings
from models.darknet import Darknet, stride
from models.netdef import NetDef
from utils.data.augment import multi_scale
from utils.data.datasets import (
    DetectionDataset,
    EpochSampler,
    ValidationDataset,
    shared_validation_loader,
    training_loader,
    validation_loader,
)
from utils.data.photos import PhotoSet
from utils.data.views import InputView, TrainingView, View
from utils.devices import choose_device
from utils.errors import InputError
from utils.evaluation.evaluate import detect_all
from utils.evaluation.metrics import Metrics, compute_metrics
from utils.processes import distributed
from utils.structures import Batch, Detections

MULTI_SCALE = 1  # makes a batch's generator another one than that of the photo with its index


def photo_views(augmentation: Augmentation, netdef: NetDef) -> tuple[View, View]:
    """What is used of the photos to train and to validate on."""
    return (
        TrainingView.of(netdef.size, netdef.letterbox, augmentation),
        InputView(netdef.size, netdef.letterbox),
    )


class TrainingBatches:
    """The photos to train on, augmented, in batches that depend on the seed and the epoch alone.

    Args:
        settings: of the augmentation, the batches and the training.
        photos: to train on.
        netdef: of the network, whose input the photos are made for.
    """

    def __init__(self, settings: TrainSettings, photos: PhotoSet, netdef: NetDef) -> None:
        self.settings, self.photos, self.netdef = settings, photos, netdef
        self.device = choose_device(settings.model.device)
        self.dataset = DetectionDataset(
            photos,
            netdef.size,
            netdef.letterbox,
            settings.augmentation,
            settings.training,
        )
        self.sampler = EpochSampler(len(self.dataset), settings.training.seed)
        self.loader = training_loader(
            self.dataset, self.sampler, settings.data, on_card=self.device.type == "cuda"
        )
        _expect_same_photos(settings, photos)
        if len(photos) < distributed.world():
            raise InputError(
                f"data={settings.data.data!r}: {len(photos)} photos for {distributed.world()} "
                "processes: expected one for each"
            )

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.loader)

    @property
    def optimizer_steps(self) -> int:
        """Steps of the optimizer in an epoch."""
        return -(-len(self) // self.settings.training.accumulate)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, counted from 0; the same ones after a resume."""
        spread, seed = self.settings.training.multi_scale, self.settings.training.seed
        self.sampler.set_epoch(epoch)
        for index, batch in enumerate(self.loader):
            if spread:
                rng = np.random.default_rng((seed, epoch, index, MULTI_SCALE))
                batch = multi_scale(batch, spread, rng, self.device, stride(self.netdef))
            yield batch

    def without_augmentation(self) -> Iterable[Batch]:
        """The same photos as a network sees them in use."""
        dataset = ValidationDataset(self.photos, self.netdef.size, self.netdef.letterbox)
        return validation_loader(dataset, self.settings.data)


class ValidationBatches:
    """The photos that networks are evaluated on.

    Args:
        settings: of the batches and the evaluation.
        photos: to evaluate on.
        netdef: of the network, whose input the photos are made for.
    """

    def __init__(self, settings: TrainSettings, photos: PhotoSet, netdef: NetDef) -> None:
        self.settings = settings
        self.dataset = ValidationDataset(photos, netdef.size, netdef.letterbox)
        self.loader, self.batches = shared_validation_loader(
            self.dataset,
            settings.data,
            on_card=choose_device(settings.model.device).type == "cuda",
        )
        _expect_same_photos(settings, photos)

    def evaluate(self, model: Darknet) -> tuple[Metrics, list[Detections]]:
        """A network's precision, recall and AP, and its detections on each photo.

        Processes that train together share the photos.
        """
        nms, letterbox = self.settings.nms, self.dataset.letterbox
        own = detect_all(model, self.loader, nms, letterbox=letterbox)
        everyones = [photo for process in distributed.gather(own) for photo in process]
        by_photo = dict(zip(self.batches.order(), everyones, strict=True))
        detections = [by_photo[index] for index in range(len(self.dataset))]
        metrics = distributed.from_main(
            lambda: compute_metrics(
                self.dataset.targets, detections, model.heads[0].classes, self.settings.evaluation
            )
        )
        return metrics, detections


def _expect_same_photos(settings: TrainSettings, photos: PhotoSet) -> None:
    """Refuse to train together on what is not the same, as on machines with old copies of it."""
    if distributed.world() == 1:
        return
    digest = hashlib.sha256()
    for photo in photos.photos:
        digest.update(repr((photo.path.name, photo.labels.tolist())).encode())
    everyones = distributed.gather((len(photos), digest.hexdigest()))
    if len(set(everyones)) > 1:
        numbers = ", ".join(str(number) for number, _ in everyones)
        raise InputError(
            f"data={settings.data.data!r}: the processes found {numbers} photos: expected the same "
            "photos and labels on each machine"
        )
