"""Photos whose labels have been checked: one of them, and those of one split."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from utils.boxes import InputTransform
from utils.data.report import Report
from utils.data.views import View
from utils.errors import InputError
from utils.images import MAX_MEGAPIXELS, read_photo
from utils.structures import Image, Targets


@dataclass(frozen=True)
class Photo:
    """One photo and its sound labels.

    Attributes:
        path: the file.
        size: (width, height) in pixels of the upright photo.
        boxes: float32 [N, 4], xyxy in pixels of the upright photo.
        labels: int64 [N], class indices.
        ignore: bool [N], VOC's `difficult` or COCO's crowd.
        area: float32 [N], pixels.
        image_id: that of COCO's file, see `utils.data.labels.record.Record`.
        category_ids: those of COCO's file.
        file_bytes: the length of the file when the photo was checked.
    """

    path: Path
    size: tuple[int, int]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    ignore: NDArray[np.bool_]
    area: NDArray[np.float32]
    image_id: int | None = None
    category_ids: tuple[int, ...] | None = None
    file_bytes: int | None = None

    def targets(self) -> Targets:
        """What is to be found on the photo."""
        return Targets(*map(torch.from_numpy, (self.boxes, self.labels, self.ignore, self.area)))


class Photos(Sequence[Photo]):
    """Photos in a few arrays; each `Photo` is made when it is asked for.

    Of 100,000 photos the objects themselves would take 200 MB, and as much again in each worker in
    the course of an epoch: whoever looks at an object counts a reference to it, which copies the
    memory that forked processes shared.
    """

    NONE = -(2**63)  # in place of an id; COCO's are smaller in amount

    def __init__(self) -> None:
        self._paths, self._path_ends = bytearray(), array("q", [0])
        self._numbers = array("q")  # width, height, image id, bytes of the file, kind; of each
        self._category_ids: list[tuple[int, ...] | None] = []  # by kind; most sets have just one
        self._ends = array("q", [0])  # of each photo's labels
        self._boxes, self._labels = bytearray(), bytearray()
        self._ignore, self._area = bytearray(), bytearray()

    @staticmethod
    def of(photos: Sequence[Photo]) -> Photos:
        """The same photos."""
        gathered = Photos()
        for photo in photos:
            gathered.append(photo)
        return gathered

    def append(self, photo: Photo) -> None:
        """Add one at the end, before any is asked for."""
        self._paths += os.fsencode(photo.path)
        self._path_ends.append(len(self._paths))
        if photo.category_ids not in self._category_ids:
            self._category_ids.append(photo.category_ids)
        own = (photo.image_id, photo.file_bytes)
        numbers = (self.NONE if number is None else number for number in own)
        kind = self._category_ids.index(photo.category_ids)
        self._numbers.extend((*photo.size, *numbers, kind))
        self._ends.append(self._ends[-1] + len(photo.labels))
        self._boxes += photo.boxes.astype(np.float32).tobytes()
        self._labels += photo.labels.astype(np.int64).tobytes()
        self._ignore += photo.ignore.astype(np.bool_).tobytes()
        self._area += photo.area.astype(np.float32).tobytes()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[Photo]:
        return map(self._photo, range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Photo: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Photo, ...]: ...
    def __getitem__(self, index: int | slice) -> Photo | tuple[Photo, ...]:
        chosen = range(len(self))[index]
        return self._photo(chosen) if isinstance(chosen, int) else tuple(map(self._photo, chosen))

    def _photo(self, index: int) -> Photo:
        path_begin, path_end = self._path_ends[index : index + 2]
        begin, end = self._ends[index : index + 2]
        count = end - begin
        width, height, image_id, file_bytes, kind = self._numbers[5 * index : 5 * index + 5]
        return Photo(
            path=Path(os.fsdecode(bytes(self._paths[path_begin:path_end]))),
            size=(width, height),
            boxes=np.frombuffer(self._boxes, np.float32, 4 * count, 16 * begin).reshape(-1, 4),
            labels=np.frombuffer(self._labels, np.int64, count, 8 * begin),
            ignore=np.frombuffer(self._ignore, np.bool_, count, begin),
            area=np.frombuffer(self._area, np.float32, count, 4 * begin),
            image_id=None if image_id == self.NONE else image_id,
            category_ids=self._category_ids[kind],
            file_bytes=None if file_bytes == self.NONE else file_bytes,
        )


@dataclass(frozen=True)
class PhotoSet:
    """The sound photos of one split, and of those that fitted into memory what is used of them.

    Attributes:
        names: the classes in order.
        photos: the photos in order, such as `Photos`.
        cache: decoded photos, by their index.
        views: what `view` makes of photos, by their index, where that is smaller than the photo.
        report: what the check of the photos says.
        mirror: whether a mirrored object is still the same object; not so for digits and signs.
        max_megapixels: the size above which photos are not decoded.
        view: what the photos were opened for.
    """

    names: tuple[str, ...]
    photos: Sequence[Photo]
    cache: dict[int, Image]
    report: Report
    mirror: bool = True
    max_megapixels: float = MAX_MEGAPIXELS
    view: View | None = None
    views: dict[int, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.photos)

    def describe(self) -> str:
        """How many photos, objects and classes there are, in words."""
        objects, classes = sum(self.report.objects), len(self.names)
        return f"{len(self)}, with {objects} objects of {classes} classes"

    def image(self, index: int) -> Image:
        """Decode a photo: uint8 [H, W, 3], RGB, upright. Not to be written to: it may be cached.

        Raises:
            InputError: it cannot be read any more, or is another one than was checked.
        """
        if (cached := self.cache.get(index)) is not None:
            return cached
        photo = self.photos[index]
        decoded = read_photo(photo.path, self.max_megapixels)
        height, width = decoded.image.shape[:2]
        if (width, height) != photo.size or decoded.file_bytes != photo.file_bytes:
            raise InputError(
                f"{photo.path}: changed since the photos were checked: {width}×{height} pixels in"
                f" {decoded.file_bytes} bytes, then {photo.size[0]}×{photo.size[1]} in"
                f" {photo.file_bytes}"
            )
        return decoded.image

    def viewed(self, index: int, view: View) -> NDArray[Any]:
        """What a view makes of a photo. Not to be written to: it may be cached.

        Raises:
            InputError: see `image`.
        """
        if view == self.view and (cached := self.views.get(index)) is not None:
            return cached
        return view(self.image(index))

    def object_sizes(self, net: tuple[int, int], letterbox: bool) -> NDArray[np.float64]:
        """Measure all objects that are not ignored as the network will see them.

        Args:
            net: (width, height) of the network's input in pixels.
            letterbox: whether photos keep their aspect.

        Returns:
            float64 [N, 2], (width, height) in pixels of the input.
        """
        sizes = [np.zeros((0, 2))]
        for photo in self.photos:
            transform = InputTransform.of(photo.size, net, letterbox)
            size = (photo.boxes[:, 2:] - photo.boxes[:, :2])[~photo.ignore]
            sizes.append(size * np.array([transform.scale_x, transform.scale_y]))
        return np.concatenate(sizes)
