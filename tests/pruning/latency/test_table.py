"""Does the table of layers say what was measured, between the rows too, and survive its file?"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pruning.latency.table import (
    FORMAT,
    Conditions,
    LatencyTable,
    LayerSpec,
    WidthRange,
    read_table,
)
from utils.errors import InputError
from utils.version import VERSION

PLAIN = LayerSpec("convolutional activation=leaky pad=1 size=3 stride=1", 0, 0, 8, 8)
DEPTHWISE = replace(PLAIN, group_inputs=1, group_outputs=1)
CONDITIONS = Conditions("torch", "fp32", "torch-2", "any, of 2 cores", 2)


def filled(step: int = 1) -> LatencyTable:
    table = LatencyTable(CONDITIONS, step)
    for i in (8, 16, 64):
        for o in (8, 32):
            table.add(PLAIN, i, o, 1 + i * o + 2 * i + 3 * o)
    for n in (4, 16):
        table.add(DEPTHWISE, n, n, 2.0 * n)
    return table


def test_between_rows_it_is_linear_in_each_width() -> None:
    reads, writes = np.array([8, 10, 16, 40, 64.0]), np.array([32, 9, 8, 20, 31.0])
    wanted = 1 + reads * writes + 2 * reads + 3 * writes
    assert np.allclose(filled().query(PLAIN, reads, writes), wanted)
    assert filled().query(DEPTHWISE, np.array([7.0]), np.array([7.0])) == pytest.approx(14)
    with pytest.raises(ValueError, match="out of bounds"):
        filled().query(PLAIN, np.array([65.0]), np.array([8.0]))


def test_rows_may_be_measured_in_any_order() -> None:
    table = filled()
    for o in (8, 32):
        table.add(PLAIN, 4, o, 1 + 4 * o + 2 * 4 + 3 * o)
    table.add(DEPTHWISE, 8, 8, 20.0)
    assert table.query(PLAIN, np.array([6.0]), np.array([9.0])) == pytest.approx(1 + 54 + 12 + 27)
    widths = np.array([4.0, 6, 8, 12, 16])
    assert table.query(DEPTHWISE, widths, widths) == pytest.approx([8, 14, 20, 26, 32])


def test_a_width_costs_what_the_next_step_costs() -> None:
    table = filled(16)
    got = table.query(PLAIN, np.array([17.0, 32, 10]), np.array([17.0, 32, 10]))
    exact = table.query(PLAIN, np.array([32.0, 32, 10]), np.array([32.0, 32, 10]))
    assert np.allclose(got, exact)


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    path, table = tmp_path / "a" / "table.csv", filled(8)
    table.write(path)
    again = read_table(path, CONDITIONS)
    assert (
        again.points == table.points and again.channel_step == 8 and again.conditions == CONDITIONS
    )
    again.write(tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("engine: torch", "engine: other", "engine='other': expected 'torch'"),
        ("batch: 1\n", "batch: 16\n", "batch='16': expected '1'"),
        ("step: 8", "step: x", "1: 'x': expected a number"),
        ("layer,group_inputs", "layers,group_inputs", "10: expected the columns layer"),
        (",8,8,8,8,", ",8,8,8,", ": 7 values: expected 8"),
        (",16,16,32\n", ",16,16,-3\n", "'-3': expected a number from 0 to 1e+12"),
        (",16,16,32\n", ",16,16,nan\n", "'nan': expected a number from 0 to 1e+12"),
        (",16,16,32\n", ",16,99999999,32\n", "'99999999': expected a number from 1 to 65536"),
        (",16,16,32\n", ",16,8,32\n", "8 outputs: expected as many groups as of inputs"),
        ("step: 8", "step: 0", "1: '0': expected a number from 1 to 65536"),
        ("convolutional activation", "conv activation", "expected a layer, one of convolutional,"),
        ("size=3 stride", "size=3 steps", "expected a layer, one of convolutional,"),
        ("layer,group", "layer,\ngroup", "10: expected the columns layer"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    tmp_path: Path, old: str, new: str, line: str
) -> None:
    path = tmp_path / "table.csv"
    filled(8).write(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as error:
        read_table(path, CONDITIONS)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_only_what_is_missing_is_measured() -> None:
    table, widths = filled(), WidthRange(PLAIN, (8, 64), (8, 32))
    missing = {key[1:] for key in table.missing([widths, widths])}
    assert missing == {(8, 16), (16, 16), (32, 8), (32, 16), (32, 32), (64, 16)}
    assert table.missing([WidthRange(DEPTHWISE, (4, 16), (4, 16))]) == [(DEPTHWISE, 8, 8)]


def test_a_table_of_another_version_is_used_unless_its_rows_mean_something_else(
    tmp_path: Path,
) -> None:
    path = tmp_path / "table.csv"
    filled(8).write(path)
    text = path.read_text()
    assert f"# format: {FORMAT}\n# written by: {VERSION}\n" in text
    path.write_text(text.replace(VERSION, "0.0.1"))
    assert read_table(path, CONDITIONS).points == filled().points
    path.write_text(text.replace(f"# format: {FORMAT}\n# written by: {VERSION}\n", ""))
    assert read_table(path, CONDITIONS).points == filled().points  # as before version 0.2
    path.write_text(text.replace("# batch: 1\n", ""))
    assert read_table(path, CONDITIONS).points == filled().points  # as before version 0.5
    with pytest.raises(InputError, match="batch='1': expected '4', to which it is to apply"):
        read_table(path, replace(CONDITIONS, batch=4))
    path.write_text(text.replace(f"# format: {FORMAT}", "# format: 99"))
    with pytest.raises(InputError, match=f"format='99': expected '{FORMAT}'"):
        read_table(path, CONDITIONS)


def test_a_tied_width_that_is_a_product_is_rounded() -> None:
    """48 · (1 / 3) is a little less than 16, and 49 · (8 / 49) a little more than 8, say."""
    table = filled(8)
    for width in (4, 8, 16):
        for noise in (-1e-9, 1e-9):
            widths = np.array([width + noise])
            assert table.query(DEPTHWISE, widths, widths) == pytest.approx(2.0 * width, rel=1e-6)


def test_families_are_told_by_kernel_and_groups() -> None:
    assert PLAIN.family == "kxk" and DEPTHWISE.family == "grouped"
    assert replace(PLAIN, text="convolutional activation=leaky size=1").family == "1x1"
    assert replace(PLAIN, text="convolutional activation=leaky size=11").family == "kxk"
    assert replace(PLAIN, text="maxpool size=1 stride=2").family == "pooling"
    assert [PLAIN.tied, DEPTHWISE.tied, replace(PLAIN, text="maxpool size=2").tied] == [0, 1, 1]


def test_widths_are_measured_at_powers_of_two_from_below_the_least_on() -> None:
    assert WidthRange(PLAIN, (5, 40), (64, 64)).grid() == ((4, 8, 16, 32, 40), (64,))
    assert WidthRange(PLAIN, (3, 3), (2, 9)).grid() == ((3,), (2, 4, 8, 9))
    grouped = replace(PLAIN, group_inputs=2, group_outputs=3)  # 4 to 20 groups
    assert WidthRange(grouped, (8, 40), (12, 60)).grid() == ((8, 16, 32, 40), (12, 24, 48, 60))
    assert WidthRange(DEPTHWISE, (8, 20), (8, 20)).grid() == ((8, 16, 20), (8, 16, 20))
