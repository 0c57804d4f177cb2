"""Is the fastest engine found, and remembered for what it was measured for only?"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.utils.backends.test_backends import trained
from utils.backends import choose, open_engine
from utils.backends.base import Wanted
from utils.errors import InputError

WANTED = Wanted((64, 64))


class Fake:
    precision, size = "fp32", (64, 64)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, images: Tensor) -> list[Tensor]:
        return [images]


def refuse() -> Fake:
    raise InputError("this one cannot")


def clock(milliseconds: Mapping[str, float]) -> Callable[..., dict[str, list[float]]]:
    def measured(
        runs: Mapping[str, object], rounds: int, *, seconds: float
    ) -> dict[str, list[float]]:
        return {name: [milliseconds[name]] * rounds for name in runs}

    return measured


def test_the_fastest_of_those_that_can() -> None:
    openers = {name: lambda name=name: Fake(name) for name in ("slow", "fast", "hopeless")}
    engine, times, refused = choose.fastest(
        {**openers, "none": refuse}, WANTED, clock({"slow": 3.0, "fast": 2.0, "hopeless": 9.0})
    )
    assert engine.name == "fast"
    assert times == {"slow": 3.0, "fast": 2.0, "hopeless": 9.0}
    assert refused == {"none": "this one cannot"}


def test_where_none_can_the_reasons_are_told() -> None:
    with pytest.raises(InputError, match="this one cannot"):
        choose.fastest({"none": refuse}, WANTED)


def test_a_measurement_is_kept_for_its_network_and_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    times = {"a": 2.0, "b": 1.0}
    measured: list[int] = []

    def fastest(openers: Mapping[str, choose.Opener], wanted: Wanted) -> object:
        measured.append(1)
        return openers["b"](), times, {}

    monkeypatch.setattr(choose, "fastest", fastest)
    openers = {name: lambda name=name: Fake(name) for name in times}

    def chosen(cfg: str = "cfg", wanted: Wanted = WANTED, where: str = "here") -> str:
        engine, line = choose.open_fastest(openers, cfg, wanted, ["torch"], where)
        assert "b, 1.0 ms (a 2.0)" in line
        return engine.name

    assert chosen() == chosen() == "b" and len(measured) == 1
    for count, changed in enumerate(
        [{"cfg": "other"}, {"wanted": Wanted((64, 64), batch=2)}, {"where": "there"}], start=2
    ):
        chosen(**changed)  # type: ignore[arg-type]
        assert len(measured) == count
    file = tmp_path / "yolov3" / "engines.json"
    assert len(json.loads(file.read_text())) == 4
    file.write_text("{ damaged")
    chosen()
    assert len(measured) == 5


def test_auto_runs_the_network(capsys: pytest.CaptureFixture[str]) -> None:
    model = trained()
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        wanted = model(images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choose, "ROUNDS", 1)
        found = open_engine("auto", model, (64, 64))(images)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert capsys.readouterr().out.startswith("engine: ")
