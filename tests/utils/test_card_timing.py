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
from pruning.report import measure_latencies
from tests.pruning.fake_latency import CONDITIONS
from tests.pruning.latency.test_table import PLAIN
from tests.pruning.nets import config
from utils.backends import EngineOptions, auto
from utils.benchmark.latency import measure
from utils.benchmark.networks import Candidate, Key
from utils.checkpoint import Network
from utils.detection.background import StageTimer
from utils.detection.detector import Detector
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
    slow, quick = Card(3 * MS), Card()
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
        opened.append(Card(MS * (1 + 2 * len(opened))))  # what is around a layer, then with it
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
    monkeypatch.setattr(meters, "machine", lambda device: f"a {device.type} device")
    on_card = network().to("meta")
    meter = open_meter(on_card, SIZE, Runtime(engine="torch"))
    alone = network()
    meter.open(on_card, SIZE)
    meter.open(alone, SIZE)
    assert seen == ["meta", "meta"]
    assert next(alone.parameters()).device.type == "cpu"  # it stays where it was
    assert meter.conditions.machine == "a meta device"
    assert meter.table_path.name == "torch-fp32-meta.csv"
