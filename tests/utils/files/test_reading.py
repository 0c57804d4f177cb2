"""Is what a user gives read, or refused with a line that names it?"""

import os
import socket
from pathlib import Path

import pytest

from models.netdef import load
from utils.checkpoint.checkpoint import read_checkpoint
from utils.errors import InputError
from utils.files.reading import read_bytes, read_lines, read_start, read_text


def test_only_ordinary_files_are_read_and_nothing_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    (tmp_path / "link").symlink_to(tmp_path / "none")
    for path, reason in [
        (tmp_path / "pipe", "is a named pipe: expected a file"),
        (tmp_path / "socket", "is a socket: expected a file"),
        (Path("/dev/zero"), "is a device: expected a file"),
        (tmp_path, "is a folder: expected a file"),
        (tmp_path / "link", "No such file"),
        (Path("a" * 5000), "File name too long"),
        (Path("a\0b"), "not the name of a file"),
    ]:
        for read in (read_bytes, read_text, read_lines):
            with pytest.raises(InputError, match=reason) as caught:
                read(path)
            assert "\n" not in str(caught.value)
    listener.close()


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse.txt").open("wb") as file:
        file.truncate(2**43)
    with pytest.raises(InputError, match=r"sparse\.txt: 8796093022208 bytes: expected at most"):
        read_lines(tmp_path / "sparse.txt")


def test_a_pipe_in_place_of_a_network_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.cfg")
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(InputError, match="is a named pipe"):
        load(tmp_path / "pipe.cfg")
    with pytest.raises(InputError, match="is a named pipe"):
        read_checkpoint(tmp_path / "pipe.pt")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_text_is_read_in_the_encodings_that_can_be_told(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.names").write_bytes("猫\r\nHündin\r\n".encode(encoding))
    assert read_lines(tmp_path / "a.names") == ["猫", "Hündin"]
    assert read_start(tmp_path / "a.names").startswith("猫")


@pytest.mark.parametrize(("encoding", "told"), [("gbk", "GBK"), ("utf-16-le", "UTF-16LE")])
def test_a_text_in_another_encoding_is_refused_with_the_way_to_convert_it(
    tmp_path: Path, encoding: str, told: str
) -> None:
    (tmp_path / "a.names").write_bytes("dog\n电阻\n".encode(encoding))
    with pytest.raises(
        InputError, match=f"a.names: not a text file in UTF-8 .*in line 2.*-f {told} "
    ):
        read_text(tmp_path / "a.names")
