"""Which photos are there, and which label file belongs to each?

A source is

- a text file that lists photos, one a line (Darknet), where a line that begins with `#` is a
  comment and a photo of such a name is written `./#1.jpg`: labels lie beside each photo or in the
  folder `labels` next to `images` or `JPEGImages`, as YOLO `.txt`; or as VOC `.xml`, beside it or
  in `Annotations`;
- a folder of photos, with labels found in the same way (subfolders and links are searched);
- a VOC split, `…/ImageSets/Main/*.txt`, or a VOC root or `Annotations` folder;
- a file of a whole data set: COCO's or Label Studio's `.json`, CVAT's `.xml`.

Where labels lie in none of these places, other names of such folders (`annotations`, `xmls`, …) are
tried, in place of the photo's folder, beside it and below it.

What a folder holds beside photos and their labels is counted and told.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, overload

from utils.console.progress import track
from utils.data.definition import is_windows_path, resolve
from utils.data.labels import DATA_SET_READERS, LABEL_FOLDERS, LabelFormat, formats, read_labels
from utils.data.labels.record import Problem, Record
from utils.data.labels.yolo import looks_like_labels
from utils.errors import InputError
from utils.files.paths import exists, walk
from utils.files.reading import read_lines
from utils.images import SUFFIXES, by_suffix, is_image

PHOTO_FOLDERS = ("images", "jpegimages", "image", "imgs", "img")  # in any case
CLASS_LIST_MARK = re.compile(r"(?<!\s)\s+(?:-1|0|1)$")  # of VOC's lists of one class: no, hard, yes


@dataclass(frozen=True)
class Pair:
    """A photo, the file with its labels, and what is to be told of the two."""

    image: Path
    label_file: Path | None
    problems: tuple[Problem, ...] = ()
    is_photo: ClassVar[bool] = True

    @staticmethod
    def of(photo: Path, candidates: Sequence[Path]) -> "Pair":
        """The pair with the first label file that is there."""
        there = _there(candidates)
        if not there:
            detail = "looked for " + ", ".join(map(str, candidates))
            return Pair(photo, None, (Problem("no label file", str(photo), detail),))
        others = ", ".join(map(str, there[1:]))
        problem = Problem("second label file", str(photo), f"{there[0]} counts, not {others}")
        return Pair(photo, there[0], (problem,) if others else ())

    def read(self, names: Sequence[str]) -> Record:
        """The photo with its labels."""
        record = read_labels(self.image, self.label_file, names)
        return replace(record, problems=(*record.problems, *self.problems))


Entry = Pair | Record  # one photo of a source, whose labels may still be to be read


class Records(Sequence[Record]):
    """The records of photos, of which each is read when it is asked for.

    Args:
        entries: the photos.
        names: the classes in order.
        change: what becomes of a record that was read; None for itself.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        names: Sequence[str],
        change: Callable[[Record], Record] | None = None,
    ) -> None:
        self.entries, self.names, self.change = entries, names, change

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Record]:
        return map(self._read, self.entries)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        chosen = self.entries[index]
        return self._read(chosen) if isinstance(chosen, Entry) else list(map(self._read, chosen))

    def _read(self, entry: Entry) -> Record:
        record = entry.read(self.names) if isinstance(entry, Pair) else entry
        return self.change(record) if self.change else record


def read_source(
    source: Path,
    names: Sequence[str],
    images: Sequence[Path] = (),
    format: str = "auto",
    progress: bool = True,
) -> list[Record]:
    """Read every photo of one source with its labels; see `find_photos`."""
    entries = find_photos(source, names, images, format, progress)
    records = Records(entries, names)
    return list(track(records, f"labels of {source.name}") if progress else records)


def find_photos(
    source: Path,
    names: Sequence[str],
    images: Sequence[Path] = (),
    format: str = "auto",
    progress: bool = True,
) -> list[Entry]:
    """Every photo of one source, with its labels or the file that has them.

    Args:
        source: see the module.
        names: the classes in order.
        images: folders to look in for photos that are not where the labels say.
        format: a key of `utils.data.labels.FORMATS`, to take only such label files; "auto" for any.
        progress: whether to show a bar where it takes more than a second.

    Raises:
        InputError: there is no photo in it, or it is no source.
    """
    _label_places.cache_clear()  # folders may have come since
    if reader := DATA_SET_READERS.get(source.suffix.lower()):
        return [*reader(source, names, images)]
    told: list[Record] = []
    if source.is_dir():
        pairs, told = _of_folder(source, images, format, progress)
    elif source.suffix.lower() in (".txt", ".list"):
        pairs = _of_file(source, images, format, progress)
    else:
        raise InputError(
            f"{source}: expected a .txt list of photos, a folder, a VOC ImageSets split, or a"
            " file of labels: .json (COCO, Label Studio) or .xml (CVAT)"
        )
    if not pairs:
        problems = [problem for record in told for problem in record.problems]
        others = "".join(f"; {each.kind}: {each.where}: {each.detail}" for each in problems[:5])
        raise InputError(f"{source}: no photos in it (suffixes {', '.join(SUFFIXES)}){others}")
    return [*pairs, *told]


