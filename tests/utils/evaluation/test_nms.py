"""NMS against Darknet's rule written out, and the corners where fast versions go wrong."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from import_param import Nms
from utils.evaluation import close_pairs
from utils.evaluation import nms as module
from utils.evaluation.nms import non_maximum_suppression
from utils.structures import Detections, Predictions


def nms(
    predictions: Predictions,
    conf_thres: float,
    nms_thres: float,
    max_detections: int = 0,
    power: float | None = None,
) -> list[Detections]:
    return non_maximum_suppression(predictions, Nms(conf_thres, nms_thres, max_detections), power)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """IoU of two boxes in float32, as Darknet computes it."""
    inside = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0).prod()
    areas = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()
    return inside / (areas - inside)


def darknet(
    predictions: Predictions, image: int, conf_thres: float, nms_thres: float
) -> list[tuple[float, int, int]]:
    """(score, proposal, class), best first: for each class, sort, keep, remove what overlaps."""
    boxes, objectness = predictions.boxes[image], predictions.objectness[image]
    threshold = torch.tensor(nms_thres)
    found = []
    for label in range(predictions.classes.shape[2]):
        scores = objectness * predictions.classes[image, :, label]
        alive = [i for i in range(len(boxes)) if scores[i] > conf_thres]
        alive.sort(key=lambda i: -float(scores[i]))
        while alive:
            best = alive.pop(0)
            found.append((float(scores[best]), best, label))
            alive = [i for i in alive if not overlap(boxes[best], boxes[i]) > threshold]
    return sorted(found, key=lambda f: (-f[0], f[1], f[2]))


def scene(seed: int, images: int, proposals: int, classes: int, ties: bool = False) -> Predictions:
    """Boxes in clusters, so that many overlap; on a grid with equal scores where `ties`."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.rand(images, 3, 2, generator=random) * 100
    pick = torch.randint(3, (images, proposals), generator=random)
    spread = torch.randn(images, proposals, 4, generator=random)
    centre = centres.gather(1, pick[..., None].expand(-1, -1, 2)) + 8 * spread[..., :2]
    half = 15 * torch.exp(spread[..., 2:] / 4)
    boxes = torch.cat([centre - half, centre + half], -1)
    objectness = torch.rand(images, proposals, generator=random)
    probabilities = torch.rand(images, proposals, classes, generator=random)
    if ties:
        boxes = (boxes / 8).round() * 8
        objectness, probabilities = (objectness * 4).round() / 4, (probabilities * 2).round() / 2
    return Predictions(boxes, objectness, probabilities)


@given(
    seed=st.integers(0, 2**16),
    proposals=st.integers(0, 25),
    classes=st.integers(1, 4),
    ties=st.booleans(),
    conf_thres=st.sampled_from([0.0, 0.001, 0.25, 0.5, 1.0]),
    nms_thres=st.sampled_from([0.0, 0.1, 0.45, 0.5, 1.0]),
    max_detections=st.sampled_from([0, 1, 5, 100]),
    first_look=st.sampled_from([1, 4, 2048]),
)
@settings(max_examples=150, deadline=None)
def test_equals_darknet(
    seed: int,
    proposals: int,
    classes: int,
    ties: bool,
    conf_thres: float,
    nms_thres: float,
    max_detections: int,
    first_look: int,
) -> None:
    predictions = scene(seed, 2, proposals, classes, ties)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FIRST_LOOK", first_look)
        found = nms(predictions, conf_thres, nms_thres, max_detections)
    for image, detections in enumerate(found):
        wanted = darknet(predictions, image, conf_thres, nms_thres)[: max_detections or None]
        assert detections.scores.tolist() == [score for score, _, _ in wanted]
        assert detections.labels.tolist() == [label for _, _, label in wanted]
        assert detections.boxes.tolist() == [
            predictions.boxes[image, proposal].tolist() for _, proposal, _ in wanted
        ]


