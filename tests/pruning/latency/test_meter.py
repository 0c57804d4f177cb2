"""Is what is measured one layer, alone and without noise, on the engine that was asked for?"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from import_param import TORCH, Runtime
from models.darknet import Darknet, shapes
from pruning.latency import meter
from pruning.latency.meter import (
    LatencyMeter,
    LayerMeter,
    fill_table_,
    layer_net,
    measure_channel_step,
    noise_images,
    noisy,
    open_meter,
)
from pruning.latency.options import SearchOptions
from pruning.latency.predictor import input_shapes
from pruning.latency.table import LatencyTable, LayerSpec, WidthRange, layer_spec
from tests.pruning.fake_latency import CONDITIONS, METER, count_instead_of_timing, counted_latency
from tests.pruning.latency.test_table import DEPTHWISE, PLAIN, filled
from tests.pruning.nets import CONFIGS, config
from utils.backends import EngineOptions
from utils.visualization.draw import write_image

SIZE = (32, 32)


def test_layers_that_take_more_time_than_wider_ones_are_noisy() -> None:
    table = filled()
    assert not noisy(table, [PLAIN, DEPTHWISE])
    table.add(PLAIN, 64, 8, 1.0)
    table.add(DEPTHWISE, 16, 16, 1.0)
    found = noisy(table, [PLAIN, DEPTHWISE])
    assert (PLAIN, 16, 8) in found and (PLAIN, 64, 8) in found
    assert {(DEPTHWISE, 4, 4), (DEPTHWISE, 16, 16)} <= set(found)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_layer_can_be_measured_alone(name: str) -> None:
    netdef = config(name, thinner=8)
    reads, outputs = input_shapes(netdef, netdef.size), shapes(netdef)
    specs = {}
    for index in range(len(netdef.layers)):
        spec = layer_spec(netdef, index, reads[index][0])
        if spec:
            specs[spec, reads[index][0][0], outputs[index][0]] = outputs[index]
    for (spec, inputs, writes), shape in specs.items():
        small = layer_net(spec, (inputs, spec.height, spec.width), writes)
        assert shapes(small)[3] == shape
        Darknet(small)


@pytest.mark.parametrize(("padding", "side"), [(1, 8), (4, 2)])
def test_a_layer_that_pads_more_than_it_reads_can_be_measured(padding: int, side: int) -> None:
    text = f"convolutional activation=leaky padding={padding} size=1 stride=1"
    small = layer_net(LayerSpec(text, 0, 0, side, side), (4, side, side), 6)
    grown = side + 2 * padding
    assert shapes(small)[3] == (6, grown, grown) and shapes(small)[4][1:] == (1, 1)


def test_of_a_wide_upsampling_one_pixel_is_read() -> None:
    small = layer_net(LayerSpec("upsample stride=8", 0, 0, 4, 4), (6, 4, 4), 6)
    assert shapes(small)[3] == (6, 32, 32) and shapes(small)[4] == (6, 1, 1)


def test_what_is_measured_is_one_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    count_instead_of_timing(monkeypatch)
    table = LatencyTable(CONDITIONS)
    count = fill_table_(
        table, [WidthRange(PLAIN, (8, 16), (4, 4)), WidthRange(DEPTHWISE, (8, 8), (8, 8))], METER
    )
    assert count == 3
    head = 2 * 6 / 1e6  # of the head, for a channel more of a copy than of the map
    for inputs in (8, 16):
        wanted = 2 * 9 * inputs * 4 * 64 / 1e6 + (4 - inputs) * head
        assert table.points[PLAIN][inputs, 4] == pytest.approx(wanted)
    assert table.points[DEPTHWISE][8, 8] == pytest.approx(2 * 9 * 8 * 64 / 1e6)
    assert fill_table_(table, [WidthRange(PLAIN, (8, 16), (4, 4))], METER) == 0


def test_a_step_is_found_where_time_moves_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (4, 8, 16, 32):

        def shortest_time(run: Darknet, image: object, options: object, step: int = step) -> float:
            layers = run.netdef.layers
            width = layers[0].integer("filters")
            return float((-(-width // step)) ** 2) if len(layers) > 11 else 0.0

        monkeypatch.setattr(meter, "shortest_time", shortest_time)
        assert measure_channel_step(METER) == step


def test_int8_is_calibrated_on_photos_of_the_networks_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And single layers on noise; nothing of it is kept."""
    write_image(tmp_path / "grey.png", np.full((9, 9, 3), 51, np.uint8))
    seen: list[Tensor] = []

    class Fastest:
        name = "onnxruntime"
        precision = "int8"

    def open_engine(name: str, model: Darknet, options: EngineOptions) -> Fastest:
        assert (name, options.use_cache) == ("onnxruntime" if seen else "auto", False)
        (photos,) = options.calibration or ()
        seen.append(photos)
        assert photos.shape == (1, 3, options.size[1], options.size[0])
        return Fastest()

    monkeypatch.setattr(meter, "open_engine", open_engine)
    model = Darknet(config("yolov3-lite", thinner=8))
    runtime = Runtime(engine="auto", precision="int8", threads=1, calibration=str(tmp_path))
    engine = open_meter(model, (64, 32), runtime)
    engine.open(model, (64, 32))
    engine.open(model, (32, 64))
    assert [bool((photos - 0.2).abs().max() < 1e-4) for photos in seen] == [True, True, False]
    assert "nncf" not in engine.conditions.versions and engine.conditions.precision == "int8"


