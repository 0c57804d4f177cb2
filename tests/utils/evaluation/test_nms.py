"""NMS against Darknet's rule written out, and the corners where fast versions go wrong."""

import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from import_param import Nms
from utils.evaluation import nms as module
from utils.evaluation.nms import non_maximum_suppression
from utils.structures import Detections, Predictions


def nms(
    predictions: Predictions,
    conf_thres: float,
    nms_thres: float,
    max_detections: int = 0,
    power: float | None = None,
    card: bool = False,
) -> list[Detections]:
    """On the CPU, or as on a card (which is waited for how often: test_card_waits.py)."""
    suppress = module._from_card if card else non_maximum_suppression
    return suppress(predictions, Nms(conf_thres, nms_thres, max_detections), power)


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
    detections = []
    for label in range(predictions.classes.shape[2]):
        scores = objectness * predictions.classes[image, :, label]
        alive = [i for i in range(len(boxes)) if scores[i] > conf_thres]
        alive.sort(key=lambda i: -float(scores[i]))
        while alive:
            best = alive.pop(0)
            detections.append((float(scores[best]), best, label))
            alive = [i for i in alive if not overlap(boxes[best], boxes[i]) > threshold]
    return sorted(detections, key=lambda d: (-d[0], d[1], d[2]))


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
    first_candidates=st.sampled_from([1, 4, 512]),
    card=st.booleans(),
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
    first_candidates: int,
    card: bool,
) -> None:
    predictions = scene(seed, 2, proposals, classes, ties)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FIRST_CANDIDATES", first_candidates)
        batch = nms(predictions, conf_thres, nms_thres, max_detections, card=card)
    for image, detections in enumerate(batch):
        wanted = darknet(predictions, image, conf_thres, nms_thres)[: max_detections or None]
        assert detections.scores.tolist() == [score for score, _, _ in wanted]
        assert detections.labels.tolist() == [label for _, _, label in wanted]
        assert detections.boxes.tolist() == [
            predictions.boxes[image, proposal].tolist() for _, proposal, _ in wanted
        ]


