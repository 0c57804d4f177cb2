"""Do several cuts on the way come to the one that was asked for, and does training go on?"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from import_param import Pruning
from models.costs import count_parameters
from models.darknet import Darknet
from models.netdef import NetDef, parse
from pruning.importance import Importance, gamma
from pruning.iterative.schedule import (
    OPTIONS,
    CutSchedule,
    check_cut_epochs,
    cut_trainer,
    last_cut,
    read_state,
)
from pruning.iterative.state import PruningState
from pruning.iterative.targets import ShareTarget
from pruning.residual_blocks import residual_blocks
from pruning.strategies import STRATEGIES
from pruning.surgeon import Plan, cut, keep_everything, transfer
from pruning.targets import MEASURES
from tests.pruning.nets import config, pruning_target, trained
from tests.pruning.test_sparsity import BLOCK, batches, trainer
from tests.pruning.test_strategies import nested
from utils.errors import InputError
from utils.training.loop import Trainer, train_one_epoch
from utils.training.precision import loss_scaler


def by(strategy: str, target: Pruning, netdef: NetDef, importance: Importance) -> Plan:
    return STRATEGIES[strategy](netdef, importance, target)


def cut_in_steps(
    model: Darknet, strategy: str, target: Pruning, percents: list[float]
) -> tuple[PruningState, Darknet]:
    """Cut, and let the scales change as training would, again and again."""
    state = PruningState.uncut(model.netdef)
    for step, percent in enumerate(percents):
        now = replace(target, percent=percent)
        state, plan = state.cut_further(model.netdef, gamma(model), partial(by, strategy, now))
        model = cut(model, plan)
        torch.manual_seed(step)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bn.weight"):
                    parameter.uniform_(0.1, 1.5)
    return state, model


@pytest.mark.parametrize(
    ("name", "strategy", "measure"),
    [
        ("yolov3-tiny", "normal", "channels"),
        ("yolov3-tiny", "slim", "parameters"),
        ("yolov3-mobilenetv2", "slim", "channels"),
        ("yolov3-mobilenetv2", "shortcut", "operations"),
        ("yolov3-mobilenetv2", "layer", "channels"),
        ("yolov3-mobilenetv2", "layer_channel", "parameters"),
    ],
)
def test_cuts_on_the_way_come_to_the_target(name: str, strategy: str, measure: str) -> None:
    model = trained(config(name, thinner=8), 0)
    percents = [0.2, 0.35, 0.5]
    state, small = cut_in_steps(model, strategy, pruning_target(0.5, measure), percents)
    assert state.share(strategy, measure) == pytest.approx(0.5, abs=0.06)
    assert count_parameters(small) < count_parameters(model)
    if measure == "parameters":
        left = count_parameters(small) / count_parameters(model)
        assert left == pytest.approx(1 - state.share(strategy, measure), abs=1e-9)


def test_what_a_layer_keeps_is_a_share_of_the_whole() -> None:
    netdef = config("yolov3-tiny", thinner=4)
    model = trained(netdef, 0)
    state, small = cut_in_steps(
        model, "slim", pruning_target(0.8, layer_keep=0.2), [0.3, 0.6, 0.8, 0.8]
    )
    assert state.share("slim", "channels") == pytest.approx(0.8, abs=0.02)
    for index, layer in enumerate(small.netdef.layers):
        if layer.kind == "convolutional":
            whole = netdef.layers[index].integer("filters")
            assert layer.integer("filters") >= 0.2 * whole
    last = partial(by, "slim", pruning_target(0.8, layer_keep=0.2))
    again, plan = state.cut_further(small.netdef, gamma(small), last)
    assert plan.keep.all() and (again.plan.keep == state.plan.keep).all()


def test_a_block_inside_one_that_is_gone_is_not_cut_again() -> None:
    """First the outer one (5) goes, with the inner one (3); then the one after them."""
    state, network = PruningState.uncut(nested()), trained(nested(), 0)
    with torch.no_grad():
        network.layers[4].bn.weight[:] = 0.01
    for percent, left in ((0.6, 1 / 3), (0.99, 0)):
        blocks = partial(by, "layer", pruning_target(percent))
        state, plan = state.cut_further(network.netdef, gamma(network), blocks)
        network = cut(network, plan)
        assert state.share("layer", "channels") == pytest.approx(1 - left)
    assert not any(section.kind == "shortcut" for section in network.netdef.layers)


def start(
    netdef: NetDef, strategy: Any, target: Pruning, epochs: int, cuts: tuple[int, ...]
) -> CutSchedule:
    return CutSchedule(
        ShareTarget(replace(target, pruned_id=strategy)), epochs, cuts, PruningState.uncut(netdef)
    )


def schedule(percent: float = 0.5, epochs: int = 30, cuts: tuple[int, ...] = ()) -> CutSchedule:
    return start(parse(BLOCK), "slim", pruning_target(percent), epochs, cuts)


def model() -> Darknet:
    return trained(parse(BLOCK), 0)


def test_given_epochs_take_equal_shares() -> None:
    cuts, network = schedule(0.6, cuts=(2, 5, 9)), model()
    shares = []
    for epoch in range(1, 10):
        plan = cuts.plan(epoch, network, dead=0.9)
        assert (plan is not None) == (epoch in (2, 5, 9))
        if plan:
            network = cut(network, plan)
            shares.append(cuts.state.share("slim", "channels"))
            assert cuts.reached == (epoch == 9)
    np.testing.assert_allclose(shares, [0.2, 0.4, 0.6], atol=0.06)
    assert cuts.plan(10, network, dead=0.9) is None


def test_the_dead_go_when_no_more_die() -> None:
    """Deaths an epoch: fast, then none. The second time they suffice for the target."""
    cuts, network = schedule(0.5), model()
    assert cuts.plan(1, network, dead=0.1) is None  # still dying
    assert cuts.plan(2, network, dead=0.25) is None
    plan = cuts.plan(3, network, dead=0.255)
    assert plan and not cuts.reached
    assert cuts.state.share("slim", "channels") == pytest.approx(0.255, abs=0.06)
    network = cut(network, plan)
    assert cuts.plan(4, network, dead=0.0) is None  # flat, but nothing is dead
    assert cuts.plan(5, network, dead=OPTIONS.least_dead / 2) is None
    plan = cuts.plan(6, network, dead=0.6)  # rising, yet enough
    assert plan and cuts.reached
    assert cuts.state.share("slim", "channels") == pytest.approx(0.5, abs=0.03)


def test_the_target_is_met_in_time_in_any_case() -> None:
    cuts, network = schedule(0.5, epochs=30), model()
    for epoch in range(1, round(OPTIONS.last_cut * 30)):
        assert cuts.plan(epoch, network, dead=0.0) is None
    assert cuts.plan(round(OPTIONS.last_cut * 30), network, dead=0.0) is not None
    assert cuts.reached and cuts.state.share("slim", "channels") == pytest.approx(0.5, abs=0.03)


def test_the_target_counts_as_met_where_nothing_more_may_go() -> None:
    """Of a whole network's operations, the residual blocks are but a part."""
    cuts = start(nested(), "layer", pruning_target(0.99, "operations"), 30, (1, 2, 3))
    network = trained(nested(), 0)
    assert cuts.plan(1, network, dead=0.0) is not None and not cuts.reached
    plan = cuts.plan(2, cut(network, cuts.state.plan), dead=0.0)
    assert plan is not None and cuts.reached
    assert cuts.state.share("layer", "channels") == 1


