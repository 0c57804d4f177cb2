"""Can every photo be read, and does every label make sense? Asked once, before the first epoch."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from utils.boxes import Fit
from utils.data.sources import Problem, Record
from utils.errors import InputError
from utils.files import is_file
from utils.images import SIDEWAYS, read_photo
from utils.structures import Image, Targets

# What can be said about data, in the order of the report. The first are bad: what they concern is
# left out, or the whole set is refused. The others are only told.
BAD = {
    "missing photo": "photos left out",
    "unreadable photo": "photos left out",
    "unreadable label file": "photos left out",
    "malformed label": "labels left out",
    "not a finite number": "labels left out",
    "class out of range": "labels left out",
    "zero area": "labels left out",
    "outside the photo": "labels left out",
    "duplicate": "labels left out",
}
TOLD = {
    "partly outside": "boxes cut to the photo",
    "no label file": "taken as photos without objects",
    "other size than stated": "the photo's own size counts",
    "turned by EXIF": "photos set upright",
    "grey or palette": "photos read as RGB",
    "transparent": "alpha left out",
    "deeper than 8 bits": "photos read as 8 bits a channel",
    "listed again": "photos that count more than once",
}
KINDS = {**BAD, **TOLD}
FAR = 1e9  # beyond it no number, of pixels or shares, is a place near any photo
OVERSHOOT = 0.5  # pixels by which rounding may carry a box over the edge without a word
GREY = ("1", "L", "LA", "La", "P", "PA")
DEEP = ("I", "F")
TRANSPARENT = ("RGBA", "RGBa", "LA", "La", "PA")


@dataclass(frozen=True)
class Photo:
    """One photo whose labels are sound. Boxes are xyxy in pixels of the upright photo.

    size: (width, height). boxes: float32 [N, 4]. labels: int64 [N].
    ignore: bool [N], VOC's `difficult` or COCO's crowd. area: float32 [N], pixels.
    image_id, category_ids: the source's own, see `readers.Record`.
    """

    path: Path
    size: tuple[int, int]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    ignore: NDArray[np.bool_]
    area: NDArray[np.float32]
    image_id: int | None = None
    category_ids: tuple[int, ...] | None = None

    def targets(self) -> Targets:
        return Targets(*map(torch.from_numpy, (self.boxes, self.labels, self.ignore, self.area)))


@dataclass(frozen=True)
class Report:
    """What the check found. Print it once; then `accept` or refuse what it says."""

    title: str
    names: tuple[str, ...]
    photos: int
    empty: int
    objects: tuple[int, ...]
    ignored: int
    cached: int
    cached_bytes: int
    problems: tuple[Problem, ...]

    @property
    def bad(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.kind in BAD)

    def text(self, first: int = 3) -> str:
        """The report, with the first few places of each kind."""
        lines = [
            f"{self.title}: {self.photos} photos, {sum(self.objects)} objects"
            + (f" (and {self.ignored} difficult or crowd)" if self.ignored else "")
            + f", {self.empty} without any; {self.cached} photos kept in memory"
            + f" ({self.cached_bytes / 2**20:.0f} MiB)",
            "  " + self._classes(),
        ]
        counts = Counter(problem.kind for problem in self.problems)
        for kind in (kind for kind in KINDS if counts[kind]):
            lines.append(f"  {counts[kind]} × {kind}: {KINDS[kind]}")
            found = [problem for problem in self.problems if problem.kind == kind]
            lines += [f"    {problem.where}: {problem.what}" for problem in found[:first]]
            lines += [f"    … and {len(found) - first} more"] if len(found) > first else []
        # a file's name may hold bytes that are no text, which printing would refuse
        return "\n".join(lines).encode("utf-8", "backslashreplace").decode()

    def _classes(self, most: int = 20) -> str:
        """Objects per class; of many classes, those with the fewest."""
        counted = list(zip(self.objects, self.names, strict=True))
        shown = counted if len(counted) <= most else sorted(counted)[:most]
        start = "" if len(counted) <= most else f"fewest of {len(counted)} classes: "
        return start + ", ".join(f"{name} {count}" for count, name in shown)

    def accept(self, bad_labels: str) -> None:
        """Raise InputError if anything is bad and `bad_labels` is "refuse"; "drop" goes on."""
        if bad_labels not in ("drop", "refuse"):
            raise InputError(f"bad_labels={bad_labels!r}: expected 'drop' or 'refuse'")
        if self.bad and bad_labels == "refuse":
            one = self.bad[0]
            others = f" (and {len(self.bad) - 1} more)" if len(self.bad) > 1 else ""
            raise InputError(
                f"{one.where}: {one.kind}: {one.what}{others}; bad_labels=drop goes on"
            )


@dataclass(frozen=True)
class PhotoSet:
    """The sound photos of one split, and those of them that fitted into memory, decoded.

    mirror: whether a mirrored object is still the same object; not so for digits and signs.
    """

    names: tuple[str, ...]
    photos: tuple[Photo, ...]
    cache: dict[int, Image]
    report: Report
    mirror: bool = True

    def __len__(self) -> int:
        return len(self.photos)

    def image(self, index: int) -> Image:
        """uint8 [H, W, 3], RGB, upright. Not to be written to: it may be the cached one."""
        cached = self.cache.get(index)
        return read_photo(self.photos[index].path)[0] if cached is None else cached

    def sizes(self, net: tuple[int, int], letterbox: bool) -> NDArray[np.float64]:
        """Every counted object's (width, height) in pixels of a network's input, [N, 2]."""
        found = [np.zeros((0, 2))]
        for photo in self.photos:
            fit = Fit.of(photo.size, net, letterbox)
            size = (photo.boxes[:, 2:] - photo.boxes[:, :2])[~photo.ignore]
            found.append(size * np.array([fit.scale_x, fit.scale_y]))
        return np.concatenate(found)


def check(
    records: Sequence[Record],
    names: Sequence[str],
    title: str = "data",
    cache_mb: float = 0,
    progress: bool = True,
) -> PhotoSet:
    """Decode every photo once, in threads, and judge every label.

    Bad labels and photos are left out and reported; boxes that reach over the edge are cut to the
    photo. Decoded photos are kept, the first ones first, as long as they fit into `cache_mb` MiB.
    """
    photos: list[Photo] = []
    cache: dict[int, Image] = {}
    problems: list[Problem] = []
    left = cache_mb * 2**20
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda record: _examine(record, len(names)), records)
        bar = tqdm(results, f"checking {title}", len(records), unit="photo", disable=not progress)
        for photo, image, said in bar:
            problems += said
            if photo is None:
                continue
            if image.nbytes <= left:
                cache[len(photos)] = image
                left -= image.nbytes
            photos.append(photo)
    problems += _listed_again(records)
    report = _report(title, tuple(names), photos, cache, problems)
    return PhotoSet(tuple(names), tuple(photos), cache, report)


def shared_photos(train: PhotoSet, valid: PhotoSet) -> list[Path]:
    """The photos that are in both splits, which make the validation's figures too good."""
    trained = {photo.path.resolve() for photo in train.photos}
    return [photo.path for photo in valid.photos if photo.path.resolve() in trained]


