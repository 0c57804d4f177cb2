"""Boxes stay on their objects, whatever is done to a photo, and nothing else changes."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from import_param import Augmentation, TrainSettings
from utils.boxes import InputTransform, network_input
from utils.data.augment import (
    GREY,
    MIN_AREA,
    MIN_SIDE,
    NO_AUGMENTATION,
    Transform,
    augment,
    compose,
    fit,
    flip,
    hsv,
    mirror,
    mosaic,
    multi_scale,
    scale_translate,
)
from utils.devices import CPU
from utils.errors import InputError
from utils.settings.loader import check
from utils.structures import Batch, Sample

seeds = st.integers(0, 2**32)
sides = st.integers(40, 200)
EMPTY = np.zeros(0, np.int64)
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]])
nets = st.sampled_from([(64, 64), (96, 64), (160, 160)])


def painted(width: int, height: int, label: int, rng: np.random.Generator) -> Sample:
    """A black photo with one rectangle of the label's colour."""
    low = rng.integers(0, [width - 30, height - 30])
    high = low + rng.integers(25, 30, 2)
    image = np.zeros((height, width, 3), np.uint8)
    image[low[1] : high[1], low[0] : high[0]] = COLOURS[label]
    boxes = np.concatenate([low, high]).astype(np.float32)[None]
    return Sample(image, boxes, np.array([label]), f"{label}.png")


def seen_box(sample: Sample, label: int) -> np.ndarray | None:
    """The edges of what is nearest to the label's colour."""
    far = np.abs(sample.image.astype(int) - COLOURS[label]).max(axis=2)
    rows, columns = np.nonzero(far < 110)
    if not len(rows):
        return None
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def assert_on_objects(sample: Sample, scale: float = 1.0) -> None:
    for box, label in zip(sample.boxes, sample.labels, strict=True):
        seen = seen_box(sample, int(label))
        assert seen is not None
        np.testing.assert_allclose(box, seen, atol=1.5 + scale)


@settings(max_examples=60, deadline=None)
@given(sides, sides, nets, st.booleans(), seeds)
def test_scaled_and_shifted_boxes_stay_on_their_objects(
    width: int, height: int, net: tuple[int, int], letterbox: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    before = painted(width, height, 0, rng)
    after = scale_translate(before, net, letterbox, Augmentation(scale=0.5, translate=0.2), rng)
    assert after.image.shape == (net[1], net[0], 3)
    assert_on_objects(after, 1.5 * max(net[0] / width, net[1] / height))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(sides, sides), min_size=4, max_size=4), nets, st.booleans(), seeds)
def test_mosaic_boxes_stay_on_their_objects(
    sizes: list[tuple[int, int]], net: tuple[int, int], letterbox: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    before = [painted(*size, label, rng) for label, size in enumerate(sizes)]
    after = mosaic(before, net, letterbox, Augmentation(scale=0.5, translate=0.1), rng)
    assert after.image.shape == (net[1], net[0], 3)
    for box, label in zip(after.boxes, after.labels, strict=True):
        seen = seen_box(after, int(label))
        if seen is None:  # so small that interpolation left none of its own colour
            assert (box[2:] - box[:2]).min() < 4
            continue
        largest = max(max(net[0] / w, net[1] / h) for w, h in sizes)
        np.testing.assert_allclose(box, seen, atol=1.5 + 1.5 * largest)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_a_mosaic_leaves_no_part_empty(seed: int) -> None:
    rng = np.random.default_rng(seed)
    white = Sample(np.full((50, 70, 3), 255, np.uint8), np.zeros((0, 4), np.float32), EMPTY, "")
    after = mosaic([white] * 4, (64, 64), False, Augmentation(scale=0.5, translate=0.1), rng)
    assert (after.image == 255).mean() > 0.98


@settings(max_examples=25, deadline=None)
@given(sides, sides, nets, st.booleans())
def test_an_unchanged_photo_is_what_validation_sees(
    width: int, height: int, net: tuple[int, int], letterbox: bool
) -> None:
    """Darknet's resize, corners on corners; OpenCV's interpolation rounds to 1/32 of a pixel."""
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(height), np.arange(width)) * 255 / (width + height)
    image = np.stack([smooth, smooth[::-1], smooth[:, ::-1]], axis=-1).astype(np.uint8)
    sample = Sample(image, np.array([[3, 4, 30, 33]], np.float32), np.array([0]), "")
    off = NO_AUGMENTATION
    after = augment(sample, list, net, letterbox, off, rng)
    expected = network_input(image, net, letterbox).permute(1, 2, 0).numpy() * 255
    assert np.abs(after.image - expected).max() < 8
    assert np.abs(after.image - expected).mean() < 1
    box = InputTransform.of((width, height), net, letterbox).to_input(
        torch.from_numpy(sample.boxes)
    )
    # Training's boxes lie where the photo is painted; `Fit` reads up to half a pixel beside it.
    np.testing.assert_allclose(after.boxes, box.numpy(), rtol=0, atol=0.501)
    np.testing.assert_array_equal(after.image, fit(sample, net, letterbox).image)


