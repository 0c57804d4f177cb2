"""An engine that returns at once and is done later, as one on a card: nobody times its launches."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from import_param import Benchmark, Nms, Runtime
from models.darknet import Darknet
from pruning.latency import meter as meters
from pruning.latency.meter import LatencyMeter, LayerMeter, noise_images, open_meter, shortest_time
from pruning.latency.options import SearchOptions
from pruning.latency.table import LatencyTable, read_table
from pruning.report import measure_latencies
from tests.pruning.fake_latency import CONDITIONS
from tests.pruning.latency.test_table import PLAIN
from tests.pruning.nets import config
from utils.backends import EngineOptions, auto
from utils.benchmark.latency import measure
from utils.benchmark.networks import Candidate, Key
from utils.checkpoint.network import Network
from utils.detection.background import StageTimer
from utils.detection.detector import Detector
from utils.errors import InputError
from utils.structures import Detections
from utils.timing import interleaved

SIZE, MS = (32, 32), 5.0


class Card:
    """Takes MS for each call, and lets the caller go on meanwhile."""

    name, precision, size = "card", "fp32", SIZE

    def __init__(self, milliseconds: float = MS) -> None:
        self.seconds, self.busy_until = milliseconds / 1000, 0.0

    def __call__(self, images: Tensor) -> list[Tensor]:
        self.busy_until = max(self.busy_until, time.perf_counter()) + self.seconds
        return [torch.zeros(len(images), 18, 1, 1)]

    def synchronize(self) -> None:
        time.sleep(max(0.0, self.busy_until - time.perf_counter()))


def network() -> Darknet:
    return Darknet(config("yolov3-lite", thinner=8)).eval()


def test_engines_are_compared_by_the_time_to_their_end() -> None:
    slow, quick = Card(8 * MS), Card()
    times = auto.compare(slow, quick, EngineOptions(SIZE), interleaved)
    assert times[0] > 2 * times[1] >= 2 * MS


def test_prune_and_its_search_time_networks_to_their_end() -> None:
    meter = LatencyMeter("card", lambda *_: Card(), CONDITIONS)
    (one, two), _ = measure_latencies([network(), network()], SIZE, 2, meter)
    assert one >= MS and two >= MS
    assert (meter.time_runs([Card()], SIZE, 2) >= MS).all()


def test_layers_are_timed_to_their_end() -> None:
    options = SearchOptions(least_runs=2, least_seconds=0.0)
    assert shortest_time(Card(), noise_images(SIZE), options) >= MS
    opened: list[Card] = []

    def open_(*_: object) -> Card:
        opened.append(Card(MS * (1 + 20 * len(opened))))  # what is around a layer, then with it
        return opened[-1]

    layers = LayerMeter(LatencyMeter("card", open_, CONDITIONS), options)
    assert layers.layer(PLAIN, 4, 4) * options.layer_copies >= MS


def test_benchmark_times_to_the_end() -> None:
    candidate = Candidate("a", network(), SIZE)
    key = Key("a", "card", "fp32", 1)
    (row,) = measure([candidate], {key: Card()}, Benchmark(rounds=2))
    assert row.ms >= MS


def test_detection_tells_the_networks_time_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def predict(_: object, images: Tensor, *more: object, run: Card, **by: Any) -> list[object]:
        run(images)
        by["on_network_done"]()
        none = torch.zeros(0)
        return [Detections(torch.zeros(0, 4), none, none.long())] * len(images)

    monkeypatch.setattr("utils.detection.detector.predict", predict)
    timer = StageTimer()
    detector = Detector(Network(network(), ("a",), SIZE, False), Card(), timer, Nms())
    detector.detect([detector.picture(np.zeros((32, 32, 3), np.uint8), "a", "a.png")])
    assert timer.seconds["network"] >= MS / 1000


def test_all_that_a_meter_opens_is_where_the_network_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not layers on the CPU beside networks on the card."""
    seen: list[str] = []

    def open_engine(name: str, model: Darknet, options: EngineOptions) -> Card:
        seen.append(next(model.parameters()).device.type)
        return Card()

    monkeypatch.setattr(meters, "open_engine", open_engine)
    monkeypatch.setattr(meters, "machine", lambda device: f"a {device.type} device, driver 1.2")
    on_card = network().to("meta")
    meter = open_meter(on_card, SIZE, Runtime(engine="torch"))
    alone = network()
    meter.open(on_card, SIZE)
    meter.open(alone, SIZE)
    assert seen == ["meta", "meta"]
    assert next(alone.parameters()).device.type == "cpu"  # it stays where it was
    assert (meter.conditions.machine, meter.conditions.threads) == ("a meta device, driver 1.2", 0)
    assert meter.table_path.name == "torch-fp32-a-meta-device.csv"
    assert meter.images(SIZE).device.type == "meta"  # nor is it timed how photos get there


def test_a_table_of_a_cpu_and_one_of_a_card_are_not_taken_for_each_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor those of two cards, of two drivers of a card, or of other batches."""
    cards = iter(["A 1, driver 1", "A 1, driver 2", "A 2, driver 1", "A 2, driver 1"])
    monkeypatch.setattr(meters, "machine", lambda device: next(cards))
    runtime, on_card = Runtime(engine="torch"), network().to("meta")
    opened = [
        open_meter(network(), SIZE, runtime),
        *(open_meter(on_card, SIZE, runtime, batch=batch) for batch in (1, 1, 1, 16)),
    ]
    assert len({meter.conditions for meter in opened}) == len(opened)
    paths = [meter.table_path for meter in opened]
    assert paths[1] == paths[2] and len(set(paths)) == len(opened) - 1
    for meter in opened:
        path = tmp_path / "table.csv"
        LatencyTable(meter.conditions).write(path)
        for other in opened:
            if other is meter:
                assert read_table(path, other.conditions).conditions == meter.conditions
            else:
                with pytest.raises(InputError, match="to which it is to apply"):
                    read_table(path, other.conditions)
