"""Which ids stand for photos and classes in COCO's JSON, and a data set written that way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from utils.data.photos import Photo


@dataclass(frozen=True)
class CocoIds:
    """The ids in COCO's JSON: `images` has one for each photo, `categories` one for each class."""

    images: tuple[int, ...]
    categories: tuple[int, ...]


def ids_of(photos: Sequence[Photo], classes: int) -> CocoIds:
    """The ids that the photos' own COCO files give; else 1, 2, 3, ... for photos and classes.

    The files' ids are taken only where every photo has one, no two have the same, and all the
    files give the classes the same ids. Otherwise none is, so that the files
    that are written never agree with one of another numbering by half.
    """
    images = tuple(photo.image_id for photo in photos if photo.image_id is not None)
    categories = {photo.category_ids for photo in photos}
    if len(set(images)) == len(photos) and len(categories) == 1:
        (own,) = categories
        if own is not None:
            return CocoIds(images, own)
    return CocoIds(tuple(range(1, len(photos) + 1)), tuple(range(1, classes + 1)))


def ground_truth(photos: Sequence[Photo], names: Sequence[str], ids: CocoIds) -> dict[str, Any]:
    """Photos and objects as COCO's evaluators read them: boxes as left, top, width, height."""
    annotations = [
        {
            "image_id": image_id,
            "category_id": ids.categories[label],
            "bbox": [left, top, right - left, bottom - top],
            "area": area,
            "iscrowd": int(ignore),
        }
        for image_id, photo in zip(ids.images, photos, strict=True)
        for (left, top, right, bottom), label, ignore, area in zip(
            photo.boxes.tolist(),
            photo.labels.tolist(),
            photo.ignore.tolist(),
            photo.area.tolist(),
            strict=True,
        )
    ]
    return {
        "images": [
            {"id": i, "file_name": photo.path.name, "width": photo.size[0], "height": photo.size[1]}
            for i, photo in zip(ids.images, photos, strict=True)
        ],
        "categories": [
            {"id": i, "name": name} for i, name in zip(ids.categories, names, strict=True)
        ],
        "annotations": [{"id": n, **entry} for n, entry in enumerate(annotations, start=1)],
    }


def dumps(content: Any) -> str:
    """Compact JSON, a line a record where it is a list of records."""
    if not isinstance(content, list):
        return json.dumps(content) + "\n"
    return "[\n" + ",\n".join(json.dumps(entry) for entry in content) + "\n]\n"
