"""Can every photo be read, and is every label right? Asked once, before the first epoch.

`judge_labels` says which labels are bad. What cannot be read as a label at all is told by the
readers in `utils.data.labels`.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from utils.data.labels.record import Problem, Record
from utils.data.photos import Photo, PhotoSet
from utils.data.report import LABEL_ERRORS, Report
from utils.data.views import View
from utils.errors import InputError
from utils.files import exists
from utils.images import MAX_MEGAPIXELS, SIDEWAYS, DecodedPhoto, read_photo
from utils.progress import track
from utils.structures import Image

Mask = NDArray[np.bool_]  # [N], of the labels of a photo

LARGEST_COORDINATE = 1e9  # beyond it no number, of pixels or shares, is a place near any photo
OVERSHOOT_TOLERANCE = 0.5  # pixels by which rounding may carry a box over the edge unreported
# Pillow's modes of photos that are worth a warning.
GREY_MODES = ("1", "L", "LA", "La", "P", "PA")
DEEP_MODES = ("I", "F")
TRANSPARENT_MODES = ("RGBA", "RGBa", "LA", "La", "PA")


def check(
    records: Sequence[Record],
    names: Sequence[str],
    title: str = "data",
    cache_mb: float = 0,
    progress: bool = True,
    max_megapixels: float = MAX_MEGAPIXELS,
    view: View | None = None,
) -> PhotoSet:
    """Decode every photo once, in threads, and judge every label.

    Bad labels and photos are left out and reported; boxes that reach over the edge are cut to the
    photo.

    Args:
        records: photos with their labels as read.
        names: the classes in order.
        title: what the photos are called in the report.
        cache_mb: decoded photos, or the views of them where those are smaller, are kept, the first
            ones first, as long as they fit into so many MiB.
        progress: whether to show a bar.
        max_megapixels: the size above which photos are not decoded, and left out.
        view: what the photos are read for.
    """
    photos: list[Photo] = []
    cache: dict[int, Image] = {}
    views: dict[int, NDArray[Any]] = {}
    problems: list[Problem] = []
    free_bytes = cache_mb * 2**20
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(
            lambda record: _examine(record, len(names), max_megapixels, view if cache_mb else None),
            records,
        )
        if progress:
            results = track(results, f"checking {title} photos", len(records))
        for photo, kept, own_problems in results:
            problems += own_problems
            if photo is None:
                continue
            if kept.pixels.nbytes <= free_bytes:
                (views if kept.is_view else cache)[len(photos)] = kept.pixels
                free_bytes -= kept.pixels.nbytes
            photos.append(photo)
    problems += _listed_again(records)
    report = _report(title, tuple(names), photos, [*cache.values(), *views.values()], problems)
    return PhotoSet(
        tuple(names),
        tuple(photos),
        cache,
        report,
        max_megapixels=max_megapixels,
        view=view,
        views=views,
    )


def judge_labels(
    record: Record, boxes: NDArray[np.float64], size: tuple[int, int], classes: int
) -> dict[str, Mask]:
    """Which labels of a photo are bad, and why; of several reasons the first is reported.

    Args:
        record: the labels as read.
        boxes: [N, 4], their boxes as xyxy in pixels of the upright photo.
        size: (width, height) of the upright photo.
        classes: how many there are.

    Returns:
        For each reason, a key of `utils.data.report.ERRORS`, bool [N].
    """
    finite = np.asarray(np.isfinite(record.boxes).all(axis=1))
    inside = cut_to(boxes, size)
    return {
        "not a finite number": ~finite,
        "class out of range": (record.labels < 0) | (record.labels >= classes),
        "outside the photo": (np.abs(record.boxes) > LARGEST_COORDINATE).any(axis=1)
        | (_has_area(boxes) & ~_has_area(inside)),
        "zero area": ~_has_area(boxes),
        "duplicate": _repeated(boxes, record.labels),
    }


def shared_photos(train: PhotoSet, valid: PhotoSet) -> list[Path]:
    """List the photos that are in both splits, which make the validation's figures too good."""
    trained = {photo.path.resolve() for photo in train.photos}
    return [photo.path for photo in valid.photos if photo.path.resolve() in trained]


