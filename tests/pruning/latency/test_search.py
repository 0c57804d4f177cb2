"""Is the time met that is asked for, where latencies depend on the network alone?"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from import_param import Pruning
from models.darknet import Darknet
from models.netdef import parse
from pruning.importance import gamma
from pruning.latency.meter import LatencyMeter
from pruning.latency.options import SearchOptions
from pruning.latency.predictor import (
    UNFITTED,
    LatencyPredictor,
    any_plan,
    check_predictor,
    fit_predictor,
    width_ranges,
)
from pruning.latency.search import (
    LatencyResult,
    LatencySearch,
    LatencyTarget,
    PruningProblem,
    new_plan,
    next_budget,
    plan_by_prediction,
)
from pruning.latency.search_space import Configuration, Floats, find_search_space
from pruning.latency.table import LatencyTable
from pruning.strategies import STRATEGIES
from pruning.surgeon import Plan, cut, masked
from tests.pruning.fake_latency import CONDITIONS, METER, count_instead_of_timing, counted_latency
from tests.pruning.nets import (
    config,
    error,
    forward_padding_constants,
    photos,
    pruning_target,
    trained,
)
from utils.errors import InputError

TWO_LAYERS = """
[net]
width=8
height=8
channels=3
[convolutional]
batch_normalize=1
filters=16
size=1
activation=leaky
[convolutional]
filters=6
size=1
activation=linear
[yolo]
mask=0
anchors=4,4
classes=1
num=1
"""
QUICK = SearchOptions(sampled_cuts=10, timing_rounds=1)


def fitted(model: Darknet, folder: Path) -> tuple[LatencyPredictor, list[str]]:
    told: list[str] = []
    path = folder / "table.csv"
    predictor = fit_predictor(model, model.netdef.size, METER, path, told.append, options=QUICK)
    return predictor, told


def prune(
    model: Darknet, problem: PruningProblem, target: LatencyTarget
) -> tuple[Plan, LatencyResult]:
    return LatencySearch(model, model.netdef.size, target, METER, QUICK).prune(problem)


@pytest.mark.parametrize(
    ("name", "thinner"),
    [("yolov3-tiny", 8), pytest.param("yolov3-mobilenetv2", 16, marks=pytest.mark.slow)],
)
def test_cuts_are_predicted_and_reached(
    name: str, thinner: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_instead_of_timing(monkeypatch)
    model = trained(config(name, thinner=thinner), 0)
    size = model.netdef.size
    predictor, told = fitted(model, tmp_path)
    assert "0 layers measured" not in told[0]
    check = check_predictor(model, size, predictor, METER, 6)
    assert np.abs(check.errors).max() < 0.1
    again, told = fitted(model, tmp_path)
    assert "0 layers measured" in told[0]
    assert np.allclose(again.coefficients.vector, predictor.coefficients.vector, atol=1e-3)
    problem = PruningProblem.of(model.netdef, gamma(model), predictor, Pruning())
    for speedup in (1.5, 2.5):
        plan, result = prune(model, problem, LatencyTarget(target_speedup=speedup))
        assert result.missed < 0.05
        assert result.before / result.measured == pytest.approx(speedup, rel=0.05)
        small, images = cut(model, plan), photos(model.netdef)
        exact = forward_padding_constants(masked(model, plan), images, plan.keep)
        if not plan.blocks:
            assert error(small(images), exact) < 1e-4
        kept = problem.space.configuration(plan).counts
        for number, group in enumerate(problem.space.groups):
            assert kept[number] >= 0.1 * len(group) - 1e-9
    with pytest.raises(InputError, match=r"expected a time of at least .* 0\.01 ms is asked for"):
        prune(model, problem, LatencyTarget(target_ms=0.01))


def test_a_plan_depends_on_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count_instead_of_timing(monkeypatch)
    model = trained(config("yolov3-lite", thinner=2), 0)
    predictor, _ = fitted(model, tmp_path)
    space = find_search_space(model.netdef)
    whole = predictor.network(space, space.uncut)
    importance = gamma(model)

    def planned(budget: float) -> Plan | None:
        problem = PruningProblem.of(model.netdef, importance, predictor, Pruning())
        solution = problem.solve(budget)
        return problem.plan(solution.configuration) if solution else None

    first, second = planned(whole / 2), planned(whole / 2)
    assert first is not None and second is not None
    assert np.array_equal(first.keep, second.keep)
    assert planned(0.0) is None
    everything = planned(1.01 * whole)
    assert everything is not None and everything.keep.all()


def test_a_network_without_anything_to_cut_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_instead_of_timing(monkeypatch)
    plain = config("yolov3-tiny", thinner=8).text().replace("batch_normalize=1", "")
    model = trained(parse(plain), 0)
    predictor = LatencyPredictor(model.netdef, (64, 64), LatencyTable(CONDITIONS))
    with pytest.raises(InputError, match="expected channels that 'latency' may cut, found none"):
        PruningProblem.of(model.netdef, {}, predictor, Pruning())


@pytest.mark.parametrize("strategy", ["slim", "layer_channel"])
def test_a_strategy_of_shares_comes_near_a_predicted_time(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_instead_of_timing(monkeypatch)
    model = trained(config("yolov3-mobilenetv2", thinner=4), 0)
    predictor, _ = fitted(model, tmp_path)
    importance, space = gamma(model), find_search_space(model.netdef)
    whole = predictor.network(space, space.uncut)
    planned = plan_by_prediction(
        space,
        predictor,
        lambda share: STRATEGIES[strategy](
            model.netdef, importance, pruning_target(share, "operations")
        ),
    )
    for factor in (1.5, 2.5):
        plan, predicted = planned(whole / factor)
        assert predicted == pytest.approx(whole / factor, rel=0.03)
        measured = counted_latency(cut(model, plan).netdef)
        assert predicted == pytest.approx(measured, rel=0.1)


def test_of_each_group_the_best_units_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count_instead_of_timing(monkeypatch)
    model = trained(config("yolov3-tiny", thinner=4), 0)
    predictor, _ = fitted(model, tmp_path)
    importance = gamma(model)
    problem = PruningProblem.of(model.netdef, importance, predictor, Pruning(round_to=8))
    solution = problem.solve(problem.predict(problem.narrowest) * 1.5)
    assert solution is not None
    plan = problem.plan(solution.configuration)
    for number, group in enumerate(problem.space.groups):
        if problem.space.can_cut(number):
            of_units = sum(importance[m.layer][m.positions].sum(1) for m in group.deciding_members)
            kept = plan.keep[group.units]
            assert kept.sum() == solution.configuration.counts[number]
            assert kept.all() or of_units[kept].min() >= of_units[~kept].max()


def test_layers_are_weighed_alike_unless_importance_is_summed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_instead_of_timing(monkeypatch)
    model = trained(config("yolov3-tiny", thinner=4), 0)
    predictor, _ = fitted(model, tmp_path)
    importance = {layer: (1 + layer) * found for layer, found in gamma(model).items()}
    by_share, by_sum = (
        PruningProblem.of(
            model.netdef, importance, predictor, Pruning(round_to=8), summed=summed
        ).importance()
        for summed in (False, True)
    )
    assert {found[-1] for _, found in by_share.values()} == {1.0}
    most = max(found.sum() for found in importance.values())
    for layer, (_, found) in by_sum.items():
        assert found[-1] == pytest.approx(importance[layer].sum() / most)


@pytest.mark.parametrize("round_to", [1, 3, 12])
def test_any_rounding_has_its_widths_measured(
    round_to: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_instead_of_timing(monkeypatch)
    model = trained(config("yolov3-lite", thinner=4), 0)
    size, path = model.netdef.size, tmp_path / "table.csv"
    predictor = fit_predictor(model, size, METER, path, lambda _: None, round_to)
    problem = PruningProblem.of(
        model.netdef, gamma(model), predictor, Pruning(layer_keep=0, round_to=round_to)
    )
    _, result = prune(model, problem, LatencyTarget(target_speedup=1.3))
    assert 0 < problem.predict(problem.narrowest) < result.measured


@pytest.mark.parametrize("target", [(0, 0), (3, 2)])
def test_one_time_is_asked_for(target: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="expected one of them above 0"):
        LatencyTarget(*target)


def test_a_prediction_that_is_far_off_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that did other things meanwhile: most of the time is said to be fixed."""
    count_instead_of_timing(monkeypatch)
    model = trained(config("yolov3-tiny", thinner=8), 0)
    predictor, _ = fitted(model, tmp_path)
    whole = counted_latency(model.netdef)
    wrong = replace(predictor.coefficients, constant=0.7 * whole)
    noisy = LatencyPredictor(model.netdef, model.netdef.size, predictor.table, wrong)
    problem = PruningProblem.of(model.netdef, gamma(model), noisy, Pruning())
    assert problem.solve(whole / 3) is None
    _, result = prune(model, problem, LatencyTarget(target_speedup=3))
    assert result.missed < 0.1


