"""Which label formats are there? One module reads one; to add one, write its reader and an entry.

A reader of `FORMATS` reads the file of one photo, one of `DATA_SET_READERS` the file of a whole
data set.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.data.labels.cvat import read_cvat
from utils.data.labels.json_files import read_json
from utils.data.labels.labelme import read_labelme
from utils.data.labels.record import Record
from utils.data.labels.voc import read_voc
from utils.data.labels.yolo import read_yolo


@dataclass(frozen=True)
class LabelFormat:
    """Label files of which each belongs to one photo.

    Attributes:
        suffix: of the label files.
        folder: where they lie if not beside the photo: in place of its folder `images` or
            `JPEGImages`, or beside or below its own.
        read: (photo, label file, class names) → the photo's record.
        exclusive: whether a file with this suffix among photos is always a label file, so that one
            without a photo is worth telling.
    """

    suffix: str
    folder: str
    read: Callable[[Path, Path, Sequence[str]], Record]
    exclusive: bool = False


# In the order in which a photo's label file is looked for, if the format is "auto".
FORMATS = {
    "yolo": LabelFormat(".txt", "labels", read_yolo),
    "voc": LabelFormat(".xml", "Annotations", read_voc, exclusive=True),
    "labelme": LabelFormat(".json", "annotations", read_labelme),
}
# Folders that tools call otherwise than `LabelFormat.folder`.
LABEL_FOLDERS = ("labels", "Annotations", "annotations", "Labels", "xml", "xmls", "json")

# By the suffix of the file: (file, class names, folders with photos) → a record a photo.
DATA_SET_READERS: dict[str, Callable[[Path, Sequence[str], Sequence[Path]], list[Record]]] = {
    ".json": read_json,
    ".xml": read_cvat,
}


def formats(name: str) -> list[LabelFormat]:
    """The formats that a `.data` file's `format` admits: one by its name, or "auto" for all."""
    return list(FORMATS.values()) if name == "auto" else [FORMATS[name]]


def read_labels(image: Path, label_file: Path | None, names: Sequence[str]) -> Record:
    """The record of a photo with a label file in one of `FORMATS`, or without any."""
    if label_file is None:
        return Record.of(image, None, [])
    suffix = label_file.suffix.lower()
    return next(f for f in FORMATS.values() if f.suffix == suffix).read(image, label_file, names)
