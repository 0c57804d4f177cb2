"""Which of a network's proposals are detections?

Darknet's rule (`do_nms_sort` in its box.c): a box is a candidate for every class whose
objectness · class probability is above the confidence threshold, so one box can be detected as
two classes; within a class, the candidate with the highest score removes those that overlap it
by more than the NMS threshold. Classes do not see each other. A .cfg may ask for another measure of
overlap (`nms_kind`, AlexeyAB's `diounms_sort`): IoU less a power of the distance between centres.
Where scores are equal, `utils.evaluation.ranking` says which goes first.

Of proposals on a graphics card, the card finds the best candidates of all photos, which come to the
CPU in one copy. Suppression is always the CPU's: it is a loop, which a card would have to be waited
for in, and torchvision's rounds the threshold to float32 there, so ties would go another way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from import_param import Nms
from utils.evaluation.ranking import top
from utils.structures import Detections, Predictions

# An untrained network's exp(w) can overflow. Beyond a million pixels a box only has to stay finite.
LARGEST_COORDINATE = 1e6
# How many candidates are looked at first: they nearly always yield the hundred detections that AP
# asks for, and suppressing 2048 takes four to seven times as long.
FIRST_CANDIDATES = 512
MORE_CANDIDATES = 16  # times as many are looked at on a card next
# With DIoU, so many candidates are compared with each other at once, and with so many worse ones:
# what a processor's cache holds.
BLOCK, PAIRED_WITH = 256, 2048
ALL_CLASSES = 512  # candidates at most, with DIoU, that are compared in all classes at once
ROUNDING = 0.999  # of the threshold: what rounding may hide of an IoU


def non_maximum_suppression(
    predictions: Predictions, settings: Nms, distance_power: float | None = None
) -> list[Detections]:
    """Predictions of B photos → B Detections, best first, boxes still in the input's pixels.

    They are on the CPU, wherever the predictions are.

    Args:
        predictions: the boxes of B photos that the network proposes.
        settings: a candidate's score must be above `conf_thres`; the lower score of two candidates
            of one class goes where they overlap by more than `nms_thres`; of the rest a photo keeps
            the best `max_detections`, or all where that is 0.
        distance_power: None for IoU; else overlap is IoU - (d² / c²)^power (DIoU, Zheng et al.,
            AAAI 2020), with d the distance between centres and c the diagonal of the box around
            both.
    """
    if predictions.boxes.device.type != "cpu":
        return _from_card(predictions, settings, distance_power)
    photos = zip(predictions.boxes, predictions.objectness, predictions.classes, strict=True)
    return [
        _suppress(_candidates(*photo, settings.conf_thres), settings, distance_power)
        for photo in photos
    ]


@dataclass(frozen=True)
class Candidates:
    """What one photo's detections are chosen from, in the order of proposal and class.

    Attributes:
        boxes: float32 [N, 4], xyxy in the input's pixels.
        scores: float32 [N].
        labels: int64 [N].
        complete: whether these are all; else the photo has others, all with lower scores.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    complete: bool = True


def _candidates(
    boxes: Tensor, objectness: Tensor, classes: Tensor, conf_thres: float
) -> Candidates:
    """Of one photo's boxes [P, 4], objectness [P] and classes [P, C]."""
    likely = (
        (objectness.float() > conf_thres).nonzero().squeeze(1)
    )  # no score exceeds its objectness
    scores = objectness[likely, None].float() * classes[likely].float()  # [L, C]
    proposal, labels = (scores > conf_thres).nonzero(as_tuple=True)
    return Candidates(_finite(boxes[likely[proposal]]), scores[proposal, labels], labels)