def _examine(record: Record, classes: int) -> tuple[Photo | None, Image, list[Problem]]:
    nothing = np.zeros((0, 0, 3), np.uint8)
    if record.broken:
        return None, nothing, list(record.problems)
    if not is_file(record.image):
        of = f" (named by {record.label_file})" if record.label_file else ""
        return None, nothing, [Problem("missing photo", str(record.image), f"no such file{of}")]
    try:
        image, mode, orientation = read_photo(record.image)
    except InputError as error:
        what = str(error).removeprefix(f"{record.image}: ")
        return None, nothing, [Problem("unreadable photo", str(record.image), what)]
    size = (image.shape[1], image.shape[0])
    problems = list(record.problems) + _told(record, mode, orientation, size)
    photo, bad = _judge(record, _pixels(record, size, orientation), size, classes)
    return photo, image, problems + bad


def _told(record: Record, mode: str, orientation: int, size: tuple[int, int]) -> list[Problem]:
    """What is worth telling of a photo that is used."""
    said = []
    if mode in GREY:
        said.append(("grey or palette", f"mode {mode}"))
    if mode in TRANSPARENT:
        said.append(("transparent", f"mode {mode}"))
    if mode.startswith(DEEP):
        said.append(("deeper than 8 bits", f"mode {mode}"))
    if orientation != 1:
        said.append(("turned by EXIF", f"orientation {orientation}"))
    if record.label_file is None:
        said.append(("no label file", "neither .txt nor .xml"))
    if record.stated not in (None, size) and not _drawn_unturned(record, size, orientation):
        said.append(("other size than stated", f"{size} pixels, labels state {record.stated}"))
    return [Problem(kind, str(record.image), what) for kind, what in said]


