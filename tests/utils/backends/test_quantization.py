"""Is a network quantised with the photos that are given, and the same one once?"""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from models.darknet import Darknet
from tests.utils.backends.test_backends import trained
from utils.backends import EngineOptions, install_command, open_engine, quantization
from utils.backends.float_layers import float_layers
from utils.backends.int8_loss import int8_loss
from utils.backends.quantization import (
    CalibrationBatches,
    Tools,
    calibration_batches,
    check_loss,
    float_nodes,
    least_loss,
    quantized,
)
from utils.errors import InputError
from utils.evaluation.evaluate import Run


def never(content: bytes) -> Run:
    raise AssertionError("it is not compared, so it need not run")


def test_calibration_comes_in_whole_batches() -> None:
    photos = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    batches = calibration_batches(photos.split(2), 3)
    assert [batch[:, 0, 0, 0].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 0]]
    with pytest.raises(InputError, match="expected photos to calibrate on"):
        calibration_batches([], 3)


def test_nodes_that_stay_in_float_are_called_as_in_the_graph() -> None:
    pytest.importorskip("onnx")
    model, photos = trained(), torch.rand(4, 3, 64, 64)
    choices = float_nodes(model, calibration_batches([photos], 2))
    assert choices == [
        [f"layer_{index}" for index in layers] for layers in float_layers(model, photos)
    ]
    assert all({"layer_7", "layer_12"} <= set(names) for names in choices)


def test_the_same_network_is_quantised_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(quantization, "float_nodes", lambda model, batches: [["layer_7"]])
    calls: list[bytes] = []

    def quantize(graph: bytes, batches: CalibrationBatches, in_float: Sequence[str]) -> bytes:
        assert in_float == ["layer_7"] and len(batches[0]) == 2
        calls.append(graph)
        return graph[::-1]

    photos = torch.rand(4, 3, 8, 8)

    def result(graph: bytes = b"ab", photos: torch.Tensor = photos, tool: str = "torch") -> bytes:
        options = EngineOptions((8, 8), "int8", 2, calibration=[photos])
        return quantized(graph, trained(), options, Tools(quantize, never, (tool,)))

    assert result() == result() == b"ba" and len(calls) == 1
    assert result(b"cd") == b"dc" and len(calls) == 2
    result(photos=photos + 1)
    result(tool="numpy")
    assert len(calls) == 4
    options = EngineOptions((8, 8), "int8", 2, calibration=[photos], use_cache=False)
    tools = Tools(quantize, never, ("torch",))
    assert quantized(b"ab", trained(), options, tools) == b"ba"
    assert len(calls) == 5


def blurred(model: Darknet, step: float) -> Run:
    """The network with its maps in so coarse steps."""
    return lambda images: [step * (raw / step).round() if step else raw for raw in model(images)]


def test_the_loss_is_of_the_networks_own_detections() -> None:
    """What computes the same loses nothing, what is further off more, and what is blind all."""
    model, batches = trained(), [torch.rand(2, 3, 64, 64).numpy() for _ in range(4)]
    losses = [int8_loss(model, blurred(model, step), batches) for step in (0, 0.05, 0.5, 5)]
    assert losses[0] == 0 and losses == sorted(losses) and losses[1] < 0.2 < losses[3]
    blind = int8_loss(model, lambda images: [raw * 0 - 50 for raw in model(images)], batches)
    assert blind == 1


def test_without_detections_there_is_no_loss(capsys: pytest.CaptureFixture[str]) -> None:
    model, batches = trained(), [torch.rand(1, 3, 64, 64).numpy()]
    for index in (7, 12):
        torch.nn.init.constant_(model.layers[index].conv.bias, -50)  # type: ignore[arg-type]
    loss = int8_loss(model, model, batches)
    assert math.isnan(loss)
    check_loss(loss, 0.05, "this engine")
    assert "int8 on this engine is not compared" in capsys.readouterr().err


def test_more_layers_stay_in_float_until_the_whole_network_is_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, photos = trained(), [torch.rand(2, 3, 64, 64).numpy()] * 2
    choices = [["a"], ["a", "b"], ["a", "b", "c"]]
    monkeypatch.setattr(quantization, "float_nodes", lambda model, batches: choices)

    def chosen(*steps: float, limit: float | None = 0.05) -> bytes:
        """Where each choice makes the maps so coarse."""
        tools = Tools(
            lambda graph, batches, names: bytes([len(names)]),
            lambda content: blurred(model, steps[content[0] - 1]),
            ("torch",),
        )
        content, loss = least_loss(b"", model, photos, tools, limit)
        assert math.isnan(loss) == (limit is None)
        return content

    assert chosen(0, 0, 0) == chosen(5, 5, 5, limit=None) == bytes([1])
    assert chosen(5, 0, 0) == bytes([2])
    assert chosen(5, 0.5, 5) == bytes([2])  # none is good: the best
    assert chosen(5, 5, 0) == bytes([3])


def test_what_loses_too_much_is_refused() -> None:
    check_loss(0.049, 0.05, "this engine")
    check_loss(0.9, None, "this engine")
    with pytest.raises(InputError, match=r"on this engine .* loses 0.051 .*int8_loss=0.05 at most"):
        check_loss(0.051, 0.05, "this engine")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_int8_engine_is_calibrated_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if command := install_command(name, "int8"):
        pytest.skip(f"{name} is not installed: {command}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls: list[Darknet] = []
    float_nodes = quantization.float_nodes

    def counted(model: Darknet, batches: CalibrationBatches) -> list[list[str]]:
        calls.append(model)
        return float_nodes(model, batches)

    monkeypatch.setattr(quantization, "float_nodes", counted)
    photos = torch.rand(4, 3, 64, 64)

    def maps(seed: int = 0, shift: float = 0.0, use_cache: bool = True) -> torch.Tensor:
        options = EngineOptions((64, 64), "int8", calibration=[photos + shift], use_cache=use_cache)
        return open_engine(name, trained(seed=seed), options)(photos[:1])[0]

    assert maps().equal(maps()) and len(calls) == 1
    maps(seed=1)
    maps(shift=0.1)
    assert len(calls) == 3
    maps(use_cache=False)
    assert len(calls) == 4 and len(list((tmp_path / "yolov3" / "int8").iterdir())) == 3
