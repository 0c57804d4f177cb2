"""What can a first run be trained on, where there is no data and no network?

Handwritten digits over photographs, both from files that scikit-learn ships: ten classes, boxes
that fit exactly, and validation digits by writers' strokes that training never sees.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.console.progress import Wait
from utils.errors import InputError
from utils.files.reading import read_text
from utils.files.writing import atomic_folder, write_bytes, write_text
from utils.images import encode_image
from utils.structures import Image

MARKER = "finished.json"  # written last; says what the folder was made from
HELD_OUT = 0.2  # the share of glyphs that only validation shows
MAX_ATTEMPTS = 20  # to find a free place for a digit

DEMO = Path(__file__).resolve().parents[2] / "data" / "demo.data"


@dataclass(frozen=True)
class DemoSettings:
    """What a demo set depends on; the same values make the same files."""

    train: int = 800  # photos
    valid: int = 200  # photos
    side: int = 256  # pixels
    most: int = 5  # digits on one photo
    smallest: float = 0.14  # a digit's height, as a share of the side
    largest: float = 0.42
    angle: float = 20.0  # degrees, either way; a 6 should not become a 9
    contrast: float = 70.0  # least difference in brightness from what is beneath, of 255
    seed: int = 0
    version: int = 1  # of this file's drawing


def make_if_demo(data: str | Path) -> None:
    """Make the demo set where `data` is this project's own data/demo.data."""
    if Path(data).resolve() == DEMO:
        make_demo(DEMO.with_suffix(""))


def make_demo(folder: str | Path, settings: DemoSettings | None = None) -> Path:
    """Make the demo set in `folder`, or leave it if it is there already; returns the folder.

    Photos lie in `images/train` and `images/valid`, YOLO labels in `labels/…`, and `train.txt` and
    `valid.txt` list the photos. The folder appears whole or not at all. A set made with other
    settings is replaced.

    Raises:
        InputError: the folder holds something else than a demo set.
    """
    folder, settings = Path(folder), settings or DemoSettings()
    if (folder / MARKER).is_file() and _made_with(folder) == asdict(settings):
        return folder
    if folder.exists() and not (folder / MARKER).is_file() and any(folder.iterdir()):
        raise InputError(f"{folder}: holds something else than a demo set: expected no such folder")
    try:
        with atomic_folder(folder) as made:
            _fill(made, settings)
    except InputError:
        if _made_with(folder) != asdict(settings):  # else another process was faster
            raise
    return folder


def _made_with(folder: Path) -> object:
    try:
        return json.loads(read_text(folder / MARKER))
    except (InputError, ValueError):
        return None


def _fill(folder: Path, settings: DemoSettings) -> None:
    glyphs, labels = _glyphs()
    backgrounds = _backgrounds()
    order = np.random.default_rng(settings.seed).permutation(len(glyphs))
    held_out = round(HELD_OUT * len(order))
    splits = {
        "train": (settings.train, order[held_out:]),
        "valid": (settings.valid, order[:held_out]),
    }
    with Wait("making the demo set", settings.train + settings.valid) as wait:
        for number, (split, (count, drawn_from)) in enumerate(splits.items()):
            for index in range(count):
                rng = np.random.default_rng((settings.seed, number, index))
                image, lines = _photo(glyphs, labels, drawn_from, backgrounds, settings, rng)
                photo = encode_image(image, ".jpg", quality=92)
                write_bytes(folder / "images" / split / f"{index:04}.jpg", photo)
                write_text(folder / "labels" / split / f"{index:04}.txt", "".join(lines))
                wait.advance()
            names = [f"images/{split}/{index:04}.jpg\n" for index in range(count)]
            write_text(folder / f"{split}.txt", "".join(names))
    write_text(folder / MARKER, json.dumps(asdict(settings), indent=1))