def label_files(sources: Sequence[Path]) -> Iterator[Path]:
    """The label files of the photos of some sources, each once."""
    seen: set[Path] = set()
    for source in sources:
        if source.is_dir():
            pairs = _of_folder(source, (), "auto")[0]
        else:
            pairs = _of_file(source, (), "auto")
        for pair in pairs:
            if pair.label_file and pair.label_file not in seen:
                seen.add(pair.label_file)
                yield pair.label_file


def label_file_of(photo: Path, format: str = "auto") -> Path | None:
    """The file with a photo's labels, or None: each format's own folder before beside the photo."""
    return Pair.of(photo, _candidates(photo, format)).label_file


def _there(paths: Sequence[Path]) -> list[Path]:
    """Those that are there, as a link that leads nowhere is: its labels are missing, not none."""
    return [path for path in paths if os.path.lexists(path)]


def _candidates(photo: Path, format: str = "auto") -> list[Path]:
    """Where a photo's labels may lie, the first place first."""
    if not photo.name:  # such as `/`
        return []
    return [
        folder / f"{photo.stem}{suffix}" for folder, suffix in _label_places(photo.parent, format)
    ]


@lru_cache(maxsize=4096)
def _label_places(photos: Path, format: str) -> tuple[tuple[Path, str], ...]:
    """The folders that may hold labels of a folder's photos, each with the suffix they have."""
    places: list[tuple[Path, str]] = []
    forms = formats(format)
    for form in forms:
        places += [(folder, form.suffix) for folder in (*_swapped(photos, form.folder), photos)]
    for folder in _other_label_folders(photos):
        places += [(folder, form.suffix) for form in forms]
    return tuple(dict.fromkeys(places))


def _other_label_folders(photos: Path) -> tuple[Path, ...]:
    """The folders that may hold labels of a folder's photos, of those that are there.

    In place of the last `images` on the way (in any case), beside the folder, and below it.
    """
    places = [photos.parent, photos]
    folders = [place / name for name in LABEL_FOLDERS for place in places]
    parts = list(photos.parts)
    for index in range(len(parts) - 1, -1, -1):
        if parts[index].lower() in PHOTO_FOLDERS:
            swapped = [Path(*parts[:index], name, *parts[index + 1 :]) for name in LABEL_FOLDERS]
            folders = swapped + folders
            break
    return tuple(folder for folder in folders if folder.is_dir())


def _of_file(
    source: Path, images: Sequence[Path], format: str, progress: bool = False
) -> list[Pair]:
    """The pairs of a list, or of a VOC split."""
    lines = _entries(source)
    shown = track(lines, f"photos of {source.name}") if progress else lines
    if _is_voc_split(source):
        return _of_split(source, shown, images)
    return _of_list(source, shown, format)


def _of_list(source: Path, lines: Iterable[str], format: str) -> list[Pair]:
    pairs = []
    for line in lines:
        photo = resolve(line, source.parent)
        pair = Pair.of(photo, _candidates(photo, format))
        if is_windows_path(line):
            problem = Problem("path of Windows", str(photo), f"listed as {line}")
            pair = replace(pair, problems=(*pair.problems, problem))
        pairs.append(pair)
    return pairs


def _entries(source: Path) -> list[str]:
    """The lines of a list that are neither empty nor a comment."""
    lines = (line.strip() for line in read_lines(source))
    return [line for line in lines if line and not line.startswith("#")]


def _is_voc_split(source: Path) -> bool:
    return source.parent.parent.name == "ImageSets" or source.parent.name == "ImageSets"


def _of_split(source: Path, lines: Iterable[str], images: Sequence[Path]) -> list[Pair]:
    """A VOC split: lines of `id`, or of `id 1` in the lists of one class."""
    root = next(p for p in source.parents if p.name == "ImageSets").parent
    index = PhotoIndex([*images, root / "JPEGImages", root / "images"])
    pairs = []
    for line in lines:
        name = line.replace("\\", "/")
        # An id may hold blanks: what looks like a mark belongs to it where there is such a photo.
        ids = [_stem(name), _stem(CLASS_LIST_MARK.sub("", name))]
        xmls = [root / "Annotations" / f"{each}.xml" for each in ids]
        whole = exists(xmls[0]) or index.has(ids[0])
        pairs.append(_voc_pair(index.photo(ids[not whole]), xmls[not whole]))
    return pairs


