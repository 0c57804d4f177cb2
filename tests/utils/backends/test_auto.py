"""Is the fastest engine found, and remembered for what it was measured for only?"""

import json
from collections.abc import Mapping
from functools import partial
from itertools import permutations
from pathlib import Path
from weakref import WeakSet

import pytest
import torch
from torch import Tensor

from tests.utils.backends.test_backends import trained
from utils.backends import auto as choose
from utils.backends import open_engine
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


def clock(milliseconds: Mapping[str, float], *, drift: float = 1.0) -> choose.Clock:
    """A machine on which engines take these times, and all that is measured later takes longer."""
    level = 1 / drift

    def measured(
        runs: Mapping[str, partial[object]], rounds: int, *, seconds: float
    ) -> dict[str, list[float]]:
        nonlocal level
        level *= drift
        return {
            turn: [level * milliseconds[run.func.name]] * rounds  # type: ignore[attr-defined]
            for turn, run in runs.items()
        }

    return measured


def openers(*names: str) -> dict[str, choose.Opener]:
    return {name: partial(Fake, name) for name in names}


def test_the_fastest_of_those_that_can() -> None:
    for names in permutations(("slow", "fast", "hopeless")):
        engine, times, refused = choose.fastest(
            {"none": refuse, **openers(*names)},
            WANTED,
            clock({"slow": 3.0, "fast": 2.0, "hopeless": 9.0}),
        )
        assert engine.name == "fast"
        assert times == {"slow": 3.0, "fast": 2.0, "hopeless": 9.0}
        assert refused == {"none": "this one cannot"}


def test_on_a_machine_that_slows_down_all_are_told_as_with_the_last_one() -> None:
    times = {"first": 3.0, "second": 2.9, "last": 2.8}
    engine, found, _ = choose.fastest(openers(*times), WANTED, clock(times, drift=2.0))
    assert engine.name == "last"
    level = found["last"] / times["last"]
    assert level == 8  # of four measurements, two of each pair
    assert found == pytest.approx({name: level * value for name, value in times.items()})


def test_no_more_than_two_engines_are_in_memory() -> None:
    alive: WeakSet[Fake] = WeakSet()
    most = 0

    def open_(name: str) -> Fake:
        nonlocal most
        engine = Fake(name)
        alive.add(engine)
        most = max(most, len(alive))
        return engine

    names = "abcdef"
    times = {name: 10.0 - number for number, name in enumerate(names)}
    choose.fastest({name: partial(open_, name) for name in names}, WANTED, clock(times))
    assert most == 2


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

    def chosen(cfg: str = "cfg", wanted: Wanted = WANTED, where: str = "here") -> str:
        engine, line = choose.open_fastest(openers(*times), cfg, wanted, ["torch"], where)
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
