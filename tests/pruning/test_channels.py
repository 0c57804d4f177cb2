"""Are the channels that live together those that must, and no others?"""

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.darknet import shapes
from models.netdef import NetDef, parse
from pruning.channels import Group, _told_apart, channel_groups
from tests.pruning.nets import config, random_net

NET = "[net]\nwidth=32\nheight=32\nchannels=3\n"
HEAD = "[convolutional]\nfilters=7\nsize=1\nactivation=linear\n[yolo]\nanchors=8,8\nclasses=2\n"


def conv(filters: int, groups: int = 1, norm: int = 1) -> str:
    return (
        f"[convolutional]\nbatch_normalize={norm}\nfilters={filters}\ngroups={groups}\nsize=3\n"
        "pad=1\nactivation=leaky\n"
    )


def net(*sections: str) -> NetDef:
    return parse(NET + "".join(sections) + HEAD)


def layers(group: Group) -> list[tuple[int, int]]:
    """(layer, channels of each unit) of a group."""
    return [(member.layer, member.positions.shape[1]) for member in group.members]


def test_a_shortcut_unites_and_a_route_joins() -> None:
    """Layers 0 and 1 stand for the halves of 3, which adds their concatenation."""
    found = channel_groups(
        net(conv(4), conv(6), "[route]\nlayers=-1,-2\n", conv(10), "[shortcut]\nfrom=-2\n")
    )
    assert [layers(group) for group in found.groups] == [
        [(0, 1), (3, 1)],
        [(1, 1), (3, 1)],
        [(5, 1)],
    ]
    first, second, head = found.groups
    assert first.members[1].positions.ravel().tolist() == [6, 7, 8, 9]
    assert second.members[1].positions.ravel().tolist() == list(range(6))
    assert first.added and second.added and not head.added
    assert not first.frozen and "[yolo]" in head.frozen


def test_a_depthwise_convolution_shares_its_inputs_channels_and_scores_for_them() -> None:
    (group, _) = channel_groups(net(conv(4), conv(8, groups=4))).groups
    assert layers(group) == [(0, 1), (1, 2)]
    assert group.members[1].positions.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert [member.layer for member in group.deciding_members] == [1]


def test_what_something_else_reads_too_scores_as_well() -> None:
    found = channel_groups(net(conv(4), conv(4, groups=4), "[route]\nlayers=-1,-2\n"))
    assert [member.layer for member in found.groups[0].deciding_members] == [0, 1]


def test_the_groups_of_a_convolution_go_as_a_whole() -> None:
    (group, _) = channel_groups(net(conv(6), conv(4, groups=2))).groups
    assert layers(group) == [(0, 3), (1, 2)]
    assert len(group) == 2
    assert [member.layer for member in group.deciding_members] == [0, 1]


def test_a_grouped_route_ties_the_parts_that_it_slices_into() -> None:
    found = channel_groups(net(conv(8), "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n", conv(5)))
    sliced = found.groups[0]
    assert layers(sliced) == [(0, 2)] and len(sliced) == 4 and not sliced.kept_because
    assert sliced.members[0].positions.tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert found.outputs[1].tolist() == found.outputs[0][:4].tolist()


def test_pooling_upsampling_and_plain_routes_pass_channels_through() -> None:
    through = "[maxpool]\nsize=2\nstride=2\n[upsample]\nstride=2\n[route]\nlayers=-1\n"
    (group, _) = channel_groups(net(conv(4), through, "[shortcut]\nfrom=0\n")).groups
    assert len(group) == 4 and not group.frozen


def test_reorg_freezes_what_it_rearranges() -> None:
    found = channel_groups(net(conv(8), "[reorg]\nstride=2\n"))
    assert found.groups[0].frozen == "layer 1 rearranges channels"
    assert found.outputs[1].tolist() == found.outputs[0].tolist() * 4


def test_units_are_told_apart_by_their_numbers_and_counts() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        alike, counts = rng.integers(0, 4, 8), rng.integers(0, 4, 8)
        told = _told_apart(alike, counts)
        same = np.equal.outer(alike, alike) & np.equal.outer(counts, counts)
        assert np.array_equal(np.equal.outer(told, told), same)


def test_the_image_is_never_cut() -> None:
    (group, _) = channel_groups(net(conv(3, groups=3))).groups
    assert group.frozen == "it is the image"


def test_without_batch_normalisation_nothing_judges() -> None:
    (group, _) = channel_groups(net(conv(4, norm=0))).groups
    assert not group.frozen and not group.deciding_members
    assert "no batch normalisation" in group.kept_because


def test_the_structure_is_worked_out_once_for_equal_networks() -> None:
    netdef = net(conv(4), conv(8))
    assert channel_groups(netdef) is channel_groups(parse(netdef.text()))
    assert channel_groups(netdef) is not channel_groups(net(conv(4), conv(9)))
    assert [group.number for group in channel_groups(netdef).groups] == [0, 1, 2]


def test_tiny_is_prunable_before_maxpool_and_upsample_too() -> None:
    """Every convolution but the heads."""
    free = [
        g.members[0].layer for g in channel_groups(config("yolov3-tiny")).groups if not g.frozen
    ]
    assert free == [0, 2, 4, 6, 8, 10, 12, 13, 14, 18, 21]


@settings(max_examples=40, deadline=None)
@given(rng=st.randoms(use_true_random=False))
def test_every_channel_is_in_one_unit_of_one_group(rng: random.Random) -> None:
    netdef = random_net(rng, 25)
    found = channel_groups(netdef)
    units = np.concatenate([group.units for group in found.groups])
    assert len(set(units.tolist())) == len(units)
    for index, (channels, _, _) in enumerate(shapes(netdef)):
        assert len(found.outputs[index]) == channels
        if netdef.layers[index].kind == "convolutional":
            members = [
                (group, m) for group in found.groups for m in group.members if m.layer == index
            ]
            positions = np.concatenate([m.positions.ravel() for _, m in members])
            assert sorted(positions.tolist()) == list(range(channels))
            for group, member in members:
                of_units = found.outputs[index][member.positions]
                assert (of_units == group.units[:, None]).all()
