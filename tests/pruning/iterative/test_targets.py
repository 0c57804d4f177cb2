"""Do cuts on the way to a time come to it, where latencies depend on the network alone?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from import_param import Pruning
from models.costs import count_operations
from models.darknet import Darknet
from models.netdef import NetDef, parse
from pruning.importance import gamma
from pruning.iterative.schedule import CutSchedule
from pruning.iterative.state import PruningState
from pruning.iterative.targets import BudgetTarget
from pruning.latency.search import LatencyTarget
from pruning.surgeon import cut
from tests.pruning.fake_latency import METER, count_instead_of_timing, counted_latency
from tests.pruning.nets import config, pruning_target, trained
from tests.pruning.test_sparsity import BLOCK
from utils.errors import InputError


@pytest.fixture(autouse=True)
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    count_instead_of_timing(monkeypatch)


def settings(goal: LatencyTarget, folder: Path) -> Pruning:
    return pruning_target(
        0,
        target_ms=goal.target_ms,
        target_speedup=goal.target_speedup,
        latency_table=str(folder / "latency.csv"),
    )


def fitted(netdef: NetDef, goal: LatencyTarget, folder: Path) -> BudgetTarget:
    return BudgetTarget.fitted(netdef, settings(goal, folder), METER, lambda _: None)


def schedule(target: BudgetTarget, epochs: int, cuts: tuple[int, ...]) -> CutSchedule:
    return CutSchedule(target, epochs, cuts, PruningState.uncut(target.original.netdef))


def shaken(model: Darknet, seed: int) -> Darknet:
    """As after some training: other scales, some of them dead."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bn.weight"):
                parameter.uniform_(0.0, 1.5)
                parameter[parameter < 0.3] = 0
    return model


@pytest.mark.parametrize(
    ("netdef", "speedup"),
    [
        (config("yolov3-tiny", thinner=8), 2.0),
        (parse(BLOCK).with_net_options(width=192, height=192), 1.4),
        pytest.param(config("yolov3-mobilenetv2", thinner=16), 2.0, marks=pytest.mark.slow),
    ],
    ids=["yolov3-tiny", "block", "yolov3-mobilenetv2"],
)
def test_given_epochs_take_equal_shares_of_the_time(
    netdef: NetDef, speedup: float, tmp_path: Path
) -> None:
    target = fitted(netdef, LatencyTarget(target_speedup=speedup), tmp_path)
    cuts, network, whole = schedule(target, 30, (2, 5)), trained(netdef, 0), counted_latency(netdef)
    found = []
    for epoch in range(1, 6):
        before = network
        plan = cuts.plan(epoch, shaken(network, epoch), dead=0.3)
        assert (plan is not None) == (epoch in (2, 5))
        if plan:
            network = cut(network, plan)
            found.append(counted_latency(network.netdef))
            assert cuts.reached == (epoch == 5)
            assert target.results[-1].measured == pytest.approx(found[-1])
            # The same network comes of the whole one by all cuts so far as one.
            assert cut(target.original, cuts.state.plan).netdef.layers == network.netdef.layers
            assert count_operations(network.netdef) < count_operations(before.netdef)
    assert found == pytest.approx([(1 + 1 / speedup) / 2 * whole, whole / speedup], rel=0.06)
    assert target.measure(network).measured == pytest.approx(found[-1])
    assert cuts.plan(6, network, dead=1.0) is None


def test_the_dead_go_when_no_more_die_and_the_rest_in_time(tmp_path: Path) -> None:
    netdef = config("yolov3-tiny", thinner=8)
    target = fitted(netdef, LatencyTarget(target_ms=counted_latency(netdef) / 3), tmp_path)
    cuts, network = schedule(target, 9, ()), shaken(trained(netdef, 0), 0)
    assert cuts.plan(1, network, dead=0.2) is None  # still dying
    plan = cuts.plan(2, network, dead=0.2)
    assert plan is not None and not cuts.reached
    kept = cuts.state.original, cuts.state.plan.keep
    network = cut(network, plan)
    importance = gamma(network)
    shares = [float((values > 0).mean()) for values in importance.values()]
    assert sum(shares) / len(shares) > 0.85  # hardly a dead one is left, as far as widths allow
    assert cuts.plan(3, network, dead=0.2) is None  # hardly any faster without them
    plan = cuts.plan(6, network, dead=0.2)
    assert plan is not None and cuts.reached and not (cuts.state.plan.keep & ~kept[1]).any()
    assert counted_latency(cut(network, plan).netdef) == pytest.approx(
        counted_latency(netdef) / 3, rel=0.05
    )


