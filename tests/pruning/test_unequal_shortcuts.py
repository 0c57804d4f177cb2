"""Sums of maps with unequal channels: as Darknet and OpenCV compute them, whole and cut."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.darknet import Darknet, shapes
from models.netdef import NetDef, parse
from models.weights import to_bytes
from pruning.channels import channel_groups
from pruning.importance import gamma
from pruning.residual_blocks import residual_blocks
from pruning.strategies import STRATEGIES
from pruning.surgeon import Plan, cut, keep_everything, masked
from tests.pruning.nets import error, hush_, photos, pruning_target, random_plan, trained
from utils.backends.opencv_engine import load, raw_maps
from utils.errors import InputError

NET = "[net]\nwidth=32\nheight=32\nchannels=3\n"
HEAD = (
    "[convolutional]\nfilters=7\nsize=1\nactivation=linear\n"
    "[yolo]\nanchors=8,8\nmask=0\nnum=1\nclasses=2\n"
)


def conv(
    filters: int, groups: int = 1, size: int = 3, stride: int = 1, activation: str = "leaky"
) -> str:
    return (
        f"[convolutional]\nbatch_normalize=1\nfilters={filters}\ngroups={groups}\nsize={size}\n"
        f"stride={stride}\npad=1\nactivation={activation}\n"
    )


def net(*sections: str) -> NetDef:
    return parse(NET + "".join(sections) + HEAD)


def shortcut(source: str | int, activation: str = "linear") -> str:
    return f"[shortcut]\nfrom={source}\nactivation={activation}\n"


SQUEEZE = "[avgpool]\n" + conv(3, size=1) + conv(9, size=1) + "[scale_channels]\nfrom=-4\n"


NETS = {
    "narrower": net(conv(8), conv(5), shortcut(-2)),
    "wider": net(conv(5), conv(8), shortcut(-2)),
    "a chain that narrows and widens": net(
        conv(8), conv(5), shortcut(-2), conv(9, activation="relu"), shortcut(-3, "leaky"),
        conv(4), shortcut(-2), conv(12), shortcut(-3),
    ),
    "sums of sums": net(
        conv(6), conv(9), shortcut(-2), shortcut(0), shortcut(1), conv(4), shortcut(-2)
    ),
    "enet: depthwise, squeezed": net(
        conv(7), conv(9, size=1), conv(9, groups=9), SQUEEZE, conv(9, size=1), shortcut(0),
        conv(9, groups=9), conv(4, size=1), shortcut(-3),
    ),
    "route, parts and groups": net(
        conv(8), "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n", conv(6), shortcut(-2),
        "[route]\nlayers=-1,0\n", conv(7), shortcut(-2), conv(14, groups=7), shortcut(2),
    ),
    "one twice": net(conv(4), "[route]\nlayers=-1,-1\n", shortcut(0), conv(6), shortcut(-2)),
    "prn: pooled and upsampled": net(
        conv(6), "[maxpool]\nsize=2\nstride=2\n", conv(9), shortcut(-2), "[upsample]\nstride=2\n",
        shortcut(0), conv(4), shortcut(-2, "mish"),
    ),
}  # fmt: skip
OF_SEVERAL = {
    "two, one of them narrower": net(conv(6), conv(9), conv(7), shortcut("-2,-3")),
    "weighed by channel": net(
        conv(6), conv(9), conv(7), "[shortcut]\nfrom=-2,-3\nweights_type=per_channel\n"
        "weights_normalization=softmax\n", conv(9),
        "[shortcut]\nfrom=-2\nweights_type=per_feature\n",
    ),
}  # fmt: skip
BY_NAME = pytest.mark.parametrize("netdef", (NETS | OF_SEVERAL).values(), ids=NETS | OF_SEVERAL)


@pytest.mark.parametrize(("first", "second"), [(6, 4), (4, 6), (5, 5)])
def test_the_first_channels_that_both_have_are_added(first: int, second: int) -> None:
    """Darknet's shortcut_multilayer_cpu, value by value."""
    model = trained(net(conv(first), conv(second), shortcut(-2)), 0)
    values: dict[int, np.ndarray] = {}
    for index in range(3):
        model.layers[index].register_forward_hook(
            lambda _, inputs, output, index=index: values.update({index: output.detach().numpy()})
        )
    model(photos(model.netdef, 1))
    added, before, total = (values[index][0] for index in range(3))
    expected = before.copy()
    for channel in range(min(first, second)):
        expected[channel] += added[channel]
    assert np.array_equal(total, expected)


