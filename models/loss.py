"""Which predictions answer for which objects, and how wrong they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import complete_box_iou_loss

from models.head import Head
from utils.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from utils.structures import Batch

# By stride in pixels. Finer maps have more cells, nearly all empty: in their mean, the loss of the
# few with an object would count for less. YOLOv5's values for three heads, continued.
OBJECTNESS_BALANCE = {4: 16.0, 8: 4.0, 16: 1.0, 32: 0.4, 64: 0.1}


@dataclass(frozen=True)
class Assigned:
    """The positives of one head, P of them: which cell and anchor answers for which object.

    image, anchor, row, column: int64 [P]. target: int64 [P], the object's index in the batch.
    """

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    target: Tensor

    def of(self, logits: Tensor) -> Tensor:
        """Those of logits [B, A, h, w, 5+C] that answer for objects: [P, 5+C]."""
        return logits[self.image, self.anchor, self.row, self.column]


@dataclass(frozen=True)
class Losses:
    """The parts of the loss, weighted, and how the positives fare; scalars.

    teacher: how far the network is from its teacher (see models.distillation), 0 without one.
    precision: of the predictions with objectness over 0.5, the share that is right.
    recall: of the predictions that answer for an object, the share that is right, where right
    means objectness over 0.5, the true class on top, and CIoU over 0.5. Both count predictions
    of single cells before NMS: they show whether training moves, not what detection reaches.
    """

    box: Tensor
    objectness: Tensor
    classes: Tensor
    teacher: Tensor
    precision: Tensor
    recall: Tensor

    @property
    def total(self) -> Tensor:
        return self.box + self.objectness + self.classes + self.teacher


class Loss:
    """CIoU on boxes, binary cross-entropy on objectness and on classes.

    Assignment, after YOLOv5's rule (ultralytics, 2020): an anchor answers for an object when width
    and height differ by less than `anchor_ratio` times either way, and so does the best anchor
    of all heads in any case, so that no object is left out. The cell that holds the object's
    centre answers, and each neighbour from which the head can reach the centre: with
    `scale_x_y=2` the nearest one across and the nearest one up or down, with 1 none.

    The box loss is CIoU (Zheng et al., AAAI 2020). The target of objectness is the CIoU with the
    object, not below 0, and 0 where no object is answered for. Classes are independent (a sigmoid
    each, their losses added), also when there is only one.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        box_gain: float = 0.5,
        objectness_gain: float = 1.0,
        class_gain: float = 0.1,
        anchor_ratio: float = 4.0,
    ) -> None:
        self.heads = tuple(heads)
        self.box_gain = box_gain
        self.objectness_gain = objectness_gain
        self.class_gain = class_gain
        self.anchor_ratio = anchor_ratio

    def __call__(self, maps: Sequence[Tensor], batch: Batch) -> Losses:
        """The loss of raw maps [B, A·(5+C), h, w] on a batch: a mean over images and positives."""
        found = self.assigned(maps, batch)
        parts = [
            self._head_loss(head, raw, positives, batch)
            for head, raw, positives in zip(self.heads, maps, found, strict=True)
        ]
        box, objectness, classes, right, claimed, positives = torch.stack(parts).sum(0).unbind()
        return Losses(
            self.box_gain * box,
            self.objectness_gain * objectness,
            self.class_gain * classes,
            torch.zeros_like(box),
            right / claimed.clamp(min=1),
            right / positives.clamp(min=1),
        )

    def _fitting_anchors(self, extents: Tensor) -> list[Tensor]:
        """Which anchors answer for objects of width, height [M, 2]: a bool [A, M] for each head."""
        anchors = extents.new_tensor([pair for head in self.heads for pair in head.anchors])
        ratio = extents[None] / anchors[:, None]  # [all A, M, 2]
        worst = torch.maximum(ratio, 1 / ratio).amax(-1)  # [all A, M]
        fit = worst < self.anchor_ratio
        if len(extents):
            fit |= worst == worst.amin(0)
        return list(fit.split([len(head.anchors) for head in self.heads]))

    def assigned(self, maps: Sequence[Tensor], batch: Batch) -> list[Assigned]:
        """By head, which predictions of raw maps answer for which of a batch's objects."""
        size = (batch.images.shape[-1], batch.images.shape[-2])
        objects = xyxy_to_cxcywh(batch.boxes)  # [M, 4]
        fits = self._fitting_anchors(objects[:, 2:])
        found = []
        for head, raw, fit in zip(self.heads, maps, fits, strict=True):
            cells = (raw.shape[-1], raw.shape[-2])
            centres = objects[:, :2] / cell_size(size, cells, objects)
            found.append(assign(head, fit, centres, batch.image_index, cells))
        return found

    def _head_loss(self, head: Head, raw: Tensor, found: Assigned, batch: Batch) -> Tensor:
        """[6]: the loss of boxes, objectness and classes, and how many positives are right, how
        many cells claim an object, and how many positives there are."""
        logits = head.split(raw)  # [B, A, h, w, 5+C]
        h, w = logits.shape[2:4]
        size = (batch.images.shape[-1], batch.images.shape[-2])
        ours = found.of(logits)  # [P, 5+C]
        box_loss = complete_box_iou_loss(  # [P]
            answers(head, ours, found, size, (w, h)), batch.boxes[found.target]
        )
        ciou = (1 - box_loss.detach()).clamp(min=0)

        cells = logits.shape[:4]
        place = ((found.image * cells[1] + found.anchor) * h + found.row) * w + found.column
        # Where one cell and anchor answers for two objects, the better overlap is its target.
        wanted = logits.new_zeros(cells.numel()).scatter_reduce(0, place, ciou, "amax").view(cells)
        objectness = balance(size, (w, h)) * F.binary_cross_entropy_with_logits(
            logits[..., 4], wanted
        )

        labels = F.one_hot(batch.labels[found.target], head.classes).float()
        class_loss = F.binary_cross_entropy_with_logits(ours[:, 5:], labels, reduction="none")

        count = max(1, len(found.target))
        claims = (logits[..., 4].detach() > 0).sum()
        right = (
            (ours[:, 4].detach() > 0)
            & (ciou > 0.5)
            & (ours[:, 5:].detach().argmax(-1) == batch.labels[found.target])
        )
        return torch.stack(
            [
                box_loss.sum() / count,
                objectness,
                class_loss.sum() / count,
                right.sum().float(),
                claims.float(),
                box_loss.new_tensor(len(found.target)),
            ]
        )


