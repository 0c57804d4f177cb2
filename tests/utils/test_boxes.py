"""Does a photo fit into the network's input as Darknet fits it, and do boxes come back?"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.boxes import InputTransform, clip, cxcywh_to_xyxy, network_input, resize, xyxy_to_cxcywh

sizes = st.tuples(st.integers(1, 3000), st.integers(1, 3000))


@given(sizes, st.sampled_from([(416, 416), (320, 320), (608, 320)]), st.booleans())
def test_boxes_come_back(size: tuple[int, int], net: tuple[int, int], letterbox: bool) -> None:
    transform = InputTransform.of(size, net, letterbox)
    whole = torch.tensor([[0.0, 0.0, *size]], dtype=torch.float64)
    inside = transform.to_input(whole)
    assert (inside >= 0).all() and (inside <= torch.tensor([*net, *net]).double() + 1e-9).all()
    torch.testing.assert_close(transform.to_photo(inside), whole)


@given(sizes, st.sampled_from([(416, 416), (320, 320), (608, 320)]), st.booleans())
def test_the_whole_photo_covers_what_is_painted(
    size: tuple[int, int], net: tuple[int, int], letterbox: bool
) -> None:
    transform = InputTransform.of(size, net, letterbox)
    covered = transform.to_input(torch.tensor([0.0, 0.0, *size], dtype=torch.float64))
    right, bottom = transform.left + transform.width, transform.top + transform.height
    assert covered.tolist() == pytest.approx([transform.left, transform.top, right, bottom])
    assert [transform.left, transform.top] == [net[0] - right, net[1] - bottom]  # centred


def test_a_letterbox_keeps_the_aspect_and_is_centred() -> None:
    transform = InputTransform.of((768, 576), (416, 416), True)
    assert (transform.width, transform.height, transform.left, transform.top) == (416, 312, 0, 52)
    upright = InputTransform.of((576, 768), (416, 416), True)
    assert (upright.width, upright.height, upright.left, upright.top) == (312, 416, 52, 0)
    for size in ((1000, 1), (1, 1000)):  # so thin a photo still covers a pixel
        thin = InputTransform.of(size, (416, 320), True)
        assert (thin.width, thin.height) == ((416, 1) if size[0] > 1 else (1, 320))
    image = network_input(np.zeros((576, 768, 3), np.uint8), (416, 416), True)
    assert (image[:, :52] == 0.5).all() and (image[:, 364:] == 0.5).all()
    assert (image[:, 52:364] == 0).all()


def test_resizing_lays_corners_on_corners() -> None:
    ramp = torch.arange(5.0).expand(1, 3, 5)
    assert resize(ramp, 9, 3)[0, 0].tolist() == pytest.approx([i / 2 for i in range(9)])


def test_an_image_of_the_networks_size_is_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    fitted = network_input(image, (64, 32), letterbox=False)
    assert np.array_equal((fitted.permute(1, 2, 0) * 255).round().numpy(), image)


def test_formats_are_inverse() -> None:
    boxes = torch.tensor([[10.0, 20.0, 14.0, 26.0]])
    assert xyxy_to_cxcywh(boxes).tolist() == [[12, 23, 4, 6]]
    assert torch.equal(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)
    batch = torch.arange(48.0).reshape(2, 3, 2, 4)  # any leading dimensions
    assert torch.equal(cxcywh_to_xyxy(xyxy_to_cxcywh(batch)), batch)


def test_boxes_are_cut_to_the_photo() -> None:
    boxes = torch.tensor([[-5.0, 3.0, 700.0, 20.0]])
    assert clip(boxes, (640, 10)).tolist() == [[0, 3, 640, 10]]
