"""Are cuts predicted, and is what was asked for met, by clocks that depend on the network alone?"""

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from models.costs import count_operations
from models.darknet import Darknet
from models.netdef import parse
from pruning.importance import gamma
from pruning.latency.search import (
    FAMILIES,
    MOVED,
    PLAIN,
    Calibration,
    Clock,
    Goal,
    Problem,
    Timing,
    by_prediction,
    calibrate,
    check_clock,
    fresh_plan,
    learn_clock,
    next_budget,
    prune_to,
    width_options,
)
from pruning.latency.search_space import find_layout
from pruning.latency.solver import Choice
from pruning.latency.table import CostTable
from pruning.strategies import STRATEGIES, Target
from pruning.surgeon import Plan, cut, masked
from tests.pruning.clocks import stop_clocks
from tests.pruning.nets import config, error, forward_padding_constants, photos, trained
from utils.errors import InputError

ABOUT = {"engine": "none"}
OPEN = lambda model, size: model  # noqa: E731


def learnt(model: Darknet, folder: Path) -> tuple[Clock, list[str]]:
    said: list[str] = []
    clock = learn_clock(model, model.netdef.size, folder / "costs.csv", ABOUT, OPEN, said.append)
    return clock, said


@pytest.mark.parametrize(
    ("name", "thinner"),
    [("yolov3-tiny", 8), pytest.param("yolov3-mobilenetv2", 16, marks=pytest.mark.slow)],
)
def test_cuts_are_predicted_and_reached(
    name: str, thinner: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_clocks(monkeypatch)
    model = trained(config(name, thinner=thinner), 0)
    size = model.netdef.size
    clock, said = learnt(model, tmp_path)
    assert "0 layers measured" not in said[0]
    check = check_clock(model, size, clock, OPEN, 6)
    assert np.abs(check.errors).max() < 0.1
    again, said = learnt(model, tmp_path)
    assert "0 layers measured" in said[0]
    assert np.allclose(again.how.vector, clock.how.vector, atol=1e-3)
    problem = Problem.of(model.netdef, gamma(model), clock, 0.1, 0)
    for speedup in (1.5, 2.5):
        plan, timing = prune_to(model, problem, Goal(target_speedup=speedup), OPEN, size, 1)
        assert timing.missed < 0.05
        assert timing.before / timing.measured == pytest.approx(speedup, rel=0.05)
        small, images = cut(model, plan), photos(model.netdef)
        exact = forward_padding_constants(masked(model, plan), images, plan.keep)
        if not plan.blocks:
            assert error(small(images), exact) < 1e-4
        kept = problem.layout.counts(plan)
        for number, group in enumerate(problem.layout.groups):
            assert kept[number] >= 0.1 * len(group) - 1e-9
    with pytest.raises(InputError, match=r"expected a time of at least .* 0\.01 ms is asked for"):
        prune_to(model, problem, Goal(target_ms=0.01), OPEN, size, 1)


def test_a_plan_depends_on_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clocks(monkeypatch)
    model = trained(config("yolov3-lite", thinner=2), 0)
    clock, _ = learnt(model, tmp_path)
    layout = find_layout(model.netdef)
    whole = clock.network(layout, Choice(tuple(len(g) for g in layout.groups), (), 0, 0, 0))
    scores = gamma(model)

    def planned(budget: float) -> Plan | None:
        problem = Problem.of(model.netdef, scores, clock, 0.1, 0)
        choice = problem.choose(budget)
        return problem.plan(choice) if choice else None

    first, second = planned(whole / 2), planned(whole / 2)
    assert first is not None and second is not None
    assert np.array_equal(first.keep, second.keep)
    assert planned(0.0) is None
    everything = planned(1.01 * whole)
    assert everything is not None and everything.keep.all()


def test_a_network_without_anything_to_cut_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_clocks(monkeypatch)
    plain = config("yolov3-tiny", thinner=8).text().replace("batch_normalize=1", "")
    model = trained(parse(plain), 0)
    clock = Clock(model.netdef, (64, 64), CostTable({}))
    with pytest.raises(InputError, match="expected channels that 'latency' may cut, found none"):
        Problem.of(model.netdef, {}, clock, 0.1, 0)


@pytest.mark.parametrize("strategy", ["slim", "layer_channel"])
def test_a_strategy_of_shares_comes_near_a_predicted_time(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_clocks(monkeypatch)
    model = trained(config("yolov3-mobilenetv2", thinner=4), 0)
    clock, _ = learnt(model, tmp_path)
    scores, layout = gamma(model), find_layout(model.netdef)
    whole = clock.network(layout, Choice(tuple(len(g) for g in layout.groups), (), 0, 0, 0))
    planned = by_prediction(
        layout,
        clock,
        lambda share: STRATEGIES[strategy](model.netdef, scores, Target(share, "operations")),
    )
    for factor in (1.5, 2.5):
        plan, predicted = planned(whole / factor)
        assert predicted == pytest.approx(whole / factor, rel=0.03)
        measured = 0.5 + count_operations(cut(model, plan).netdef) / 1e6  # what `stop_clocks` says
        assert predicted == pytest.approx(measured, rel=0.1)


def test_of_each_group_the_best_units_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clocks(monkeypatch)
    model = trained(config("yolov3-tiny", thinner=4), 0)
    clock, _ = learnt(model, tmp_path)
    scores = gamma(model)
    problem = Problem.of(model.netdef, scores, clock, 0.1, 8)
    choice = problem.choose(clock.network(problem.layout, problem.narrowest) * 1.5)
    assert choice is not None
    plan = problem.plan(choice)
    for number, group in enumerate(problem.layout.groups):
        if problem.layout.free(number):
            worth = sum(scores[m.layer][m.positions].sum(1) for m in group.scored_by)
            kept = plan.keep[group.units]
            assert kept.sum() == choice.counts[number]
            assert kept.all() or worth[kept].min() >= worth[~kept].max()


def test_layers_are_weighed_alike_unless_scores_are_summed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_clocks(monkeypatch)
    model = trained(config("yolov3-tiny", thinner=4), 0)
    clock, _ = learnt(model, tmp_path)
    scores = {layer: (1 + layer) * found for layer, found in gamma(model).items()}
    by_share, by_sum = (
        Problem.of(model.netdef, scores, clock, 0.1, 8, summed=summed).values()
        for summed in (False, True)
    )
    assert {found[-1] for _, found in by_share.values()} == {1.0}
    most = max(found.sum() for found in scores.values())
    for layer, (_, found) in by_sum.items():
        assert found[-1] == pytest.approx(scores[layer].sum() / most)


def test_options_are_steps_between_the_least_and_all() -> None:
    layout = find_layout(config("yolov3"))
    for options, group in zip(width_options(layout, 0.25, 16), layout.groups, strict=True):
        if group.kept_because:
            assert options == [len(group)]
            continue
        assert options[-1] == len(group) and options[0] >= 0.25 * len(group)
        step = min(16, max(1, len(group) // 4))
        assert all(count % step == 0 for count in options[:-1]) and len(options) <= 10


@pytest.mark.parametrize("round_to", [1, 3, 12])
def test_any_rounding_has_its_widths_measured(
    round_to: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_clocks(monkeypatch)
    model = trained(config("yolov3-lite", thinner=4), 0)
    size, path = model.netdef.size, tmp_path / "costs.csv"
    clock = learn_clock(model, size, path, ABOUT, OPEN, lambda _: None, round_to)
    problem = Problem.of(model.netdef, gamma(model), clock, 0.0, round_to)
    _, timing = prune_to(model, problem, Goal(target_speedup=1.3), OPEN, size, 1)
    assert 0 < clock.network(problem.layout, problem.narrowest) < timing.measured


def test_a_calibration_finds_the_factors_that_networks_obey() -> None:
    rng = np.random.default_rng(0)
    truth = Calibration.of([1.3, 0.8, 2.0, 1.0, 0.5, 0.0, 3.0, 4.0])
    features = rng.uniform(1, 9, (40, len(FAMILIES) + len(MOVED) + 1))
    features[:, -1] = 1
    found = calibrate(features, features @ truth.vector)
    assert np.abs(features @ found.vector / (features @ truth.vector) - 1).max() < 0.01
    alone = calibrate(np.zeros((3, 8)) + PLAIN.vector, np.full(3, PLAIN.vector.sum()))
    assert np.allclose(alone.vector, PLAIN.vector, atol=1e-6)


@pytest.mark.parametrize("goal", [(0, 0), (3, 2)])
def test_one_time_is_asked_for(goal: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="expected one of them above 0"):
        Goal(*goal)


def test_noise_is_not_explained_by_one_part_of_the_network() -> None:
    rng = np.random.default_rng(1)
    features = rng.uniform(0.5, 1, (20, 8)) * [3, 9, 1, 0.2, 0.3, 0.1, 0.1, 1]
    features[:, -1] = 1
    noise = rng.uniform(0.3, 3, 20)
    found = calibrate(features, features @ PLAIN.vector * noise)
    factors = np.array(list(found.factors.values())) / np.median(noise)
    assert factors.min() >= 0.19 and factors.max() <= 5.01
    assert max(found.moved.values()) <= 10 * np.median(noise)


def test_a_clock_that_is_far_off_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that did other things meanwhile: most of the time is said to be fixed."""
    stop_clocks(monkeypatch)
    model = trained(config("yolov3-tiny", thinner=8), 0)
    clock, _ = learnt(model, tmp_path)
    whole = 0.5 + count_operations(model.netdef) / 1e6
    wrong = Calibration(clock.how.factors, clock.how.moved, 0.7 * whole)
    size = model.netdef.size
    noisy = Clock(model.netdef, size, clock.table, wrong)
    problem = Problem.of(model.netdef, gamma(model), noisy, 0.1, 0)
    assert problem.choose(whole / 3) is None
    _, timing = prune_to(model, problem, Goal(target_speedup=3), OPEN, size, 1)
    assert timing.missed < 0.1


def test_more_time_than_was_taken_is_no_miss() -> None:
    assert "more time was asked for than the 2.00 ms" in Timing(2, 100, None, 2, 1).note()
    assert Timing(2, 100, None, 2, 1).share == 0
    assert "50.0% off the time" in Timing(3, 1, None, 1.5, 1).note()
    assert not Timing(2, 2, None, 2, 1).note()


def test_the_next_budget_lies_between_what_was_too_slow_and_too_fast() -> None:
    slow, fast = (8.0, Timing(20, 10, 8, 12, 1)), (4.0, Timing(20, 10, 4, 9, 2))
    assert next_budget([slow]) == pytest.approx(8 * 10 / 12)
    assert next_budget([slow, fast]) == next_budget([fast, slow]) == pytest.approx(4 + 4 / 3)


def test_a_plan_that_was_measured_is_passed_on_the_way_to_the_time() -> None:
    slow, fast = Timing(20, 10, 8, 12, 1), Timing(20, 10, 4, 9, 1)

    def plan_of(budget: float) -> tuple[Plan, float]:
        return Plan(np.ones(1, bool), (int(budget),)), float(int(budget))

    def found(budget: float, known: dict[int, Timing]) -> int | None:
        trial = Mock(known=lambda plan: known.get(plan.blocks[0]))
        fresh = fresh_plan(trial, plan_of, budget)
        return fresh and fresh[0].blocks[0]

    assert found(8.5, {}) == 8
    assert found(8.5, {8: slow}) == 7 and found(8.95, {8: fast}) == 9
    assert found(8.9, {8: fast, 9: slow}) is None  # there is nothing between
    assert found(8.0, dict.fromkeys(range(8, 13), fast)) is None  # nor near
