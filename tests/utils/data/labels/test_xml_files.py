"""XML in the encoding that it declares."""

from pathlib import Path

import pytest

from utils.data.labels.xml_files import read_xml
from utils.errors import InputError

TEXT = (
    '<?xml version="1.0" encoding="{}"?>\n<annotation><object><name>犬</name></object></annotation>'
)


@pytest.mark.parametrize("encoding", ["UTF-8", "utf-16", "GBK", "gb2312", "Big5", "Shift_JIS"])
def test_xml_is_read_in_the_encoding_that_it_declares(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.xml").write_bytes(TEXT.format(encoding).encode(encoding))
    root = read_xml(tmp_path / "a.xml", 1000)
    assert root.findtext("object/name") == "犬"
    assert [element.get("line") for element in root] == ["2"]


def test_xml_in_another_encoding_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(TEXT.partition("\n")[2].replace("犬", "电阻").encode("gbk"))
    with pytest.raises(InputError, match=r"a\.xml: not a text file in UTF-8 .*-f GBK"):
        read_xml(tmp_path / "a.xml", 1000)
    (tmp_path / "a.xml").write_bytes(TEXT.format("UTF-8").replace("犬", "电阻").encode("gbk"))
    with pytest.raises(InputError, match="no readable XML"):
        read_xml(tmp_path / "a.xml", 1000)
