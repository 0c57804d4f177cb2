"""What is written of detections beside the annotated pictures: labels, a JSON file, crops, counts.

Under the output folder, for a picture with the key `holiday/dog`:

    labels/holiday/dog.txt          one line an object, best first: class x y width height score;
                                    the class is a number from 0, (x, y) the box's centre, all four
                                    as shares of the picture, 0 to 1 (Darknet's label format and
                                    the score). Empty where nothing was detected.
    crops/<class>/holiday/dog_0.jpg what lies inside the box; 0 is the best object of the picture.
    detections.json                 COCO's format: `images`, `categories` and `annotations`, the
                                    latter with `bbox` (x, y, width, height, as COCO wants it) and
                                    also `score`, `file_name`, `category` and `xyxy`. Boxes are in
                                    pixels of the picture; category ids are class numbers from 0.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from import_param import Detection
from utils.boxes import xyxy_to_cxcywh
from utils.errors import InputError
from utils.files.numbers import to_int
from utils.files.paths import within
from utils.files.writing import atomic, write_text
from utils.structures import Detections, Image
from utils.visualization.draw import write_image


@dataclass(frozen=True)
class Picture:
    """A photo, or a frame of a video, on its way through a detection script.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        input: float32 [3, net_h, net_w], the same for the network.
        key: what the files about it are called, with `/` between folders and without a suffix.
        file: where it came from, as the user knows it.
        frame: its number in a video, from 0; None for a photo.
        seconds: when it was read, on time.monotonic's clock.
        time: the same, in seconds since 1970.
        position: of a frame in its file, in seconds from the beginning.
        source: the number of the video that it is of, among several.
    """

    image: Image
    input: Tensor
    key: str
    file: str
    frame: int | None = None
    seconds: float = 0.0
    time: float = 0.0
    position: float | None = None
    source: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]


@dataclass(frozen=True)
class DetectedPicture:
    """A picture with what was detected on it."""

    picture: Picture
    detections: Detections


class Results:
    """Writes the files that a user asked for of each picture, and counts the objects of each class.

    Use it in a `with`: leaving it, for whatever reason, completes detections.json with what has
    been added until then.

    Args:
        folder: where they go.
        names: of the classes.
        settings: which files are asked for.
        write_line: takes each picture once its files are there; see `utils.detection.lines`.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        settings: Detection,
        write_line: Callable[[DetectedPicture], None] | None = None,
    ) -> None:
        self.counts: Counter[int] = Counter()
        self.pictures = 0
        self._folder, self._names = folder, names
        self._save_txt, self._save_crops = settings.save_txt, settings.save_crops
        self._write_line = write_line
        self._stack = ExitStack()
        self._json: JsonFile | None = None
        if settings.save_json:
            temporary = self._stack.enter_context(atomic(folder / "detections.json"))
            file = self._stack.enter_context(temporary.open("w", encoding="utf-8"))
            self._json = self._stack.enter_context(JsonFile(file, names))

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()  # without the error, so that what is done stays

    def add(self, item: DetectedPicture) -> None:
        """Write and count a picture's detections."""
        self.pictures += 1
        self.counts.update(item.detections.labels.tolist())
        if self._save_txt:
            lines = label_lines(item.detections, item.picture.size)
            path = within(self._folder, f"labels/{item.picture.key}.txt")
            write_text(path, "".join(lines))
        if self._save_crops:
            for name, crop in crops(item, self._names):
                write_image(within(self._folder, f"crops/{name}"), crop)
        if self._json is not None:
            self._json.add(item)
        if self._write_line is not None:  # last: who reads it finds the files
            self._write_line(item)

    def summary(self) -> str:
        """Objects of each class, most frequent first, such as `3 objects: dog 2, bicycle 1`."""
        total = self.counts.total()
        if not total:
            return "no objects"
        parts = [f"{name_of(label, self._names)} {n}" for label, n in self.counts.most_common()]
        return f"{total} object{'s' * (total > 1)}: {', '.join(parts)}"


class JsonFile:
    """COCO's JSON, written annotation by annotation, so that a long video does not fill memory."""

    def __init__(self, file: IO[str], names: Sequence[str]) -> None:
        self._file, self._names = file, names
        self._images: list[str] = []
        self._annotations = 0
        categories = [{"id": label, "name": name} for label, name in enumerate(names)]
        file.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [')

    def __enter__(self) -> "JsonFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.write('\n],\n"images": [\n' + ",\n".join(self._images) + "\n]}\n")

    def add(self, item: DetectedPicture) -> None:
        """Write a picture's detections; its own record comes at the end of the file."""
        picture, detections = item.picture, item.detections
        width, height = picture.size
        record = {"id": len(self._images), "file_name": picture.file}
        record |= {"width": width, "height": height}
        if picture.frame is not None:
            record["frame"] = picture.frame
        for box, score, label in zip(
            detections.boxes.tolist(),
            detections.scores.tolist(),
            detections.labels.tolist(),
            strict=True,
        ):
            left, top, right, bottom = box
            extent = right - left, bottom - top
            annotation = {
                "id": self._annotations,
                "image_id": len(self._images),
                "file_name": picture.file,
                "category_id": label,
                "category": name_of(label, self._names),
                "score": round(score, 6),
                "bbox": _rounded(left, top, *extent),
                "xyxy": _rounded(*box),
                "area": round(extent[0] * extent[1], 3),
                "iscrowd": 0,
            }
            self._file.write(",\n" if self._annotations else "\n")
            self._file.write(json.dumps(annotation))
            self._annotations += 1
        self._images.append(json.dumps(record))


