"""Are the right predictions responsible for each object, and does the loss fall when they improve?"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from import_param import Loss
from models.darknet import Darknet
from models.head import Head, decode
from models.loss import DetectionLoss, assign_cells
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
def test_neighbours_are_responsible_as_far_as_they_reach(scale_xy: float, cells: set) -> None:
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
    assert assigned == set(range(len(objects)))


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