def _photo(
    glyphs: NDArray[np.float32],
    labels: NDArray[np.int64],
    drawn_from: NDArray[np.int64],
    backgrounds: list[Image],
    settings: DemoSettings,
    rng: np.random.Generator,
) -> tuple[Image, list[str]]:
    """One picture with its lines of labels."""
    side = settings.side
    image = _background(backgrounds, side, rng).astype(np.float32)
    lines: list[str] = []
    taken = np.zeros((side, side), bool)
    for _ in range(rng.integers(1, settings.most + 1)):
        glyph = int(rng.choice(drawn_from))
        height = side * np.exp(rng.uniform(np.log(settings.smallest), np.log(settings.largest)))
        ink = _inked(glyphs[glyph], height, rng.uniform(-1, 1) * settings.angle, rng)
        place = _free_place(taken, ink.shape, rng)
        if place is None:  # the photo is full
            continue
        left, top = place
        bottom, right = top + ink.shape[0], left + ink.shape[1]
        under = image[top:bottom, left:right]
        colour = _colour(under.mean(axis=(0, 1)), settings.contrast, rng)
        image[top:bottom, left:right] = under + ink[..., None] * (colour - under)
        taken[top:bottom, left:right] = True
        centre_x, centre_y = (left + right) / 2 / side, (top + bottom) / 2 / side
        size = f"{ink.shape[1] / side:.6f} {ink.shape[0] / side:.6f}"
        lines.append(f"{labels[glyph]} {centre_x:.6f} {centre_y:.6f} {size}\n")
    return image.round().clip(0, 255).astype(np.uint8), lines


def _glyphs() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """[N, 8, 8], 0 to 1, and the digits that they are."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)


def _backgrounds() -> list[Image]:
    from sklearn.datasets import load_sample_images

    return [np.asarray(image, np.uint8) for image in load_sample_images().images]


def _background(backgrounds: list[Image], side: int, rng: np.random.Generator) -> Image:
    """A square of a photograph, mirrored half the time."""
    photo = backgrounds[rng.integers(len(backgrounds))]
    cut = int(rng.integers(min(side, min(photo.shape[:2])) // 2, min(photo.shape[:2]) + 1))
    top, left = (int(rng.integers(photo.shape[axis] - cut + 1)) for axis in (0, 1))
    square = cv2.resize(photo[top : top + cut, left : left + cut], (side, side))
    return np.asarray(square[:, :: rng.choice([-1, 1])], np.uint8)


def _inked(
    glyph: NDArray[np.float32], height: float, angle: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A glyph's ink, [h, w], 0 to 1: enlarged, turned, and cut so that its ink touches all sides.

    Eight pixels enlarged are a blur, so what is darker than about half becomes a stroke with an
    edge a pixel wide.
    """
    scale = height / 8
    turn = cv2.getRotationMatrix2D((5.5, 5.5), angle, scale)  # the glyph with a margin is 12 × 12
    around = int(np.ceil(12 * scale * 1.2))
    turn = turn + np.array([[0, 0, around / 2 - 5.5]] * 2)
    grown = cv2.warpAffine(np.pad(glyph, 2), turn, (around, around), flags=cv2.INTER_CUBIC)
    sharp = np.clip((grown - rng.uniform(0.3, 0.5)) * scale / 2 + 0.5, 0, 1).astype(np.float32)
    rows, columns = (np.flatnonzero((sharp > 0.5).any(axis=axis)) for axis in (1, 0))
    return sharp[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _free_place(
    taken: NDArray[np.bool_], shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[int, int] | None:
    """(left, top) where a box of that (height, width) overlaps none before, or None."""
    limits = taken.shape[1] - shape[1], taken.shape[0] - shape[0]
    for _ in range(MAX_ATTEMPTS):
        left, top = (int(rng.integers(limit + 1)) for limit in limits)
        if not taken[top : top + shape[0], left : left + shape[1]].any():
            return left, top
    return None


def _colour(
    under: NDArray[np.float32], contrast: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """An RGB colour brighter or darker by `contrast` than the mean of what it is painted over."""
    weights = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma
    while True:
        colour = rng.uniform(0, 255, 3)
        if abs((colour - under) @ weights) >= contrast:
            return colour.astype(np.float32)
