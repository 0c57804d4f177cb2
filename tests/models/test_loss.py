"""Are the right predictions responsible for each object, and is the loss what it should be?"""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from import_param import Loss
from models.darknet import Darknet
from models.head import Head, decode
from models.loss import DetectionLoss, assign_cells, objectness_balance
from models.netdef import parse
from tests.models.test_darknet import RESIDUAL
from utils.boxes import cxcywh_to_xyxy
from utils.structures import Batch

SIZE = 64


def batch(boxes: list[list[float]], labels: list[int], images: list[int], count: int = 2) -> Batch:
    return Batch(
        torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)),
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(images, dtype=torch.int64),
        tuple(f"{i}.jpg" for i in range(count)),
        ((SIZE, SIZE),) * count,
    )


def head(scale_xy: float = 2.0, classes: int = 3, new_coords: bool = False) -> Head:
    return Head(((10.0, 10.0), (40.0, 40.0)), classes, scale_xy, new_coords)


@pytest.mark.parametrize(
    ("scale_xy", "cells"),
    [
        (1.0, {(1, 1)}),
        (2.0, {(1, 1), (0, 1), (1, 2)}),
        (3.0, {(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)}),
    ],
)
def test_neighbours_are_responsible_as_far_as_they_reach(
    scale_xy: float, cells: set[tuple[int, int]]
) -> None:
    """An object at (1.25, 1.75) cells: left and lower neighbours are nearest."""
    fit = torch.tensor([[True], [False]])
    positives = assign_cells(
        head(scale_xy), fit, torch.tensor([[1.25, 1.75]]), torch.tensor([0]), (4, 4)
    )
    assert set(zip(positives.column.tolist(), positives.row.tolist(), strict=True)) == cells
    assert set(positives.anchor.tolist()) == {0}


