"""What does a `.data` file say: which classes there are, and where the photos lie?"""

import difflib
import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from utils.data.labels import FORMATS
from utils.errors import InputError
from utils.files import exists, expand, read_lines
from utils.numbers import to_int

KEYS = ("classes", "names", "train", "valid", "images", "format", "mirror")
UNUSED_DARKNET_KEYS = ("backup", "eval", "results", "labels", "difficult", "map", "top", "test")
YES_NO = {"yes": True, "no": False}
DRIVE = re.compile(r"[A-Za-z]:(?=[\\/])")
COMMENT = re.compile(r"(?:^|\s)[#;].*")  # a path may hold such a character within a word


@dataclass(frozen=True)
class DataDefinition:
    """A data set, with every path resolved.

    Attributes:
        path: the `.data` file itself.
        names: the classes in order; a label is an index into them.
        train: sources that `utils.data.sources.read_source` understands.
        valid: the same, to validate on.
        images: folders to look for photos in, for sources that name them apart from their labels.
        format: of label files beside photos: a key of `utils.data.labels.FORMATS`, or "auto".
        mirror: whether a mirrored object is still the same object; not so for digits and signs.
        lines: the line on which each key stands.
    """

    path: Path
    names: tuple[str, ...]
    train: tuple[Path, ...]
    valid: tuple[Path, ...]
    images: tuple[Path, ...]
    format: str
    mirror: bool
    lines: Mapping[str, int]

    def sources(self, split: str) -> tuple[Path, ...]:
        """Look up the sources of "train" or "valid".

        Raises:
            InputError: there are none, or one of them does not exist.
        """
        sources = {"train": self.train, "valid": self.valid}[split]
        if not sources:
            raise InputError(f"{self.path}: no '{split} =' line: expected the path of its photos")
        for source in sources:
            if not exists(source):
                raise _absent(self.path, self.lines[split], split, str(source))
        return sources


def read_data(path: str | Path) -> DataDefinition:
    """Read a `.data` file: lines of `key = value`.

    `#` and `;` begin a comment at the start of a line or after a space. `train`, `valid` and
    `images` take several paths joined with commas; a path that has a comma of its own stands
    alone: where the whole value exists, it is one path. A relative path is looked for beside the
    `.data` file first and then in the working directory, which is where Darknet looks; the photos
    of a list file are found in the same way from the list's folder. `mirror = no` says that
    mirrored objects are other objects, so that training must not flip; the default is `yes`.
    Darknet's keys that mean nothing here (`backup`, `eval`, …) are accepted and ignored. Whether
    the photos are there is asked when they are wanted: detection needs no more than the names.

    Raises:
        InputError: a line cannot be understood, or the names do not fit; with file and line.
    """
    path = Path(path)
    lines = _key_values(path)
    if "names" not in lines:
        raise InputError(f"{path}: no 'names =' line: expected the path of a file of class names")
    names_line, names_path = lines["names"]
    names_file = resolve(names_path, path.parent)
    if not exists(names_file):
        raise _absent(path, names_line, "names", names_path)
    names = read_names(names_file)
    _check_count(path, lines, names)
    paths = {key: _paths(path, lines, key) for key in ("train", "valid", "images")}
    return DataDefinition(
        path=path,
        names=names,
        **paths,
        format=_one_of(path, lines, "format", ("auto", *FORMATS), "auto"),
        mirror=YES_NO[_one_of(path, lines, "mirror", tuple(YES_NO), "yes")],
        lines={key: number for key, (number, _) in lines.items()},
    )


def read_names(path: str | Path) -> tuple[str, ...]:
    """Read the class names of a `.names` file, one a line; empty lines at the end do not count.

    Raises:
        InputError: there are none, one is empty, or one stands there twice.
    """
    lines = [line.strip() for line in read_lines(path)]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise InputError(f"{path}: no class names: expected one a line")
    seen: dict[str, int] = {}
    for number, name in enumerate(lines, 1):
        if not name:
            raise InputError(f"{path}:{number}: an empty line among the class names")
        if name in seen:
            raise InputError(f"{path}:{number}: {name!r} stands already on line {seen[name]}")
        seen[name] = number
    return tuple(lines)


def resolve(text: str, folder: Path) -> Path:
    """Find the path that `text` means in a file that lies in `folder`.

    Beside the file first, then in the working directory; where neither exists, the first. A path
    that was written on Windows is found by its end.
    """
    path = expand(text)
    beside = folder / path  # an absolute path stays itself
    candidates = [beside, path]
    if is_windows_path(text):
        candidates += _from_windows(text, folder)
    return next((path for path in candidates if exists(path)), beside)


def is_windows_path(text: str) -> bool:
    r"""Whether `text` is written as Windows writes paths, `a\b.jpg` or `C:/a/b.jpg`."""
    return "\\" in text or DRIVE.match(text) is not None


def _from_windows(text: str, folder: Path) -> Iterator[Path]:
    """Where the file of a path of Windows may lie here: the more of its end agrees, the earlier.

    Its end is looked for from `folder`, two folders above it, and the working directory.
    """
    parts = [part for part in DRIVE.sub("", text).replace("\\", "/").split("/") if part]
    for first in range(len(parts)):
        end = Path(*parts[first:])
        yield from (base / end for base in (folder, *folder.resolve().parents[:2], Path()))


def _key_values(path: Path) -> dict[str, tuple[int, str]]:
    """Read the lines: key → (line number, value)."""
    values: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(read_lines(path), 1):
        text = COMMENT.sub("", line).strip()
        if not text:
            continue
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not value:
            raise InputError(f"{path}:{number}: {reprlib.repr(text)}: expected 'key = value'")
        if key not in KEYS + UNUSED_DARKNET_KEYS:
            near = difflib.get_close_matches(key, KEYS, 1)
            hint = f"perhaps {near[0]!r}" if near else f"expected one of {', '.join(KEYS)}"
            raise InputError(f"{path}:{number}: unknown key {reprlib.repr(key)}: {hint}")
        if key in values:
            raise InputError(f"{path}:{number}: {key!r} stands already on line {values[key][0]}")
        values[key] = (number, value)
    return values


def _check_count(path: Path, lines: dict[str, tuple[int, str]], names: tuple[str, ...]) -> None:
    line, value = lines.get("classes", (0, str(len(names))))
    try:
        count = to_int(value)
    except ValueError:
        count = -1
    if count != len(names):
        raise InputError(
            f"{path}:{line}: classes={value[:60]}: expected {len(names)}, the number of names"
            f" in {lines['names'][1]}"
        )


def _paths(path: Path, lines: dict[str, tuple[int, str]], key: str) -> tuple[Path, ...]:
    _, value = lines.get(key, (0, ""))
    whole = resolve(value, path.parent)
    if value and exists(whole):
        return (whole,)
    texts = (text.strip() for text in value.split(","))
    return tuple(resolve(text, path.parent) for text in texts if text)


def _one_of(
    path: Path,
    lines: dict[str, tuple[int, str]],
    key: str,
    known: tuple[str, ...],
    default: str,
) -> str:
    line, value = lines.get(key, (0, default))
    if value not in known:
        raise InputError(f"{path}:{line}: {key}={value!r}: expected one of {', '.join(known)}")
    return value


def _absent(path: Path, line: int, key: str, text: str) -> InputError:
    return InputError(
        f"{path}:{line}: {key}={text}: no such file or folder, neither from"
        f" {path.parent.resolve()} nor from {Path.cwd()}"
    )
