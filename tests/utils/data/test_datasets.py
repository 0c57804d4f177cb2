"""Training sees the same photos whatever the number of workers, validation sees all in order."""

import gc
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from import_param import Augmentation, Data, Training
from utils.boxes import network_input
from utils.data.augment import NO_AUGMENTATION
from utils.data.datasets import (
    DetectionDataset,
    EpochSampler,
    ValidationDataset,
    choose_workers,
    collate,
    training_loader,
    validation_loader,
)
from utils.data.labels import read_labels
from utils.data.labels.record import Record
from utils.data.photos import PhotoSet
from utils.data.validation import check
from utils.devices import CPU
from utils.errors import InputError, run
from utils.structures import Batch, Sample

NAMES = ("cat", "dog")
NET = (64, 96)


@pytest.fixture
def photos(tmp_path: Path) -> PhotoSet:
    """Nine noisy photos of various sizes: 0 to 2 objects, half of the photos in the cache."""
    rng = np.random.default_rng(0)
    records: list[Record] = []
    for index in range(9):
        height, width = (int(side) for side in rng.integers(50, 150, 2))
        image = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Pillow.fromarray(image).save(tmp_path / f"{index}.png")
        lines = [f"{k} .{3 + k} .5 .2 .3\n" for k in range(index % 3)]
        (tmp_path / f"{index}.txt").write_text("".join(lines))
        records.append(read_labels(tmp_path / f"{index}.png", tmp_path / f"{index}.txt", NAMES))
    photos = check(records, NAMES, cache_mb=0.12, progress=False)
    assert 0 < len(photos.cache) < 9
    return photos


def training(photos: PhotoSet, **changes: object) -> DetectionDataset:
    options = {
        "input_size": NET,
        "letterbox": True,
        "augmentation": Augmentation(),
        "training": Training(seed=3),
    }
    return DetectionDataset(photos, **{**options, **changes})  # type: ignore[arg-type]


def epochs(photos: PhotoSet, workers: int, first: int, last: int) -> list[Batch]:
    sampler = EpochSampler(len(photos), seed=3)
    loader = training_loader(training(photos), sampler, Data(batch_size=4, workers=workers))
    batches = []
    for epoch in range(first, last):
        sampler.set_epoch(epoch)
        batches += list(loader)
    return batches


def assert_equal(one: list[Batch], other: list[Batch]) -> None:
    assert [batch.paths for batch in one] == [batch.paths for batch in other]
    for a, b in zip(one, other, strict=True):
        for name in ("images", "boxes", "labels", "image_index"):
            assert torch.equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_change_nothing(photos: PhotoSet, workers: int) -> None:
    assert_equal(epochs(photos, 0, 0, 2), epochs(photos, workers, 0, 2))


def test_a_resumed_run_sees_what_the_whole_run_saw(photos: PhotoSet) -> None:
    whole = epochs(photos, 0, 0, 4)
    assert_equal(whole[6:], epochs(photos, 0, 2, 4))  # three batches an epoch
    assert not torch.equal(whole[0].images, whole[3].images)


def test_an_epoch_shows_every_photo_once_in_a_new_order() -> None:
    sampler = EpochSampler(20, seed=1)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {e for e, _ in keys} == {epoch}
        orders.append([index for _, index in keys])
        assert sorted(orders[-1]) == list(range(20))
    assert orders[0] == orders[2] != orders[1]
    assert list(EpochSampler(20, seed=2)) != list(EpochSampler(20, seed=1))


def test_the_cached_photo_is_never_written_to(photos: PhotoSet) -> None:
    before = {index: image.copy() for index, image in photos.cache.items()}
    epochs(photos, 0, 0, 3)
    for index, image in photos.cache.items():
        np.testing.assert_array_equal(image, before[index])


def test_mosaics_end_when_they_should(photos: PhotoSet) -> None:
    always = Augmentation(**{**vars(NO_AUGMENTATION), "mosaic": 1.0})
    dataset = training(
        photos, augmentation=always, training=Training(seed=3, epochs=8, close_mosaic=3)
    )
    plain = training(photos, augmentation=NO_AUGMENTATION)
    for index in range(len(photos)):
        assert not np.array_equal(dataset[(4, index)].image, plain[(4, index)].image)
        np.testing.assert_array_equal(dataset[(5, index)].image, plain[(5, index)].image)


