"""Can every photo be read, and is every label right? Asked once, before the first epoch.

`judge_labels` says which labels are bad. What cannot be read as a label at all is told by the
readers in `utils.data.labels`.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from utils.console.progress import track
from utils.data.labels.record import Problem, Record
from utils.data.photos import Photo, Photos, PhotoSet
from utils.data.remembered import PhotoFacts, RememberedPhotos, fingerprint_of
from utils.data.report import LABEL_ERRORS, Problems, Report
from utils.data.views import View
from utils.errors import InputError
from utils.files.paths import exists
from utils.images import MAX_MEGAPIXELS, SIDEWAYS, read_photo
from utils.processes.workers import usable_cores
from utils.structures import Image

T = TypeVar("T")
R = TypeVar("R")
Mask = NDArray[np.bool_]  # [N], of the labels of a photo

AHEAD = 8  # photos a thread that are decoded before the first one's result is taken
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
    remembered: RememberedPhotos | None = None,
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
        remembered: what photos held before. Those that did not change are not decoded, except to be
            kept in memory.
    """
    photos = Photos()
    cache: dict[int, Image] = {}
    views: dict[int, NDArray[Any]] = {}
    problems = Problems()
    repeated: list[Problem] = []
    listed: set[str] = set()
    remembered = remembered or RememberedPhotos()
    examiner = _Examiner(len(names), max_megapixels, view, remembered, int(cache_mb * 2**20))
    results = _in_order(examiner.examine, records)
    complete = False
    try:
        for each in (
            track(results, f"checking {title} photos", len(records)) if progress else results
        ):
            problems.add(each.problems)
            repeated += _listed_again(each.record, listed)
            if each.file is not None and each.facts:
                remembered.add(each.file, each.facts)
            if each.photo is None:
                continue
            if each.kept is not None and each.kept.nbytes <= examiner.free_bytes:
                (views if each.is_view else cache)[len(photos)] = each.kept
                examiner.free_bytes -= each.kept.nbytes
            photos.append(each.photo)
        complete = True
    finally:
        results.close()
        remembered.keep(complete)
    problems.add(repeated)
    report = _report(title, tuple(names), photos, [*cache.values(), *views.values()], problems)
    return PhotoSet(
        tuple(names),
        photos,
        cache,
        report,
        max_megapixels=max_megapixels,
        view=view,
        views=views,
    )


def _in_order(work: Callable[[T], R], items: Iterable[T]) -> Generator[R]:
    """What becomes of each item, in their order, from threads that are a few items ahead."""
    threads = usable_cores()
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[R]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > AHEAD * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


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
    folders: dict[Path, str] = {}

    def real(path: Path) -> str:
        if path.parent not in folders:
            folders[path.parent] = os.path.realpath(path.parent)
        whole = os.path.join(folders[path.parent], path.name)  # noqa: PTH118
        return os.path.realpath(whole) if os.path.islink(whole) else whole  # noqa: PTH114

    trained = {real(photo.path) for photo in train.photos}
    return [photo.path for photo in valid.photos if real(photo.path) in trained]


@dataclass(frozen=True)
class _Examined:
    """What is known of a photo now.

    Attributes:
        record: with its labels as read.
        photo: None where it cannot be used.
        problems: of the photo and its labels.
        kept: the pixels that a cache is to hold, or a view of them.
        is_view: whether it is a view.
        file: which file it is, see `utils.data.remembered.fingerprint_of`.
        facts: what it holds.
    """

    record: Record
    photo: Photo | None
    problems: Sequence[Problem]
    kept: NDArray[Any] | None = None
    is_view: bool = False
    file: int | None = None
    facts: PhotoFacts | None = None


