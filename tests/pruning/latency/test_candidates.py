"""Of several cuts to a time, is the right one taken?"""

import math
from pathlib import Path

import numpy as np
import pytest

from import_param import Pruning
from models.netdef import NetDef, parse
from pruning.importance import Importance, gamma
from pruning.latency.candidates import Candidate, LatencyCandidates, choose_candidate
from pruning.latency.options import DEFAULTS, SearchOptions
from pruning.latency.search import LatencyResult, LatencySearch, LatencyTarget
from pruning.latency.search_space import find_search_space
from pruning.strategies import STRATEGIES
from pruning.surgeon import Plan, cut, keep_everything
from tests.pruning.fake_latency import METER, count_instead_of_timing, counted_latency
from tests.pruning.nets import config, trained
from utils.errors import InputError

ASKED = 10.0


def made(block: int, measured: float = ASKED) -> Candidate:
    """A cut that is told from others by its block."""
    netdef = parse("[net]\n[convolutional]\nfilters=4\n")
    return Plan(netdef, np.ones(1, bool), (block,)), LatencyResult(30.0, ASKED, None, measured, 1)


def taken(losses: dict[int, float], measured: dict[int, float]) -> int:
    candidates = {f"way {block}": made(block, measured.get(block, ASKED)) for block in losses}
    plan, _ = choose_candidate(candidates, lambda plan: losses[plan.blocks[0]])
    return plan.blocks[0]


def test_the_cut_that_loses_least_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    assert taken({0: 2.0, 1: 1.0, 2: 3.0}, {}) == 1
    assert "way 0 2.0000, way 1 1.0000, way 2 3.0000: way 1 taken" in capsys.readouterr().out
    assert taken({0: 1.0, 1: 1.0}, {}) == 0
    assert taken({0: 2.0, 1: 1.0}, {1: ASKED * (1 + DEFAULTS.reported_miss / 2)}) == 1


def test_a_cut_that_misses_the_time_is_taken_only_where_all_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    late, early = ASKED * (1 + 2 * DEFAULTS.reported_miss), ASKED * (1 - 3 * DEFAULTS.reported_miss)
    losses = {0: 1.0, 1: 2.0, 2: 3.0}
    assert taken(losses, {0: late}) == 1
    assert "way 0 1.0000 (off the time), way 1 2.0000, way 2" in capsys.readouterr().out
    assert taken(losses, {0: late, 1: early}) == 2
    assert taken(losses, {0: late, 1: early, 2: late}) == 0
    assert taken(losses, {0: ASKED * 2, 1: early, 2: late}) == 2, "the nearest"


def candidates_of(name: str, target: Pruning) -> LatencyCandidates:
    model = trained(config(name, thinner=4), 0)
    options = SearchOptions(timing_rounds=1, sampled_cuts=10)
    search = LatencySearch(
        model, model.netdef.size, LatencyTarget(target_speedup=2), METER, options
    )
    return LatencyCandidates(search, gamma(model), target)


@pytest.mark.parametrize(
    ("name", "ways"),
    [
        ("yolov3-lite", ["shares of layers", "plain sums", "slim"]),
        ("yolov3-mobilenetv2", ["shares of layers", "plain sums", "slim", "layer_channel"]),
    ],
)
def test_each_way_comes_near_the_time_with_what_the_settings_say(
    name: str, ways: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_instead_of_timing(monkeypatch)
    cuts = candidates_of(name, Pruning(percent=0.9, layer_keep=0.25, round_to=2))
    candidates = cuts.all(tmp_path / "table.csv")
    assert list(candidates) == ways
    space = find_search_space(cuts.search.model.netdef)
    for way, (plan, result) in candidates.items():
        assert result.missed < 0.1, way
        assert result.measured == counted_latency(cut(cuts.search.model, plan).netdef)
        for count, group in zip(space.configuration(plan).counts, space.groups, strict=True):
            assert count >= 0.25 * len(group) - 1e-9
            assert count % 2 == 0 or count == len(group)


def test_a_strategy_of_shares_comes_to_a_time_by_measuring(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count_instead_of_timing(monkeypatch)
    cuts = candidates_of("yolov3-lite", Pruning(round_to=1))
    plan, result = cuts.by_share("slim")
    assert result.missed < 0.05 and result.predicted is None
    assert result.measured == counted_latency(cut(cuts.search.model, plan).netdef)


def test_a_strategy_without_anything_to_judge_by_is_told_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count_instead_of_timing(monkeypatch)

    asked: set[tuple[str, int]] = set()

    def refuse(netdef: NetDef, importance: Importance, target: Pruning) -> Plan:
        asked.add((target.percent_of, target.round_to))
        raise InputError("all are alike")

    monkeypatch.setitem(STRATEGIES, "slim", refuse)
    candidates = candidates_of("yolov3-lite", Pruning()).all(tmp_path / "table.csv")
    assert list(candidates) == ["shares of layers", "plain sums"]
    assert "not tried: slim: all are alike" in capsys.readouterr().out
    assert asked == {("operations", 4)}, "in the table's steps, where no others are asked for"


@pytest.mark.parametrize(
    ("losses", "taken"),
    [
        ((math.nan, 2.0, 1.0), 2),
        ((2.0, math.nan, 3.0), 0),
        ((2.0, math.inf, math.nan), 0),
        ((math.nan, -math.inf, 3.0), 2),
    ],
)
def test_a_loss_that_is_no_number_never_wins(losses: tuple[float, ...], taken: int) -> None:
    plan = keep_everything(config("yolov3-lite", thinner=8))
    candidates = {str(n): (plan, LatencyResult(2.0, 1.0, None, 1.0, n)) for n in range(len(losses))}
    found = iter(losses)
    assert choose_candidate(candidates, lambda _: next(found))[1].attempts == taken
    with pytest.raises(InputError, match="no cut to that time has a loss"):
        choose_candidate(candidates, lambda _: math.nan)