def test_more_time_than_was_taken_is_no_miss() -> None:
    assert "more time was asked for than the 2.00 ms" in LatencyResult(2, 100, None, 2, 1).note()
    assert LatencyResult(2, 100, None, 2, 1).share == 0
    assert "50.0% off the time" in LatencyResult(3, 1, None, 1.5, 1).note()
    assert not LatencyResult(2, 2, None, 2, 1).note()


def test_the_next_budget_lies_between_what_was_too_slow_and_too_fast() -> None:
    slow, fast = (8.0, LatencyResult(20, 10, 8, 12, 1)), (4.0, LatencyResult(20, 10, 4, 9, 2))
    assert next_budget([slow]) == pytest.approx(8 * 10 / 12)
    assert next_budget([slow, fast]) == next_budget([fast, slow]) == pytest.approx(4 + 4 / 3)


def test_a_plan_that_was_measured_is_passed_on_the_way_to_the_time() -> None:
    slow, fast = LatencyResult(20, 10, 8, 12, 1), LatencyResult(20, 10, 4, 9, 1)

    def plan_for(budget: float) -> tuple[Plan, float]:
        return Plan(parse("[net]\n[dropout]\n"), np.ones(1, bool), (int(budget),)), float(
            int(budget)
        )

    def found(budget: float, known: dict[int, LatencyResult]) -> int | None:
        cuts = Mock(result_of=lambda plan: known.get(plan.blocks[0]))
        planned = new_plan(cuts, plan_for, budget)
        return planned and planned[0].blocks[0]

    assert found(8.5, {}) == 8
    assert found(8.5, {8: slow}) == 7 and found(8.95, {8: fast}) == 9
    assert found(8.95, {8: slow}) == 7  # on from the 8 ms that were predicted
    assert found(8.9, {8: fast, 9: slow}) is None  # there is nothing between
    assert found(8.0, dict.fromkeys(range(8, 13), fast)) is None  # nor near


