"""Pascal VOC's `.xml`: one file a photo.

Coordinates are taken as written, as the edges of the box in pixels. The tools that write VOC XML
today (LabelImg wrote BCCD's) write edges and only keep them from falling under 1. The original VOC
counted pixels from 1, so that its boxes begin up to one pixel further left than read here; no IoU
of an object of useful size notices.
"""

import reprlib
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from utils.data.labels.record import (
    LARGEST_LABEL_FILE,
    MOST_PROBLEMS,
    Label,
    MalformedLabel,
    Problem,
    Record,
    UnknownClass,
    image_size,
    some_names,
)
from utils.data.labels.xml_files import read_xml
from utils.errors import InputError
from utils.files.numbers import to_float


def read_voc(image: Path, label_file: Path, names: Sequence[str]) -> Record:
    """Read the labels of one photo."""
    try:
        root = read_xml(label_file, LARGEST_LABEL_FILE)
    except InputError as error:
        return Record.unreadable(image, label_file, str(error).removeprefix(f"{label_file}: "))
    labels: list[Label] = []
    problems: list[Problem] = []
    for item in root.iter("object"):
        line = int(item.get("line", 0))
        try:
            labels.append(_label(item, line, names))
        except MalformedLabel as error:
            problems.append(Problem(error.kind, f"{label_file}:{line}", str(error)))
        if len(problems) > MOST_PROBLEMS:
            reason = f"more than {MOST_PROBLEMS} wrong objects; {problems[0].detail}"
            return Record.unreadable(image, label_file, reason)
    size = image_size(root.findtext("size/width"), root.findtext("size/height"))
    return Record.of(image, label_file, labels, problems, stated_size=size)


def class_names(label_file: Path) -> set[str]:
    """The names of the classes in one file."""
    try:
        root = read_xml(label_file, LARGEST_LABEL_FILE)
    except InputError:
        return set()  # told when its labels are read
    return {(item.findtext("name") or "").strip() for item in root.iter("object")} - {""}


def _label(item: Element, line: int, names: Sequence[str]) -> Label:
    name = (item.findtext("name") or "").strip()
    if name not in names:
        raise UnknownClass(f"class {reprlib.repr(name)}: expected one of {some_names(names)}")
    texts = [item.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
    try:
        box = tuple(to_float(text or "") for text in texts)
    except ValueError:
        raise MalformedLabel(f"bndbox {reprlib.repr(texts)}: expected four numbers") from None
    difficult = (item.findtext("difficult") or "0").strip().lower() in ("1", "true")
    return Label(box, names.index(name), line, difficult)
