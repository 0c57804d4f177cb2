"""What did a labelling tool leave here: which photos, labels and classes does a path mean?

A path may be

- a `.data` file (`utils.data.definition`), or a `data.yaml` of Ultralytics or Roboflow;
- a file of labels for all photos: `.json` (COCO, Label Studio) or `.xml` (CVAT), or a list of
  photos, `.txt`;
- a folder: with one of these in it; with a folder, a list or a file of labels for each split; or
  with photos whose labels are beside them or in a folder of their own.

Classes are what a file lists (`classes.txt`, `obj.names`, …), else the names in the labels. Where
photos are not split, a fifth of them is for validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from utils.console.progress import track
from utils.data.definition import DataDefinition, read_data, read_names
from utils.data.labels import cvat, json_files, labelme, voc, yolo
from utils.data.sources import label_files
from utils.data.yaml_definition import read_yaml
from utils.errors import InputError
from utils.files.paths import exists, walk
from utils.images import is_image

YAML = (".yaml", ".yml")
LABELS_OF_ALL = (".json", ".xml")
LISTS = (".txt", ".list")
NAMES_FILES = (
    "classes.txt", "obj.names", "_darknet.labels", "predefined_classes.txt", "labels.txt",
    "class_names.txt", "names.txt",
)  # fmt: skip
SPLIT_WORDS = {
    "train": ("train", "training", "trainval"),
    "valid": ("valid", "val", "validation", "test", "testing"),
}
SPLIT_PLACES = ("", "images", "ImageSets/Main", "annotations", "Annotations", "labels")
MOST_NUMBERED = 1000  # classes without names; a number above it is a mistake
VALID_SHARE = 0.2  # of photos that are not split


def recognise(path: Path) -> DataDefinition:
    """The data set that a path means.

    Raises:
        InputError: it is none; the message says what would be one.
    """
    suffix = path.suffix.lower()
    if not exists(path):
        raise InputError(
            f"data={str(path)!r}: no such file or folder: expected a folder, a data.yaml, a .json, "
            ".xml or .data file"
        )
    if path.is_dir():
        definition = _of_folder(path)
    elif suffix in YAML:
        definition = read_yaml(path)
    elif suffix in LABELS_OF_ALL or suffix in LISTS:
        definition = _of_sources(path, [path], _splits_beside(path))
    else:
        definition = read_data(path)
    if (
        definition.train
        and not definition.valid
        and not definition.valid_part
        and not definition.lines
    ):
        share = f"no photos to validate on: {VALID_SHARE:.0%} of these are taken, by their names"
        definition = replace(
            definition, valid_part=(0.0, VALID_SHARE), notes=(*definition.notes, share)
        )
    return definition


def _of_folder(folder: Path) -> DataDefinition:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
    for suffixes in ((".data",), YAML):
        definitions = [path for path in entries if path.suffix.lower() in suffixes]
        if len(definitions) == 1:
            return recognise(definitions[0])
    train, valid = (_of_split(folder, SPLIT_WORDS[split]) for split in ("train", "valid"))
    if not train and not valid:
        train = _source_in(folder)
    return _of_sources(folder, train, valid)


def _of_split(folder: Path, words: Sequence[str]) -> list[Path]:
    """The source of a split: a folder, a list or a file of labels that is called by its words."""
    for word in words:
        for place in SPLIT_PLACES:
            if not (folder / place).is_dir():
                continue
            entries = sorted((folder / place).iterdir())
            for entry in entries:
                if entry.is_dir() and entry.name.lower() == word and _holds_photos(entry):
                    return _source_in(entry)
            for entry in entries:
                named = word in entry.stem.lower().replace("-", "_").split("_")
                year = entry.stem.lower().rstrip("0123456789").endswith(f"_{word}")  # _train2017
                if (named or year) and _is_source_file(entry):
                    return [entry]
    return []


def _source_in(folder: Path) -> list[Path]:
    """The files of labels for all photos in a folder, where it has such; else the folder."""
    for place in (folder, folder / "annotations", folder / "Annotations"):
        if place.is_dir():
            files = [path for path in sorted(place.iterdir()) if _is_labels_of_all(path)]
            if files:
                return files
    return [folder]


def _is_source_file(path: Path) -> bool:
    return path.is_file() and (path.suffix.lower() in LISTS or _is_labels_of_all(path))


def _is_labels_of_all(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return json_files.is_data_set(path)
    return suffix == ".xml" and cvat.is_cvat(path)


def _holds_photos(folder: Path) -> bool:
    return any(is_image(path) for path in walk(folder)[0])


def _splits_beside(path: Path) -> list[Path]:
    """The file for validation beside one for training, such as `valid.txt` beside `train.txt`."""
    words = path.stem.lower().replace("-", "_").split("_")
    if not set(words) & set(SPLIT_WORDS["train"]):
        return []
    beside = _of_split(path.parent, SPLIT_WORDS["valid"])
    return [other for other in beside if other.suffix == path.suffix and other != path]


def _of_sources(path: Path, train: Sequence[Path], valid: Sequence[Path]) -> DataDefinition:
    """The data set of some sources, its classes from a list of them or from the labels."""
    sources = [*train, *valid]
    names, origin = _names(path, sources)
    note = f"{path}: {len(names)} classes, {origin}"
    parents = [source if source.is_dir() else source.parent for source in sources]
    images = [place for parent in parents for place in (parent, parent / "images")]
    if path.is_dir():
        images += [path, *(place for place in sorted(path.iterdir()) if place.is_dir())]
    return DataDefinition(
        path=path,
        names=names,
        train=tuple(train),
        valid=tuple(valid),
        images=tuple(place for place in dict.fromkeys(images) if place.is_dir()),
        format="auto",
        mirror=True,
        lines={},
        notes=(note,),
    )


def _names(path: Path, sources: Sequence[Path]) -> tuple[tuple[str, ...], str]:
    """The classes, and where they come from.

    Raises:
        InputError: there are no labels to tell them.
    """
    in_files: list[str] = []
    empty: list[str] = []
    for source in sources:
        if source.suffix.lower() == ".json":
            used, unused = json_files.class_names(source)
            in_files += used
            empty += unused
        elif source.suffix.lower() == ".xml":
            in_files += cvat.class_names(source)
    if in_files:
        names = tuple(dict.fromkeys(in_files))
        left = [name for name in dict.fromkeys(empty) if name not in names]
        more = f" ({', '.join(left[:5])} left out, which no label is of)" if left else ""
        return names, f"from the labels{more}"
    if listed := _names_file(path, sources):
        return read_names(listed), f"listed in {listed}"
    return _names_of_labels(path, sources)


def _names_file(path: Path, sources: Sequence[Path]) -> Path | None:
    """A list of classes near the photos."""
    root = path if path.is_dir() else path.parent
    folders = [root, *(source if source.is_dir() else source.parent for source in sources)]
    folders += [folder / "labels" for folder in list(folders)]
    folders += [folder.parent for folder in folders if folder != root and root in folder.parents]
    for folder in dict.fromkeys(folders):
        for name in NAMES_FILES:
            if (folder / name).is_file():
                return folder / name
        others = sorted(folder.glob("*.names")) if folder.is_dir() else []
        if len(others) == 1:
            return others[0]
    return None


def _names_of_labels(path: Path, sources: Sequence[Path]) -> tuple[tuple[str, ...], str]:
    texts: set[str] = set()
    numbers: set[int] = set()
    for label_file in track(label_files(sources), "classes in the labels", unit="files"):
        match label_file.suffix.lower():
            case ".txt":
                numbers |= yolo.class_numbers(label_file)
            case ".xml":
                texts |= voc.class_names(label_file)
            case ".json":
                texts |= labelme.class_names(label_file)
    if texts:
        return tuple(sorted(texts)), "from the labels"
    if numbers:
        if max(numbers) >= MOST_NUMBERED:
            raise InputError(
                f"{path}: class {max(numbers)} in the labels: expected a list of classes, such as "
                "classes.txt"
            )
        listed = tuple(map(str, range(max(numbers) + 1)))
        return listed, "called by their numbers, since no classes.txt lists them"
    raise InputError(
        f"{path}: no labels found: expected photos with YOLO .txt, VOC .xml or labelme .json "
        "files, a COCO, Label Studio or CVAT file, a data.yaml, or a .data file such as "
        "data/custom.data"
    )
