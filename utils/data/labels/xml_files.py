"""An XML file, read so that every element knows its line and no file can take the memory."""

import re
import reprlib
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from utils.errors import InputError
from utils.files.reading import decode_text, read_bytes

# What XML may declare and expat does not read, with Python's name of all that programs mean by it.
MULTI_BYTE = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "gb18030": "gb18030",
    "big5": "cp950",
    "shift_jis": "cp932",
    "euc-jp": "euc_jp",
    "euc-kr": "cp949",
}


def read_xml(path: Path, largest: int) -> Element:
    """The root of an XML file of at most `largest` bytes, with an attribute `line` on each element.

    Raises:
        InputError: it cannot be read, or is no XML.
    """
    data = read_bytes(path, largest)
    declared = re.match(rb"<\?xml[^>]{0,80}encoding=[\"']([\w.-]+)", data)
    encoding = MULTI_BYTE.get(declared[1].decode().lower()) if declared else None
    try:
        return _parse(data.decode(encoding).encode(), "utf-8") if encoding else _parse(data)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the last: encoding="?"
        if not declared:
            decode_text(path, data)  # which says what encoding is expected
        raise InputError(f"{path}: no readable XML ({error})") from error


def _parse(data: bytes, encoding: str | None = None) -> Element:
    """The root of an XML file, with an attribute `line` on every element.

    Entities of a file's own are refused: a few lines of them can stand for gigabytes.

    Args:
        data: the file.
        encoding: its encoding, whatever it declares; None for what it declares.
    """
    builder = TreeBuilder()
    parser = expat.ParserCreate(encoding)

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