def test_photos_of_signs_are_not_mirrored(photos: PhotoSet) -> None:
    flips = replace(NO_AUGMENTATION, flip_horizontal=1.0, flip_vertical=1.0)
    plain = training(photos, augmentation=NO_AUGMENTATION)[(0, 0)]
    mirrored = training(photos, augmentation=flips)[(0, 0)]
    signs = training(replace(photos, mirror=False), augmentation=flips)[(0, 0)]
    np.testing.assert_array_equal(mirrored.image, plain.image[::-1, ::-1])
    np.testing.assert_array_equal(signs.image, plain.image)


def test_batches_keep_boxes_with_their_photos(photos: PhotoSet) -> None:
    dataset = training(photos, augmentation=NO_AUGMENTATION)
    samples = [dataset[(0, index)] for index in (0, 2, 1)]
    batch = collate(samples)
    assert batch.images.shape == (3, 3, NET[1], NET[0])
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous()
    assert batch.image_index.tolist() == [1, 1, 2]
    for index, sample in enumerate(samples):
        mine = batch.image_index == index
        np.testing.assert_array_equal(batch.boxes[mine], sample.boxes)
        np.testing.assert_array_equal(batch.labels[mine], sample.labels)
        np.testing.assert_array_equal(batch.images[index].permute(1, 2, 0), sample.image)


@pytest.mark.parametrize("workers", [0, 1])
def test_photos_to_train_on_travel_as_bytes(photos: PhotoSet, workers: int) -> None:
    (batch, *_) = epochs(photos, workers, 0, 1)
    assert batch.images.dtype == torch.uint8
    assert batch.images.untyped_storage().nbytes() == 4 * 3 * NET[0] * NET[1]
    dataset = training(photos)
    order = EpochSampler(len(photos), seed=3)
    samples = np.stack([dataset[key].image for key in list(order)[:4]])  # [B, H, W, 3]
    divided = torch.from_numpy(samples).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(batch.for_network(CPU).images, divided)


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_shows_all_photos_in_order(photos: PhotoSet, workers: int) -> None:
    dataset = ValidationDataset(photos, NET, letterbox=False)
    batches = list(validation_loader(dataset, Data(batch_size=4, workers=workers)))
    assert [len(batch.paths) for batch in batches] == [4, 4, 1]
    paths = [path for batch in batches for path in batch.paths]
    assert paths == [str(photo.path) for photo in photos.photos]
    start = 0
    for batch in batches:
        assert batch.images.shape[1:] == (3, NET[1], NET[0])
        for index, size in enumerate(batch.sizes):
            back = batch.boxes[batch.image_index == index] / torch.tensor(NET * 2)
            wanted = dataset.targets[start + index].boxes / torch.tensor(size * 2)
            torch.testing.assert_close(back, wanted)
        start += len(batch.paths)


def test_an_epoch_without_augmentation_is_what_validation_sees(photos: PhotoSet) -> None:
    plain = training(photos, augmentation=NO_AUGMENTATION, letterbox=False)
    validation = ValidationDataset(photos, NET, letterbox=False)
    mine = collate([plain[(0, index)] for index in range(len(photos))])
    theirs = validation.collate([validation[index] for index in range(len(photos))])
    pixels = mine.for_network(CPU).images
    assert (pixels - theirs.images).abs().mean() < 0.01  # of noise, the hardest picture
    torch.testing.assert_close(mine.boxes, theirs.boxes)
    assert torch.equal(mine.image_index, theirs.image_index)


@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [([NET, NET], torch.uint8), ([NET, (50, 70)], torch.float32), ([(50, 70)], torch.float32)],
    ids=["of the input's size", "mixed", "other"],
)
@pytest.mark.parametrize("letterbox", [True, False])
def test_photos_of_the_inputs_size_travel_as_bytes_to_validate_on(
    tmp_path: Path, sizes: list[tuple[int, int]], dtype: torch.dtype, letterbox: bool
) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (height, width, 3), np.uint8) for width, height in sizes]
    records: list[Record] = []
    for index, image in enumerate(images):
        path = tmp_path / f"{index}.png"
        Pillow.fromarray(image).save(path)
        path.with_suffix(".txt").write_text("0 .5 .5 .2 .2\n")
        records.append(read_labels(path, path.with_suffix(".txt"), NAMES))
    dataset = ValidationDataset(check(records, NAMES, progress=False), NET, letterbox)
    (batch,) = validation_loader(dataset, Data(batch_size=4, workers=0))
    assert batch.images.dtype == dtype and batch.images.is_contiguous()
    expected = torch.stack([network_input(image, NET, letterbox) for image in images])
    assert torch.equal(batch.for_network(CPU).images, expected)


