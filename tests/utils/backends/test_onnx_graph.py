"""Does the ONNX graph compute what the network computes, whatever it is made of?"""

import random
import re

import pytest
import torch
from torch import Tensor

from import_param import Nms
from models.blocks import ACTIVATIONS
from models.darknet import Darknet
from models.head import decode
from models.netdef import NetDef, parse
from tests.conftest import ROOT
from tests.pruning.nets import CONFIGS, config, error, photos, random_net, trained
from tests.utils.backends.layers import HEAD, POOLS, activated, pooled, weighted
from utils.backends import install_command
from utils.errors import InputError

if command := install_command("onnxruntime"):
    pytest.skip(f"onnxruntime is not installed: {command}", allow_module_level=True)

import onnx

from utils.backends.nms_graph import with_nms
from utils.backends.onnx_graph import to_onnx
from utils.backends.onnxruntime_engine import session


def run(graph: bytes, images: Tensor) -> list[Tensor]:
    onnx.checker.check_model(graph, full_check=True)
    outputs = session(graph, 1).run(None, {"images": images.numpy()})
    return [torch.from_numpy(value) for value in outputs]


@torch.inference_mode()
def reference(model: Darknet, images: Tensor) -> list[Tensor]:
    maps: list[Tensor] = model(images)
    return maps


def differs(netdef: NetDef, seed: int = 0) -> float:
    """Of one size, and of any."""
    model, images = trained(netdef, seed), photos(netdef)
    graphs = (to_onnx(model, netdef.size, len(images)), to_onnx(model))
    return max(error(run(graph, images), reference(model, images)) for graph in graphs)


@pytest.mark.parametrize("name", CONFIGS)
def test_shipped_networks(name: str) -> None:
    assert differs(config(name, thinner=8)) < 1e-4


@pytest.mark.parametrize("seed", range(40))
def test_odd_networks(seed: int) -> None:
    assert differs(random_net(random.Random(seed)), seed) < 1e-4


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: str) -> None:
    assert differs(activated(activation)) < 1e-5


@pytest.mark.parametrize("kind", ["maxpool", "local_avgpool"])
@pytest.mark.parametrize("window", POOLS)
def test_pooling_pads_as_darknet(kind: str, window: tuple[int, int, int]) -> None:
    assert differs(pooled(kind, *window)) < 1e-5


def test_windows_beside_the_map_are_refused() -> None:
    with pytest.raises(InputError, match=r"cfg:10: padding='4': expected less than 3 for ONNX"):
        to_onnx(Darknet(pooled("maxpool", 2, 1, 4)))


def test_weighted_sums() -> None:
    for netdef in weighted():
        assert differs(netdef) < 1e-5


def test_an_any_size_graph_takes_any_size() -> None:
    model = trained(config("yolov3-tiny", thinner=8), 0)
    graph = to_onnx(model)
    for shape in ((1, 3, 64, 96), (3, 3, 32, 32)):
        images = torch.rand(shape)
        assert error(run(graph, images), reference(model, images)) < 1e-4


@pytest.mark.parametrize("options", ["", "scale_x_y=1.5\n", "scale_x_y=2\nnew_coords=1\n"])
def test_decoding_in_the_graph(options: str) -> None:
    """All boxes above a threshold that keeps all, where none is suppressed."""
    first = "[net]\nwidth=32\nheight=32\n[convolutional]\nfilters=6\nsize=3\nstride=8\npad=1\n"
    head = HEAD + options
    if "new_coords" in options:
        head = head.replace("linear", "logistic")
    model = trained(parse(f"{first}activation=mish\n{head}[route]\nlayers=0\n{head}"), 0)
    images = torch.rand(2, 3, 64, 40)
    graph = with_nms(to_onnx(model), model.heads, Nms(0.0, 1.0, 1000))
    image, label, boxes, scores = run(graph, images)
    predictions = decode(reference(model, images), model.heads, (40, 64))
    assert len(image) == predictions.boxes.shape[0] * predictions.boxes.shape[1] * 2
    expected = predictions.objectness[..., None] * predictions.classes
    expected = expected.transpose(1, 2)  # [B, C, P]
    for photo in range(2):
        for number in range(2):
            rows = (image == photo) & (label == number)
            order = expected[photo, number].argsort(descending=True)
            assert torch.allclose(scores[rows], expected[photo, number][order], atol=1e-5)
            torch.testing.assert_close(boxes[rows], predictions.boxes[photo][order])


def test_what_trtexec_is_told_of_the_graph_is_so() -> None:
    """docs/deploy.md: no card is here to run it on."""
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    model = trained(config("yolov3-tiny", thinner=8), 0)
    fixed, varying = (onnx.load_from_string(to_onnx(model, size)) for size in ((64, 96), None))
    (opset,) = {graph.opset_import[0].version for graph in (fixed, varying)}
    assert f"opset {opset};" in page
    shapes = re.findall(r"--(?:min|opt|max)Shapes=(\w+):(\d+)x(\d+)x(\d+)x(\d+)", page)
    assert len(shapes) == 3
    images = varying.graph.input[0]
    free = [not dim.dim_value for dim in images.type.tensor_type.shape.dim]
    assert free == [True, False, True, True]  # so ranges may be given of all but the colours
    for name, _, channels, height, width in shapes:
        assert (name, channels) == (images.name, "3")
        assert int(height) % 32 == int(width) % 32 == 0
    assert [output.name for output in fixed.graph.output] == ["map0", "map1"]
    shape = fixed.graph.input[0].type.tensor_type.shape
    assert [dim.dim_value for dim in shape.dim] == [1, 3, 96, 64]
