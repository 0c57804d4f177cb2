"""Which photos are there, and which label file belongs to each?

A source is

- a text file that lists photos, one a line (Darknet), where a line that begins with `#` is a
  comment and a photo of such a name is written `./#1.jpg`: labels lie beside each photo or in the
  folder `labels` next to `images` or `JPEGImages`, as YOLO `.txt`; or as VOC `.xml`, beside it or
  in `Annotations`;
- a folder of photos, with labels found in the same way (subfolders are searched);
- a VOC split, `…/ImageSets/Main/*.txt`, or a VOC root or `Annotations` folder;
- a COCO `.json`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from utils.data.definition import resolve
from utils.data.labels import DATA_SET_READERS, formats, read_labels
from utils.data.labels.record import Record
from utils.errors import InputError
from utils.files import exists, is_file, read_lines
from utils.images import SUFFIXES, is_image

Pair = tuple[Path, Path | None]  # a photo, and the file with its labels


def read_source(
    source: Path,
    names: Sequence[str],
    images: Sequence[Path] = (),
    format: str = "auto",
    progress: bool = True,
) -> list[Record]:
    """Read every photo of one source with its labels.

    Args:
        source: see the module.
        names: the classes in order.
        images: folders to look in for photos that are not where the labels say.
        format: a key of `utils.data.labels.FORMATS`, to take only such label files; "auto" for any.
        progress: whether to show a bar where it takes more than a second.

    Raises:
        InputError: there is no photo in it, or it is no source.
    """
    if reader := DATA_SET_READERS.get(source.suffix.lower()):
        return reader(source, names, images)
    if source.is_dir():
        pairs = _of_folder(source, images, format)
    elif source.suffix.lower() in (".txt", ".list"):
        pairs = _of_split(source, images) if _is_voc_split(source) else _of_list(source, format)
    else:
        raise InputError(
            f"{source}: expected a .txt list of photos, a folder, a VOC ImageSets split or a"
            " COCO .json"
        )
    if not pairs:
        raise InputError(f"{source}: no photos in it (suffixes {', '.join(SUFFIXES)})")
    bar = tqdm(pairs, f"labels of {source.name}", delay=1, leave=False, disable=not progress)
    return [read_labels(image, label_file, names) for image, label_file in bar]


def label_file_of(photo: Path, format: str = "auto") -> Path | None:
    """The file with a photo's labels, or None: each format's own folder before beside the photo."""
    candidates: list[Path] = []
    for form in formats(format):
        candidates += [*_swapped(photo, form.folder, form.suffix), photo.with_suffix(form.suffix)]
    return next((path for path in candidates if is_file(path)), None)


def _of_list(source: Path, format: str) -> list[Pair]:
    photos = [resolve(line, source.parent) for line in _entries(source)]
    return [(photo, label_file_of(photo, format)) for photo in photos]


def _entries(source: Path) -> list[str]:
    """The lines of a list that are neither empty nor a comment."""
    lines = (line.strip() for line in read_lines(source))
    return [line for line in lines if line and not line.startswith("#")]


def _is_voc_split(source: Path) -> bool:
    return source.parent.parent.name == "ImageSets" or source.parent.name == "ImageSets"


def _of_split(source: Path, images: Sequence[Path]) -> list[Pair]:
    """A VOC split: lines of `id`, or of `id 1` in the lists of one class."""
    root = next(p for p in source.parents if p.name == "ImageSets").parent
    ids = [line.split()[0] for line in _entries(source)]
    xmls = [root / "Annotations" / f"{_stem(name)}.xml" for name in ids]
    folders = [*images, root / "JPEGImages", root / "images"]
    return [
        (_photo_named(_stem(name), folders), xml if exists(xml) else None)
        for name, xml in zip(ids, xmls, strict=True)
    ]


def _of_folder(folder: Path, images: Sequence[Path], format: str) -> list[Pair]:
    if (folder / "Annotations").is_dir():  # the root of a VOC data set
        return _of_annotations(folder / "Annotations", images)
    photos = sorted(path for path in folder.rglob("*") if is_image(path))
    if not photos and any(folder.glob("*.xml")):
        return _of_annotations(folder, images)
    pairs: list[Pair] = [(photo, label_file_of(photo, format)) for photo in photos]
    taken = {label_file for _, label_file in pairs}
    for suffix in (form.suffix for form in formats(format) if form.exclusive):
        lost = sorted(path for path in folder.rglob(f"*{suffix}") if path not in taken)
        pairs += [(path.with_suffix(".jpg"), path) for path in lost]  # reported as missing
    return pairs


def _of_annotations(folder: Path, images: Sequence[Path]) -> list[Pair]:
    folders = [*images, folder.parent / "JPEGImages", folder.parent / "images", folder]
    return [(_photo_named(xml.stem, folders), xml) for xml in sorted(folder.glob("*.xml"))]


def _swapped(photo: Path, folder: str, suffix: str) -> list[Path]:
    """The path with its last `images` or `JPEGImages` replaced, if it has one."""
    parts = list(photo.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] in ("images", "JPEGImages"):
            parts[index] = folder
            return [Path(*parts).with_suffix(suffix)]
    return []


def _photo_named(stem: str, folders: Iterable[Path]) -> Path:
    """The picture of that stem in the first folder that has one, else where it was expected."""
    candidates = [folder / (stem + s) for folder in folders for s in (*SUFFIXES, ".JPG", ".PNG")]
    return next((path for path in candidates if exists(path)), candidates[0])


def _stem(name: str) -> str:
    """An image id without a picture's suffix; other dots belong to it."""
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in SUFFIXES else name