def balance(size: tuple[int, int], cells: tuple[int, int]) -> float:
    """The share of a head's objectness loss, for an input and a map of (width, height) each."""
    stride = size[1] / cells[1]
    return OBJECTNESS_BALANCE[min(OBJECTNESS_BALANCE, key=lambda known: abs(known - stride))]


def cell_size(size: tuple[int, int], cells: tuple[int, int], like: Tensor) -> Tensor:
    """[2]: the width and height of a cell, in pixels of the input."""
    return like.new_tensor([size[0] / cells[0], size[1] / cells[1]])


def answers(
    head: Head, ours: Tensor, found: Assigned, size: tuple[int, int], cells: tuple[int, int]
) -> Tensor:
    """The boxes that the positives' logits [P, 5+C] predict: xyxy [P, 4] in pixels of the input.

    size, cells: (width, height) of the input and of the map.
    """
    corner = torch.stack([found.column, found.row], -1)
    centre = (head.centre_offset(ours[:, :2]) + corner) * cell_size(size, cells, ours)
    extent = head.anchor_scale(ours[:, 2:4]) * ours.new_tensor(head.anchors)[found.anchor]
    return cxcywh_to_xyxy(torch.cat([centre, extent], -1))


def assign(
    head: Head, fit: Tensor, centres: Tensor, image_index: Tensor, size: tuple[int, int]
) -> Assigned:
    """The cells and anchors of one head that answer for M objects.

    fit: bool [A, M], which anchors do. centres: [M, 2] in cells. image_index: [M]. size: (w, h)
    of the map in cells.
    """
    own = centres.floor()
    reach = (head.scale_xy - 1) / 2  # beyond its own borders, in cells
    steps = centres.new_tensor([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]])
    cells = own + steps[:, None]  # [5, M, 2]
    offset = centres - cells
    limit = centres.new_tensor(size)
    usable = ((offset >= -reach) & (offset <= 1 + reach) & (cells >= 0) & (cells < limit)).all(-1)
    usable[0] = True  # the own cell, even of a centre on the right or lower border
    cells = cells.minimum(limit - 1).clamp(min=0).long()
    anchor, step, target = (fit[:, None] & usable[None]).nonzero(as_tuple=True)  # of [A, 5, M]
    column, row = cells[step, target].unbind(-1)
    return Assigned(image_index[target], anchor, row, column, target)
