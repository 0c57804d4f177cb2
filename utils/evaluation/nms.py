"""Which of a network's proposals are detections?

Darknet's rule (`do_nms_sort` in its box.c): a box is a candidate for every class whose
objectness · class probability is above the confidence threshold, so one box can be detected as
two classes; within a class, the candidate with the highest score removes those that overlap it
by more than the NMS threshold. Classes do not see each other. A .cfg may ask for another measure of
overlap (`nms_kind`, AlexeyAB's `diounms_sort`): IoU less a power of the distance between centres.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor

from import_param import Nms
from utils.evaluation.close_pairs import SMALLEST, Boxes, survivors
from utils.structures import Detections, Predictions

# An untrained network's exp(w) can overflow. Beyond a million pixels a box only has to stay finite.
FURTHEST = 1e6
# Where close pairs are looked for: above so many comparisons of torchvision's, of each survivor
# with all worse candidates of its class (some 0.1 s), and from an overlap that is telling.
MANY, LEAST_OVERLAP = 7e7, 0.1
FIRST_LOOK = 2048  # candidates; about where suppressing costs as much as finding the candidates


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
    conf_thres, nms_thres = settings.conf_thres, settings.nms_thres
    max_detections = settings.max_detections or None
    photos = zip(predictions.boxes, predictions.objectness, predictions.classes, strict=True)
    keep = partial(_keep, nms_thres=nms_thres, distance_power=distance_power)
    return [_suppress(*_candidates(*photo, conf_thres), keep, max_detections) for photo in photos]


def _limit(nms_thres: float) -> float:
    """The threshold for a comparison in float64 that decides as Darknet's does in float32.

    There an IoU of 1 / 10 is not above 0.1; but float32's 0.1 is above float64's.
    """
    threshold = torch.tensor(nms_thres, dtype=torch.float32)
    above = threshold.nextafter(torch.tensor(2.0))
    return (threshold.item() + above.item()) / 2


def _candidates(
    boxes: Tensor, objectness: Tensor, classes: Tensor, conf_thres: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One photo's boxes [P, 4], objectness [P], classes [P, C] → boxes, scores, labels of N."""
    likely = (objectness > conf_thres).nonzero().squeeze(1)  # no score exceeds its objectness
    scores = objectness[likely, None].float() * classes[likely].float()  # [L, C]
    proposal, labels = (scores > conf_thres).nonzero(as_tuple=True)
    finite = boxes[likely[proposal]].float().clamp(-FURTHEST, FURTHEST)
    return finite, scores[proposal, labels], labels


def _suppress(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    keep_of: Callable[[Tensor, Tensor], Tensor],
    max_detections: int | None,
) -> Detections:
    """Candidates → what is left of them, best first.

    What becomes of a candidate depends only on better ones. So when the best few candidates
    already yield `max_detections`, the rest need not be looked at, and the result is the same.
    """
    looked = len(scores) if max_detections is None else max(FIRST_LOOK, max_detections)
    while True:
        best = _best(scores, looked)
        keep = best[keep_of(boxes[best], labels[best])]
        if looked >= len(scores) or (max_detections is not None and len(keep) >= max_detections):
            keep = keep[:max_detections]
            return Detections(boxes[keep], scores[keep], labels[keep])
        looked *= 4


def _best(scores: Tensor, count: int) -> Tensor:
    """The indices of the `count` highest scores, highest first, and of what ties with the last."""
    if count >= len(scores):
        return scores.argsort(descending=True, stable=True)
    floor = scores.topk(count).values[-1]
    chosen = (scores >= floor).nonzero().squeeze(1)
    return chosen[scores[chosen].argsort(descending=True, stable=True)]


def _keep(boxes: Tensor, labels: Tensor, nms_thres: float, distance_power: float | None) -> Tensor:
    """Candidates, best first → the indices that survive, best first."""
    if _by_pairs(boxes, labels, nms_thres, distance_power is not None):
        return _keep_by_pairs(boxes, labels, nms_thres, distance_power)
    if distance_power is not None:
        return _keep_by_distance(boxes, labels, nms_thres, distance_power)
    if boxes.is_cuda:
        return _keep_at_once(boxes, labels, _limit(nms_thres))
    return _keep_by_class(boxes, labels, _limit(nms_thres))


