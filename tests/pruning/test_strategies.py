"""Do plans cut what their strategies say, as much as asked, and never too much?"""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from import_param import Loss
from models.costs import count_operations, count_parameters
from models.darknet import Darknet
from models.loss import DetectionLoss
from models.netdef import NetDef
from pruning.channels import channel_groups
from pruning.importance import IMPORTANCE, filter_l1, gamma, taylor, uniform
from pruning.residual_blocks import residual_blocks
from pruning.strategies import STRATEGIES
from pruning.surgeon import cut
from pruning.targets import MEASURES, cut_shares, may_cut
from tests.pruning.nets import (
    CONFIGS,
    as_batch,
    config,
    photos,
    pruning_target,
    random_importance,
    random_net,
    trained,
)
from tests.pruning.test_channels import conv, net
from tests.pruning.test_surgeon import CASES
from utils.errors import InputError
from utils.structures import Batch


@pytest.mark.parametrize("percent_of", MEASURES)
@pytest.mark.parametrize(("name", "strategy"), [c for c in CASES if c[1] != "layer"])
def test_what_is_asked_is_met_within_a_point(name: str, strategy: str, percent_of: str) -> None:
    netdef = config(name, thinner=4)
    for percent, round_to in ((0.3, 1), (0.6, 2)):
        asked = pruning_target(percent, percent_of, round_to=round_to)
        plan = STRATEGIES[strategy](netdef, random_importance(netdef), asked)
        reached = getattr(cut_shares(plan, strategy), percent_of)
        assert percent - 1e-9 <= reached <= percent + 0.01


def test_a_wide_step_that_overshoots_is_left_out_for_others() -> None:
    """A step of 32 channels takes 33 % of the operations from the first layer, though worth least,
    and 17 % from the next."""
    netdef = net(conv(64), "[maxpool]\nsize=8\nstride=8\n", conv(64), conv(64), conv(64))
    importance = {0: np.full(64, 0.1), **{n: np.linspace(0.2, 1, 64) for n in (2, 3, 4)}}
    plan = STRATEGIES["slim"](netdef, importance, pruning_target(0.1, "operations", round_to=32))
    assert cut_shares(plan, "slim").operations == pytest.approx(0.17, abs=0.005)


@pytest.mark.parametrize(("name", "strategy"), CASES)
def test_shares_are_what_the_cut_network_lacks(name: str, strategy: str) -> None:
    netdef = config(name, thinner=8)
    model = Darknet(netdef)
    plan = STRATEGIES[strategy](netdef, random_importance(netdef), pruning_target(0.5))
    found, small = cut_shares(plan, strategy), cut(model, plan)
    assert found.parameters == pytest.approx(1 - count_parameters(small) / count_parameters(model))
    operations = count_operations(small.netdef) / count_operations(netdef)
    assert found.operations == pytest.approx(1 - operations)


@pytest.mark.parametrize(("name", "strategy"), CASES)
def test_layers_keep_their_least_and_multiples(name: str, strategy: str) -> None:
    """However much is asked: the rest is reported as not reached."""
    netdef = config(name, thinner=4)
    plan = STRATEGIES[strategy](netdef, random_importance(netdef), pruning_target(0.99, round_to=2))
    channels = channel_groups(netdef)
    for index, section in enumerate(netdef.layers):
        if section.kind == "convolutional" and section.flag("batch_normalize"):
            kept = int(plan.keep[channels.outputs[index]].sum())
            assert kept >= 0.1 * section.integer("filters")
            assert kept % 2 == 0
    if strategy != "layer_channel":  # whole blocks may go as well
        assert cut_shares(plan, strategy).channels <= 0.9


def test_narrow_layers_have_finer_steps_unless_told_otherwise() -> None:
    netdef = config("yolov3-tiny", thinner=2)  # 8, 16, 32, 64, ... channels
    channels = channel_groups(netdef)
    for round_to, least in ((0, [2, 4, 8, 8]), (8, [8, 8, 8, 8])):
        plan = STRATEGIES["slim"](
            netdef, random_importance(netdef), pruning_target(0.99, round_to=round_to)
        )
        assert [plan.keep[channels.outputs[layer]].sum() for layer in (0, 2, 4, 6)] == least


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ties_are_no_trouble(strategy: str) -> None:
    netdef = config("yolov3", thinner=8)
    equal = {index: np.ones_like(values) for index, values in random_importance(netdef).items()}
    plan = STRATEGIES[strategy](netdef, equal, pruning_target(0.5))
    reached = cut_shares(plan, strategy)
    assert (reached.blocks if strategy == "layer" else reached.channels) == pytest.approx(
        0.5, abs=0.03
    )


