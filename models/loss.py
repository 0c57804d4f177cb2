"""Which predictions are responsible for which objects, and how wrong are they?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from import_param import Loss
from models.box_loss import complete_iou_loss
from models.head import Head
from utils.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from utils.devices import constant, to_device
from utils.processes import distributed
from utils.structures import Batch

# By stride in pixels. Finer maps have more cells, nearly all empty: in their mean, the loss of the
# few with an object would count for less. YOLOv5's values for three heads, continued.
OBJECTNESS_BALANCE = {4: 16.0, 8: 4.0, 16: 1.0, 32: 0.4, 64: 0.1}


@dataclass(frozen=True)
class Positives:
    """The predictions of one head that are responsible for objects, P of them.

    Attributes:
        image: int64 [P], the prediction's image in the batch.
        anchor: int64 [P], its anchor among the head's.
        row: int64 [P], of its cell.
        column: int64 [P], of its cell.
        target: int64 [P], the object's index in the batch.
    """

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    target: Tensor

    def to(self, device: torch.device) -> Positives:
        """The same on a device; in one copy."""
        columns = [getattr(self, field.name) for field in fields(self)]
        return Positives(*to_device(torch.stack(columns), device).unbind())

    def select(self, logits: Tensor) -> Tensor:
        """The positives among logits [B, A, h, w, 5+C]: [P, 5+C]."""
        return logits[self.image, self.anchor, self.row, self.column]


@dataclass(frozen=True)
class Share:
    """What this process has of a batch that all processes share.

    Attributes:
        images: its own as a share of all, 0 to 1.
        positives: of one head, those of all processes, at least 1.
    """

    images: float
    positives: int


def shares(batch: Batch, assigned: Sequence[Positives]) -> list[Share]:
    """By head, what this process has of all processes' batch.

    Args:
        batch: its own.
        assigned: its positives, by head.
    """
    own = len(batch.images)
    images, *positives = distributed.totals([own, *(len(head.target) for head in assigned)])
    return [Share(own / images, max(1, count)) for count in positives]


@dataclass(frozen=True)
class Objects:
    """The M objects of a batch, on the device of a network's maps.

    Attributes:
        boxes: float32 [M, 4], xyxy in pixels of the input.
        labels: int64 [M].
        input_size: (width, height) of the input in pixels.
    """

    boxes: Tensor
    labels: Tensor
    input_size: tuple[int, int]

    @staticmethod
    def of(batch: Batch, device: torch.device) -> Objects:
        """Those of a batch."""
        size = (batch.images.shape[-1], batch.images.shape[-2])
        return Objects(to_device(batch.boxes, device), to_device(batch.labels, device), size)


@dataclass(frozen=True)
class Losses:
    """The parts of the loss, weighted, and how the positives fare; scalars.

    precision and recall count predictions of single cells before NMS: they show whether training
    moves, not what detection reaches. Right means objectness over 0.5, the true class on top, and
    CIoU over 0.5.

    Attributes:
        box: loss of the boxes.
        objectness: loss of objectness.
        classes: loss of the classes.
        teacher: distance from the teacher (see models.distillation), 0 without one.
        precision: of the predictions with objectness over 0.5, the share that is right.
        recall: of the positives, the share that is right.
    """

    box: Tensor
    objectness: Tensor
    classes: Tensor
    teacher: Tensor
    precision: Tensor
    recall: Tensor

    @property
    def total(self) -> Tensor:
        """What training minimises."""
        return self.box + self.objectness + self.classes + self.teacher


class DetectionLoss:
    """CIoU on boxes, binary cross-entropy on objectness and on classes.

    Assignment, after YOLOv5's rule (ultralytics, 2020): an anchor is responsible for an object when
    width and height differ by less than `anchor_ratio` times either way, and so is the best anchor
    of all heads in any case, so that no object is left out. Of its cells, the one that holds the
    object's centre is, and each neighbour from which the head can reach the centre: with
    `scale_x_y=2` the nearest one across and the nearest one up or down, with 1 none.

    The box loss is CIoU (Zheng et al., "Distance-IoU Loss", AAAI 2020). The target of objectness is
    the CIoU with the object, not below 0, and 0 where a prediction is responsible for none. Classes
    are independent (a sigmoid each, their losses added), also when there is only one.
    """

    def __init__(self, heads: Sequence[Head], settings: Loss) -> None:
        """Of a network's heads, in order; settings: the gains and the rule of assignment."""
        self.heads = tuple(heads)
        self.settings = settings

    def __call__(self, maps: Sequence[Tensor], batch: Batch) -> Losses:
        """The loss of raw maps [B, A·(5+C), h, w] on a batch: a mean over images and positives.

        The batch's boxes may be on the CPU while the maps are on a card, which then computes on
        while it is found out here which of its predictions are responsible.

        Where processes train together, these are the images and positives of all of them; the
        gradient is that of this process's part of the sum.
        """
        assigned = self.assign(maps, batch)
        objects = Objects.of(batch, maps[0].device)
        by_head = [
            self._head_loss(head, raw, positives.to(raw.device), objects, share)
            for head, raw, positives, share in zip(
                self.heads, maps, assigned, shares(batch, assigned), strict=True
            )
        ]
        own = torch.stack(by_head).sum(0)  # [6]
        box, objectness, classes, right, claimed, count = distributed.total(own).unbind()
        return Losses(
            self.settings.box_gain * box,
            self.settings.objectness_gain * objectness,
            self.settings.class_gain * classes,
            torch.zeros_like(box),
            right / claimed.clamp(min=1),
            right / count.clamp(min=1),
        )

    def assign(self, maps: Sequence[Tensor], batch: Batch) -> list[Positives]:
        """By head, which predictions of raw maps are responsible for which of a batch's objects."""
        size = (batch.images.shape[-1], batch.images.shape[-2])
        objects = xyxy_to_cxcywh(batch.boxes)  # [M, 4]
        fits = self.fitting_anchors(objects[:, 2:])
        by_head = []
        for head, raw, fit in zip(self.heads, maps, fits, strict=True):
            cells = (raw.shape[-1], raw.shape[-2])
            centres = objects[:, :2] / cell_size(size, cells, objects)
            by_head.append(assign_cells(head, fit, centres, batch.image_index, cells))
        return by_head

    def fitting_anchors(self, extents: Tensor) -> list[Tensor]:
        """By head, which anchors are responsible for objects: a bool [A, M] each.

        Args:
            extents: width and height of the objects in pixels of the input, [M, 2].
        """
        anchors = constant(tuple(pair for head in self.heads for pair in head.anchors), extents)
        ratio = extents[None] / anchors[:, None]  # [all A, M, 2]
        worst = torch.maximum(ratio, 1 / ratio).amax(-1)  # [all A, M]
        fit = worst < self.settings.anchor_ratio
        if len(extents):
            fit |= worst == worst.amin(0)
        return list(fit.split([len(head.anchors) for head in self.heads]))

    def _head_loss(
        self, head: Head, raw: Tensor, positives: Positives, objects: Objects, share: Share
    ) -> Tensor:
        """The loss of boxes, objectness and classes, and what precision and recall are made of.

        Returns:
            [6]: the three losses; how many positives are right, how many predictions claim an
            object, and how many positives there are.
        """
        logits = head.split(raw)  # [B, A, h, w, 5+C]
        h, w = logits.shape[2:4]
        size = objects.input_size
        selected = positives.select(logits)  # [P, 5+C]
        boxes = decode_positives(head, selected, positives, size, (w, h))  # [P, 4]
        box_loss = complete_iou_loss(boxes, objects.boxes[positives.target])  # [P]
        ciou = (1 - box_loss.detach()).clamp(min=0)

        targets = _objectness_targets(logits.shape[:4], positives, ciou)
        objectness = objectness_balance(size, (w, h)) * F.binary_cross_entropy_with_logits(
            logits[..., 4], targets
        )

        true_labels = objects.labels[positives.target]
        # F.one_hot may look for labels that are too large, and so wait for a card.
        one_hot = (true_labels[:, None] == torch.arange(head.classes, device=raw.device)).float()
        class_loss = F.binary_cross_entropy_with_logits(selected[:, 5:], one_hot, reduction="none")

        claimed = (logits[..., 4].detach() > 0).sum()
        right = (
            (selected[:, 4].detach() > 0)
            & (ciou > 0.5)
            & (selected[:, 5:].detach().argmax(-1) == true_labels)
        )
        return torch.stack(
            [
                box_loss.sum() / share.positives,
                objectness * share.images,
                class_loss.sum() / share.positives,
                right.sum().float(),
                claimed.float(),
                box_loss.new_full((), len(positives.target)),
            ]
        )


