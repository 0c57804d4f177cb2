"""Label Studio's `.json` (JSON or JSON-MIN): one file for a whole data set, a task a photo.

Shapes are per cent of the photo. A rectangle that is turned and a polygon are taken as their
bounding boxes. Uploaded photos are called `<8 letters>-<name>` there; they are looked for under
both names.
"""

from __future__ import annotations

import math
import re
import reprlib
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from utils.data.labels.record import Label, MalformedLabel, Problem, Record, image_size
from utils.data.labels.shapes import (
    bounding_box,
    class_index,
    json_number,
    locate,
    polygon_problem,
)
from utils.errors import InputError

SHAPES = ("rectanglelabels", "polygonlabels", "ellipselabels")
UPLOADED = re.compile(r"^[0-9a-f]{8}-")
PHOTO = re.compile(r"\.(jpe?g|png|bmp|webp|tiff?|gif)$", re.IGNORECASE)
PLACE = "{file}: task {line}"


def is_label_studio(content: Any) -> bool:
    """Whether the JSON of a file is a list of tasks."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(task, dict) for task in content)
        and any(_photo_of(task) for task in content)
    )


def read_label_studio(
    path: Path, content: Any, names: Sequence[str], images: Sequence[Path] = ()
) -> list[Record]:
    """Read the labels of all photos.

    Args:
        path: the `.json` file.
        content: its JSON.
        names: the classes in order.
        images: folders with photos, looked in before the file's own, its `images` and `upload`.

    Raises:
        InputError: no task has a photo.
    """
    folders = [*images, path.parent, path.parent / "images", path.parent / "upload"]
    records = []
    for number, task in enumerate(content):
        name = _photo_of(task)
        if not name:
            raise InputError(f"{path}: task {number}: no photo in it: expected its address in data")
        labels: list[Label] = []
        problems: list[Problem] = []
        size = None
        where = PLACE.format(file=path, line=number)
        for shape in _shapes(task):
            size = image_size(shape.get("original_width"), shape.get("original_height")) or size
            try:
                box, name_of_class, is_polygon = _box(shape)
                labels.append(Label(box, class_index(name_of_class, names), number))
            except MalformedLabel as error:
                problems.append(Problem(error.kind, where, str(error)))
                continue
            if is_polygon:
                problems.append(polygon_problem(where, f"a shape of {name_of_class!r}"))
        bare = PurePosixPath(name).name
        photo = locate([name.lstrip("/"), bare, UPLOADED.sub("", bare)], folders)
        record = Record.of(
            photo, path, labels, problems, normalized=True, stated_size=size, place=PLACE
        )
        records.append(record)
    return records


def class_names(content: Any) -> set[str]:
    """The names of the classes in a file's JSON."""
    names = set()
    for task in content:
        for shape in _shapes(task):
            try:
                names.add(_box(shape)[1])
            except MalformedLabel:
                continue  # told when its labels are read
    return names


def _photo_of(task: dict[str, Any]) -> str:
    """The photo's path or address in a task; empty where there is none."""
    data = task.get("data")
    values = [*(data if isinstance(data, dict) else task).values()]
    for value in values:
        if isinstance(value, str):
            parts = urllib.parse.urlsplit(value)
            local = urllib.parse.parse_qs(parts.query).get("d")  # /data/local-files/?d=photos/1.jpg
            name = urllib.parse.unquote(local[0] if local else parts.path)
            if PHOTO.search(name):
                return name.replace("\\", "/")
    return ""


def _shapes(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The shapes of a task: of its annotations, or in JSON-MIN of any of its lists."""
    if isinstance(task.get("data"), dict):
        annotations = task.get("annotations") or task.get("completions") or []
        for annotation in annotations if isinstance(annotations, list) else []:
            # One that was cancelled is none.
            if isinstance(annotation, dict) and not annotation.get("was_cancelled"):
                results = annotation.get("result")
                for result in results if isinstance(results, list) else []:
                    value = result.get("value") if isinstance(result, dict) else None
                    if isinstance(value, dict) and any(key in value for key in SHAPES):
                        yield {**result, **value}
        return
    for value in task.values():
        for shape in value if isinstance(value, list) else []:
            if isinstance(shape, dict) and any(key in shape for key in SHAPES):
                yield shape


def _box(shape: dict[str, Any]) -> tuple[tuple[float, ...], str, bool]:
    """A shape's box (YOLO's shares), its class, and whether it is another than an upright one."""
    kind = next(key for key in SHAPES if key in shape)
    classes = shape[kind]
    if not isinstance(classes, list) or not classes or not isinstance(classes[0], str):
        raise MalformedLabel(f"{kind}={reprlib.repr(classes)}: expected a class")
    if kind == "polygonlabels":
        points = shape.get("points")
        if not isinstance(points, list) or len(points) < 3:
            raise MalformedLabel(f"points={reprlib.repr(points)}: expected at least 3")
        corners = [(_number(point, 0), _number(point, 1)) for point in points]
        return _shares(bounding_box(corners)), classes[0], True
    if kind == "ellipselabels":
        x, y, radius_x, radius_y = (_number(shape, key) for key in ("x", "y", "radiusX", "radiusY"))
        box = (x - radius_x, y - radius_y, x + radius_x, y + radius_y)
        return _shares(box), classes[0], True
    left, top, width, height = (_number(shape, key) for key in ("x", "y", "width", "height"))
    angle = math.radians(_number(shape, "rotation") if shape.get("rotation") else 0.0)
    if not math.isfinite(angle):
        raise MalformedLabel(f"rotation={reprlib.repr(shape['rotation'])}: expected degrees")
    if not angle:
        return _shares((left, top, left + width, top + height)), classes[0], False
    # Turned clockwise around its upper left corner, in pixels.
    size = image_size(shape.get("original_width"), shape.get("original_height")) or (1, 1)
    scale_x, scale_y = size
    corners = [
        (
            left + (x * scale_x * math.cos(angle) - y * scale_y * math.sin(angle)) / scale_x,
            top + (x * scale_x * math.sin(angle) + y * scale_y * math.cos(angle)) / scale_y,
        )
        for x, y in ((0, 0), (width, 0), (width, height), (0, height))
    ]
    return _shares(bounding_box(corners)), classes[0], True


def _shares(box: tuple[float, ...]) -> tuple[float, ...]:
    """Left, top, right, bottom in per cent → centre, width and height as shares."""
    left, top, right, bottom = (value / 100 for value in box)
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def _number(values: Any, key: str | int) -> float:
    try:
        number = json_number(values[key])
    except (KeyError, IndexError, TypeError):
        number = None
    if number is None:
        raise MalformedLabel(f"{key} of {reprlib.repr(values)}: expected a number")
    return number
