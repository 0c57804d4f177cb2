"""What took long to find, kept in the user's cache folder: `$XDG_CACHE_HOME/yolov3`, by default
below `~/.cache`. All of it may be deleted at any time."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

from utils.errors import InputError
from utils.files import write_bytes

MOST = 16  # files in a folder; of more, those go that were not used for longest
DIGEST = hashlib.sha256().digest_size


def cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "yolov3"


def identity(parts: Iterable[bytes]) -> str:
    """A file's name for what was made of these bytes, in this order."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.hexdigest()[:32]


def kept(folder: str, name: str, make: Callable[[], bytes]) -> bytes:
    """What `make` makes, from a file of the cache where there is a whole one."""
    path = cache_folder() / folder / name
    content = _whole(path)
    if content is None:
        content = make()
        _keep(path, content)
    return content


def _whole(path: Path) -> bytes | None:
    """A file's content, which its digest stands before; None where it is missing or damaged."""
    try:
        found = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    content = found[DIGEST:]
    return content if hashlib.sha256(content).digest() == found[:DIGEST] else None


def _keep(path: Path, content: bytes) -> None:
    try:
        write_bytes(path, hashlib.sha256(content).digest() + content)
        files = sorted(path.parent.iterdir(), key=lambda file: file.stat().st_mtime)
        for old in files[:-MOST]:
            old.unlink(missing_ok=True)
    except (InputError, OSError) as error:
        warnings.warn(f"not kept for the next time: {error}", stacklevel=3)