def test_a_disturbed_layer_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first measurement of one layer takes ten times as long; the others are run once."""
    runs: dict[str, int] = {}

    def shortest_time(run: Darknet, image: object, options: object) -> float:
        text = run.netdef.text()
        runs[text] = runs.get(text, 0) + 1
        widths = [section.integer("filters", 0) for section in run.netdef.layers]
        disturbed = widths[0] == 16 and len(widths) > 11 and runs[text] == 1
        return counted_latency(run.netdef) * (10 if disturbed else 1)

    monkeypatch.setattr(meter, "shortest_time", shortest_time)
    table = LatencyTable(CONDITIONS)
    assert fill_table_(table, [WidthRange(PLAIN, (8, 64), (8, 8))], METER) == 4
    quiet = LatencyTable(CONDITIONS)
    count_instead_of_timing(monkeypatch)
    fill_table_(quiet, [WidthRange(PLAIN, (8, 64), (8, 8))], METER)
    assert table.points == quiet.points
    # 16 and 32 channels, with the layers and without: twice; 8 and 64 channels: once.
    assert sorted(runs.values()) == [1, 1, 1, 1, 2, 2, 2, 2]


def test_what_stays_noisy_is_given_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []

    def shortest_time(run: Darknet, image: object, options: object) -> float:
        layers = run.netdef.layers
        runs.append(len(layers))
        return 1 + 1 / layers[0].integer("filters") if len(layers) > 11 else 1

    monkeypatch.setattr(meter, "shortest_time", shortest_time)
    table = LatencyTable(CONDITIONS)
    fill_table_(table, [WidthRange(PLAIN, (8, 16), (4, 4))], METER, options=SearchOptions())
    assert len(runs) == 2 * 2 * SearchOptions().layer_attempts
    assert table.points[PLAIN][8, 4] == pytest.approx(1 / 8 / 3, rel=1e-5)


def test_the_shortest_time_of_all_attempts_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 40.0, 16.0, 12.0])  # around, with the layers; and again
    monkeypatch.setattr(meter, "shortest_time", lambda *_: next(times))
    layers = LayerMeter(METER, SearchOptions(layer_copies=2))
    assert layers.layer(PLAIN, 8, 8, 0) == 15
    assert layers.layer(PLAIN, 8, 8, 0) == 15  # the same attempt: nothing is run
    assert layers.layer(PLAIN, 8, 8, 1) == 1


def test_a_layer_takes_no_less_than_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 9.0])
    monkeypatch.setattr(meter, "shortest_time", lambda *_: next(times))
    assert LayerMeter(METER).layer(PLAIN, 8, 8) == 0


def test_networks_are_timed_by_their_lower_quartile(monkeypatch: pytest.MonkeyPatch) -> None:
    """In turns; an image is of the size that is asked for, and the same each time."""
    turns = []

    def interleaved(
        calls: Mapping[str, Callable[[], object]], rounds: int, clock: object
    ) -> object:
        assert rounds == 5
        for call in calls.values():
            call()
        return {name: [3.0, 9.0, 1.0, 8.0, 2.0 + int(name)] for name in calls}

    monkeypatch.setattr(meter, "interleaved", interleaved)
    record = LatencyMeter(
        "record", lambda model, size: lambda image: turns.append((model, image)), CONDITIONS
    )
    models = [Darknet(config("yolov3-lite", thinner=8)) for _ in range(2)]
    assert record.time_networks(models, (48, 32), 5).tolist() == [2, 3]
    assert [model for model, _ in turns] == models
    assert turns[0][1].shape == (1, 3, 32, 48) and turns[0][1].equal(turns[1][1])


def test_the_shortest_of_enough_runs_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of calls that take 1, 2, 3, … seconds, the first one is not timed."""
    now, calls = [0.0], []

    def run(image: object) -> None:
        calls.append(image)
        now[0] += len(calls)

    monkeypatch.setattr("pruning.latency.meter.time.perf_counter", lambda: now[0])
    options = SearchOptions(least_runs=3, least_seconds=0.5)
    assert meter.shortest_time(run, noise_images((8, 8)), options) == 2000
    assert len(calls) == 1 + 3
    calls.clear()
    meter.shortest_time(run, noise_images((8, 8)), SearchOptions(least_runs=1, least_seconds=8.5))
    assert len(calls) == 1 + 3  # 2 + 3 + 4 seconds


