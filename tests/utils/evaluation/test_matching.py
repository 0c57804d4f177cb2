"""Matching all at once against asking one detection after the other."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.errors import InputError
from utils.evaluation.matching import (
    GroundTruth,
    MatchingRule,
    RankedDetections,
    candidate_pairs,
    match,
)
from utils.structures import Detections, Targets

CLASSES = 2


def scene(seed: int, photos: int = 2) -> tuple[list[Targets], list[Detections]]:
    """A few crowded photos, on a coarse grid so that overlaps and scores are often equal."""
    random = np.random.default_rng(seed)
    targets, detections = [], []
    for _ in range(photos):
        n, k = random.integers(0, 6), random.integers(0, 9)
        corner, size = random.integers(0, 4, (n + k, 2)), random.integers(1, 5, (n + k, 2))
        boxes = torch.tensor(np.hstack([corner, corner + size]), dtype=torch.float32)
        labels = torch.tensor(random.integers(0, CLASSES, n + k))
        ignore = torch.tensor(random.random(n) < 0.25)
        area = (boxes[:n, 2:] - boxes[:n, :2]).prod(1)
        scores = torch.tensor(random.integers(1, 6, k) / 8, dtype=torch.float32)
        targets.append(Targets(boxes[:n], labels[:n], ignore, area))
        detections.append(Detections(boxes[n:], scores, labels[n:]))
    return targets, detections


def overlap(a: list[float], b: list[float], crowd: bool, one: int) -> float:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + one)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + one)
    area_a = (a[2] - a[0] + one) * (a[3] - a[1] + one)
    area_b = (b[2] - b[0] + one) * (b[3] - b[1] + one)
    return width * height / (area_a if crowd else area_a + area_b - width * height)


def one_by_one(
    truth: GroundTruth,
    ranked: RankedDetections,
    iou_thres: float,
    rule: MatchingRule,
    by_class: bool,
) -> tuple[list[int], list[bool]]:
    """(object or -1, ignored) of each detection: VOC's and pycocotools' loops, in plain words."""
    free = [True] * len(truth.labels)
    claimed, ignored = [], []
    for d in range(len(ranked.labels)):
        near = []
        for t in range(len(truth.labels)):
            same = not by_class or truth.labels[t] == ranked.labels[d]
            if truth.photo[t] == ranked.photo[d] and same:
                crowd = rule.crowds and bool(truth.ignore[t])
                a, b = ranked.boxes[d].tolist(), truth.boxes[t].tolist()
                near.append((overlap(a, b, crowd, int(rule.plus_one)), t))
        if rule.second_choice:
            near = [(iou, t) for iou, t in near if free[t] or truth.ignore[t]]
            near.sort(key=lambda pair: (truth.ignore[pair[1]], -pair[0], -pair[1]))
            near = [n for n in near if (n[0] > iou_thres if rule.strict else n[0] >= iou_thres)]
        else:
            near.sort(key=lambda pair: (-pair[0], pair[1]))
            near = [n for n in near[:1] if (n[0] > iou_thres if rule.strict else n[0] >= iou_thres)]
            near = [n for n in near if free[n[1]] or truth.ignore[n[1]]]
        claimed.append(near[0][1] if near else -1)
        ignored.append(bool(near) and bool(truth.ignore[near[0][1]]))
        if near:
            free[near[0][1]] = False
    return claimed, ignored


@given(
    seed=st.integers(0, 2**20),
    rule=st.builds(MatchingRule, st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    iou_thres=st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0]),
    by_class=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_all_at_once_equals_one_by_one(
    seed: int, rule: MatchingRule, iou_thres: float, by_class: bool
) -> None:
    targets, detections = scene(seed)
    truth, ranked = GroundTruth.of(targets, CLASSES), RankedDetections.of(detections, CLASSES)
    pairs = candidate_pairs(ranked, truth, rule, CLASSES if by_class else None)
    matches = match(pairs, ranked, truth, iou_thres, rule)
    claimed, ignored = one_by_one(truth, ranked, iou_thres, rule, by_class)
    assert matches.truth.tolist() == claimed
    assert matches.ignored.tolist() == ignored
    assert matches.hit.tolist() == [t >= 0 and not d for t, d in zip(claimed, ignored, strict=True)]


def test_equal_scores_keep_their_order() -> None:
    box, label = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([0])
    same = [Detections(box + photo, torch.tensor([0.5]), label) for photo in range(3)]
    assert RankedDetections.of(same, 1).photo.tolist() == [0, 1, 2]


@pytest.mark.filterwarnings("error")
def test_boxes_without_area_find_nothing() -> None:
    point, label = torch.tensor([[5.0, 5, 5, 5]]), torch.tensor([0])
    truth = GroundTruth.of([Targets(point, label, label > 0, torch.zeros(1))], 1)
    ranked = RankedDetections.of([Detections(point, torch.tensor([0.5]), label)], 1)
    pairs = candidate_pairs(ranked, truth, MatchingRule(), 1)
    assert match(pairs, ranked, truth, 0.5, MatchingRule()).hit.tolist() == [False]


def test_limit_keeps_the_best_of_each_class_and_photo() -> None:
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    one = Detections(torch.zeros(4, 4), scores, torch.tensor([0, 0, 0, 1]))
    left = RankedDetections.of([one, one], CLASSES).limit(CLASSES, 2)
    assert left.photo.tolist() == [0, 1, 0, 1, 0, 1]
    assert left.labels.tolist() == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("box", "label", "score", "message"),
    [
        ([0.0, 0, 1, 1], 2, 0.5, "detections of photo 1: label 2: expected 0 to 1"),
        ([0.0, 0, float("inf"), 1], 0, 0.5, "detections of photo 1: box .* finite"),
        ([3.0, 0, 1, 1], 0, 0.5, "detections of photo 1: box .* left <= right"),
        ([0.0, 0, 1, 1], 0, float("nan"), "detections of photo 1: score nan"),
    ],
)
def test_what_is_no_detection_is_refused(
    box: list[float], label: int, score: float, message: str
) -> None:
    good = Detections(torch.zeros(1, 4), torch.tensor([0.5]), torch.tensor([0]))
    bad = Detections(torch.tensor([box]), torch.tensor([score]), torch.tensor([label]))
    with pytest.raises(InputError, match=message):
        RankedDetections.of([good, bad], CLASSES)
