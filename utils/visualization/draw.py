"""How are boxes and their names shown, so that a person can read them at any picture size?"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from utils.errors import InputError
from utils.files.writing import write_bytes
from utils.fonts import class_label, default_font, font_for
from utils.images import encode_image
from utils.structures import Detections, Image
from utils.visualization.colours import Colour, colour, text_colour

Place = tuple[int, int, int, int]  # left, top, right, bottom in whole pixels; right, bottom outside

SMALLEST_FONT = 8  # pixels; below this letters become smudges
DENSE = 1.25  # times larger are letters of other scripts, most of which have more strokes
LARGEST_GRID = 16_384  # pixels a side; many viewers and JPEG encoders stop not far above
COUNTS_SHARE = 0.5  # of a picture's height at most is covered by the counts of its classes


def draw_detections(image: Image, detections: Detections, names: Sequence[str]) -> Image:
    """A copy of `image` with its detections on it: boxes, class names, scores."""
    return draw_boxes(image, detections.boxes, detections.labels, names, detections.scores)


def draw_boxes(
    image: Image,
    boxes: ArrayLike,
    labels: ArrayLike,
    names: Sequence[str],
    scores: ArrayLike | None = None,
) -> Image:
    """A copy of `image`, uint8 [H, W, 3], with boxes [N, 4] (xyxy, pixels of `image`) drawn on it.

    Lines and letters scale with the picture. Boxes that come first lie on top and choose the place
    of their label first: above the box, below it or inside, whichever is inside the picture and
    hides the least of the labels already placed.

    Args:
        image: the picture, which is not changed.
        boxes: [N, 4], best first.
        labels: [N] class indices; one without a name is shown as its number.
        names: of the classes.
        scores: [N], or None for ground truth.
    """
    corners = _whole_pixels(np.asarray(boxes, dtype=np.float64).reshape(-1, 4), image)
    indices = [int(label) for label in np.asarray(labels).reshape(-1)]
    texts = [class_label(index, names) for index in indices]
    if scores is not None:
        texts = [
            f"{text} {score:.2f}"
            for text, score in zip(texts, np.asarray(scores).reshape(-1), strict=True)
        ]
    drawn = image.copy()
    width = line_width(image)
    for place, index in reversed(list(zip(corners, indices, strict=True))):
        _draw_rectangle_(drawn, place, colour(index), width)
    placed: list[Place] = []
    shown: list[Image] = []
    for place, index, text in zip(corners, indices, texts, strict=True):
        label = _fit_text(text, image)
        if label is not None:
            placed.append(_place_label(place, label.size, placed, image))
            shown.append(label.picture(colour(index)))
    for (left, top, right, bottom), picture in reversed(list(zip(placed, shown, strict=True))):
        drawn[top:bottom, left:right] = picture
    return drawn


def draw_caption(image: Image, text: str) -> Image:
    """A copy of `image` with a line of text in its upper left corner, white on black."""
    drawn = image.copy()
    label = _fit_text(text, image)
    if label is not None:
        width, height = label.size
        drawn[:height, :width] = label.picture((0, 0, 0))
    return drawn


def draw_counts(image: Image, title: str, labels: Sequence[int], names: Sequence[str]) -> Image:
    """A copy of `image` with a title and, below it, how many objects of each class it shows.

    Each count stands on the colour of its class, most frequent first; where they do not find room
    in the upper left corner, the last line says how many classes are left out.
    """
    counts = Counter(labels).most_common()
    lines = [(f"{class_label(label, names)} {n}", colour(label)) for label, n in counts]
    heading = _fit_text(title, image)
    room = 0 if heading is None else int(image.shape[0] * COUNTS_SHARE) // heading.size[1]
    if len(lines) > room:
        lines = [*lines[: max(0, room - 1)], (f"+ {len(lines) - max(0, room - 1)} more", (0, 0, 0))]
    drawn, top = image.copy(), 0
    for text, background in [(title, (0, 0, 0)), *lines]:
        label = _fit_text(text, image)
        if label is not None and top + label.size[1] <= image.shape[0]:
            width, height = label.size
            drawn[top : top + height, :width] = label.picture(background)
            top += height
    return drawn


def within(image: Image, side: int) -> Image:
    """The picture, shrunk so that its longer side is at most `side` pixels."""
    factor = side / max(image.shape[:2])
    return image if factor >= 1 else _shrink(image, factor)


def grid(images: Sequence[Image], columns: int, gap: int = 4) -> Image:
    """A contact sheet: pictures in rows of `columns`, left to right, each centred in its cell.

    Cells are as large as the largest picture; all pictures shrink by one factor where the sheet
    would grow past 16,384 pixels a side.

    Raises:
        InputError: there are no pictures, or no columns.
    """
    if not images or columns < 1:
        raise InputError(f"grid of {len(images)} pictures, {columns} columns: expected 1 or more")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    cell_height = max(image.shape[0] for image in images)
    cell_width = max(image.shape[1] for image in images)
    shrink = min(
        1.0,
        (LARGEST_GRID - (columns - 1) * gap) / (columns * cell_width),
        (LARGEST_GRID - (rows - 1) * gap) / (rows * cell_height),
    )
    if shrink < 1:
        images = [_shrink(image, shrink) for image in images]
        return grid(images, columns, gap)
    sheet = np.full(
        (rows * (cell_height + gap) - gap, columns * (cell_width + gap) - gap, 3), 32, np.uint8
    )
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        height, width = image.shape[:2]
        top = row * (cell_height + gap) + (cell_height - height) // 2
        left = column * (cell_width + gap) + (cell_width - width) // 2
        sheet[top : top + height, left : left + width] = image
    return sheet


def write_image(path: str | Path, image: Image) -> None:
    """Write a picture, uint8 [H, W, 3] RGB, whole or not at all, in the format of its suffix.

    Raises:
        InputError: the suffix names no format that can be written, or one for smaller pictures; or
            the file cannot be written.
    """
    try:
        data = encode_image(image, Path(path).suffix)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    write_bytes(path, data)


def line_width(image: Image) -> int:
    """How thick a box is drawn, in pixels: 1 at 64, 2 at 640, 15 at 6000."""
    return max(1, round(_extent(image) * 0.003))


def font_size(image: Image) -> int:
    """How large letters are, in pixels: 9 at 64, 15 at 640, 127 at 6000."""
    return max(9, round(_extent(image) * 0.024))


@dataclass(frozen=True)
class _Text:
    """A line of text in a font, and the (width, height) of the filled rectangle it stands on."""

    text: str
    font: ImageFont.FreeTypeFont

    @property
    def padding(self) -> int:
        return max(1, round(self.font.size / 8))

    @property
    def size(self) -> tuple[int, int]:
        ascent, descent = self.font.getmetrics()
        width = math.ceil(self.font.getlength(self.text)) + 2 * self.padding + 1
        return width, ascent + descent + self.padding

    def picture(self, background: Colour) -> Image:
        """Only the letters go through Pillow: turning a whole frame into its form takes longer."""
        picture = Pillow.new("RGB", self.size, background)
        ImageDraw.Draw(picture).text(
            (self.padding, 0), self.text, fill=text_colour(background), font=self.font
        )
        return np.asarray(picture)


def _fit_text(text: str, image: Image) -> _Text | None:
    """`text` in letters that suit the picture, smaller or shortened where it would not fit."""
    path = font_for(text) or default_font()
    height, width = image.shape[:2]
    size = font_size(image) if path == default_font() else round(DENSE * font_size(image))
    while size >= SMALLEST_FONT:
        fitted = _Text(text, _font(path, size))
        if fitted.size[0] <= width and fitted.size[1] <= height:
            return fitted
        # Straight to a size that should fit; the step down makes sure that the loop ends.
        ratio = min(width / fitted.size[0], height / fitted.size[1])
        smaller = max(SMALLEST_FONT, math.floor(size * ratio))
        size = smaller if smaller < size else size - 1
    for end in range(len(text) - 1, 0, -1):
        fitted = _Text(text[:end] + "…", _font(path, SMALLEST_FONT))
        if fitted.size[0] <= width and fitted.size[1] <= height:
            return fitted
    return None  # a picture of a few pixels: the coloured box must do


def _place_label(box: Place, size: tuple[int, int], placed: list[Place], image: Image) -> Place:
    """Where a label of (width, height) `size` goes: the first place that hides no other label."""
    left, top, right, bottom = box
    width, height = size
    rows = [top - height, bottom, top, bottom - height]
    rows += [top + height * step for step in range(1, max(1, (bottom - top) // height))][:8]
    places = np.array([(x, y) for y in rows for x in (left, right - width)])
    places[:, 0] = places[:, 0].clip(0, image.shape[1] - width)
    places[:, 1] = places[:, 1].clip(0, image.shape[0] - height)
    hidden = np.zeros(len(places))
    if placed:
        others = np.array(placed)  # [M, 4]
        across = np.minimum(places[:, :1] + width, others[:, 2]) - np.maximum(
            places[:, :1], others[:, 0]
        )
        down = np.minimum(places[:, 1:] + height, others[:, 3]) - np.maximum(
            places[:, 1:], others[:, 1]
        )
        hidden = (across.clip(min=0) * down.clip(min=0)).sum(axis=1)  # [places]
    x, y = (int(value) for value in places[int(hidden.argmin())])
    return x, y, x + width, y + height


def _draw_rectangle_(image: Image, place: Place, rgb: Colour, width: int) -> None:
    left, top, right, bottom = place
    across, down = min(width, right - left), min(width, bottom - top)
    image[top : top + down, left:right] = image[bottom - down : bottom, left:right] = rgb
    image[top:bottom, left : left + across] = image[top:bottom, right - across : right] = rgb


def _whole_pixels(boxes: NDArray[np.float64], image: Image) -> list[Place]:
    """Boxes cut to the picture, at least one pixel large."""
    height, width = image.shape[:2]
    boxes = np.nan_to_num(boxes)
    low = np.floor(boxes[:, :2]).clip(0, [width - 1, height - 1])
    high = np.maximum(np.ceil(boxes[:, 2:]).clip(0, [width, height]), low + 1)
    return [
        (int(left), int(top), int(right), int(bottom))
        for left, top, right, bottom in np.hstack([low, high])
    ]


def _extent(image: Image) -> float:
    """The side of a square of the same area, in pixels."""
    return math.sqrt(image.shape[0] * image.shape[1])


def _shrink(image: Image, factor: float) -> Image:
    size = [max(1, math.floor(side * factor)) for side in (image.shape[1], image.shape[0])]
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


@lru_cache(maxsize=64)
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
