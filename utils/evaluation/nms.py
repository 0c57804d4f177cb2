"""Which of a network's proposals are detections?

Darknet's rule (`do_nms_sort` in its box.c): a box is a candidate for every class whose
objectness · class probability is above the confidence threshold, so one box can be detected as
two classes; within a class, the candidate with the highest score removes those that overlap it
by more than the NMS threshold. Classes do not see each other. A .cfg may ask for another measure of
overlap (`nms_kind`, AlexeyAB's `diounms_sort`): IoU less a power of the distance between centres.
Where scores are equal, `utils.evaluation.ranking` says which goes first.
"""

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from import_param import Nms
from utils.evaluation.ranking import top
from utils.structures import Detections, Predictions

# An untrained network's exp(w) can overflow. Beyond a million pixels a box only has to stay finite.
LARGEST_COORDINATE = 1e6
# How many candidates are looked at first: suppressing so many costs about as much as finding them.
FIRST_CANDIDATES = 2048
BLOCK = 256  # candidates whose survivors are found at once, with DIoU,
PAIRED_WITH = (
    2048  # and so many others at once that they may remove: a processor's cache holds both
)
ROUNDING = 0.999  # of the threshold: what rounding may hide of an IoU


def non_maximum_suppression(
    predictions: Predictions, settings: Nms, distance_power: float | None = None
) -> list[Detections]:
    """Predictions of B photos → B Detections, best first, boxes still in the input's pixels.

    Args:
        predictions: the boxes of B photos that the network proposes.
        settings: a candidate's score must be above `conf_thres`; the lower score of two candidates
            of one class goes where they overlap by more than `nms_thres`; of the rest a photo keeps
            the best `max_detections`, or all where that is 0.
        distance_power: None for IoU; else overlap is IoU - (d² / c²)^power (DIoU, Zheng et al.,
            AAAI 2020), with d the distance between centres and c the diagonal of the box around
            both.
    """
    photos = zip(predictions.boxes, predictions.objectness, predictions.classes, strict=True)
    return [
        _suppress(*_candidates(*photo, settings.conf_thres), settings, distance_power)
        for photo in photos
    ]


def _candidates(
    boxes: Tensor, objectness: Tensor, classes: Tensor, conf_thres: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One photo's boxes [P, 4], objectness [P], classes [P, C] → boxes, scores, labels of N."""
    likely = (objectness > conf_thres).nonzero().squeeze(1)  # no score exceeds its objectness
    scores = objectness[likely, None].float() * classes[likely].float()  # [L, C]
    proposal, labels = (scores > conf_thres).nonzero(as_tuple=True)
    finite = boxes[likely[proposal]].float().clamp(-LARGEST_COORDINATE, LARGEST_COORDINATE)
    return finite, scores[proposal, labels], labels


def _suppress(
    boxes: Tensor, scores: Tensor, labels: Tensor, settings: Nms, distance_power: float | None
) -> Detections:
    """Candidates → those that survive, best first.

    Whether a candidate survives depends only on better ones. So where the best few candidates
    already yield `max_detections`, the rest need not be looked at, and the result is the same.
    """
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
        # On the CPU: a card would be waited for several times in each class.
        on_cpu = _survivors_by_distance(boxes.cpu(), labels.cpu(), nms_thres, distance_power)
        return on_cpu.to(boxes.device)
    if not len(boxes):
        return labels
    # batched_nms moves each class beyond the largest coordinate of the class before it. In float32
    # the 80th class would lie where steps are 0.004 px, enough to turn a decision: so in float64.
    # And boxes with negative coordinates would reach into the class before: so all begin at 0.
    from_zero = boxes.double() - boxes.double().min()
    # The rank stands for the score: torchvision does not say which of equal scores it takes first.
    rank = torch.arange(len(boxes), 0, -1, dtype=torch.float64, device=boxes.device)
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
    """With DIoU, which no library has: block by block of candidates, in each class."""
    if power == 0:  # no two boxes overlap by more than IoU - 1
        return torch.arange(len(boxes))
    survivors = [labels[:0]]
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)  # best first
        while len(members):
            block, rest = members[:BLOCK], members[BLOCK:]
            kept = block[_greedy(_overlapping(boxes[block], boxes[block], nms_thres, power))]
            survivors.append(kept)
            members = torch.cat(
                [
                    rest[:0],
                    *(
                        part[~_overlapping(boxes[kept], boxes[part], nms_thres, power).any(0)]
                        for part in rest.split(PAIRED_WITH)
                    ),
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


def _overlapping(boxes: Tensor, others: Tensor, nms_thres: float, power: float) -> Tensor:
    """Which boxes [K, 4] overlap which others [N, 4] by more than the threshold: bool [K, N].

    DIoU is at most IoU, so it is computed of those pairs alone whose IoU may be above.
    """
    low = torch.maximum(boxes[:, None, :2], others[:, :2])
    high = torch.minimum(boxes[:, None, 2:], others[:, 2:])
    shared = (high - low).clamp_(min=0).prod(2)  # [K, N]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)[:, None] + (others[:, 2:] - others[:, :2]).prod(1)
    result = (shared > 0) & (shared * (1 + nms_thres) > areas * (nms_thres * ROUNDING))
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
