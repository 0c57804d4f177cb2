"""What the readers of several labelling tools share: shapes, numbers of JSON, photos by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.data.labels.record import Problem, UnknownClass, some_names
from utils.files.paths import exists


def bounding_box(points: Sequence[tuple[float, float]]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a shape with these corners.

    >>> bounding_box([(3.0, 1.0), (2.0, 5.0), (4.0, 2.0)])
    (2.0, 1.0, 4.0, 5.0)
    """
    columns, rows = zip(*points, strict=True)
    return min(columns), min(rows), max(columns), max(rows)


def polygon_problem(where: str, shape: str) -> Problem:
    """What the report says of a shape that is no upright rectangle."""
    return Problem("polygon", where, shape)


def class_index(name: str, names: Sequence[str]) -> int:
    """The number of a class.

    Raises:
        UnknownClass: it is not among `names`.
    """
    if name not in names:
        raise UnknownClass(f"class {name[:60]!r}: expected one of {some_names(names)}")
    return names.index(name)


def json_number(value: Any) -> float | None:
    """A JSON number, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return math.inf


def locate(candidates: Sequence[str], folders: Sequence[Path]) -> Path:
    """The photo that has one of these relative paths in one of the folders, else the first."""
    paths = [folder / name for name in candidates for folder in folders]
    return next((path for path in paths if exists(path)), paths[0])
