"""Does a training start from what other programs and runs left?"""

from pathlib import Path

import torch

from models.darknet import Darknet
from models.netdef import parse
from models.weights import write_weights
from tests.models.test_darknet import RESIDUAL
from tests.utils.checkpoint.test_checkpoint import model, save
from utils.checkpoint.pretrained import read_pretrained, untrained_heads


def test_pretrained_heads_keep_their_anchors(tmp_path: Path) -> None:
    trained = model()
    trained = Darknet(trained.netdef.with_anchors([(5, 6)]).with_head_options(scale_x_y="2"))
    path = save(tmp_path / "x.pt", trained)
    start = read_pretrained(path, model().netdef)
    state, definition = start.state, start.netdef
    assert definition == trained.netdef
    assert untrained_heads(definition, state) == []
    assert untrained_heads(definition.with_classes(3), state) == [6]
    assert untrained_heads(definition, {}) == [6]


def test_pretrained_weights_for_other_heads_leave_the_definition(tmp_path: Path) -> None:
    trained = model().netdef.with_head_options(scale_x_y="2")
    path = save(tmp_path / "x.pt", Darknet(trained))
    tail = RESIDUAL[RESIDUAL.rindex("[conv") :]
    two = parse(f"{RESIDUAL}[route]\nlayers=4\n{tail}")
    start = read_pretrained(path, two)
    state, definition = start.state, start.netdef
    assert definition == two and untrained_heads(two, state) == [9]


def test_pretrained_weights_may_be_a_part_of_darknets(tmp_path: Path) -> None:
    network = model()
    write_weights(tmp_path / "x.weights", network, layers=2)
    start = read_pretrained(tmp_path / "x.weights", network.netdef)
    state, definition = start.state, start.netdef
    assert definition == network.netdef and untrained_heads(definition, state) == [6]
    assert torch.equal(state["layers.1.conv.weight"], network.state_dict()["layers.1.conv.weight"])
