"""Is 8-bit rounding what the engines do, and are the layers found that suffer from it?"""

import torch
from hypothesis import given
from hypothesis import strategies as st

from models.blocks import Convolution
from models.costs import layer_operations
from tests.utils.backends.test_backends import trained
from utils.backends.quantization import head_convolutions, in_batches
from utils.backends.sensitivity import (
    DEAREST,
    round_input,
    round_kernel,
    sensitivities,
    too_sensitive,
)


@given(seed=st.integers(0, 2**16), scale=st.floats(1e-3, 1e3))
def test_rounding_moves_nothing_by_more_than_half_a_step(seed: int, scale: float) -> None:
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed)) * scale
    step = (x.amax().clamp(min=0) - x.amin().clamp(max=0)) / 255
    # The zero point is rounded, too: the ends of the range may lie half a step outside.
    assert (round_input(x) - x).abs().max() <= 1.01 * step
    steps = x.abs().amax((1, 2, 3), keepdim=True) / 127
    assert ((round_kernel(x) - x).abs() <= 0.501 * steps).all()
    assert round_input(torch.zeros(1, 1, 1, 1)) == 0


def test_a_kernel_with_one_huge_weight_is_the_sensitive_one() -> None:
    model = trained()
    before, layer = model.layers[1], model.layers[2]
    assert isinstance(before, Convolution) and isinstance(layer, Convolution)
    with torch.no_grad():
        before.bn.weight[1] = before.bn.bias[1] = 0  # nothing comes from this channel
        layer.conv.weight[:, 1] = 100.0  # and yet its weights leave steps of 0.8 for the others
    images = torch.rand(4, 3, 64, 64)
    heads = head_convolutions(model.netdef)
    errors = sensitivities(model, images, heads)
    assert set(errors) == {0, 1, 2, 5}
    assert max(errors, key=lambda index: errors[index]) == 2


def test_what_is_left_in_float_stays_within_its_budget() -> None:
    model = trained()
    images = torch.rand(4, 3, 64, 64)
    heads = head_convolutions(model.netdef)
    assert heads == (7, 12)
    found = too_sensitive(model, images, heads)
    assert not set(found) & set(heads)
    cost = layer_operations(model.netdef, (64, 64))
    assert sum(cost[index] for index in found) <= DEAREST * sum(cost.values())


def test_calibration_comes_in_whole_batches() -> None:
    photos = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    batches = in_batches(photos.split(2), 3)
    assert [batch[:, 0, 0, 0].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 0]]
