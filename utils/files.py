"""Reading text files, and writing files whole or not at all."""

import errno
import os
import os.path
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import InputError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the user's share of it, one file


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block succeeds.

    The temporary name keeps the suffix, since image and plot writers choose their format by it.

    Raises:
        InputError: the folder cannot be made or written to, or the disk is full.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.stem}-", suffix=target.suffix
        )
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes files that only their owner can read
        temporary.replace(target)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise InputError(f"{target}: cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file, whatever its line ends, with or without a byte order mark.

    Raises:
        InputError: the file cannot be read, or is no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not a text file ({error.reason} at byte {error.start})"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def cache_folder() -> Path:
    """The folder of what the project keeps for its user; all of it may be deleted at any time.

    It is `$XDG_CACHE_HOME/yolov3`, by default below `~/.cache`.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "yolov3"


def expand(text: str | Path) -> Path:
    """A path with `~` as the home folder. A file may as well be named `~a.jpg`."""
    return Path(os.path.expanduser(text))  # noqa: PTH111  pathlib's raises where no user is `a.jpg`


def exists(path: str | Path) -> bool:
    """Whether there is such a file or folder; a name that is too long for any is that of none."""
    return os.path.exists(path)  # noqa: PTH110  pathlib's raises for such a name


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; see `exists`."""
    return os.path.isfile(path)  # noqa: PTH113


def same_file(first: Path, second: Path) -> bool:
    """Whether both paths lead to one file that exists, by whatever links."""
    return first.exists() and second.exists() and first.samefile(second)


def output_folder(path: str) -> Path:
    """The folder, made where it is missing.

    Raises:
        InputError: it cannot be made, or nothing can be written to it.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output={path!r}: cannot make this folder ({error.strerror})") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"output={path!r}: nothing can be written to this folder")
    return folder
