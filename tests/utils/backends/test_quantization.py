"""Is a network quantised with the photos that are given, and the same one once?"""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from models.darknet import Darknet
from tests.utils.backends.test_backends import trained
from utils.backends import EngineOptions, install_command, open_engine, quantization
from utils.backends.float_layers import float_layers
from utils.backends.quantization import (
    CalibrationBatches,
    calibration_batches,
    float_nodes,
    quantized,
)
from utils.errors import InputError


def test_calibration_comes_in_whole_batches() -> None:
    photos = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    batches = calibration_batches(photos.split(2), 3)
    assert [batch[:, 0, 0, 0].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 0]]
    with pytest.raises(InputError, match="expected photos to calibrate on"):
        calibration_batches([], 3)


def test_nodes_that_stay_in_float_are_called_as_in_the_graph() -> None:
    pytest.importorskip("onnx")
    model, photos = trained(), torch.rand(4, 3, 64, 64)
    names = float_nodes(model, calibration_batches([photos], 2))
    assert names == [f"layer_{index}" for index in float_layers(model, photos)]
    assert {"layer_7", "layer_12"} <= set(names)


def test_the_same_network_is_quantised_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(quantization, "float_nodes", lambda model, batches: ["layer_7"])
    calls: list[bytes] = []

    def quantize(graph: bytes, batches: CalibrationBatches, in_float: Sequence[str]) -> bytes:
        assert in_float == ["layer_7"] and len(batches[0]) == 2
        calls.append(graph)
        return graph[::-1]

    photos = torch.rand(4, 3, 8, 8)

    def result(graph: bytes = b"ab", photos: torch.Tensor = photos, tool: str = "torch") -> bytes:
        options = EngineOptions((8, 8), "int8", 2, calibration=[photos])
        return quantized(graph, trained(), options, quantize, [tool])

    assert result() == result() == b"ba" and len(calls) == 1
    assert result(b"cd") == b"dc" and len(calls) == 2
    result(photos=photos + 1)
    result(tool="numpy")
    assert len(calls) == 4
    options = EngineOptions((8, 8), "int8", 2, calibration=[photos], use_cache=False)
    assert quantized(b"ab", trained(), options, quantize, ["torch"]) == b"ba"
    assert len(calls) == 5


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

    def counted(model: Darknet, batches: CalibrationBatches) -> list[str]:
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