def _objectness_targets(shape: torch.Size, positives: Positives, ciou: Tensor) -> Tensor:
    """CIoU [P] of the positives at their places in a map of `shape` [B, A, h, w], 0 elsewhere.

    Where one prediction is responsible for two objects, the better CIoU is its target.
    """
    _, anchors, h, w = shape
    place = ((positives.image * anchors + positives.anchor) * h + positives.row) * w
    place = place + positives.column
    targets = ciou.new_zeros(shape.numel()).scatter_reduce(0, place, ciou, "amax")
    return targets.view(shape)


def objectness_balance(size: tuple[int, int], cells: tuple[int, int]) -> float:
    """What the objectness loss of a head is multiplied by, see `OBJECTNESS_BALANCE`.

    Args:
        size: (width, height) of the input in pixels.
        cells: (width, height) of the head's map.
    """
    stride = size[1] / cells[1]
    return OBJECTNESS_BALANCE[min(OBJECTNESS_BALANCE, key=lambda known: abs(known - stride))]


def cell_size(size: tuple[int, int], cells: tuple[int, int], like: Tensor) -> Tensor:
    """[2]: the width and height of a cell, in pixels of the input."""
    return constant((size[0] / cells[0], size[1] / cells[1]), like)


def decode_positives(
    head: Head,
    logits: Tensor,
    positives: Positives,
    size: tuple[int, int],
    cells: tuple[int, int],
) -> Tensor:
    """The boxes that positives predict: xyxy [P, 4] in pixels of the input.

    Args:
        head: the head of the map that they are of.
        logits: of the positives, [P, 5+C].
        positives: their cells and anchors.
        size: (width, height) of the input in pixels.
        cells: (width, height) of the map.
    """
    corner = torch.stack([positives.column, positives.row], -1)
    centre = (head.centre_offset(logits[:, :2]) + corner) * cell_size(size, cells, logits)
    extent = head.anchor_scale(logits[:, 2:4]) * constant(head.anchors, logits)[positives.anchor]
    return cxcywh_to_xyxy(torch.cat([centre, extent], -1))


