"""Do both ways to oneDNN compute what the network computes, whichever is the faster one here?"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.utils.backends.test_backends import CFG, trained
from utils.backends import open_engine
from utils.backends.fold import folded
from utils.backends.torch_engine import DTYPES, graph, layers, precisions

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch is built without oneDNN"
)
NEAR = {"fp32": 1e-5, "bf16": 0.03}  # of a map's largest value


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
        wanted = model(images)
        copy = folded(model).to(dtype).to(memory_format=torch.channels_last)
        prepared = images.to(dtype, memory_format=torch.channels_last)
        ways = [graph(copy, prepared), layers(copy, prepared)]
        found = [run(prepared) for run in ways if run is not None]
    assert found
    for maps in found:
        for ours, theirs in zip(maps, wanted, strict=True):
            assert (ours.float() - theirs).abs().max() <= NEAR[precision] * theirs.abs().max()


def test_what_the_graph_compiler_does_not_take_runs_layer_by_layer() -> None:
    model = trained(CFG.replace("activation=mish", "activation=gelu"))
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert graph(folded(model), images) is None
        wanted = model(images)
    for ours, theirs in zip(open_engine("torch", model, (64, 64))(images), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_opening_leaves_torchs_own_settings() -> None:
    before = torch.get_num_threads(), torch.jit.onednn_fusion_enabled()
    open_engine("torch", trained(), (64, 64), threads=3)(torch.rand(1, 3, 64, 64))
    assert (torch.get_num_threads(), torch.jit.onednn_fusion_enabled()) == before
