"""What does a `.data` file say: which classes there are, and where the photos lie?"""

import difflib
import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from utils.data.labels import FORMATS
from utils.data.labels.record import some_names
from utils.errors import InputError
from utils.files.numbers import to_float, to_int
from utils.files.paths import exists, expand
from utils.files.reading import read_lines

KEYS = ("classes", "names", "train", "valid", "images", "format", "mirror")
UNUSED_DARKNET_KEYS = ("backup", "eval", "results", "labels", "difficult", "map", "top", "test")
YES_NO = {"yes": True, "no": False}
DRIVE = re.compile(r"[A-Za-z]:(?=[\\/])")
COMMENT = re.compile(r"(?:^|\s)[#;].*")  # a path may hold such a character within a word

LARGEST_NAMES = 16 * 2**20  # bytes of a .names file; ImageNet's 21,841 classes take 0.5 MB


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
        valid_part: where no photos are named to validate on, those of `train` that are for it: from
            where to where, of 0 to 1, in the order of the hashes of their names.
        label_names: the classes as labels name or number them, where `names` are some of these;
            labels of the others are left out.
        notes: what a person should know of how this came about, a line each.
    """

    path: Path
    names: tuple[str, ...]
    train: tuple[Path, ...]
    valid: tuple[Path, ...]
    images: tuple[Path, ...]
    format: str
    mirror: bool
    lines: Mapping[str, int]
    valid_part: tuple[float, float] | None = None
    label_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def sources(self, split: str) -> tuple[Path, ...]:
        """Look up the sources of "train" or "valid".

        Raises:
            InputError: there are none, or one of them does not exist.
        """
        if self.valid_part:
            split = "train"
        sources = {"train": self.train, "valid": self.valid}[split]
        if not sources:
            share = ", or a share of the others: valid = 20%" if split == "valid" else ""
            raise InputError(
                f"{self.path}: no '{split} =' line: expected the path of its photos{share}"
            )
        for source in sources:
            if not exists(source):
                raise _absent(self.path, self.lines.get(split, 1), split, str(source))
        return sources


def read_data(path: str | Path) -> DataDefinition:
    """Read a `.data` file: lines of `key = value`.

    `#` and `;` begin a comment at the start of a line or after a space. `train`, `valid` and
    `images` take several paths joined with commas; a path that has a comma of its own stands
    alone: where the whole value exists, it is one path. A relative path is looked for beside the
    `.data` file first and then in the working directory, which is where Darknet looks; the photos
    of a list file are found in the same way from the list's folder. `mirror = no` says that
    mirrored objects are other objects, so that training must not flip; the default is `yes`.
    `valid = 20%` takes that share of the training photos away for validation, by a hash of their
    names; `valid = 2/5` takes the second of five such parts, to validate on each in turn.
    `classes` is the number of names, or some of the names: labels of others are left out.
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
    names_file = resolve(names_path, path.parent, least=1)
    if not exists(names_file):
        raise _absent(path, names_line, "names", names_path)
    names = read_names(names_file)
    chosen = _chosen_classes(path, lines, names)
    part = _part(path, lines)
    paths = {key: _paths(path, lines, key) for key in ("train", "valid", "images")}
    if part:
        paths["valid"] = ()
    return DataDefinition(
        path=path,
        names=chosen,
        train=paths["train"],
        valid=paths["valid"],
        images=paths["images"],
        valid_part=part,
        label_names=names if chosen != names else None,
        format=_one_of(path, lines, "format", ("auto", *FORMATS), "auto"),
        mirror=YES_NO[_one_of(path, lines, "mirror", tuple(YES_NO), "yes")],
        lines={key: number for key, (number, _) in lines.items()},
    )


def read_names(path: str | Path) -> tuple[str, ...]:
    """Read the class names of a `.names` file, one a line; empty lines at the end do not count.

    Raises:
        InputError: there are none, one is empty, or one stands there twice.
    """
    lines = [line.strip() for line in read_lines(path, LARGEST_NAMES)]
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


