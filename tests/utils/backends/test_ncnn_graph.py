"""Do ncnn's files compute what the network computes, whatever it is made of?"""

import random

import pytest
import torch

from models.blocks import ACTIVATIONS
from models.netdef import NetDef
from tests.pruning.nets import CONFIGS, config, error, photos, random_net, trained
from tests.utils.backends.layers import POOLS, activated, pooled, weighted
from utils.backends import EngineOptions, install_command, open_engine
from utils.errors import InputError

if command := install_command("ncnn"):
    pytest.skip(f"ncnn is not installed: {command}", allow_module_level=True)


def differs(netdef: NetDef, seed: int = 0) -> float:
    model, images = trained(netdef, seed), photos(netdef)
    maps = open_engine("ncnn", model, EngineOptions(netdef.size, threads=1))(images)
    with torch.inference_mode():
        return error(maps, model(images))


@pytest.mark.parametrize("name", CONFIGS)
def test_shipped_networks(name: str) -> None:
    assert differs(config(name, thinner=8)) < 1e-4


@pytest.mark.parametrize("seed", range(40))
def test_odd_networks(seed: int) -> None:
    netdef = random_net(random.Random(seed))
    if any(section.kind == "reorg" for section in netdef.layers):
        with pytest.raises(InputError, match="ncnn has no such layer"):
            differs(netdef)
    else:
        assert differs(netdef, seed) < 1e-4


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: str) -> None:
    assert differs(activated(activation)) < 1e-5


@pytest.mark.parametrize("kind", ["maxpool", "local_avgpool"])
@pytest.mark.parametrize("window", POOLS)
def test_pooling_pads_as_darknet(kind: str, window: tuple[int, int, int]) -> None:
    assert differs(pooled(kind, *window)) < 1e-5


def test_weighted_sums() -> None:
    for netdef in weighted():
        assert differs(netdef) < 1e-5
