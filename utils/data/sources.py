"""Which photos are there and what is marked on them, whatever format the labels are in?

Every source becomes a list of `Record`s. A source is

- a text file that lists photos, one a line (Darknet), where a line that begins with `#` is a
  comment and a photo of such a name is written `./#1.jpg`: labels lie beside each photo or in the
  folder `labels` next to `images` or `JPEGImages`, as YOLO `.txt`; or as VOC `.xml`, beside it or
  in `Annotations`;
- a folder of photos, with labels found in the same way (subfolders are searched);
- a VOC split, `…/ImageSets/Main/*.txt`, or a VOC root or `Annotations` folder;
- a COCO `.json`.
"""

import json
import math
import reprlib
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from utils.data.definition import resolve
from utils.errors import InputError
from utils.files import exists, is_file, read_lines
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

LARGEST_CLASS = 10**9  # what is larger is a mistake, and might not fit into an int64
LARGEST_AREA = 1e18  # pixels; it still fits into a float32


class Malformed(Exception):
    """A label cannot be read; the message says why."""


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
    lines: int64 [N], where each label stands: a line of `label_file`, or for COCO an index into
        its `annotations`.
    label_file: None where the photo has none.
    stated: the photo's (width, height) according to the labels, None where they do not say.
    problems: what could not be read as a label. broken: nothing of the label file could be read.
    image_id: the id that COCO's file gives the photo, None where that is no integer.
    category_ids: the ids that COCO's file gives the classes, None unless each has just one, which
        is an integer.
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
    image_id: int | None = None
    category_ids: tuple[int, ...] | None = None

    def where(self, index: int) -> str:
        """The place of one label, as file:line."""
        if self.label_file is not None and self.label_file.suffix.lower() == ".json":
            return _annotation(self.label_file, int(self.lines[index]))
        return f"{self.label_file}:{self.lines[index]}"


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
        return _broken(image, label_file, str(error).removeprefix(f"{label_file}: "), shares=True)
    marks, problems = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            marks.append(_yolo_mark(line, number))
        except Malformed as error:
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
    except (expat.ExpatError, OSError, ValueError, LookupError) as error:  # the last: encoding="?"
        return _broken(image, label_file, f"no readable XML ({error})")
    marks, problems = [], []
    for item in root.iter("object"):
        line = int(item.get("line", 0))
        try:
            marks.append(_voc_mark(item, line, label_file, names))
        except Malformed as error:
            problems.append(Problem("malformed label", f"{label_file}:{line}", str(error)))
    return _record(image, marks, label_file, stated=_stated(root), problems=problems)


def read_coco(path: Path, names: Sequence[str], images: Sequence[Path] = ()) -> list[Record]:
    """COCO's `images`, `annotations` and `categories`; categories are matched to `names` by name.

    Photos are looked for in `images`, then beside the file and in a folder `images` near it.
    """
    content = _load_coco(path)
    photos = _coco_photos(path, content["images"])
    label_of = _coco_labels(path, content["categories"], names)
    category_ids = _category_ids(label_of, len(names))
    marks: dict[int | str, list[Mark]] = {number: [] for number in photos}
    problems: dict[int | str, list[Problem]] = {number: [] for number in photos}
    for index, annotation in enumerate(content["annotations"]):
        where = _annotation(path, index)
        photo, label = _coco_links(annotation, where, photos, label_of)
        try:
            marks[photo].append(_coco_mark(annotation, index, label))
        except Malformed as error:
            problems[photo].append(Problem("malformed label", where, str(error)))
    folders = [*images, path.parent, path.parent / "images", path.parent.parent / "images"]
    return [
        _record(
            _locate(entry["file_name"], folders),
            marks[number],
            path,
            stated=_size(entry.get("width"), entry.get("height")),
            problems=problems[number],
            image_id=number if isinstance(number, int) else None,
            category_ids=category_ids,
        )
        for number, entry in photos.items()
    ]


# --- which photos, and which label file belongs to each ---------------------------------------


def _of_list(source: Path, format: str) -> list[tuple[Path, Path | None]]:
    photos = [resolve(line, source.parent) for line in _entries(source)]
    return [(photo, label_file_of(photo, format)) for photo in photos]


