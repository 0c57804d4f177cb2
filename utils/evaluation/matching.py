"""Which detection finds which object?

The boxes of all photos stand in a row, so that a whole validation set is matched at once. Where
scores are equal, `utils.evaluation.ranking` says which detection goes first; where overlaps are,
`candidate_pairs` which object is preferred.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from utils.errors import InputError
from utils.evaluation.ranking import best_first
from utils.structures import Detections, Targets

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class MatchingRule:
    """How detections, best first, claim objects.

    Attributes:
        second_choice: where the object that it overlaps most is taken, a detection may claim
            another (COCO); else it is a false positive (VOC).
        crowds: overlap with an object to ignore is over the *detection's* area, as with COCO's
            crowds.
        strict: the overlap must be above the threshold, not just reach it.
        plus_one: both corners are pixels inside the box, so a width is right - left + 1.
    """

    second_choice: bool = False
    crowds: bool = False
    strict: bool = False
    plus_one: bool = False


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The objects of all photos. photo, labels [N]; boxes xyxy [N, 4]; ignore, area [N]."""

    photo: Ints
    labels: Ints
    boxes: Floats
    ignore: Bools
    area: Floats

    @staticmethod
    def of(targets: Sequence[Targets], num_classes: int) -> "GroundTruth":
        """The objects of photos in a row.

        Raises:
            InputError: a label is no class, or a box none.
        """
        truth = GroundTruth(
            np.repeat(np.arange(len(targets)), [len(t.labels) for t in targets]),
            _in_a_row([t.labels for t in targets], np.int64),
            _in_a_row([t.boxes for t in targets], np.float64, 4),
            _in_a_row([t.ignore for t in targets], np.bool_),
            _in_a_row([t.area for t in targets], np.float64),
        )
        _check("targets", truth.photo, truth.labels, truth.boxes, num_classes)
        return truth


@dataclass(frozen=True, eq=False)
class RankedDetections:
    """The detections of all photos, best first. photo, labels, scores [D]; boxes xyxy [D, 4].

    Of equal scores the earlier photo's, then the earlier detection, stands first.
    """

    photo: Ints
    labels: Ints
    boxes: Floats
    scores: Floats

    @staticmethod
    def of(detections: Sequence[Detections], num_classes: int) -> "RankedDetections":
        """The detections of photos, ranked.

        Raises:
            InputError: a label is no class, a box none or a score no number.
        """
        scores = _in_a_row([d.scores for d in detections], np.float64)
        unranked = RankedDetections(
            np.repeat(np.arange(len(detections)), [len(d) for d in detections]),
            _in_a_row([d.labels for d in detections], np.int64),
            _in_a_row([d.boxes for d in detections], np.float64, 4),
            scores,
        )
        _check("detections", unranked.photo, unranked.labels, unranked.boxes, num_classes)
        no_number = np.isnan(scores)
        if no_number.any():
            place = f"detections of photo {unranked.photo[no_number][0]}"
            raise InputError(f"{place}: score nan: expected a number")
        return unranked.select(best_first(torch.from_numpy(scores)).numpy())

    def select(self, chosen: NDArray[Any]) -> "RankedDetections":
        """Those that a mask or rising indices name."""
        return RankedDetections(
            self.photo[chosen], self.labels[chosen], self.boxes[chosen], self.scores[chosen]
        )

    def limit(self, num_classes: int, max_detections: int) -> "RankedDetections":
        """Only the best `max_detections` of each class and photo."""
        key = self.photo * num_classes + self.labels
        order = np.argsort(key, kind="stable")
        place = np.arange(len(key)) - np.searchsorted(key[order], key[order])
        return self.select(np.sort(order[place < max_detections]))


def _in_a_row(tensors: list[Tensor], dtype: type[Number], *width: int) -> NDArray[Number]:
    """Tensors of several photos, one after another, as one array."""
    arrays = [t.detach().cpu().numpy().astype(dtype).reshape(-1, *width) for t in tensors]
    return np.concatenate([np.zeros((0, *width), dtype), *arrays])


def _check(kind: str, photo: Ints, labels: Ints, boxes: Floats, num_classes: int) -> None:
    unknown = (labels < 0) | (labels >= num_classes)
    if unknown.any():
        place = f"{kind} of photo {photo[unknown][0]}"
        label, last = labels[unknown][0], num_classes - 1
        raise InputError(f"{place}: label {label}: expected 0 to {last}")
    no_box = ~(np.isfinite(boxes).all(1) & (boxes[:, :2] <= boxes[:, 2:]).all(1))
    if no_box.any():
        place = f"{kind} of photo {photo[no_box][0]}"
        box = boxes[no_box][0].tolist()
        raise InputError(f"{place}: box {box}: expected finite left <= right, top <= bottom")


