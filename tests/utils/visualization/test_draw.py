"""Boxes and labels on pictures."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.errors import InputError
from utils.fonts import class_label, font_for, undrawable
from utils.images import read_image
from utils.structures import Detections, Image
from utils.visualization.colours import COLOURS, colour, text_colour
from utils.visualization.draw import (
    _fit_text,
    _place_label,
    draw_boxes,
    draw_caption,
    draw_detections,
    font_size,
    grid,
    line_width,
    within,
    write_image,
)

NAMES = ("dog", "Füße", "собака", "\U0010fffd")  # the last is a letter that no font has


def grey(width: int, height: int) -> Image:
    return np.full((height, width, 3), 128, np.uint8)


def test_boxes_are_drawn_on_a_copy_and_nothing_outside_them_and_their_labels_changes() -> None:
    image = grey(640, 480)
    drawn = draw_boxes(image, [[100, 200, 300, 400]], [0], NAMES, [0.9])
    assert (image == 128).all()
    changed = (drawn != image).any(axis=2)
    assert changed[200, 100:300].all()
    assert changed[200:400, 299].all()  # the right side lies inside the box
    assert not changed[202:398, 102:298].any()
    rows, columns = np.nonzero(changed)
    assert rows.max() == 399
    assert columns.max() == 299
    assert rows.min() > 200 - 3 * font_size(image)


def test_the_sides_are_in_the_colour_of_the_class() -> None:
    drawn = draw_boxes(grey(200, 200), [[50, 50, 150, 150], [10, 120, 40, 180]], [3, 1], NAMES)
    assert tuple(drawn[149, 100]) == colour(3)
    assert tuple(drawn[150, 10]) == colour(1)


def test_detections_are_drawn_with_their_scores() -> None:
    image = grey(300, 200)
    found = Detections(torch.tensor([[50.0, 80, 250, 180]]), torch.tensor([0.5]), torch.tensor([0]))
    drawn = draw_detections(image, found, NAMES)
    assert (drawn != draw_boxes(image, found.boxes, found.labels, NAMES)).any()
    assert (drawn == draw_boxes(image, found.boxes, found.labels, NAMES, found.scores)).all()


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    boxes=st.lists(st.lists(st.floats(-500, 900), min_size=4, max_size=4), max_size=8),
)
def test_any_box_on_any_picture_can_be_drawn(
    width: int, height: int, boxes: list[list[float]]
) -> None:
    labels = [index % 5 for index in range(len(boxes))]
    drawn = draw_boxes(grey(width, height), boxes, labels, NAMES, [0.5] * len(boxes))
    assert drawn.shape == (height, width, 3)


@given(
    width=st.integers(40, 300),
    height=st.integers(40, 300),
    box=st.tuples(*[st.integers(0, 300)] * 4),
    placed=st.lists(st.tuples(*[st.integers(0, 300)] * 4), max_size=3),
)
def test_a_label_lies_inside_the_picture(
    width: int, height: int, box: tuple[int, ...], placed: list[tuple[int, int, int, int]]
) -> None:
    left, top = min(box[0], width - 1), min(box[1], height - 1)
    corners = left, top, max(left + 1, min(box[2], width)), max(top + 1, min(box[3], height))
    x1, y1, x2, y2 = _place_label(corners, (40, 15), placed, grey(width, height))
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height
    assert (x2 - x1, y2 - y1) == (40, 15)


def test_labels_of_equal_boxes_do_not_hide_each_other() -> None:
    image, box = grey(640, 480), (100, 100, 300, 400)
    placed: list[tuple[int, int, int, int]] = []
    for _ in range(8):
        placed.append(_place_label(box, (90, 20), placed, image))
    covered = np.zeros((480, 640), int)
    for left, top, right, bottom in placed:
        covered[top:bottom, left:right] += 1
    assert covered.max() == 1


@pytest.mark.parametrize(
    ("side", "smallest", "largest"), [(64, 8, 12), (640, 13, 20), (6000, 90, 160)]
)
def test_letters_and_lines_grow_with_the_picture(side: int, smallest: int, largest: int) -> None:
    image = np.broadcast_to(np.uint8(0), (side, side, 3))
    assert smallest <= font_size(image) <= largest
    assert 1 <= line_width(image) <= side / 60
    fitted = _fit_text("dog 0.98", image)
    assert fitted is not None
    assert fitted.size[0] <= side
    assert fitted.text == "dog 0.98"


def test_a_long_name_is_made_to_fit() -> None:
    fitted = _fit_text("a very long name of a class 0.98", grey(64, 64))
    assert fitted is not None
    assert fitted.size[0] <= 64
    assert fitted.text.startswith("a v")
    assert fitted.text.endswith("…")
    assert _fit_text("dog", grey(5, 5)) is None


def test_every_colour_carries_readable_letters() -> None:
    def luminance(rgb: tuple[int, int, int]) -> float:
        channels = np.array(rgb) / 255
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for label in range(COLOURS):
        light, dark = sorted([luminance(colour(label)), luminance(text_colour(colour(label)))])[
            ::-1
        ]
        assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize(("classes", "apart"), [(20, 30), (80, 15)])
def test_classes_look_different(classes: int, apart: float) -> None:
    rgb = np.array([[colour(label) for label in range(classes)]], np.float32) / 255
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab)[0]
    distance = np.linalg.norm(lab[:, None] - lab, axis=2) + 1000 * np.eye(classes)
    assert distance.min() > apart
    assert colour(COLOURS + 3) == colour(3)


def test_names_are_drawn_in_their_own_letters_or_as_numbers() -> None:
    assert font_for("Füße") is not None
    assert font_for("собака") is not None
    assert undrawable(NAMES) == ["\U0010fffd"]
    assert [class_label(label, NAMES) for label in range(6)] == [*NAMES[:3], "#3", "#4", "#5"]
    different = [
        draw_boxes(grey(99, 99), [[9, 40, 90, 90]], [0], [name]) for name in ("Füße", "Fuse")
    ]
    assert (different[0] != different[1]).any()


def test_a_caption_stands_in_the_upper_left_corner() -> None:
    drawn = draw_caption(grey(320, 240), "12.3 FPS")
    rows, columns = np.nonzero((drawn != 128).any(axis=2))
    assert rows.min() == columns.min() == 0
    assert rows.max() < 30
    assert columns.max() < 160
    assert (drawn == 255).any()


def test_a_contact_sheet_has_every_picture_in_its_place() -> None:
    images = [np.full((20, 30, 3), value, np.uint8) for value in (50, 100, 150)]
    images[1] = images[1][:10]  # lower, so it is centred
    sheet = grid(images, columns=2, gap=4)
    assert sheet.shape == (44, 64, 3)
    assert (sheet[:20, :30] == 50).all()
    assert (sheet[5:15, 34:] == 100).all()
    assert (sheet[24:, :30] == 150).all()
    assert grid(images[:1], columns=5).shape == (20, 30, 3)


def test_a_large_contact_sheet_shrinks() -> None:
    image = np.broadcast_to(np.uint8(7), (30, 9000, 3))
    sheet = grid([image, image], columns=2, gap=0)
    assert sheet.shape[1] <= 16_384
    assert sheet.max() == 7


@pytest.mark.parametrize(("count", "columns"), [(0, 1), (1, 0)])
def test_an_empty_contact_sheet_is_refused(count: int, columns: int) -> None:
    with pytest.raises(InputError, match="pictures"):
        grid([grey(3, 3)] * count, columns)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg", ".webp", ".tiff"])
def test_pictures_are_written_in_the_format_of_their_suffix(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new folder" / f"picture{suffix}"
    write_image(path, grey(31, 17))
    back = read_image(path)
    assert back.shape == (17, 31, 3)
    assert np.abs(back.astype(int) - 128).max() <= 2
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"picture\.txt"):
        write_image(tmp_path / "picture.txt", grey(3, 3))
    assert not list(tmp_path.iterdir())


def test_pictures_shrink_to_a_side_and_never_grow() -> None:
    assert within(np.zeros((3000, 10, 3), np.uint8), 320).shape == (320, 1, 3)
    assert within(np.zeros((40, 64, 3), np.uint8), 320).shape == (40, 64, 3)
