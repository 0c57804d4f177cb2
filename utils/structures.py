"""What flows between the parts: images with boxes in, detections and figures out.

Everywhere, boxes are ``xyxy`` (left, top, right, bottom) in pixels, x to the right and y down;
pixel i covers the interval [i, i + 1). Whose pixels, the original photo's or the network's
input's, is said beside each field.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from utils.devices import constant, to_device

Image = NDArray[np.uint8]  # [H, W, 3], RGB


@dataclass(frozen=True)
class Targets:
    """The ground truth of one photo.

    Attributes:
        boxes: float32 [N, 4], xyxy in pixels of the original photo.
        labels: int64 [N], class indices from 0.
        ignore: bool [N], VOC's `difficult` or COCO's crowd: neither trained on nor counted.
        area: float32 [N], in pixels; the box's own, or that of COCO's segmentation.
    """

    boxes: Tensor
    labels: Tensor
    ignore: Tensor
    area: Tensor


@dataclass(frozen=True)
class Sample:
    """One photo in training, before and after each augmentation.

    Attributes:
        image: uint8 [H, W, 3], RGB. A numpy array, since OpenCV warps it many times faster than
            torch does on a CPU.
        boxes: float32 [N, 4], xyxy in pixels of `image`.
        labels: int64 [N].
        path: where the photo came from (a mosaic keeps its first photo's).
    """

    image: Image
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    path: str


@dataclass(frozen=True)
class Batch:
    """Several photos at the network's input size.

    Attributes:
        images: [B, 3, H, W], RGB. Pixels that are whole numbers travel as uint8, 0 to 255, a
            quarter of the bytes; those with fractions, of photos that were resized to validate on,
            are float32, 0 to 1. `for_network` and `to` make float32, 0 to 1, of either.
        boxes: float32 [M, 4], xyxy in pixels of the network's input, all photos' one after another.
        labels: int64 [M].
        image_index: int64 [M], which of the B photos a box is on.
        paths: the B files.
        sizes: the B original photos' (width, height) in pixels.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    image_index: Tensor
    paths: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]

    def for_network(
        self, device: torch.device, memory_format: torch.memory_format = torch.preserve_format
    ) -> "Batch":
        """The batch with its images as a network on a device takes them: there, float32, 0 to 1.

        Boxes and labels stay where they are.
        """
        images = unit_floats(to_device(self.images, device), memory_format)
        return replace(self, images=images)

    def to(self, device: torch.device | str) -> "Batch":
        """The batch with all its tensors on a device, and its images as a network takes them."""
        device = torch.device(device)
        moved = self._with_tensors(lambda tensor: to_device(tensor, device))
        return moved.for_network(device)

    def pin_memory(self) -> "Batch":
        """The batch in memory from which a card reads while the program goes on."""
        return self._with_tensors(Tensor.pin_memory)

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(
            self,
            images=change(self.images),
            boxes=change(self.boxes),
            labels=change(self.labels),
            image_index=change(self.image_index),
        )


def unit_floats(
    images: Tensor, memory_format: torch.memory_format = torch.preserve_format
) -> Tensor:
    """Uint8, 0 to 255, as float32, 0 to 1; floats as they are."""
    if images.dtype != torch.uint8:
        return images.to(memory_format=memory_format)
    floats = images.to(torch.float32, memory_format=memory_format)
    # By a tensor: a card would multiply by the reciprocal of a number, which has other last bits.
    return floats.div_(constant((255.0,), floats))


@dataclass(frozen=True)
class Predictions:
    """Every box that a network proposes, before NMS.

    Attributes:
        boxes: float32 [B, P, 4], xyxy in pixels of the network's input.
        objectness: float32 [B, P], 0 to 1.
        classes: float32 [B, P, C], the probability of each class given an object, 0 to 1.
    """

    boxes: Tensor
    objectness: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Detections:
    """The predictions on one photo that survive NMS, best first.

    Attributes:
        boxes: float32 [K, 4], xyxy in pixels of the original photo.
        scores: float32 [K], objectness times class probability.
        labels: int64 [K].
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.scores)
