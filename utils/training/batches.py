"""What does a network see in an epoch of training, and what is it evaluated on?"""

from __future__ import annotations

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
    training_loader,
    validation_loader,
)
from utils.data.photos import PhotoSet
from utils.data.views import InputView, TrainingView, View
from utils.evaluation.evaluate import evaluate
from utils.evaluation.metrics import Metrics
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
        self.dataset = DetectionDataset(
            photos,
            netdef.size,
            netdef.letterbox,
            settings.augmentation,
            settings.training,
        )
        self.sampler = EpochSampler(len(self.dataset), settings.training.seed)
        self.loader = training_loader(self.dataset, self.sampler, settings.data)

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
                batch = multi_scale(batch, spread, rng, stride(self.netdef))
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
        self.loader = validation_loader(self.dataset, settings.data)

    def evaluate(self, model: Darknet) -> tuple[Metrics, list[Detections]]:
        """A network's precision, recall and AP, and its detections on each photo."""
        return evaluate(
            model,
            self.loader,
            self.dataset.targets,
            self.settings.evaluation,
            self.settings.nms,
            letterbox=self.dataset.letterbox,
        )
