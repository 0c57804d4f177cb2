"""What every engine that runs a network is: images in, the heads' raw maps out."""

from __future__ import annotations

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

    name: of the library, a key of ENGINES. precision: one of PRECISIONS. size: (width, height) of
    the input in pixels. Called with float32 images [B, 3, H, W], 0 to 1, of any B, it gives what
    `Darknet.forward` gives: the raw map of each [yolo], float32 [B, anchors·(5+classes), h, w].
    """

    name: str
    precision: str
    size: tuple[int, int]

    def __call__(self, images: Tensor) -> list[Tensor]: ...


@dataclass(frozen=True)
class Wanted:
    """What an engine is to be made for.

    size: (width, height) in pixels. batch: images it runs at once. threads: 0 for the library's
    own choice. calibration: batches of images to take the ranges of activations from, for int8.
    keep: whether to keep what int8 came to, for the next time.
    """

    size: tuple[int, int]
    precision: str = "fp32"
    batch: int = 1
    threads: int = 0
    calibration: Iterable[Tensor] | None = None
    keep: bool = True

    def refuse_precision(self, engine: str, able: tuple[str, ...]) -> None:
        """Raise InputError unless the engine can compute as asked here."""
        if self.precision not in able:
            raise InputError(
                f"precision={self.precision!r}: expected one of {', '.join(able)}, "
                f"which {engine} has on this machine"
            )

    def images(self) -> Tensor:
        """Some images of the right shape."""
        return torch.rand(self.batch, 3, self.size[1], self.size[0])


def near(found: Sequence[Tensor], wanted: Sequence[Tensor], share: float) -> bool:
    """Whether maps have the shapes of others, and differ from each by no more than a share of its
    largest value."""
    pairs = list(zip(found, wanted, strict=True))
    return all(a.shape == b.shape for a, b in pairs) and all(
        bool((a - b).abs().max() <= share * b.abs().max()) for a, b in pairs
    )


class FixedBatch(ABC):
    """An engine that runs `batch` images at a time: others are cut up, and filled up with black."""

    name = ""

    def __init__(self, wanted: Wanted) -> None:
        self.precision, self.size, self.batch = wanted.precision, wanted.size, wanted.batch

    @abstractmethod
    def run(self, images: Tensor) -> list[Tensor]:
        """Exactly `batch` images → the maps."""

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> list[Tensor]:
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