def _of_folder(
    folder: Path, images: Sequence[Path], format: str, progress: bool = False
) -> tuple[list[Pair], list[Record]]:
    """The pairs of a folder, and what else is in it."""
    if (folder / "Annotations").is_dir():  # the root of a VOC data set
        return _of_annotations(folder / "Annotations", images)
    files, closed = walk(folder)
    photos = [path for path in files if is_image(path)]
    if not photos and any(path.suffix == ".xml" and path.parent == folder for path in files):
        return _of_annotations(folder, images)
    pairs: list[Pair] = []
    labels: set[Path] = set()
    for photo in track(photos, f"labels of {folder.name}") if progress else photos:
        candidates = _candidates(photo, format)
        labels.update(there := _there(candidates))
        pairs.append(Pair.of(photo, there or candidates))
    rest = [path for path in files if path not in labels and not is_image(path)]
    lost: list[Path] = []
    for form in formats(format):
        apart = _swapped(folder, form.folder)
        more = walk(apart[0])[0] if apart and apart[0].is_dir() else []
        more = [path for path in more if path not in labels]
        lost += [path for path in dict.fromkeys(rest + more) if _is_label_file(path, form)]
    told = [_without_photo(path) for path in lost]
    return pairs, told + _others(set(rest) - set(lost)) + _closed(closed)


def _of_annotations(folder: Path, images: Sequence[Path]) -> tuple[list[Pair], list[Record]]:
    """The pairs of a folder of `.xml` files, and what else is there."""
    files, closed = walk(folder)
    xmls = [path for path in files if path.suffix == ".xml"]
    own = [folder.parent / "JPEGImages", folder.parent / "images"]
    index = PhotoIndex([*images, *own, folder])
    pairs = [
        _voc_pair(index.photo(xml.relative_to(folder).with_suffix("").as_posix()), xml)
        for xml in xmls
    ]
    taken = {pair.image for pair in pairs}
    unlabelled = [
        Record.told(Problem("photo without .xml", str(path), f"none in {folder}"))
        for place in own
        if place.is_dir()
        for path in walk(place)[0]
        if is_image(path) and path not in taken
    ]
    others = {path for path in files if path not in taken} - set(xmls)
    return pairs, unlabelled + _others(others) + _closed(closed)


def _voc_pair(photo: Path, xml: Path) -> Pair:
    """A photo with its `.xml`, or where that is missing with its labels in another format."""
    others = [path for path in _candidates(photo) if path != xml and path.suffix != ".xml"]
    return Pair.of(photo, [xml, *others])


def _is_label_file(path: Path, form: LabelFormat) -> bool:
    """Whether a file without a photo holds labels; a `.txt` may be anything."""
    return path.suffix == form.suffix and (form.exclusive or looks_like_labels(path))


def _without_photo(label_file: Path) -> Record:
    detail = f"no photo for {label_file.name}"
    return Record.told(Problem("missing photo", str(label_file), detail))


def _others(files: Iterable[Path]) -> list[Record]:
    """A word on the other files of a folder, by suffix."""
    return [
        Record.told(Problem("other files", str(paths[0]), f"one of {len(paths)}, {suffix}"))
        for suffix, paths in by_suffix(files).items()
    ]


def _closed(reasons: Sequence[str]) -> list[Record]:
    return [Record.told(Problem("unreadable folder", *reason.split(": ", 1))) for reason in reasons]


def _swapped(photos: Path, folder: str) -> list[Path]:
    """A folder's path with its last `images` or `JPEGImages` replaced, if it has one."""
    parts = list(photos.parts)
    for index in range(len(parts) - 1, -1, -1):
        if parts[index] in ("images", "JPEGImages"):
            parts[index] = folder
            return [Path(*parts)]
    return []


class PhotoIndex:
    """The photos of some folders by their names without suffixes; each folder is listed once."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._listed: dict[Path, dict[str, Path]] = {}

    def photo(self, name: str) -> Path:
        """The photo of that name in the first folder that has one, else where it was expected."""
        return self._find(name) or self._folders[0] / f"{name}{SUFFIXES[0]}"

    def has(self, name: str) -> bool:
        """Whether there is such a photo."""
        return self._find(name) is not None

    def _find(self, name: str) -> Path | None:
        paths = (
            self._list((folder / name).parent).get(Path(name).name) for folder in self._folders
        )
        return next((path for path in paths if path), None)

    def _list(self, folder: Path) -> dict[str, Path]:
        """The photos in a folder, of those of one name the one whose suffix is listed first."""
        if folder not in self._listed:
            paths: list[Path] = []
            with contextlib.suppress(OSError, ValueError):  # it does not exist, or never could
                paths = [path for path in folder.iterdir() if is_image(path)]
            paths.sort(key=lambda path: (SUFFIXES.index(path.suffix.lower()), path), reverse=True)
            self._listed[folder] = {path.stem: path for path in paths}
        return self._listed[folder]


def _stem(name: str) -> str:
    """An image id without a picture's suffix; other dots belong to it."""
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in SUFFIXES else name