def test_enough_dead_meet_the_time_at_once(tmp_path: Path) -> None:
    netdef = config("yolov3-tiny", thinner=8)
    target = fitted(netdef, LatencyTarget(target_speedup=1.2), tmp_path)
    cuts, network = schedule(target, 30, ()), shaken(trained(netdef, 0), 0)
    assert cuts.plan(1, network, dead=0.2) is not None and cuts.reached
    assert target.results[-1].missed < 0.1  # a network so thin has few widths


def test_the_state_comes_back_and_nothing_is_measured_again(tmp_path: Path) -> None:
    netdef = config("yolov3-tiny", thinner=16)
    goal, said = LatencyTarget(target_speedup=2.0), list[str]()
    target = fitted(netdef, goal, tmp_path)
    cuts = schedule(target, 30, (2, 5))
    plan = cuts.plan(2, trained(netdef, 0), dead=0.0)
    assert plan
    network = shaken(cut(trained(netdef, 0), plan), 1)
    torch.save(cuts.as_state(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    whole = parse(state["original_cfg"])
    other = BudgetTarget.fitted(
        whole, settings(goal, tmp_path), METER, said.append, state["target"]
    )
    assert len(said) == 1 and "0 layers measured" in said[0]
    again = schedule(other, 30, (2, 5))
    again.load_state_(state)
    one, two = (c.plan(5, network, dead=0.0) for c in (cuts, again))
    assert one and two and one.equals(two)
    assert target.results == other.results
    assert other.results[-1].before == pytest.approx(
        counted_latency(netdef)
    )  # of the whole one, to the end


def test_a_time_that_cannot_be_or_is_there_already_is_one_line(tmp_path: Path) -> None:
    netdef = config("yolov3-lite", thinner=8)
    with pytest.raises(InputError, match=r"expected a time of at least .* 0\.01 ms is asked for"):
        fitted(netdef, LatencyTarget(target_ms=0.01), tmp_path)
    for goal in (LatencyTarget(target_speedup=1.0), LatencyTarget(target_ms=1e3)):
        with pytest.raises(InputError, match=f"{goal.name}: expected less time than the .* ms"):
            fitted(netdef, goal, tmp_path)


def test_nothing_is_awaited_once_nothing_may_be_cut(tmp_path: Path) -> None:
    """Only the block has channels that may go, and half of the way takes the whole block."""
    plain = "[convolutional]\nsize=3\npad=1\nfilters=8\nactivation=linear\n"
    inner = plain.replace("pad=1", "pad=1\nbatch_normalize=1")
    wide = plain.replace("filters=8", "filters=32")
    netdef = parse(
        f"[net]\nwidth=64\nheight=64\n{plain}{inner}{wide}{wide}{plain}"
        "[shortcut]\nfrom=-5\nactivation=linear\n"
        "[convolutional]\nfilters=6\nactivation=linear\n"
        "[yolo]\nmask=0\nanchors=8,8\nclasses=1\nnum=1\n"
    )
    target = fitted(
        netdef, LatencyTarget(target_ms=0.1 * counted_latency(netdef) + 0.9 * 0.5), tmp_path
    )
    cuts = schedule(target, 30, (1, 2))
    plan = cuts.plan(1, trained(netdef, 0), dead=0.0)
    assert plan and plan.blocks == (5,) and cuts.reached


def test_what_became_impossible_meanwhile_comes_as_near_as_it_can(tmp_path: Path) -> None:
    netdef = config("yolov3-lite", thinner=8)
    target = fitted(netdef, LatencyTarget(target_speedup=1.5), tmp_path)
    impossible = BudgetTarget(
        LatencyTarget(target_ms=0.01),
        target.settings,
        target.original,
        target.meter,
        target.predictor,
    )
    cuts = schedule(impossible, 30, (1,))
    plan = cuts.plan(1, trained(netdef, 0), dead=0.0)
    assert (
        plan
        and cuts.reached
        and 0.01 < impossible.results[-1].measured < counted_latency(netdef) / 1.5
    )