class _Kept(NamedTuple):
    """What a cache is to hold of a photo: its pixels, or the view of it."""

    pixels: NDArray[Any]
    is_view: bool = False


def _smaller(image: Image, view: View | None) -> _Kept:
    viewed = view(image) if view else image
    return _Kept(viewed, is_view=True) if viewed.nbytes < image.nbytes else _Kept(image)


def _examine(
    record: Record, classes: int, max_megapixels: float, view: View | None
) -> tuple[Photo | None, _Kept, list[Problem]]:
    nothing = _Kept(np.zeros((0, 0, 3), np.uint8))
    if record.broken:
        return None, nothing, list(record.problems)
    if not exists(record.image):
        by = f" (named by {record.label_file})" if record.label_file else ""
        return None, nothing, [Problem("missing photo", str(record.image), f"no such file{by}")]
    try:
        decoded = read_photo(record.image, max_megapixels)
    except InputError as error:
        reason = str(error).removeprefix(f"{record.image}: ")
        return None, nothing, [Problem("unreadable photo", str(record.image), reason)]
    size = (decoded.image.shape[1], decoded.image.shape[0])
    boxes = _pixels(record, size, decoded.orientation)
    photo, label_problems = _sound(record, boxes, size, classes)
    problems = [*record.problems, *_warnings(record, decoded, size), *label_problems]
    if wrong := _all_wrong(record, photo):
        return None, nothing, [*problems, Problem("no sound label", str(record.image), wrong)]
    kept = _smaller(decoded.image, view)
    return replace(photo, file_bytes=decoded.file_bytes), kept, problems


def _all_wrong(record: Record, photo: Photo) -> str:
    """How many labels a photo has where none is sound; empty for all others.

    Such a photo shows objects. Without its labels it would teach that it shows none, and what is
    detected there would count as wrong.
    """
    count = len(record.labels) + sum(each.kind in LABEL_ERRORS for each in record.problems)
    return f"{count} labels, each of them wrong" if count and not len(photo.labels) else ""


def _warnings(record: Record, decoded: DecodedPhoto, size: tuple[int, int]) -> list[Problem]:
    """What a person should know of a photo that is used."""
    mode, orientation = decoded.mode, decoded.orientation
    warnings = [("odd file", note) for note in decoded.notes[:1]]
    if mode in GREY_MODES:
        warnings.append(("grey or palette", f"mode {mode}"))
    if mode in TRANSPARENT_MODES:
        warnings.append(("transparent", f"mode {mode}"))
    if mode.startswith(DEEP_MODES):
        warnings.append(("deeper than 8 bits", f"mode {mode}"))
    if orientation != 1:
        warnings.append(("turned by EXIF", f"orientation {orientation}"))
    if record.stated_size not in (None, size) and not _drawn_unturned(record, size, orientation):
        detail = f"{size} pixels, labels state {record.stated_size}"
        warnings.append(("other size than stated", detail))
    return [Problem(kind, str(record.image), detail) for kind, detail in warnings]


def _pixels(record: Record, size: tuple[int, int], orientation: int) -> NDArray[np.float64]:
    """The record's boxes as xyxy in pixels of the upright photo, [N, 4]."""
    # `judge_labels` refuses what is not finite or too large; here it only must not overflow.
    finite = np.isfinite(record.boxes).all(axis=1, keepdims=True)
    boxes = np.where(finite, record.boxes, 0.0).clip(-LARGEST_COORDINATE, LARGEST_COORDINATE)
    if record.normalized:
        centre, half = boxes[:, :2], boxes[:, 2:] / 2
        corners = np.concatenate([centre - half, centre + half], axis=1)
        return np.asarray(corners * np.array([*size, *size]))
    if _drawn_unturned(record, size, orientation):
        return _turn(boxes, orientation, size)
    return boxes


def _drawn_unturned(record: Record, size: tuple[int, int], orientation: int) -> bool:
    """Whether the labels were drawn on the photo as it is stored, not as it is seen.

    Only told by the size that they state, so a photo turned upside down or square is taken as
    labelled upright.
    """
    return orientation in SIDEWAYS and record.stated_size == size[::-1] and size[0] != size[1]