def test_all_may_be_dead() -> None:
    cuts = start(parse(BLOCK), "slim", pruning_target(0.5, "operations"), 30, ())
    assert cuts.plan(1, model(), dead=1.0) is None
    assert cuts.plan(2, model(), dead=1.0) is not None


def test_the_state_comes_back() -> None:
    cuts, network = schedule(0.6, cuts=(2, 5, 9)), model()
    plan = cuts.plan(2, network, dead=0.3)
    assert plan
    network = cut(network, plan)
    again = schedule(0.6, cuts=(2, 5, 9))
    again.load_state_(cuts.as_state())
    assert again.state.original == cuts.state.original and again.dead == cuts.dead
    one, other = (c.plan(5, network, dead=0.3) for c in (cuts, again))
    assert one and other and (one.keep == other.keep).all() and one.blocks == other.blocks


def test_a_state_of_before_0_2_is_read_under_its_old_keys() -> None:
    cuts = schedule(0.6, cuts=(2, 5, 9))
    plan = cuts.plan(2, model(), dead=0.3)
    assert plan
    present = cut(model(), plan).netdef
    new = cuts.as_state()
    old = {
        "cfg": new["original_cfg"],
        "keep": new["keep"],
        "blocks": new["blocks"],
        "dead": new["dead"],
        "met": new["reached"],
        "aim": {"about": {}, "calibration": [1.0], "timings": []},
    }
    read = read_state(old, present, "a.pt")
    assert read.keys() == new.keys()
    assert read["target"] == {"conditions": {}, "coefficients": [1.0], "results": []}
    again = schedule(0.6, cuts=(2, 5, 9))
    again.load_state_(read)
    assert again.state.plan.equals(cuts.state.plan)
    assert read_state(new, present, "a.pt") == new


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("keep", torch.ones(3), "expected a mask of channels"),
        ("keep", torch.ones(3, dtype=torch.bool), "expected a mask of .* units, found .3,."),
        ("keep", torch.ones(2, 3, dtype=torch.bool), "expected a mask of channels"),
        ("keep", [True], "keep=.*: expected Tensor"),
        ("blocks", [2**70], "blocks=.*: expected an integer of at most 64 bits"),
        ("blocks", [0], "blocks that may go"),
        ("blocks", "all", "blocks='all': expected tuple"),
        ("dead", float("nan"), "dead=nan: expected a finite number"),
        ("reached", 5, "reached=5: expected bool"),
        ("target", None, "target=None: expected dict"),
        ("original_cfg", "[net]", "original_cfg"),
        ("original_cfg", b"[net]", "original_cfg=.*: expected str"),
    ],
)
def test_a_state_that_cannot_be_is_refused(entry: str, value: object, message: str) -> None:
    state = schedule(0.6, cuts=(2, 5, 9)).as_state()
    with pytest.raises(InputError, match=rf"^a\.pt: .*{message}|^a\.pt.{message}"):
        read_state(state | {entry: value}, model().netdef, "a.pt")
    del state[entry]
    with pytest.raises(InputError, match=rf"a\.pt: '{entry}' is missing"):
        read_state(state, model().netdef, "a.pt")


