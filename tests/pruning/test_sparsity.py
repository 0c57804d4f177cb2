"""Is the right thing shrunk to zero, once a step, and together with what must die with it?"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from import_param import Sparsity, Training, TrainSettings
from models.blocks import Convolution
from models.darknet import Darknet
from models.netdef import NetDef, parse
from pruning.channels import channel_groups
from pruning.sparsity import DEAD, SparsityPenalty, equalise_, near_zero, penalty_groups
from pruning.targets import Measure, may_cut
from tests.operators import Calls
from tests.pruning.nets import config, photos, trained
from tests.pruning.scales import read, size
from utils.errors import InputError
from utils.structures import Batch
from utils.training.loop import Trainer, TrainerFactory, train_one_epoch
from utils.training.optimizer import SCALES, make_optimizer

# A stem, a block on it whose inside is a depthwise convolution, a plain layer, a head.
BLOCK = """
[net]
width=32
height=32
channels=3
[convolutional]
batch_normalize=1
filters=4
size=3
stride=8
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=6
size=1
activation=leaky
[convolutional]
batch_normalize=1
filters=6
groups=6
size=3
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=4
size=1
activation=linear
[shortcut]
from=-4
activation=linear
[convolutional]
batch_normalize=1
filters=8
size=3
pad=1
activation=leaky
[convolutional]
filters=7
size=1
activation=linear
[yolo]
anchors=8,8
classes=2
"""
STEPS = 10


def network(seed: int = 0) -> Darknet:
    return trained(parse(BLOCK), seed).train()


def scales(model: Darknet, layer: int, what: str = "weight") -> Tensor:
    convolution = model.layers[layer]
    assert isinstance(convolution, Convolution)
    parameter: Tensor = getattr(convolution.bn, what)
    return parameter


def penalty_of(
    model: Darknet, strategy: str = "slim", rate: float = 1.0, **more: Any
) -> SparsityPenalty:
    settings = Sparsity(is_pruned=True, sparse_rate=rate, **more)
    return SparsityPenalty.of(model, settings, strategy, STEPS)


def sgd(lr: float, momentum: float = 0.0) -> torch.optim.Optimizer:
    """An optimizer whose step for a gradient of 1 is lr / (1 - momentum)."""
    settings = Training(optimizer="sgd", lr=lr, momentum=momentum)
    return make_optimizer(nn.BatchNorm2d(1), settings, scale_lr=lr)


def set_(model: Darknet, values: dict[int, list[float]], what: str = "weight") -> None:
    with torch.no_grad():
        for layer, numbers in values.items():
            scales(model, layer, what)[:] = torch.tensor(numbers)


@pytest.mark.parametrize(
    ("strategy", "layers"),
    [
        ("normal", [[2], [5]]),
        ("slim", [[0, 3], [2], [5]]),
        ("shortcut", [[0, 3], [2], [5]]),
        ("layer_channel", [[0, 3], [2], [5]]),
        ("layer", [[3]]),
    ],
)
def test_only_what_a_strategy_may_cut_is_shrunk(strategy: str, layers: list[list[int]]) -> None:
    groups = penalty_groups(parse(BLOCK), strategy)
    assert sorted([layer for layer, _ in group.penalized] for group in groups) == layers
    model = network()
    before = {n: scales(model, n).clone() for n in (0, 1, 2, 3, 5)}
    penalty_of(model, strategy, rate=0.01).shrink_(0, sgd(1.0))
    shrunk = {layer for together in layers for layer in together}
    for layer, old in before.items():
        now = scales(model, layer)
        assert (now.abs() < old.abs()).all() if layer in shrunk else torch.equal(now, old)


@pytest.mark.parametrize("name", ["yolov3-tiny", "yolov3-mobilenetv2"])
@pytest.mark.parametrize("strategy", ["normal", "slim"])
def test_every_channel_that_may_be_cut_is_penalized_once(name: str, strategy: str) -> None:
    netdef = config(name, thinner=16)
    channels = channel_groups(netdef)
    places: list[tuple[int, int]] = []
    for group in penalty_groups(netdef, strategy):
        for layer, positions in (*group.penalized, *group.followers):
            places += [(layer, position) for position in positions.flatten().tolist()]
    wanted = [
        (member.layer, position)
        for group in channels.groups
        if may_cut(strategy, group)
        for member in group.members
        for position in member.positions.flatten().tolist()
    ]
    assert sorted(places) == sorted(wanted)


def test_the_threshold_is_exact_and_what_is_below_is_zero() -> None:
    model = network()
    values = [0.5, -0.5, 0.1, -0.1, 0.2, -0.3, 1.0, 0.0]
    set_(model, {5: values})
    penalty_of(model, rate=2.0).shrink_(0, sgd(0.1))
    wanted = torch.tensor([0.3, -0.3, 0, 0, 0, -0.1, 0.8, 0])
    torch.testing.assert_close(scales(model, 5).detach(), wanted)
    assert (scales(model, 5) == 0).tolist() == (wanted == 0).tolist()


def test_the_threshold_goes_as_far_as_the_optimizer_would() -> None:
    """In AdamW's metric: further where gradients are small, but never more than a whole step."""
    model = network()
    optimizer = make_optimizer(model, Training(lr=0.01, momentum=0.9), scale_lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    set_(model, {5: [1.0] * 8})
    scales(model, 5).grad = torch.tensor([1.0, 2, 4, 8, 0.1, 0.01, 0, 0])
    optimizer.step()
    before = scales(model, 5).detach().clone()
    penalty_of(model, "normal", rate=0.5).shrink_(0, optimizer)
    moved = before - scales(model, 5).detach()
    steps = torch.tensor([0.5, 0.25, 0.125, 0.0625, 1, 1, 1, 1])
    torch.testing.assert_close(moved, 0.1 * steps, rtol=1e-3, atol=1e-6)
    model = network()
    set_(model, {5: [1.0] * 8})
    penalty_of(model, "normal", rate=0.5).shrink_(0, sgd(0.1, momentum=0.75))
    assert scales(model, 5).tolist() == pytest.approx([0.8] * 8)


def test_settling_keeps_both_networks_and_their_zeros() -> None:
    model, averaged = network(0).eval(), network(1).eval()
    set_(model, {5: [0.1, 0.2, 1, 1, 1, 1, 1, 1]})
    sparsity = penalty_of(model, rate=0.5)
    sparsity.shrink_(0, sgd(1.0))
    sparsity.keep_zeros_(averaged)
    images = photos(model.netdef)
    with torch.no_grad():
        before = [model(images)[0], averaged(images)[0]]
        zeros = [scales(model, 5) == 0, scales(averaged, 5) == 0]
        sparsity.settle_(averaged)
        torch.testing.assert_close(model(images)[0], before[0], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(averaged(images)[0], before[1], rtol=1e-3, atol=1e-3)
    assert torch.equal(scales(model, 5) == 0, zeros[0]) and zeros[0].any()
    assert torch.equal(scales(averaged, 5) == 0, zeros[1])


def test_coupled_channels_shrink_by_one_factor_and_die_together() -> None:
    model = network()
    set_(model, {0: [0.6, 0.03, 0.3, 0.0], 3: [-0.8, 0.04, 0.4, 0.5]})
    before = torch.stack([scales(model, 0), scales(model, 3)]).detach().clone()
    penalty_of(model, rate=0.1).shrink_(0, sgd(1.0))
    after = torch.stack([scales(model, 0), scales(model, 3)]).detach()
    left = 1 - 0.1 / before.square().mean(0).sqrt()
    torch.testing.assert_close(after, before * left.clamp(min=0))
    assert after[:, 1].tolist() == [0, 0]  # each alone is below the threshold, and so are both
    assert (after[:, 0] != 0).all() and after[1, 3] != 0


def test_members_of_a_unit_never_die_alone() -> None:
    """Shrunk step by step against noise, scales of a shortcut's two layers reach zero at once."""
    model, generator = network(), torch.Generator().manual_seed(0)
    sparsity = penalty_of(model, rate=0.3)
    for step in range(60):
        with torch.no_grad():
            for layer in (0, 3):
                scales(model, layer).add_(0.02 * torch.randn(4, generator=generator))
        sparsity.shrink_(step, sgd(0.1))
        assert torch.equal(scales(model, 0) == 0, scales(model, 3) == 0)
    assert (scales(model, 0) == 0).any()


def test_what_a_depthwise_convolution_reads_dies_with_it() -> None:
    model = network()
    set_(model, {2: [0.05, 0.05, 1, 1, 1, 1]})
    penalty_of(model, rate=0.1).shrink_(0, sgd(1.0))
    for what in ("weight", "bias"):
        assert (scales(model, 1, what) == 0).tolist() == [True, True, *[False] * 4]


def test_the_subgradient_is_the_penaltys() -> None:
    model = network()
    sparsity = penalty_of(model, rate=0.7, sparse_step="subgradient")
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    sparsity.add_gradient_(0)
    coupled = torch.stack([scales(model, 0), scales(model, 3)])
    penalty = 2**0.5 * coupled.norm(dim=0).sum() + scales(model, 2).abs().sum()
    penalty = 0.7 * (penalty + scales(model, 5).abs().sum())
    wanted = torch.autograd.grad(penalty, [scales(model, n) for n in (0, 2, 3, 5)])
    for layer, gradient in zip((0, 2, 3, 5), wanted, strict=True):
        torch.testing.assert_close(scales(model, layer).grad, gradient)
    assert not scales(model, 1).grad.any()
    untouched = [p for n, p in model.named_parameters() if not n.endswith("bn.weight")]
    assert not any(p.grad.any() for p in untouched)
    before = scales(model, 5).detach().clone()
    sparsity.shrink_(0, sgd(1.0))
    assert torch.equal(scales(model, 5), before)


@pytest.mark.parametrize("measure", ["parameters", "operations"])
def test_a_unit_pays_for_what_goes_with_it(measure: Measure) -> None:
    netdef = parse(BLOCK)
    groups = penalty_groups(netdef, "slim", measure)
    assert sum(len(b) * b.cost for b in groups) == pytest.approx(sum(len(b) for b in groups))
    # Kernel values that go, all on maps of one size: of what writes a channel, and what reads it.
    weights = {(0, 3): 27 + 6 + 6 + 9 * 8, (2,): 4 + 9 + 4, (5,): 9 * 4 + 7}
    norms = {(0, 3): 4, (2,): 4, (5,): 2} if measure == "parameters" else dict.fromkeys(weights, 0)
    shrunk = [tuple(layer for layer, _ in group.penalized) for group in groups]
    costs = [weights[layers] + norms[layers] for layers in shrunk]
    ratios = [group.cost / cost for group, cost in zip(groups, costs, strict=True)]
    assert ratios == pytest.approx([ratios[0]] * len(weights))


def test_the_threshold_grows_with_the_price() -> None:
    model = network()
    penalty = penalty_of(model, sparse_by="operations")
    set_(model, {0: [1.0] * 4, 3: [1.0] * 4, 2: [1.0] * 6, 5: [1.0] * 8})
    penalty.shrink_(0, sgd(lr=0.1))
    for group in penalty.groups:
        left = torch.full((len(group),), 1 - 0.1 * group.cost).clamp(min=0)
        torch.testing.assert_close(size(read(model, group.penalized)), left)


@pytest.mark.parametrize(
    ("decay", "early", "late"),
    [("constant", 8, 8), ("global", 8, 0), ("local", 8, 6)],
)
def test_the_penalty_is_let_go_after_half(decay: str, early: int, late: int) -> None:
    """How many of eight scales move by the full threshold: two of 14 are the largest 15 %."""
    for step, wanted in ((STEPS // 2 - 1, early), (STEPS // 2, late)):
        model = network()
        set_(model, {2: [0.4] * 6, 5: [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 30.0, 40.0]})
        before = scales(model, 5).detach().clone()
        penalty_of(model, "normal", rate=0.1, sparse_decay=decay).shrink_(step, sgd(1.0))
        moved = before - scales(model, 5).detach()
        assert int((moved > 0.09).sum()) == wanted
        assert moved[moved < 0.09].tolist() == pytest.approx([0.1 / 100] * (8 - wanted), rel=0.02)


def test_shifts_of_the_dying_come_to_exact_zero_and_others_stay() -> None:
    model = network()
    set_(model, {5: [0.0, DEAD / 2, 0.5, 1, 1, 1, 1, 1]})
    set_(model, {5: [1.0] * 8}, "bias")
    sparsity = penalty_of(model, rate=0.0)
    seen = []
    for step in range(200):
        sparsity.shrink_(step, sgd(1e-3))
        seen.append(scales(model, 5, "bias").detach().clone())
    assert (seen[0][:2] < 1).all() and (seen[0][:2] > 0.9).all()
    assert seen[-1].tolist() == [0, 0, *[1.0] * 6]


def test_the_running_mean_keeps_zeros_and_nothing_else_changes() -> None:
    model, averaged = network(0), network(1)
    set_(model, {5: [0.1, 0.2, 1, 1, 1, 1, 1, 1]})
    sparsity = penalty_of(model, rate=0.3)
    sparsity.shrink_(0, sgd(1.0))
    before = copy.deepcopy(averaged.state_dict())
    sparsity.keep_zeros_(averaged)
    alive = 0
    for group in sparsity.groups:
        dead = size(read(model, group.penalized)) == 0
        alive += int((~dead).sum())
        assert torch.equal(size(read(averaged, group.penalized)) == 0, dead)
        assert torch.equal(
            read(averaged, group.penalized, "bias")[dead],
            read(model, group.penalized, "bias")[dead],
        )
    assert alive and not torch.equal(before["layers.5.bn.weight"], scales(averaged, 5))
    changed = {n for n, t in averaged.state_dict().items() if not torch.equal(t, before[n])}
    assert all(".bn.weight" in name or ".bn.bias" in name for name in changed)


def test_figures_are_those_of_the_sets() -> None:
    model = network()
    ones = [1.0] * 6
    set_(model, {0: [0, 0, 1, 1], 1: ones, 2: ones, 3: [0, 0.005, 1, 1], 5: [0.05] * 8})
    figures = penalty_of(model).figures()
    assert figures["sparsity/below 0.01"] == pytest.approx(2 / 18)
    assert figures["sparsity/below 0.1"] == pytest.approx(10 / 18)
    assert penalty_of(model).dead == pytest.approx(2 / 18)
    assert figures["scales/60 %"] == 1 and figures["scales/50 %"] == pytest.approx(0.05)
    assert [name for name in figures if "%" in name] == [f"scales/{n}0 %" for n in range(1, 10)]
    assert near_zero(model) == {0: 0.5, 1: 0, 2: 0, 3: 0.5, 5: 0}


@pytest.mark.parametrize("netdef", [config("yolov3-tiny", thinner=16), parse(BLOCK)])
def test_equalising_changes_sizes_and_not_the_network(netdef: NetDef) -> None:
    model = trained(netdef, 3).double()
    images = photos(model.netdef).double()
    kernels = [layer.conv.weight.norm() for layer in model.layers if isinstance(layer, Convolution)]
    before = [raw.detach() for raw in model(images)]
    equalise_(model)
    for raw, old in zip(model(images), before, strict=True):
        torch.testing.assert_close(raw, old, rtol=1e-3, atol=1e-3)
    layers = [layer for layer in model.layers if isinstance(layer, Convolution)]
    for layer, norm in zip(layers, kernels, strict=True):
        if layer.bn:
            gamma = layer.bn.weight.detach().abs()
            assert 0.5 < float(gamma.square().sum() / gamma.sum()) < 2
            assert layer.conv.weight.norm().item() == pytest.approx(norm.item())


def test_kernels_of_zeros_stay_zeros() -> None:
    model = network()
    with torch.no_grad():
        model.layers[5].conv.weight.zero_()
    equalise_(model)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_frozen_layers_are_not_shrunk() -> None:
    model = network()
    model.layers[5].requires_grad_(False)
    shrunk = {layer for group in penalty_of(model).groups for layer, _ in group.penalized}
    assert shrunk == {0, 2, 3}
    model.layers[0].requires_grad_(False)  # coupled with layer 3, which could not shrink alone
    shrunk = {layer for group in penalty_of(model).groups for layer, _ in group.penalized}
    assert shrunk == {2}
    model = network()
    model.layers[1].requires_grad_(False)  # it only means something to the layer after it
    before = [scales(model, 1, what).clone() for what in ("weight", "bias")]
    sparsity = penalty_of(model, rate=9.0)
    sparsity.shrink_(0, sgd(1.0))
    sparsity.keep_zeros_(network(1))
    assert not scales(model, 2).any()
    assert all(map(torch.equal, before, (scales(model, 1), scales(model, 1, "bias"))))
    model.requires_grad_(False)
    with pytest.raises(InputError, match=r"freeze: .*pruned_id='slim'"):
        penalty_of(model)


def test_a_network_with_nothing_to_cut_is_one_line() -> None:
    head_only = (
        "[net]"
        + BLOCK.split("[net]")[1].split("[convolutional]")[0]
        + "".join("[convolutional]" + part for part in BLOCK.split("[convolutional]")[-1:])
    )
    with pytest.raises(InputError, match="pruned_id='slim': the network has nothing"):
        penalty_groups(parse(head_only), "slim")
    with pytest.raises(InputError, match="residual block"):
        penalty_groups(config("yolov3-tiny", thinner=16), "layer")


def trainer(
    folder: Path,
    accumulate: int,
    rate: float,
    kind: Literal["adamw", "sgd"] = "sgd",
    model: Darknet | None = None,
    sparse_step: Literal["proximal", "subgradient"] = "proximal",
) -> Trainer:
    torch.manual_seed(0)
    model = model or Darknet(parse(BLOCK))
    settings = Training(
        epochs=1,
        accumulate=accumulate,
        optimizer=kind,
        lr=0.01,
        final_lr=1.0,
        warmup_epochs=0.0,
        momentum=0.0,
        weight_decay=0.0,
        clip=1e-3,
    )
    make_trainer = TrainerFactory(TrainSettings(training=settings), STEPS, folder)
    penalty = penalty_of(model, rate=rate, sparse_step=sparse_step) if rate else None
    return make_trainer(model, penalty, scale_lr=0.1)


def batches(netdef: NetDef, count: int) -> list[Batch]:
    boxes, labels = torch.tensor([[4.0, 4, 14, 12], [10, 8, 30, 28]]), torch.tensor([0, 1])
    where = torch.tensor([0, 1])
    return [
        Batch(photos(netdef, 2, seed), boxes, labels, where, ("a", "b"), ((32, 32),) * 2)
        for seed in range(count)
    ]


def test_a_layer_that_no_head_depends_on_dies(tmp_path: Path) -> None:
    idle = "[convolutional]\nbatch_normalize=1\nfilters=5\nactivation=leaky\n[route]\nlayers=-2\n"
    last = BLOCK.rindex("[convolutional]")
    model = Darknet(parse(BLOCK[:last] + idle + BLOCK[last:]))
    train = trainer(tmp_path, 1, rate=1e-6, kind="adamw", model=model)
    train_one_epoch(train, batches(train.model.netdef, 4), 4, "")
    assert scales(model, 6).tolist() == pytest.approx([1 - 4 * 0.1] * 5)  # by whole steps of lr


@pytest.mark.parametrize("sparse_step", ["proximal", "subgradient"])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_the_penalty_acts_once_a_step_after_clipping(
    tmp_path: Path, accumulate: int, sparse_step: Literal["proximal", "subgradient"]
) -> None:
    """Four batches. Gradients are clipped to nearly nothing, so the scales move by the penalty."""
    train = trainer(tmp_path, accumulate, rate=0.5, sparse_step=sparse_step)
    before = scales(train.model, 5).detach().clone()
    train_one_epoch(train, batches(train.model.netdef, 4), 4, "")
    steps = 4 // accumulate
    lr = train.optimizer.param_groups[SCALES]["lr"]
    assert lr == pytest.approx(0.1)
    wanted = before - steps * 0.5 * lr
    torch.testing.assert_close(scales(train.model, 5).detach(), wanted, rtol=0, atol=2e-3)


def test_zeros_of_a_training_are_zeros_of_the_network_that_is_saved(tmp_path: Path) -> None:
    train = trainer(tmp_path, 1, rate=3.0, kind="adamw")
    train_one_epoch(train, batches(train.model.netdef, 8), 8, "")
    dead = scales(train.model, 5) == 0
    assert dead.any()
    assert torch.equal(scales(train.averaged, 5) == 0, dead)
    followers = scales(train.model, 2) == 0
    assert torch.equal(scales(train.averaged, 1) == 0, followers)


@pytest.mark.parametrize("name", ["yolov3", "yolov3-mobilenetv2"])
def test_a_step_calls_few_operators(name: str) -> None:
    """A card would have to be given each of them."""
    model = Darknet(config(name, thinner=16))
    averaged, sparsity, optimizer = copy.deepcopy(model), penalty_of(model, rate=0.1), sgd(0.1)
    with Calls() as calls:
        sparsity.add_gradient_(0)
        sparsity.shrink_(0, optimizer)
        sparsity.keep_zeros_(averaged)
    layers = sum(isinstance(layer, Convolution) for layer in model.layers)
    assert calls.names.total() < 20 * layers
