"""Do images arrive at a network as it takes them?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from utils.devices import CPU
from utils.structures import Batch

META = torch.device("meta")


def batch(images: torch.Tensor) -> Batch:
    """With one object."""
    one = torch.zeros(1, dtype=torch.long)
    return Batch(images, torch.ones(1, 4), one, one, ("a.jpg",), ((8, 8),))


def levels() -> torch.Tensor:
    """Each value that a byte has, uint8 [1, 3, 16, 16]."""
    return torch.arange(256, dtype=torch.uint8).expand(3, 256).reshape(1, 3, 16, 16)


def test_bytes_become_the_floats_that_numpy_makes_of_them() -> None:
    images = levels()
    expected = images.numpy().astype(np.float32) / np.float32(255)
    for made in (batch(images).for_network(CPU), batch(images).to("cpu")):
        assert made.images.dtype == torch.float32
        assert made.images.is_contiguous()  # a network computes other last bits of other layouts
        np.testing.assert_array_equal(made.images, expected)
    assert images.dtype == torch.uint8 and images.max() == 255


def test_images_are_laid_out_as_asked_for() -> None:
    for images in (levels(), torch.rand(1, 3, 16, 16)):
        laid_out = batch(images).for_network(CPU, torch.channels_last).images
        assert laid_out.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(laid_out, batch(images).for_network(CPU).images)


def test_floats_arrive_as_they_are() -> None:
    for dtype in (torch.float32, torch.float64):
        images = torch.rand(1, 3, 8, 8, dtype=dtype)
        assert batch(images).for_network(CPU).images is images


def test_bytes_travel_and_boxes_do_if_asked_for() -> None:
    for images in (levels(), levels().float()):
        assert batch(images).for_network(META).images.dtype == torch.float32
        assert batch(images).for_network(META).boxes.device == CPU
        moved = batch(images).to("meta")
        tensors = (moved.images, moved.boxes, moved.labels, moved.image_index)
        assert {tensor.device for tensor in tensors} == {META}
        assert replace(moved, images=images).paths == ("a.jpg",)