@given(seeds, st.sampled_from([0, 1]))
def test_mirroring_twice_changes_nothing(seed: int, axis: int) -> None:
    before = painted(60, 50, 0, np.random.default_rng(seed))
    once = mirror(before, axis)
    assert_on_objects(once, 0)
    twice = mirror(once, axis)
    np.testing.assert_array_equal(twice.image, before.image)
    np.testing.assert_allclose(twice.boxes, before.boxes)


@given(seeds, st.sampled_from([0, 1]))
def test_what_is_in_a_box_is_mirrored_with_it(seed: int, axis: int) -> None:
    """To the pixel: a box beside its object by one would hold other noise."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
    left, top, width, height = rng.integers([0, 0, 1, 1], [30, 20, 11, 11])
    boxes = np.array([[left, top, left + width, top + height]], np.float32)
    before = Sample(image, boxes, np.array([0]), "")
    inside, mirrored = inside_of(before), inside_of(mirror(before, axis))
    np.testing.assert_array_equal(mirrored, np.flip(inside, axis))


def inside_of(sample: Sample) -> np.ndarray:
    left, top, right, bottom = sample.boxes[0].astype(int)
    return sample.image[top:bottom, left:right]


def test_flips_have_their_probability() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    before = Sample(image, np.zeros((0, 4), np.float32), EMPTY, "")

    def share(horizontal: float, vertical: float) -> float:
        flips = Augmentation(flip_horizontal=horizontal, flip_vertical=vertical)
        flipped = [flip(before, flips, rng) for _ in range(200)]
        return float(np.mean([not np.array_equal(f.image, before.image) for f in flipped]))

    assert share(0, 0) == 0
    assert share(1, 0) == share(0, 1) == 1
    assert 0.2 < share(0.3, 0) < 0.4


def test_hsv_changes_colours_within_its_strength_and_no_box() -> None:
    rng = np.random.default_rng(0)
    grey = Sample(np.full((8, 8, 3), 100, np.uint8), np.ones((1, 4), np.float32), EMPTY, "")
    values = {
        int(hsv(grey, Augmentation(hue=0.5, saturation=0.5, value=0.4), rng).image[0, 0, 0])
        for _ in range(300)
    }
    assert 60 <= min(values) < 65
    assert 135 < max(values) <= 140
    coloured = replace(grey, image=rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    changed = hsv(coloured, Augmentation(hue=0.1, saturation=0.5, value=0.4), rng)
    assert not np.array_equal(changed.image, coloured.image)
    assert changed.boxes is coloured.boxes
    np.testing.assert_array_equal(hsv(coloured, NO_AUGMENTATION, rng).image, coloured.image)


@pytest.mark.parametrize("strength", ["hue", "saturation", "value"])
def test_a_weak_change_of_colours_is_hardly_any(strength: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(60, 200, (8, 8, 3), dtype=np.uint8)
    sample = Sample(image, np.zeros((0, 4), np.float32), EMPTY, "")
    after = hsv(sample, replace(NO_AUGMENTATION, **{strength: 0.001}), rng).image
    assert np.abs(after.astype(int) - image).max() <= 4


def test_hue_turns_through_the_whole_circle() -> None:
    red = Sample(np.array([[[255, 0, 0]]], np.uint8), np.zeros((0, 4), np.float32), EMPTY, "")
    rng = np.random.default_rng(0)
    seen = {
        tuple(hsv(red, replace(NO_AUGMENTATION, hue=1.0), rng).image[0, 0] > 127)
        for _ in range(200)
    }
    assert seen >= {(True, False, False), (False, True, False), (False, False, True)}


def test_objects_of_which_little_is_left_are_dropped() -> None:
    rng = np.random.default_rng(0)
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = np.array([[x, 10, x + 20, 30] for x in range(-18, 118, 2)], np.float32)
    before = Sample(image, boxes.clip(0, 100), np.arange(len(boxes)), "")
    dropped = 0
    for _ in range(50):
        after = scale_translate(
            before, (64, 64), False, Augmentation(scale=0.5, translate=0.5), rng
        )
        assert (after.boxes >= 0).all()
        assert (after.boxes <= 64).all()
        assert ((after.boxes[:, 2:] - after.boxes[:, :2]) >= 2).all()
        assert len(after.labels) == len(after.boxes)
        dropped += len(before.boxes) - len(after.boxes)
    assert dropped
    assert 0 < MIN_AREA < 1


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((-85, 10, 15, 30), True),  # 15 of its 100 pixels are seen
        ((-85.1, 10, 14.9, 30), False),
        ((10, 85, 30, 185), True),
        ((10, 85.1, 30, 185.1), False),
        ((10, 10, 12, 40), True),
        ((10, 10, 11.9, 40), False),
        ((10, 10, 40, 12), True),
        ((10, 10, 40, 11.9), False),
    ],
)
def test_an_object_is_dropped_below_a_share_or_a_side(box: tuple[float, ...], kept: bool) -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    sample = Sample(image, np.array([box], np.float32), np.array([3]), "")
    after = compose([sample], [Transform(1, 1, 0, 0)], (100, 100))
    assert after.labels.tolist() == ([3] if kept else [])
    assert (MIN_AREA, MIN_SIDE) == (0.15, 2)


def test_photos_are_scaled_about_the_middle_and_shifted_by_shares_of_the_input() -> None:
    rng = np.random.default_rng(0)
    image = np.zeros((50, 50, 3), np.uint8)
    sample = Sample(image, np.array([[20, 20, 30, 30]], np.float32), np.array([0]), "")

    def drawn(**changes: float) -> tuple[np.ndarray, np.ndarray]:
        strengths = replace(NO_AUGMENTATION, **changes)
        boxes = np.concatenate(
            [scale_translate(sample, (100, 200), False, strengths, rng).boxes for _ in range(300)]
        )
        return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]

    centres, sides = drawn(scale=0.4)
    np.testing.assert_allclose(centres, np.tile([50, 100], (300, 1)), atol=1e-4)
    factors = sides / [20, 40]
    np.testing.assert_allclose(factors[:, 0], factors[:, 1], rtol=1e-5)
    assert 0.6 <= factors.min() < 0.62
    assert 1.38 < factors.max() <= 1.4
    centres, sides = drawn(translate=0.25)
    np.testing.assert_allclose(sides, np.tile([20, 40], (300, 1)), atol=1e-4)
    shifts = (centres - [50, 100]) / [100, 200]
    assert (np.abs(shifts).max(axis=0) <= 0.25 + 1e-6).all()
    assert (shifts.min(axis=0) < -0.24).all()
    assert (shifts.max(axis=0) > 0.24).all()
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.2


def test_the_four_photos_of_a_mosaic_meet_at_a_crossing() -> None:
    """Boxes around whole photos show where each of them lies."""
    rng = np.random.default_rng(0)
    width, height = 200, 100
    whole = np.array([[0, 0, 40, 30]], np.float32)
    samples = [
        Sample(np.full((30, 40, 3), 60 * k, np.uint8), whole, np.array([k]), "") for k in range(4)
    ]
    corners, meetings = [], 0
    for _ in range(200):
        after = mosaic(samples, (width, height), False, NO_AUGMENTATION, rng)
        boxes = dict(zip(after.labels.tolist(), after.boxes, strict=True))
        for label, box in boxes.items():
            column, row = ((box[:2] + box[2:]) / 2).astype(int)
            assert (after.image[row, column] == 60 * label).all()
        if 0 in boxes:
            corners.append(boxes[0][2:] / [width, height])
        if len(boxes) == 4:  # none was dropped since too little of it is seen
            meetings += 1
            x, y = boxes[0][2:]
            np.testing.assert_allclose(boxes[0], [0, 0, x, y], atol=1e-3)
            np.testing.assert_allclose(boxes[1], [x, 0, width, y], atol=1e-3)
            np.testing.assert_allclose(boxes[2], [0, y, x, height], atol=1e-3)
            np.testing.assert_allclose(boxes[3], [x, y, width, height], atol=1e-3)
    assert meetings > 10
    assert (np.max(corners, axis=0) > 0.97).all()
    assert abs(np.corrcoef(np.array(corners).T)[0, 1]) < 0.7


def test_the_crossing_of_a_mosaic_leaves_the_input_by_no_more_than_the_shift() -> None:
    """Inside it, each of the input's corners shows a photo of its own."""
    rng = np.random.default_rng(0)
    photos = [np.full((20, 20, 3), 50 * (k + 1), np.uint8) for k in range(4)]
    samples = [Sample(photo, np.zeros((0, 4), np.float32), EMPTY, "") for photo in photos]

    def share(translate: float) -> float:
        strengths = replace(NO_AUGMENTATION, scale=0.4, translate=translate)
        images = [mosaic(samples, (300, 300), False, strengths, rng).image for _ in range(150)]
        corners = [image[::299, ::299, 0].ravel().tolist() for image in images]
        return corners.count([50, 100, 150, 200]) / len(corners)

    assert share(0.0) > 0.95
    assert 0.6 < share(0.3) < 0.95


