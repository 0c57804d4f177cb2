"""Is what goes counted right, and told where it is not what was asked?"""

import pytest

from pruning.channels import channel_groups
from pruning.residual_blocks import residual_blocks
from pruning.surgeon import Plan, keep_everything
from pruning.targets import (
    CutShares,
    GroupCosts,
    blocks_share,
    cut_shares,
    deviation_note,
    savings,
    target_measure,
)
from tests.pruning.nets import pruning_target
from tests.pruning.test_channels import conv, net
from tests.pruning.test_selection import BLOCKS


def test_only_for_layer_channels_mean_blocks() -> None:
    assert target_measure("layer", "channels") == "blocks"
    assert target_measure("layer", "operations") == "operations"
    assert target_measure("slim", "channels") == "channels"


def test_a_share_off_by_more_than_a_point_is_told() -> None:
    def note(strategy: str, percent: float, share: float, blocks: float = 0.0) -> str:
        shares = CutShares(share, 0.0, 0.0, blocks)
        return deviation_note(strategy, pruning_target(percent, layer_keep=0.2), shares)

    assert note("slim", 0.5, 0.509) == note("slim", 0.5, 0.491) == ""
    assert note("slim", 0.5, 0.511) and note("slim", 0.5, 0.489)
    assert note("slim", 0.5, 0.48) == (
        "percent=0.5: 0.480 reached: layer_keep=0.2 and round_to=1 allow no more"
    )
    assert note("slim", 0.5, 0.52).endswith("with round_to=1 nothing nearer was found")
    assert note("layer", 0.5, 0.5, 0.6).endswith("whole blocks go, and these come nearest")
    assert note("layer", 0.9, 0.9, 1.0).endswith("whole blocks go, and no more may go")


def test_shares_of_a_cut_are_counted_by_hand() -> None:
    """Layer 0 loses one of its 4 channels, the only ones that normal may not cut are the head's."""
    netdef = net(conv(4), conv(6))
    plan = keep_everything(netdef)
    plan.keep[channel_groups(netdef).outputs[0][0]] = False
    shares = cut_shares(plan, "normal")
    parameters = (4 * 29) + (6 * 38) + 7 * 7
    assert shares.channels == pytest.approx(1 / 10)
    assert shares.parameters == pytest.approx((29 + 6 * 9) / parameters)
    assert shares.operations == pytest.approx((27 + 54) / (4 * 27 + 6 * 36 + 7 * 6))
    assert shares.blocks == 0
    assert shares.of("parameters") == shares.parameters


def test_blocks_count_with_those_inside_them() -> None:
    nested = net(conv(4), conv(4), conv(4), "[shortcut]\nfrom=1\n", conv(4), "[shortcut]\nfrom=0\n")
    inner, outer = residual_blocks(nested)
    assert blocks_share(nested, [inner]) == 0.5
    assert blocks_share(nested, [outer]) == 1.0
    assert blocks_share(net(conv(4)), []) == 0.0
    assert cut_shares(Plan(nested, keep_everything(nested).keep, (5,)), "layer").blocks == 1.0


def test_a_unit_saves_what_it_reads_writes_and_is_read_by() -> None:
    units, blocks = savings(BLOCKS, "parameters")
    trunk, inside, _ = (group.number for group in channel_groups(BLOCKS).groups)
    # Of the trunk: three that write it (with scale and shift), two and the head that read it.
    assert units[trunk] == (27 + 2) + (18 + 2) + (36 + 2) + 18 + 36 - 9 + 7
    assert units[inside] == (36 + 2) + 36
    assert blocks == {3: (72 + 4) + (72 + 8), 5: 144 + 8}


def test_costs_of_the_image_are_no_channels() -> None:
    netdef = net(conv(4))
    costs = GroupCosts(netdef)
    assert costs.count(costs.sizes, "channels") == 4 + 7
    assert costs.by_layer(costs.sizes, "channels") == {0: 4.0, 1: 7.0}
    assert costs.counts(keep_everything(netdef).keep).tolist() == [4, 7]
