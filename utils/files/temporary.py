"""Files and folders that are not whole yet, and what becomes of them when a process is killed."""

import contextlib
import functools
import os
import os.path
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import InputError

if sys.platform != "win32":
    import fcntl

PARTIAL = ".partial-"  # begins the names of files and folders that are not whole yet
LONGEST_STEM = 32  # characters of a name that a temporary one repeats; names end at 255 bytes


def cannot_be_written(path: str | Path, error: OSError) -> InputError:
    """What to raise where the system refuses a file or folder."""
    return InputError(f"{path}: cannot be written: {error.strerror or error}")


def remove_partial_files(folder: Path) -> None:
    """Remove what a kill left half-written below `folder`; what is being written stays."""
    for path in folder.rglob(f"{PARTIAL}*"):
        _remove_abandoned(path)


@contextmanager
def temporary_path(target: Path, is_folder: bool = False) -> Iterator[Path]:
    """A new empty file or folder beside `target`, removed in the end unless it was renamed.

    It is locked, which ends with this process however that ends: so whoever next writes to the
    folder knows what a kill has left, and removes it.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned_in(target.parent)
        path, lock = _make_locked(_make_folder if is_folder else _make_file, target)
    except OSError as error:
        raise cannot_be_written(target, error) from error
    try:
        yield path
    finally:
        remove(path)
        _unlock(lock)


def _make_locked(make: Callable[[Path], Path], target: Path) -> tuple[Path, int | None]:
    while True:
        path = make(target)
        lock = _lock(path)
        if path.exists():
            return path, lock
        _unlock(lock)  # another process removed it before it was locked


def _make_file(target: Path) -> Path:
    prefix = f"{PARTIAL}{target.stem[:LONGEST_STEM]}-"
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=prefix, suffix=target.suffix)
    os.close(handle)
    return Path(name)


def _make_folder(target: Path) -> Path:
    prefix = f"{PARTIAL}{target.name[:LONGEST_STEM]}-"
    return Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix))


def _lock(path: Path, wait: bool = True) -> int | None:
    """Lock a file or folder; None where another process has it, or the system has no such locks."""
    if sys.platform == "win32":
        return None  # it would not let a file be renamed that is open
    try:
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


@functools.cache  # the first time that this process writes to the folder
def remove_abandoned_in(folder: Path) -> None:
    """Remove what a kill left half-written in `folder`; what is being written stays."""
    with os.scandir(folder) as entries:
        paths = [folder / entry.name for entry in entries if entry.name.startswith(PARTIAL)]
    for path in paths:
        _remove_abandoned(path)


def _remove_abandoned(path: Path) -> None:
    lock = _lock(path, wait=False)
    if lock is not None:
        remove(path)
        _unlock(lock)


def remove(path: Path) -> None:
    """Remove a file or folder where it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
