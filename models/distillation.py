"""How far is a network from its teacher?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from import_param import Distillation
from models.box_loss import complete_iou_loss
from models.darknet import Darknet, shapes
from models.head import Head
from models.loss import (
    DetectionLoss,
    Objects,
    Positives,
    Share,
    decode_positives,
    objectness_balance,
    shares,
)
from models.netdef import NetDef
from utils.devices import constant
from utils.errors import InputError
from utils.processes import distributed
from utils.structures import Batch

MapsAndFeatures = tuple[Sequence[Tensor], Sequence[Tensor]]  # of `Darknet.maps_and_features`


class DistillationLoss:
    """What a network can learn from a larger one with the same heads.

    - Objectness and classes: binary cross-entropy with the teacher's probability, logit by logit,
      since each is a sigmoid of its own; less the teacher's entropy, so that it is 0 where they
      agree. Objectness counts in every cell; classes by the teacher's objectness, since where
      nothing is, they were never trained.
    - Boxes: CIoU with the teacher's box, for the positives, and only where the teacher's box is
      nearer to the ground truth than the network's own: a worse one teaches nothing (the bound of
      Chen et al., NeurIPS 2017, section 3.3).
    - Features: where the two look, not with which channels, since their numbers differ; see
      `attention_loss`.
    """

    def __init__(self, teacher: Darknet, loss: DetectionLoss, settings: Distillation) -> None:
        """Freeze the teacher.

        Args:
            teacher: the larger network; see `check_teacher`.
            loss: of the network, whose heads and rule of assignment are used.
            settings: the gains.
        """
        self.teacher = teacher.eval().requires_grad_(False)
        self.loss = loss
        self.settings = settings

    @torch.no_grad()
    def run_teacher(self, images: Tensor) -> MapsAndFeatures:
        """What the teacher makes of images [B, 3, H, W], without gradients."""
        return self.teacher.maps_and_features(images)

    def __call__(self, student: MapsAndFeatures, teacher: MapsAndFeatures, batch: Batch) -> Tensor:
        """A scalar: the weighted distance of the student's outputs from the teacher's.

        Where processes train together, it is that on all of their batches, as in `DetectionLoss`.
        """
        maps, features = student
        positives = self.loss.assign(maps, batch)
        parts_of = shares(batch, positives)
        objects = Objects.of(batch, maps[0].device)
        on_device = [head.to(maps[0].device) for head in positives]
        heads = zip(self.loss.heads, maps, teacher[0], on_device, parts_of, strict=True)
        parts = torch.stack([_head_loss(*head, objects) for head in heads]).sum(0)  # [3]
        gains = (
            self.settings.teacher_objectness,
            self.settings.teacher_classes,
            self.settings.teacher_boxes,
        )
        total = (parts * constant(gains, parts)).sum()
        if self.settings.teacher_features:
            pairs = zip(features, teacher[1], strict=True)
            attention = sum(attention_loss(*pair) for pair in pairs)
            total = total + self.settings.teacher_features * attention * parts_of[0].images
        return distributed.total(total)


def _head_loss(
    head: Head,
    raw: Tensor,
    teacher_raw: Tensor,
    positives: Positives,
    share: Share,
    objects: Objects,
) -> Tensor:
    """[3]: how far objectness, classes and boxes of one head are from the teacher's."""
    student = head.split(raw)  # [B, A, h, w, 5+C]
    teacher = head.split(teacher_raw.detach())  # [B, A, h, w, 5+C]
    size = objects.input_size
    cells = (raw.shape[-1], raw.shape[-2])

    objectness = divergence(student[..., 4], teacher[..., 4]).mean()
    weight = teacher[..., 4].sigmoid()  # [B, A, h, w]
    classes = weight * divergence(student[..., 5:], teacher[..., 5:]).sum(-1)

    truth = objects.boxes[positives.target]  # [P, 4]
    boxes, teacher_boxes = (
        decode_positives(head, positives.select(logits), positives, size, cells)
        for logits in (student, teacher)
    )
    with torch.no_grad():
        nearer = complete_iou_loss(teacher_boxes, truth) < complete_iou_loss(boxes, truth)
    box_loss = torch.where(nearer, complete_iou_loss(boxes, teacher_boxes), 0.0)
    return torch.stack(
        [
            objectness_balance(size, cells) * objectness * share.images,
            classes.sum() / distributed.total(weight.sum()).clamp(min=1),
            box_loss.sum() / share.positives,
        ]
    )


def divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """By logit, Bernoulli's Kullback-Leibler divergence; its gradient is that of cross-entropy.

    Args:
        logits: of the student, of any shape.
        teacher: logits of the teacher, of the same shape.
    """
    probability = teacher.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(teacher, probability, reduction="none")
    return F.binary_cross_entropy_with_logits(logits, probability, reduction="none") - entropy


def attention_loss(features: Tensor, teacher: Tensor) -> Tensor:
    """How differently two networks look at photos, 0 to 2, however many channels they have.

    The sums of squares over channels, as unit vectors over the map (Zagoruyko and Komodakis, ICLR
    2017, equation 2 with p = 2), and their squared distance.

    Args:
        features: of the student, [B, C, h, w].
        teacher: of the teacher, [B, D, h, w].
    """
    attention, teacher_attention = (
        F.normalize(maps.float().square().sum(1).flatten(1), dim=1)
        for maps in (features, teacher.detach())
    )
    return (attention - teacher_attention).square().sum(1).mean()


def check_teacher(teacher: NetDef, netdef: NetDef, name: str) -> None:
    """Refuse a teacher whose maps do not mean what the network's do.

    Widths, and how the maps come about, may differ; anchors, classes and strides may not.

    Args:
        teacher: the teacher's definition.
        netdef: the network's.
        name: of the teacher, for the error.

    Raises:
        InputError: a head differs.
    """
    theirs, ours = _heads(teacher, netdef.size), _heads(netdef, netdef.size)
    if len(theirs) != len(ours):
        raise InputError(f"teacher={name!r}: {len(theirs)} heads: expected {len(ours)}")
    for number, (their, our) in enumerate(zip(theirs, ours, strict=True), start=1):
        for rule, value in their.items():
            if value != our[rule]:
                raise InputError(
                    f"teacher={name!r}: head {number} has {rule} {value}: expected {our[rule]}"
                )


def _heads(netdef: NetDef, size: tuple[int, int]) -> list[dict[str, object]]:
    """By head, what must be equal in a teacher and its student."""
    outputs = shapes(netdef, size)
    heads = [(index, Head.of(netdef.layers[index])) for index in netdef.heads]
    return [
        {
            "classes": head.classes,
            "a map of (height, width)": outputs[index][1:],
            "anchors": head.anchors,
            "scale_x_y": head.scale_xy,
            "new_coords": head.new_coords,
        }
        for index, head in heads
    ]
