"""Is what is measured one layer, alone and without noise, on the engine that was asked for?"""

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from import_param import Runtime
from models.darknet import Darknet, shapes
from pruning.latency import meter
from pruning.latency.meter import (
    fill_table_,
    layer_net,
    measure_channel_step,
    noisy,
    open_meter,
)
from pruning.latency.predictor import input_shapes
from pruning.latency.table import LatencyTable, LayerSpec, WidthRange, layer_spec
from tests.pruning.fake_latency import CONDITIONS, METER, count_instead_of_timing
from tests.pruning.latency.test_table import DEPTHWISE, PLAIN, filled
from tests.pruning.nets import CONFIGS, config
from utils.backends import EngineOptions
from utils.visualization.draw import write_image


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


def test_what_is_measured_is_one_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    count_instead_of_timing(monkeypatch)
    table = LatencyTable(CONDITIONS)
    count = fill_table_(
        table, [WidthRange(PLAIN, (8, 16), (4, 4)), WidthRange(DEPTHWISE, (8, 8), (8, 8))], METER
    )
    assert count == 3
    head = 2 * 6 / 1e6  # of the head, for a channel more of a copy
    for inputs in (8, 16):
        wanted = 2 * 9 * inputs * 4 * 64 / 1e6 + 4 * head
        assert table.points[PLAIN][inputs, 4] == pytest.approx(wanted)
    assert table.points[DEPTHWISE][8, 8] == pytest.approx(2 * 9 * 8 * 64 / 1e6 + 8 * head)
    assert fill_table_(table, [WidthRange(PLAIN, (8, 16), (4, 4))], METER) == 0


def test_a_step_is_found_where_time_moves_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (4, 8, 16, 32):

        def shortest_time(run: Darknet, image: object, options: object, step: int = step) -> float:
            layers = run.netdef.layers
            width = layers[0].integer("filters")
            return float((-(-width // step)) ** 2) if len(layers) > 6 else 0.0

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

    def open_engine(name: str, model: Darknet, options: EngineOptions) -> Fastest:
        assert (name, options.use_cache) == ("onnxruntime" if seen else "auto", False)
        (photos,) = options.calibration or ()
        seen.append(photos)
        assert photos.shape == (1, 3, options.size[1], options.size[0])
        return Fastest()

    monkeypatch.setattr(meter, "open_engine", open_engine)
    model = Darknet(config("yolov3-lite", thinner=8))
    runtime = Runtime(backend="auto", precision="int8", threads=1, calibration=str(tmp_path))
    engine = open_meter(model, (64, 32), runtime)
    engine.open(model, (64, 32))
    engine.open(model, (32, 64))
    assert [bool((photos - 0.2).abs().max() < 1e-4) for photos in seen] == [True, True, False]
    assert "nncf" not in engine.conditions.versions and engine.conditions.precision == "int8"
