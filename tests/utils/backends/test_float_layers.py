"""Is 8-bit rounding what the engines do, and are the layers found that suffer from it?"""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.blocks import Convolution
from models.costs import layer_operations
from models.darknet import Darknet
from tests.utils.backends.test_backends import trained
from utils.backends import float_layers as module
from utils.backends.float_layers import (
    OPTIONS,
    float_layers,
    head_convolutions,
    round_input,
    round_kernel,
    rounding_errors,
    sensitive_layers,
)

HEADS = (7, 12)


@given(seed=st.integers(0, 2**16), scale=st.floats(1e-3, 1e3))
def test_rounding_moves_nothing_by_more_than_half_a_step(seed: int, scale: float) -> None:
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed)) * scale
    step = (x.amax().clamp(min=0) - x.amin().clamp(max=0)) / 255
    # The zero point is rounded, too: the ends of the range may lie half a step outside.
    assert (round_input(x) - x).abs().max() <= 1.01 * step
    steps = x.abs().amax((1, 2, 3), keepdim=True) / 127
    assert ((round_kernel(x) - x).abs() <= 0.501 * steps).all()


def test_rounding_leaves_256_values_of_a_map_and_255_of_a_filter() -> None:
    ramp = torch.linspace(-1, 3, 5000).view(1, 1, 50, 100)
    assert len(round_input(ramp).unique()) == 256
    assert 0 in round_input(ramp) and round_input(torch.zeros(1, 1, 1, 1)) == 0
    assert len(round_input(1 + ramp.relu()).unique()) <= 192  # zero is in the range: 3/4 are left
    filters = torch.cat([ramp - 1, 100 * (ramp - 1)])
    rounded = round_kernel(filters)
    assert [len(values.unique()) for values in rounded] == [255, 255]
    torch.testing.assert_close(rounded[1], 100 * rounded[0])


def one_huge_weight() -> Darknet:
    """Layer 2's weights for a channel that is always 0 leave steps of 0.8 for the others."""
    model = trained()
    before, layer = model.layers[1], model.layers[2]
    assert isinstance(before, Convolution) and isinstance(layer, Convolution)
    with torch.no_grad():
        before.bn.weight[1] = before.bn.bias[1] = 0
        layer.conv.weight[:, 1] = 100.0
    return model


def test_a_kernel_with_one_huge_weight_is_the_sensitive_one() -> None:
    model, images = one_huge_weight(), torch.rand(4, 3, 64, 64)
    errors = rounding_errors(model, images, HEADS)
    assert set(errors) == {0, 1, 2, 5}
    assert max(errors, key=lambda index: errors[index]) == 2


def test_errors_are_relative_to_what_the_maps_vary_by() -> None:
    """Maps of twice the size have errors of twice the size, which are as bad."""
    images = torch.rand(2, 3, 64, 64)
    errors = []
    for factor in (1.0, 2.0):
        model = trained()
        for index in HEADS:
            model.layers[index].conv.weight.data *= factor
            model.layers[index].conv.bias.data *= factor
        errors.append(rounding_errors(model, images, HEADS))
    assert errors[0] == pytest.approx(errors[1])


OPERATIONS = layer_operations(trained().netdef, (64, 64))


def test_the_most_error_for_the_operations_goes_first() -> None:
    rates = {0: 1.0, 1: 4.0, 2: 3.0, 5: 2.0}  # error for an operation
    errors = {index: rate * OPERATIONS[index] for index, rate in rates.items()}
    order = sorted(rates, key=lambda index: -rates[index])
    total = sum(errors.values())
    for count in range(len(order) + 1):
        left = sum(errors[index] for index in order[count:]) / total
        layers = sensitive_layers(errors, OPERATIONS, left + 1e-9, 1)
        assert layers == tuple(sorted(order[:count]))


def test_a_layer_beyond_the_budget_of_operations_is_passed_over() -> None:
    errors = {index: rate * OPERATIONS[index] for index, rate in ((0, 3.0), (1, 2.0), (2, 1.0))}
    assert OPERATIONS[0] > OPERATIONS[1] + OPERATIONS[2]
    share = (OPERATIONS[1] + OPERATIONS[2]) / sum(OPERATIONS.values())
    assert sensitive_layers(errors, OPERATIONS, 0, 1.001 * share) == (1, 2)
    assert sensitive_layers(errors, OPERATIONS, 0, 0.999 * share) == (1,)


def test_the_first_photos_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def errors(model: Darknet, images: torch.Tensor, excluded: object) -> dict[int, float]:
        seen.append(len(images))
        return {0: 3.0, 1: 2.0, 2: 1.0}

    monkeypatch.setattr(module, "rounding_errors", errors)
    choices = float_layers(trained(), torch.rand(9, 3, 64, 64))
    assert seen == [4]
    for layers, more in pairwise(choices):
        assert set(HEADS) <= set(layers) < set(more)


def test_up_to_a_tenth_of_the_operations_stays_in_float_at_first_as_the_readme_says() -> None:
    assert OPTIONS.photos == 4
    assert OPTIONS.error_shares == (0.5, 0.25, 0.1)
    assert OPTIONS.operations_shares == (0.1, 0.25, 0.5)


def test_the_convolutions_before_the_heads_are_known() -> None:
    assert head_convolutions(trained().netdef) == HEADS
