"""Does a teacher teach what it knows better, and nothing else?"""

from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor
from torchvision.ops import complete_box_iou_loss

from import_param import Distillation, Loss
from models.darknet import Darknet
from models.distillation import (
    DistillationLoss,
    MapsAndFeatures,
    attention_loss,
    check_teacher,
    divergence,
)
from models.head import Head
from models.loss import DetectionLoss, decode_positives
from models.netdef import NetDef, parse
from tests.models.test_darknet import RESIDUAL
from tests.models.test_loss import SIZE, batch
from utils.errors import InputError

HEAD = Head(((16.0, 16.0), (40.0, 40.0)), 3, 2.0, False)
CELLS = 4


class Fixed(torch.nn.Module):
    """A teacher that answers with one raw map."""

    def __init__(self, raw: Tensor) -> None:
        super().__init__()
        self.raw = raw

    def maps_and_features(self, images: Tensor) -> MapsAndFeatures:
        return [self.raw], []


def distillation(raw: Tensor, objectness: float, classes: float, boxes: float) -> DistillationLoss:
    """With a teacher whose raw map is given; the gains are as named."""
    settings = Distillation(
        teacher_objectness=objectness, teacher_classes=classes, teacher_boxes=boxes
    )
    teacher = cast(Darknet, Fixed(raw))
    return DistillationLoss(teacher, DetectionLoss([HEAD], Loss()), settings)


def raw_map(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, HEAD.channels, CELLS, CELLS, generator=generator)


PHOTOS = batch([[10, 12, 30, 40], [20, 20, 50, 60], [3, 3, 20, 20]], [0, 1, 2], [0, 1, 1])


def distance_and_gradient(distance: DistillationLoss, raw: Tensor) -> tuple[float, Tensor]:
    """Of a raw map from the teacher's; the gradient as logits [B, A, h, w, 5+C]."""
    raw = raw.clone().requires_grad_(True)
    value = distance(([raw], []), distance.run_teacher(PHOTOS.images), PHOTOS)
    (gradient,) = torch.autograd.grad(value, raw)
    return value.item(), HEAD.split(gradient)


def test_who_knows_as_much_as_the_teacher_learns_nothing() -> None:
    loss, gradient = distance_and_gradient(distillation(raw_map(), 1, 1, 1), raw_map())
    assert loss == pytest.approx(0, abs=1e-6)
    assert gradient.abs().max() < 1e-7


def test_where_a_network_looks_has_nothing_to_do_with_how_many_channels_it_has() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 4, 5, generator=generator)
    wide = 2 * torch.cat([maps, -maps], 1)
    assert attention_loss(maps, wide) == pytest.approx(0, abs=1e-6)
    one, other = torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, 2)
    one[0, 0, 0, 0], other[0, 1, 1, 1] = 1, 3
    assert attention_loss(one, other) == pytest.approx(2)  # unit vectors at right angles


def test_features_count_only_where_they_are_asked_for() -> None:
    netdef = parse(RESIDUAL, "net.cfg")
    teacher, student = (Darknet(netdef).eval() for _ in range(2))
    images = PHOTOS.images
    without, doubled = (
        DistillationLoss(
            teacher,
            DetectionLoss(student.heads, Loss()),
            Distillation(
                teacher_objectness=0, teacher_classes=0, teacher_boxes=0, teacher_features=gain
            ),
        )
        for gain in (0.0, 2.0)
    )
    ours, theirs = student.maps_and_features(images), without.run_teacher(images)
    expected = sum(attention_loss(a, b).item() for a, b in zip(ours[1], theirs[1], strict=True))
    assert without(ours, theirs, PHOTOS).item() == 0 < expected
    assert doubled(ours, theirs, PHOTOS).item() == pytest.approx(2 * expected, rel=1e-5)


def test_the_divergence_has_the_gradient_of_cross_entropy() -> None:
    ours = torch.tensor([-3.0, 0.0, 2.0], requires_grad=True)
    theirs = torch.tensor([1.0, -2.0, 2.0])
    (gradient,) = torch.autograd.grad(divergence(ours, theirs).sum(), ours)
    torch.testing.assert_close(gradient, (ours.sigmoid() - theirs.sigmoid()).detach())
    assert (divergence(ours, theirs) >= -1e-7).all()


def test_the_distance_is_the_mean_divergence_from_the_teacher() -> None:
    """Of objectness over all cells, times the balance of the stride: 1 for 16 pixels a cell."""
    ours, theirs = raw_map(), raw_map(1)
    p, q = (HEAD.split(raw)[..., 4].sigmoid() for raw in (theirs, ours))
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    value, _ = distance_and_gradient(distillation(theirs, 3, 0, 0), ours)
    assert value == pytest.approx(3 * expected.item(), rel=1e-4)


def test_classes_weigh_as_much_as_the_teachers_objectness() -> None:
    ours, theirs = raw_map(), raw_map(1)
    weight = HEAD.split(theirs)[..., 4].sigmoid()
    p, q = (HEAD.split(raw)[..., 5:].sigmoid() for raw in (theirs, ours))
    each = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(-1)
    value, _ = distance_and_gradient(distillation(theirs, 0, 3, 0), ours)
    assert value == pytest.approx(3 * ((weight * each).sum() / weight.sum()).item(), rel=1e-4)


