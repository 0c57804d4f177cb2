"""Which photos are there and what is marked on them, whatever format the labels are in?

Every source becomes a list of `Record`s. A source is

- a text file that lists photos, one a line (Darknet): labels lie beside each photo or in the
  folder `labels` next to `images` or `JPEGImages`, as YOLO `.txt`; or as VOC `.xml`, beside it or
  in `Annotations`;
- a folder of photos, with labels found in the same way (subfolders are searched);
- a VOC split, `…/ImageSets/Main/*.txt`, or a VOC root or `Annotations` folder;
- a COCO `.json`.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from utils.data_file import read_lines, resolve
from utils.errors import InputError
from utils.images import SUFFIXES, is_image

# COCO's present spelling → that of Darknet's coco.names, whose order the known weights have
DARKNET_SPELLING = {
    "airplane": "aeroplane",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}


@dataclass(frozen=True)
class Problem:
    """Something about the data that a person should know. kind: a key of `data_check.KINDS`."""

    kind: str
    where: str
    what: str


@dataclass(frozen=True)
class Record:
    """One photo and what its labels say, before anything is checked.

    image: the photo, which may be missing.
    boxes: float64 [N, 4]. xyxy in pixels; or, if `shares`, YOLO's centre x, centre y, width and
        height as shares of the photo's width and height.
    labels: int64 [N]. ignore: bool [N], VOC's `difficult` or COCO's crowd.
    area: float64 [N], pixels, COCO's own where it is given, else NaN.
    lines: int64 [N], where each label stands: a line of `label_file`, or COCO's annotation id.
    label_file: None where the photo has none.
    stated: the photo's (width, height) according to the labels, None where they do not say.
    problems: what could not be read as a label. broken: nothing of the label file could be read.
    """

    image: Path
    boxes: NDArray[np.float64]
    shares: bool
    labels: NDArray[np.int64]
    ignore: NDArray[np.bool_]
    area: NDArray[np.float64]
    lines: NDArray[np.int64]
    label_file: Path | None
    stated: tuple[int, int] | None = None
    problems: tuple[Problem, ...] = ()
    broken: bool = False

    def where(self, index: int) -> str:
        """The place of one label, as file:line."""
        coco = self.label_file is not None and self.label_file.suffix.lower() == ".json"
        return f"{self.label_file}:{' annotation ' if coco else ''}{self.lines[index]}"


@dataclass(frozen=True)
class Mark:
    """One label as it was read: box and area as in `Record`."""

    box: tuple[float, ...]
    label: int
    line: int
    ignore: bool = False
    area: float = math.nan


def read_source(
    source: Path,
    names: Sequence[str],
    images: Sequence[Path] = (),
    format: str = "auto",
    progress: bool = True,
) -> list[Record]:
    """Every photo of one source with its labels; see the module for what a source may be.

    images: folders to look in for photos that are not where the labels say.
    format: "yolo" or "voc" take only such label files, "auto" either.
    """
    if source.suffix.lower() == ".json":
        return read_coco(source, names, images)
    if source.is_dir():
        pairs = _of_folder(source, images, format)
    elif source.suffix.lower() == ".txt" or source.suffix.lower() == ".list":
        pairs = _of_split(source, images) if _is_voc_split(source) else _of_list(source, format)
    else:
        raise InputError(
            f"{source}: expected a .txt list of photos, a folder, a VOC ImageSets split or a"
            " COCO .json"
        )
    if not pairs:
        raise InputError(f"{source}: no photos in it (suffixes {', '.join(SUFFIXES)})")
    bar = tqdm(pairs, f"labels of {source.name}", delay=1, leave=False, disable=not progress)
    return [read_labels(image, label_file, names) for image, label_file in bar]


def read_labels(image: Path, label_file: Path | None, names: Sequence[str]) -> Record:
    """The record of a photo whose labels are in a YOLO `.txt` or VOC `.xml`, or that has none."""
    if label_file is None:
        return _record(image, [], None, shares=True)
    if label_file.suffix.lower() == ".xml":
        return read_voc(image, label_file, names)
    return read_yolo(image, label_file)


def read_yolo(image: Path, label_file: Path) -> Record:
    """Lines of `class centre_x centre_y width height`, the last four as shares of the photo."""
    try:
        lines = read_lines(label_file)
    except InputError as error:
        return _broken(image, label_file, str(error), shares=True)
    marks, problems = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            marks.append(_yolo_mark(line, number))
        except ValueError as error:
            problems.append(Problem("malformed label", f"{label_file}:{number}", str(error)))
    return _record(image, marks, label_file, shares=True, problems=problems)


def read_voc(image: Path, label_file: Path, names: Sequence[str]) -> Record:
    """VOC XML. Coordinates are taken as written, as the edges of the box in pixels.

    The tools that write VOC XML today (LabelImg wrote BCCD's) write edges and only keep them from
    falling under 1. The original VOC counted pixels from 1, so that its boxes begin up to one
    pixel further left than read here; no IoU of an object of useful size notices.

    A class that is not in `names` is an InputError, since no label of it could be right.
    """
    try:
        root = _parse_xml(label_file)
    except (expat.ExpatError, OSError, ValueError) as error:
        return _broken(image, label_file, f"no readable XML ({error})")
    marks, problems = [], []
    for item in root.iter("object"):
        line = int(item.get("line", 0))
        try:
            marks.append(_voc_mark(item, line, label_file, names))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            problems.append(Problem("malformed label", f"{label_file}:{line}", str(error)))
    return _record(image, marks, label_file, stated=_stated(root), problems=problems)


def read_coco(path: Path, names: Sequence[str], images: Sequence[Path] = ()) -> list[Record]:
    """COCO's `images`, `annotations` and `categories`; categories are matched to `names` by name.

    Photos are looked for in `images`, then beside the file and in a folder `images` near it.
    """
    content = _load_coco(path)
    label_of = _coco_labels(path, content["categories"], names)
    marks: dict[Any, list[Mark]] = {}
    problems: dict[Any, list[Problem]] = {}
    for photo in content["images"]:
        if not isinstance(photo, dict) or not {"id", "file_name"} <= photo.keys():
            raise InputError(f"{path}: images: {photo!r}: expected an 'id' and a 'file_name'")
        marks[photo["id"]], problems[photo["id"]] = [], []
    for count, annotation in enumerate(content["annotations"]):
        number = annotation.get("id", count)
        where = f"{path}: annotation {number}"
        if annotation.get("image_id") not in marks:
            raise InputError(f"{where}: image_id={annotation.get('image_id')}: no such image")
        try:
            mark = _coco_mark(annotation, number, where, label_of)
        except (TypeError, KeyError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            what = f"bbox={annotation.get('bbox')}: expected four numbers"
            problems[annotation["image_id"]].append(Problem("malformed label", where, what))
        else:
            marks[annotation["image_id"]].append(mark)
    folders = [*images, path.parent, path.parent / "images", path.parent.parent / "images"]
    return [
        _record(
            _locate(photo["file_name"], folders),
            marks[photo["id"]],
            path,
            stated=_size(photo.get("width"), photo.get("height")),
            problems=problems[photo["id"]],
        )
        for photo in content["images"]
    ]


def coco_ids(path: Path, names: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """The ids that a COCO JSON gives: of photos by file name, of classes by our name for them."""
    content = _load_coco(path)
    label_of = _coco_labels(path, content["categories"], names)
    images = {Path(photo["file_name"]).name: int(photo["id"]) for photo in content["images"]}
    categories = {
        names[label]: int(number) for number, label in label_of.items() if isinstance(label, int)
    }
    return images, categories


# --- which photos, and which label file belongs to each ---------------------------------------


def _of_list(source: Path, format: str) -> list[tuple[Path, Path | None]]:
    photos = [resolve(line.strip(), source.parent) for line in read_lines(source) if line.strip()]
    return [(photo, label_file_of(photo, format)) for photo in photos]


def _is_voc_split(source: Path) -> bool:
    return source.parent.parent.name == "ImageSets" or source.parent.name == "ImageSets"


def _of_split(source: Path, images: Sequence[Path]) -> list[tuple[Path, Path | None]]:
    """A VOC split: lines of `id`, or of `id 1` in the lists of one class."""
    root = next(p for p in source.parents if p.name == "ImageSets").parent
    ids = [line.split()[0] for line in read_lines(source) if line.strip()]
    xmls = [root / "Annotations" / f"{_stem(name)}.xml" for name in ids]
    folders = [*images, root / "JPEGImages", root / "images"]
    return [
        (_photo_named(_stem(name), folders), xml if xml.exists() else None)
        for name, xml in zip(ids, xmls, strict=True)
    ]


def _of_folder(folder: Path, images: Sequence[Path], format: str) -> list[tuple[Path, Path | None]]:
    if (folder / "Annotations").is_dir():  # the root of a VOC data set
        return _of_annotations(folder / "Annotations", images)
    photos = sorted(path for path in folder.rglob("*") if is_image(path))
    if not photos and any(folder.glob("*.xml")):
        return _of_annotations(folder, images)
    pairs = [(photo, label_file_of(photo, format)) for photo in photos]
    if format == "yolo":
        return pairs
    taken = {label_file for _, label_file in pairs}
    lost = sorted(path for path in folder.rglob("*.xml") if path not in taken)
    return pairs + [(xml.with_name(f"{xml.stem}.jpg"), xml) for xml in lost]  # reported as missing


def _of_annotations(folder: Path, images: Sequence[Path]) -> list[tuple[Path, Path | None]]:
    folders = [*images, folder.parent / "JPEGImages", folder.parent / "images", folder]
    return [(_photo_named(xml.stem, folders), xml) for xml in sorted(folder.glob("*.xml"))]


def label_file_of(photo: Path, format: str = "auto") -> Path | None:
    """The file with a photo's labels, or None: `labels/` before beside, `.txt` before `.xml`."""
    candidates = []
    if format != "voc":
        candidates += [*_swapped(photo, "labels", ".txt"), photo.with_suffix(".txt")]
    if format != "yolo":
        candidates += [*_swapped(photo, "Annotations", ".xml"), photo.with_suffix(".xml")]
    return next((path for path in candidates if path.is_file()), None)


def _swapped(photo: Path, folder: str, suffix: str) -> list[Path]:
    """The path with its last `images` or `JPEGImages` replaced, if it has one."""
    parts = list(photo.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] in ("images", "JPEGImages"):
            parts[index] = folder
            return [Path(*parts).with_suffix(suffix)]
    return []


def _photo_named(stem: str, folders: Iterable[Path]) -> Path:
    """The picture of that stem in the first folder that has one, else where it was expected."""
    candidates = [folder / (stem + s) for folder in folders for s in (*SUFFIXES, ".JPG", ".PNG")]
    return next((path for path in candidates if path.exists()), candidates[0])


def _locate(name: str, folders: Sequence[Path]) -> Path:
    name = name.replace("\\", "/")
    candidates = [folder / part for folder in folders for part in (name, Path(name).name)]
    return next((path for path in candidates if path.exists()), candidates[0])


def _stem(name: str) -> str:
    """An image id without a picture's suffix; other dots belong to it."""
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in SUFFIXES else name


# --- one label ----------------------------------------------------------------------------------


def _yolo_mark(line: str, number: int) -> Mark:
    words = line.split()
    if len(words) != 5:
        raise ValueError(f"{len(words)} values: expected 5, class centre_x centre_y width height")
    try:
        label, *box = (float(word) for word in words)
    except ValueError:
        raise ValueError(f"{line.strip()!r}: expected five numbers") from None
    if not label.is_integer():
        raise ValueError(f"class {words[0]}: expected an integer")
    return Mark(tuple(box), int(label), number)


def _voc_mark(item: Element, line: int, label_file: Path, names: Sequence[str]) -> Mark:
    name = (item.findtext("name") or "").strip()
    if name not in names:
        raise InputError(f"{label_file}:{line}: class {name!r}: expected one of {_listed(names)}")
    texts = [item.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
    try:
        box = tuple(float(text or "") for text in texts)
    except ValueError:
        raise ValueError(f"bndbox {texts}: expected four numbers") from None
    difficult = (item.findtext("difficult") or "0").strip().lower() in ("1", "true")
    return Mark(box, names.index(name), line, difficult)


def _coco_mark(
    annotation: dict[str, Any], number: int, where: str, label_of: dict[Any, int | str]
) -> Mark:
    label = label_of.get(annotation.get("category_id"), "?")
    if isinstance(label, str):
        raise InputError(
            f"{where}: category {annotation.get('category_id')} ({label}): not among the names"
        )
    left, top, width, height = (float(value) for value in annotation["bbox"])
    ignore = bool(annotation.get("iscrowd", 0) or annotation.get("ignore", 0))
    area = float(annotation.get("area", math.nan))
    return Mark((left, top, left + width, top + height), label, number, ignore, area)


# --- small parts ----------------------------------------------------------------------------------


def _record(
    image: Path,
    marks: Sequence[Mark],
    label_file: Path | None,
    shares: bool = False,
    stated: tuple[int, int] | None = None,
    problems: Sequence[Problem] = (),
) -> Record:
    return Record(
        image=image,
        boxes=np.array([mark.box for mark in marks], np.float64).reshape(-1, 4),
        shares=shares,
        labels=np.array([mark.label for mark in marks], np.int64),
        ignore=np.array([mark.ignore for mark in marks], np.bool_),
        area=np.array([mark.area for mark in marks], np.float64),
        lines=np.array([mark.line for mark in marks], np.int64),
        label_file=label_file,
        stated=stated,
        problems=tuple(problems),
    )


def _broken(image: Path, label_file: Path, what: str, shares: bool = False) -> Record:
    empty = _record(image, [], label_file, shares)
    problem = Problem("unreadable label file", str(label_file), what)
    return Record(**{**vars(empty), "problems": (problem,), "broken": True})


def _parse_xml(path: Path) -> Element:
    """The root of an XML file, with an attribute `line` on every element."""
    builder = TreeBuilder()
    parser = expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag, {**attributes, "line": str(parser.CurrentLineNumber)})

    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.Parse(path.read_bytes(), True)
    return builder.close()


def _stated(root: Element) -> tuple[int, int] | None:
    return _size(root.findtext("size/width"), root.findtext("size/height"))


def _size(width: Any, height: Any) -> tuple[int, int] | None:
    """A (width, height) as labels state it; several tools leave it out or write 0."""
    try:
        size = int(float(width)), int(float(height))
    except (TypeError, ValueError, OverflowError):
        return None
    return size if min(size) > 0 else None


def _load_coco(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no readable JSON ({error})") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f"{path}: no list {key!r}: expected COCO's ground truth format")
    return content


def _coco_labels(
    path: Path, categories: list[dict[str, Any]], names: Sequence[str]
) -> dict[Any, int | str]:
    """Category id → index into `names`, or the category's name where it is not among them."""
    labels: dict[Any, int | str] = {}
    for category in categories:
        if not isinstance(category, dict) or not {"id", "name"} <= category.keys():
            raise InputError(f"{path}: categories: {category!r}: expected an 'id' and a 'name'")
        name = str(category["name"])
        name = name if name in names else DARKNET_SPELLING.get(name, name)
        labels[category["id"]] = names.index(name) if name in names else name
    return labels


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 25 else ", ".join(names[:25]) + ", …"
