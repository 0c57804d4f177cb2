"""labelme's `.json`: one file a photo, with rectangles and polygons in pixels.

Polygons, circles and lines are taken as their bounding boxes; a point has none.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.data.labels.record import (
    LARGEST_LABEL_FILE,
    MOST_PROBLEMS,
    Label,
    MalformedLabel,
    Problem,
    Record,
    image_size,
)
from utils.data.labels.shapes import bounding_box, class_index, json_number, polygon_problem
from utils.errors import InputError
from utils.files.reading import read_text

LEAST_POINTS = {"rectangle": 2, "polygon": 3, "circle": 2, "line": 2, "linestrip": 2, "mask": 2}


def read_labelme(image: Path, label_file: Path, names: Sequence[str]) -> Record:
    """Read the labels of one photo."""
    try:
        content = _read(label_file)
    except InputError as error:
        return Record.unreadable(image, label_file, str(error).removeprefix(f"{label_file}: "))
    labels: list[Label] = []
    problems: list[Problem] = []
    for index, shape in enumerate(content["shapes"]):
        where = f"{label_file}: shapes[{index}]"
        try:
            box, is_polygon = _box(shape)
            labels.append(Label(box, class_index(shape["label"].strip(), names), index))
        except MalformedLabel as error:
            problems.append(Problem(error.kind, where, str(error)))
            if len(problems) > MOST_PROBLEMS:
                reason = f"more than {MOST_PROBLEMS} wrong shapes; {problems[0].detail}"
                return Record.unreadable(image, label_file, reason)
            continue
        if is_polygon:
            problems.append(polygon_problem(where, f"{shape['shape_type']} of {shape['label']!r}"))
    size = image_size(content.get("imageWidth"), content.get("imageHeight"))
    return Record.of(
        image, label_file, labels, problems, stated_size=size, place="{file}: shapes[{line}]"
    )


def class_names(label_file: Path) -> set[str]:
    """The names of the classes in one file."""
    try:
        shapes = _read(label_file)["shapes"]
    except InputError:
        return set()  # told when its labels are read
    names = (shape.get("label") for shape in shapes if isinstance(shape, dict))
    return {name.strip() for name in names if isinstance(name, str) and name.strip()}


def _read(label_file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(label_file, LARGEST_LABEL_FILE))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{label_file}: no readable JSON ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise InputError(f"{label_file}: no list 'shapes': expected a file of labelme")
    return content


def _box(shape: Any) -> tuple[tuple[float, ...], bool]:
    """A shape's box, xyxy in pixels, and whether the shape is another than a rectangle."""
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
        raise MalformedLabel(f"{reprlib.repr(shape)}: expected a shape with a label")
    kind = shape.setdefault("shape_type", "polygon")  # files of before labelme 3.8 have none
    if not isinstance(kind, str) or kind not in LEAST_POINTS:
        raise MalformedLabel(
            f"shape_type={reprlib.repr(kind)}: expected one of {', '.join(LEAST_POINTS)}"
        )
    points = shape.get("points")
    if not isinstance(points, list) or len(points) < LEAST_POINTS[kind]:
        raise MalformedLabel(
            f"points={reprlib.repr(points)}: expected at least {LEAST_POINTS[kind]}"
        )
    corners = [_point(point) for point in points]
    if kind == "circle":  # its centre, and a point on it
        (x, y), (edge_x, edge_y) = corners[:2]
        radius = math.hypot(edge_x - x, edge_y - y)
        return (x - radius, y - radius, x + radius, y + radius), True
    return bounding_box(corners), kind != "rectangle"


def _point(point: Any) -> tuple[float, float]:
    numbers = [json_number(value) for value in point] if isinstance(point, list) else []
    if len(numbers) != 2 or None in numbers:
        raise MalformedLabel(f"{reprlib.repr(point)}: expected a point, [x, y]")
    x, y = (number for number in numbers if number is not None)
    return x, y
