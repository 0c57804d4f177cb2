"""COCO's `.json`: one file for a whole data set, with `images`, `annotations` and `categories`."""

import json
import math
import reprlib
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from utils.console.progress import Wait
from utils.data.labels.record import (
    Label,
    MalformedLabel,
    Problem,
    Record,
    UnknownClass,
    image_size,
    some_names,
)
from utils.data.labels.shapes import bounding_box, json_number, locate, polygon_problem
from utils.errors import InputError
from utils.files.reading import read_text

# COCO's present spelling → that of Darknet's coco.names, whose order the known weights have
DARKNET_SPELLING = {
    "airplane": "aeroplane",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}
LARGEST_FILE = 2**34  # bytes
LARGEST_AREA = 1e18  # pixels; it still fits into a float32
PLACE = "{file}: annotations[{line}]"  # ids are no help, they need be neither there nor unique

Id = int | str  # what COCO's entries are linked by


def read_coco(
    path: Path, names: Sequence[str], images: Sequence[Path] = (), content: Any = None
) -> list[Record]:
    """Read the labels of all photos.

    An annotation without `bbox` is taken as the bounding box of its polygons.

    Args:
        path: the `.json` file.
        names: the classes, to which the categories are matched by name.
        images: folders with photos; they are looked for there first, then beside the file and in a
            folder `images` near it.
        content: the file's JSON, where that has been read.

    Raises:
        InputError: the file is not COCO's ground truth, or a photo's or category's entry is wrong.
    """
    content = load_json(path) if content is None else content
    _expect_coco(path, content)
    photos = _photos(path, content["images"])
    class_of = _classes(path, content["categories"], names)
    category_ids = _category_ids(class_of, len(names))
    labels: dict[Id, list[Label]] = {number: [] for number in photos}
    problems: dict[Id, list[Problem]] = {number: [] for number in photos}
    told: list[Record] = []
    for index, annotation in enumerate(content["annotations"]):
        where = PLACE.format(file=path, line=index)
        photo = None
        try:
            photo = _photo_of(annotation, photos)
            if annotation.get("bbox") is None:
                annotation = {**annotation, "bbox": _bbox_of_polygons(annotation)}
                problems[photo].append(polygon_problem(where, "segmentation without bbox"))
            labels[photo].append(_label(annotation, index, _class_of(annotation, class_of, names)))
        except MalformedLabel as error:
            problem = Problem(error.kind, where, str(error))
            if photo is None:
                told.append(Record.told(problem))
            else:
                problems[photo].append(problem)
    if any(isinstance(each, dict) and "score" in each for each in content["annotations"]):
        told.append(Record.told(Problem("scores", str(path), "a score in annotations")))
    folders = [*images, path.parent, path.parent / "images", path.parent.parent / "images"]
    return [
        replace(
            Record.of(
                locate(_names_of(entry["file_name"]), folders),
                path,
                labels[number],
                problems[number],
                stated_size=image_size(entry.get("width"), entry.get("height")),
            ),
            place=PLACE,
            image_id=number if isinstance(number, int) else None,
            category_ids=category_ids,
        )
        for number, entry in photos.items()
    ] + told


def _label(annotation: dict[str, Any], index: int, class_index: int) -> Label:
    bbox, area = annotation.get("bbox"), annotation.get("area")
    numbers = [json_number(value) for value in bbox] if isinstance(bbox, list) else []
    if len(numbers) != 4 or None in numbers:
        raise MalformedLabel(f"bbox={reprlib.repr(bbox)}: expected four numbers")
    left, top, width, height = (number for number in numbers if number is not None)
    own_area = math.nan if area is None else json_number(area)
    if own_area is None or own_area < 0 or own_area > LARGEST_AREA:
        raise MalformedLabel(f"area={reprlib.repr(area)}: expected a number of pixels")
    for key in ("iscrowd", "ignore"):
        if annotation.get(key) not in (0, 1, None):
            raise MalformedLabel(f"{key}={reprlib.repr(annotation[key])}: expected 0 or 1")
    ignore = bool(annotation.get("iscrowd") or annotation.get("ignore"))
    return Label((left, top, left + width, top + height), class_index, index, ignore, own_area)


def _photo_of(annotation: Any, photos: dict[Id, dict[str, Any]]) -> Id:
    """The id of an annotation's photo."""
    if not isinstance(annotation, dict):
        raise MalformedLabel(f"{reprlib.repr(annotation)}: expected an object")
    photo = _id(annotation.get("image_id"))
    if photo is None or photo not in photos:
        raise MalformedLabel(f"image_id={reprlib.repr(annotation.get('image_id'))}: no such image")
    return photo


def _class_of(
    annotation: dict[str, Any], class_of: dict[Id, int | str], names: Sequence[str]
) -> int:
    """The class of an annotation."""
    category = _id(annotation.get("category_id"))
    if category is None or category not in class_of:
        given = reprlib.repr(annotation.get("category_id"))
        raise UnknownClass(f"category_id={given}: no such category")
    class_index = class_of[category]
    if isinstance(class_index, str):
        given = f"category_id={reprlib.repr(category)} ({reprlib.repr(class_index)})"
        raise UnknownClass(f"{given}: expected one of {some_names(names)}")
    return class_index


