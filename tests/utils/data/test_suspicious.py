"""Are odd labels found, and ordinary ones left alone?"""

import numpy as np
import pytest

from utils.data.photos import Photo
from utils.data.suspicious import suspicious_labels

NAMES = ("cat", "dog")
Box = tuple[float, float, float, float]


def photo(*boxes: Box, labels: tuple[int, ...] = ()) -> Photo:
    count = len(boxes)
    return Photo(
        path=None,  # type: ignore[arg-type]
        size=(200, 100),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels or (0,) * count, np.int64),
        ignore=np.zeros(count, bool),
        area=np.zeros(count, np.float32),
    )


def usual(count: int) -> list[Photo]:
    """Boxes of one class that differ a little."""
    rng = np.random.default_rng(0)
    sides = rng.uniform(18, 22, (count, 2))
    corners = rng.uniform(20, 60, (count, 2))
    return [photo((x, y, x + w, y + h)) for (x, y), (w, h) in zip(corners, sides, strict=True)]


def test_ordinary_boxes_are_left_alone() -> None:
    assert suspicious_labels(usual(30), NAMES) == []
    assert suspicious_labels([], NAMES) == []


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (photo((40, 10, 160, 90)), "size"),
        (photo((40, 40, 41.9 + 100, 44)), "width to height"),
        (photo((50, 50, 70, 70), (50, 50, 70, 71)), "labelled twice, IoU 0.95"),
        (photo((50, 50, 70, 70), (50, 50, 70, 71), labels=(0, 1)), "as 'cat' and as 'dog'"),
    ],
)
def test_each_kind_of_odd_label_comes_first(odd: Photo, reason: str) -> None:
    photos = [*usual(30), odd]
    first = suspicious_labels(photos, NAMES)[0]
    assert first.photo == 30 and reason in first.reason and first.score > 1


@pytest.mark.parametrize(
    ("odd", "reason"),
    [((50, 50, 51, 70), "1×20 pixels"), ((0, 0, 200, 100), "100% of the photo")],
)
def test_hardly_visible_boxes_and_whole_photos_are_odd_in_any_set(odd: Box, reason: str) -> None:
    (suspicion,) = suspicious_labels([photo(odd)], NAMES)
    assert suspicion.reason == reason and suspicion.score > 1


def test_an_object_that_the_edge_cuts_may_be_smaller() -> None:
    assert suspicious_labels([*usual(30), photo((0, 40, 5, 60))], NAMES) == []
    assert suspicious_labels([*usual(30), photo((40, 95, 60, 100))], NAMES) == []


def test_the_oddest_comes_first() -> None:
    photos = [*usual(30), photo((50, 50, 52, 70)), photo((50, 50, 50.5, 70))]
    assert [each.photo for each in suspicious_labels(photos, NAMES)][:2] == [31, 30]