def _entries(source: Path) -> list[str]:
    """The lines of a list that are neither empty nor a comment."""
    lines = (line.strip() for line in read_lines(source))
    return [line for line in lines if line and not line.startswith("#")]


def _is_voc_split(source: Path) -> bool:
    return source.parent.parent.name == "ImageSets" or source.parent.name == "ImageSets"


def _of_split(source: Path, images: Sequence[Path]) -> list[tuple[Path, Path | None]]:
    """A VOC split: lines of `id`, or of `id 1` in the lists of one class."""
    root = next(p for p in source.parents if p.name == "ImageSets").parent
    ids = [line.split()[0] for line in _entries(source)]
    xmls = [root / "Annotations" / f"{_stem(name)}.xml" for name in ids]
    folders = [*images, root / "JPEGImages", root / "images"]
    return [
        (_photo_named(_stem(name), folders), xml if exists(xml) else None)
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
    return next((path for path in candidates if is_file(path)), None)


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
    return next((path for path in candidates if exists(path)), candidates[0])


def _locate(name: str, folders: Sequence[Path]) -> Path:
    """COCO's photo in one of the folders: by its path in all of them, then by its bare name."""
    name = name.replace("\\", "/")
    candidates = [folder / part for part in (name, Path(name).name) for folder in folders]
    return next((path for path in candidates if exists(path)), candidates[0])


def _stem(name: str) -> str:
    """An image id without a picture's suffix; other dots belong to it."""
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in SUFFIXES else name


# --- one label ----------------------------------------------------------------------------------


def _yolo_mark(line: str, number: int) -> Mark:
    words = line.split()
    if len(words) != 5:
        raise Malformed(f"{len(words)} values: expected 5, class centre_x centre_y width height")
    try:
        label, *box = (float(word) for word in words)
    except ValueError:
        raise Malformed(f"{reprlib.repr(line.strip())}: expected five numbers") from None
    if not label.is_integer() or abs(label) > LARGEST_CLASS:
        raise Malformed(f"class {words[0]}: expected an integer below {LARGEST_CLASS}")
    return Mark(tuple(box), int(label), number)


def _voc_mark(item: Element, line: int, label_file: Path, names: Sequence[str]) -> Mark:
    name = (item.findtext("name") or "").strip()
    if name not in names:
        raise InputError(f"{label_file}:{line}: class {name!r}: expected one of {_listed(names)}")
    texts = [item.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
    try:
        box = tuple(float(text or "") for text in texts)
    except ValueError:
        raise Malformed(f"bndbox {texts}: expected four numbers") from None
    difficult = (item.findtext("difficult") or "0").strip().lower() in ("1", "true")
    return Mark(box, names.index(name), line, difficult)


def _coco_mark(annotation: dict[str, Any], index: int, label: int) -> Mark:
    bbox, area = annotation.get("bbox"), annotation.get("area")
    numbers = [_number(value) for value in bbox] if isinstance(bbox, list) else []
    if len(numbers) != 4 or None in numbers:
        raise Malformed(f"bbox={reprlib.repr(bbox)}: expected four numbers")
    left, top, width, height = (number for number in numbers if number is not None)
    own_area = math.nan if area is None else _number(area)
    if own_area is None or own_area < 0 or own_area > LARGEST_AREA:
        raise Malformed(f"area={reprlib.repr(area)}: expected a number of pixels")
    for key in ("iscrowd", "ignore"):
        if annotation.get(key) not in (0, 1, None):
            raise Malformed(f"{key}={reprlib.repr(annotation[key])}: expected 0 or 1")
    ignore = bool(annotation.get("iscrowd") or annotation.get("ignore"))
    return Mark((left, top, left + width, top + height), label, index, ignore, own_area)


def _coco_links(
    annotation: Any,
    where: str,
    photos: dict[int | str, dict[str, Any]],
    label_of: dict[int | str, int | str],
) -> tuple[int | str, int]:
    """The photo's id and the label of an annotation; an InputError where it has either not."""
    if not isinstance(annotation, dict):
        raise InputError(f"{where}: {reprlib.repr(annotation)}: expected an object")
    photo, category = _id(annotation.get("image_id")), _id(annotation.get("category_id"))
    if photo is None or photo not in photos:
        said = reprlib.repr(annotation.get("image_id"))
        raise InputError(f"{where}: image_id={said}: no such image")
    if category is None or category not in label_of:
        said = reprlib.repr(annotation.get("category_id"))
        raise InputError(f"{where}: category_id={said}: no such category")
    label = label_of[category]
    if isinstance(label, str):
        said = f"category_id={reprlib.repr(category)} ({reprlib.repr(label)})"
        raise InputError(f"{where}: {said}: not among the names")
    return photo, label


# --- small parts ----------------------------------------------------------------------------------


def _record(
    image: Path,
    marks: Sequence[Mark],
    label_file: Path | None,
    shares: bool = False,
    stated: tuple[int, int] | None = None,
    problems: Sequence[Problem] = (),
    image_id: int | None = None,
    category_ids: tuple[int, ...] | None = None,
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
        image_id=image_id,
        category_ids=category_ids,
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
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: no readable JSON ({error})") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f"{path}: no list {key!r}: expected COCO's ground truth format")
    return content


def _coco_photos(path: Path, images: list[Any]) -> dict[int | str, dict[str, Any]]:
    """Photo id → its entry, in the file's order; each entry has an id and a file_name."""
    photos: dict[int | str, dict[str, Any]] = {}
    for index, entry in enumerate(images):
        number = _entry_id(entry, photos, f"{path}: images[{index}]", "file_name", str)
        photos[number] = entry
    if not photos:
        raise InputError(f"{path}: no photos in it: expected some in the list 'images'")
    return photos


def _coco_labels(
    path: Path, categories: list[Any], names: Sequence[str]
) -> dict[int | str, int | str]:
    """Category id → index into `names`, or the category's name where it is not among them."""
    labels: dict[int | str, int | str] = {}
    for index, entry in enumerate(categories):
        number = _entry_id(entry, labels, f"{path}: categories[{index}]", "name", (str, int))
        name = str(entry["name"])
        name = name if name in names else DARKNET_SPELLING.get(name, name)
        labels[number] = names.index(name) if name in names else name
    return labels


def _category_ids(label_of: dict[int | str, int | str], classes: int) -> tuple[int, ...] | None:
    """The one integer id of each class, None where that is not so."""
    of_class: list[list[int | str]] = [[] for _ in range(classes)]
    for number, label in label_of.items():
        if isinstance(label, int):
            of_class[label].append(number)
    ids = tuple(found[0] for found in of_class if len(found) == 1 and isinstance(found[0], int))
    return ids if len(ids) == classes else None


def _entry_id(
    entry: Any,
    seen: Container[int | str],
    where: str,
    name: str,
    kinds: type | tuple[type, ...],
) -> int | str:
    """The id of an entry of `images` or `categories` that is not in `seen` and has a `name`."""
    if not isinstance(entry, dict):
        raise InputError(f"{where}: {reprlib.repr(entry)}: expected an object")
    number = _id(entry.get("id"))
    if number is None:
        said = reprlib.repr(entry.get("id"))
        raise InputError(f"{where}: id={said}: expected an integer of 64 bits or a text")
    if number in seen:
        raise InputError(f"{where}: id={reprlib.repr(number)}: an earlier entry has it already")
    if not isinstance(entry.get(name), kinds):
        raise InputError(f"{where}: {name}={reprlib.repr(entry.get(name))}: expected a text")
    return number


def _id(value: Any) -> int | str | None:
    """What COCO's entries are linked by, None for what cannot be. Some tools write "7" or 7.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 2**63 else None  # evaluators hold ids in 64 bits
    return value if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    """A JSON number, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return math.inf


def _annotation(path: Path, index: int) -> str:
    """Where an annotation stands; ids are no help, they need be neither there nor unique."""
    return f"{path}: annotations[{index}]"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 25 else ", ".join(names[:25]) + ", …"
