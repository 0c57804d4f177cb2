"""Are the benchmark's figures what its times say?"""

import csv
import io
import math
from pathlib import Path

import pytest
import torch

from tests.utils.backends.test_backends import trained
from utils.benchmark.latency import (
    UPSTREAM,
    Candidate,
    csv_table,
    markdown_table,
    open_all,
    plot,
    rows,
    terminal_table,
)
from utils.errors import InputError

TIMES = {
    ("a", "torch", "fp32", 1): [9.0, 10.0, 11.0],
    ("b", "torch", "fp32", 1): [5.0, 5.0, 5.0],
    ("b", "opencv", "fp32", 4): [20.0, 20.0, 20.0],
}


@pytest.fixture
def candidates() -> list[Candidate]:
    return [Candidate("a", trained(), (64, 64)), Candidate("b", trained(), (64, 64))]


def test_a_row_says_what_the_times_say(candidates: list[Candidate]) -> None:
    first, second, third = rows(candidates, TIMES, peak=1e9)
    assert (first.ms, first.ms_low, first.ms_high, first.speedup) == (10.0, 9.5, 10.5, 1.0)
    assert first.images_per_s == pytest.approx(100)
    assert second.speedup == 2.0
    assert third.images_per_s == pytest.approx(200)
    assert math.isnan(third.speedup)  # the first network was not measured there
    assert second.of_peak == pytest.approx(second.operations / 0.005 / 1e9)
    assert math.isnan(first.upstream)
    assert third.of_peak == pytest.approx(third.operations * 4 / 0.020 / 1e9)


def test_speed_against_the_upstream_is_by_network_and_batch(candidates: list[Candidate]) -> None:
    times = TIMES | {("a", UPSTREAM, "fp32", 1): [35.0], ("b", UPSTREAM, "fp32", 1): [10.0]}
    found = {(row.network, row.engine): row.upstream for row in rows(candidates, times, peak=1e9)}
    assert (found["a", "torch"], found["b", "torch"], found["a", UPSTREAM]) == (3.5, 2.0, 1.0)
    assert math.isnan(found["b", "opencv"])  # of another batch
    assert f"vs {UPSTREAM}" in terminal_table(rows(candidates, times, peak=1e9))
    assert UPSTREAM not in terminal_table(rows(candidates, TIMES, peak=1e9))


def test_tables_and_plot_hold_every_row(candidates: list[Candidate], tmp_path: Path) -> None:
    found = rows(candidates, TIMES, peak=1e9)
    table = list(csv.DictReader(io.StringIO(csv_table(found))))
    assert [row["network"] for row in table] == ["a", "b", "b"]
    assert float(table[0]["ms"]) == 10.0
    assert markdown_table(found, "how").count("\n|") == len(found) + 1
    plot(found, tmp_path / "benchmark.png")
    assert (tmp_path / "benchmark.png").stat().st_size > 1000


def test_what_cannot_run_is_told_once_and_left_out(candidates: list[Candidate]) -> None:
    said: list[str] = []
    opened = open_all(candidates, ["torch"], ["fp32", "int8"], [1, 2], 1, said.append)
    assert sorted(opened) == [
        (name, "torch", "fp32", batch) for name in ("a", "b") for batch in (1, 2)
    ]
    assert len(said) == 1 and "int8" in said[0]
    assert opened["a", "torch", "fp32", 2](torch.rand(2, 3, 64, 64))[0].shape[0] == 2
    with pytest.raises(InputError, match="no engine"):
        open_all(candidates, ["torch"], ["int8"], [1], 1, said.append)