@given(seed=st.integers(0, 2**16), ties=st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_gpu_way_equals_the_cpu_way(seed: int, ties: bool) -> None:
    predictions = scene(seed, 1, 60, 1, ties)
    boxes = predictions.boxes[0]
    labels = torch.randint(80, (60,), generator=torch.Generator().manual_seed(seed))
    limit = module._limit(0.45)
    at_once = module._keep_at_once(boxes, labels, limit)
    assert at_once.tolist() == module._keep_by_class(boxes, labels, limit).tolist()


def wild(seed: int, count: int) -> Tensor:
    """Boxes [N, 4] of all sizes and shapes, some without area, some equal, some far away."""
    random = torch.Generator().manual_seed(seed)
    corner = torch.randn(count, 2, generator=random) * 30
    sides = 10 * torch.exp(torch.randn(count, 2, generator=random) * (seed % 5 / 2))
    sides[torch.rand(count, 2, generator=random) < 0.02] = 0
    boxes = torch.cat([corner, corner + sides], 1)
    boxes[torch.rand(count, generator=random) < 0.1] *= 1e4
    copied = torch.rand(count, generator=random) < 0.1
    boxes = torch.where(copied[:, None], boxes.roll(1, 0), boxes)
    return boxes.clamp(-module.FURTHEST, module.FURTHEST)


@given(
    seed=st.integers(0, 2**16),
    count=st.integers(0, 400),
    classes=st.integers(1, 3),
    nms_thres=st.sampled_from([0.1, 0.3, 0.45, 0.7, 0.99, 1.0]),
    power=st.sampled_from([None, 0.6]),
    at_once=st.sampled_from([0, 300, close_pairs.MOST_PAIRS]),
)
@settings(max_examples=60, deadline=None)
def test_looking_at_close_pairs_equals_looking_at_all(
    seed: int, count: int, classes: int, nms_thres: float, power: float | None, at_once: int
) -> None:
    boxes = wild(seed, count)
    labels = torch.randint(classes, (count,), generator=torch.Generator().manual_seed(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(close_pairs, "MOST_PAIRS", at_once)
        patch.setattr(close_pairs, "HEAD", 50)
        found = module._keep_by_pairs(boxes, labels, nms_thres, power)
    if power is None:
        wanted = module._keep_by_class(boxes, labels, module._limit(nms_thres))
    else:
        wanted = module._keep_by_distance(boxes, labels, nms_thres, power)
    assert found.tolist() == wanted.tolist()


def test_many_candidates_are_taken_by_pairs_but_not_where_few_survive_or_that_is_blind() -> None:
    labels = torch.zeros(30000, dtype=torch.int64)
    boxes = wild(1, 30000)
    assert module._by_pairs(boxes, labels, 0.45, distance=False)
    assert not module._by_pairs(boxes[:100], labels[:100], 0.45, distance=False)
    assert not module._by_pairs(boxes, labels, 0.05, distance=False)
    one_place = boxes[:1] + torch.rand(30000, 4)
    assert not module._by_pairs(one_place, labels, 0.45, distance=False)
    boxes[7] = torch.tensor([0.0, 0, 1e-20, 1e-20])
    assert not module._by_pairs(boxes, labels, 0.45, distance=False)


@pytest.mark.parametrize("kind", ["all apart", "one place", "wild"])
def test_comparisons_are_foreseen(kind: str) -> None:
    boxes = {
        "all apart": torch.arange(10000.0)[:, None] + torch.tensor([0, 0, 0.5, 1]),
        "one place": wild(1, 1) + torch.rand(10000, 4, generator=torch.Generator().manual_seed(0)),
        "wild": wild(1, 10000),
    }[kind]
    labels = torch.randint(4, (10000,), generator=torch.Generator().manual_seed(0)) // 3
    limit = module._limit(0.45)
    kept = module._keep_by_class(boxes, labels, limit)
    true = sum(int((labels == n).sum() * (labels[kept] == n).sum()) for n in (0, 1))
    assert module._comparisons(boxes, labels, limit) == pytest.approx(true, rel=0.5)


def one_box(objectness: float, classes: list[float], box: list[float]) -> Predictions:
    return Predictions(
        torch.tensor([[box]]), torch.tensor([[objectness]]), torch.tensor([[classes]])
    )


def test_one_box_can_be_two_classes() -> None:
    (found,) = nms(one_box(0.5, [0.9, 0.1, 0.8], [0.0, 0, 9, 9]), 0.25, 0.45)
    assert found.labels.tolist() == [0, 2]
    assert found.scores.tolist() == pytest.approx([0.45, 0.4])


def test_the_thresholds_themselves_are_kept_out_and_in() -> None:
    assert len(nms(one_box(0.5, [0.5], [0.0, 0, 9, 9]), 0.25, 0.45)[0]) == 0
    boxes = torch.tensor([[[0.0, 0, 4, 4], [0.0, 0, 4, 2]]])  # IoU exactly 0.5
    pair = Predictions(boxes, torch.tensor([[0.9, 0.8]]), torch.ones(1, 2, 1))
    assert len(nms(pair, 0.1, 0.5)[0]) == 2
    assert len(nms(pair, 0.1, 0.49)[0]) == 1


def test_a_tenth_is_not_above_a_tenth() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0.0, 0, 10, 1]]])  # IoU 1 / 10
    pair = Predictions(boxes, torch.tensor([[0.9, 0.8]]), torch.ones(1, 2, 1))
    assert len(nms(pair, 0.1, 0.1)[0]) == 2
    assert len(nms(pair, 0.1, 0.0999)[0]) == 1


