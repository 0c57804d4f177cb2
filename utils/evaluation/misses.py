"""On which photos does a network miss objects, or see some that are not there?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from import_param import Evaluation
from utils.evaluation.matching import (
    Bools,
    GroundTruth,
    RankedDetections,
    candidate_pairs,
    match,
)
from utils.evaluation.metrics import RULES
from utils.evaluation.ranking import best_first
from utils.structures import Detections, Targets


@dataclass(frozen=True, eq=False)
class PhotoErrors:
    """What is wrong with the detections of one photo, at one confidence.

    Attributes:
        missed: bool [N], which of its objects no detection of their class found.
        false: bool [K], which of its confident detections found nothing.
        shown: bool [D], which of its detections are confident.
    """

    missed: Bools
    false: Bools
    shown: Bools

    @property
    def count(self) -> int:
        """How many errors there are."""
        return int(self.missed.sum() + self.false.sum())


def photo_errors(
    targets: Sequence[Targets],
    detections: Sequence[Detections],
    num_classes: int,
    evaluation: Evaluation,
    conf: float,
) -> list[PhotoErrors]:
    """Match detections above a confidence as precision and recall are measured; photo by photo.

    Args:
        targets: the ground truth of each photo.
        detections: of each photo, in the same order.
        num_classes: how many classes there are.
        evaluation: the rule, and the overlap for a hit.
        conf: that a detection must be above, such as `Metrics.conf`.
    """
    kept = [d.scores > conf for d in detections]
    confident = [
        Detections(d.boxes[k], d.scores[k], d.labels[k])
        for d, k in zip(detections, kept, strict=True)
    ]
    rule = replace(RULES[evaluation.rule], plus_one=evaluation.plus_one)
    truth = GroundTruth.of(targets, num_classes)
    ranked = RankedDetections.of(confident, num_classes)
    pairs = candidate_pairs(ranked, truth, rule, num_classes)
    matches = match(pairs, ranked, truth, evaluation.iou_thres, rule)

    missed = ~truth.ignore
    missed[matches.truth[matches.hit]] = False
    false = np.zeros(len(ranked.scores), np.bool_)
    scores = torch.cat([torch.zeros(0), *(d.scores.cpu() for d in confident)])
    false[best_first(scores.double()).numpy()] = ~matches.hit & ~matches.ignored  # as `ranked` is

    misses = np.split(missed, np.cumsum([len(t.labels) for t in targets])[:-1])
    wrong = np.split(false, np.cumsum([len(d) for d in confident])[:-1])
    shown = [keep.cpu().numpy() for keep in kept]
    return [PhotoErrors(*of_photo) for of_photo in zip(misses, wrong, shown, strict=True)]
