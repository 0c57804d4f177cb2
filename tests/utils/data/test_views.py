"""Of large photos only what is used is kept; what training and validation see stays the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from import_param import Augmentation, Training
from utils.boxes import network_input
from utils.data.augment import NO_AUGMENTATION
from utils.data.datasets import DetectionDataset, ValidationDataset
from utils.data.labels import read_labels
from utils.data.photos import PhotoSet
from utils.data.validation import check
from utils.data.views import InputView, TrainingView, View
from utils.structures import Image

INPUT = (64, 96)


def noise(width: int, height: int) -> Image:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def opened(folder: Path, view: View | None, cache_mb: float = 100) -> PhotoSet:
    """A photo as from a phone, and a small one; each shows an object in its middle."""
    records = []
    for name, size in (("large", (1600, 1200)), ("small", (40, 30))):
        Pillow.fromarray(noise(*size)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text("0 .5 .5 .4 .2\n")
        records.append(read_labels(folder / f"{name}.png", folder / f"{name}.txt", ("cat",)))
    return check(records, ("cat",), "x", cache_mb, progress=False, view=view)


@pytest.mark.parametrize("letterbox", [True, False])
def test_a_large_photo_is_kept_in_the_pixels_that_training_can_show(
    letterbox: bool, tmp_path: Path
) -> None:
    augmentation = Augmentation(scale=0.5)
    view = TrainingView.of(INPUT, letterbox, augmentation)
    photos = opened(tmp_path, view)
    assert photos.report.cached == 2 and list(photos.cache) == [1] and list(photos.views) == [0]
    height, width = photos.views[0].shape[:2]
    assert (width, height) == ((192, 144) if letterbox else (192, 288))
    dataset = DetectionDataset(photos, INPUT, letterbox, augmentation, Training())
    sample = dataset.original(0)
    expected = np.array([[0.3, 0.4, 0.7, 0.6]]) * [width, height, width, height]
    np.testing.assert_allclose(sample.boxes, expected, rtol=1e-6)
    np.testing.assert_array_equal(dataset.original(1).image, noise(40, 30))


def test_what_is_kept_does_not_change_what_training_sees(tmp_path: Path) -> None:
    view = TrainingView.of(INPUT, True, Augmentation())
    sets = [opened(tmp_path, view), opened(tmp_path, view, cache_mb=0), opened(tmp_path, None)]
    assert not sets[1].views and not sets[1].cache and list(sets[2].cache) == [0, 1]
    for index in (0, 1):
        samples = [
            DetectionDataset(photos, INPUT, True, Augmentation(), Training())[0, index]
            for photos in sets
        ]
        for other in samples[1:]:
            np.testing.assert_array_equal(samples[0].image, other.image)
            np.testing.assert_array_equal(samples[0].boxes, other.boxes)


@pytest.mark.parametrize("letterbox", [True, False])
def test_without_augmentation_the_smaller_photo_gives_the_same_input(
    letterbox: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = opened(tmp_path, None)
    dataset = DetectionDataset(photos, INPUT, letterbox, NO_AUGMENTATION, Training())
    smaller = dataset[0, 0]
    assert dataset.original(0).image.shape[1] == INPUT[0]
    monkeypatch.setattr("utils.data.views.WORTHWHILE", 1e9)
    whole = dataset[0, 0]
    assert dataset.original(0).image.shape == (1200, 1600, 3)
    np.testing.assert_array_equal(smaller.image, whole.image)
    np.testing.assert_allclose(smaller.boxes, whole.boxes, rtol=1e-6)


def test_validation_keeps_the_input_itself_where_it_is_smaller(tmp_path: Path) -> None:
    photos = opened(tmp_path, InputView(INPUT, True))
    assert list(photos.views) == [0] and list(photos.cache) == [1]
    assert photos.report.cached_bytes == 64 * 96 * 3 * 4 + 40 * 30 * 3
    dataset = ValidationDataset(photos, INPUT, True)
    for index, size in enumerate([(1600, 1200), (40, 30)]):
        assert torch.equal(dataset[index][1], network_input(noise(*size), INPUT, True))
    photos.photos[0].path.unlink()
    dataset[0]
    with pytest.raises(Exception, match=r"large.png"):
        photos.image(0)  # the whole photo is not kept


def test_a_view_for_another_network_is_made_of_the_photo(tmp_path: Path) -> None:
    photos = opened(tmp_path, InputView(INPUT, True))
    other = ValidationDataset(photos, (32, 32), False)
    assert torch.equal(other[0][1], network_input(noise(1600, 1200), (32, 32), False))
    assert replace(photos, view=None).viewed(0, InputView(INPUT, True)).shape == (3, 96, 64)


@pytest.mark.parametrize("letterbox", [True, False])
@pytest.mark.parametrize("size", [(1600, 1200), (400, 90), (1, 500), (40, 30), INPUT])
def test_a_view_knows_its_bytes_beforehand(size: tuple[int, int], letterbox: bool) -> None:
    image = noise(*size)
    for view in (TrainingView.of(INPUT, letterbox, NO_AUGMENTATION), InputView(INPUT, letterbox)):
        assert view.bytes_of(size) == view(image).nbytes