def test_ignored_objects_are_targets_but_not_trained_on(tmp_path: Path) -> None:
    Pillow.new("RGB", (40, 40)).save(tmp_path / "a.png")
    box = "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>{}</xmax><ymax>25</ymax></bndbox></object>"
    (tmp_path / "a.xml").write_text(
        f"<annotation><object><name>cat</name><difficult>1</difficult>{box.format(30)}"
        f"<object><name>dog</name>{box.format(20)}</annotation>"
    )
    record = read_labels(tmp_path / "a.png", tmp_path / "a.xml", NAMES)
    photos = check([record], NAMES, progress=False)
    assert training(photos, augmentation=NO_AUGMENTATION)[(0, 0)].labels.tolist() == [1]
    validation = ValidationDataset(photos, NET, letterbox=False)
    assert validation.targets[0].ignore.tolist() == [True, False]
    batch = validation.collate([validation[0]])
    assert batch.labels.tolist() == [1]
    assert batch.boxes.shape == (1, 4)


@pytest.mark.parametrize(
    ("asked", "cores", "workers"),
    [(-1, 1, 0), (-1, 2, 0), (-1, 3, 1), (-1, 8, 4), (-1, 64, 8), (3, 2, 3), (0, 8, 0)],
)
def test_small_machines_load_photos_without_workers(asked: int, cores: int, workers: int) -> None:
    assert choose_workers(asked, cores) == workers
    assert choose_workers(asked, cores, forked=False) == (
        workers if asked >= 0 else min(workers, 2)
    )


def test_where_a_card_trains_all_cores_load_photos() -> None:
    chosen = [choose_workers(-1, cores, on_card=True) for cores in (1, 2, 16, 64)]
    assert chosen == [1, 2, 16, 16]
    assert choose_workers(-1, 16, forked=False, on_card=True) == 2
    assert choose_workers(3, 16, on_card=True) == 3


def test_a_batch_may_be_pinned_and_stays_what_it_is() -> None:
    """DataLoader calls this method; without a card nothing can be pinned."""
    image, boxes = np.zeros((8, 8, 3), np.uint8), np.zeros((1, 4), np.float32)
    batch = collate([Sample(image, boxes, np.zeros(1, np.int64), "a.jpg")])
    if torch.cuda.is_available():
        assert batch.pin_memory().images.is_pinned()
    moved = batch.to("meta")
    assert moved.images.device.type == moved.boxes.device.type == "meta"
    assert moved.paths == ("a.jpg",) and moved.images.shape == batch.images.shape


@pytest.mark.parametrize("workers", [0, 2])
def test_a_photo_that_vanishes_or_changes_ends_the_epoch_in_one_line(
    photos: PhotoSet, workers: int
) -> None:
    path = photos.photos[-1].path
    data = path.read_bytes()
    sampler = EpochSampler(len(photos), seed=3)
    settings = Data(batch_size=2, workers=workers)
    for damage, reason in [
        (path.unlink, "cannot be read: No such file"),
        (lambda: path.write_bytes(data[:-99]), "cut off"),
        (lambda: Pillow.new("RGB", (9, 9)).save(path), "changed since the photos were checked"),
    ]:
        damage()
        for loader in (
            training_loader(training(photos), sampler, settings),
            validation_loader(ValidationDataset(photos, NET, True), settings),
        ):
            with pytest.raises(InputError, match=reason) as caught:
                list(loader)
            assert str(caught.value).startswith(f"{path}: ")
            assert "\n" not in str(caught.value)
            del caught, loader
            if workers:
                gc.collect()  # ends them; else they keep the next ones waiting for seconds
        path.write_bytes(data)
    assert len(list(validation_loader(ValidationDataset(photos, NET, True), settings))) == 5


def test_a_worker_that_the_system_ends_is_one_line(
    photos: PhotoSet, capsys: pytest.CaptureFixture[str]
) -> None:
    loader = validation_loader(ValidationDataset(photos, NET, True), Data(batch_size=1, workers=1))

    def main() -> None:
        for _ in loader:
            iterator = loader._iterator
            assert iterator is not None
            os.kill(iterator._workers[0].pid, signal.SIGKILL)  # type: ignore[attr-defined]

    assert run(main) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: DataLoader worker ")
    assert told.count("\n") == 1


@pytest.mark.parametrize("noticed", [ConnectionResetError("reset by peer"), EOFError()])
def test_a_worker_that_ended_is_told_however_it_is_noticed(
    photos: PhotoSet, noticed: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> object:
        raise noticed

    monkeypatch.setattr("torch.utils.data.DataLoader.__iter__", broken)
    loader = validation_loader(ValidationDataset(photos, NET, True), Data(batch_size=1, workers=0))
    with pytest.raises(InputError, match=r"^DataLoader worker ended .*; fewer workers need less$"):
        list(loader)
