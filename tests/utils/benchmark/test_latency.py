"""Are the benchmark's figures what its times say?"""

import math

import pytest
import torch
from torch import nn

from import_param import Benchmark
from models.costs import count_operations
from tests.utils.backends.test_backends import trained
from utils.benchmark import networks
from utils.benchmark.latency import UPSTREAM, make_rows, measure
from utils.benchmark.networks import Candidate, Key, Peer, PeerNetwork, choose_devices, open_all
from utils.benchmark.tables import terminal_table
from utils.errors import InputError

TIMES = {
    Key("a", "torch", "fp32", 1): [9.0, 10.0, 11.0],
    Key("b", "torch", "fp32", 1): [5.0, 5.0, 5.0],
    Key("b", "opencv", "fp32", 4): [20.0, 20.0, 20.0],
}


@pytest.fixture
def candidates() -> list[Candidate]:
    return [Candidate("a", trained(), (64, 64)), Candidate("b", trained(), (64, 64))]


def test_a_row_says_what_the_times_say(candidates: list[Candidate]) -> None:
    first, second, third = make_rows(candidates, TIMES, peaks={"cpu": 1e9})
    assert (first.ms, first.ms_low, first.ms_high, first.speedup) == (10.0, 9.5, 10.5, 1.0)
    assert first.images_per_s == pytest.approx(100)
    assert second.speedup == 2.0
    assert third.images_per_s == pytest.approx(200)
    assert math.isnan(third.speedup)  # the first network was not measured there
    assert second.of_peak == pytest.approx(second.operations / 0.005 / 1e9)
    assert math.isnan(first.upstream)
    assert third.of_peak == pytest.approx(third.operations * 4 / 0.020 / 1e9)


def test_speed_against_the_upstream_is_by_network_and_batch(candidates: list[Candidate]) -> None:
    times = TIMES | {Key("a", UPSTREAM, "fp32", 1): [35.0], Key("b", UPSTREAM, "fp32", 1): [10.0]}
    rows = make_rows(candidates, times, peaks={"cpu": 1e9})
    upstream = {(row.network, row.engine): row.upstream for row in rows}
    assert (upstream["a", "torch"], upstream["b", "torch"], upstream["a", UPSTREAM]) == (
        3.5,
        2.0,
        1.0,
    )
    assert math.isnan(upstream["b", "opencv"])  # of another batch
    assert f"vs {UPSTREAM}" in terminal_table(rows)
    assert UPSTREAM not in terminal_table(make_rows(candidates, TIMES, peaks={"cpu": 1e9}))


def test_what_cannot_run_is_told_once_and_left_out(candidates: list[Candidate]) -> None:
    lines: list[str] = []
    settings = Benchmark(precision=("fp32", "int8"), batch_size=(1, 2), threads=1)
    opened = open_all(candidates, ["torch"], settings, {}, lines.append)
    assert sorted(opened) == [
        Key(name, "torch", "fp32", batch) for name in ("a", "b") for batch in (1, 2)
    ]
    assert len(lines) == 1 and "int8" in lines[0]
    key = Key("a", "torch", "fp32", 2)
    maps = opened[key](torch.rand(2, 3, 64, 64))
    assert isinstance(maps, list) and maps[0].shape[0] == 2
    with pytest.raises(InputError, match="no engine"):
        open_all(candidates, ["torch"], Benchmark(precision=("int8",)), {}, lines.append)


def test_a_peer_counts_for_its_own_network(candidates: list[Candidate]) -> None:
    """Here twice the layers of a 1x1 convolution from 3 to 5 channels, without its bias."""
    peers = {"other": Peer("other", lambda model, name: nn.Conv2d(3, 5, 1, bias=False))}
    settings = Benchmark(precision=("fp32", "bf16"), batch_size=(2,), rounds=1, seconds=1.0)
    opened = open_all(candidates[:1], [], settings, peers)
    assert list(opened) == [Key("a", "other", "fp32", 2)]
    (run,) = opened.values()
    assert isinstance(run, PeerNetwork)
    (row,) = measure(candidates, opened, settings)
    assert (row.parameters, row.operations) == (15, 2 * 15 * 64 * 64)
    assert math.isnan(row.file_mb) and row.ms > 0
    ours = count_operations(candidates[0].model.netdef, (64, 64))
    (own,) = make_rows(candidates, {row.key: [row.ms]}, peaks={"cpu": 1e9})
    assert own.operations == ours and own.of_peak == pytest.approx(2 * ours / row.ms / 1e6)


def test_each_device_has_its_own_peak_and_its_own_first_network(
    candidates: list[Candidate],
) -> None:
    times = TIMES | {key._replace(device="cuda"): [1.0] for key in TIMES}
    rows = make_rows(candidates, times, peaks={"cpu": 1e9, "cuda": 8e9})
    by_key = {row.key: row for row in rows}
    for key in TIMES:
        on_cpu, on_card = by_key[key], by_key[key._replace(device="cuda")]
        assert on_card.of_peak == pytest.approx(on_cpu.of_peak * on_cpu.ms / 8)
    assert by_key[Key("b", "torch", "fp32", 1)].speedup == 2
    assert by_key[Key("b", "torch", "fp32", 1, "cuda")].speedup == 1


def test_what_computes_on_cpus_alone_is_measured_there_alone(
    candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "choose_device", lambda name: torch.device("cpu"))
    lines: list[str] = []
    settings = Benchmark(precision=("fp32",), threads=1)
    devices = choose_devices(["cuda", "cpu", "cuda"])
    opened = open_all(
        candidates[:1], ["torch", "opencv"], settings, {}, lines.append, devices=devices
    )
    assert [(key.engine, key.device) for key in opened] == [
        ("torch", "cuda"),
        ("torch", "cpu"),
        ("opencv", "cpu"),
    ]
    assert lines == ["not on cuda: opencv, which computes on CPUs alone"]


def test_a_card_is_measured_beside_the_cpu_and_a_line_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_devices([], lines.append) == ["cpu"] and not lines
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(networks, "machine", lambda device: f"the {device.type} of a test")
    assert choose_devices([], lines.append) == ["cpu", "cuda"]
    assert "the cuda of a test" in lines[0]
    with pytest.raises(InputError, match="device='abacus': expected one that torch has"):
        choose_devices(["abacus"])
