"""How the raw map before a [yolo] becomes boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.netdef import Section, head_anchors
from utils.boxes import cxcywh_to_xyxy
from utils.structures import Predictions

# What a .cfg's `nms_kind` subtracts from IoU: a power of the distance between centres, or nothing.
# In AlexeyAB's box.c `greedynms`, too, subtracts, always with 0.6.
NMS_KINDS = ("default", "greedynms", "diounms")
GREEDY_POWER = 0.6


@dataclass(frozen=True)
class Head:
    """One [yolo]: its own anchors as (width, height) in pixels of the input, and its rules.

    nms_power: what `utils.evaluation.nms.nms` takes as distance_power, None for plain IoU.
    """

    anchors: tuple[tuple[float, float], ...]
    classes: int
    scale_xy: float
    new_coords: bool
    nms_power: float | None = None

    @staticmethod
    def of(section: Section) -> Head:
        return Head(
            tuple(head_anchors(section)),
            section.integer("classes", 20, at_least=1),
            section.number("scale_x_y", 1.0),
            section.flag("new_coords"),
            _nms_power(section),
        )

    @property
    def channels(self) -> int:
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
        """Logits of x, y → the centre, in cells from the cell's own corner."""
        return xy.sigmoid() * self.scale_xy - (self.scale_xy - 1) / 2

    def anchor_scale(self, wh: Tensor) -> Tensor:
        """Logits of w, h → the box's width and height in anchors."""
        if self.new_coords:
            return (wh.sigmoid() * 2) ** 2
        return wh.clamp(-10, 20).exp()  # beyond is no box; 0 and inf would poison the loss

    def decode(self, raw: Tensor, size: tuple[int, int]) -> Predictions:
        """The raw map of a network whose input was (width, height) `size`."""
        logits = self.split(raw)  # [B, A, H, W, 5+C]
        b, _, h, w, _ = logits.shape
        rows, columns = torch.meshgrid(
            torch.arange(h, device=raw.device), torch.arange(w, device=raw.device), indexing="ij"
        )
        corner = torch.stack([columns, rows], -1)  # [H, W, 2]
        cell = logits.new_tensor([size[0] / w, size[1] / h])
        anchors = logits.new_tensor(self.anchors)[:, None, None]  # [A, 1, 1, 2]
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
    """The raw maps of all heads → boxes [B, P, 4] in pixels of the input, heads in order."""
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
