"""A `.json` for a whole data set: COCO's or Label Studio's, told apart by what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from utils.data.labels.coco import class_names as coco_names
from utils.data.labels.coco import load_json, read_coco
from utils.data.labels.label_studio import class_names as label_studio_names
from utils.data.labels.label_studio import is_label_studio, read_label_studio
from utils.data.labels.record import Record
from utils.files.reading import read_start


def read_json(path: Path, names: Sequence[str], images: Sequence[Path] = ()) -> list[Record]:
    """Read the labels of all photos.

    Args:
        path: the file.
        names: the classes in order.
        images: folders with photos, looked in first.

    Raises:
        InputError: it is neither COCO's nor Label Studio's, or an entry of a photo is wrong.
    """
    content = load_json(path)
    if is_label_studio(content):
        return read_label_studio(path, content, names, images)
    return read_coco(path, names, images, content)


def class_names(path: Path) -> tuple[list[str], list[str]]:
    """The classes that labels are of, and those that a list in the file has beside them.

    Raises:
        InputError: it is neither COCO's nor Label Studio's.
    """
    content = load_json(path)
    if is_label_studio(content):
        return sorted(label_studio_names(content)), []
    return coco_names(path, content)


def is_data_set(path: Path) -> bool:
    """Whether a `.json` is that of a whole data set, and not labelme's of one photo.

    Told by its first keys, without reading it whole.
    """
    start = read_start(path).lstrip()
    if start.startswith("["):
        return "{" in start
    keys = ('"images"', '"annotations"')
    return start.startswith("{") and '"shapes"' not in start and any(key in start for key in keys)
