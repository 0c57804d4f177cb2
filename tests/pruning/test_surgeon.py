"""Does a cut network compute what the whole one computes without the channels and blocks?"""

import copy
import functools
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from import_param import Nms, Pruning, TrainedNetwork
from models import netdef as cfg_files
from models.costs import count_parameters
from models.darknet import Darknet
from models.head import decode
from models.netdef import NetDef, parse
from pruning.channels import Bools, channel_groups
from pruning.importance import gamma
from pruning.residual_blocks import residual_blocks, without_blocks
from pruning.strategies import STRATEGIES
from pruning.surgeon import Plan, carry_optimizer_, cut, keep_everything, masked, transfer
from tests.pruning.nets import (
    CONFIGS,
    config,
    error,
    forward_padding_constants,
    hush_,
    photos,
    pruning_target,
    random_importance,
    random_net,
    random_plan,
    trained,
)
from tests.pruning.test_channels import conv, net
from utils.boxes import network_input
from utils.checkpoint.darknet_files import write_pair
from utils.checkpoint.network import load_network
from utils.evaluation.nms import non_maximum_suppression
from utils.images import read_image

seeds = st.randoms(use_true_random=False)
RESIDUAL = [name for name in CONFIGS if "shortcut" in {s.kind for s in config(name).layers}]
CASES = [
    (name, strategy)
    for name in CONFIGS
    for strategy in STRATEGIES
    if name in RESIDUAL or "layer" not in strategy
]
PLAIN = """[net]
width=32
height=32
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=6
size=3
pad=1
activation=mish
[convolutional]
filters=7
size=3
pad=1
activation=linear
[yolo]
anchors=8,8
classes=2
"""


@torch.no_grad()
def compare(model: Darknet, plan: Plan, tolerance: float) -> None:
    """Cut against masked, with any shifts where dead channels are padded with what they emit, and
    in a plain forward pass where their shifts are zero."""
    images = photos(model.netdef).to(next(model.parameters()).dtype)
    wanted = forward_padding_constants(masked(model, plan), images, plan.keep)
    assert error(cut(model, plan)(images), wanted) < tolerance
    hush_(model, plan.keep)
    assert error(cut(model, plan)(images), masked(model, plan)(images)) < tolerance


@functools.cache
def thin(name: str, seed: int) -> Darknet:
    """One of config/ with an eighth of the channels; not to be changed."""
    return trained(config(name, thinner=8), seed)


def check_cut(model: Darknet, strategy: str, target: Pruning, tolerance: float) -> None:
    compare(model, STRATEGIES[strategy](model.netdef, gamma(model), target), tolerance)


@pytest.mark.parametrize(("name", "strategy"), CASES)
def test_the_cut_is_the_mask(name: str, strategy: str) -> None:
    """Every strategy on every cfg, made thinner."""
    check_cut(copy.deepcopy(thin(name, 0)), strategy, pruning_target(0.6, round_to=2), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("name", "strategy"), CASES)
def test_the_cut_is_the_mask_whatever_the_weights(name: str, strategy: str, seed: int) -> None:
    target = pruning_target(
        (0.3, 0.5, 0.8)[seed - 1], ("parameters", "operations", "channels")[seed - 1]
    )
    check_cut(copy.deepcopy(thin(name, seed)).double(), strategy, target, 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "strategy"), CASES)
def test_the_cut_is_the_mask_at_full_width(name: str, strategy: str) -> None:
    check_cut(trained(config(name), 0), strategy, pruning_target(0.6), 1e-5)


@torch.no_grad()
def compare_any(rng: random.Random, most: int) -> None:
    netdef = random_net(rng, most)
    model = trained(netdef, rng.randrange(1000)).double()
    plan = random_plan(netdef, rng)
    images = photos(netdef).double()
    wanted = forward_padding_constants(masked(model, plan), images, plan.keep)
    assert error(cut(model, plan)(images), wanted) < 1e-9