def _pixels(record: Record, size: tuple[int, int], orientation: int) -> NDArray[np.float64]:
    """The record's boxes as xyxy in pixels of the upright photo, [N, 4]."""
    boxes = record.boxes.clip(-FAR, FAR)  # so that nothing overflows; `_judge` refuses them
    if record.shares:
        centre, half = boxes[:, :2], boxes[:, 2:] / 2
        return np.concatenate([centre - half, centre + half], axis=1) * np.array([*size, *size])
    if _drawn_unturned(record, size, orientation):
        return _turn(boxes, orientation, size)
    return boxes


def _drawn_unturned(record: Record, size: tuple[int, int], orientation: int) -> bool:
    """Whether the labels were drawn on the photo as it is stored, not as it is seen.

    Only told by the size that they state, so a photo turned upside down or square is taken as
    labelled upright.
    """
    return orientation in SIDEWAYS and record.stated == size[::-1] and size[0] != size[1]


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


def _judge(
    record: Record, boxes: NDArray[np.float64], size: tuple[int, int], classes: int
) -> tuple[Photo, list[Problem]]:
    """The photo with its sound labels, cut to it, and what is wrong with the others."""
    width, height = size
    finite = np.isfinite(record.boxes).all(axis=1)
    safe = np.where(np.isfinite(boxes), boxes, 0.0)
    cut = np.clip(safe, 0, [width, height, width, height])
    flaws = [  # the first that holds is the one told
        ("not a finite number", ~finite),
        ("class out of range", (record.labels < 0) | (record.labels >= classes)),
        ("outside the photo", (np.abs(record.boxes) > FAR).any(axis=1)),
        ("zero area", (safe[:, 2:] <= safe[:, :2]).any(axis=1)),
        ("outside the photo", (cut[:, 2:] <= cut[:, :2]).any(axis=1)),
        ("duplicate", _repeated(safe, record.labels)),
    ]
    sound = np.ones(len(boxes), bool)
    problems = []
    for kind, flawed in flaws:
        problems += [
            _label_problem(kind, record, i, size) for i in np.flatnonzero(flawed & sound).tolist()
        ]
        sound &= ~flawed
    over = (np.abs(cut - safe) > OVERSHOOT).any(axis=1) & sound
    problems += [
        _label_problem("partly outside", record, i, size) for i in np.flatnonzero(over).tolist()
    ]
    kept = cut[sound]
    own = (kept[:, 2:] - kept[:, :2]).prod(axis=1)
    stated = record.area[sound]
    photo = Photo(
        path=record.image,
        size=size,
        boxes=kept.astype(np.float32),
        labels=record.labels[sound],
        ignore=record.ignore[sound],
        area=np.where(np.isfinite(stated), stated, own).astype(np.float32),
        image_id=record.image_id,
        category_ids=record.category_ids,
    )
    return photo, problems


def _label_problem(kind: str, record: Record, index: int, size: tuple[int, int]) -> Problem:
    values = " ".join(f"{value:g}" for value in record.boxes[index])
    what = f"class {record.labels[index]}, box {values}, photo {size[0]}×{size[1]}"
    if record.shares and kind in ("outside the photo", "partly outside"):
        what += "; expected shares of the photo between 0 and 1"
    return Problem(kind, record.where(index), what)


def _repeated(boxes: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which labels say what an earlier one said: class and, to a hundredth of a pixel, box."""
    if not len(boxes):
        return np.zeros(0, bool)
    rows = np.column_stack([labels, boxes.round(2)])
    _, first = np.unique(rows, axis=0, return_index=True)
    return ~np.isin(np.arange(len(rows)), first)


def _listed_again(records: Sequence[Record]) -> list[Problem]:
    seen: set[Path] = set()
    problems = []
    for record in records:
        if record.image in seen:
            problems.append(Problem("listed again", str(record.image), "stands in the list before"))
        seen.add(record.image)
    return problems


def _report(
    title: str,
    names: tuple[str, ...],
    photos: Sequence[Photo],
    cache: dict[int, Image],
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
        cached_bytes=sum(image.nbytes for image in cache.values()),
        problems=tuple(problems),
    )
