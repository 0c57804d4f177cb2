"""Results that took long, kept as files in the user's cache folder.

All of it may be deleted at any time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import joblib

from utils.errors import InputError
from utils.files import atomic, cache_folder

T = TypeVar("T")
MAX_FILES = 16  # in a folder; of more, those go that were not used for longest


def cached(folder: str, key: object, compute: Callable[[], T]) -> T:
    """What `compute` returns, from a file where it was computed for the same key before.

    A file that is damaged or cannot be written is told in one line, and the work goes on.

    Args:
        folder: of these results, below `utils.files.cache_folder`.
        key: all that the result depends on; anything that pickle takes.
        compute: makes the result.
    """
    path = cache_folder() / folder / f"{joblib.hash(key)}.joblib"
    if path.exists():
        try:
            result: T = joblib.load(path)
            os.utime(path)
            return result
        except Exception as error:  # unpickling a damaged file raises almost anything
            reason = str(error).partition("\n")[0]
            note(f"{path}: damaged, computed anew: {reason}")
    result = compute()
    try:
        _write(path, result)
    except (InputError, OSError) as error:
        note(f"not kept for the next time: {error}")
    return result


def _write(path: Path, result: object) -> None:
    with atomic(path) as temporary:
        joblib.dump(result, temporary, compress=("zlib", 1))  # zlib, for its check sum
    files = sorted(path.parent.iterdir(), key=lambda file: file.stat().st_mtime)
    for old in files[:-MAX_FILES]:
        old.unlink(missing_ok=True)


def note(message: str) -> None:
    """Tell in a line what went wrong without stopping the work."""
    print(f"note: {message}", file=sys.stderr)