def _from_card(
    predictions: Predictions, settings: Nms, distance_power: float | None
) -> list[Detections]:
    """B Detections on the CPU; the card is waited for once, however many photos there are.

    And again for those photos that have more candidates than were looked at, where these do not
    yield `max_detections`.
    """
    count, photos = max(FIRST_CANDIDATES, settings.max_detections), len(predictions.boxes)
    left, detections = list(range(photos)), dict[int, Detections]()
    while left:
        of_photos = _best_candidates(_of(predictions, left), settings.conf_thres, count)
        for photo, candidates in zip(left, of_photos, strict=True):
            survivors = _suppress(candidates, settings, distance_power)
            if candidates.complete or len(survivors) >= (settings.max_detections or math.inf):
                detections[photo] = survivors
        left = [photo for photo in left if photo not in detections]
        count *= MORE_CANDIDATES
    return [detections[photo] for photo in range(photos)]


def _of(predictions: Predictions, photos: Sequence[int]) -> Predictions:
    """Those of some photos."""
    if len(photos) == len(predictions.boxes):
        return predictions
    # To index with a list would send it to the card, and wait.
    boxes, objectness, classes = (
        torch.stack([of_all[photo] for photo in photos])
        for of_all in (predictions.boxes, predictions.objectness, predictions.classes)
    )
    return Predictions(boxes, objectness, classes)


