"""CVAT's `.xml` (CVAT for images 1.1): one file for a whole data set, an `<image>` a photo.

Boxes are in pixels. A polygon, an ellipse and a box that is turned are taken as their bounding
boxes; points, polylines and masks are left out and told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from utils.data.labels.record import Label, MalformedLabel, Problem, Record, image_size
from utils.data.labels.shapes import bounding_box, class_index, locate, polygon_problem
from utils.data.labels.xml_files import read_xml
from utils.errors import InputError
from utils.files.numbers import to_float
from utils.files.reading import read_start

SHAPES = ("box", "polygon", "ellipse")
LARGEST_FILE = 2**32  # bytes
NO_BOXES = ("points", "polyline", "mask", "cuboid", "skeleton")


def read_cvat(path: Path, names: Sequence[str], images: Sequence[Path] = ()) -> list[Record]:
    """Read the labels of all photos.

    Args:
        path: the `.xml` file.
        names: the classes in order.
        images: folders with photos, looked in before the file's own and its `images`.

    Raises:
        InputError: the file is not CVAT's, or names no photo.
    """
    root = _root(path)
    folders = [*images, path.parent / "images", path.parent]
    records = []
    for item in root.iter("image"):
        name = (item.get("name") or "").replace("\\", "/")
        if not name:
            raise InputError(f"{path}:{item.get('line')}: an image without a name")
        labels: list[Label] = []
        problems: list[Problem] = []
        for shape in item:
            line = int(shape.get("line", 0))
            where = f"{path}:{line}"
            if shape.tag in NO_BOXES:
                problems.append(
                    Problem("malformed label", where, f"{shape.tag}: expected a box or a polygon")
                )
            if shape.tag not in SHAPES:
                continue
            name_of_class = (shape.get("label") or "").strip()
            try:
                box, is_polygon = _box(shape)
                labels.append(Label(box, class_index(name_of_class, names), line))
            except MalformedLabel as error:
                problems.append(Problem(error.kind, where, str(error)))
                continue
            if is_polygon:
                problems.append(polygon_problem(where, f"{shape.tag} of {name_of_class!r}"))
        size = image_size(item.get("width"), item.get("height"))
        photo = locate([name, Path(name).name], folders)
        records.append(Record.of(photo, path, labels, problems, stated_size=size))
    if not records:
        raise InputError(f"{path}: no photos in it: expected some <image>")
    return records


def class_names(path: Path) -> list[str]:
    """The names of the classes: as the file's task lists them, else those of its shapes, sorted.

    Raises:
        InputError: the file is not CVAT's.
    """
    root = _root(path)
    listed = [label.findtext("name") or "" for label in root.findall("meta//labels/label")]
    used = {
        (shape.get("label") or "").strip()
        for item in root.iter("image")
        for shape in item
        if shape.tag in SHAPES
    }
    names = [name.strip() for name in listed if name.strip()]
    return list(dict.fromkeys(names)) or sorted(used - {""})


def is_cvat(path: Path) -> bool:
    """Whether a file begins as CVAT's do, told without reading it whole."""
    return "<annotations" in read_start(path, 4096)


def _root(path: Path) -> Element:
    root = read_xml(path, LARGEST_FILE)
    if root.tag != "annotations":
        raise InputError(f"{path}: <{root.tag}>: expected <annotations>, CVAT for images 1.1")
    return root


def _box(shape: Element) -> tuple[tuple[float, ...], bool]:
    """A shape's box, xyxy in pixels, and whether the shape is another than an upright rectangle."""
    if shape.tag == "polygon":
        points = [point.split(",") for point in (shape.get("points") or "").split(";") if point]
        if len(points) < 3 or any(len(point) != 2 for point in points):
            raise MalformedLabel("points: expected at least 3, x,y;x,y;…")
        return bounding_box([(_number(x, "points"), _number(y, "points")) for x, y in points]), True
    if shape.tag == "ellipse":
        x, y, radius_x, radius_y = (_attribute(shape, key) for key in ("cx", "cy", "rx", "ry"))
        return (x - radius_x, y - radius_y, x + radius_x, y + radius_y), True
    left, top, right, bottom = (_attribute(shape, key) for key in ("xtl", "ytl", "xbr", "ybr"))
    angle = math.radians(_number(shape.get("rotation") or "0", "rotation"))
    if not angle:
        return (left, top, right, bottom), False
    # Turned around its centre.
    x, y, half_width, half_height = (
        (left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2,
    )  # fmt: skip
    across = abs(half_width * math.cos(angle)) + abs(half_height * math.sin(angle))
    down = abs(half_width * math.sin(angle)) + abs(half_height * math.cos(angle))
    return (x - across, y - down, x + across, y + down), True


def _attribute(shape: Element, key: str) -> float:
    return _number(shape.get(key) or "", key)


def _number(text: str, key: str) -> float:
    try:
        return to_float(text)
    except ValueError:
        raise MalformedLabel(f"{key}={text[:40]!r}: expected a number") from None
