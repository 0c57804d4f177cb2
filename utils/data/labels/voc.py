"""Pascal VOC's `.xml`: one file a photo.

Coordinates are taken as written, as the edges of the box in pixels. The tools that write VOC XML
today (LabelImg wrote BCCD's) write edges and only keep them from falling under 1. The original VOC
counted pixels from 1, so that its boxes begin up to one pixel further left than read here; no IoU
of an object of useful size notices.
"""

import reprlib
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

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
from utils.errors import InputError
from utils.files import read_bytes
from utils.numbers import to_float


def read_voc(image: Path, label_file: Path, names: Sequence[str]) -> Record:
    """Read the labels of one photo."""
    try:
        root = _parse_xml(read_bytes(label_file, LARGEST_LABEL_FILE))
    except InputError as error:
        return Record.unreadable(image, label_file, str(error).removeprefix(f"{label_file}: "))
    except (expat.ExpatError, ValueError, LookupError) as error:  # the last: encoding="?"
        return Record.unreadable(image, label_file, f"no readable XML ({error})")
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


def _parse_xml(data: bytes) -> Element:
    """The root of an XML file, with an attribute `line` on every element.

    Entities of a file's own are refused: a few lines of them can stand for gigabytes.
    """
    builder = TreeBuilder()
    parser = expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag, {**attributes, "line": str(parser.CurrentLineNumber)})

    def entity(name: str, *_: object) -> None:
        raise ValueError(f"entity {reprlib.repr(name)}: expected no entities")

    parser.StartElementHandler = start
    parser.EntityDeclHandler = entity
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.Parse(data, True)
    return builder.close()