@dataclass
class _Examiner:
    """Looks at photos, in several threads.

    Attributes:
        classes: how many there are.
        max_megapixels: the size above which photos are not decoded.
        view: what the photos are read for.
        remembered: what photos held before.
        free_bytes: that caches may still take; of what needs more no pixels are returned.
    """

    classes: int
    max_megapixels: float
    view: View | None
    remembered: RememberedPhotos
    free_bytes: int

    def examine(self, record: Record) -> _Examined:
        """Decode a photo where it must be, and judge its labels."""
        if record.broken:
            return _Examined(record, None, record.problems)
        where = str(record.image)
        if not exists(record.image):
            by = f" (named by {record.label_file})" if record.label_file else ""
            problem = Problem("missing photo", where, f"no such file{by}")
            return _Examined(record, None, [problem])
        file = fingerprint_of(record.image)
        facts = None if file is None else self.remembered.find(file)
        image = None
        if facts is None or self._may_be_kept(facts.size):
            try:
                decoded = read_photo(record.image, self.max_megapixels)
            except InputError as error:
                reason = str(error).removeprefix(f"{record.image}: ")
                return _Examined(record, None, [Problem("unreadable photo", where, reason)])
            facts, image = PhotoFacts.of(decoded), decoded.image
        photo, label_problems = _sound(record, facts, self.classes)
        problems = [*record.problems, *_warnings(record, facts), *label_problems]
        if wrong := _all_wrong(record, photo):
            problems.append(Problem("no sound label", where, wrong))
            return _Examined(record, None, problems, file=file, facts=facts)
        kept, is_view = image, False
        if image is not None:
            kept = self._kept(image) if self._may_be_kept(facts.size) else None
            is_view = kept is not image
        return _Examined(record, photo, problems, kept, is_view, file, facts)

    def _may_be_kept(self, size: tuple[int, int]) -> bool:
        """Whether there is still room for a photo; when its turn comes, there may be none."""
        whole = 3 * size[0] * size[1]
        return min(whole, self.view.bytes_of(size) if self.view else whole) <= self.free_bytes

    def _kept(self, image: Image) -> NDArray[Any]:
        """The photo or the view of it, whichever is smaller."""
        viewed = self.view(image) if self.view else image
        return viewed if viewed.nbytes < image.nbytes else image


def _all_wrong(record: Record, photo: Photo) -> str:
    """How many labels a photo has where none is sound; empty for all others.

    Such a photo shows objects. Without its labels it would teach that it shows none, and what is
    detected there would count as wrong.
    """
    count = len(record.labels) + sum(each.kind in LABEL_ERRORS for each in record.problems)
    return f"{count} labels, each of them wrong" if count and not len(photo.labels) else ""


def _warnings(record: Record, facts: PhotoFacts) -> list[Problem]:
    """What a person should know of a photo that is used."""
    size, mode, orientation = facts.size, facts.mode, facts.orientation
    warnings = [("odd file", facts.note)] if facts.note else []
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


def _sound(record: Record, facts: PhotoFacts, classes: int) -> tuple[Photo, list[Problem]]:
    """The photo with its sound labels, cut to it, and what is wrong with the others."""
    size = facts.size
    boxes = _pixels(record, size, facts.orientation)
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
        file_bytes=facts.file_bytes,
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
    numbers = zip(labels.tolist(), boxes.round(2).tolist(), strict=True)
    rows = [(label, *box) for label, box in numbers]
    first = {row: index for index, row in reversed(list(enumerate(rows)))}
    return np.array([first[row] != index for index, row in enumerate(rows)], np.bool_)


def _listed_again(record: Record, listed: set[str]) -> list[Problem]:
    """Whether a photo was `listed` before; then it is."""
    image = record.image
    path = os.fspath(image.resolve() if os.path.islink(image) else image)  # noqa: PTH114
    is_new = path not in listed
    listed.add(path)
    if is_new or not record.is_photo:
        return []
    return [Problem("listed again", str(image), "stands in the list before")]


def _report(
    title: str,
    names: tuple[str, ...],
    photos: Sequence[Photo],
    cache: Sequence[NDArray[Any]],
    problems: Problems,
) -> Report:
    counts = np.zeros(len(names), np.int64)
    empty = ignored = 0
    for photo in photos:
        counts += np.bincount(photo.labels[~photo.ignore], minlength=len(names))
        empty += not len(photo.labels)
        ignored += int(photo.ignore.sum())
    return Report(
        title=title,
        names=names,
        photos=len(photos),
        empty=empty,
        objects=tuple(counts.tolist()),
        ignored=ignored,
        cached=len(cache),
        cached_bytes=sum(pixels.nbytes for pixels in cache),
        problems=tuple(problems.first),
        counts=problems.counts,
    )
