"""What does a `data.yaml` of Ultralytics or Roboflow say?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from utils.data.definition import DataDefinition, resolve
from utils.errors import InputError
from utils.files.paths import exists
from utils.files.reading import read_text

LARGEST_FILE = 2**22  # bytes


def read_yaml(path: Path) -> DataDefinition:
    """Read a `data.yaml`: `names` (a list, or a map from numbers), `train`, `val`, `test`, `path`.

    Paths are from `path`, from the file's folder, or found there by their end: Roboflow writes
    `../train/images` for what lies beside the file. Without `val`, `test` is for validation.

    Raises:
        InputError: it cannot be read, or has no names or no photos.
    """
    content = _load(path)
    names = _names(path, content.get("names"))
    root = path.parent
    if isinstance(base := content.get("path"), str) and base:
        candidate = resolve(base, path.parent)
        root = candidate if exists(candidate) else root
    train, valid, test = (
        _sources(path, content, key, root) for key in (("train",), ("val", "valid"), ("test",))
    )
    valid = valid or test
    if not train and not valid:
        raise InputError(f"{path}: no 'train': expected the folder or list of the photos")
    return DataDefinition(
        path=path,
        names=names,
        train=train,
        valid=valid,
        images=(),
        format="auto",
        mirror=True,
        lines={},
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(read_text(path, LARGEST_FILE))
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        where = getattr(error, "problem_mark", None)
        place = f"{path}:{where.line + 1}" if where else str(path)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{place}: no readable YAML ({reason})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected 'names:' and 'train:', as in a data.yaml")
    return content


def _names(path: Path, value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        numbers = [key for key in value if isinstance(key, int)]
        if sorted(numbers) != list(range(len(value))):
            raise InputError(f"{path}: names: expected each number from 0 to {len(value) - 1}")
        value = [value[number] for number in range(len(value))]
    if not isinstance(value, list) or not value:
        raise InputError(f"{path}: no 'names': expected the classes, as a list or by number")
    names = []
    for name in value:
        if not isinstance(name, str | int | float) or not str(name).strip():
            raise InputError(f"{path}: names: {str(name)[:60]!r}: expected a text")
        names.append(str(name).strip())
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{path}: names: {twice!r} stands there twice")
    return tuple(names)


def _sources(
    path: Path, content: dict[str, Any], keys: tuple[str, ...], root: Path
) -> tuple[Path, ...]:
    value: Any = next((content[key] for key in keys if content.get(key)), [])
    texts = value if isinstance(value, list) else [value]
    found = []
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"{path}: {keys[0]}: {str(text)[:60]!r}: expected a path")
        source = resolve(text, root)
        source = source if exists(source) else resolve(text, path.parent)
        found.append(source)
    missing = [source for source in found if not exists(source)]
    if missing and keys[0] == "train":
        raise InputError(f"{path}: {keys[0]}={texts[0]}: no such file or folder: {missing[0]}")
    return tuple(source for source in found if exists(source))
