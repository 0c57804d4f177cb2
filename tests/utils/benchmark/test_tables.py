"""Do tables and plots hold each row?"""

import csv
import io
from dataclasses import replace
from pathlib import Path

import cv2

from tests.utils.backends.test_backends import trained
from tests.utils.benchmark.test_latency import TIMES
from utils.benchmark.latency import Row, make_rows
from utils.benchmark.networks import Candidate
from utils.benchmark.tables import cells, csv_table, markdown_table, plot, plot_accuracy


def rows() -> list[Row]:
    candidates = [Candidate(name, trained(), (64, 64)) for name in ("a", "b")]
    return make_rows(candidates, TIMES, peaks={"cpu": 1e9})


def test_each_row_is_in_the_tables() -> None:
    table = list(csv.DictReader(io.StringIO(csv_table(rows()))))
    assert [row["network"] for row in table] == ["a", "b", "b"]
    assert [float(row["ms"]) for row in table] == [10.0, 5.0, 20.0]
    lines = markdown_table(rows(), "how").splitlines()
    assert lines[1].count("---") == len(cells(rows())[0])
    assert [line.split("|")[5] for line in lines[2:5]] == ["10.00", "5.00", "20.00"]
    assert lines[6] == "how"


def test_columns_of_which_nothing_is_known_are_left_out() -> None:
    assert "memory MB" not in cells(rows())[0]
    first, *others = rows()
    header, *body = cells([replace(first, memory_mb=12.4), *others])
    assert [line[header.index("memory MB")] for line in body] == ["12", "", ""]


def test_plots_are_pictures(tmp_path: Path) -> None:
    plot(rows(), tmp_path / "benchmark.png")
    plot_accuracy([replace(row, mean_ap=0.5) for row in rows()], tmp_path / "mean_ap.png")
    for name in ("benchmark.png", "mean_ap.png"):
        picture = cv2.imread(str(tmp_path / name))
        assert picture is not None and picture.std() > 5  # something is drawn


def test_devices_are_shown_where_there_is_another_than_the_cpu() -> None:
    assert "device" not in cells(rows())[0]
    first, *others = rows()
    header, *body = cells([replace(first, device="cuda"), *others])
    assert [line[header.index("device")] for line in body] == ["cuda", "cpu", "cpu"]
    table = list(csv.DictReader(io.StringIO(csv_table(rows()))))
    assert [row["device"] for row in table] == ["cpu"] * 3
