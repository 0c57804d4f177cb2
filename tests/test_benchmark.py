"""benchmark.py, from its flags to its files."""

import csv
from pathlib import Path

import pytest

import benchmark
from utils.errors import run


def test_it_leaves_a_table_and_a_plot(
    tmp_path: Path, colour_weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--weights", colour_weights, "config/yolov3-lite.cfg", "--img_size", "64"]
    flags += ["--engines", "torch", "--precisions", "fp32", "--batches", "1", "2", "--rounds", "2"]
    benchmark.main([*flags, "--output", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "colours" in said and "yolov3-lite" in said and "2 rounds" in said
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"benchmark.md", "benchmark.csv", "benchmark.png", "settings.json"}
    table = list(csv.DictReader((tmp_path / "out" / "benchmark.csv").open()))
    assert [(row["network"], row["batch"]) for row in table] == [
        (name, batch) for name in ("colours", "yolov3-lite") for batch in "12"
    ]
    assert all(float(row["ms"]) > 0 for row in table)


@pytest.mark.parametrize(
    "flags",
    [
        ["--engines", "caffe"],
        ["--precisions", "fp7"],
        ["--weights", "none.cfg"],
        ["--engines", "torch", "--precisions", "int8", "--weights", "config/yolov3-lite.cfg"],
    ],
)
def test_what_cannot_be_is_one_line(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: benchmark.main(flags)) == 2
    assert capsys.readouterr().err.count("\n") == 1
