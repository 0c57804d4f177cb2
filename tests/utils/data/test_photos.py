"""Photos in a few arrays are the photos that were put there."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from utils.data.labels.record import Problem
from utils.data.photos import Photo, Photos
from utils.data.report import MOST_KEPT, Problems


def made(count: int) -> list[Photo]:
    rng = np.random.default_rng(count)
    return [
        Photo(
            path=Path(f"{'sub/' * (n % 2)}\udce9 ü {n}.jpg"),
            size=(n + 1, 2**20),
            boxes=rng.random((n % 4, 4), np.float32),
            labels=rng.integers(0, 80, n % 4),
            ignore=rng.random(n % 4) < 0.5,
            area=rng.random(n % 4, np.float32),
            image_id=None if n % 3 == 0 else 2**62 - n,
            category_ids=[None, (1, 2), (3, 4)][n % 3],
            file_bytes=None if n % 5 == 0 else 2**40 + n,
        )
        for n in range(count)
    ]


def expect_equal(photo: Photo, other: Photo) -> None:
    for name, value in vars(photo).items():
        theirs = getattr(other, name)
        if isinstance(value, np.ndarray):
            assert value.dtype == theirs.dtype and value.shape == theirs.shape
            np.testing.assert_array_equal(value, theirs)
        else:
            assert value == theirs


@pytest.mark.parametrize("count", [0, 1, 12])
def test_they_come_back_as_they_were(count: int) -> None:
    photos = made(count)
    compact = pickle.loads(pickle.dumps(Photos.of(photos)))  # as workers get them
    assert len(compact) == count
    for photo, other in zip(photos, compact, strict=True):
        expect_equal(photo, other)
    if count:
        expect_equal(photos[-1], compact[-1])
        assert [photo.path for photo in compact[1:7:2]] == [each.path for each in photos[1:7:2]]
    with pytest.raises(IndexError):
        compact[count]


def test_their_targets_are_tensors_of_their_labels() -> None:
    photos = made(4)
    for photo, other in zip(photos, Photos.of(photos), strict=True):
        assert other.targets().boxes.tolist() == photo.boxes.tolist()


def test_of_many_problems_the_first_are_told_and_all_are_counted() -> None:
    problems = Problems()
    for number in range(MOST_KEPT + 5):
        problems.add([Problem("polygon", str(number), ""), Problem("scores", str(number), "")])
    assert problems.counts == {"polygon": MOST_KEPT + 5, "scores": MOST_KEPT + 5}
    assert [p.where for p in problems.first[-2:]] == [str(MOST_KEPT - 1)] * 2
