"""What is labelled, as a picture: for any number of classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from utils.visualization.colours import colour
from utils.visualization.label_plots import plot_labels


@dataclass
class FakePhoto:
    boxes: np.ndarray
    labels: np.ndarray
    size: tuple[int, int] = (640, 480)


@dataclass
class FakeReport:
    objects: tuple[int, ...]


@dataclass
class FakePhotos:
    names: tuple[str, ...]
    photos: list[FakePhoto]
    report: FakeReport


def photos(classes: int, each: int) -> FakePhotos:
    random = np.random.default_rng(0)
    corners = random.uniform(0, 400, (classes * each, 2))
    labels = np.arange(classes).repeat(each)
    photo = FakePhoto(np.hstack([corners, corners + 40]), labels)
    names = tuple(f"class {number}" for number in range(classes))
    return FakePhotos(names, [photo], FakeReport((each,) * classes))


@pytest.mark.parametrize("classes", [1, 3, 80])
@pytest.mark.filterwarnings("error")
def test_labels_are_drawn_in_the_colours_of_their_classes(classes: int, tmp_path: Path) -> None:
    splits = [("train", photos(classes, 6)), ("valid", photos(classes, 0))]
    plot_labels(cast(Any, splits), tmp_path / "labels.png")
    picture = cv2.imread(str(tmp_path / "labels.png"))
    assert picture is not None
    for label in range(min(3, classes)):
        same = (picture[..., ::-1] == colour(label)).all(axis=-1)
        assert same.sum() > 500  # its bar
