"""Which detection finds which object?

The boxes of all photos stand in a row, so that a whole validation set is matched at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from utils.errors import InputError
from utils.structures import Detections, Targets

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class Rule:
    """How detections, best first, claim objects.

    second_choice: where the object that it overlaps most is taken, a detection may claim another
        (COCO); else it is a false positive (VOC).
    crowds: overlap with an object to ignore is over the *detection's* area, as with COCO's crowds.
    strict: the overlap must be above the threshold, not just reach it.
    plus_one: both corners are pixels inside the box, so a width is right - left + 1.
    """

    second_choice: bool = False
    crowds: bool = False
    strict: bool = False
    plus_one: bool = False


@dataclass(frozen=True, eq=False)
class Truths:
    """The objects of all photos. photo, labels [N]; boxes xyxy [N, 4]; ignore, area [N]."""

    photo: Ints
    labels: Ints
    boxes: Floats
    ignore: Bools
    area: Floats

    @staticmethod
    def of(targets: Sequence[Targets], num_classes: int) -> "Truths":
        truths = Truths(
            np.repeat(np.arange(len(targets)), [len(t.labels) for t in targets]),
            row([t.labels for t in targets], np.int64),
            row([t.boxes for t in targets], np.float64, 4),
            row([t.ignore for t in targets], np.bool_),
            row([t.area for t in targets], np.float64),
        )
        _check("targets", truths.photo, truths.labels, truths.boxes, num_classes)
        return truths


@dataclass(frozen=True, eq=False)
class Found:
    """The detections of all photos, best first. photo, labels, scores [D]; boxes xyxy [D, 4].

    Of equal scores the earlier photo's, then the earlier detection, stands first.
    """

    photo: Ints
    labels: Ints
    boxes: Floats
    scores: Floats

    @staticmethod
    def of(detections: Sequence[Detections], num_classes: int) -> "Found":
        found = Found(
            np.repeat(np.arange(len(detections)), [len(d) for d in detections]),
            row([d.labels for d in detections], np.int64),
            row([d.boxes for d in detections], np.float64, 4),
            row([d.scores for d in detections], np.float64),
        )
        _check("detections", found.photo, found.labels, found.boxes, num_classes)
        unscored = np.isnan(found.scores)
        if unscored.any():
            place = f"detections of photo {found.photo[unscored][0]}"
            raise InputError(f"{place}: score nan: expected a number")
        return found.select(np.argsort(-found.scores, kind="stable"))

    def select(self, chosen: NDArray[Any]) -> "Found":
        return Found(
            self.photo[chosen], self.labels[chosen], self.boxes[chosen], self.scores[chosen]
        )

    def limit(self, num_classes: int, most: int) -> "Found":
        """Only the best `most` of each class and photo."""
        key = self.photo * num_classes + self.labels
        order = np.argsort(key, kind="stable")
        place = np.arange(len(key)) - np.searchsorted(key[order], key[order])
        return self.select(np.sort(order[place < most]))


def row(tensors: list[Tensor], dtype: type[Number], *width: int) -> NDArray[Number]:
    """Tensors of several photos, one after another, as one array."""
    arrays = [t.detach().cpu().numpy().astype(dtype).reshape(-1, *width) for t in tensors]
    return np.concatenate([np.zeros((0, *width), dtype), *arrays])


def _check(what: str, photo: Ints, labels: Ints, boxes: Floats, num_classes: int) -> None:
    unknown = (labels < 0) | (labels >= num_classes)
    if unknown.any():
        place = f"{what} of photo {photo[unknown][0]}"
        label, last = labels[unknown][0], num_classes - 1
        raise InputError(f"{place}: label {label}: expected 0 to {last}")
    no_box = ~(np.isfinite(boxes).all(1) & (boxes[:, :2] <= boxes[:, 2:]).all(1))
    if no_box.any():
        place = f"{what} of photo {photo[no_box][0]}"
        box = boxes[no_box][0].tolist()
        raise InputError(f"{place}: box {box}: expected finite left <= right, top <= bottom")


@dataclass(frozen=True, eq=False)
class Choices:
    """Which objects each detection might claim: best detection first, its favourite first.

    found, truth: indices [P] into Found and Truths; iou [P].
    """

    found: Ints
    truth: Ints
    iou: Floats

    def select(self, chosen: NDArray[Any]) -> "Choices":
        return Choices(self.found[chosen], self.truth[chosen], self.iou[chosen])


def choices(found: Found, truths: Truths, rule: Rule, num_classes: int | None) -> Choices:
    """The objects of its photo, and of its class, that each detection might claim.

    num_classes: None lets detections claim objects of any class.
    """
    if num_classes is None:
        which, truth = _pairs(found.photo, truths.photo)
    else:
        which, truth = _pairs(
            found.photo * num_classes + found.labels, truths.photo * num_classes + truths.labels
        )
    pairs = Choices(which, truth, _overlap(found, truths, which, truth, rule))
    if rule.second_choice:
        # As in pycocotools: objects that count before those to ignore; of equals the last.
        ignored = truths.ignore[pairs.truth]
        return pairs.select(np.lexsort((-pairs.truth, -pairs.iou, ignored, pairs.found)))
    pairs = pairs.select(np.lexsort((pairs.truth, -pairs.iou, pairs.found)))
    return pairs.select(_first_of_each(pairs.found))


def _pairs(found_key: Ints, truth_key: Ints) -> tuple[Ints, Ints]:
    """The indices of all detections and objects that have the same key, P pairs."""
    order = np.argsort(truth_key, kind="stable")
    start = np.searchsorted(truth_key[order], found_key, "left")
    count = np.searchsorted(truth_key[order], found_key, "right") - start
    found = np.repeat(np.arange(len(found_key)), count)
    within = np.arange(len(found)) - np.repeat(np.cumsum(count) - count, count)
    return found, order[np.repeat(start, count) + within]


def _overlap(found: Found, truths: Truths, which: Ints, truth: Ints, rule: Rule) -> Floats:
    a, b, one = found.boxes[which], truths.boxes[truth], float(rule.plus_one)
    size = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]) + one
    inside = size.clip(0).prod(1)
    area_a, area_b = (a[:, 2:] - a[:, :2] + one).prod(1), (b[:, 2:] - b[:, :2] + one).prod(1)
    total = area_a + area_b - inside
    if rule.crowds:
        total = np.where(truths.ignore[truth], area_a, total)
    return inside / np.where(total > 0, total, 1)


def _first_of_each(ordered: Ints) -> Bools:
    return np.diff(ordered, prepend=-1) != 0


@dataclass(frozen=True, eq=False)
class Verdict:
    """What became of each of D detections, best first.

    hit: it found an object. dropped: it lies on an object to ignore and counts neither way.
    truth: the object that it claimed, or -1.
    """

    hit: Bools
    dropped: Bools
    truth: Ints


def match(pairs: Choices, found: Found, truths: Truths, iou_thres: float, rule: Rule) -> Verdict:
    """Let the detections, best first, claim the first of their choices that is free.

    All at once: every detection asks for its favourite and an object keeps the best that asks; the
    others ask their next choice (Gale and Shapley 1962). Since all objects prefer the higher
    score, there is one stable outcome, that of asking one by one. An object to ignore takes all.
    """
    enough = pairs.select(pairs.iou > iou_thres if rule.strict else pairs.iou >= iou_thres)
    place = np.flatnonzero(_first_of_each(enough.found))  # where a detection's choices begin
    end = np.append(place[1:], len(enough.found))
    suitor = enough.found[place]
    while True:
        wanted = enough.truth[place]
        best = np.full(len(truths.labels), len(found.labels))
        np.minimum.at(best, wanted, suitor)
        refused = (best[wanted] != suitor) & ~truths.ignore[wanted]
        if not refused.any():
            break
        place = place + refused
        asking = place < end
        place, end, suitor = place[asking], end[asking], suitor[asking]
    truth = np.full(len(found.labels), -1)
    truth[suitor] = wanted
    dropped = np.zeros(len(found.labels), np.bool_)
    dropped[suitor] = truths.ignore[wanted]
    return Verdict((truth >= 0) & ~dropped, dropped, truth)