def assign_cells(
    head: Head, fit: Tensor, centres: Tensor, image_index: Tensor, cells: tuple[int, int]
) -> Positives:
    """The cells and anchors of one head that are responsible for M objects.

    Args:
        head: the head; its scale_xy says how far a cell reaches beyond its borders.
        fit: bool [A, M], which anchors are responsible for which object.
        centres: of the objects, x and y [M, 2] in cells.
        image_index: int64 [M], the object's image in the batch.
        cells: (width, height) of the map.
    """
    own = centres.floor()
    reach = (head.scale_xy - 1) / 2  # beyond its own borders, in cells
    steps = constant(((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)), centres)
    corners = own + steps[:, None]  # [5, M, 2]
    offset = centres - corners
    limit = constant(cells, centres)
    inside = (corners >= 0) & (corners < limit)
    usable = ((offset >= -reach) & (offset <= 1 + reach) & inside).all(-1)  # [5, M]
    usable[0] = True  # the own cell, even of a centre on the right or lower border
    corners = corners.minimum(limit - 1).clamp(min=0).long()
    anchor, step, target = (fit[:, None] & usable[None]).nonzero(as_tuple=True)  # of [A, 5, M]
    column, row = corners[step, target].unbind(-1)
    return Positives(image_index[target], anchor, row, column, target)