@torch.no_grad()
def opencvs(model: Darknet) -> float:
    """How far off OpenCV is that reads the network's files."""
    image = photos(model.netdef, 1)
    network = load(model.netdef.text().encode(), to_bytes(model))
    network.setInput(image.numpy())
    maps = [torch.from_numpy(raw) for raw in network.forward(raw_maps(network, model.netdef.heads))]
    return error(maps, model(image))


@pytest.mark.parametrize("netdef", NETS.values(), ids=NETS)
def test_opencv_computes_the_same_whole_and_cut(netdef: NetDef) -> None:
    model = trained(netdef, 1)
    assert opencvs(model) < 1e-4
    for seed in range(5):
        small = cut(model, random_plan(netdef, random.Random(seed), with_blocks=False))
        assert parse(small.netdef.text()) == small.netdef
        assert opencvs(small) < 1e-4


@BY_NAME
@torch.no_grad()
def test_the_cut_is_the_mask(netdef: NetDef) -> None:
    for seed in range(20):
        model = trained(netdef, seed).double()
        plan = random_plan(netdef, random.Random(seed))
        hush_(model, plan.keep)
        images = photos(netdef).double()
        assert error(cut(model, plan)(images), masked(model, plan)(images)) < 1e-12


@BY_NAME
@torch.no_grad()
def test_every_strategy_cuts_it(netdef: NetDef) -> None:
    model = trained(netdef, 0).double()
    for name in ("shortcut", "slim"):
        plan = STRATEGIES[name](netdef, gamma(model), pruning_target(0.5))
        hush_(model, plan.keep)
        images = photos(netdef).double()
        assert error(cut(model, plan)(images), masked(model, plan)(images)) < 1e-12


def test_only_what_is_added_is_united() -> None:
    structure = channel_groups(NETS["narrower"])
    first, second = structure.outputs[0], structure.outputs[1]
    assert np.array_equal(first[:5], second)
    kinds = {(len(group), group.added) for group in structure.groups[:2]}
    assert kinds == {(5, True), (3, False)}


def test_all_of_what_is_not_added_may_go() -> None:
    """The sum is then one of equal channels."""
    netdef = NETS["narrower"]
    keep = keep_everything(netdef).keep.copy()
    keep[channel_groups(netdef).outputs[0][5:]] = False
    model = trained(netdef, 0)
    hush_(model, keep)
    small = cut(model, Plan(netdef, keep))
    assert shapes(small.netdef)[0][0] == shapes(small.netdef)[1][0] == 5
    images = photos(netdef)
    with torch.no_grad():
        assert error(small(images), masked(model, Plan(netdef, keep))(images)) < 1e-5


@torch.no_grad()
def test_a_block_goes_only_where_its_trunk_has_the_sums_channels() -> None:
    trunk_before = net(conv(8), conv(4), conv(5), shortcut(0))  # puts out 5
    assert not residual_blocks(trunk_before)
    trunk_last = net(conv(8), conv(4), conv(5), "[route]\nlayers=0\n", shortcut(-2))  # puts out 8
    (block,) = residual_blocks(trunk_last)
    plan = Plan(trunk_last, keep_everything(trunk_last).keep, (block.shortcut,))
    model, images = trained(trunk_last, 0).double(), photos(trunk_last).double()
    assert error(cut(model, plan)(images), masked(model, plan)(images)) < 1e-12


def test_maps_of_unequal_size_are_refused() -> None:
    """Darknet's `assert`; so do a product's channels that differ."""
    with pytest.raises(InputError, match=r"from='-2': cannot add 4x32x32 to 4x16x16: .*one height"):
        Darknet(net(conv(4), conv(4, stride=2), shortcut(-2)))
    with pytest.raises(InputError, match="expected maps of one shape"):
        Darknet(net(conv(4), conv(5), "[sam]\nfrom=-2\n"))


def test_weights_of_a_sum_by_channel_are_those_of_the_first_map() -> None:
    """As many in Darknet's file as the output has channels, for each map."""
    model = trained(OF_SEVERAL["weighed by channel"], 0)
    assert model.layers[3].weights.shape == (3, 7)


@settings(max_examples=20, deadline=None)
@given(rng=st.randoms(use_true_random=False))
def test_it_learns(rng: random.Random) -> None:
    """The slope of a channel that is not added is its readers' alone."""
    netdef = rng.choice(list((NETS | OF_SEVERAL).values()))
    model = trained(netdef, 0).double()
    sum(raw.square().mean() for raw in model(photos(netdef).double())).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