def _names_of(file_name: str) -> list[str]:
    """What a photo may be called: by its path, then by its bare name."""
    name = file_name.replace("\\", "/")
    return [name, Path(name).name]


def _bbox_of_polygons(annotation: dict[str, Any]) -> list[float]:
    """Left, top, width and height around the polygons of an annotation."""
    polygons = annotation.get("segmentation")
    values = [
        json_number(value)
        for polygon in (polygons if isinstance(polygons, list) else [])
        for value in (polygon if isinstance(polygon, list) and len(polygon) % 2 == 0 else [None])
    ]
    if len(values) < 6 or None in values:
        raise MalformedLabel("no bbox, and no polygons in segmentation")
    numbers = [value for value in values if value is not None]
    left, top, right, bottom = bounding_box(list(zip(numbers[::2], numbers[1::2], strict=True)))
    return [left, top, right - left, bottom - top]


def load_json(path: Path) -> Any:
    """The JSON of a data set's file, without outlines of objects that have a box.

    Of COCO's 118,000 photos they would take most of the memory.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with Wait(f"reading {path.name}"):
            return json.loads(read_text(path, LARGEST_FILE), object_hook=_without_outline)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no readable JSON ({error})") from error


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    if entry.get("bbox") is not None:
        entry.pop("segmentation", None)
    return entry


def class_names(path: Path, content: Any) -> tuple[list[str], list[str]]:
    """The names of the categories that annotations have, in the order of their ids; the others'.

    Raises:
        InputError: the file is not COCO's ground truth.
    """
    _expect_coco(path, content)
    used = {
        _id(annotation.get("category_id"))
        for annotation in content["annotations"]
        if isinstance(annotation, dict)
    }
    categories = _classes(path, content["categories"], ())
    numbers = sorted(categories, key=lambda number: (isinstance(number, str), number))
    names = {number: str(categories[number]) for number in numbers}
    return (
        list(dict.fromkeys(names[number] for number in numbers if number in used)),
        [names[number] for number in numbers if number not in used],
    )


def _expect_coco(path: Path, content: Any) -> None:
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f"{path}: no list {key!r}: expected COCO's ground truth format")


def _photos(path: Path, images: list[Any]) -> dict[Id, dict[str, Any]]:
    """Photo id → its entry, in the file's order; each entry has an id and a file_name."""
    photos: dict[Id, dict[str, Any]] = {}
    for index, entry in enumerate(images):
        number = _entry_id(entry, photos, f"{path}: images[{index}]", "file_name", str)
        photos[number] = entry
    if not photos:
        raise InputError(f"{path}: no photos in it: expected some in the list 'images'")
    return photos


def _classes(path: Path, categories: list[Any], names: Sequence[str]) -> dict[Id, int | str]:
    """Category id → index into `names`, or the category's name where it is not among them."""
    classes: dict[Id, int | str] = {}
    for index, entry in enumerate(categories):
        number = _entry_id(entry, classes, f"{path}: categories[{index}]", "name", (str, int))
        name = str(entry["name"])
        name = name if name in names else DARKNET_SPELLING.get(name, name)
        classes[number] = names.index(name) if name in names else name
    return classes


def _category_ids(class_of: dict[Id, int | str], classes: int) -> tuple[int, ...] | None:
    """The one integer id of each class, None where that is not so."""
    ids_of: list[list[Id]] = [[] for _ in range(classes)]
    for number, class_index in class_of.items():
        if isinstance(class_index, int):
            ids_of[class_index].append(number)
    ids = tuple(own[0] for own in ids_of if len(own) == 1 and isinstance(own[0], int))
    return ids if len(ids) == classes else None


def _entry_id(
    entry: Any,
    seen: Container[Id],
    where: str,
    name: str,
    kinds: type | tuple[type, ...],
) -> Id:
    """The id of an entry of `images` or `categories` that is not in `seen` and has a `name`."""
    if not isinstance(entry, dict):
        raise InputError(f"{where}: {reprlib.repr(entry)}: expected an object")
    number = _id(entry.get("id"))
    if number is None:
        given = reprlib.repr(entry.get("id"))
        raise InputError(f"{where}: id={given}: expected an integer of 64 bits or a text")
    if number in seen:
        raise InputError(f"{where}: id={reprlib.repr(number)}: an earlier entry has it already")
    if not isinstance(entry.get(name), kinds):
        raise InputError(f"{where}: {name}={reprlib.repr(entry.get(name))}: expected a text")
    return number


def _id(value: Any) -> Id | None:
    """What COCO's entries are linked by, None for what cannot be. Some tools write "7" or 7.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 2**63 else None  # evaluators hold ids in 64 bits
    return value if isinstance(value, str) else None
