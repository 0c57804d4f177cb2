"""The same photos and boxes as different labelling tools hand them over."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

SIZE = (40, 20)
NAMES = ("cat", "dog")
# Photo → (class, left, top, right, bottom) in pixels.
OBJECTS: dict[str, list[tuple[int, int, int, int, int]]] = {
    f"p{n}": [(n % 2, 4, 2, 12, 12), (1, 20, 4, 36 - n, 18)] for n in range(10)
}


def photos(folder: Path, names: Iterable[str] = OBJECTS, suffix: str = ".jpg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", SIZE, (90, 120, 150)).save(folder / f"{name}{suffix}")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def yolo_line(item: tuple[int, int, int, int, int]) -> str:
    label, left, top, right, bottom = item
    width, height = SIZE
    return (
        f"{label} {(left + right) / 2 / width:.6f} {(top + bottom) / 2 / height:.6f} "
        f"{(right - left) / width:.6f} {(bottom - top) / height:.6f}"
    )


def seg_line(item: tuple[int, int, int, int, int]) -> str:
    label, left, top, right, bottom = item
    width, height = SIZE
    corners = [
        (left, top),
        (right, top),
        (right, bottom),
        ((left + right) / 2, bottom),
        (left, bottom),
    ]
    return f"{label} " + " ".join(f"{x / width:.6f} {y / height:.6f}" for x, y in corners)


def yolo_labels(
    folder: Path, names: Iterable[str] = OBJECTS, line: Callable[..., str] = yolo_line
) -> None:
    for name in names:
        write(folder / f"{name}.txt", "".join(f"{line(item)}\n" for item in OBJECTS[name]))


def voc_xml(name: str) -> str:
    objects = "".join(
        f"<object><name>{NAMES[c]}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{r}</xmax>"
        f"<ymax>{b}</ymax></bndbox></object>"
        for c, x, y, r, b in OBJECTS[name]
    )
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
    return f"<annotation><filename>{name}.jpg</filename>{size}{objects}</annotation>"


def coco(names: Iterable[str] = OBJECTS, prefix: str = "", polygons: bool = False) -> str:
    numbers = {name: index for index, name in enumerate(names)}
    annotations: list[dict[str, object]] = []
    for name, index in numbers.items():
        for c, x, y, r, b in OBJECTS[name]:
            entry: dict[str, object] = {"image_id": index, "category_id": c + 1}
            if polygons:
                entry["segmentation"] = [[x, y, r, y, r, b, x, b]]
            else:
                entry["bbox"] = [x, y, r - x, b - y]
            annotations.append({**entry, "id": len(annotations)})
    size = {"width": SIZE[0], "height": SIZE[1]}
    images = [{"id": i, "file_name": f"{prefix}{n}.jpg", **size} for n, i in numbers.items()]
    categories = [{"id": i, "name": name} for i, name in enumerate(("animals", *NAMES))]
    return json.dumps({"images": images, "categories": categories, "annotations": annotations})


def labelme(name: str) -> str:
    shapes = [
        {"label": NAMES[c], "points": [[r, b], [x, y]], "shape_type": "rectangle"}
        if c
        else {"label": NAMES[c], "points": [[x, y], [r, y], [r, b]], "shape_type": "polygon"}
        for c, x, y, r, b in OBJECTS[name]
    ]
    return json.dumps(
        {
            "version": "5.5.0", "shapes": shapes, "imagePath": f"{name}.jpg", "imageData": None,
            "imageWidth": SIZE[0], "imageHeight": SIZE[1],
        }
    )  # fmt: skip


def label_studio(minimal: bool = False) -> str:
    tasks = []
    for number, (name, items) in enumerate(OBJECTS.items()):
        values = [
            {
                "x": 100 * x / SIZE[0], "y": 100 * y / SIZE[1], "width": 100 * (r - x) / SIZE[0],
                "height": 100 * (b - y) / SIZE[1], "rotation": 0, "rectanglelabels": [NAMES[c]],
            }
            for c, x, y, r, b in items
        ]  # fmt: skip
        size = {"original_width": SIZE[0], "original_height": SIZE[1]}
        url = f"/data/upload/1/1a2b3c4d-{name}.jpg"
        if minimal:
            tasks.append({"image": url, "id": number, "label": [value | size for value in values]})
        else:
            result = [{**size, "type": "rectanglelabels", "value": value} for value in values]
            annotations = [{"id": 1, "was_cancelled": False, "result": result}]
            tasks.append({"id": number, "data": {"image": url}, "annotations": annotations})
    return json.dumps(tasks)


def cvat() -> str:
    labels = "".join(f"<label><name>{name}</name></label>" for name in NAMES)
    images = ""
    for number, (name, items) in enumerate(OBJECTS.items()):
        boxes = "".join(
            f'<box label="{NAMES[c]}" occluded="0" xtl="{x}" ytl="{y}" xbr="{r}" ybr="{b}"/>'
            if c
            else f'<polygon label="{NAMES[c]}" points="{x},{y};{r},{y};{r},{b};{x},{b}"/>'
            for c, x, y, r, b in items
        )
        size = f'width="{SIZE[0]}" height="{SIZE[1]}"'
        images += f'<image id="{number}" name="{name}.jpg" {size}>{boxes}</image>'
    meta = f"<meta><job><labels>{labels}</labels></job></meta>"
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    return f"{head}<annotations><version>1.1</version>{meta}{images}</annotations>"


TRAIN, VALID = list(OBJECTS)[:7], list(OBJECTS)[7:]
YAML_NAMES = "nc: 2\nnames: ['cat', 'dog']\n"


def roboflow(root: Path) -> Path:
    for split, names in (("train", TRAIN), ("valid", VALID)):
        photos(root / split / "images", names)
        yolo_labels(root / split / "labels", names)
    write(root / "README.roboflow.txt", "An export.\n")
    write(root / "data.yaml", f"train: ../train/images\nval: ../valid/images\n{YAML_NAMES}")
    return root / "data.yaml"


def ultralytics(root: Path) -> Path:
    for split, names in (("train", TRAIN), ("val", VALID)):
        photos(root / "images" / split, names)
        yolo_labels(root / "labels" / split, names, seg_line)
    text = (
        "path: ../datasets/pets\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n"
    )
    write(root / "pets.yaml", text)
    return root / "pets.yaml"


def yolo_folder(root: Path) -> Path:
    photos(root / "images")
    yolo_labels(root / "labels")
    write(root / "classes.txt", "cat\ndog\n")
    write(root / "notes.json", json.dumps({"categories": [], "info": {}}))
    return root


def yolo_beside(root: Path) -> Path:
    photos(root, suffix=".JPG")
    yolo_labels(root)
    write(root / "classes.txt", "cat\r\ndog\r\n")
    return root


def labelimg_voc(root: Path) -> Path:
    photos(root / "Images")
    for name in OBJECTS:
        write(root / "annotations" / f"{name}.xml", voc_xml(name))
    return root


def voc_beside(root: Path) -> Path:
    photos(root)
    for name in OBJECTS:
        write(root / f"{name}.xml", voc_xml(name))
    return root


def voc_root(root: Path) -> Path:
    photos(root / "JPEGImages")
    for name in OBJECTS:
        write(root / "Annotations" / f"{name}.xml", voc_xml(name))
    write(root / "ImageSets/Main/train.txt", "\n".join(TRAIN))
    write(root / "ImageSets/Main/val.txt", "\n".join(VALID))
    return root


def coco_roboflow(root: Path) -> Path:
    for split, names in (("train", TRAIN), ("valid", VALID)):
        photos(root / split, names)
        write(root / split / "_annotations.coco.json", coco(names))
    return root


def coco_official(root: Path) -> Path:
    for split, names in (("train2017", TRAIN), ("val2017", VALID)):
        photos(root / split, names)
        write(root / "annotations" / f"instances_{split}.json", coco(names))
    return root


def coco_file(root: Path) -> Path:
    photos(root / "images")
    write(root / "result.json", coco(prefix="images/", polygons=True))
    return root / "result.json"


def labelme_folder(root: Path) -> Path:
    photos(root)
    for name in OBJECTS:
        write(root / f"{name}.json", labelme(name))
    return root


def label_studio_file(root: Path) -> Path:
    photos(root / "images")
    write(root / "export.json", label_studio())
    return root / "export.json"


def label_studio_min(root: Path) -> Path:
    photos(root, [f"1a2b3c4d-{name}" for name in OBJECTS])
    write(root / "export.json", label_studio(minimal=True))
    return root


def cvat_folder(root: Path) -> Path:
    photos(root / "images")
    write(root / "annotations.xml", cvat())
    return root


def cvat_yolo(root: Path) -> Path:
    photos(root / "obj_train_data")
    yolo_labels(root / "obj_train_data")
    write(root / "obj.names", "cat\ndog\n")
    listed = "\n".join(f"data/obj_train_data/{name}.jpg" for name in OBJECTS)
    write(root / "train.txt", listed)
    text = "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    write(root / "obj.data", f"{text}valid = 30%\n")
    return root


def darknet(root: Path) -> Path:
    """Paths as from the folder where darknet runs, which is the one above."""
    photos(root / "data/obj")
    yolo_labels(root / "data/obj")
    write(root / "data/obj.names", "cat\ndog\n")
    for split, names in (("train", TRAIN), ("valid", VALID)):
        write(root / f"data/{split}.txt", "\n".join(f"data/obj/{name}.jpg" for name in names))
    write(
        root / "data/obj.data",
        "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n",
    )
    return root / "data/obj.data"


EXPORTS: list[Callable[[Path], Path]] = [
    roboflow, ultralytics, yolo_folder, yolo_beside, labelimg_voc, voc_beside, voc_root,
    coco_roboflow, coco_official, coco_file, labelme_folder, label_studio_file, label_studio_min,
    cvat_folder, cvat_yolo, darknet,
]  # fmt: skip
