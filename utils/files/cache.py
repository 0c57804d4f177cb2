"""Results that took long, kept as files in the user's cache folder.

All of it may be deleted at any time. A file holds bytes and a check sum of them, nothing that runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from utils.console.progress import say_error
from utils.errors import InputError
from utils.files.paths import cache_folder, exists
from utils.files.reading import read_bytes
from utils.files.writing import write_bytes

MAX_FILES = 16  # in a folder; of more, those go that were not used for longest
SUM_BYTES = 32  # of SHA-256, which every file begins with


def cached(folder: str, key: object, compute: Callable[[], bytes]) -> bytes:
    """What `compute` returns, from a file where it was computed for the same key before.

    A file that is damaged or cannot be written is told in one line, and the work goes on.

    Args:
        folder: of these results, below `utils.files.paths.cache_folder`.
        key: all that the result depends on; see `fingerprint`.
        compute: makes the result.
    """
    result = recall(folder, key)
    if result is None:
        result = compute()
        keep(folder, key, result)
    return result


def recall(folder: str, key: object) -> bytes | None:
    """What was kept for a key; None where nothing was, or the file is damaged, which is told."""
    path = _path(folder, key)
    if not exists(path):
        return None
    try:
        result = _read(path)
    except (InputError, OSError) as error:
        note(f"{path}: damaged, computed anew: {error}")
        return None
    with contextlib.suppress(OSError):  # of another user, or never to be written
        os.utime(path)
    return result


def keep(folder: str, key: object, result: bytes) -> None:
    """Keep a result for the next time; where it cannot be written, that is told."""
    path = _path(folder, key)
    try:
        write_bytes(path, hashlib.sha256(result).digest() + result)
    except (InputError, OSError) as error:
        note(f"not kept for the next time: {error}")
        return
    with contextlib.suppress(OSError):  # others may be removing the same
        _remove_longest_unused(path.parent)


def _path(folder: str, key: object) -> Path:
    return cache_folder() / folder / f"{fingerprint(key)}.bin"


def fingerprint(key: object) -> str:
    """64 digits that are the same for equal keys alone.

    Args:
        key: what has a `repr` that tells it from others, bytes, an array, or tuples and lists of
            these.
    """
    digest = hashlib.sha256()
    if isinstance(key, list | tuple):
        parts = [type(key).__name__, *(fingerprint(part) for part in key)]
        digest.update(" ".join(parts).encode())
    elif isinstance(key, np.ndarray):
        digest.update(f"array {key.dtype.str} {key.shape} ".encode())
        digest.update(key.tobytes())
    elif isinstance(key, bytes):
        digest.update(b"bytes " + key)
    else:
        digest.update(f"{type(key).__name__} {key!r}".encode())
    return digest.hexdigest()


def _read(path: Path) -> bytes:
    """What `cached` has written.

    Raises:
        InputError: the file cannot be read, or is not as it was written.
    """
    content = read_bytes(path)
    result = content[SUM_BYTES:]
    if hashlib.sha256(result).digest() != content[:SUM_BYTES]:
        raise InputError("its check sum is another")
    return result


def _remove_longest_unused(folder: Path) -> None:
    kept = [file for file in folder.glob("*.bin") if not file.name.startswith(".")]
    files = sorted(kept, key=lambda file: file.stat().st_mtime)
    for old in files[:-MAX_FILES]:
        old.unlink(missing_ok=True)


def note(message: str) -> None:
    """Tell in a line what went wrong without stopping the work."""
    say_error(f"note: {message}")
