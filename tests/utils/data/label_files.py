"""One small data set, written in every label format and layout."""

import json
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

NAMES = ("cat", "dog", "motorbike")
SIZE = (80, 40)
# per photo: (class, xyxy)
TRUTH = {
    "a.b": [(0, (8, 4, 40, 20)), (2, (0, 0, 80, 40))],
    "c": [(1, (70, 30, 75, 36))],
    "empty": [],
}


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.new("RGB", SIZE, (9, 90, 200)).save(path)


def yolo_text(objects: list[Any]) -> str:
    width, height = SIZE
    return "".join(
        f"{c} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height}"
        f" {(x2 - x1) / width} {(y2 - y1) / height}\n"
        for c, (x1, y1, x2, y2) in objects
    )


def voc_text(objects: list[Any], extra: str = "") -> str:
    inside = "".join(
        f"\n<object><name> {NAMES[c]} </name>{extra}<bndbox>"
        f"<xmin>{b[0]}.0</xmin><ymin>{b[1]}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}</ymax>"
        "</bndbox></object>"
        for c, b in objects
    )
    return f"<annotation><size><width>80</width><height>40</height></size>{inside}</annotation>"


def coco_text(names: tuple[str, ...] = ("cat", "dog", "motorcycle")) -> str:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (stem, objects) in enumerate(TRUTH.items()):
        images.append({"id": number + 7, "file_name": f"{stem}.png", "width": 80, "height": 40})
        for c, (x1, y1, x2, y2) in objects:
            annotations.append(
                {
                    "id": len(annotations) + 100,
                    "image_id": number + 7,
                    "category_id": 3 * c + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": 5.5,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 3 * c + 1, "name": name} for c, name in enumerate(names)]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def yolo_beside(root: Path) -> Path:
    for stem, objects in TRUTH.items():
        photo(root / f"{stem}.png")
        put(root / f"{stem}.txt", yolo_text(objects))
    return root


def yolo_list(root: Path) -> Path:
    for stem, objects in TRUTH.items():
        photo(root / "images/train" / f"{stem}.png")
        put(root / "labels/train" / f"{stem}.txt", yolo_text(objects))
    return put(root / "list.txt", "".join(f"images/train/{stem}.png\r\n" for stem in TRUTH))


def voc_beside(root: Path) -> Path:
    for stem, objects in TRUTH.items():
        photo(root / f"{stem}.png")
        put(root / f"{stem}.xml", voc_text(objects, "<difficult>0</difficult>"))
    return root


def voc_root(root: Path) -> Path:
    for stem, objects in TRUTH.items():
        photo(root / "JPEGImages" / f"{stem}.png")
        put(root / "Annotations" / f"{stem}.xml", voc_text(objects))
    return root


def voc_annotations(root: Path) -> Path:
    return voc_root(root) / "Annotations"


def voc_split(root: Path) -> Path:
    return put(voc_root(root) / "ImageSets/Main/train.txt", "".join(f"{s}  1\n" for s in TRUTH))


def coco(root: Path) -> Path:
    for stem in TRUTH:
        photo(root / "photos" / f"{stem}.png")
    return put(root / "annotations" / "train.json", coco_text())


LAYOUTS = [
    yolo_beside,
    yolo_list,
    voc_beside,
    voc_root,
    voc_annotations,
    voc_split,
    coco,
]


def coco_with(folder: Path, part: str, index: int, key: str, value: object) -> Path:
    """COCO's file with one entry changed: the whole of it, or its `key`, to `value`."""
    content = json.loads(coco_text())
    if key:
        content[part][index][key] = value
    else:
        content[part][index] = value
    return put(folder / "a.json", json.dumps(content))
