"""How far is a network from its teacher?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import complete_box_iou_loss

from models.darknet import Darknet, shapes
from models.head import Head
from models.loss import Assigned, Loss, answers, balance
from models.netdef import NetDef
from utils.errors import InputError
from utils.structures import Batch

Answer = tuple[Sequence[Tensor], Sequence[Tensor]]  # `Darknet.maps_and_features`


class Distillation:
    """What a network can learn from a larger one with the same heads.

    - Objectness and classes: binary cross-entropy with the teacher's probability, logit by logit,
      since each is a sigmoid of its own; less the teacher's entropy, so that it is 0 where they
      agree. Objectness counts in every cell; classes by the teacher's objectness, since where
      nothing is, they were never trained.
    - Boxes: CIoU with the teacher's box, for predictions that answer for an object, and only where
      the teacher's box beats the network's own against the label: a worse one teaches nothing
      (the bound of Chen et al., NeurIPS 2017, section 3.3).
    - Features: where the two look, not with which channels, since their numbers differ; see
      `attention_loss`.

    loss: of the network, whose heads and rule of assignment are used.
    """

    def __init__(
        self,
        teacher: Darknet,
        loss: Loss,
        objectness_gain: float = 1.0,
        class_gain: float = 0.1,
        box_gain: float = 0.5,
        feature_gain: float = 0.0,
    ) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.loss = loss
        self.gains = (objectness_gain, class_gain, box_gain)
        self.feature_gain = feature_gain

    @torch.no_grad()
    def teach(self, images: Tensor) -> Answer:
        """What the teacher makes of images [B, 3, H, W]: `Darknet.maps_and_features`."""
        return self.teacher.maps_and_features(images)

    def __call__(self, answer: Answer, taught: Answer, batch: Batch) -> Tensor:
        """A scalar: the weighted distance of the network's answer from the teacher's."""
        maps, features = answer
        found = self.loss.assigned(maps, batch)
        heads = zip(self.loss.heads, maps, taught[0], found, strict=True)
        parts = torch.stack([_head_loss(*head, batch) for head in heads]).sum(0)  # [3]
        total = (parts * parts.new_tensor(self.gains)).sum()
        if self.feature_gain:
            pairs = zip(features, taught[1], strict=True)
            total = total + self.feature_gain * sum(attention_loss(*pair) for pair in pairs)
        return total


def _head_loss(head: Head, raw: Tensor, taught: Tensor, found: Assigned, batch: Batch) -> Tensor:
    """[3]: how far objectness, classes and boxes of one head are from the teacher's."""
    ours, theirs = head.split(raw), head.split(taught.detach())  # [B, A, h, w, 5+C]
    size = (batch.images.shape[-1], batch.images.shape[-2])
    cells = (raw.shape[-1], raw.shape[-2])

    objectness = balance(size, cells) * divergence(ours[..., 4], theirs[..., 4]).mean()
    weight = theirs[..., 4].sigmoid()  # [B, A, h, w]
    classes = weight * divergence(ours[..., 5:], theirs[..., 5:]).sum(-1)

    objects = batch.boxes[found.target]  # [P, 4]
    own = answers(head, found.of(ours), found, size, cells)
    better = answers(head, found.of(theirs), found, size, cells)
    with torch.no_grad():
        beats = complete_box_iou_loss(better, objects) < complete_box_iou_loss(own, objects)
    boxes = torch.where(beats, complete_box_iou_loss(own, better), 0.0)
    return torch.stack(
        [
            objectness,
            classes.sum() / weight.sum().clamp(min=1),
            boxes.sum() / max(1, len(boxes)),
        ]
    )


def divergence(logits: Tensor, taught: Tensor) -> Tensor:
    """By logit, Bernoulli's Kullback-Leibler divergence; its gradient is that of cross-entropy."""
    probability = taught.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(taught, probability, reduction="none")
    return F.binary_cross_entropy_with_logits(logits, probability, reduction="none") - entropy


def attention_loss(features: Tensor, taught: Tensor) -> Tensor:
    """How differently two networks look at photos, 0 to 2, however many channels they have.

    features: [B, C, h, w]; taught: [B, D, h, w]. The sums of squares over channels, as unit vectors
    over the map (Zagoruyko and Komodakis, ICLR 2017, equation 2 with p = 2), squared distance.
    """
    ours, theirs = (
        F.normalize(maps.float().square().sum(1).flatten(1), dim=1)
        for maps in (features, taught.detach())
    )
    return (ours - theirs).square().sum(1).mean()


def check_teacher(teacher: NetDef, netdef: NetDef, name: str) -> None:
    """Refuse a teacher whose maps do not mean what the network's do.

    Widths, and how the maps come about, may differ; anchors, classes and strides may not.
    """
    theirs, ours = _heads(teacher, netdef.size), _heads(netdef, netdef.size)
    if len(theirs) != len(ours):
        raise InputError(f"teacher={name!r}: {len(theirs)} heads: expected {len(ours)}")
    for number, (their, our) in enumerate(zip(theirs, ours, strict=True), start=1):
        for what, value in their.items():
            if value != our[what]:
                raise InputError(
                    f"teacher={name!r}: head {number} has {what} {value}: expected {our[what]}"
                )


def _heads(netdef: NetDef, size: tuple[int, int]) -> list[dict[str, object]]:
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
