"""Is the time met that is asked for, where latencies depend on the network alone?"""

from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from models.darknet import Darknet
from models.netdef import parse
from pruning.importance import gamma
from pruning.latency.options import SearchOptions
from pruning.latency.predictor import (
    FAMILIES,
    TRAFFIC,
    UNFITTED,
    Coefficients,
    LatencyPredictor,
    check_predictor,
    fit_coefficients,
    fit_predictor,
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
from pruning.latency.search_space import find_search_space, width_options
from pruning.latency.table import LatencyTable
from pruning.strategies import STRATEGIES, Target
from pruning.surgeon import Plan, cut, masked
from tests.pruning.fake_latency import CONDITIONS, METER, count_instead_of_timing, counted_latency
from tests.pruning.nets import config, error, forward_padding_constants, photos, trained
from utils.errors import InputError

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
    problem = PruningProblem.of(model.netdef, gamma(model), predictor, 0.1, 0)
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
    scores = gamma(model)

    def planned(budget: float) -> Plan | None:
        problem = PruningProblem.of(model.netdef, scores, predictor, 0.1, 0)
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
        PruningProblem.of(model.netdef, {}, predictor, 0.1, 0)


@pytest.mark.parametrize("strategy", ["slim", "layer_channel"])
def test_a_strategy_of_shares_comes_near_a_predicted_time(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_instead_of_timing(monkeypatch)
    model = trained(config("yolov3-mobilenetv2", thinner=4), 0)
    predictor, _ = fitted(model, tmp_path)
    scores, space = gamma(model), find_search_space(model.netdef)
    whole = predictor.network(space, space.uncut)
    planned = plan_by_prediction(
        space,
        predictor,
        lambda share: STRATEGIES[strategy](model.netdef, scores, Target(share, "operations")),
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
    scores = gamma(model)
    problem = PruningProblem.of(model.netdef, scores, predictor, 0.1, 8)
    solution = problem.solve(problem.predict(problem.narrowest) * 1.5)
    assert solution is not None
    plan = problem.plan(solution.configuration)
    for number, group in enumerate(problem.space.groups):
        if problem.space.can_cut(number):
            importance = sum(scores[m.layer][m.positions].sum(1) for m in group.scored_by)
            kept = plan.keep[group.units]
            assert kept.sum() == solution.configuration.counts[number]
            assert kept.all() or importance[kept].min() >= importance[~kept].max()


def test_layers_are_weighed_alike_unless_scores_are_summed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_instead_of_timing(monkeypatch)
    model = trained(config("yolov3-tiny", thinner=4), 0)
    predictor, _ = fitted(model, tmp_path)
    scores = {layer: (1 + layer) * found for layer, found in gamma(model).items()}
    by_share, by_sum = (
        PruningProblem.of(model.netdef, scores, predictor, 0.1, 8, summed=summed).importance()
        for summed in (False, True)
    )
    assert {found[-1] for _, found in by_share.values()} == {1.0}
    most = max(found.sum() for found in scores.values())
    for layer, (_, found) in by_sum.items():
        assert found[-1] == pytest.approx(scores[layer].sum() / most)


def test_options_are_steps_between_the_least_and_all() -> None:
    space = find_search_space(config("yolov3"))
    for options, group in zip(width_options(space, 0.25, 16), space.groups, strict=True):
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
    count_instead_of_timing(monkeypatch)
    model = trained(config("yolov3-lite", thinner=4), 0)
    size, path = model.netdef.size, tmp_path / "table.csv"
    predictor = fit_predictor(model, size, METER, path, lambda _: None, round_to)
    problem = PruningProblem.of(model.netdef, gamma(model), predictor, 0.0, round_to)
    _, result = prune(model, problem, LatencyTarget(target_speedup=1.3))
    assert 0 < problem.predict(problem.narrowest) < result.measured


def test_a_fit_finds_the_coefficients_that_networks_obey() -> None:
    rng = np.random.default_rng(0)
    truth = Coefficients.of([1.3, 0.8, 2.0, 1.0, 0.5, 0.0, 3.0, 4.0])
    features = rng.uniform(1, 9, (40, len(FAMILIES) + len(TRAFFIC) + 1))
    features[:, -1] = 1
    found = fit_coefficients(features, features @ truth.vector)
    assert np.abs(features @ found.vector / (features @ truth.vector) - 1).max() < 0.01
    alone = fit_coefficients(np.zeros((3, 8)) + UNFITTED.vector, np.full(3, UNFITTED.vector.sum()))
    assert np.allclose(alone.vector, UNFITTED.vector, atol=1e-6)


@pytest.mark.parametrize("target", [(0, 0), (3, 2)])
def test_one_time_is_asked_for(target: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="expected one of them above 0"):
        LatencyTarget(*target)


def test_noise_is_not_explained_by_one_part_of_the_network() -> None:
    rng = np.random.default_rng(1)
    features = rng.uniform(0.5, 1, (20, 8)) * [3, 9, 1, 0.2, 0.3, 0.1, 0.1, 1]
    features[:, -1] = 1
    noise = rng.uniform(0.3, 3, 20)
    found = fit_coefficients(features, features @ UNFITTED.vector * noise)
    factors = np.array(list(found.factors.values())) / np.median(noise)
    assert factors.min() >= 0.19 and factors.max() <= 5.01
    assert max(found.rates.values()) <= 10 * np.median(noise)


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
    problem = PruningProblem.of(model.netdef, gamma(model), noisy, 0.1, 0)
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
        return Plan(np.ones(1, bool), (int(budget),)), float(int(budget))

    def found(budget: float, known: dict[int, LatencyResult]) -> int | None:
        cuts = Mock(result_of=lambda plan: known.get(plan.blocks[0]))
        planned = new_plan(cuts, plan_for, budget)
        return planned and planned[0].blocks[0]

    assert found(8.5, {}) == 8
    assert found(8.5, {8: slow}) == 7 and found(8.95, {8: fast}) == 9
    assert found(8.9, {8: fast, 9: slow}) is None  # there is nothing between
    assert found(8.0, dict.fromkeys(range(8, 13), fast)) is None  # nor near