@dataclass(frozen=True)
class ScriptedMeter(LatencyMeter):
    """By a network's first width, the milliseconds that it takes."""

    milliseconds: dict[int, float] = field(default_factory=dict)

    def time_runs(self, runs: Sequence[Any], size: tuple[int, int], rounds: int) -> Floats:
        return np.array([self.milliseconds[r.netdef.layers[0].integer("filters")] for r in runs])


def search_of(target: LatencyTarget, milliseconds: dict[int, float]) -> LatencySearch:
    """For a network of 16 channels, then those of the head."""
    model = Darknet(parse(TWO_LAYERS)).eval()
    by_width = {16: 20.0, **milliseconds}
    meter = ScriptedMeter("scripted", METER.open, CONDITIONS, milliseconds=by_width)
    return LatencySearch(model, (8, 8), target, meter, SearchOptions(max_attempts=4, halvings=5))


def plan_of_width(search: LatencySearch, width: int) -> Plan:
    space = find_search_space(search.model.netdef)
    return any_plan(space, replace(space.uncut, counts=(width, *space.uncut.counts[1:])))


def widths_tried(
    target: LatencyTarget, milliseconds: dict[int, float], predicted: dict[float, int]
) -> tuple[list[float], LatencyResult]:
    """The budgets that are asked for; `predicted` is what each, rounded, leads to."""
    search, budgets = search_of(target, milliseconds), list[float]()

    def plan_for(budget: float) -> tuple[Plan, float]:
        budgets.append(round(budget, 2))
        return plan_of_width(search, predicted[budgets[-1]]), budget

    plan, result = search.correct_budget(plan_for)
    kept = plan.keep[find_search_space(search.model.netdef).groups[0].units].sum()
    assert result.measured == milliseconds[int(kept)]
    return budgets, result


def test_the_budget_is_corrected_until_the_time_is_met() -> None:
    """As in the docstring of `pruning.latency.search`."""
    target = LatencyTarget(target_speedup=2)
    budgets, result = widths_tried(target, {8: 11.0, 7: 9.9, 6: 8}, {10.0: 8, 9.09: 7})
    assert budgets == [10.0, 9.09]
    assert (result.before, result.asked, result.measured, result.attempts) == (20, 10, 9.9, 2)
    assert result.predicted == pytest.approx(100 / 11)


