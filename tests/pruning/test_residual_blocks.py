"""Are the blocks found that can go, and are the layers after them rewired?"""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.darknet import shapes
from models.netdef import NetDef, parse
from pruning.residual_blocks import expect_blocks, residual_blocks, without_blocks
from tests.pruning.nets import config, random_net
from tests.pruning.test_channels import HEAD, conv, net
from utils.errors import InputError

ADD = "[shortcut]\nfrom={}\nactivation={}\n"


def add(source: int, activation: str = "linear") -> str:
    return ADD.format(source, activation)


def found(netdef: NetDef) -> list[tuple[int, int, tuple[int, ...], tuple[int, ...]]]:
    return [(b.shortcut, b.trunk, b.inside, b.writers) for b in residual_blocks(netdef)]


def test_blocks_of_any_depth_and_kind() -> None:
    assert len(residual_blocks(config("yolov3"))) == 23
    assert len(residual_blocks(config("yolov3-mobilenetv2"))) == 10
    inverted = residual_blocks(config("yolov3-mobilenetv2"))[0]
    assert len(inverted.inside) == 3
    one = net(conv(4), conv(4), add(-2))
    assert found(one) == [(2, 0, (1,), (1,))]
    dropped = net(conv(4), conv(4), "[dropout]\nprobability=0.5\n", add(-3))
    assert found(dropped) == [(3, 0, (1, 2), (1,))]
    joined = net(conv(4), conv(2), conv(2), "[route]\nlayers=-1,-2\n", add(0))
    assert found(joined) == [(4, 0, (1, 2, 3), (1, 2))]


def test_the_trunk_may_come_second() -> None:
    """The branch first, then a route back to the trunk, then the shortcut that reads the branch."""
    netdef = net(conv(4), conv(4), "[route]\nlayers=0\n", add(1), conv(5))
    assert found(netdef) == [(3, 2, (1,), (1,))]
    small, moved = without_blocks(netdef, [3])
    assert [section.kind for section in small.layers[:3]] == [
        "convolutional",
        "route",
        "convolutional",
    ]
    assert moved == {0: 0, 2: 1, 4: 2, 5: 3, 6: 4}


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ((conv(4), "[route]\nlayers=0\n", conv(4)), "it has no [shortcut]"),
        ((conv(4), conv(4), add(-2), "[route]\nlayers=-1,1\n"), "layer 3 reads the inside"),
        ((conv(4), conv(4), add(-2, "leaky")), "the activation of layer 2 changes its trunk"),
        ((conv(4), conv(4), conv(4), "[shortcut]\nfrom=-2,-3\n"), "more than two maps"),
        (
            (conv(4), conv(4), "[shortcut]\nfrom=-2\nweights_type=per_feature\n"),
            "layer 2 weighs what it adds",
        ),
        ((conv(4), "[shortcut]\nfrom=-1\n"), "layer 1 adds no block"),
        (
            (conv(3), conv(3), "[route]\nlayers=0\n", "[shortcut]\nfrom=-3\n"),
            "layer 3 adds no block",
        ),
    ],
)
def test_what_is_no_block_is_told(sections: tuple[str, ...], reason: str) -> None:
    netdef = net(*sections)
    assert not found(netdef)
    with pytest.raises(InputError) as error:
        expect_blocks(netdef, "my.cfg")
    assert str(error.value).startswith("my.cfg: expected a residual block") and reason in str(
        error.value
    )


def test_relu_after_relu_changes_nothing() -> None:
    relu = conv(4).replace("leaky", "relu")
    assert len(found(net(relu, conv(4), add(-2, "relu")))) == 1
    assert not found(net(conv(4), conv(4), add(-2, "relu")))


def test_what_read_a_block_reads_its_trunk_wherever_that_is() -> None:
    """Layer 1 stays, between the trunk 0 and what reads the shortcut 4."""
    netdef = net(
        conv(4), conv(5), "[route]\nlayers=0\n", conv(4), add(0), conv(6), "[route]\nlayers=-1,1\n"
    )
    assert found(netdef) == [(4, 0, (2, 3), (3,))]
    small, moved = without_blocks(netdef, [4])
    assert moved == {0: 0, 1: 1, 5: 3, 6: 4, 7: 5, 8: 6}
    assert [small.sources(n) for n in range(2, 5)] == [(0,), (2,), (3, 1)]


def test_numbers_stay_as_they_were_written() -> None:
    """Relative ones relative, absolute ones absolute, and right."""
    netdef = net(
        conv(4), conv(4), conv(4), add(-3), conv(6), "[route]\nlayers=-1,3\n", conv(4),
        "[shortcut]\nfrom=3\n", "[route]\nlayers=-4,-3\n",
    )  # fmt: skip
    small, moved = without_blocks(netdef, [3])
    assert moved == {0: 0, 4: 1, 5: 2, 6: 3, 7: 4, 8: 5, 9: 6, 10: 7}
    assert small.layers[2].options["layers"] == "-1,0"
    assert small.layers[4].options["from"] == "0"
    assert small.layers[5].options["layers"] == "-4,-3"
    assert small.sources(5) == (1, 2)


def test_nested_and_chained_blocks_go_together() -> None:
    nested = net(conv(4), conv(4), conv(4), add(-2), conv(4), add(0), conv(4), add(-2))
    assert [b.shortcut for b in residual_blocks(nested)] == [3, 5, 7]
    small, moved = without_blocks(nested, [3, 5, 7])
    assert len(small.layers) == 1 + HEAD.count("[") and moved[8] == 1
    inner, _ = without_blocks(nested, [3])
    assert inner.sources(3) == (2, 0)


@settings(max_examples=60, deadline=None)
@given(rng=st.randoms(use_true_random=False))
def test_what_is_left_is_legal_and_writes_back(rng: random.Random) -> None:
    netdef = random_net(rng, 25)
    blocks = [b.shortcut for b in residual_blocks(netdef)]
    small, moved = without_blocks(netdef, blocks)
    assert parse(small.text()) == small
    before, after = shapes(netdef), shapes(small)
    assert all(before[old] == after[new] for old, new in moved.items())
    assert len(small.heads) == len(netdef.heads)
    same, _ = without_blocks(netdef, [])
    assert same == netdef
