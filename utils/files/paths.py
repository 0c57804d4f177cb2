"""Paths that a user gives, and the folders that are a user's."""

import os
import os.path
import tempfile
from pathlib import Path

from utils.errors import InputError


def walk(folder: Path) -> tuple[list[Path], list[str]]:
    """The files below a folder, sorted, with those behind links, and what cannot be looked into.

    A folder to which several ways lead counts once, so links in a circle end; the way without links
    is taken first. A link that leads nowhere counts as a file.
    """
    files: list[Path] = []
    closed: list[str] = []
    seen: set[tuple[int, int]] = set()
    folders, links = [folder], list[Path]()
    while folders or links:
        current = folders.pop() if folders else links.pop(0)
        try:
            state = current.stat()
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError as error:
            closed.append(f"{current}: cannot be read: {error.strerror}")
            continue
        for entry in entries:
            if not os.path.isdir(entry) if entry.is_symlink() else not entry.is_dir():  # noqa: PTH112
                files.append(current / entry.name)
            else:
                (links if entry.is_symlink() else folders).append(current / entry.name)
    return sorted(files), closed


def cache_folder() -> Path:
    """The folder of what the project keeps for its user; all of it may be deleted at any time.

    It is `$XDG_CACHE_HOME/yolov3`, by default below `~/.cache`, or where a user has no home, as in
    some containers, below the folder of temporary files.
    """
    folder = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(folder) if folder else Path.home() / ".cache") / "yolov3"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "yolov3"


def expand(text: str | Path) -> Path:
    """A path with `~` as the home folder. A file may as well be named `~a.jpg`."""
    return Path(os.path.expanduser(text))  # noqa: PTH111  pathlib's raises where no user is `a.jpg`


def exists(path: str | Path) -> bool:
    """Whether there is such a file or folder; a name that is too long for any is that of none."""
    return os.path.exists(path)  # noqa: PTH110  pathlib's raises for such a name


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; see `exists`."""
    return os.path.isfile(path)  # noqa: PTH113


def within(folder: Path, name: str) -> Path:
    """A path in `folder`, which may be a link itself; but none below it may lead out of it.

    Raises:
        InputError: a link does.
    """
    path = folder / name
    real, allowed = path.parent.resolve(), folder.resolve()
    if real != allowed and allowed not in real.parents:
        raise InputError(f"{path.parent}: a link leads to {real}: expected a place in {folder}")
    return path


def same_file(first: Path, second: Path) -> bool:
    """Whether both paths lead to one file that exists, by whatever links."""
    return first.exists() and second.exists() and first.samefile(second)


def output_folder(path: str) -> Path:
    """The folder, made where it is missing.

    Raises:
        InputError: it cannot be made, or nothing can be written to it.
    """
    try:
        path.encode()
    except UnicodeEncodeError as error:  # engines' libraries take no other paths
        raise InputError(f"output={path!r}: expected a name in UTF-8") from error
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output={path!r}: cannot make this folder ({error.strerror})") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"output={path!r}: nothing can be written to this folder")
    return folder
