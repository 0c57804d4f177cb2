"""How do photos reach the network, the same ones whatever the number of workers?

Training: what happens to a photo is drawn from a generator seeded by (seed, epoch, index), so a
run is the same with any number of worker processes, and after a resume.
"""

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from import_param import Augmentation, Data, Training
from utils.boxes import InputTransform
from utils.data.augment import augment, without_flips
from utils.data.photos import PhotoSet
from utils.data.views import InputView, TrainingView
from utils.errors import InputError
from utils.processes import distributed
from utils.processes.workers import end_with_parent, usable_cores
from utils.structures import Batch, Sample, Targets, unit_floats

SHUFFLE = 2**31  # in place of an index, so that an epoch's order has a generator of its own


class DetectionDataset(Dataset[Sample]):
    """Training samples at the network's size, asked for by (epoch, index).

    Objects marked as difficult or crowd are not trained on.

    Args:
        photos: the photos; where a mirrored object is another one, none is mirrored.
        input_size: (width, height) of the network's input.
        letterbox: whether photos keep their aspect.
        augmentation: how strongly photos are changed.
        training: its seed, and its last epochs without mosaics.
    """

    def __init__(
        self,
        photos: PhotoSet,
        input_size: tuple[int, int],
        letterbox: bool,
        augmentation: Augmentation,
        training: Training,
    ) -> None:
        self.photos, self.input_size, self.letterbox = photos, input_size, letterbox
        self.augmentation = augmentation if photos.mirror else without_flips(augmentation)
        self.view = TrainingView.of(input_size, letterbox, augmentation)
        self.seed, self.mosaic_epochs = training.seed, training.epochs - training.close_mosaic

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        augmentation = self.augmentation
        if epoch >= self.mosaic_epochs:
            augmentation = replace(augmentation, mosaic=0.0)

        def others() -> list[Sample]:
            return [self.original(i) for i in rng.integers(len(self), size=3).tolist()]

        original = self.original(index)
        return augment(original, others, self.input_size, self.letterbox, augmentation, rng)

    def original(self, index: int) -> Sample:
        """The photo as it is, or smaller where it need not be so large, and what to train on."""
        photo = self.photos.photos[index]
        image = self.photos.viewed(index, self.view)
        boxes, labels = photo.boxes[~photo.ignore], photo.labels[~photo.ignore]
        size = (image.shape[1], image.shape[0])
        if size != photo.size:
            boxes = boxes * np.tile(np.divide(size, photo.size), 2).astype(np.float32)
        return Sample(image, boxes, labels, str(photo.path))


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, index) of each photo once, in an order drawn by (seed, epoch)."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is drawn next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch, SHUFFLE)).permutation(self.length)
        epoch = self.epoch
        return ((epoch, index) for index in order.tolist())


class PartsOfBatches(Sampler[list[tuple[int, int]]]):
    """This process's part of each batch, which has `batch_size` photos for each process.

    So all processes together see the batches that one would with `batch_size` times as many photos.
    The last batch may have fewer; where it has not one for each process, it is part of the batch
    before.

    Example: 10 photos, 2 processes, batches of 2 for each. The batches are photos 0 to 3, 4 to 7
    and 8 to 9; the first process has 0, 1, then 4, 5, then 8.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int) -> None:
        self.sampler, self.batch_size = sampler, batch_size

    def __len__(self) -> int:
        return len(self._starts())

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        photos = list(self.sampler)
        for start, end in pairwise([*self._starts(), len(photos)]):
            own, world = distributed.rank(), distributed.world()
            bounds = [start + (end - start) * n // world for n in (own, own + 1)]
            yield photos[slice(*bounds)]

    def _starts(self) -> list[int]:
        """Where each batch begins."""
        photos, world = len(self.sampler), distributed.world()
        starts = list(range(0, photos, self.batch_size * world))
        return starts[:-1] if len(starts) > 1 and photos - starts[-1] < world else starts


class SharedBatches(Sampler[list[int]]):
    """Every so-manieth batch of photos in order: this process's of those that all share.

    Batches are as for one process, since what a network computes of a photo depends in its last
    bits on those beside it.
    """

    def __init__(self, length: int, batch_size: int) -> None:
        self.length, self.batch_size = length, batch_size

    def __len__(self) -> int:
        return len(self._batches(distributed.rank()))

    def __iter__(self) -> Iterator[list[int]]:
        return map(list, self._batches(distributed.rank()))

    def order(self) -> list[int]:
        """The photos of all processes, one process's after another's."""
        return [
            index
            for process in range(distributed.world())
            for batch in self._batches(process)
            for index in batch
        ]

    def _batches(self, process: int) -> list[range]:
        photos = range(self.length)
        starts = photos[:: self.batch_size][process :: distributed.world()]
        return [photos[start : start + self.batch_size] for start in starts]


class ValidationDataset(Dataset[tuple[int, torch.Tensor]]):
    """Photos as validation and detection see them, in order."""

    def __init__(self, photos: PhotoSet, input_size: tuple[int, int], letterbox: bool) -> None:
        self.photos, self.input_size, self.letterbox = photos, input_size, letterbox
        self.view = InputView(input_size, letterbox)

    @property
    def targets(self) -> list[Targets]:
        """What is to be found on each photo, in pixels of the original one.

        Made when it is asked for: worker processes would be sent each of these tensors.
        """
        return [photo.targets() for photo in self.photos.photos]

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor]:
        return index, torch.from_numpy(self.photos.viewed(index, self.view))

    def collate(self, items: Sequence[tuple[int, torch.Tensor]]) -> Batch:
        """Make a batch; its boxes, in pixels of the input, leave out what is ignored."""
        photos = [self.photos.photos[index] for index, _ in items]
        boxes, labels = [], []
        for photo in photos:
            counted = torch.from_numpy(~photo.ignore)
            transform = InputTransform.of(photo.size, self.input_size, self.letterbox)
            boxes.append(transform.to_input(torch.from_numpy(photo.boxes))[counted])
            labels.append(torch.from_numpy(photo.labels)[counted])
        return Batch(
            images=_stacked([image for _, image in items]),
            boxes=torch.cat(boxes),
            labels=torch.cat(labels),
            image_index=_image_index(boxes),
            paths=tuple(str(photo.path) for photo in photos),
            sizes=tuple(photo.size for photo in photos),
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Make a batch of samples of one size, its images uint8. Its `sizes` are the samples' own."""
    boxes = [torch.from_numpy(sample.boxes) for sample in samples]
    height, width = samples[0].image.shape[:2]
    return Batch(
        images=torch.from_numpy(np.stack([cv2.split(sample.image) for sample in samples])),
        boxes=torch.cat(boxes),
        labels=torch.cat([torch.from_numpy(sample.labels) for sample in samples]),
        image_index=_image_index(boxes),
        paths=tuple(sample.path for sample in samples),
        sizes=((width, height),) * len(samples),
    )