@settings(max_examples=60, deadline=None)
@given(
    rng=st.randoms(use_true_random=False),
    percent=st.floats(0, 0.99),
    round_to=st.sampled_from([1, 2, 8]),
    keep=st.floats(0, 1),
    measure=st.sampled_from(MEASURES),
)
def test_any_network_is_planned_and_cut(
    rng: random.Random, percent: float, round_to: int, keep: float, measure: str
) -> None:
    """Either a plan that the surgeon takes, or one clear line."""
    netdef = random_net(rng, 20)
    model = Darknet(netdef)
    for name, strategy in STRATEGIES.items():
        try:
            plan = strategy(
                netdef,
                random_importance(netdef),
                pruning_target(percent, measure, layer_keep=keep, round_to=round_to),
            )
        except InputError as error:
            assert "\n" not in str(error) and "expected" in str(error)
            continue
        small = cut(model, plan)
        found = cut_shares(plan, name)
        assert found.parameters == pytest.approx(
            1 - count_parameters(small) / count_parameters(model), abs=1e-9
        )


def test_normal_never_touches_a_chain_and_the_worst_go_first() -> None:
    netdef = config("yolov3", thinner=8)
    importance = random_importance(netdef)
    plan = STRATEGIES["normal"](netdef, importance, pruning_target(0.5))
    channels = channel_groups(netdef)
    dead: list[float] = []
    alive: list[float] = []
    for group in channels.groups:
        keep = plan.keep[group.units]
        if group.added or group.frozen:
            assert keep.all()
            assert not may_cut("normal", group)
            continue
        (member,) = group.members
        values = importance[member.layer][member.positions[:, 0]]
        assert not keep.any() or not (~keep).any() or values[keep].min() >= values[~keep].max()
        dead += values[~keep].tolist()
        floor = keep.sum() <= np.ceil(0.1 * len(keep))
        alive += [] if floor else values[keep].tolist()
    assert max(dead) <= min(alive)


def chain() -> tuple[NetDef, dict[int, np.ndarray]]:
    """Layers 0 and 1 are added; of their ten channels, the first wants 0-4, the second 3-7."""
    netdef = net(conv(10), conv(10), "[shortcut]\nfrom=-2\n")
    wants = {0: np.full(10, 0.1), 1: np.full(10, 0.1)}
    wants[0][:5] = 1
    wants[1][3:8] = 1
    return netdef, wants


def test_slim_keeps_what_any_wants_and_shortcut_what_the_first_wants() -> None:
    netdef, wants = chain()
    slim = STRATEGIES["slim"](netdef, wants, pruning_target(0.2))
    assert slim.keep[3:13].tolist() == [True] * 8 + [False] * 2
    shortcut = STRATEGIES["shortcut"](netdef, wants, pruning_target(0.5))
    assert shortcut.keep[3:13].tolist() == [True] * 5 + [False] * 5
    with pytest.raises(InputError, match=r"'normal' may cut, found none: .*a shortcut adds it"):
        STRATEGIES["normal"](netdef, wants, pruning_target(0.5))


def test_one_layer_that_needs_a_channel_outweighs_two_that_could_do_without() -> None:
    """The largest importance decides, not the mean, which would keep the second channel."""
    netdef = net(conv(2), conv(2), "[shortcut]\nfrom=-2\n")
    importance = {0: np.array([1.0, 0.6]), 1: np.array([0.0, 0.6])}
    for strategy in ("slim", "layer_channel"):
        plan = STRATEGIES[strategy](netdef, importance, pruning_target(0.5, percent_blocks=0.0))
        assert plan.keep[3:5].tolist() == [True, False]


def test_layer_removes_the_least_valuable_blocks() -> None:
    netdef = config("yolov3-mobilenetv2", thinner=8)
    blocks = residual_blocks(netdef)
    importance = dict(random_importance(netdef))
    for rank, block in enumerate(blocks):  # the later, the worse
        (writer,) = block.writers
        importance[writer] = np.full_like(importance[writer], 10.0 - rank)
    plan = STRATEGIES["layer"](netdef, importance, pruning_target(0.3))
    assert plan.keep.all()
    assert list(plan.blocks) == [block.shortcut for block in blocks[-3:]]
    assert cut_shares(plan, "layer").blocks == 0.3
    for percent, count in ((0.0, 0), (0.01, 1)):
        assert len(STRATEGIES["layer"](netdef, importance, pruning_target(percent)).blocks) == count


