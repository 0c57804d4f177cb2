"""Is the fastest engine found, and remembered for what it was measured for only?"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from weakref import WeakSet

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.utils.backends.test_backends import trained
from utils.backends import EngineOptions, auto, open_engine, registry
from utils.errors import InputError

OPTIONS = EngineOptions((64, 64))


class Fake:
    precision, size = "fp32", (64, 64)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, images: Tensor) -> list[Tensor]:
        return [images]

    def synchronize(self) -> None:
        pass


def refuse() -> Fake:
    raise InputError("this one cannot")


def meter(milliseconds: Mapping[str, float], *, drift: float = 1.0) -> auto.Meter:
    """A machine on which engines take these times, and all that is measured later takes longer."""
    level = 1 / drift

    def measured(
        runs: Mapping[str, partial[object]], rounds: int, *, seconds: float
    ) -> dict[str, list[float]]:
        nonlocal level
        level *= drift
        return {
            turn: [level * milliseconds[run.args[0].name]] * rounds for turn, run in runs.items()
        }

    return measured


def openers(*names: str) -> dict[str, auto.Opener]:
    return {name: partial(Fake, name) for name in names}


def test_the_fastest_of_those_that_can() -> None:
    for names in permutations(("slow", "fast", "hopeless")):
        chosen, engine, times, refused = auto.fastest(
            {"none": refuse, **openers(*names)},
            OPTIONS,
            meter({"slow": 3.0, "fast": 2.0, "hopeless": 9.0}),
        )
        assert engine.name == chosen == "fast"
        assert times == {"slow": 3.0, "fast": 2.0, "hopeless": 9.0}
        assert refused == {"none": "this one cannot"}


def test_on_a_machine_that_slows_down_all_are_told_as_with_the_last_one() -> None:
    times = {"first": 3.0, "second": 2.9, "last": 2.8}
    _, engine, found, _ = auto.fastest(openers(*times), OPTIONS, meter(times, drift=2.0))
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
    auto.fastest({name: partial(open_, name) for name in names}, OPTIONS, meter(times))
    assert most == 2


def test_where_none_can_the_reasons_are_told() -> None:
    with pytest.raises(InputError, match="this one cannot"):
        auto.fastest({"none": refuse}, OPTIONS)


def test_a_measurement_is_kept_for_its_network_and_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    milliseconds = {"a": 2.0, "b": 1.0}
    measured: list[int] = []

    def fastest(openers: Mapping[str, auto.Opener], options: EngineOptions) -> object:
        measured.append(1)
        return "b", openers["b"](), milliseconds, {}

    monkeypatch.setattr(auto, "fastest", fastest)

    def ask(cfg: str = "cfg", options: EngineOptions = OPTIONS, machine: str = "here") -> bool:
        """Whether it was measured now."""
        before = len(measured)
        engine, line = auto.open_fastest(openers("a", "b"), cfg, options, ["torch"], machine)
        assert engine.name == "b" and "b, 1.0 ms (a 2.0)" in line
        assert line.endswith("as measured before") == (len(measured) == before)
        return len(measured) > before

    assert ask() and not ask()
    assert ask("other") and ask(machine="there")
    for options in (
        EngineOptions((32, 64)),
        EngineOptions((64, 64), "bf16"),
        EngineOptions((64, 64), batch=2),
        EngineOptions((64, 64), threads=2),
    ):
        assert ask(options=options) and not ask(options=options)
    file = tmp_path / "yolov3" / "engines.json"
    assert len(json.loads(file.read_text())) == len(measured) == 7
    for damage in (b"{ damaged", b"[]", b'{"key": {"chosen": 1}}', b"\xff", b"[" * 10**5):
        file.write_bytes(damage)
        assert ask() and not ask()
        message = capsys.readouterr().err
        assert message.startswith(f"note: {file}: damaged") and message.count("\n") == 1
    file.unlink()
    file.mkdir()
    assert ask()
    assert "not kept for the next time" in capsys.readouterr().err


MEASUREMENT = auto.Measurement("a", {"a": 1.0, "b": 2.0}, (64, 64), "fp32", 1, "here", {"a": "1"})
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)


def test_measurements_that_are_written_are_read(tmp_path: Path) -> None:
    path = tmp_path / "engines.json"
    assert auto.read_measurements(path) == {}
    measurements = {str(number): replace(MEASUREMENT, batch=number) for number in range(501)}
    auto.write_measurements(path, measurements)
    del measurements["0"]  # the oldest
    assert auto.read_measurements(path) == measurements


@given(st.sampled_from([*asdict(MEASUREMENT), "other"]), JSON_VALUES)
def test_a_value_of_another_kind_costs_a_line_and_no_more(name: str, value: object) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path, notes = Path(folder) / "engines.json", list[str]()
        patch.setattr(auto, "note", notes.append)
        path.write_text(json.dumps({"key": {**asdict(MEASUREMENT), name: value}}))
        known = auto.read_measurements(path)
        if not known:
            assert not path.exists() and len(notes) == 1 and "\n" not in notes[0]
        for measurement in known.values():
            assert measurement.chosen in auto._line(measurement.chosen, measurement.milliseconds)


def test_the_crashers_of_the_fuzzer_are_damaged_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, whole = tmp_path / "engines.json", asdict(MEASUREMENT)
    for damaged in (
        {name: value for name, value in whole.items() if name != "milliseconds"},  # KeyError
        whole | {"milliseconds": {"b": 1.0}},  # KeyError
        whole | {"milliseconds": {"a": 10**400}},  # OverflowError
        whole | {"milliseconds": {"a": math.nan}},
        whole | {"milliseconds": {"a": "1"}},
        whole | {"milliseconds": {"a": -1.0}},
    ):
        path.write_text(json.dumps({"key": damaged}))
        assert auto.read_measurements(path) == {} and not path.exists()
        message = capsys.readouterr().err
        assert message.startswith(f"note: {path}: damaged") and message.count("\n") == 1


def test_a_known_engine_that_is_not_installed_any_more_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for names, chosen in ((("a", "b"), "b"), (("a",), "a")):
        fake = (chosen, Fake(chosen), {"a": 2.0, "b": 1.0}, {"c": "cannot"})
        monkeypatch.setattr(auto, "fastest", lambda openers, options, fake=fake: fake)
        engine, line = auto.open_fastest(openers(*names), "cfg", OPTIONS, ["torch"], "here")
        assert engine.name == chosen and line.endswith("; cannot run it: c")


def test_an_open_precision_is_chosen_with_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each engine in what it is fast with; what it is not asked for, or lacks, is not chosen."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked: list[tuple[str, str]] = []

    def open_(name: str, model: object, options: EngineOptions) -> Fake:
        asked.append((name, options.precision))
        if (name, options.precision) == ("torch", "bf16"):
            raise InputError("this machine has none")
        engine = Fake(f"{name} {options.precision}")
        engine.precision = options.precision
        return engine

    monkeypatch.setattr(registry, "_open", open_)
    monkeypatch.setattr(registry, "install_command", lambda *_: "")
    times = dict.fromkeys(("torch fp32", "onnxruntime fp32", "ncnn fp32", "opencv fp32"), 9.0)
    times |= {"openvino fp32": 5.0, "openvino bf16": 3.0}
    monkeypatch.setattr(auto.fastest, "__defaults__", (meter(times),))
    told: list[str] = []
    options = replace(OPTIONS, precision="auto")
    engine = open_engine("auto", trained(), options, told.append)
    assert (engine.name, engine.precision) == ("openvino bf16", "bf16")
    assert told[0].startswith("engine: openvino bf16, 3.0 ms (openvino fp32 5.0, ")
    assert told[0].endswith("; cannot run it: torch bf16")
    assert {precision for _, precision in asked} == {"fp32", "bf16"}
    asked.clear()
    engine = open_engine("onnxruntime", trained(), options, told.append)
    assert asked == [("onnxruntime", "fp32")] and engine.precision == "fp32"
    with pytest.raises(InputError, match="precision='bf17': expected auto or one of fp32, "):
        open_engine("torch", trained(), replace(OPTIONS, precision="bf17"))


def test_auto_runs_the_network(capsys: pytest.CaptureFixture[str]) -> None:
    model = trained()
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        reference = model(images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "OPTIONS", auto.AutoOptions(rounds=1, first_rounds=1))
        maps = open_engine("auto", model, OPTIONS)(images)
    torch.testing.assert_close(maps, reference, rtol=1e-3, atol=1e-3)
    assert capsys.readouterr().out.startswith("engine: ")