@pytest.mark.parametrize(("left", "top"), [(-40, 0), (0, -30), (64, 0), (0, 64), (-99, -99)])
def test_a_photo_beside_the_input_is_not_painted(left: float, top: float) -> None:
    sample = Sample(np.full((30, 40, 3), 255, np.uint8), np.zeros((0, 4), np.float32), EMPTY, "")
    assert (compose([sample], [Transform(1, 1, left, top)], (64, 64)).image == GREY).all()


def test_what_no_photo_covers_is_grey() -> None:
    white = Sample(np.full((50, 100, 3), 255, np.uint8), np.zeros((0, 4), np.float32), EMPTY, "")
    image = fit(white, (64, 64), letterbox=True).image
    assert (image[16:48] == 255).all()
    assert (image[:16] == GREY).all()
    assert (image[48:] == GREY).all()


@pytest.mark.parametrize("field", [field.name for field in fields(Augmentation)])
def test_strengths_out_of_range_are_refused_by_name(field: str) -> None:
    for value in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=f"{field}="):
            check(TrainSettings(augmentation=Augmentation(**{field: value})))


def test_multi_scale_keeps_boxes_in_place_and_sides_divisible() -> None:
    batch = Batch(
        images=torch.rand(2, 3, 64, 96),
        boxes=torch.tensor([[24.0, 16.0, 48.0, 32.0]]),
        labels=torch.tensor([0]),
        image_index=torch.tensor([1]),
        paths=("a", "b"),
        sizes=((96, 64),) * 2,
    )
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(50):
        scaled = multi_scale(batch, 0.5, rng, CPU)
        height, width = scaled.images.shape[-2:]
        assert height % 32 == width % 32 == 0
        share = scaled.boxes[0] / torch.tensor([width, height] * 2)
        np.testing.assert_allclose(share, [0.25, 0.25, 0.5, 0.5], rtol=1e-6)
        seen.add((width, height))
    assert len(seen) > 3
    assert {width / 96 for width, _ in seen} >= {2 / 3, 4 / 3}
    assert max(width for width, _ in seen) <= 160  # the multiple of 32 nearest to 1.5 times 96
    assert multi_scale(batch, 0.0, rng, CPU) is batch


def test_multi_scale_keeps_at_least_one_stride() -> None:
    one = torch.zeros(1, dtype=torch.long)
    batch = Batch(torch.rand(1, 3, 64, 64), torch.zeros(1, 4), one, one, ("a",), ((64, 64),))
    rng = np.random.default_rng(0)
    sizes = {multi_scale(batch, 0.5, rng, CPU, multiple=64).images.shape[-2:] for _ in range(50)}
    assert sizes == {(64, 64)}
