"""Are parameters and operations those of the modules, at any widths?"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from import_param import NetworkLimits
from models import netdef
from models.costs import (
    _largest_maps,
    check_demand,
    count_operations,
    count_parameters,
    layer_costs,
    layer_operations,
    layer_parameters,
)
from models.darknet import Darknet, shapes
from models.netdef import NetDef, parse
from tests.conftest import ROOT
from utils.errors import InputError


def conv(filters: int, **options: object) -> str:
    lines = {"filters": filters, "activation": "leaky", **options}
    return "[convolutional]\n" + "".join(f"{key}={value}\n" for key, value in lines.items())


def every_kind(wide: int = 8, narrow: int = 4, group: int = 2) -> NetDef:
    """Convolutions of all kinds, of `wide` and `narrow` channels, and weighted shortcuts."""
    pair = conv(narrow) + conv(wide, batch_normalize=1)
    return parse(
        "[net]\nwidth=32\nheight=16\nchannels=3\n"
        + conv(wide, size=3, pad=1, batch_normalize=1)
        + conv(wide, size=3, pad=1, stride=2, groups=wide, batch_normalize=1)
        + conv(wide, size=3, pad=1, groups=wide // group)
        + conv(2 * wide, size=3, pad=1, groups=wide // group)
        + conv(wide)
        + pair
        + "[shortcut]\nfrom=-3\nweights_type=per_channel\n"
        + pair
        + "[shortcut]\nfrom=-3,-6\nweights_type=per_feature\n"
        + "[maxpool]\nsize=2\nstride=2\n"
        + conv(7, size=1)
        + "[yolo]\nanchors=8,8\nclasses=2\n"
    )


def parameters_by_module(model: Darknet) -> dict[int, int]:
    counts = {n: count_parameters(layer) for n, layer in enumerate(model.layers)}
    return {n: count for n, count in counts.items() if count}


def test_the_parameters_of_any_module_are_counted() -> None:
    assert count_parameters(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1, bias=False))) == 20


def test_the_parameters_of_every_kind_of_layer_are_its_modules() -> None:
    definition = every_kind()
    assert layer_parameters(definition) == parameters_by_module(Darknet(definition))


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.cfg")), ids=lambda p: p.stem)
def test_the_parameters_of_every_layer_are_its_modules(path: Path) -> None:
    definition = netdef.load(path)
    with torch.device("meta"):
        model = Darknet(definition)
    assert layer_parameters(definition) == parameters_by_module(model)


@pytest.mark.parametrize(
    "definition",
    [
        every_kind(),
        netdef.load(ROOT / "config/yolov3-mobilenetv2-trimmed.cfg").with_net_options(
            width=64, height=96
        ),
    ],
    ids=["every kind", "yolov3-mobilenetv2-trimmed"],
)
def test_operations_are_what_torch_counts(definition: NetDef) -> None:
    model = Darknet(definition).eval()
    width, height = definition.size
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, height, width))
    assert count_operations(definition) == counter.get_total_flops()


def test_operations_grow_with_the_map_and_parameters_do_not() -> None:
    small, large = layer_costs(every_kind(), (32, 32)), layer_costs(every_kind(), (64, 96))
    widths = small.inputs, small.outputs
    assert (large.operations(*widths) == 6 * small.operations(*widths)).all()
    assert (large.parameters(*widths) == small.parameters(*widths)).all()
    assert layer_operations(every_kind(), (64, 96)).keys() == {0, 1, 2, 3, 4, 5, 6, 8, 9, 12}


def test_costs_at_other_widths_are_those_of_a_network_with_these_widths() -> None:
    """Both at once, [2, L]: the terms were taken from neither network."""
    widths = [(8, 4), (6, 2)]
    others = [layer_costs(every_kind(*pair)) for pair in widths]
    inputs = np.stack([other.inputs for other in others])
    outputs = np.stack([other.outputs for other in others])
    costs = layer_costs(every_kind(16, 8))
    for measure in ("parameters", "operations"):
        expected = [getattr(other, measure)(other.inputs, other.outputs) for other in others]
        np.testing.assert_array_equal(getattr(costs, measure)(inputs, outputs), expected)


NET = "[net]\nwidth=416\nheight=416\nchannels=3\n"
HEAD = conv(7, activation="linear") + "[yolo]\nanchors=8,8\nclasses=2\n"


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            conv(512) * 3000,
            r"takes 2\.7\de\+05 G operations for one photo at 416x416",
        ),
        (
            conv(4) + "[upsample]\nstride=100\n",
            r"takes 96\.9 GB for one photo at 416x416",
        ),
        (conv(4) + "[upsample]\nstride=1000000\n" * 2, "a map of 4x416000000000000x416000000000"),
        (conv(1_000_000) * 2, r"takes 5\.38e\+03 GB"),
        (conv(1_000_000, size=1001, padding=500) * 2, "expected at most 1099511627776 weights"),
    ],
)
def test_what_a_few_lines_may_ask_for_is_refused(layers: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_demand(parse(NET + layers + HEAD), (416, 416), 8.0, 10_000.0)


def test_the_largest_published_networks_are_far_from_the_limits() -> None:
    """yolov4-p6 at 1280 px takes some 0.7 T operations; yolov3-spp and yolov3 here, at 1280 px."""
    limits = NetworkLimits()
    for path in sorted((ROOT / "config").glob("*.cfg")):
        check_demand(
            netdef.load(path),
            (1280, 1280),
            limits.max_network_gb / 4,
            limits.max_network_gflops / 4,
        )


@pytest.mark.parametrize("cfg", ["yolov3", "yolov3-mobilenetv2"])
def test_memory_is_what_weights_and_live_maps_take(cfg: str) -> None:
    """The bytes of all tensors that are alive at once, counted in a forward pass on no memory."""
    definition = netdef.load(ROOT / f"config/{cfg}.cfg")
    numbers = [np.prod(shape) for shape in shapes(definition, (320, 320))]
    predicted = _largest_maps(definition, (320, 320))
    assert max(a + b for a, b in pairwise(numbers)) <= predicted <= sum(numbers) / 2
