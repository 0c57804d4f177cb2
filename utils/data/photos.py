"""Photos whose labels have been checked: one of them, and those of one split."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class PhotoSet:
    """The sound photos of one split, and of those that fitted into memory what is used of them.

    Attributes:
        names: the classes in order.
        photos: the photos in order.
        cache: decoded photos, by their index.
        views: what `view` makes of photos, by their index, where that is smaller than the photo.
        report: what the check of the photos says.
        mirror: whether a mirrored object is still the same object; not so for digits and signs.
        max_megapixels: the size above which photos are not decoded.
        view: what the photos were opened for.
    """

    names: tuple[str, ...]
    photos: tuple[Photo, ...]
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