def test_the_next_budget_is_in_proportion_to_what_was_predicted() -> None:
    """Whichever budget led to that: steps of a layer's width may leave much of it unused."""
    search, budgets = search_of(LatencyTarget(target_ms=10), {8: 11.0, 7: 10.0}), list[float]()

    def plan_for(budget: float) -> tuple[Plan, float]:
        budgets.append(budget)
        return plan_of_width(search, 9 - len(budgets)), 9.0

    search.correct_budget(plan_for)
    assert budgets == pytest.approx([10, 9 * 10 / 11])


def test_of_all_attempts_the_nearest_is_taken() -> None:
    target, milliseconds = LatencyTarget(target_ms=10), {8: 10.4, 7: 9.0, 6: 8.0}
    leads_to = {10.0: 8, 9.62: 7, 9.89: 6, 9.99: 8}
    budgets, result = widths_tried(target, milliseconds, leads_to)
    assert budgets == [10.0, 9.62, 9.89, 9.89, 9.99]  # between these two there is nothing new
    assert result.measured == 10.4 and result.attempts == 3


def test_a_share_is_halved_until_the_time_is_met() -> None:
    search = search_of(LatencyTarget(target_ms=5), {n: 20 * n / 16 for n in range(1, 17)})
    shares = []

    def plan_for(share: float) -> Plan:
        shares.append(share)
        return plan_of_width(search, max(1, round(16 * (1 - share) ** 2)))

    _, result = search.bisect_share(plan_for)
    assert shares[:2] == [0.75, 0.375]  # what is to be saved; that was too much
    assert result.measured == 5 and result.attempts == len(shares)


def always(plan: Plan, share: float) -> Plan:
    return plan


def test_a_time_that_no_share_reaches_is_refused_unless_it_is_near() -> None:
    target = LatencyTarget(target_ms=5)
    for narrowest, refused in [(6.0, True), (5.2, False)]:
        search = search_of(target, {1: narrowest})
        plan = plan_of_width(search, 1)
        if refused:
            with pytest.raises(InputError, match=r"at least 6\.00 ms.*but 5\.00 ms is asked for"):
                search.bisect_share(partial(always, plan))
        else:
            assert search.bisect_share(partial(always, plan))[1].attempts == 1


def test_a_target_is_a_time_or_a_factor_and_a_part_of_the_way_there() -> None:
    assert LatencyTarget(target_ms=4).ms(10) == 4
    assert LatencyTarget(target_speedup=4).ms(10) == 2.5
    assert LatencyTarget(target_ms=4).at(0.25).ms(10) == 10 - 0.25 * 6
    assert LatencyTarget(target_speedup=4).at(1.0).ms(10) == 2.5
    assert LatencyTarget(target_ms=4.5).name == "4.5ms"
    assert LatencyTarget(target_speedup=2).at(0.5).name == "2x"


def test_a_result_says_what_was_asked_predicted_and_measured() -> None:
    result = LatencyResult(20, 10, 9.5, 10.1, 3)
    assert result.slow and result.missed == pytest.approx(0.01) and result.share == 0.5
    assert result.line() == (
        "asked 10.00 ms (2.00 times faster), predicted 9.50 ms, measured 10.10 ms "
        "(1.98 times faster), attempts: 3"
    )
    assert result.step() == (
        "asked 10.00 ms of 20.00 ms, predicted 9.50 ms, measured 10.10 ms, attempts: 3"
    )
    assert result.outcome() == (
        "20.00 ms before all cuts, asked 10.00 ms (2.00 times faster), measured 10.10 ms "
        "(1.98 times faster)"
    )
    far = replace(result, predicted=None, measured=9.0)
    assert "predicted" not in far.line() and not far.slow
    assert far.outcome().endswith("; 10.0% off the time, the nearest of what was tried")


