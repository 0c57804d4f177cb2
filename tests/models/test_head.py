"""Are a raw map's numbers decoded as Darknet decodes them?"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.head import Head, decode, expect_finite
from models.netdef import parse
from utils.errors import InputError


def raw_map(head: Head, values: list[float], row: int, column: int) -> torch.Tensor:
    raw = torch.zeros(1, head.channels, 4, 6)
    raw[0, : 5 + head.classes, row, column] = torch.tensor(values)
    return raw


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("scale", [1.0, 1.05, 2.0])
def test_one_cell_by_hand(scale: float) -> None:
    head = Head(((10.0, 20.0), (30.0, 40.0)), 2, scale, False)
    raw = raw_map(head, [0.3, -0.7, 0.5, -0.2, 1.0, 2.0, -2.0], row=1, column=2)
    predictions = decode([raw], [head], (192, 128))  # cells of 32x32
    x = (sigmoid(0.3) * scale - (scale - 1) / 2 + 2) * 32
    y = (sigmoid(-0.7) * scale - (scale - 1) / 2 + 1) * 32
    w, h = math.exp(0.5) * 10, math.exp(-0.2) * 20
    place = 1 * 6 + 2  # first anchor, second row, third column
    expected = torch.tensor([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    torch.testing.assert_close(predictions.boxes[0, place], expected)
    assert predictions.objectness[0, place] == pytest.approx(sigmoid(1.0))
    assert predictions.classes[0, place].tolist() == pytest.approx([sigmoid(2.0), sigmoid(-2.0)])
    assert predictions.boxes.shape == (1, 2 * 4 * 6, 4)


def test_new_coords_are_taken_as_they_are() -> None:
    head = Head(((10.0, 20.0),), 1, 2.0, True)
    predictions = decode([raw_map(head, [0.5, 0.5, 0.5, 1.0, 0.9, 0.8], 0, 0)], [head], (192, 128))
    x = (0.5 * 2 - 0.5) * 32
    expected = torch.tensor([x - 5, x - 40, x + 5, x + 40])
    torch.testing.assert_close(predictions.boxes[0, 0], expected, rtol=1e-4, atol=1e-3)
    assert predictions.objectness[0, 0] == pytest.approx(0.9)
    assert predictions.classes[0, 0, 0] == pytest.approx(0.8)


def test_heads_come_one_after_another() -> None:
    heads = [Head(((1.0, 1.0),), 3, 1.0, False), Head(((2.0, 2.0),), 3, 1.0, False)]
    maps = [torch.zeros(2, 8, 2, 2), torch.zeros(2, 8, 4, 4)]
    predictions = decode(maps, heads, (64, 64))
    assert predictions.boxes.shape == (2, 4 + 16, 4)
    sides = predictions.boxes[0, :, 2] - predictions.boxes[0, :, 0]
    assert sides.tolist() == pytest.approx([1.0] * 4 + [2.0] * 16, abs=1e-4)


def test_enormous_logits_stay_finite() -> None:
    head = Head(((10.0, 20.0),), 1, 1.0, False)
    predictions = decode([torch.full((1, 6, 2, 2), 1e4)], [head], (64, 64))
    assert predictions.boxes.isfinite().all()


@pytest.mark.parametrize(
    ("text", "power"),
    [
        ("", None),
        ("nms_kind=greedynms\nbeta_nms=0.9\n", 0.6),
        ("nms_kind=diounms\nbeta_nms=0.9\n", 0.9),
        ("nms_kind=diounms\n", 0.6),
    ],
)
def test_the_kind_of_nms_gives_the_power_of_the_distance(text: str, power: float | None) -> None:
    netdef = parse(f"[net]\n[convolutional]\nfilters=7\n[yolo]\nanchors=8,8\nclasses=2\n{text}")
    assert Head.of(netdef.layers[1]).nms_power == power


@given(st.floats(allow_nan=True, allow_infinity=True, width=32), st.integers(0, 11))
def test_maps_that_are_not_finite_are_refused(value: float, place: int) -> None:
    maps = [torch.zeros(1, 2, 1, 1), torch.zeros(1, 3, 2, 2)]
    maps[1].view(-1)[place] = value
    if math.isfinite(value):
        expect_finite(maps, "this")
    else:
        with pytest.raises(InputError, match=f"this: computes {value} \\(map 1\\)"):
            expect_finite(maps, "this")


def test_large_values_whose_sum_is_infinite_are_finite() -> None:
    expect_finite([torch.full((1, 2, 1, 1), 3e38)], "this")
