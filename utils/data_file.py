"""What does a `.data` file say: which classes there are, and where the photos lie?"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from utils.errors import InputError

KEYS = ("classes", "names", "train", "valid", "images", "format")
DARKNETS_OWN = ("backup", "eval", "results", "labels", "difficult", "map", "top", "test")  # unused
FORMATS = ("auto", "yolo", "voc")


@dataclass(frozen=True)
class DataDefinition:
    """A data set, with every path resolved.

    path: the `.data` file itself.
    names: the classes in order; a label is an index into them.
    train, valid: sources that `utils.readers.read_source` understands.
    images: folders to look for photos in, for sources that name them apart from their labels.
    format: of label files beside photos: "yolo" (.txt), "voc" (.xml) or "auto" (either).
    lines: the line on which each key stands.
    """

    path: Path
    names: tuple[str, ...]
    train: tuple[Path, ...]
    valid: tuple[Path, ...]
    images: tuple[Path, ...]
    format: str
    lines: Mapping[str, int]

    def sources(self, split: str) -> tuple[Path, ...]:
        """The sources of "train" or "valid"; an InputError where there are none."""
        sources = {"train": self.train, "valid": self.valid}[split]
        if not sources:
            raise InputError(f"{self.path}: no '{split} =' line: expected the path of its photos")
        for source in sources:
            if not source.exists():
                raise _absent(self.path, self.lines[split], split, str(source))
        return sources


def read_data(path: str | Path) -> DataDefinition:
    """Read a `.data` file: lines of `key = value`, `#` and `;` begin a comment.

    `train`, `valid` and `images` take several paths joined with commas. A relative path is looked
    for beside the `.data` file first and then in the working directory, which is where Darknet
    looks; the photos of a list file are found in the same way from the list's folder. Darknet's
    keys that mean nothing here (`backup`, `eval`, …) are accepted and ignored. Whether the photos
    are there is asked when they are wanted: detection needs no more than the names.
    """
    path = Path(path)
    lines = _key_values(path)
    if "names" not in lines:
        raise InputError(f"{path}: no 'names =' line: expected the path of a file of class names")
    names_line, names_path = lines["names"]
    names_file = resolve(names_path, path.parent)
    if not names_file.exists():
        raise _absent(path, names_line, "names", names_path)
    names = read_names(names_file)
    _check_classes(path, lines, names)
    paths = {key: _paths(path, lines, key) for key in ("train", "valid", "images")}
    line, format = lines.get("format", (0, "auto"))
    if format not in FORMATS:
        raise InputError(f"{path}:{line}: format={format!r}: expected one of {', '.join(FORMATS)}")
    numbers = {key: number for key, (number, _) in lines.items()}
    return DataDefinition(
        path, names, paths["train"], paths["valid"], paths["images"], format, numbers
    )


def read_names(path: str | Path) -> tuple[str, ...]:
    """The class names of a `.names` file, one a line; empty lines at the end do not count."""
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


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file, whatever its line ends, with or without a byte order mark."""
    try:
        return Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not a text file ({error.reason} at byte {error.start})"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def resolve(text: str, folder: Path) -> Path:
    """The path that `text` means in a file that lies in `folder`.

    Beside the file first, then in the working directory; where neither exists, the first.
    """
    path = Path(text).expanduser()
    beside = folder / path  # an absolute path stays itself
    return path if not beside.exists() and path.exists() else beside


def _key_values(path: Path) -> dict[str, tuple[int, str]]:
    """key → (line number, value)."""
    found: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(read_lines(path), 1):
        text = line.strip()
        if not text or text[0] in "#;":
            continue
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not value:
            raise InputError(f"{path}:{number}: {text!r}: expected 'key = value'")
        if key not in KEYS + DARKNETS_OWN:
            near = difflib.get_close_matches(key, KEYS, 1)
            hint = f"perhaps {near[0]!r}" if near else f"expected one of {', '.join(KEYS)}"
            raise InputError(f"{path}:{number}: unknown key {key!r}: {hint}")
        if key in found:
            raise InputError(f"{path}:{number}: {key!r} stands already on line {found[key][0]}")
        found[key] = (number, value)
    return found


def _check_classes(path: Path, lines: dict[str, tuple[int, str]], names: tuple[str, ...]) -> None:
    line, value = lines.get("classes", (0, str(len(names))))
    if not value.isdecimal() or int(value) != len(names):
        raise InputError(
            f"{path}:{line}: classes={value}: expected {len(names)}, the number of names"
            f" in {lines['names'][1]}"
        )


def _paths(path: Path, lines: dict[str, tuple[int, str]], key: str) -> tuple[Path, ...]:
    texts = (text.strip() for text in lines.get(key, (0, ""))[1].split(","))
    return tuple(resolve(text, path.parent) for text in texts if text)


def _absent(path: Path, line: int, key: str, text: str) -> InputError:
    return InputError(
        f"{path}:{line}: {key}={text}: no such file or folder, neither from"
        f" {path.parent.resolve()} nor from {Path.cwd()}"
    )
