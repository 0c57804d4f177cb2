"""Does Darknet's pair of files compute what the checkpoint does?"""

from pathlib import Path

import pytest
import torch

from import_param import TrainedNetwork
from models.netdef import load
from tests.utils.checkpoint.test_checkpoint import model
from utils.checkpoint.darknet_files import write_pair
from utils.checkpoint.network import load_network


@pytest.mark.parametrize("program", ["cfg", "opencv", "darknet"])
def test_a_pair_computes_the_same_for_the_program_it_is_for(program: str, tmp_path: Path) -> None:
    network = model().eval()
    network.layers[0].bn.running_var.fill_(1e-5)
    write_pair(tmp_path / "x", network, network.netdef.with_bn_epsilon_of(program), "ab")
    opened = load_network(TrainedNetwork(weights=str(tmp_path / "x.weights"), device="cpu")).model
    assert opened.layers[0].bn.eps == (1e-5 if program == "darknet" else 1e-6)
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(images)[0], opened(images)[0], rtol=1e-4, atol=1e-4)


def test_a_pair_is_a_cfg_weights_and_names(tmp_path: Path) -> None:
    network = model()
    cfg, weights = write_pair(tmp_path / "net-1.1", network, network.netdef, ("a", "b"))
    assert load(cfg) == network.netdef.with_plain_heads()
    assert (cfg.name, weights.name) == ("net-1.1.cfg", "net-1.1.weights")
    assert load_network(TrainedNetwork(weights=str(weights), device="cpu")).names == ("a", "b")
