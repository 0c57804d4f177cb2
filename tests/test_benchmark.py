"""benchmark.py, from its flags to its files."""

import csv
import importlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import benchmark
import export
from tests.conftest import COLOURS, next_commands
from utils.backends import install_command
from utils.benchmark.tables import unfinished
from utils.errors import InputError, run


def test_it_leaves_a_table_and_a_plot(
    tmp_path: Path, colour_weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--weights", colour_weights, "config/yolov3-lite.cfg", "--img_size", "64"]
    flags += ["--engine", "torch", "--precision", "fp32", "--batch_size", "1", "2", "--rounds", "2"]
    benchmark.main([*flags, "--output", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "colours" in said and "yolov3-lite" in said and "2 rounds" in said
    ((script, exported),) = next_commands(said)
    assert script == "export" and exported.network.weights == colour_weights
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"benchmark.md", "benchmark.csv", "benchmark.png", "settings.json"}
    table = list(csv.DictReader((tmp_path / "out" / "benchmark.csv").open()))
    assert [(row["network"], row["batch"]) for row in table] == [
        (name, batch) for name in ("colours", "yolov3-lite") for batch in "12"
    ]
    assert all(float(row["ms"]) > 0 for row in table)


@pytest.fixture
def squares(tmp_path: Path) -> str:
    """A data set of two photos, with a red and a blue square where `colour_weights` finds them."""
    for name, place, colour, label in (("a", 0, 0, "0 .25 .25"), ("b", 32, 2, "2 .75 .75")):
        photo = np.zeros((64, 64, 3), np.uint8)
        photo[place : place + 32, place : place + 32, colour] = 255
        Image.fromarray(photo).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(f"{label} .3125 .3125\n")
    (tmp_path / "squares.names").write_text("\n".join(COLOURS))
    (tmp_path / "valid.txt").write_text("a.png\nb.png\n")
    (tmp_path / "squares.data").write_text("names = squares.names\nvalid = valid.txt\n")
    return str(tmp_path / "squares.data")


@pytest.fixture
def exported_file(tmp_path: Path, colour_weights: str, squares: str) -> str:
    """The network of `colour_weights` as an .onnx with NMS in it."""
    if command := install_command("onnxruntime"):
        pytest.skip(command)
    flags = ["--weights", colour_weights, "--source", str(Path(squares).parent / "a.png")]
    export.main([*flags, "--nms", "--output", str(tmp_path / "exported")])
    return str(tmp_path / "exported" / "colours-nms.onnx")


def test_an_exported_file_is_measured_on_its_own_engine_at_its_own_size(
    tmp_path: Path, exported_file: str, colour_weights: str, squares: str
) -> None:
    flags = ["--weights", colour_weights, exported_file, "--precision", "fp32", "--rounds", "1"]
    flags += ["--engine", "torch", "onnxruntime", "--data", squares]
    benchmark.main([*flags, "--output", str(tmp_path / "out")])
    table = list(csv.DictReader((tmp_path / "out" / "benchmark.csv").open()))
    rows = [(row["network"], row["engine"], f"{float(row['mean_ap']):.3f}") for row in table]
    assert ("colours-nms", "onnxruntime", "1.000") in rows
    assert [engine for name, engine, _ in rows if name == "colours-nms"] == ["onnxruntime"]
    (row,) = (row for row in table if row["network"] == "colours-nms")
    assert float(row["file_mb"]) == pytest.approx(Path(exported_file).stat().st_size / 1e6)
    assert float(row["operations"]) > 0


@pytest.mark.slow  # it starts a process
def test_the_memory_of_an_exported_file_is_measured(tmp_path: Path, exported_file: str) -> None:
    flags = ["--weights", exported_file, "--precision", "fp32", "--rounds", "1", "--memory"]
    benchmark.main([*flags, "--output", str(tmp_path / "out")])
    rows = list(csv.DictReader((tmp_path / "out" / "benchmark.csv").open()))
    assert rows and all(float(row["memory_mb"]) > -50 for row in rows)  # one of each engine


def test_an_exported_file_of_another_size_is_refused(
    exported_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lambda: benchmark.main(["--weights", exported_file, "--img_size", "96"])) == 2
    assert "reads 64x64 px only" in capsys.readouterr().err


def test_map_is_measured_through_every_engine(
    tmp_path: Path, colour_weights: str, squares: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--weights", colour_weights, "config/yolov3-lite.cfg", "--img_size", "64"]
    flags += ["--engine", "torch", "opencv", "--precision", "fp32", "--rounds", "1"]
    benchmark.main([*flags, "--data", squares, "--output", str(tmp_path / "out")])
    assert "mAP@.5" in capsys.readouterr().out
    assert (tmp_path / "out" / "mean_ap.png").stat().st_size > 1000
    table = list(csv.DictReader((tmp_path / "out" / "benchmark.csv").open()))
    assert [(row["engine"], f"{float(row['mean_ap']):.3f}") for row in table] == [
        ("torch", "1.000"), ("opencv", "1.000"), ("torch", "nan"), ("opencv", "nan"),
    ]  # fmt: skip


def test_a_second_device_has_rows_of_its_own(
    tmp_path: Path,
    colour_weights: str,
    squares: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is called cuda here is the CPU."""
    for module in ("utils.devices", "utils.benchmark.networks", "utils.benchmark.latency"):
        monkeypatch.setattr(f"{module}.choose_device", lambda name: torch.device("cpu"))
    flags = ["--weights", colour_weights, "--device", "cpu", "cuda", "--engine", "torch", "opencv"]
    flags += ["--img_size", "64", "--precision", "fp32", "--rounds", "1", "--data", squares]
    benchmark.main([*flags, "--output", str(tmp_path / "out")])
    told = capsys.readouterr().out
    assert "not on cuda: opencv" in told and "device" in told
    table = list(csv.DictReader((tmp_path / "out" / "benchmark.csv").open()))
    assert [(row["device"], row["engine"], f"{float(row['mean_ap']):.3f}") for row in table] == [
        ("cpu", "torch", "1.000"), ("cuda", "torch", "1.000"), ("cpu", "opencv", "1.000"),
    ]  # fmt: skip
    assert all(float(row["of_peak"]) > 0 for row in table)


def test_map_needs_a_trained_network_with_the_classes_of_the_data(
    tmp_path: Path, colour_weights: str, squares: str
) -> None:
    with pytest.raises(InputError, match="expected a trained network"):
        benchmark.main(["--weights", "config/yolov3-lite.cfg", "--data", squares])
    (tmp_path / "squares.names").write_text("red\nblue\n")
    with pytest.raises(InputError, match="2 classes: expected 3, as colours has"):
        benchmark.main(["--weights", colour_weights, "--data", squares])


@pytest.mark.parametrize(
    "flags",
    [
        ["--engine", "caffe"],
        ["--precision", "fp7"],
        ["--weights", "none.cfg"],
        ["--engine", "torch", "--precision", "int8", "--weights", "config/yolov3-lite.cfg"],
        ["--engine", "torch", "--weights", "config/yolov3-lite.cfg", "--output", "/dev/null/x"],
    ],
)
def test_what_cannot_be_is_one_line(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: benchmark.main(flags)) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("stage", "rounds", "known"), [("time", 3, False), ("mAP", 2, True)])
def test_what_was_measured_before_a_stop_is_there(
    stage: str,
    rounds: int,
    known: bool,
    tmp_path: Path,
    colour_weights: str,
    squares: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And the tables of the benchmark before stay as they were."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "benchmark.csv").write_text("of before")
    calls: list[int] = []
    place = {
        "time": "utils.benchmark.latency.make_rows",
        "mAP": "utils.benchmark.accuracy.evaluate",
    }[stage]
    module, _, name = place.rpartition(".")
    work = getattr(importlib.import_module(module), name)

    def stopped(*args: object, **more: object) -> object:
        calls.append(1)
        if len(calls) == rounds:
            raise KeyboardInterrupt
        return work(*args, **more)

    flags = ["--weights", colour_weights, "--img_size", "64", "--engine", "torch", "opencv"]
    flags += ["--precision", "fp32", "--rounds", "3", "--data", squares]
    argv = [*flags, "--output", str(tmp_path / "out")]
    with monkeypatch.context() as patched:
        patched.setattr(place, stopped)
        assert run(partial(benchmark.main, argv)) == 130
    assert "not finished: what was measured is in" in capsys.readouterr().out
    table = list(csv.DictReader((tmp_path / "out" / "unfinished.csv").open()))
    assert [row["engine"] for row in table] == ["torch", "opencv"]
    assert (table[0]["mean_ap"] != "nan") == known and table[1]["mean_ap"] == "nan"
    assert (tmp_path / "out" / "benchmark.csv").read_text() == "of before"
    benchmark.main(argv)
    assert not (tmp_path / "out" / "unfinished.csv").exists()


def test_a_disk_that_is_full_for_a_moment_does_not_end_a_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise InputError("unfinished.csv: cannot be written: No space left on device")

    monkeypatch.setattr("utils.benchmark.tables.write_text", full)
    with unfinished(tmp_path / "unfinished.csv") as keep:
        keep([])
        keep([])
    assert capsys.readouterr().out.count("No space left on device; the work goes on") == 1