@settings(max_examples=50, deadline=None)
@given(rng=seeds)
def test_any_legal_network_is_cut_as_it_is_masked(rng: random.Random) -> None:
    compare_any(rng, most=14)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(rng=seeds)
def test_any_large_legal_network_is_cut_as_it_is_masked(rng: random.Random) -> None:
    compare_any(rng, most=40)


@torch.no_grad()
def test_where_shifts_are_not_zero_the_border_alone_differs() -> None:
    """Zeros are padded, not the constant: each layer that reads it is off by one pixel more."""
    netdef = parse(PLAIN)
    model = trained(netdef, 3)
    keep = np.ones(channel_groups(netdef).count, bool)
    keep[[3, 4, 5, 12, 14]] = False  # of both convolutions
    plan = Plan(netdef, keep)
    images = photos(netdef)
    (got,), (wanted,) = cut(model, plan)(images), masked(model, plan)(images)
    inside = (..., slice(2, -2), slice(2, -2))
    assert error([got[inside]], [wanted[inside]]) < 1e-5
    assert error([got], [wanted]) > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("name", RESIDUAL)
def test_removing_blocks_is_zeroing_their_branches(name: str) -> None:
    netdef = config(name, thinner=8)
    model, images = trained(netdef, 1), photos(netdef)
    blocks = [block.shortcut for block in residual_blocks(netdef)]
    for chosen in (blocks[:1], blocks[::2], blocks):
        plan = Plan(netdef, keep_everything(netdef).keep, tuple(chosen))
        small = cut(model, plan)
        assert len(small.layers) < len(model.layers)
        for got, wanted in zip(small(images), masked(model, plan)(images), strict=True):
            assert torch.equal(got, wanted)


@settings(max_examples=25, deadline=None)
@given(rng=seeds)
def test_a_plan_that_keeps_everything_changes_nothing(rng: random.Random) -> None:
    netdef = random_net(rng)
    model = trained(netdef, 0)
    same = cut(model, keep_everything(netdef))
    assert same.netdef == netdef
    before, after = model.state_dict(), same.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    pointers = {tensor.data_ptr() for tensor in before.values()}
    assert not pointers & {tensor.data_ptr() for tensor in after.values()}


def over_layers(joint: dict[int, Bools], first: dict[int, Bools]) -> dict[int, Bools]:
    """By layer, of the channels that the first cut left, those that are left in the end."""
    return {layer: joint[layer][kept] for layer, kept in first.items()}


def planned(netdef: NetDef, kept: dict[int, Bools]) -> Plan:
    """The plan that keeps these channels of each layer."""
    channels = channel_groups(netdef)
    keep = np.ones(channels.count, bool)
    for layer, mask in kept.items():
        keep[channels.outputs[layer]] = mask
    return Plan(netdef, keep)


