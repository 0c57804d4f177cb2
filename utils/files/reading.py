"""Reading files: whatever is wrong with one, an error names it."""

import codecs
import stat
from pathlib import Path

from utils.errors import InputError


def read_bytes(path: str | Path, most: int = 2**40) -> bytes:
    """What a file holds. A pipe that nobody writes is not waited for, nor a device read for ever.

    Args:
        path: the file.
        most: the largest number of bytes that is read.

    Raises:
        InputError: it is no ordinary file, has more bytes, or cannot be read.
    """
    try:
        size = require_file(path)
        if size > most:
            raise InputError(f"{path}: {size} bytes: expected at most {most}")
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def require_file(path: str | Path) -> int:
    """The size in bytes of an ordinary file, which can be opened without waiting for anything.

    Raises:
        InputError: it is a folder, a pipe, a device or nothing.
    """
    try:
        state = Path(path).stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a name with a zero byte
        raise InputError(f"{str(path)!r}: not the name of a file ({error})") from error
    if not stat.S_ISREG(state.st_mode):
        raise InputError(f"{path}: is {_kind(state.st_mode)}: expected a file")
    return state.st_size


BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(data: bytes) -> str:
    """The encoding that a text begins by naming, with a byte order mark; else UTF-8."""
    marked = (encoding for mark, encoding in BYTE_ORDER_MARKS if data.startswith(mark))
    return next(marked, "utf-8")


def read_text(path: str | Path, most: int = 2**30) -> str:
    r"""The text of a file in UTF-8, or UTF-16 with a byte order mark; line ends become `\n`.

    Raises:
        InputError: the file cannot be read, is too large, or is no text in these; others, such as
            GBK, cannot be told apart with certainty, and names are not guessed.
    """
    text = decode_text(path, read_bytes(path, most))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def decode_text(path: str | Path, data: bytes) -> str:
    """The text that the bytes of a file are, as `read_text` has it; `path` names it in errors."""
    try:
        text = data.decode(encoding_of(data))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(_not_text(path, data, f"{error.reason} in line {line}")) from error
    if "\0" in text:  # nearly all of UTF-16 reads as UTF-8 with these between the letters
        raise InputError(_not_text(path, data, "zero bytes"))
    return text


def read_start(path: Path, most: int = 65_536) -> str:
    """How a text begins, to tell what it is; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(most)
    except OSError:
        return ""
    return start.decode(encoding_of(start), errors="replace")


def _not_text(path: str | Path, data: bytes, reason: str) -> str:
    encoding = "UTF-16LE" if b"\0" in data else "GBK"
    return (
        f"{path}: not a text file in UTF-8 ({reason}); save it as UTF-8 in an editor, or with "
        f"`iconv -f {encoding} -t UTF-8 {Path(path).name} > new.txt` if it is in {encoding}"
    )


def read_lines(path: str | Path, most: int = 2**30) -> list[str]:
    """The lines of a text file, whatever its line ends; see `read_text`.

    Raises:
        InputError: the file cannot be read, is too large, or is no text in UTF-8 or UTF-16.
    """
    return read_text(path, most).splitlines()


def _kind(mode: int) -> str:
    """What a path leads to that is not an ordinary file."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
