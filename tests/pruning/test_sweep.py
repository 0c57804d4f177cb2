"""Is the safe ratio the last one before its mAP falls?"""

import math
from pathlib import Path

import pytest

from models.costs import count_parameters
from models.darknet import Darknet
from pruning.plots import plot_scales, plot_sweep
from pruning.sweep import (
    PERCENTS,
    SAFE_LOSS,
    SweepPoint,
    safe_point,
    safe_ratio_line,
    sweep,
    sweep_table,
)
from tests.pruning.nets import as_batch, config, photos, pruning_target, trained


def points(*values: float) -> list[SweepPoint]:
    return [SweepPoint(n / 10, value, 0.0, 1000 - n, 2000 - n) for n, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "percent"),
    [
        ((0.8, 0.8, 0.79, 0.8 - SAFE_LOSS - 1e-3, 0.8), 0.2),  # what recovers by chance is not safe
        ((0.8, 0.7), 0.0),
        ((0.8, 0.9, 0.85), 0.2),
    ],
)
def test_the_last_before_it_falls(values: tuple[float, ...], percent: float) -> None:
    safe = safe_point(points(*values))
    assert safe and safe.percent == percent


def test_the_shares_rise_to_below_the_whole() -> None:
    assert list(PERCENTS) == sorted(set(PERCENTS)) and PERCENTS[0] > 0 and PERCENTS[-1] < 1


def test_the_safe_ratio_is_told_unless_there_is_nothing_to_lose() -> None:
    line = safe_ratio_line([SweepPoint(0.0, 0.5, 0.5, 9, 8), SweepPoint(0.3, 0.2, 0.49, 5, 4)])
    assert line == (
        "Safe ratio: percent=0.3: mAP 0.4900, 0.5000 uncut (up to 0.0200 less counts as safe), "
        "with 2.0 times fewer operations"
    )
    assert safe_ratio_line(points(0.5, 0.4)) == (
        "Safe ratio: none: each cut costs more than 0.0200 of mAP 0.5000"
    )


@pytest.mark.parametrize("whole", [0.0, 0.024, 0.099])
def test_of_a_network_that_detects_hardly_anything_no_ratio_is_told(whole: float) -> None:
    cut_to_nothing = points(whole, whole, 0.99 * whole)
    assert safe_point(cut_to_nothing) is None
    assert safe_ratio_line(cut_to_nothing) == (
        f"Too little is detected yet to tell a safe ratio: mAP {whole:.4f} uncut, below 0.1"
    )


def test_what_counts_as_safe_is_less_of_a_network_that_detects_little() -> None:
    safe = safe_point(points(0.2, 0.191, 0.189))
    assert safe and safe.percent == 0.1


def test_a_network_without_a_map_is_not_safe() -> None:
    safe = safe_point([*points(0.5, 0.5), SweepPoint(0.2, math.nan, math.nan, 1, 1)])
    assert safe and safe.percent == 0.1


def test_the_better_statistics_count() -> None:
    assert SweepPoint(0.1, 0.5, 0.6, 1, 1).mean_ap == SweepPoint(0.1, 0.6, 0.5, 1, 1).mean_ap == 0.6
    assert SweepPoint(0.1, math.nan, 0.6, 1, 1).mean_ap == 0.6
    assert SweepPoint(0.1, 0.6, math.nan, 1, 1).mean_ap == 0.6


@pytest.mark.parametrize("strategy", ["slim", "layer"])
def test_every_point_is_a_smaller_network_and_the_whole_stays(strategy: str) -> None:
    model = trained(config("yolov3-mobilenetv2", thinner=16), 0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen: list[int] = []

    def measure(network: Darknet) -> float:
        assert not network.training
        seen.append(count_parameters(network))
        return 0.5

    batches = [as_batch(photos(model.netdef))]
    found = sweep(model, strategy, pruning_target(0.5), measure, batches, (0.2, 0.21, 0.5, 0.8))
    assert seen[0] == found[0].parameters == count_parameters(model)
    assert [seen[1::2], seen[2::2]] == [[p.parameters for p in found[1:]]] * 2
    sizes = [point.parameters for point in found]
    assert sizes == sorted(set(sizes), reverse=True) and len(sizes) >= 3
    assert all((tensor == before[name]).all() for name, tensor in model.state_dict().items())


def test_tables_and_pictures(tmp_path: Path) -> None:
    assert "0.001 M" in sweep_table(points(0.8, 0.7))
    plot_sweep(points(0.8, 0.7), "slim", tmp_path / "percent.png")
    row = {f"scales/{n}0 %": n / 10 for n in range(1, 10)}
    history = {1.0: {**row, "sparsity/below 0.01": 0.1, "mAP/mAP@.5": 0.5}, 2.0: {"lr/lr": 1.0}}
    plot_scales(history, {0: 0.5, 3: 0.25}, tmp_path / "scales.png")
    plot_scales({}, {0: 0.5}, tmp_path / "moved.png")  # its rows stayed on another machine
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("percent.png", "scales.png"))
