"""How far is a predicted box from an object's?"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPSILON = 1e-7


def complete_iou_loss(boxes: Tensor, truth: Tensor) -> Tensor:
    """1 - CIoU of pairs of boxes, xyxy [P, 4] each → [P] (Zheng et al., AAAI 2020, equation 10).

    torchvision has it as `complete_box_iou_loss`, whose masks wait for a card. Values and gradients
    are the same, to the bit.
    """
    iou = _iou(boxes, truth)
    distance = 1 - iou + _distance(boxes, truth)
    aspect = _aspect(boxes, truth)
    with torch.no_grad():
        weight = aspect / (1 - iou + aspect + EPSILON)
    return distance + weight * aspect


def _iou(boxes: Tensor, truth: Tensor) -> Tensor:
    """By pair, the intersection as a share of the union."""
    left, top, right, bottom = boxes.unbind(-1)
    true_left, true_top, true_right, true_bottom = truth.unbind(-1)
    width = torch.min(right, true_right) - torch.max(left, true_left)
    height = torch.min(bottom, true_bottom) - torch.max(top, true_top)
    intersection = torch.where((width > 0) & (height > 0), width * height, 0.0)
    area = (right - left) * (bottom - top)
    true_area = (true_right - true_left) * (true_bottom - true_top)
    return intersection / (area + true_area - intersection + EPSILON)


def _distance(boxes: Tensor, truth: Tensor) -> Tensor:
    """By pair, the squares of the distance of centres and of the diagonal around both: a ratio."""
    left, top, right, bottom = boxes.unbind(-1)
    true_left, true_top, true_right, true_bottom = truth.unbind(-1)
    width = torch.max(right, true_right) - torch.min(left, true_left)
    height = torch.max(bottom, true_bottom) - torch.min(top, true_top)
    across = (right + left) / 2 - (true_left + true_right) / 2
    down = (bottom + top) / 2 - (true_top + true_bottom) / 2
    return (across**2 + down**2) / (width**2 + height**2 + EPSILON)


def _aspect(boxes: Tensor, truth: Tensor) -> Tensor:
    """By pair, how far the aspects differ, 0 to 1."""
    left, top, right, bottom = boxes.unbind(-1)
    true_left, true_top, true_right, true_bottom = truth.unbind(-1)
    angle = torch.atan((right - left) / (bottom - top))
    true_angle = torch.atan((true_right - true_left) / (true_bottom - true_top))
    return 4 / math.pi**2 * (true_angle - angle) ** 2