def test_a_state_is_of_the_network_that_it_came_to() -> None:
    cuts, network = schedule(0.6, cuts=(2, 5, 9)), model()
    plan = cuts.plan(2, network, dead=0.3)
    assert plan
    with pytest.raises(InputError, match="expected the cuts that make the checkpoint's network"):
        read_state(cuts.as_state(), network.netdef, "a.pt")
    with pytest.raises(InputError, match="expected the state of pruning"):
        read_state(None, network.netdef, "a.pt")


@pytest.mark.parametrize("epochs", [(5, 2), (2, 2), (2, 30)])
def test_epochs_that_cannot_be_are_one_line(epochs: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"cut_epochs=\(.*\): expected rising numbers below 30"):
        check_cut_epochs(epochs, 30)


def test_the_last_cut_leaves_an_epoch_to_train() -> None:
    assert [last_cut(epochs) for epochs in (2, 3, 30)] == [1, 2, 20]
    with pytest.raises(InputError, match="epochs=1: expected 2 or more"):
        check_cut_epochs((), 1)


@pytest.mark.parametrize("measure", MEASURES)
def test_cuts_on_the_way_leave_to_the_last_what_goes_with_its_blocks(measure: str) -> None:
    network = trained(config("yolov3-mobilenetv2", thinner=4), seed=0)
    target = pruning_target(0.6, measure, percent_blocks=1.0)
    cuts = start(network.netdef, "layer_channel", target, 30, (1, 2, 3))
    for epoch in (1, 2, 3):
        plan = cuts.plan(epoch, network, dead=0.0)
        assert plan
        network = cut(network, plan)
    assert cuts.reached and len(cuts.state.plan.blocks) > 2
    assert cuts.state.share("layer_channel", measure) == pytest.approx(0.6, abs=0.02)


def test_a_missed_target_is_told_once_it_comes_no_nearer() -> None:
    whole = config("yolov3-mobilenetv2", thinner=4)
    blocks = tuple(block.shortcut for block in residual_blocks(whole))
    state = PruningState(Plan(whole, keep_everything(whole).keep, blocks))
    target = ShareTarget(pruning_target(0.5, pruned_id="layer"))
    assert target.describe(state, reached=False) == "100.0% of the blocks are gone"
    told = "100.0% of the blocks are gone (percent=0.5: 1.000 reached: whole blocks go, and "
    assert target.describe(state, reached=True).startswith(told)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_training_goes_on_with_every_state_of_what_is_left(
    tmp_path: Path, kind: Literal["adamw", "sgd"]
) -> None:
    def in_fp16(made: Trainer, scale: float) -> Trainer:
        made.scaler = loss_scaler(torch.device("cpu"), torch.float16)
        made.scaler.load_state_dict({**made.scaler.state_dict(), "scale": scale})
        return made

    def make(network: Darknet) -> Trainer:
        return in_fp16(trainer(tmp_path, 1, rate=0.5, kind=kind, model=network), 1024.0)

    old = in_fp16(trainer(tmp_path, 1, rate=0.5, kind=kind), 8.0)
    train_one_epoch(old, batches(old.model.netdef, 3), 3, "")
    state, plan = PruningState.uncut(old.model.netdef).cut_further(
        old.model.netdef, gamma(old.averaged), partial(by, "slim", pruning_target(0.5))
    )
    assert state.share("slim", "channels") > 0.4
    new = cut_trainer(old, plan, make)
    assert new.scaler.get_scale() == 8.0
    mover = transfer(plan)
    whole = dict(old.model.named_parameters())
    for name, parameter in new.model.named_parameters():
        before = {v: k for k, v in mover.names.items()}[name]
        for key, value in old.optimizer.state[whole[before]].items():
            moved = new.optimizer.state[parameter][key]
            if isinstance(value, torch.Tensor) and value.shape == whole[before].shape:
                value = mover({before: value})[name]
            assert torch.equal(torch.as_tensor(moved), torch.as_tensor(value)), (name, key)
    images = batches(old.model.netdef, 1)[0].images
    small = cut(old.averaged, plan).to(memory_format=torch.channels_last).eval()
    with torch.no_grad():
        for got, wanted in zip(new.averaged.eval()(images), small(images), strict=True):
            assert torch.equal(got, wanted)
    assert new.mean.n_averaged == old.mean.n_averaged == 3
    assert new.schedule.last_epoch == old.schedule.last_epoch == 3
    assert [g["lr"] for g in new.optimizer.param_groups] == [
        g["lr"] for g in old.optimizer.param_groups
    ]
    train_one_epoch(new, batches(new.model.netdef, 2), 2, "")
    assert new.schedule.last_epoch == 5
