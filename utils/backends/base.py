"""What every engine that runs a network is: images in, the heads' raw maps out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.errors import InputError

PRECISIONS = ("fp32", "fp16", "bf16", "int8")


class Engine(Protocol):
    """A network made ready for one input size on one library.

    Called with float32 images [B, 3, H, W], 0 to 1, of any B, it gives what `Darknet.forward`
    gives: the raw map of each [yolo], float32 [B, anchors·(5+classes), h, w].

    Attributes:
        name: of the library, a key of `ENGINES`.
        precision: one of `PRECISIONS`.
        size: (width, height) of the input in pixels.
    """

    name: str
    precision: str
    size: tuple[int, int]

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Images → raw maps."""
        ...

    def synchronize(self) -> None:
        """Wait until the maps of all calls are computed; a card works on while Python goes on."""
        ...


@dataclass(frozen=True)
class EngineOptions:
    """What an engine is made for."""

    size: tuple[int, int]  # (width, height) of the input in pixels
    precision: str = "fp32"  # one of PRECISIONS
    batch: int = 1  # images that it runs at once; it takes any number
    threads: int = 0  # 0 = as many as torch uses
    calibration: Iterable[Tensor] | None = None  # for int8: batches [B, 3, H, W] like those to come
    int8_loss: float | None = None  # that is allowed, see `quantization`; None = not compared
    use_cache: bool = True  # keep int8 networks, so that the same one is quantised once

    def check_precision(self, engine: str, supported: Sequence[str]) -> None:
        """Refuse a precision that an engine lacks.

        Raises:
            InputError: the precision is none of those that are supported here.
        """
        if self.precision not in supported:
            raise InputError(
                f"precision={self.precision!r}: expected one of {', '.join(supported)}, "
                f"which {engine} has on this machine"
            )

    def random_images(self) -> Tensor:
        """Noise of the shape that the engine runs at once, [batch, 3, H, W]."""
        return torch.rand(self.batch, 3, self.size[1], self.size[0])


def maps_agree(maps: Sequence[Tensor], reference: Sequence[Tensor], tolerance: float) -> bool:
    """Whether maps have the shapes of a reference and its values, and these are finite.

    Args:
        maps: raw maps.
        reference: the maps that they should be.
        tolerance: the largest difference, as a share of the largest value of each map.
    """
    pairs = list(zip(maps, reference, strict=True))
    return all(a.shape == b.shape for a, b in pairs) and all(
        bool((a - b).abs().max() <= tolerance * b.abs().max() < math.inf) for a, b in pairs
    )


class FixedBatch(ABC):
    """An engine that runs `batch` images at a time: others are cut up, and filled up with black."""

    name = ""

    def __init__(self, options: EngineOptions) -> None:
        """Take over what the engine is made for."""
        self.precision, self.size, self.batch = options.precision, options.size, options.batch

    @abstractmethod
    def run(self, images: Tensor) -> list[Tensor]:
        """Exactly `batch` images → the maps."""

    def synchronize(self) -> None:  # noqa: B027  what computes on the CPU is done when it returns
        """Wait until the maps of all calls are computed."""

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> list[Tensor]:
        """Any number of images → the maps.

        Raises:
            InputError: the images have another size than the engine was opened for.
        """
        width, height = self.size
        if images.shape[1:] != (3, height, width):
            raise InputError(
                f"images of {tuple(images.shape)}: expected (B, 3, {height}, {width}), "
                f"the size that the {self.name} engine was opened for"
            )
        if len(images) == self.batch:
            return self.run(images)
        missing = -len(images) % self.batch
        chunks = F.pad(images, (0, 0) * 3 + (0, missing)).split(self.batch)
        parts = zip(*(self.run(chunk) for chunk in chunks), strict=True)
        return [torch.cat(maps)[: len(images)] for maps in parts]
