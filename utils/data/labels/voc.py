"""Pascal VOC's `.xml`: one file a photo.

Coordinates are taken as written, as the edges of the box in pixels. The tools that write VOC XML
today (LabelImg wrote BCCD's) write edges and only keep them from falling under 1. The original VOC
counted pixels from 1, so that its boxes begin up to one pixel further left than read here; no IoU
of an object of useful size notices.
"""

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from utils.data.labels.record import (
    Label,
    MalformedLabel,
    Problem,
    Record,
    image_size,
    some_names,
)
from utils.errors import InputError


def read_voc(image: Path, label_file: Path, names: Sequence[str]) -> Record:
    """Read the labels of one photo.

    Raises:
        InputError: a class is not among `names`, so that no label of it could be right.
    """
    try:
        root = _parse_xml(label_file)
    except (expat.ExpatError, OSError, ValueError, LookupError) as error:  # the last: encoding="?"
        return Record.unreadable(image, label_file, f"no readable XML ({error})")
    labels, problems = [], []
    for item in root.iter("object"):
        line = int(item.get("line", 0))
        try:
            labels.append(_label(item, line, label_file, names))
        except MalformedLabel as error:
            problems.append(Problem("malformed label", f"{label_file}:{line}", str(error)))
    size = image_size(root.findtext("size/width"), root.findtext("size/height"))
    return Record.of(image, label_file, labels, problems, stated_size=size)


def _label(item: Element, line: int, label_file: Path, names: Sequence[str]) -> Label:
    name = (item.findtext("name") or "").strip()
    if name not in names:
        raise InputError(
            f"{label_file}:{line}: class {name!r}: expected one of {some_names(names)}"
        )
    texts = [item.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
    try:
        box = tuple(float(text or "") for text in texts)
    except ValueError:
        raise MalformedLabel(f"bndbox {texts}: expected four numbers") from None
    difficult = (item.findtext("difficult") or "0").strip().lower() in ("1", "true")
    return Label(box, names.index(name), line, difficult)


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