def test_what_was_cut_before_stays_cut() -> None:
    predictor = LatencyPredictor(parse(TWO_LAYERS), (8, 8), LatencyTable(CONDITIONS, 4))
    netdef = parse(TWO_LAYERS)
    space = find_search_space(netdef)
    importance = {0: np.arange(16.0)}
    whole = PruningProblem.of(netdef, importance, predictor, Pruning())
    assert whole.widths[0] == [4, 8, 12, 16] and whole.widest == space.uncut
    before = whole.plan(Configuration((9, 6)))
    problem = PruningProblem.of(netdef, importance, predictor, Pruning(), before)
    assert problem.widths[0] == [4, 8, 9] and problem.narrowest.counts == (4, 6)
    assert problem.plan(problem.widest).equals(before)


def test_blocks_that_were_cut_before_stay_cut() -> None:
    netdef = config("yolov3", thinner=16)
    predictor = LatencyPredictor(netdef, (32, 32), LatencyTable(CONDITIONS, 4))
    importance = {
        n: np.ones(section.integer("filters"))
        for n, section in enumerate(netdef.layers)
        if section.kind == "convolutional"
    }
    whole = PruningProblem.of(netdef, importance, predictor, Pruning())
    first, second = sorted(whole.space.outer_blocks)[:2]
    before = Plan(netdef, np.ones(whole.space.channels.count, bool), (second,))
    problem = PruningProblem.of(netdef, importance, predictor, Pruning(), before)
    assert second not in problem.space.outer_blocks
    plan = problem.plan(replace(problem.widest, removed_blocks=(first,)))
    assert plan.blocks == (first, second)


def test_of_blocks_that_are_alike_the_least_important_goes_first() -> None:
    netdef = config("yolov3", thinner=16)
    predictor = LatencyPredictor(netdef, (32, 32), LatencyTable(CONDITIONS, 4))
    importance = {
        n: np.full(section.integer("filters"), float(-n % 7 + 1))
        for n, section in enumerate(netdef.layers)
        if section.kind == "convolutional" and section.flag("batch_normalize")
    }
    problem = PruningProblem.of(netdef, importance, predictor, Pruning())
    for blocks in problem.block_order():
        sums = [importance[b - 1].sum() + importance[b - 2].sum() for b in blocks]
        assert sums == sorted(sums)


def test_dead_units_are_those_without_a_channel_above_the_threshold() -> None:
    predictor = LatencyPredictor(parse(TWO_LAYERS), (8, 8), LatencyTable(CONDITIONS, 4))
    importance = {0: np.array([0.1] * 5 + [0.0] * 11)}
    problem = PruningProblem.of(parse(TWO_LAYERS), importance, predictor, Pruning())
    assert problem.without_dead(importance, 0.05).counts == (8, 6)  # 5, in steps of 4
    assert problem.without_dead(importance, 0.1).counts == (8, 6)
    assert problem.without_dead(importance, 0.2).counts == (4, 6)
    assert problem.without_dead({0: np.ones(16)}, 0.5).counts == (16, 6)


def test_a_budget_is_for_all_but_the_constant() -> None:
    """The narrowest of its cuts takes 4 ms of layers."""
    netdef = parse(TWO_LAYERS)
    table = LatencyTable(CONDITIONS, 4)
    predictor = LatencyPredictor(netdef, (8, 8), table, replace(UNFITTED, constant=3.0))
    space = find_search_space(netdef)
    for spec, inputs, outputs in table.missing(width_ranges(space, predictor)):
        table.add(spec, inputs, outputs, min(inputs, outputs) / 3 if inputs == 3 else inputs / 4)
    problem = PruningProblem.of(netdef, {0: np.arange(16.0)}, predictor, Pruning())
    assert problem.predict(problem.narrowest) == pytest.approx(5.0)
    assert problem.solve(4.99) is None
    found = problem.solve(5.01)
    assert found is not None and found.configuration == problem.narrowest
    found = problem.solve(8.01)
    assert found is not None and found.configuration == problem.widest


def test_protected_layers_and_shares_hold_in_a_cut_to_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_instead_of_timing(monkeypatch)
    model = trained(config("yolov3-tiny", thinner=8).with_protected([6]), 0)
    predictor, _ = fitted(model, tmp_path)
    settings = Pruning(layer_shares=("4:0.5",))
    problem = PruningProblem.of(model.netdef, gamma(model), predictor, settings)
    plan, result = prune(model, problem, LatencyTarget(target_speedup=1.5))
    assert result.missed < 0.05
    assert plan.layer_masks[6].all() and not plan.layer_masks[8].all()
    assert plan.layer_masks[4].sum() == len(plan.layer_masks[4]) / 2
