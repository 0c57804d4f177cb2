"""Of several cuts to a time, is the right one taken?"""

import numpy as np
import pytest

from models.netdef import parse
from pruning.latency.candidates import Candidate, choose_candidate
from pruning.latency.options import DEFAULTS
from pruning.latency.search import LatencyResult
from pruning.surgeon import Plan

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
