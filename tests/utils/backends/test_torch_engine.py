"""Do both ways to oneDNN compute what the network computes, whichever is the faster one here?"""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pruning.nets import config, photos, random_net
from tests.pruning.nets import trained as random_weights
from tests.utils.backends.test_backends import CFG, trained
from utils.backends import EngineOptions, open_engine
from utils.backends.base import maps_agree
from utils.backends.fold import folded
from utils.backends.onednn_graph import compile_graph, sums_may_overwrite
from utils.backends.torch_engine import DTYPES, precisions, prepack_

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch is built without oneDNN"
)
HALF = "[maxpool]\nsize=2\nstride=2\n"
TOLERANCE = {"fp32": 1e-5, "bf16": 0.03}  # of a map's largest value


@given(
    filters=st.integers(1, 20),
    side=st.sampled_from([(32, 32), (64, 96)]),
    batch=st.integers(1, 2),
    precision=st.sampled_from(precisions(torch.device("cpu"))),
)
@settings(max_examples=10, deadline=None)
def test_both_ways_give_the_networks_maps(
    filters: int, side: tuple[int, int], batch: int, precision: str
) -> None:
    model = trained(CFG.replace("filters=12", f"filters={filters}"))
    images, dtype = torch.rand(batch, 3, *side), DTYPES[precision]
    with torch.inference_mode():
        reference = model(images)
        copy = folded(model).to(dtype).to(memory_format=torch.channels_last)
        prepared = images.to(dtype, memory_format=torch.channels_last)
        compiled, prepacked = compile_graph(copy, prepared), prepack_(copy, prepared)
        runs = [prepacked] if compiled is None else [compiled, prepacked]
        results = [run(prepared) for run in runs]
    for maps in results:
        assert maps_agree([raw.float() for raw in maps], reference, TOLERANCE[precision])


@pytest.mark.parametrize("seed", [*range(5), 54, 130])
def test_any_network_gives_its_maps(seed: int) -> None:
    """Of the last two, the graph compiler writes sums over maps that are read later."""
    netdef = random_net(random.Random(seed))
    model, images = random_weights(netdef, seed), photos(netdef)
    with torch.inference_mode():
        reference = model(images)
    maps = open_engine("torch", model, EngineOptions(netdef.size, batch=len(images)))(images)
    torch.testing.assert_close(maps, reference, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"activation=mish": "activation=gelu"},  # it knows another one by that name
        {"from=-3": "from=-3,-2"},  # with it, the process ended
        {
            "[shortcut]\nfrom=-3": "[shortcut]\nfrom=-3\nactivation=linear\n[shortcut]\nfrom=-3",
            "layers=-1,4": "layers=-1,5",
        },
        {"[route]\nlayers=-1,4": f"[route]\nlayers=0\n{HALF}[route]\nlayers=-1,-3"},
        {  # a head's map, which is a summand of another's
            "[route]\nlayers=-3": "[route]\nlayers=7\n[convolutional]\nfilters=16\nsize=3\npad=1\n"
            "activation=linear\n[shortcut]\nfrom=-2\nactivation=linear",
        },
    ],
)
def test_what_the_graph_compiler_does_wrong_runs_layer_by_layer(changes: dict[str, str]) -> None:
    text = CFG
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    model = trained(text)
    images = torch.rand(1, 3, 64, 64)
    assert sums_may_overwrite(model.netdef) == ("gelu" in text)
    with torch.inference_mode():
        assert compile_graph(folded(model), images) is None
        reference = model(images)
    maps = open_engine("torch", model, EngineOptions((64, 64)))(images)
    torch.testing.assert_close(maps, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif("bf16" not in precisions(torch.device("cpu")), reason="no bfloat16 here")
def test_a_sigmoid_inside_a_network_is_no_hindrance_to_bfloat16() -> None:
    """It is float32 where a [yolo] reads it, and a convolution of bfloat16 would refuse that."""
    model = trained(CFG.replace("activation=relu", "activation=logistic"))
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        reference = model(images)
    maps = open_engine("torch", model, EngineOptions((64, 64), "bf16"))(images)
    assert maps_agree(maps, reference, TOLERANCE["bf16"])


@pytest.mark.parametrize("name", ["yolov3", "yolov3-mobilenetv2", "yolov3-lite"])
def test_sums_of_shipped_networks_may_overwrite_what_they_add(name: str) -> None:
    """So these run by the graph compiler, which is faster."""
    assert sums_may_overwrite(config(name))


@pytest.mark.parametrize("fusion", [False, True])
def test_opening_leaves_torchs_own_settings(fusion: bool) -> None:
    torch.jit.enable_onednn_fusion(fusion)
    before = torch.get_num_threads(), torch.jit.onednn_fusion_enabled()
    open_engine("torch", trained(), EngineOptions((64, 64), threads=3))(torch.rand(1, 3, 64, 64))
    assert (torch.get_num_threads(), torch.jit.onednn_fusion_enabled()) == before
    torch.jit.enable_onednn_fusion(False)
