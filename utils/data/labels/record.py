"""One photo and its labels as they were read, the same whatever the format, before any check."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.files.numbers import to_float

LARGEST_LABEL_FILE = 2**24  # bytes; of one photo
MOST_PROBLEMS = 1000  # in one photo's label file; with more it is something else


class MalformedLabel(Exception):
    """A label cannot be read; the message says why."""

    kind = "malformed label"


class UnknownClass(MalformedLabel):
    """A label is of a class that the data set has no name for."""

    kind = "class out of range"


@dataclass(frozen=True)
class Problem:
    """Something about the data that a person should know.

    Attributes:
        kind: a key of `utils.data.report.KINDS`.
        where: the file, and where there is one the line.
        detail: the value that is wrong, and what was expected.
    """

    kind: str
    where: str
    detail: str


@dataclass(frozen=True)
class Label:
    """One label as a reader gives it; see `Record` for its fields."""

    box: tuple[float, ...]
    class_index: int
    line: int
    ignore: bool = False
    area: float = math.nan


@dataclass(frozen=True)
class Record:
    """One photo and what its labels say.

    Attributes:
        image: the photo, which may be missing.
        boxes: float64 [N, 4]. xyxy in pixels; or, if `normalized`, YOLO's centre x, centre y, width
            and height as shares of the photo's width and height.
        normalized: whether boxes are shares of the photo.
        labels: int64 [N], class indices.
        ignore: bool [N], VOC's `difficult` or COCO's crowd.
        area: float64 [N], pixels, COCO's own where it is given, else NaN.
        lines: int64 [N], where each label stands, as `place` says.
        label_file: None where the photo has none.
        place: how the place of a label is written, from the `file` and its `line`.
        stated_size: the photo's (width, height) according to the labels, None where they do not
            say.
        problems: what could not be read as a label.
        broken: whether nothing of the label file could be read.
        is_photo: whether this is a photo at all, not only something to tell of the source.
        image_id: the id that COCO's file gives the photo, None where that is no integer.
        category_ids: the ids that COCO's file gives the classes, None unless each has just one,
            which is an integer.
    """

    image: Path
    boxes: NDArray[np.float64]
    normalized: bool
    labels: NDArray[np.int64]
    ignore: NDArray[np.bool_]
    area: NDArray[np.float64]
    lines: NDArray[np.int64]
    label_file: Path | None
    place: str = "{file}:{line}"
    stated_size: tuple[int, int] | None = None
    problems: tuple[Problem, ...] = ()
    broken: bool = False
    is_photo: bool = True
    image_id: int | None = None
    category_ids: tuple[int, ...] | None = None

    @staticmethod
    def of(
        image: Path,
        label_file: Path | None,
        labels: Sequence[Label],
        problems: Sequence[Problem] = (),
        normalized: bool = False,
        stated_size: tuple[int, int] | None = None,
        place: str = "{file}:{line}",
    ) -> "Record":
        """The record of a photo with these labels."""
        return Record(
            image=image,
            boxes=np.array([label.box for label in labels], np.float64).reshape(-1, 4),
            normalized=normalized,
            labels=np.array([label.class_index for label in labels], np.int64),
            ignore=np.array([label.ignore for label in labels], np.bool_),
            area=np.array([label.area for label in labels], np.float64),
            lines=np.array([label.line for label in labels], np.int64),
            label_file=label_file,
            place=place,
            stated_size=stated_size,
            problems=tuple(problems),
        )

    @staticmethod
    def unreadable(image: Path, label_file: Path, reason: str) -> "Record":
        """The record of a photo whose label file cannot be read at all."""
        problem = Problem("unreadable label file", str(label_file), reason)
        return replace(Record.of(image, label_file, [], [problem]), broken=True)

    @staticmethod
    def told(problem: Problem) -> "Record":
        """What is to be told of a source where it belongs to none of its photos."""
        record = Record.of(Path(problem.where), None, [], [problem])
        return replace(record, broken=True, is_photo=False)

    def where(self, index: int) -> str:
        """The place of one label, such as `file:line`."""
        return self.place.format(file=self.label_file, line=self.lines[index])


def image_size(width: Any, height: Any) -> tuple[int, int] | None:
    """A (width, height) as labels state it; several tools leave it out or write 0."""
    try:
        size = _side(width), _side(height)
    except (TypeError, ValueError, OverflowError):
        return None
    return size if 0 < min(size) <= max(size) < 2**31 else None


def _side(value: Any) -> int:
    return int(to_float(value) if isinstance(value, str) else float(value))


def some_names(names: Sequence[str], most: int = 25) -> str:
    """The names of the classes, or the first of them, for a message."""
    return ", ".join(names) if len(names) <= most else ", ".join(names[:most]) + ", …"