def _by_pairs(boxes: Tensor, labels: Tensor, nms_thres: float, distance: bool) -> bool:
    """Whether it pays to look for the pairs that may overlap, and can be done."""
    if boxes.is_cuda or nms_thres < LEAST_OVERLAP:
        return False
    if not distance:
        most = float(labels.bincount().double().square().sum())
        if most < MANY or _comparisons(boxes, labels, _limit(nms_thres)) < MANY:
            return False
    sides = boxes[:, 2:] - boxes[:, :2]
    return not ((sides > 0) & (sides < SMALLEST)).any()


def _comparisons(boxes: Tensor, labels: Tensor, limit: float) -> float:
    """About how many pairs torchvision would compare: as many as among every n-th candidate,
    growing further as they grew from half of those on."""
    step = -(-len(boxes) // FIRST_LOOK)
    found = []
    for each in (2 * step, step):
        some, whose = boxes[::each], labels[::each]
        survived = whose[_keep_by_class(some, whose, limit)]
        found.append(float((whose.bincount()[survived]).sum()))
    return found[1] * step ** math.log2(found[1] / found[0])


def _keep_by_pairs(
    boxes: Tensor, labels: Tensor, nms_thres: float, distance_power: float | None
) -> Tensor:
    threshold = torch.tensor(nms_thres)

    def removes(better: Boxes, worse: Boxes) -> NDArray[np.bool_]:
        overlaps = _overlaps(torch.from_numpy(better), torch.from_numpy(worse), distance_power)
        found: NDArray[np.bool_] = (overlaps > threshold).numpy()
        return found

    return torch.from_numpy(survivors(boxes.numpy(), labels.numpy(), nms_thres, removes))


def _keep_by_class(boxes: Tensor, labels: Tensor, limit: float) -> Tensor:
    """For a CPU, where comparing across classes would cost more than a call for each class."""
    order = labels.argsort(stable=True)  # by class, best first within it
    rank = torch.arange(len(boxes), 0, -1, dtype=torch.float32, device=boxes.device)  # a score
    kept, start = [order[:0]], 0
    for count in labels.bincount().tolist():
        members = order[start : start + count]
        start += count
        if count:
            kept.append(members[torchvision.ops.nms(boxes[members], rank[:count], limit)])
    return torch.cat(kept).sort().values


def _keep_at_once(boxes: Tensor, labels: Tensor, limit: float) -> Tensor:
    """For a GPU: one call, with each class moved to a place of its own.

    In float64: the float32 of torchvision's `batched_nms` has steps of 0.004 px where the 80th
    class would lie, enough to turn a decision.
    """
    if not len(boxes):
        return labels
    moved = boxes.double()
    apart = moved.max() - moved.min() + 1
    rank = torch.arange(len(boxes), 0, -1, dtype=torch.float64, device=boxes.device)
    return torchvision.ops.nms(moved + (labels * apart)[:, None], rank, limit)


def _keep_by_distance(boxes: Tensor, labels: Tensor, limit: float, power: float) -> Tensor:
    """With DIoU, which no library has: a loop over the survivors of each class."""
    kept = []
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)  # best first
        while len(members):
            kept.append(members[:1])
            overlaps = _overlaps(boxes[members[:1]].T, boxes[members[1:]].T, power)
            members = members[1:][~(overlaps > limit)]
    return torch.cat([labels[:0], *kept]).sort().values


def _overlaps(a: Tensor, b: Tensor, power: float | None) -> Tensor:
    """IoU of boxes [4, N] with others [4, N], less (d² / c²)^power where there is a power."""
    inside = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0).prod(0)
    iou = inside / ((a[2:] - a[:2]).prod(0) + (b[2:] - b[:2]).prod(0) - inside)
    if power is None:
        return iou
    step = (a[:2] + a[2:] - b[:2] - b[2:]) / 2
    around = torch.maximum(a[2:], b[2:]) - torch.minimum(a[:2], b[:2])
    share = (step**2).sum(0) / (around**2).sum(0).clamp(min=1e-12)
    return iou - share**power