def nested() -> NetDef:
    """A block (5) with one inside (3), and one after them (7)."""
    return net(
        conv(4),
        conv(4),
        conv(4),
        "[shortcut]\nfrom=1\n",
        conv(4),
        "[shortcut]\nfrom=0\n",
        conv(4),
        "[shortcut]\nfrom=5\n",
    )


def test_a_block_inside_one_that_goes_counts_as_gone() -> None:
    netdef = nested()
    assert [block.shortcut for block in residual_blocks(netdef)] == [3, 5, 7]
    importance = {layer: np.full(4, 1.0 if layer == 4 else 2.0) for layer in (0, 1, 2, 4, 6)}
    plan = STRATEGIES["layer"](netdef, importance, pruning_target(0.6))
    assert plan.blocks == (5,)
    assert cut_shares(plan, "layer").blocks == pytest.approx(2 / 3)


def test_layer_comes_nearest_in_operations() -> None:
    netdef = config("yolov3", thinner=8)
    plan = STRATEGIES["layer"](netdef, random_importance(netdef), pruning_target(0.3, "operations"))
    assert cut_shares(plan, "layer").operations == pytest.approx(0.3, abs=0.03)


def test_layer_channel_does_both() -> None:
    netdef = config("yolov3", thinner=8)
    plan = STRATEGIES["layer_channel"](
        netdef, random_importance(netdef), pruning_target(0.6, percent_blocks=0.5)
    )
    found = cut_shares(plan, "layer_channel")
    assert found.blocks == pytest.approx(0.5, abs=0.03)
    assert found.channels == pytest.approx(0.6, abs=0.01)


def test_channels_that_only_a_removed_block_ties_together_are_still_cut_as_one() -> None:
    """Each half of the trunk is one unit, but without the block (1, 2) each channel is its own."""
    netdef = net(conv(8), conv(8, groups=2), "[shortcut]\nfrom=0\n", conv(8))
    importance = {layer: np.array([3.0, 2, 1, 0] * 2) for layer in (0, 1, 3)}
    plan = STRATEGIES["layer_channel"](
        netdef, importance, pruning_target(0.5, round_to=1, percent_blocks=1.0)
    )
    assert plan.blocks == (2,)
    cut(trained(netdef, 0), plan)


def test_where_nothing_is_left_to_cut_beside_blocks_the_blocks_go() -> None:
    netdef = net(conv(4), conv(6), conv(4), "[shortcut]\nfrom=0\n", "[reorg]\nstride=2\n")
    plan = STRATEGIES["layer_channel"](
        netdef, random_importance(netdef), pruning_target(0.99, "parameters", percent_blocks=1.0)
    )
    assert plan.blocks == (3,)


def test_a_trunk_that_nothing_judges_without_its_block_does_not_count_as_gone() -> None:
    """Layer 1 judges the channels of layer 0, which has no batch normalisation."""
    netdef = net(conv(8, norm=0), conv(8), "[shortcut]\nfrom=0\n", conv(8))
    plan = STRATEGIES["layer_channel"](
        netdef,
        random_importance(netdef),
        pruning_target(0.5, round_to=1, layer_keep=0.25, percent_blocks=1.0),
    )
    assert plan.blocks == (2,)
    assert cut_shares(plan, "layer_channel").channels == pytest.approx(0.5)


@pytest.mark.parametrize("strategy", ["layer", "layer_channel"])
@pytest.mark.parametrize("name", [n for n in CONFIGS if (n, "layer") not in CASES])
def test_without_residual_blocks_one_line_says_so(name: str, strategy: str) -> None:
    netdef = config(name)
    with pytest.raises(
        InputError, match=rf"{name}\.cfg: expected a residual block .* no \[shortcut\]"
    ):
        STRATEGIES[strategy](netdef, random_importance(netdef), pruning_target(0.5))


def labelled(netdef: NetDef, seed: int) -> Batch:
    boxes = torch.tensor([[5.0, 5, 40, 40], [20, 10, 50, 60]])
    batch = as_batch(photos(netdef, 2, seed))
    index = torch.tensor([0, 1])
    return Batch(batch.images, boxes, index, index, ("a", "b"), ((64, 64),) * 2)


