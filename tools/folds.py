"""How do the photos of a data set take turns in being validated on?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from utils.data.definition import DataDefinition, read_data
from utils.errors import InputError
from utils.files.writing import write_text


def fold_files(folder: Path, folds: int) -> list[Path]:
    """The `.data` file of each fold."""
    return [folder / f"{number}-of-{folds}.data" for number in range(1, folds + 1)]


def write_folds(definition: DataDefinition, files: Sequence[Path]) -> None:
    """Write a `.data` file for each part of the photos to train on, to be validated on.

    Raises:
        InputError: a path or a class cannot be written in such a file.
    """
    names, folds = definition.label_names or definition.names, len(files)
    names_file = files[0].with_name("folds.names").resolve()
    write_text(names_file, "".join(f"{name}\n" for name in names))
    lines = [
        f"names = {names_file}",
        f"train = {_joined(definition.train)}",
        *([f"images = {_joined(definition.images)}"] if definition.images else []),
        *([f"classes = {','.join(definition.names)}"] if definition.label_names else []),
        f"format = {definition.format}",
        f"mirror = {'yes' if definition.mirror else 'no'}",
    ]
    for number, file in enumerate(files, start=1):
        write_text(file, "\n".join([*lines, f"valid = {number}/{folds}"]) + "\n")
    read = read_data(files[0])
    for key in ("train", "images", "names"):
        wanted = getattr(definition, key)
        if key != "names":
            wanted = tuple(map(_absolute, wanted))
        if getattr(read, key) != wanted:
            raise InputError(
                f"folds={folds}: {key} of {definition.path} cannot be written in a .data file: "
                "expected no commas in classes, nor several paths with some, nor ' #' or ' ;'"
            )


def _joined(paths: Sequence[Path]) -> str:
    return ", ".join(str(_absolute(path)) for path in paths)


def _absolute(path: Path) -> Path:
    """The path from the root, through whatever links: labels are found by it."""
    return Path(os.path.abspath(path))  # noqa: PTH100  Path.absolute keeps `..`
