"""An XML file, read so that every element knows its line and no file can take the memory."""

import reprlib
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from utils.errors import InputError
from utils.files import read_bytes


def read_xml(path: Path, largest: int) -> Element:
    """The root of an XML file of at most `largest` bytes, with an attribute `line` on each element.

    Raises:
        InputError: it cannot be read, or is no XML.
    """
    data = read_bytes(path, largest)
    try:
        return _parse(data)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the last: encoding="?"
        raise InputError(f"{path}: no readable XML ({error})") from error


def _parse(data: bytes) -> Element:
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