def label_lines(detections: Detections, size: tuple[int, int]) -> list[str]:
    """Detections on a picture of (width, height) `size` → lines of a label file, best first."""
    shares = xyxy_to_cxcywh(detections.boxes) / detections.boxes.new_tensor([*size, *size])
    return [
        f"{label} {' '.join(f'{value:.6f}' for value in share)} {score:.6f}\n"
        for label, share, score in zip(
            detections.labels.tolist(), shares.tolist(), detections.scores.tolist(), strict=True
        )
    ]


def crops(item: DetectedPicture, names: Sequence[str]) -> Iterator[tuple[str, Image]]:
    """(path below the crops' folder, what lies inside the box), for each object."""
    width, height = item.picture.size
    low = item.detections.boxes[:, :2].floor().long()
    high = item.detections.boxes[:, 2:].ceil().long()
    low = low.clamp(min=0).minimum(torch.tensor([width - 1, height - 1]))
    high = high.minimum(torch.tensor([width, height])).maximum(low + 1)  # at least one pixel
    for number, ((left, top), (right, bottom), label) in enumerate(
        zip(low.tolist(), high.tolist(), item.detections.labels.tolist(), strict=True)
    ):
        folder = file_name(name_of(label, names))
        crop = item.picture.image[top:bottom, left:right]
        yield f"{folder}/{item.picture.key}_{number}.jpg", crop


def file_name(text: str) -> str:
    """`text` as the name of a file or folder on any system; a class may be called `a/b` or `..`."""
    return re.sub(r"[^\w .-]+", "_", text).strip(" .") or "_"


def name_of(label: int, names: Sequence[str]) -> str:
    """A class's name, or its number where it has none."""
    return names[label] if 0 <= label < len(names) else f"#{label}"


def class_indices(wanted: Sequence[str], names: Sequence[str]) -> frozenset[int] | None:
    """Class names or numbers → numbers; None, for all classes, where none is given.

    A class that is called `7` is meant by `7` before the class with that number.

    Raises:
        InputError: there is no such class; the message lists those that there are.
    """
    indices: set[int] = set()
    for text in wanted:
        if text in names:
            indices.update(label for label, name in enumerate(names) if name == text)
        elif (number := _class_number(text)) in range(len(names)):
            indices.add(number)
        else:
            raise InputError(
                f"classes={text!r}: expected a number from 0 to {len(names) - 1}, "
                f"or one of: {', '.join(names)}"
            )
    return frozenset(indices) or None


def only_classes(
    detections: Detections, indices: frozenset[int] | None, max_detections: int | None = None
) -> Detections:
    """The best `max_detections` of the classes `indices`; None for all of either."""
    keep = torch.ones_like(detections.labels, dtype=torch.bool)
    if indices is not None:
        keep = torch.isin(detections.labels, torch.tensor(sorted(indices)).to(keep.device))
    boxes, scores, labels = (
        values[keep][:max_detections]
        for values in (detections.boxes, detections.scores, detections.labels)
    )
    return Detections(boxes, scores, labels)


def output_names(paths: Sequence[Path]) -> list[Path]:
    """Photos → different relative paths: folders below the one that all share are kept."""
    absolute = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - links stay links
    common = os.path.commonpath([path.parent for path in absolute])
    return [path.relative_to(common) for path in absolute]


def output_keys(names: Sequence[Path]) -> list[str]:
    """Relative paths → different keys: without the suffix, except where `a.jpg` meets `a.png`."""
    keys = [name.with_suffix("").as_posix() for name in names]
    shared = Counter(keys)
    keys = [
        name.as_posix() if shared[key] > 1 else key for name, key in zip(names, keys, strict=True)
    ]
    # `a.jpg`, `a.png` and `a.jpg.png` together: only whole names are all different.
    return keys if len(set(keys)) == len(keys) else [name.as_posix() for name in names]


def _class_number(text: str) -> int:
    try:
        return to_int(text)
    except ValueError:
        return -1


def _rounded(*values: float) -> list[float]:
    return [round(value, 3) for value in values]