@dataclass(frozen=True, eq=False)
class CandidatePairs:
    """Which objects each detection may claim: best detection first, its favourite object first.

    Attributes:
        detection: indices [P] into RankedDetections.
        truth: indices [P] into GroundTruth.
        iou: [P], their overlap.
    """

    detection: Ints
    truth: Ints
    iou: Floats

    def select(self, chosen: NDArray[Any]) -> "CandidatePairs":
        """Those that a mask or indices name."""
        return CandidatePairs(self.detection[chosen], self.truth[chosen], self.iou[chosen])


def candidate_pairs(
    ranked: RankedDetections, truth: GroundTruth, rule: MatchingRule, num_classes: int | None
) -> CandidatePairs:
    """The objects on its photo, and of its class, that each detection may claim.

    A detection's favourite is the object that it overlaps most. Of equal overlaps it is the first
    (VOC), or as in pycocotools the last, with objects that count before those to ignore (where
    `rule.second_choice`).

    Args:
        ranked: the detections.
        truth: the objects.
        rule: how overlap is taken, and whether a detection has more than one choice.
        num_classes: None lets detections claim objects of any class.
    """
    if num_classes is None:
        detection, claimed = _pairs(ranked.photo, truth.photo)
    else:
        detection, claimed = _pairs(
            ranked.photo * num_classes + ranked.labels, truth.photo * num_classes + truth.labels
        )
    iou = _overlap(ranked.boxes[detection], truth.boxes[claimed], truth.ignore[claimed], rule)
    pairs = CandidatePairs(detection, claimed, iou)
    if rule.second_choice:
        ignored = truth.ignore[pairs.truth]
        return pairs.select(np.lexsort((-pairs.truth, -pairs.iou, ignored, pairs.detection)))
    pairs = pairs.select(np.lexsort((pairs.truth, -pairs.iou, pairs.detection)))
    return pairs.select(_first_of_each(pairs.detection))


def _pairs(detection_keys: Ints, truth_keys: Ints) -> tuple[Ints, Ints]:
    """The indices of all detections and objects that have the same key, P pairs."""
    order = np.argsort(truth_keys, kind="stable")
    start = np.searchsorted(truth_keys[order], detection_keys, "left")
    count = np.searchsorted(truth_keys[order], detection_keys, "right") - start
    detection = np.repeat(np.arange(len(detection_keys)), count)
    within = np.arange(len(detection)) - np.repeat(np.cumsum(count) - count, count)
    return detection, order[np.repeat(start, count) + within]


def _overlap(a: Floats, b: Floats, ignored: Bools, rule: MatchingRule) -> Floats:
    """IoU [P] of detections [P, 4] with objects [P, 4]."""
    border = float(rule.plus_one)
    inside = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]) + border
    intersection = inside.clip(0).prod(1)
    area_a = (a[:, 2:] - a[:, :2] + border).prod(1)
    area_b = (b[:, 2:] - b[:, :2] + border).prod(1)
    union = area_a + area_b - intersection
    if rule.crowds:
        union = np.where(ignored, area_a, union)
    return np.asarray(intersection / np.where(union > 0, union, 1))


def _first_of_each(ordered: Ints) -> Bools:
    return np.asarray(np.diff(ordered, prepend=-1) != 0)


@dataclass(frozen=True, eq=False)
class Matches:
    """How each of D detections, best first, was matched.

    Attributes:
        hit: it found an object.
        ignored: it lies on an object to ignore and counts neither way.
        truth: the object that it claimed, or -1.
    """

    hit: Bools
    ignored: Bools
    truth: Ints


def match(
    pairs: CandidatePairs,
    ranked: RankedDetections,
    truth: GroundTruth,
    iou_thres: float,
    rule: MatchingRule,
) -> Matches:
    """Let the detections, best first, claim their favourite of the objects that are free.

    All at once: every detection asks for its favourite and an object keeps the best that asks; the
    others ask for their next (Gale and Shapley, American Mathematical Monthly 1962). Since all
    objects prefer the higher score, there is one stable outcome, that of asking one by one. An
    object to ignore takes all.

    Args:
        pairs: of `candidate_pairs`, with the same rule.
        ranked: the detections.
        truth: the objects.
        iou_thres: the overlap that a pair must reach, or be above where `rule.strict`.
        rule: how detections claim objects.
    """
    enough = pairs.select(pairs.iou > iou_thres if rule.strict else pairs.iou >= iou_thres)
    place = np.flatnonzero(_first_of_each(enough.detection))  # where a detection's objects begin
    end = np.append(place[1:], len(enough.detection))
    suitor = enough.detection[place]
    while True:
        wanted = enough.truth[place]
        best = np.full(len(truth.labels), len(ranked.labels))
        np.minimum.at(best, wanted, suitor)
        refused = (best[wanted] != suitor) & ~truth.ignore[wanted]
        if not refused.any():
            break
        place = place + refused
        asking = place < end
        place, end, suitor = place[asking], end[asking], suitor[asking]
    claimed = np.full(len(ranked.labels), -1)
    claimed[suitor] = wanted
    ignored = np.zeros(len(ranked.labels), np.bool_)
    ignored[suitor] = truth.ignore[wanted]
    return Matches((claimed >= 0) & ~ignored, ignored, claimed)
