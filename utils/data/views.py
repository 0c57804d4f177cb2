"""What do training and validation use of a photo? That is kept in memory, and no more.

A phone's photo of 4000×3000 takes 36 MB decoded; of it a network of 416×416 sees 0.5 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from import_param import Augmentation
from utils.boxes import InputTransform, network_input
from utils.structures import Image

# Photos keep so many times the pixels that augmentation shows, in each direction. Resized twice, a
# photo is smoother than what validation sees: of 4000×3000 for 416×416 the differences between
# neighbouring pixels are 11 % less with 1, 3 % with 2.
OVERSAMPLED = 2.0
WORTHWHILE = 2.0  # photos less than this many times wider and higher than needed stay as they are


class View(Protocol):
    """What a reader uses of a photo; of equal views all is equal."""

    def __call__(self, image: Image) -> NDArray[Any]:
        """Uint8 [H, W, 3], RGB → what is used of it; the photo itself where that is as good."""
        ...

    def bytes_of(self, size: tuple[int, int]) -> int:
        """How many bytes that takes of a photo of (width, height) `size`."""
        ...


@dataclass(frozen=True)
class InputView:
    """The network's input that a photo becomes, [3, H, W]: validation needs nothing else.

    It is float32, 0 to 1, or of a photo of that size already the bytes of which these are made.

    Attributes:
        input_size: (width, height) of the network's input in pixels.
        letterbox: whether photos keep their aspect.
    """

    input_size: tuple[int, int]
    letterbox: bool

    def __call__(self, image: Image) -> NDArray[np.float32] | NDArray[np.uint8]:
        """See `utils.boxes.network_input`."""
        if self._is_input((image.shape[1], image.shape[0])):
            return np.stack(cv2.split(image)).astype(np.uint8, copy=False)
        return np.asarray(network_input(image, self.input_size, self.letterbox))

    def bytes_of(self, size: tuple[int, int]) -> int:
        """See `View`."""
        kind = np.uint8 if self._is_input(size) else np.float32
        return 3 * self.input_size[0] * self.input_size[1] * np.dtype(kind).itemsize

    def _is_input(self, size: tuple[int, int]) -> bool:
        """Whether a photo of `size` is not resized."""
        return size == self.input_size


@dataclass(frozen=True)
class TrainingView:
    """A photo in as many pixels as training can show of it, uint8 [h, w, 3].

    Photos that are WORTHWHILE times larger in both directions are resized, as Darknet resizes what
    validation sees, corners on corners: a smoother photo than that would be another kind of photo.

    Attributes:
        input_size: (width, height) of the network's input in pixels.
        letterbox: whether photos keep their aspect.
        enlarged: the photo keeps so many times the pixels of its place in the input.
    """

    input_size: tuple[int, int]
    letterbox: bool
    enlarged: float = 1.0

    @staticmethod
    def of(
        input_size: tuple[int, int], letterbox: bool, augmentation: Augmentation
    ) -> TrainingView:
        """What training with an augmentation uses; without changes of place, the place itself."""
        moves = augmentation.mosaic or augmentation.scale or augmentation.translate
        enlarged = OVERSAMPLED * (1 + augmentation.scale) if moves else 1.0
        return TrainingView(input_size, letterbox, enlarged)

    def __call__(self, image: Image) -> Image:
        """The photo, or a smaller one: the size at which it is seen, times `enlarged`."""
        height, width = image.shape[:2]
        w, h = self._shown((width, height))
        if (w, h) == (width, height):
            return image
        # As `utils.data.augment` resamples.
        matrix = np.diag([(width - 1) / max(w - 1, 1), (height - 1) / max(h - 1, 1), 1])[:2]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        smaller = cv2.warpAffine(
            image, matrix, (w, h), flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(smaller, np.uint8)

    def bytes_of(self, size: tuple[int, int]) -> int:
        """See `View`."""
        width, height = self._shown(size)
        return 3 * width * height

    def _shown(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (width, height) in which a photo of `size` is kept."""
        placed = InputTransform.of(size, self.input_size, self.letterbox)
        w, h = round(placed.width * self.enlarged), round(placed.height * self.enlarged)
        return size if w * WORTHWHILE > size[0] or h * WORTHWHILE > size[1] else (w, h)
