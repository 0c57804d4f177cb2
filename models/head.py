"""How does the raw map before a [yolo] become boxes?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.netdef import Section, head_anchors
from utils.boxes import cxcywh_to_xyxy
from utils.devices import constant
from utils.errors import InputError
from utils.structures import Predictions

# By `nms_kind`, IoU is lowered in NMS by a power of the distance between centres, or not at all.
# In AlexeyAB's box.c `greedynms`, too, subtracts, always with 0.6.
NMS_KINDS = ("default", "greedynms", "diounms")
GREEDY_POWER = 0.6


def expect_finite(maps: Sequence[Tensor], source: str) -> None:
    """Refuse what a network computed where a number of it is none.

    NaN passes every comparison, so nothing after it would notice. (A sum tells: 20 µs for the maps
    of yolov3-tiny at 416x416. One of all maps, since a card is waited for to read it.)

    Args:
        maps: of a network.
        source: what computed them, for the message.

    Raises:
        InputError: a value is not finite.
    """
    sums = [values.sum() for values in maps]
    if not sums or torch.stack(sums).sum().isfinite():
        return
    for number, values in enumerate(maps):
        if not values.isfinite().all():
            wrong = float(values[~values.isfinite()][0])
            raise InputError(f"{source}: computes {wrong} (map {number}): expected finite numbers")


@dataclass(frozen=True)
class Head:
    """A [yolo]: its anchors and rules. A is their number, C that of the classes.

    Attributes:
        anchors: (width, height) of each in pixels of the input.
        classes: their number.
        scale_xy: Darknet's `scale_x_y`: a cell's centres range over so many cells' widths.
        new_coords: whether the raw map already went through a sigmoid (Scaled-YOLOv4, Wang et al.,
            CVPR 2021).
        nms_power: distance_power of `utils.evaluation.nms.nms`, None for plain IoU.
    """

    anchors: tuple[tuple[float, float], ...]
    classes: int
    scale_xy: float
    new_coords: bool
    nms_power: float | None = None

    @staticmethod
    def of(section: Section) -> Head:
        """The head that a [yolo] section defines."""
        return Head(
            tuple(head_anchors(section)),
            section.integer("classes", 20, at_least=1),
            section.number("scale_x_y", 1.0),
            section.flag("new_coords"),
            _nms_power(section),
        )

    @property
    def channels(self) -> int:
        """Of its raw map: A·(5+C)."""
        return len(self.anchors) * (5 + self.classes)

    def split(self, raw: Tensor) -> Tensor:
        """[B, A·(5+C), H, W] → logits [B, A, H, W, 5+C] of x, y, w, h, objectness, classes.

        With `new_coords` the map already went through a sigmoid, except w and h by rule: the
        logits of its values are returned, so that every head's sigmoids are taken in one place.
        """
        b, _, h, w = raw.shape
        cells = raw.view(b, len(self.anchors), 5 + self.classes, h, w).permute(0, 1, 3, 4, 2)
        return torch.logit(cells.float(), eps=1e-7) if self.new_coords else cells.float()

    def centre_offset(self, xy: Tensor) -> Tensor:
        """Logits of x, y [..., 2] → the centre, in cells from the cell's own corner [..., 2]."""
        return xy.sigmoid() * self.scale_xy - (self.scale_xy - 1) / 2

    def anchor_scale(self, wh: Tensor) -> Tensor:
        """Logits of w, h [..., 2] → width and height, as multiples of the anchor's [..., 2]."""
        if self.new_coords:
            return (wh.sigmoid() * 2) ** 2
        return wh.clamp(-10, 20).exp()  # beyond is no box; 0 and inf would poison the loss

    def decode(self, raw: Tensor, size: tuple[int, int]) -> Predictions:
        """The boxes of a raw map, cell by cell (YOLOv3, Redmon and Farhadi 2018, section 2.1).

        Args:
            raw: [B, A·(5+C), H, W].
            size: (width, height) of the network's input in pixels.

        Returns:
            P = A·H·W predictions for each image, in the order of anchor, row and column.
        """
        logits = self.split(raw)  # [B, A, H, W, 5+C]
        b, _, h, w, _ = logits.shape
        rows, columns = torch.meshgrid(
            torch.arange(h, device=raw.device), torch.arange(w, device=raw.device), indexing="ij"
        )
        corner = torch.stack([columns, rows], -1)  # [H, W, 2]
        cell = constant((size[0] / w, size[1] / h), logits)
        anchors = constant(self.anchors, logits)[:, None, None]  # [A, 1, 1, 2]
        centre = (self.centre_offset(logits[..., :2]) + corner) * cell
        extent = self.anchor_scale(logits[..., 2:4]) * anchors
        boxes = cxcywh_to_xyxy(torch.cat([centre, extent], -1))
        probabilities = logits[..., 4:].sigmoid()
        return Predictions(
            boxes.reshape(b, -1, 4),
            probabilities[..., 0].reshape(b, -1),
            probabilities[..., 1:].reshape(b, -1, self.classes),
        )


def decode(maps: Sequence[Tensor], heads: Sequence[Head], size: tuple[int, int]) -> Predictions:
    """The boxes of the raw maps of all heads, [B, P, 4] in pixels of the input, heads in order.

    Args:
        maps: a raw map [B, A·(5+C), H, W] for each head.
        heads: in the same order.
        size: (width, height) of the network's input in pixels.
    """
    parts = [head.decode(raw, size) for head, raw in zip(heads, maps, strict=True)]
    return Predictions(
        torch.cat([part.boxes for part in parts], 1),
        torch.cat([part.objectness for part in parts], 1),
        torch.cat([part.classes for part in parts], 1),
    )


def _nms_power(section: Section) -> float | None:
    kind = section.choice("nms_kind", "default", NMS_KINDS)
    powers = {"greedynms": GREEDY_POWER, "diounms": section.number("beta_nms", GREEDY_POWER)}
    return powers.get(kind)