@settings(max_examples=40, deadline=None)
@given(rng=seeds)
def test_cutting_twice_is_cutting_once(rng: random.Random) -> None:
    netdef = random_net(rng)
    model = trained(netdef, 5).double()
    first = random_plan(netdef, rng, with_blocks=False)
    once = cut(model, first)
    joint = random_plan(netdef, rng, with_blocks=False).keep & first.keep
    for group in channel_groups(netdef).groups:  # nothing may be left empty
        joint[group.units[first.keep[group.units]][0]] = True
    second = over_layers(
        channel_groups(netdef).layer_masks(joint), channel_groups(netdef).layer_masks(first.keep)
    )
    together, twice = cut(model, Plan(netdef, joint)), cut(once, planned(once.netdef, second))
    assert together.netdef == twice.netdef
    for a, b in zip(together.state_dict().values(), twice.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", RESIDUAL)
def test_blocks_and_then_channels_is_both_at_once(name: str) -> None:
    netdef = config(name, thinner=8)
    model = trained(netdef, 2).double()
    plan = STRATEGIES["layer_channel"](netdef, gamma(model), pruning_target(0.6))
    assert plan.blocks
    first = cut(model, Plan(netdef, keep_everything(netdef).keep, plan.blocks))
    _, moved = without_blocks(netdef, plan.blocks)
    kept = channel_groups(netdef).layer_masks(plan.keep)
    second = planned(first.netdef, {new: kept[old] for old, new in moved.items()})
    together, twice = cut(model, plan), cut(first, second)
    assert together.netdef == twice.netdef
    for a, b in zip(together.state_dict().values(), twice.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_illegal_plans_are_refused() -> None:
    model = trained(parse(PLAIN), 0)
    channels = channel_groups(model.netdef)
    keep = np.ones(channels.count, bool)
    cases = (
        (2, r"a \[yolo\], reads it"),
        (0, "no channel of layer 0"),
        (-1, "no channel of layer -1"),
    )
    for layer, message in cases:
        bad = keep.copy()
        bad[channels.outputs[layer]] = False
        with pytest.raises(ValueError, match=message):
            cut(model, Plan(model.netdef, bad))
    with pytest.raises(ValueError, match="mask"):
        cut(model, Plan(model.netdef, keep[1:]))
    with pytest.raises(ValueError, match="layer 1 is no shortcut"):
        cut(model, Plan(model.netdef, keep, (1,)))


def test_a_plan_for_another_network_is_refused() -> None:
    """Both have 24 units, so the mask alone would fit."""
    here, there = net(conv(8), conv(16)), net(conv(16), conv(8))
    plan = STRATEGIES["slim"](here, random_importance(here), pruning_target(0.5))
    for use in (cut, masked):
        with pytest.raises(ValueError, match="the plan was made for"):
            use(trained(there, 0), plan)
    deeper = there.with_net_options(channels=1)
    with pytest.raises(ValueError, match="the plan was made for"):
        cut(
            trained(deeper, 0),
            STRATEGIES["slim"](there, random_importance(there), pruning_target(0.5)),
        )
    copied = parse(here.text())
    assert cut(trained(copied, 0), plan).netdef.layers[0].integer("filters") < 8


def test_the_whole_network_is_left_alone_and_modes_are_kept() -> None:
    netdef = config("yolov3-mobilenetv2", thinner=8)
    model = trained(netdef, 0).train()
    model.layers[0].requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = cut(model, random_plan(netdef, random.Random(0)))
    assert small.training
    assert [p.requires_grad for p in small.layers[0].parameters()] == [False] * 3
    assert all(p.requires_grad for p in small.layers[1].parameters())
    assert count_parameters(small) < count_parameters(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_the_state_of_training_goes_along(kind: type) -> None:
    """Momentum and the like of a channel that stays are what they were; training goes on."""
    netdef = config("yolov3-mobilenetv2", thinner=16)
    model = trained(netdef, 0).train().to(memory_format=torch.channels_last)
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    old = kind(model.parameters(), lr=1e-3, **options)
    sum(m.square().mean() for m in model(photos(netdef, 4))).backward()
    old.step()
    old.param_groups[0]["lr"] = 5e-4
    plan = random_plan(netdef, random.Random(1))
    assert plan.blocks
    small = cut(model, plan).to(memory_format=torch.channels_last)
    new = kind(small.parameters(), lr=1.0, **options)
    mover = transfer(plan)
    carry_optimizer_(new, small, old, model, mover)
    trained_now = {id(p) for group in new.param_groups for p in group["params"]}
    assert trained_now == {id(p) for p in small.parameters()}
    assert new.param_groups[0]["lr"] == 5e-4
    key = "momentum_buffer" if kind is torch.optim.SGD else "exp_avg"
    parameters, smaller = dict(model.named_parameters()), dict(small.named_parameters())
    kept = channel_groups(netdef).layer_masks(plan.keep)
    for name, parameter in parameters.items():
        if name not in mover.names:
            continue  # in a block that went
        mine, theirs = new.state[smaller[mover.names[name]]], old.state[parameter]
        mask = torch.from_numpy(kept[int(name.split(".")[1])])
        if parameter.ndim == 1:
            assert torch.equal(mine[key], theirs[key][mask])
        assert mine[key].shape == smaller[mover.names[name]].shape
        assert mine.get("step") == theirs.get("step")
        # Or a fused optimizer would give each filter another one's momentum.
        assert mine[key].stride() == smaller[mover.names[name]].stride()
    sum(m.square().mean() for m in small(photos(netdef, 4))).backward()
    new.step()


def opencv_maps(cfg: Path, weights: Path, images: Tensor) -> list[Tensor]:
    """The raw maps that OpenCV computes from a pair."""
    network = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    network.setInput(images.numpy())
    heads = cfg_files.load(cfg).heads
    return [torch.from_numpy(m) for m in network.forward([f"conv_{index - 1}" for index in heads])]


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("name", ["yolov3-tiny", "yolov3-mobilenetv2"])
def test_opencv_reads_the_cut_pair(name: str, classes: int, tmp_path: Path) -> None:
    netdef = config(name, thinner=4).with_classes(classes)
    model = trained(netdef, 0)
    strategy = "slim" if name == "yolov3-tiny" else "layer_channel"
    small = cut(model, STRATEGIES[strategy](netdef, gamma(model), pruning_target(0.5)))
    cfg, weights = write_pair(tmp_path / "pruned", small, small.netdef, ("a", "b")[:classes])
    images = photos(netdef, 1)
    opened = load_network(TrainedNetwork(weights=str(weights), device="cpu")).model
    assert opened.netdef == small.netdef
    with torch.no_grad():
        assert error(opencv_maps(cfg, weights, images), opened(images)) < 1e-4


@pytest.mark.parametrize("name", ["yolov3-tiny", "mobilenetv2-nano"])
def test_opencv_finds_the_same_with_a_cut_real_network(
    name: str, shared: Path, tmp_path: Path
) -> None:
    """Boxes, scores and classes on the shared photos, whatever the cut has made of them."""
    weights = next((shared / "weights" / name).glob("*.weights"))
    network = load_network(TrainedNetwork(weights=str(weights), device="cpu"))
    model = network.model
    plan = STRATEGIES["slim"](model.netdef, gamma(model), pruning_target(0.1))
    small = cut(model, plan)
    pair = write_pair(tmp_path / "pruned", small, small.netdef, network.names)
    for path in sorted((shared / "photos").glob("*.jpg")):
        images = network_input(read_image(path), network.size, False)[None]
        with torch.no_grad():
            ours, theirs = small(images), opencv_maps(*pair, images)
        assert error(theirs, ours) < 1e-4
        (a,), (b,) = (
            non_maximum_suppression(decode(maps, small.heads, network.size), Nms(0.01, 0.45, 100))
            for maps in (ours, theirs)
        )
        assert torch.equal(a.labels, b.labels) and len(a)
        torch.testing.assert_close(a.boxes, b.boxes, rtol=0, atol=0.1)
        torch.testing.assert_close(a.scores, b.scores, rtol=0, atol=1e-3)


NETS = (
    "yolov3-tiny/yolov3-tiny",
    "yolo-fastest-1.1/yolo-fastest-1.1",
    "mobilenetv2-nano/MobileNetV2-YOLOv3-Nano-coco",
    "yoloface-50k/yoloface-50k",
)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", NETS)
def test_shared_networks_are_cut_as_they_are_masked(name: str, strategy: str, shared: Path) -> None:
    model = load_network(
        TrainedNetwork(weights=str(shared / f"weights/{name}.weights"), device="cpu")
    ).model
    if "layer" in strategy and not residual_blocks(model.netdef):
        pytest.skip("it has no residual block")
    plan = STRATEGIES[strategy](model.netdef, gamma(model), pruning_target(0.4))
    images = photos(model.netdef.with_net_options(width=64, height=64)).double()
    with torch.no_grad():
        wanted = forward_padding_constants(masked(model.double(), plan), images, plan.keep)
        assert error(cut(model, plan)(images), wanted) < 1e-9
