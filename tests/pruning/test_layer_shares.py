"""`protected` layers lose no channel, and `layer_shares` are what those layers lose."""

from __future__ import annotations

from functools import partial

import pytest

import import_param
from import_param import Pruning
from models.darknet import Darknet
from models.netdef import NetDef, parse
from pruning.importance import gamma
from pruning.residual_blocks import residual_blocks
from pruning.strategies import STRATEGIES
from pruning.surgeon import Plan, cut
from tests.pruning.nets import config, trained
from utils.errors import InputError
from utils.settings.loader import check

BY_CHANNELS = ("normal", "slim", "shortcut", "layer_channel")


@pytest.fixture(scope="module")
def model() -> Darknet:
    return trained(config("yolov3-mobilenetv2", thinner=8), 0)


def filters(netdef: NetDef, layer: int) -> int:
    return netdef.layers[layer].integer("filters")


def planned(model: Darknet, netdef: NetDef, strategy: str, target: Pruning) -> Plan:
    return STRATEGIES[strategy](netdef, gamma(model), target)


def kept(plan: Plan, layer: int) -> int:
    return int(plan.layer_masks[layer].sum())


def cuttable_layer(model: Darknet, strategy: str, most_blocks: int = 0) -> int:
    """A layer outside all blocks that a hard cut takes channels of."""
    plan = planned(model, model.netdef, strategy, Pruning(percent=0.7))
    inside = {n for block in residual_blocks(model.netdef) for n in block.inside}
    return next(
        layer
        for layer in plan.layer_masks
        if layer >= 0
        and layer not in inside
        and model.netdef.layers[layer].kind == "convolutional"
        and kept(plan, layer) < filters(model.netdef, layer)
    )


@pytest.mark.parametrize("strategy", BY_CHANNELS)
def test_a_protected_layer_keeps_every_channel(strategy: str, model: Darknet) -> None:
    layer = cuttable_layer(model, strategy)
    netdef = model.netdef.with_protected([layer])
    plan = planned(model, netdef, strategy, Pruning(percent=0.5))
    assert kept(plan, layer) == filters(netdef, layer)
    assert not plan.keep.all()
    assert parse(netdef.text()) == netdef, "the .cfg says so"


def test_a_block_with_a_protected_layer_stays(model: Darknet) -> None:
    first = residual_blocks(model.netdef)[0]
    netdef = model.netdef.with_protected([first.inside[0]])
    assert first.shortcut not in {block.shortcut for block in residual_blocks(netdef)}
    plan = planned(model, netdef, "layer", Pruning(percent=0.9))
    assert plan.blocks and first.shortcut not in plan.blocks


@pytest.mark.parametrize("strategy", BY_CHANNELS)
@pytest.mark.parametrize("share", [0.0, 0.25, 0.75])
def test_a_layer_loses_its_share(strategy: str, share: float, model: Darknet) -> None:
    layer = cuttable_layer(model, strategy)
    target = Pruning(percent=0.4, round_to=1, layer_shares=(f"{layer}:{share:g}",))
    plan = planned(model, model.netdef, strategy, target)
    whole = filters(model.netdef, layer)
    assert kept(plan, layer) == max(1, round((1 - share) * whole))
    small = cut(model, plan)
    assert small.netdef != model.netdef


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda n: n.with_protected([999]),
            r"protected: layer 999: expected a layer of",
        ),
        (lambda n: n.with_protected([residual_blocks(n)[0].shortcut]), r"is a \[shortcut\]: exp"),
        (partial(lambda s, n: planned_with(n, s), ("999:0.5",)), "layer_shares: layer 999: exp"),
        (partial(lambda s, n: planned_with(n, s), None), "cannot be cut: layer .* reads it"),
    ],
)
def test_layers_that_are_not_there_or_cannot_be_cut_are_refused(
    change: object, message: str, model: Darknet
) -> None:
    assert callable(change)
    with pytest.raises(InputError, match=message):
        change(model.netdef)


def planned_with(netdef: NetDef, shares: tuple[str, ...] | None) -> None:
    shares = shares or (f"{netdef.heads[0] - 1}:0.5",)
    planned(Darknet(netdef), netdef, "slim", Pruning(layer_shares=shares))


@pytest.mark.parametrize(
    ("pruning", "message"),
    [
        (Pruning(layer_shares=("3:1",)), "expected LAYER:SHARE"),
        (Pruning(layer_shares=("3=0.5",)), "expected LAYER:SHARE"),
        (Pruning(layer_shares=("3:0.5", "3:0.2")), "expected each layer once"),
        (Pruning(layer_shares=("3:0.5",), pruned_id=2), "expected none with pruned_id=layer"),
        (Pruning(protected=(-1,)), "protected=-1: expected at least 0"),
        (Pruning(pruned_id=7), "pruned_id=7: expected 1 normal, 2 layer"),
        (Pruning(pruned_id="slimm"), "pruned_id='slimm': expected 1 normal, 2 layer"),
    ],
)
def test_settings_that_cannot_be_are_refused(pruning: Pruning, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(import_param.PruneSettings(pruning=pruning))
