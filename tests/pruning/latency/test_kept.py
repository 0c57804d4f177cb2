"""Is every measurement kept, whenever the work is stopped, and is only the rest measured then?"""

import threading
from pathlib import Path

import pytest
import torch

from models.darknet import Darknet
from pruning.latency import meter
from pruning.latency.options import SearchOptions
from pruning.latency.predictor import fit_predictor, measured_layers
from pruning.latency.table import LatencyTable, WidthRange, read_table
from tests.pruning.fake_latency import CONDITIONS, METER, count_instead_of_timing, counted_latency
from tests.pruning.latency.test_table import PLAIN
from tests.pruning.nets import config
from utils.errors import InputError

RANGES = [WidthRange(PLAIN, (8, 64), (8, 8))]  # 8, 16, 32 and 64 inputs


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    count_instead_of_timing(monkeypatch)
    monkeypatch.setattr("pruning.latency.predictor.measure_channel_step", lambda *_: 8)


def measured(path: Path, told: list[str] | None = None) -> tuple[LatencyTable, int]:
    said = [] if told is None else told
    return measured_layers(path, lambda _: RANGES, METER, said.append)


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> list[int]:
    """Let the network after `count` raise an error; the list gets an entry a network run."""
    runs: list[int] = []

    def shortest_time(run: Darknet, image: object, options: object) -> float:
        if len(runs) == count:
            raise error
        runs.append(1)
        return counted_latency(run.netdef)

    monkeypatch.setattr(meter, "shortest_time", shortest_time)
    return runs


def test_each_layer_is_in_the_file_before_the_next_one_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So whatever ends the process, and without a word, loses one layer at most."""
    path, rows = tmp_path / "table.csv", list[int]()

    def shortest_time(run: Darknet, image: object, options: object) -> float:
        rows.append(len(read_table(path, CONDITIONS).keys()))
        return counted_latency(run.netdef)

    monkeypatch.setattr(meter, "shortest_time", shortest_time)
    measured(path)
    assert rows == [0, 0, 1, 1, 2, 2, 3, 3]  # what is around a layer, and with it


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("the engine is gone")])
@pytest.mark.parametrize("stop", range(8))
def test_after_a_stop_only_the_rest_is_measured(
    stop: int, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole.csv", tmp_path / "parts.csv"
    measured(whole)
    stop_after(stop, monkeypatch, error)
    with pytest.raises(type(error)):
        measured(parts)
    runs = stop_after(-1, monkeypatch, error)
    _, count = measured(parts)
    assert count == 4 - stop // 2 and len(runs) == 2 * count
    assert parts.read_bytes() == whole.read_bytes()
    assert measured(parts)[1] == 0 and len(runs) == 2 * count


def test_what_was_disturbed_before_a_stop_is_measured_again_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, quiet, runs = tmp_path / "table.csv", tmp_path / "quiet.csv", list[int]()
    measured(quiet)

    def disturbed(run: Darknet, image: object, options: object) -> float:
        if len(runs) == 5:
            raise KeyboardInterrupt
        runs.append(1)
        layers = run.netdef.layers
        other_work = len(layers) > 11 and layers[0].integer("filters") == 16
        return counted_latency(run.netdef) * (10 if other_work else 1)

    monkeypatch.setattr(meter, "shortest_time", disturbed)
    with pytest.raises(KeyboardInterrupt):
        measured(path)
    assert read_table(path, CONDITIONS).unchecked and "# interrupted: yes\n" in path.read_text()
    count_instead_of_timing(monkeypatch)
    assert measured(path)[1] == 2
    assert path.read_bytes() == quiet.read_bytes()


def test_a_disk_that_is_full_for_a_moment_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write, calls, told = tmp_path / "table.csv", LatencyTable.write, list[int](), list[str]()

    def full_at_times(table: LatencyTable, to: Path) -> None:
        calls.append(1)
        if 2 <= len(calls) <= 3:
            raise InputError(f"{to}: cannot be written: No space left on device")
        write(table, to)

    monkeypatch.setattr(LatencyTable, "write", full_at_times)
    table, _ = measured(path, told)
    assert read_table(path, CONDITIONS).points == table.points
    assert [line for line in told if "No space left" in line] == told and len(told) == 1


def test_a_table_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    runs = stop_after(-1, monkeypatch, KeyboardInterrupt())
    with pytest.raises(InputError, match=r"table\.csv: cannot be written"):
        measured(tmp_path / "file" / "table.csv")
    assert not runs


def test_two_at_once_lose_nothing_and_measure_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, runs, told, counts = tmp_path / "table.csv", list[str](), list[str](), list[int]()
    both = threading.Barrier(2)

    def shortest_time(run: Darknet, image: object, options: object) -> float:
        runs.append(run.netdef.text())
        return counted_latency(run.netdef)

    def work() -> None:
        both.wait()
        counts.append(measured(path, told)[1])

    monkeypatch.setattr(meter, "shortest_time", shortest_time)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(counts) == [0, 4] and len(runs) == len(set(runs)) == 8
    assert len(read_table(path, CONDITIONS).keys()) == 4


def test_a_table_that_is_complete_needs_no_folder_to_write_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.csv"
    measured(path)

    def refuse(*_: object) -> None:
        raise AssertionError("locked")

    monkeypatch.setattr("pruning.latency.predictor.alone", refuse)
    assert measured(path)[1] == 0


def test_a_prediction_is_the_same_whether_the_work_was_stopped_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Darknet(config("yolov3-tiny", thinner=8)).eval()
    options, size = SearchOptions(sampled_cuts=5), model.netdef.size
    torch.manual_seed(0)

    def fit(name: str) -> object:
        path = tmp_path / name
        return fit_predictor(model, size, METER, path, lambda _: None, options=options).coefficients

    whole = fit("whole.csv")
    for stop in (3, 20, 21):
        stop_after(stop, monkeypatch, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            fit("parts.csv")
    count_instead_of_timing(monkeypatch)
    assert fit("parts.csv") == whole
