"""Does the walk over the layers reach every layer with the right values?"""

from pathlib import Path

import pytest
import torch

from models import netdef
from models.costs import count_operations, count_parameters
from models.darknet import Darknet, propagate, shapes, stride
from models.head import decode
from models.netdef import parse
from tests.conftest import ROOT
from utils.errors import InputError

# Figures of the original project at 320×320 with 80 classes: parameters in millions, operations
# in billions, convolutions.
VARIANTS = {
    "yolov3": (61.9, 38.97, 75),
    "yolov3-mobilenet": (24.6, 12.28, 50),
    "yolov3-mobilenetv2": (7.10, 3.50, 84),
    "yolov3-tiny": (8.85, 3.29, 13),
    "yolov3-lite": (0.344, 0.934, 7),
    "yolov3-tiny-mobilenet": (6.36, 3.87, 33),
}
RESIDUAL = """[net]
width=32
height=32
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=8
size=3
pad=1
activation=leaky
[shortcut]
from=-2
activation=linear
[route]
layers=-1
groups=2
group_id=1
[route]
layers=-1,0
[convolutional]
filters=7
size=1
activation=linear
[yolo]
anchors=8,8
classes=2
"""


@pytest.mark.parametrize("name", VARIANTS)
def test_sizes_are_those_of_the_original(name: str) -> None:
    parameters, operations, convolutions = VARIANTS[name]
    definition = netdef.load(ROOT / f"config/{name}.cfg")
    with torch.device("meta"):
        model = Darknet(definition)
    assert count_parameters(model) / 1e6 == pytest.approx(parameters, rel=2e-3)
    assert count_operations(definition, (320, 320)) / 1e9 == pytest.approx(operations, rel=2e-3)
    assert sum(s.kind == "convolutional" for s in definition.layers) == convolutions
    assert stride(definition) == 32


def test_a_stride_may_be_odd() -> None:
    third = "[convolutional]\nfilters=8\nsize=3\nstride=3\npad=1\n"
    down = third + "[upsample]\nstride=3\n[route]\nlayers=-1,0\n" + third
    definition = parse(RESIDUAL.replace("[route]\nlayers=-1\n", f"{down}[route]\nlayers=-1\n")
                       .replace("[route]\nlayers=-1,0\n[convolutional]\nfilters=7",
                                "[convolutional]\nfilters=7").replace("=32", "=96"))  # fmt: skip
    assert stride(definition) == 3
    assert shapes(definition)[-1][1:] == (32, 32)


def test_a_stride_where_the_size_is_fixed_is_that_of_the_cfgs_own_size() -> None:
    down = "[net]\nwidth=64\nheight=64\n[convolutional]\nfilters=8\nsize=3\nstride=8\npad=1\n"
    head = "[convolutional]\nfilters=6\nsize=1\n[yolo]\nmask=0\nanchors=9,9\nclasses=1\nnum=1\n"
    context = "[avgpool]\n[upsample]\nstride=8\n[route]\nlayers=-1,0\n"
    assert stride(parse(down + context + head)) == 8
    assert stride(parse(down + "[avgpool]\n" + head)) == 64


def test_a_stride_counts_maps_that_are_coarser_than_the_heads() -> None:
    down = "[convolutional]\nfilters=8\nsize=3\nstride=2\npad=1\n"
    head = "[convolutional]\nfilters=7\nsize=1\n[yolo]\nmask=0\nanchors=8,8\nclasses=2\nnum=1\n"
    up = "[upsample]\nstride=4\n[route]\nlayers=-1,1\n"
    definition = parse(f"[net]\nwidth=64\nheight=64\n{down * 4}{up}{head}")
    assert shapes(definition)[-1][1:] == (16, 16) and stride(definition) == 16
    for size in (48, 80):
        shapes(definition, (size, size))


def test_a_stride_is_not_less_for_a_map_that_padding_made_larger() -> None:
    even = "[convolutional]\nfilters=8\nsize=4\nstride=2\npad=1\n"
    head = "[convolutional]\nfilters=7\n[yolo]\nmask=0\nanchors=8,8\nclasses=2\nnum=1\n"
    definition = parse(f"[net]\nwidth=64\nheight=64\n{even * 3}{head}")
    assert shapes(definition)[-1][1:] == (9, 9) and stride(definition) == 8


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.cfg")), ids=lambda p: p.stem)
def test_shapes_are_what_a_forward_pass_gives(path: Path) -> None:
    definition = netdef.load(path).with_net_options(width=96, height=64)
    with torch.device("meta"):
        model = Darknet(definition).eval()
        maps = model(torch.zeros(2, 3, 64, 96))
    predicted = shapes(definition)
    assert [tuple(m.shape[1:]) for m in maps] == [predicted[i] for i in definition.heads]


def test_a_forward_pass_is_the_layers_by_hand() -> None:
    model = Darknet(parse(RESIDUAL)).eval()
    x = torch.rand(2, 3, 32, 32)
    layers = model.layers
    with torch.no_grad():
        first = layers[0](x)
        total = layers[1](first) + first
        expected = layers[5](torch.cat([total[:, 4:], first], 1))
        assert torch.equal(model(x)[0], expected)


def test_values_are_forgotten_after_their_last_reader() -> None:
    """At most the image's successor, the residual's first and what is read next are alive."""
    alive: set[int] = set()
    most = 0

    class Value:
        def __init__(self) -> None:
            nonlocal most
            alive.add(id(self))
            most = max(most, len(alive))

        def __del__(self) -> None:
            alive.discard(id(self))

    definition = netdef.load(ROOT / "config/yolov3.cfg")
    walk = propagate(
        definition,
        Value(),
        conv=lambda i, x: Value(),
        add=lambda i, xs: Value(),
        cat=lambda i, xs: Value(),
        part=lambda i, x, n, k: Value(),
        other=lambda i, x: Value(),
    )
    for _value in walk:
        pass
    assert len(definition.layers) > 100
    assert most <= 7


def test_new_heads_expect_few_objects() -> None:
    model = Darknet(netdef.load(ROOT / "config/yolov3-lite.cfg"))
    model.init_heads_(model.netdef.heads)
    with torch.no_grad():
        predictions = decode(model.eval()(torch.rand(1, 3, 64, 64)), model.heads, (64, 64))
    assert predictions.objectness.max() < 0.2


def test_a_window_larger_than_its_map_is_refused() -> None:
    with pytest.raises(InputError, match="window 9x9 does not fit into 3x4x8"):
        shapes(parse("[net]\nwidth=8\nheight=4\n[convolutional]\nsize=9\n"))