def _turn(
    boxes: NDArray[np.float64], orientation: int, size: tuple[int, int]
) -> NDArray[np.float64]:
    """Boxes on the stored photo → on the upright one of (width, height) `size`."""
    width, height = size
    left, top, right, bottom = boxes.T
    turned = {
        5: (top, left, bottom, right),
        6: (width - bottom, left, width - top, right),
        7: (width - bottom, height - right, width - top, height - left),
        8: (top, height - right, bottom, height - left),
    }
    return np.stack(turned[orientation], axis=1)


def _sound(
    record: Record, boxes: NDArray[np.float64], size: tuple[int, int], classes: int
) -> tuple[Photo, list[Problem]]:
    """The photo with its sound labels, cut to it, and what is wrong with the others."""
    sound = np.ones(len(boxes), bool)
    problems = []
    for kind, bad in judge_labels(record, boxes, size, classes).items():
        problems += _label_problems(kind, record, bad & sound, size)
        sound &= ~bad
    inside = cut_to(boxes, size)
    overshoot = np.abs(inside - boxes).max(axis=1, initial=0)
    over = sound & (overshoot > OVERSHOOT_TOLERANCE)
    problems += _label_problems("partly outside", record, over, size)
    own_area = (inside[:, 2:] - inside[:, :2]).prod(axis=1)
    area = np.where(np.isfinite(record.area), record.area, own_area)
    photo = Photo(
        path=record.image,
        size=size,
        boxes=inside[sound].astype(np.float32),
        labels=record.labels[sound],
        ignore=record.ignore[sound],
        area=area[sound].astype(np.float32),
        image_id=record.image_id,
        category_ids=record.category_ids,
    )
    return photo, problems


def cut_to(boxes: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Boxes [N, 4] cut to a photo of (width, height) `size`."""
    return np.clip(boxes, 0, [*size, *size])


def _has_area(boxes: NDArray[np.float64]) -> Mask:
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def _label_problems(kind: str, record: Record, mask: Mask, size: tuple[int, int]) -> list[Problem]:
    """A problem for each label that `mask` [N] marks."""
    problems = []
    for index in np.flatnonzero(mask).tolist():
        values = " ".join(f"{value:g}" for value in record.boxes[index])
        detail = f"class {record.labels[index]}, box {values}, photo {size[0]}×{size[1]}"
        if record.normalized and kind in ("outside the photo", "partly outside"):
            detail += "; expected shares of the photo between 0 and 1"
        problems.append(Problem(kind, record.where(index), detail))
    return problems


def _repeated(boxes: NDArray[np.float64], labels: NDArray[np.int64]) -> Mask:
    """Which labels repeat the class and, to a hundredth of a pixel, the box of an earlier one."""
    if not len(boxes):
        return np.zeros(0, bool)
    rows = np.column_stack([labels, boxes.round(2)])
    _, first = np.unique(rows, axis=0, return_index=True)
    return ~np.isin(np.arange(len(rows)), first)


def _listed_again(records: Sequence[Record]) -> list[Problem]:
    seen: set[Path] = set()
    problems = []
    for record in records:
        path = record.image.resolve() if os.path.islink(record.image) else record.image  # noqa: PTH114
        if path in seen and record.is_photo:
            problems.append(Problem("listed again", str(record.image), "stands in the list before"))
        seen.add(path)
    return problems


def _report(
    title: str,
    names: tuple[str, ...],
    photos: Sequence[Photo],
    cache: Sequence[NDArray[Any]],
    problems: Sequence[Problem],
) -> Report:
    counts = np.zeros(len(names), np.int64)
    for photo in photos:
        counts += np.bincount(photo.labels[~photo.ignore], minlength=len(names))
    return Report(
        title=title,
        names=names,
        photos=len(photos),
        empty=sum(not len(photo.labels) for photo in photos),
        objects=tuple(counts.tolist()),
        ignored=sum(int(photo.ignore.sum()) for photo in photos),
        cached=len(cache),
        cached_bytes=sum(pixels.nbytes for pixels in cache),
        problems=tuple(problems),
    )