def test_taylor_is_the_change_of_the_loss() -> None:
    """Against the loss itself, with one channel's scale and shift a little smaller.

    Without objects, since the loss's slope leaves out that targets follow the predicted boxes.
    """
    netdef = config("yolov3-lite", thinner=8)
    model = trained(netdef, 0).double()
    loss, images = DetectionLoss(model.heads, Loss()), photos(netdef, 2, 1).double()
    none = torch.zeros(0, dtype=torch.long)
    batch = Batch(images, torch.zeros(0, 4), none, none, ("a", "b"), ((64, 64),) * 2)
    found = taylor(model, loss, [batch])
    step = 1e-2  # the loss is taken in float32
    with torch.no_grad():
        for layer, channel in ((0, 1), (4, 2)):
            norm = model.layers[layer].bn
            old = norm.weight[channel].clone(), norm.bias[channel].clone()
            values = []
            for sign in (1, -1):
                norm.weight[channel] = old[0] * (1 + sign * step)
                norm.bias[channel] = old[1] * (1 + sign * step)
                values.append(float(loss(model(batch.images), batch).total))
            norm.weight[channel], norm.bias[channel] = old
            change = (values[0] - values[1]) / (2 * step)
            assert found[layer][channel] == pytest.approx(change**2, rel=0.05)
    assert all(p.grad is None for p in model.parameters())


def test_scores_are_there_for_every_layer_that_has_a_scale() -> None:
    netdef = config("yolov3-mobilenetv2", thinner=16)
    model = trained(netdef, 0)
    loss = DetectionLoss(model.heads, Loss())
    for score, needs_batches in IMPORTANCE.values():
        found = score(model, loss, [labelled(netdef, 0)]) if needs_batches else score(model)
        assert {n: len(v) for n, v in found.items()} == {
            n: len(v) for n, v in random_importance(netdef).items()
        }
        assert all((values >= 0).all() for values in found.values())


def test_gamma_and_l1_do_not_depend_on_a_layers_scale() -> None:
    model = trained(config("yolov3-lite", thinner=8), 0)
    before = gamma(model), filter_l1(model)
    with torch.no_grad():
        model.layers[2].bn.weight *= 7
        model.layers[2].conv.weight *= 3
    after = gamma(model), filter_l1(model)
    for old, new in zip(before, after, strict=True):
        assert all(np.allclose(old[n], new[n], rtol=1e-5) for n in old)


def test_importance_of_a_kernel_and_of_a_place_by_hand() -> None:
    """Four filters whose kernels have the L1 norms 1, 1, 2 and 4, so 22 / 8 is typical of them."""
    model = trained(net(conv(4)), 0)
    kernel = model.state_dict()["layers.0.conv.weight"]
    kernel /= kernel.abs().sum((1, 2, 3), keepdim=True)
    kernel *= torch.tensor([1.0, 1, 2, 4])[:, None, None, None]
    assert filter_l1(model)[0] == pytest.approx(np.array([1, 1, 2, 4]) * 8 / 22)
    assert uniform(model)[0].tolist() == [1, 0.75, 0.5, 0.25]


def test_taylor_is_a_mean_over_batches() -> None:
    model = trained(config("yolov3-lite", thinner=8), 0)
    loss, batches = DetectionLoss(model.heads, Loss()), [labelled(model.netdef, n) for n in (0, 1)]
    first, second, both = (
        taylor(model, loss, some) for some in (batches[:1], batches[1:], batches)
    )
    assert all(both[n] == pytest.approx((first[n] + second[n]) / 2, rel=1e-4) for n in both)
    assert not any(values.any() for values in taylor(model, loss, []).values())


def test_a_batch_without_a_finite_loss_is_left_out_and_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = trained(config("yolov3-lite", thinner=8), 0)
    loss, good = DetectionLoss(model.heads, Loss()), labelled(model.netdef, 0)
    bad = replace(good, images=good.images * math.nan)
    alone, beside = (taylor(model, loss, batches) for batches in ([good], [bad, good, bad]))
    assert all((alone[n] == beside[n]).all() for n in alone)
    assert "the loss of 2 of 3 batches is not a finite number: left out" in capsys.readouterr().out
    with pytest.raises(InputError, match="the loss of 1 of 1 batches is not a finite number"):
        taylor(model, loss, [bad])


def test_weights_that_are_no_numbers_are_refused() -> None:
    model = trained(config("yolov3-lite", thinner=8), 0)
    with torch.no_grad():
        model.layers[2].bn.weight[0] = float("nan")
    with pytest.raises(InputError, match="its channels' importance is not a finite"):
        gamma(model)
