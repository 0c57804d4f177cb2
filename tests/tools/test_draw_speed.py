"""Does the README's picture show the table that lies beside it?"""

import csv
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tools.draw_speed import main, read_series
from utils.errors import InputError

FIGURES = ROOT / "docs/figures/speed.csv"


def test_the_figures_stand_in_the_pages_that_they_name() -> None:
    with FIGURES.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            page = ROOT / row["source"].partition(",")[0]
            lines = page.read_text(encoding="utf-8").splitlines()
            assert any(row["milliseconds"] in line and row["map"] in line for line in lines), row


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    main(["--figures", str(FIGURES), "--output", str(tmp_path / "speed.png")])
    assert 10_000 < (tmp_path / "speed.png").stat().st_size < 100_000
    assert (ROOT / "docs/figures/speed.png").stat().st_size < 100_000


def test_a_table_that_is_none_is_told_with_its_line(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("series,network,milliseconds,map,source\na,b,fast,0.5,c\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"t\.csv:2: .*fast"):
        read_series(str(table))
    table.write_text("name,time\n", encoding="utf-8")
    with pytest.raises(InputError, match="expected the columns"):
        read_series(str(table))