def test_nothing_in_nothing_out() -> None:
    nothing = Predictions(torch.zeros(2, 0, 4), torch.zeros(2, 0), torch.zeros(2, 0, 3))
    for found in nms(nothing, 0.1, 0.45, 300):
        assert (found.boxes.shape, found.scores.shape, found.labels.shape) == ((0, 4), (0,), (0,))
    assert (
        nms(Predictions(torch.zeros(0, 5, 4), torch.zeros(0, 5), torch.zeros(0, 5, 3)), 0, 0, 1)
        == []
    )


def test_a_network_gone_wild_does_not_spoil_other_boxes() -> None:
    boxes = torch.tensor([[[-math.inf, 0, math.inf, 9], [0.0, 0, 9, 9], [0.0, 0, 9, 8]]])
    wild = Predictions(boxes, torch.tensor([[0.9, 0.8, 0.7]]), torch.ones(1, 3, 1))
    (found,) = nms(wild, 0.1, 0.45)
    assert found.boxes.isfinite().all()
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])
    not_numbers = Predictions(boxes, torch.full((1, 3), math.nan), torch.ones(1, 3, 1))
    assert len(nms(not_numbers, 0.1, 0.45)[0]) == 0


def test_half_precision_comes_out_as_float32() -> None:
    half = scene(0, 1, 20, 2)
    half = Predictions(half.boxes.bfloat16(), half.objectness.bfloat16(), half.classes.bfloat16())
    (found,) = nms(half, 0.1, 0.45)
    assert isinstance(found, Detections) and len(found)
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    assert found.labels.dtype == torch.int64


@given(seed=st.integers(0, 2**16), power=st.sampled_from([0.6, 1.0]))
@settings(max_examples=30, deadline=None)
def test_distance_rule_equals_darknets_loop(seed: int, power: float) -> None:
    """`diounms_sort`: remove where IoU - (d² / c²)^power is above the threshold."""
    predictions = scene(seed, 1, 20, 2)
    boxes = predictions.boxes[0].double()

    def removes(a: Tensor, b: Tensor) -> bool:
        step = (a[:2] + a[2:] - b[:2] - b[2:]) / 2
        around = torch.maximum(a[2:], b[2:]) - torch.minimum(a[:2], b[:2])
        share = (step @ step) / (around @ around)
        return float(overlap(a, b) - share**power) > 0.45

    expected = []
    for label in range(2):
        scores = predictions.objectness[0] * predictions.classes[0, :, label]
        alive = sorted((i for i in range(20) if scores[i] > 0.1), key=lambda i: -float(scores[i]))
        while alive:
            best = alive.pop(0)
            expected.append((float(scores[best]), label))
            alive = [i for i in alive if not removes(boxes[best], boxes[i])]
    found = nms(predictions, 0.1, 0.45, power=power)[0]
    pairs = list(zip(found.scores.tolist(), found.labels.tolist(), strict=True))
    assert pairs == sorted(expected, reverse=True)