class PhotoLoader(DataLoader[Batch]):
    """Batches of photos, and one line where a photo cannot be read any more.

    Nothing is skipped: a training on fewer photos than were checked would be another one. What was
    trained until then can be resumed.

    Raises:
        InputError: a photo vanished, changed or cannot be read, or a worker was ended.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except InputError as error:
            # torch puts a worker's traceback, which ends with the message, in its place.
            raise InputError(
                str(error).rpartition(f"{InputError.__name__}: ")[2].strip()
            ) from error
        except (ConnectionError, EOFError) as error:  # or torch itself tells, where it is quicker
            raise InputError(
                f"DataLoader worker ended while its photos were read ({error}): the system ends "
                "processes where memory is short; fewer workers need less"
            ) from error


def training_loader(
    dataset: DetectionDataset, sampler: EpochSampler, settings: Data, on_card: bool = False
) -> PhotoLoader:
    """Load this process's parts of an epoch's batches; call `sampler.set_epoch(epoch)` before.

    on_card: a card trains on them: they are put where it reads them while the program goes on, and
    more worker processes load them.
    """
    return PhotoLoader(
        dataset,  # type: ignore[arg-type]  # torch types samples and batches alike
        batch_sampler=PartsOfBatches(sampler, settings.photos_at_once),
        collate_fn=collate,
        pin_memory=on_card,
        **_worker_options(settings.workers, on_card),
    )


def validation_loader(dataset: ValidationDataset, settings: Data) -> PhotoLoader:
    """Load each photo once, in the order of `dataset.targets`."""
    return PhotoLoader(
        dataset,  # type: ignore[arg-type]
        batch_size=settings.photos_at_once,
        collate_fn=dataset.collate,
        **_worker_options(settings.workers),
    )


def shared_validation_loader(
    dataset: ValidationDataset, settings: Data, on_card: bool = False
) -> tuple[PhotoLoader, SharedBatches]:
    """Load this process's share of the photos, and say which are whose.

    on_card: they are put where a card reads them while the program goes on.
    """
    batches = SharedBatches(len(dataset), settings.photos_at_once)
    loader = PhotoLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=batches,
        collate_fn=dataset.collate,
        pin_memory=on_card,
        **_worker_options(settings.workers),
    )
    return loader, batches


def choose_workers(setting: int, cores: int, forked: bool = True, on_card: bool = False) -> int:
    """How many worker processes to use: `setting` itself, or for -1 what suits so many cores.

    Where a card trains, they have all cores, and it wants many photos. Where the CPU trains, half.
    Two at most where they are not forked, as on Windows and macOS: each then has a copy of the
    photos in memory. On two cores the network's own threads need both: without workers yolov3-lite
    trains at 180 images a second, with one at 144, with two at 153 (224 px, batches of 8).
    """
    if setting >= 0:
        return setting
    if on_card:
        return min(16 if forked else 2, cores)
    return 0 if cores <= 2 else min(8 if forked else 2, cores // 2)


def _worker_options(setting: int, on_card: bool = False) -> dict[str, Any]:
    forked = multiprocessing.get_start_method() == "fork"
    cores = usable_cores() // distributed.local_world()
    workers = choose_workers(setting, cores, forked, on_card)
    return {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "worker_init_fn": _start_worker,
    }


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # workers run beside each other
    end_with_parent()


def _stacked(images: Sequence[torch.Tensor]) -> torch.Tensor:
    """[3, H, W] each → [B, 3, H, W]: bytes if all are, else floats."""
    if len({image.dtype for image in images}) > 1:
        images = [unit_floats(image) for image in images]
    return torch.stack(list(images))


def _image_index(boxes: Sequence[torch.Tensor]) -> torch.Tensor:
    counts = torch.tensor([len(photo_boxes) for photo_boxes in boxes])
    return torch.repeat_interleave(torch.arange(len(boxes)), counts)