@given(
    seed=st.integers(0, 2**16),
    images=st.integers(0, 4),
    proposals=st.sampled_from([0, 1, 60]),
    classes=st.sampled_from([1, 3, 80]),
    ties=st.booleans(),
    half=st.booleans(),
    conf_thres=st.sampled_from([0.0, 0.001, 0.25, 1.0]),
    max_detections=st.sampled_from([0, 1, 20, 300]),
    power=st.sampled_from([None, 0.0, 0.6]),
    first_candidates=st.sampled_from([1, 16, 512]),
    empty=st.sets(st.integers(0, 3)),
)
@settings(max_examples=150, deadline=None)
def test_a_card_gives_the_detections_of_the_cpu_bit_for_bit(
    seed: int,
    images: int,
    proposals: int,
    classes: int,
    ties: bool,
    half: bool,
    conf_thres: float,
    max_detections: int,
    power: float | None,
    first_candidates: int,
    empty: set[int],
) -> None:
    predictions = scene(seed, images, proposals, classes, ties)
    predictions.objectness[[image for image in empty if image < images]] = 0
    if half:
        predictions = Predictions(*(each.bfloat16() for each in vars(predictions).values()))
    arguments = (predictions, conf_thres, 0.45, max_detections, power)
    expected = nms(*arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FIRST_CANDIDATES", first_candidates)
        detections = nms(*arguments, card=True)
    for one, other in zip(detections, expected, strict=True):
        for values, wanted in zip(vars(one).values(), vars(other).values(), strict=True):
            assert values.dtype == wanted.dtype
            assert torch.equal(values, wanted)


@given(seed=st.integers(0, 2**16), ties=st.booleans(), power=st.sampled_from([None, 0.6]))
@settings(max_examples=30, deadline=None)
def test_classes_do_not_see_each_other(seed: int, ties: bool, power: float | None) -> None:
    boxes = scene(seed, 1, 60, 1, ties).boxes[0]
    labels = torch.randint(80, (60,), generator=torch.Generator().manual_seed(seed))
    survivors = module._survivors(boxes, labels, 0.45, power)
    expected = [
        members[module._survivors(boxes[members], labels[members], 0.45, power)]
        for members in ((labels == label).nonzero().squeeze(1) for label in labels.unique())
    ]
    assert survivors.tolist() == torch.cat(expected).sort().values.tolist()


def test_boxes_beyond_the_left_edge_are_not_taken_for_those_of_another_class() -> None:
    boxes = torch.tensor([[90.0, 90, 100, 100], [-10, -10, 0, 0]])
    assert module._survivors(boxes, torch.tensor([0, 1]), 0.0, None).tolist() == [0, 1]
    assert module._survivors(boxes, torch.tensor([0, 0]), 0.0, None).tolist() == [0, 1]


def one_box(objectness: float, classes: list[float], box: list[float]) -> Predictions:
    return Predictions(
        torch.tensor([[box]]), torch.tensor([[objectness]]), torch.tensor([[classes]])
    )


def test_one_box_can_be_two_classes() -> None:
    (detections,) = nms(one_box(0.5, [0.9, 0.1, 0.8], [0.0, 0, 9, 9]), 0.25, 0.45)
    assert detections.labels.tolist() == [0, 2]
    assert detections.scores.tolist() == pytest.approx([0.45, 0.4])


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
    for detections in nms(nothing, 0.1, 0.45, 300):
        assert (detections.boxes.shape, detections.scores.shape, detections.labels.shape) == (
            (0, 4),
            (0,),
            (0,),
        )
    assert (
        nms(Predictions(torch.zeros(0, 5, 4), torch.zeros(0, 5), torch.zeros(0, 5, 3)), 0, 0, 1)
        == []
    )


@pytest.mark.parametrize("card", [False, True])
def test_a_network_gone_wild_does_not_spoil_other_boxes(card: bool) -> None:
    boxes = torch.tensor([[[-math.inf, 0, math.inf, 9], [0.0, 0, 9, 9], [0.0, 0, 9, 8]]])
    wild = Predictions(boxes, torch.tensor([[0.9, 0.8, 0.7]]), torch.ones(1, 3, 1))
    (detections,) = nms(wild, 0.1, 0.45, card=card)
    assert detections.boxes.isfinite().all()
    assert detections.scores.tolist() == pytest.approx([0.9, 0.8])
    not_numbers = Predictions(boxes, torch.full((1, 3), math.nan), torch.ones(1, 3, 1))
    assert len(nms(not_numbers, 0.1, 0.45, card=card)[0]) == 0


def test_half_precision_comes_out_as_float32() -> None:
    half = scene(0, 1, 20, 2)
    half = Predictions(half.boxes.bfloat16(), half.objectness.bfloat16(), half.classes.bfloat16())
    (detections,) = nms(half, 0.1, 0.45)
    assert isinstance(detections, Detections) and len(detections)
    assert detections.boxes.dtype == detections.scores.dtype == torch.float32
    assert detections.labels.dtype == torch.int64


@pytest.mark.parametrize("card", [False, True])
def test_half_precision_is_compared_with_the_threshold_in_float32(card: bool) -> None:
    """There 0.30078125, the bfloat16 next to 0.3, is above it."""
    score = torch.full((1, 1), 0.3).bfloat16()
    predictions = Predictions(torch.tensor([[[0.0, 0, 9, 9]]]), score, torch.ones(1, 1, 1))
    assert len(nms(predictions, 0.3, 0.45, card=card)[0]) == 1


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
    detections = nms(predictions, 0.1, 0.45, power=power)[0]
    pairs = list(zip(detections.scores.tolist(), detections.labels.tolist(), strict=True))
    assert pairs == sorted(expected, reverse=True)


@pytest.mark.parametrize("power", [0.0, 0.05, 0.6])
def test_the_distance_rule_is_the_same_in_blocks_and_one_by_one(
    power: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(700, 2, generator=generator) * 100
    boxes = torch.cat([corners, corners + 60 * torch.rand(700, 2, generator=generator)], 1)
    labels = torch.randint(0, 2, (700,), generator=generator)
    kept = module._survivors_by_distance(boxes, labels, 0.3, power)
    monkeypatch.setattr(module, "BLOCK", 5)
    monkeypatch.setattr(module, "PAIRED_WITH", 64)
    assert torch.equal(kept, module._survivors_by_distance(boxes, labels, 0.3, power))
    monkeypatch.setattr(module, "ALL_CLASSES", 700)  # both classes at once
    assert torch.equal(kept, module._survivors_by_distance(boxes, labels, 0.3, power))
    assert len(kept) < 700 or power < 0.1


def test_thousands_of_boxes_that_no_distance_removes_take_no_minute() -> None:
    boxes = torch.rand(30_000, 4, generator=torch.Generator().manual_seed(0))
    boxes[:, 2:] += boxes[:, :2]
    start = time.perf_counter()
    kept = module._survivors_by_distance(boxes, torch.zeros(30_000, dtype=torch.long), 0.45, 0.0)
    assert len(kept) == 30_000
    assert time.perf_counter() - start < 3