def test_milliseconds_are_those_of_one_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks, layers and the step are timed on as many images as were asked for at once."""
    now, seen = [0.0], list[int]()

    def run(images: Tensor) -> None:
        seen.append(len(images))
        now[0] += 0.03 + 0.01 * len(images)

    monkeypatch.setattr("pruning.latency.meter.time.perf_counter", lambda: now[0])
    for batch in (1, 16):
        four = LatencyMeter("four", lambda *_: run, replace(CONDITIONS, batch=batch))
        each = 10 + 30 / batch
        assert four.time_runs([run, run], SIZE, 2) == pytest.approx([each, each])
        assert meter.shortest_time(run, four.images(SIZE)) == pytest.approx(each)
        assert LayerMeter(four).layer(PLAIN, 4, 4) == pytest.approx(0.0, abs=1e-6)
        assert measure_channel_step(four) == 32  # where no width costs anything
        assert set(seen) == {batch}
        seen.clear()


def test_engines_are_opened_for_as_many_images_as_are_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[int] = []

    def open_engine(name: str, model: Darknet, options: EngineOptions) -> Darknet:
        opened.append(options.batch)
        return model

    monkeypatch.setattr(meter, "open_engine", open_engine)
    model = Darknet(config("yolov3-lite", thinner=8)).eval()
    runtime = Runtime(engine="torch", threads=2)
    several = open_meter(model, SIZE, runtime, batch=4)
    several.open(model, SIZE)
    assert opened == [4] and several.conditions.batch == 4
    assert several.table_path == Path("runs/latency/torch-fp32-2-batch4.csv")
    assert several.images(SIZE).shape == (4, 3, 32, 32)
    auto = replace(runtime, engine="auto", precision="bf16")
    monkeypatch.setattr(Darknet, "name", "torch", raising=False)
    monkeypatch.setattr(Darknet, "precision", "bf16", raising=False)
    assert open_meter(model, SIZE, auto, batch=4).conditions.batch == 4 and opened == [4, 4]


def test_the_file_of_a_table_is_named_by_engine_precision_and_threads() -> None:
    runtime = Runtime(engine="torch", threads=3)
    opened = open_meter(Darknet(config("yolov3-lite", thinner=8)), (32, 32), runtime)
    assert opened.name == "torch fp32, threads: 3"
    assert opened.table_path == Path("runs/latency/torch-fp32-3.csv")
    assert opened.conditions.versions.startswith("torch-")
    unlimited = open_meter(Darknet(config("yolov3-lite", thinner=8)), (32, 32), TORCH)
    assert unlimited.name == "torch fp32"
    assert unlimited.conditions.threads == torch.get_num_threads()
