"""Does the table of layers say what was measured, between the rows too, and survive its file?"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

import pruning.latency.table
from models.darknet import Darknet, shapes
from pruning.latency.table import (
    CostTable,
    Kind,
    Span,
    doubtful,
    kind_of,
    layer_net,
    measure_step,
    measure_table_,
    read_shapes,
    read_table,
    timer,
)
from tests.pruning.clocks import stop_clocks
from tests.pruning.nets import CONFIGS, config
from utils.errors import InputError
from utils.visualization.draw import write_image

PLAIN = Kind("convolutional activation=leaky pad=1 size=3 stride=1", 0, 0, 8, 8)
DEPTHWISE = replace(PLAIN, group_inputs=1, group_outputs=1)
ABOUT = {"engine": "torch", "machine": "any, of 2 cores"}


def filled(step: int = 1) -> CostTable:
    table = CostTable(dict(ABOUT), step)
    for i in (8, 16, 64):
        for o in (8, 32):
            table.add(PLAIN, i, o, 1 + i * o + 2 * i + 3 * o)
    for n in (4, 16):
        table.add(DEPTHWISE, n, n, 2.0 * n)
    return table


def test_between_rows_it_is_linear_in_each_width() -> None:
    reads, writes = np.array([8, 10, 16, 40, 64.0]), np.array([32, 9, 8, 20, 31.0])
    wanted = 1 + reads * writes + 2 * reads + 3 * writes
    assert np.allclose(filled().ms(PLAIN, reads, writes), wanted)
    assert filled().ms(DEPTHWISE, np.array([7.0]), np.array([7.0])) == pytest.approx(14)
    with pytest.raises(ValueError, match="measured at"):
        filled().ms(PLAIN, np.array([65.0]), np.array([8.0]))


def test_a_width_costs_what_the_next_step_costs() -> None:
    table = filled(16)
    got = table.ms(PLAIN, np.array([17.0, 32, 10]), np.array([17.0, 32, 10]))
    exact = table.ms(PLAIN, np.array([32.0, 32, 10]), np.array([32.0, 32, 10]))
    assert np.allclose(got, exact)


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    path, table = tmp_path / "a" / "costs.csv", filled(8)
    table.write(path)
    again = read_table(path, ABOUT)
    assert again.points == table.points and again.step == 8 and again.about == ABOUT
    again.write(tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("engine: torch", "engine: other", "engine='other': expected 'torch'"),
        ("step: 8", "step: x", "1: 'x': expected a number"),
        ("layer,group_inputs", "layers,group_inputs", "4: expected the columns layer"),
        (",8,8,8,8,", ",8,8,8,", ": 7 values: expected 8"),
        (",16,16,32\n", ",16,16,-3\n", "'-3': expected a number of at least 0"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    tmp_path: Path, old: str, new: str, line: str
) -> None:
    path = tmp_path / "costs.csv"
    filled(8).write(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as error:
        read_table(path, ABOUT)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_only_what_is_missing_is_measured() -> None:
    table, span = filled(), Span(PLAIN, (8, 64), (8, 32))
    missing = {key[1:] for key in table.missing([span, span])}
    assert missing == {(8, 16), (16, 16), (32, 8), (32, 16), (32, 32), (64, 16)}
    assert table.missing([Span(DEPTHWISE, (4, 16), (4, 16))]) == [(DEPTHWISE, 8, 8)]


def test_a_wider_layer_that_takes_less_time_is_doubted() -> None:
    table = filled()
    assert not doubtful(table, [PLAIN, DEPTHWISE])
    table.add(PLAIN, 64, 8, 1.0)
    table.add(DEPTHWISE, 16, 16, 1.0)
    found = doubtful(table, [PLAIN, DEPTHWISE])
    assert (PLAIN, 16, 8) in found and (PLAIN, 64, 8) in found
    assert {(DEPTHWISE, 4, 4), (DEPTHWISE, 16, 16)} <= set(found)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_layer_can_be_measured_alone(name: str) -> None:
    netdef = config(name, thinner=8)
    reads, outputs = read_shapes(netdef, netdef.size), shapes(netdef)
    kinds = {}
    for index in range(len(netdef.layers)):
        kind = kind_of(netdef, index, reads[index][0])
        if kind:
            kinds[kind, reads[index][0][0], outputs[index][0]] = outputs[index]
    for (kind, inputs, writes), shape in kinds.items():
        small = layer_net(kind, (inputs, kind.height, kind.width), writes)
        assert shapes(small)[3] == shape
        Darknet(small)


@pytest.mark.parametrize(("padding", "side"), [(1, 8), (4, 2)])
def test_a_layer_that_pads_more_than_it_reads_can_be_measured(padding: int, side: int) -> None:
    text = f"convolutional activation=leaky padding={padding} size=1 stride=1"
    small = layer_net(Kind(text, 0, 0, side, side), (4, side, side), 6)
    grown = side + 2 * padding
    assert shapes(small)[3] == (6, grown, grown) and shapes(small)[4][1:] == (1, 1)


def test_what_is_measured_is_one_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clocks(monkeypatch)
    table = CostTable(dict(ABOUT))
    count = measure_table_(
        table, [Span(PLAIN, (8, 16), (4, 4)), Span(DEPTHWISE, (8, 8), (8, 8))],
        lambda model, size: model, print,
    )  # fmt: skip
    assert count == 3
    head = 2 * 6 / 1e6  # of the head, for a channel more of a copy
    for inputs in (8, 16):
        wanted = 2 * 9 * inputs * 4 * 64 / 1e6 + 4 * head
        assert table.points[PLAIN][inputs, 4] == pytest.approx(wanted)
    assert table.points[DEPTHWISE][8, 8] == pytest.approx(2 * 9 * 8 * 64 / 1e6 + 8 * head)
    assert measure_table_(table, [Span(PLAIN, (8, 16), (4, 4))], lambda m, s: m, print) == 0


def test_a_step_is_found_where_time_moves_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (4, 8, 16, 32):

        def time_of(run: Darknet, image: object, step: int = step) -> float:
            layers = run.netdef.layers
            width = layers[0].integer("filters")
            return float((-(-width // step)) ** 2) if len(layers) > 6 else 0.0

        monkeypatch.setattr("pruning.latency.table.shortest", time_of)
        assert measure_step(lambda model, size: model) == step


def test_int8_is_calibrated_on_photos_of_the_networks_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And single layers on noise; nothing of it is kept."""
    write_image(tmp_path / "grey.png", np.full((9, 9, 3), 51, np.uint8))
    seen: list[Tensor] = []

    class Fastest:
        name = "onnxruntime"

    def open_engine(name: str, model: Darknet, size: tuple[int, int], **how: Any) -> Fastest:
        assert (name, how["keep"]) == ("onnxruntime" if seen else "auto", False)
        (photos,) = how["calibration"]
        seen.append(photos)
        assert photos.shape == (1, 3, size[1], size[0])
        return Fastest()

    monkeypatch.setattr(pruning.latency.table, "open_engine", open_engine)
    model = Darknet(config("yolov3-lite", thinner=8))
    how = {"backend": "auto", "precision": "int8", "threads": 1, "calibration": str(tmp_path)}
    engine = timer(model, (64, 32), how)
    engine.open(model, (64, 32))
    engine.open(model, (32, 64))
    assert [bool((photos - 0.2).abs().max() < 1e-4) for photos in seen] == [True, True, False]
    assert "nncf" not in engine.about["versions"] and engine.about["precision"] == "int8"