def resolve(text: str, folder: Path, least: int = 2) -> Path:
    """Find the path that `text` means in a file that lies in `folder`.

    Beside the file first, then in the working directory. A path from elsewhere (the folder where
    darknet ran, another machine, Windows) is found by its end, of `least` parts where it has as
    many: of photos a bare name is not enough, since other folders have photos of the same name.
    Where there is none, the first.
    """
    path = expand(text)
    beside = folder / path  # an absolute path stays itself
    for candidate in (beside, path):
        if exists(candidate):
            return candidate
    return next(filter(exists, _by_end(text, folder, least)), beside)


def is_windows_path(text: str) -> bool:
    r"""Whether `text` is written as Windows writes paths, `a\b.jpg` or `C:/a/b.jpg`."""
    return "\\" in text or DRIVE.match(text) is not None


def _by_end(text: str, folder: Path, least: int) -> Iterator[Path]:
    """Where the file of a path from elsewhere may lie: the more of its end agrees, the earlier.

    Its end is looked for from `folder`, two folders above it, and the working directory. Of a path
    of Windows a bare name is enough.
    """
    if is_windows_path(text):
        text, least = DRIVE.sub("", text).replace("\\", "/"), 1
    parts = [part for part in text.split("/") if part not in ("", ".", "..")]
    for first in range(len(parts) - min(least, len(parts)) + 1):
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


def _chosen_classes(
    path: Path, lines: dict[str, tuple[int, str]], names: tuple[str, ...]
) -> tuple[str, ...]:
    """The names that `classes` lists; all where it is their number, or missing."""
    line, value = lines.get("classes", (0, str(len(names))))
    if re.match(r"[-+.\d]", value) and value not in names:
        try:
            count = to_int(value)
        except ValueError:
            count = -1
        if count != len(names):
            raise InputError(
                f"{path}:{line}: classes={value[:60]}: expected {len(names)}, the number of names"
                f" in {lines['names'][1]}, or some of them"
            )
        return names
    chosen = tuple(name.strip() for name in value.split(",") if name.strip())
    for name in chosen:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"perhaps {near[0]!r}" if near else f"expected one of {some_names(names)}"
            raise InputError(f"{path}:{line}: classes: {reprlib.repr(name)}: {hint}")
    if len(set(chosen)) != len(chosen):
        raise InputError(f"{path}:{line}: classes={value[:60]}: expected each name once")
    return chosen


def _part(path: Path, lines: dict[str, tuple[int, str]]) -> tuple[float, float] | None:
    """What `valid = 20%` or `valid = 2/5` takes of the training photos, if it says so."""
    line, value = lines.get("valid", (0, ""))
    if fold := re.fullmatch(r"(\d{1,4})/(\d{1,4})", value):
        number, folds = int(fold[1]), int(fold[2])
        if exists(resolve(value, path.parent, least=1)):
            return None  # a path that looks so
        if not 1 <= number <= folds or folds < 2:
            raise InputError(f"{path}:{line}: valid={value}: expected a part of two or more")
        return (number - 1) / folds, number / folds
    if not value.endswith("%"):
        return None
    try:
        share = to_float(value[:-1]) / 100
    except ValueError:
        return None  # a path that ends so
    if not 0 < share < 1:
        raise InputError(f"{path}:{line}: valid={value}: expected more than 0% and less than 100%")
    return 0.0, share


def _paths(path: Path, lines: dict[str, tuple[int, str]], key: str) -> tuple[Path, ...]:
    _, value = lines.get(key, (0, ""))
    if not value:
        return ()
    texts = [text.strip() for text in value.split(",")]
    several = tuple(resolve(text, path.parent, least=1) for text in texts if text)
    if any(exists(folder / expand(value)) for folder in (path.parent, Path())):
        return (resolve(value, path.parent),)
    # By its end, a list of paths may look like its last one.
    whole = several if all(map(exists, several)) else (resolve(value, path.parent, least=1),)
    return whole if all(map(exists, whole)) else several


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
