"""Is the loss of boxes torchvision's?"""

import torch
from torchvision.ops import complete_box_iou_loss

from models.box_loss import complete_iou_loss


def test_values_and_gradients_are_torchvisions_to_the_bit() -> None:
    """Of boxes that overlap, that do not, that touch, and that are the same."""
    generator = torch.Generator().manual_seed(0)
    corners, extents = torch.rand(2, 2, 300, 2, generator=generator) * 100
    boxes, truth = torch.cat([corners, corners + extents], -1)
    truth[0] = boxes[0]
    truth[1] = boxes[1] + boxes[1, 2:3] - boxes[1, 0:1]
    factors = torch.rand(300, generator=generator)
    results = []
    for loss in (complete_box_iou_loss, complete_iou_loss):
        predicted = boxes.clone().requires_grad_()
        value = loss(predicted, truth)
        (value * factors).sum().backward()
        results.append((value.detach(), predicted.grad))
    (wanted, wanted_gradient), (value, gradient) = results
    assert torch.equal(value, wanted) and torch.equal(gradient, wanted_gradient)
    assert value[0] < 1e-6 and (value > 1).any() and (value < 0.9).any()


def test_no_box_has_no_loss() -> None:
    assert complete_iou_loss(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)