@given(
    st.lists(
        st.tuples(
            st.floats(0, SIZE), st.floats(0, SIZE), st.floats(0.5, SIZE), st.floats(0.5, SIZE)
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([1.0, 1.05, 2.0]),
)
def test_cells_that_reach_it_are_responsible_for_every_object(
    objects: list[tuple[float, float, float, float]], scale_xy: float
) -> None:
    heads = [head(scale_xy), Head(((3.0, 5.0),), 3, scale_xy, False)]
    centres = torch.tensor([o[:2] for o in objects])
    fits = DetectionLoss(heads, Loss()).fitting_anchors(torch.tensor([o[2:] for o in objects]))
    assigned: set[int] = set()
    for one, fit, cells in zip(heads, fits, (4, 8), strict=True):
        scaled = centres / SIZE * cells
        positives = assign_cells(
            one, fit, scaled, torch.zeros(len(objects), dtype=torch.int64), (cells, cells)
        )
        assigned |= set(positives.target.tolist())
        place = torch.stack([positives.column, positives.row], 1)
        assert ((place >= 0) & (place < cells)).all()
        offset = scaled[positives.target] - place
        reach = (scale_xy - 1) / 2
        assert ((offset >= -reach - 1e-4) & (offset <= 1 + reach + 1e-4)).all()
        if (centres < SIZE).all():
            each = torch.stack([positives.anchor, *place.T, positives.target], 1)
            assert len(each.unique(dim=0)) == len(each)  # at a border, too, none counts twice
    assert assigned == set(range(len(objects)))


def test_both_neighbours_reach_a_centre_between_them() -> None:
    centre = torch.tensor([[1.5, 1.5]])
    fit = torch.tensor([[True], [True]])
    positives = assign_cells(head(2.0), fit, centre, torch.tensor([1]), (4, 4))
    assert len(positives.target) == 2 * 5 and set(positives.image.tolist()) == {1}


@pytest.mark.parametrize(
    ("cells", "balance"),
    [((80, 80), 4.0), ((40, 40), 1.0), ((20, 20), 0.4), ((10, 10), 0.1), ((160, 160), 16.0)],
)
def test_finer_maps_have_a_heavier_objectness_loss(cells: tuple[int, int], balance: float) -> None:
    """YOLOv5's balance for strides of 8, 16 and 32 pixels; the stride is that of the height."""
    assert objectness_balance((640, 640), cells) == balance
    assert objectness_balance((64, 640), cells) == balance


def perfect_map(one: Head, objects: Batch) -> torch.Tensor:
    """A raw map that says exactly what is there: the inverse of decoding."""
    cells = 4
    logits = torch.full((2, len(one.anchors), cells, cells, 5 + one.classes), -12.0)
    fit = DetectionLoss([one], Loss()).fitting_anchors(objects.boxes[:, 2:] - objects.boxes[:, :2])[
        0
    ]
    centres = (objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2 / (SIZE / cells)
    positives = assign_cells(one, fit, centres, objects.image_index, (cells, cells))
    for i, a, r, c, t in zip(
        positives.image,
        positives.anchor,
        positives.row,
        positives.column,
        positives.target,
        strict=True,
    ):
        offset = centres[t] - torch.stack([c, r])
        extent = objects.boxes[t, 2:] - objects.boxes[t, :2]
        cell = logits[i, a, r, c]
        share = (offset + (one.scale_xy - 1) / 2) / one.scale_xy
        cell[:2] = torch.logit(share.clamp(1e-4, 1 - 1e-4))
        cell[2:4] = (extent / torch.tensor(one.anchors[a])).log()
        cell[4] = 12
        cell[5 + objects.labels[t]] = 12
    return logits.permute(0, 1, 4, 2, 3).reshape(2, -1, cells, cells)


OBJECTS = batch([[4, 4, 16, 16], [20, 10, 60, 50]], [2, 0], [0, 1])


def test_a_perfect_map_has_hardly_any_loss() -> None:
    one = head()
    raw = perfect_map(one, OBJECTS)
    losses = DetectionLoss([one], Loss())([raw], OBJECTS)
    assert losses.total < 0.01
    assert losses.precision == 1 and losses.recall == 1
    predictions = decode([raw], [one], (SIZE, SIZE))
    best = predictions.boxes[0, predictions.objectness[0].argmax()]
    torch.testing.assert_close(best, OBJECTS.boxes[0], rtol=0, atol=0.1)


def bce(logit: float, target: float) -> float:
    """Binary cross-entropy, from its definition."""
    probability = 1 / (1 + math.exp(-logit))
    return -target * math.log(probability) - (1 - target) * math.log(1 - probability)


def test_the_loss_of_a_single_object_is_what_its_definition_says() -> None:
    """A map of 4x4 cells, an anchor of the object's size, whose cell alone is responsible.

    The box that is predicted is 16x16 at (24, 24), the object 20x12 at (24, 24).
    """
    one = Head(((16.0, 16.0),), 2, 1.0, False)
    objects = batch([[14, 18, 34, 30]], [1], [0])
    cells = torch.zeros(2, 1, 7, 4, 4)
    cells[:, :, 4:] = torch.tensor([-2.0, -1.0, 0.5])[:, None, None]
    cells[0, 0, 4, 1, 1] = 3.0
    gains = Loss(box_gain=2.0, objectness_gain=3.0, class_gain=5.0)
    losses = DetectionLoss([one], gains)([cells.reshape(2, -1, 4, 4)], objects)

    iou = 16 * 12 / (16 * 16 + 20 * 12 - 16 * 12)
    aspect = 4 / math.pi**2 * (math.atan(20 / 12) - math.atan(1)) ** 2
    ciou = iou - aspect**2 / (1 - iou + aspect)
    mean = (bce(3.0, ciou) + 31 * bce(-2.0, 0.0)) / 32
    assert losses.box.item() == pytest.approx(2 * (1 - ciou), rel=1e-4)
    assert losses.objectness.item() == pytest.approx(3 * mean, rel=1e-4)  # a stride of 16: times 1
    assert losses.classes.item() == pytest.approx(5 * (bce(-1.0, 0) + bce(0.5, 1)), rel=1e-4)
    parts = losses.box + losses.objectness + losses.classes
    assert losses.total.item() == pytest.approx(parts.item()) and losses.teacher == 0
    assert replace(losses, teacher=torch.tensor(7.0)).total.item() == pytest.approx(
        parts.item() + 7
    )
    assert losses.precision == 1 and losses.recall == 1


def test_box_and_class_losses_are_means_over_the_positives_and_parts_sums_over_the_heads() -> None:
    one = Head(((16.0, 16.0),), 2, 1.0, False)
    raw = torch.randn(2, 7, 4, 4, generator=torch.Generator().manual_seed(0))
    loss = DetectionLoss([one], Loss())
    boxes = [[14.0, 18.0, 34.0, 30.0], [4.0, 36.0, 20.0, 50.0], [41.0, 4.0, 57.0, 30.0]]
    labels, images = [1, 0, 1], [0, 1, 1]
    alone = [
        loss([raw], batch([box], [label], [image]))
        for box, label, image in zip(boxes, labels, images, strict=True)
    ]
    together = loss([raw], batch(boxes, labels, images))
    for part in ("box", "classes"):
        mean = sum(getattr(losses, part).item() for losses in alone) / 3
        assert getattr(together, part).item() == pytest.approx(mean, rel=1e-4)
    twice = DetectionLoss([one, one], Loss())([raw, raw], batch(boxes, labels, images))
    for part in ("box", "objectness", "classes"):
        double = 2 * getattr(together, part).item()
        assert getattr(twice, part).item() == pytest.approx(double, rel=1e-4)


def test_precision_and_recall_count_claims_and_positives() -> None:
    """Two objects: one predicted right, one with the wrong class; and two claims where none is."""
    one = Head(((16.0, 16.0),), 2, 1.0, False)
    objects = batch([[16, 16, 32, 32], [32, 32, 48, 48]], [1, 0], [0, 1])
    cells = torch.zeros(2, 1, 7, 4, 4)  # a logit of exactly 0 claims nothing
    cells[:, :, 6] = 1.0  # the second class everywhere
    loss = DetectionLoss([one], Loss())
    nothing = loss([cells.reshape(2, -1, 4, 4)], objects)
    assert nothing.precision == 0 and nothing.recall == 0
    for image, row, column in ((0, 1, 1), (1, 2, 2), (0, 0, 3), (1, 3, 0)):
        cells[image, 0, 4, row, column] = 1.0
    losses = loss([cells.reshape(2, -1, 4, 4)], objects)
    assert losses.precision == 1 / 4 and losses.recall == 1 / 2
    cells[0, 0, 2, 1, 1] = 2.0  # so wide that it overlaps too little
    assert loss([cells.reshape(2, -1, 4, 4)], objects).recall == 0


def test_an_anchor_is_responsible_up_to_its_ratio_and_the_best_in_any_case() -> None:
    extents = torch.tensor([[20.0, 20.0], [20.0, 31.0], [20.0, 29.0], [20.0, 14.0], [20.0, 500.0]])
    first, second = DetectionLoss(
        [Head(((20.0, 20.0),), 1, 1.0, False), Head(((20.0, 10.0),), 1, 1.0, False)],
        Loss(anchor_ratio=1.5),
    ).fitting_anchors(extents)
    assert first[0].tolist() == [True, True, True, True, True]
    assert second[0].tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("part", ["box", "objectness", "classes"])
def test_each_part_sees_its_own_mistake(part: str) -> None:
    one = head()
    cells = perfect_map(one, OBJECTS).view(2, 2, 8, 4, 4)
    channel = {"box": slice(2, 4), "objectness": slice(4, 5), "classes": slice(5, 8)}[part]
    wrong = cells.clone()
    wrong[:, :, channel] = torch.where(cells[:, :, channel] > 5, -2.0, cells[:, :, channel] + 1)
    good, bad = (
        DetectionLoss([one], Loss())([m.reshape(2, -1, 4, 4)], OBJECTS) for m in (cells, wrong)
    )
    assert getattr(bad, part) > getattr(good, part) + 1e-3


def test_the_class_loss_is_trained_with_one_class_too() -> None:
    one = head(classes=1)
    raw = torch.zeros(2, one.channels, 4, 4, requires_grad=True)
    DetectionLoss([one], Loss())([raw], batch([[4, 4, 16, 16]], [0], [0])).classes.backward()
    assert raw.grad.view(2, 2, 6, 4, 4)[:, :, 5].abs().sum() > 0


@pytest.mark.parametrize("new_coords", [False, True])
def test_photos_without_objects_teach_that_nothing_is_there(new_coords: bool) -> None:
    one = head(new_coords=new_coords)
    raw = torch.full((2, one.channels, 4, 4), 0.3, requires_grad=True)
    losses = DetectionLoss([one], Loss())([raw], batch([], [], []))
    losses.total.backward()
    assert losses.box == 0 and losses.classes == 0 and losses.objectness > 0
    grad = raw.grad.view(2, 2, 8, 4, 4)
    assert (grad[:, :, 4] > 0).all()
    assert (grad[:, :, :4] == 0).all() and (grad[:, :, 5:] == 0).all()


def test_two_objects_in_one_cell_keep_the_better_overlap() -> None:
    one = Head(((20.0, 20.0),), 1, 1.0, False)
    objects = batch([[22, 22, 42, 42], [30, 30, 34, 34]], [0, 0], [0, 0])  # both in cell (2, 2)
    raw = torch.zeros(2, one.channels, 4, 4, requires_grad=True)  # a box of 20x20 at (40, 40)
    losses = DetectionLoss([one], Loss(box_gain=0, class_gain=0))([raw], objects)
    reverse = batch([[30, 30, 34, 34], [22, 22, 42, 42]], [0, 0], [0, 0])
    assert (
        losses.objectness
        == DetectionLoss([one], Loss(box_gain=0, class_gain=0))([raw], reverse).objectness
    )


def test_five_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    model = Darknet(parse(RESIDUAL))
    model.init_heads_(model.netdef.heads)
    objects = batch([[4, 4, 16, 16], [20, 10, 60, 50]], [1, 0], [0, 1])
    loss = DetectionLoss(model.heads, Loss())
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    values = []
    for _ in range(6):
        total = loss(model(objects.images), objects).total
        values.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert values == sorted(values, reverse=True)
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("extent", [-1000.0, -18.0, 1000.0])
def test_vanishing_and_enormous_boxes_have_a_finite_loss(extent: float) -> None:
    one = head()
    cells = torch.zeros(2, 2, 8, 4, 4)
    cells[:, :, 2:4] = extent
    raw = cells.reshape(2, -1, 4, 4).requires_grad_()
    total = DetectionLoss([one], Loss())([raw], OBJECTS).total
    total.backward()
    assert total.isfinite() and raw.grad.isfinite().all()


def test_boxes_survive_the_change_of_format() -> None:
    boxes = torch.tensor([[10.0, 20.0, 4.0, 6.0]])
    assert cxcywh_to_xyxy(boxes).tolist() == [[8, 17, 12, 23]]