def _best_candidates(
    predictions: Predictions, conf_thres: float, count: int
) -> Iterator[Candidates]:
    """The best `count` candidates of each photo at most, on the CPU, by one copy of all."""
    scores = predictions.objectness[..., None].float() * predictions.classes.float()  # [B, P, C]
    classes = scores.shape[2]
    scores = scores.masked_fill_(~(scores > conf_thres), 0).flatten(1)  # [B, P·C]
    everything = count >= scores.shape[1]
    highest, index = scores.topk(min(count, scores.shape[1]), sorted=False)  # [B, K]
    proposal = (index // classes)[..., None].expand(-1, -1, 4)
    boxes = _finite(predictions.boxes.gather(1, proposal))
    # In one tensor, since each copy is a wait: floats as the integers that have their bits.
    bits = [boxes.view(torch.int32), highest[..., None].view(torch.int32), index[..., None].int()]
    for rows in torch.cat(bits, 2).cpu():  # [K, 6]
        rows = rows[rows[:, 5].argsort()]
        scored = rows[:, 4].view(torch.float32)
        complete = everything or not scored.all()
        # Of those that tie with the lowest, topk may have left out any.
        chosen = rows[scored > (0 if complete else scored.min())]
        yield Candidates(
            chosen[:, :4].view(torch.float32),
            chosen[:, 4].view(torch.float32),
            chosen[:, 5].long() % classes,
            complete,
        )


def _finite(boxes: Tensor) -> Tensor:
    return boxes.float().clamp(-LARGEST_COORDINATE, LARGEST_COORDINATE)


def _suppress(candidates: Candidates, settings: Nms, distance_power: float | None) -> Detections:
    """Candidates → those that survive, best first.

    Whether a candidate survives depends only on better ones. So where the best few candidates
    already yield `max_detections`, the rest need not be looked at, and the result is the same.
    """
    boxes, scores, labels = candidates.boxes, candidates.scores, candidates.labels
    limit = settings.max_detections or len(scores)
    count = max(FIRST_CANDIDATES, limit)
    while True:
        best = top(scores, count)
        survivors = best[_survivors(boxes[best], labels[best], settings.nms_thres, distance_power)]
        if count >= len(scores) or len(survivors) >= limit:
            survivors = survivors[:limit]
            return Detections(boxes[survivors], scores[survivors], labels[survivors])
        count *= 4


def _survivors(
    boxes: Tensor, labels: Tensor, nms_thres: float, distance_power: float | None
) -> Tensor:
    """Candidates, best first → the indices that survive, best first."""
    if distance_power is not None:
        return _survivors_by_distance(boxes, labels, nms_thres, distance_power)
    if not len(boxes):
        return labels
    # batched_nms moves each class beyond the largest coordinate of the class before it. In float32
    # the 80th class would lie where steps are 0.004 px, enough to turn a decision: so in float64.
    # And boxes with negative coordinates would reach into the class before: so all begin at 0.
    from_zero = boxes.double() - boxes.double().min()
    # The rank stands for the score: torchvision does not say which of equal scores it takes first.
    rank = torch.arange(len(boxes), 0, -1, dtype=torch.float64)
    threshold = _float32_threshold(nms_thres)
    survivors: Tensor = batched_nms(from_zero, rank, labels, threshold)
    return survivors


def _float32_threshold(nms_thres: float) -> float:
    """The threshold for a comparison in float64 that decides as Darknet's does in float32.

    There an IoU of 1 / 10 is not above 0.1; but float32's 0.1 is above float64's.
    """
    threshold = np.float32(nms_thres)
    above = np.nextafter(threshold, np.float32(2))
    return (float(threshold) + float(above)) / 2


def _survivors_by_distance(boxes: Tensor, labels: Tensor, nms_thres: float, power: float) -> Tensor:
    """With DIoU, which no library has: block by block of candidates, in each class.

    In all classes at once where candidates are few: there a step takes as long for one of them.
    """
    if power == 0:  # no two boxes overlap by more than IoU - 1
        return torch.arange(len(boxes))
    groups = [torch.arange(len(boxes))]
    if len(boxes) > ALL_CLASSES:
        groups = [(labels == label).nonzero().squeeze(1) for label in labels.unique()]
    survivors = [labels[:0]]

    def overlapping(some: Tensor, others: Tensor) -> Tensor:
        same = labels[some, None] == labels[others]
        return _overlapping(boxes[some], boxes[others], same, nms_thres, power)

    for members in groups:  # best first
        while len(members):
            block, rest = members[:BLOCK], members[BLOCK:]
            kept = block[_greedy(overlapping(block, block))]
            survivors.append(kept)
            members = torch.cat(
                [
                    rest[:0],
                    *(part[~overlapping(kept, part).any(0)] for part in rest.split(PAIRED_WITH)),
                ]
            )
    return torch.cat(survivors).sort().values


def _greedy(overlapping: Tensor) -> Tensor:
    """Which of K candidates survive, best first, where [K, K] says which overlap: bool [K]."""
    pairs = overlapping.numpy()
    kept = np.ones(len(pairs), bool)
    for index, row in enumerate(pairs):
        if kept[index]:
            kept[index + 1 :] &= ~row[index + 1 :]
    return torch.from_numpy(kept)


def _overlapping(
    boxes: Tensor, others: Tensor, same: Tensor, nms_thres: float, power: float
) -> Tensor:
    """Which boxes [K, 4] overlap which others [N, 4] by more than the threshold: bool [K, N].

    Only pairs of the same class count, which `same` [K, N] tells.

    DIoU is at most IoU, so it is computed of those pairs alone whose IoU may be above.
    """
    low = torch.maximum(boxes[:, None, :2], others[:, :2])
    high = torch.minimum(boxes[:, None, 2:], others[:, 2:])
    shared = (high - low).clamp_(min=0).prod(2)  # [K, N]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)[:, None] + (others[:, 2:] - others[:, :2]).prod(1)
    result = same & (shared > 0) & (shared * (1 + nms_thres) > areas * (nms_thres * ROUNDING))
    first, second = result.nonzero(as_tuple=True)
    result[first, second] = _distance_iou(boxes[first], others[second], power) > nms_thres
    return result


def _distance_iou(boxes: Tensor, others: Tensor, power: float) -> Tensor:
    """IoU of boxes [N, 4] with others [N, 4], less (d² / c²)^power: [N]."""
    inside = torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])
    intersection = inside.clamp(min=0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (others[:, 2:] - others[:, :2]).prod(1)
    between_centres = (boxes[:, :2] + boxes[:, 2:] - others[:, :2] - others[:, 2:]) / 2
    around = torch.maximum(boxes[:, 2:], others[:, 2:]) - torch.minimum(boxes[:, :2], others[:, :2])
    share = (between_centres**2).sum(1) / (around**2).sum(1).clamp(min=1e-12)
    return intersection / (areas - intersection) - share**power