def test_the_distance_of_two_heads_is_the_sum_of_theirs() -> None:
    ours, theirs = raw_map(), raw_map(1)
    settings = Distillation(teacher_objectness=1, teacher_classes=1, teacher_boxes=1)
    teacher = cast(Darknet, Fixed(theirs))
    one, two = (
        DistillationLoss(teacher, DetectionLoss([HEAD] * count, Loss()), settings)(
            ([ours] * count, []), ([theirs] * count, []), PHOTOS
        )
        for count in (1, 2)
    )
    assert two.item() == pytest.approx(2 * one.item(), rel=1e-5)


def test_objectness_counts_in_every_cell_and_classes_where_the_teacher_sees_something() -> None:
    teacher = raw_map(1)
    logits = HEAD.split(teacher).clone()
    logits[..., 4] = -30.0
    logits[0, 1, 2, 3, 4] = 30.0
    teacher = logits.permute(0, 1, 4, 2, 3).reshape(teacher.shape)
    _, of_objectness = distance_and_gradient(distillation(teacher, 1, 0, 0), raw_map())
    assert (of_objectness[..., 4] != 0).all()
    assert not of_objectness[..., :4].any() and not of_objectness[..., 5:].any()
    _, of_classes = distance_and_gradient(distillation(teacher, 0, 1, 0), raw_map())
    seen = torch.zeros(of_classes.shape[:4], dtype=torch.bool)
    seen[0, 1, 2, 3] = True
    assert (of_classes[seen][:, 5:].abs() > 1e-4).all()
    assert of_classes[~seen].abs().max() < 1e-9 and not of_classes[..., :5].any()


def test_the_teachers_box_is_followed_only_where_it_beats_ours() -> None:
    ours, theirs = raw_map(3), raw_map(4)
    distance = distillation(theirs, 0, 0, 1)
    (positives,) = distance.loss.assign([ours], PHOTOS)
    boxes, better = (
        decode_positives(
            HEAD, positives.select(HEAD.split(raw)), positives, (SIZE, SIZE), (CELLS, CELLS)
        )
        for raw in (ours, theirs)
    )
    objects = PHOTOS.boxes[positives.target]
    beats = complete_box_iou_loss(better, objects) < complete_box_iou_loss(boxes, objects)
    assert beats.any() and not beats.all()
    _, gradient = distance_and_gradient(distance, ours)
    at = positives.select(gradient)  # several objects may share a prediction
    place = torch.stack([positives.image, positives.anchor, positives.row, positives.column], 1)
    taught = {tuple(p) for p in place[beats].tolist()}
    for where, moved in zip(place.tolist(), at[:, :4].abs().amax(1) > 0, strict=True):
        assert bool(moved) == (tuple(where) in taught)
    assert not gradient[..., 4:].any()


def test_a_box_is_drawn_towards_the_teachers() -> None:
    ours = raw_map(3)
    theirs = raw_map(4)
    distance = distillation(theirs, 0, 0, 1)
    before, _ = distance_and_gradient(distance, ours)
    raw = ours.clone().requires_grad_(True)
    optimizer = torch.optim.SGD([raw], 3.0)
    for _ in range(80):
        optimizer.zero_grad()
        distance(([raw], []), distance.run_teacher(PHOTOS.images), PHOTOS).backward()
        optimizer.step()
    after, _ = distance_and_gradient(distance, raw.detach())
    assert after < 0.8 * before


def test_the_teacher_is_never_trained() -> None:
    teacher = Darknet(parse(RESIDUAL))
    distance = DistillationLoss(teacher, DetectionLoss(teacher.heads, Loss()), Distillation())
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    maps, features = distance.run_teacher(torch.rand(2, 3, 32, 32))
    assert not maps[0].requires_grad and not features[0].requires_grad


def net(text: str = RESIDUAL) -> NetDef:
    return parse(text)


def test_a_teacher_of_another_width_is_accepted() -> None:
    check_teacher(net(RESIDUAL.replace("filters=8", "filters=16")), net(), "t.pt")


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (net().with_classes(5), r"teacher='t.pt': head 1 has classes 5: expected 2"),
        (net().with_head_options(anchors="1,2"), r"head 1 has anchors .*: expected"),
        (
            net(f"{RESIDUAL}[route]\nlayers=4\n" + RESIDUAL[RESIDUAL.rindex("[conv") :]),
            r"teacher='t.pt': 2 heads: expected 1",
        ),
        (net().with_head_options(new_coords=1), r"head 1 has new_coords True: expected False"),
        (net().with_head_options(scale_x_y="1.5"), r"head 1 has scale_x_y 1.5: expected 1"),
        (
            net(RESIDUAL.replace("size=3\npad=1", "size=3\nstride=2\npad=1", 1)),
            r"head 1 has a map of \(height, width\) \(16, 16\): expected \(32, 32\)",
        ),
    ],
)
def test_other_heads_are_one_line(teacher: NetDef, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as error:
        check_teacher(teacher, net(), "t.pt")
    assert "\n" not in str(error.value)
