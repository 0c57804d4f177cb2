"""Does the reference experiment come to its table?"""

from pathlib import Path

import pytest

from models.darknet import Darknet
from models.weights import write_weights
from pruning.report import Size
from tests.pruning.nets import config
from tests.test_train import project  # noqa: F401  # a fixture
from tools import reproduce
from tools.experiment import Row
from utils.errors import InputError

LAST = reproduce.Result(
    "slim", Size(150_000, 2 * 10**9, 600_000, 2.5), {"before": 0.5, "after": 0.25}, (0.5, 0.7), ()
)
DENSE = reproduce.Result("dense", Size(1_500_000, 8 * 10**9, 6_000_000, 10.0), {}, (0.75,), ())


def test_a_row_says_what_is_gone_and_what_is_left() -> None:
    rows = reproduce.markdown([DENSE, LAST]).splitlines()
    assert rows[2] == "| dense | 1.500 M (all) | 8.000 G (all) | 10.00 (1.0×) |  | 0.750 |  |"
    assert rows[3] == (
        "| slim | 0.150 M (−90.0%) | 2.000 G (−75.0%) | 2.50 (4.0×) | 0.500 → 0.250 | "
        "0.600 (0.500, 0.700) |  |"
    )


def test_the_csv_has_a_line_a_network() -> None:
    lines = reproduce.comma_separated([DENSE, LAST], (0, 1, 2)).splitlines()
    assert lines[1:] == [
        "dense,1500000,8000000000,10.000,no,0,0.7500",
        "slim,150000,2000000000,2.500,no,0,0.5000",
        "slim,150000,2000000000,2.500,no,1,0.7000",
    ]


def test_some_rows_can_be_chosen() -> None:
    rows = [Row(label, ()) for label in ("dense", "sparse, not cut", "slim, 85%", "latency, 2")]
    assert [row.label for row in reproduce.select_rows(rows, ["slim", "lat"])] == [
        "dense", "slim, 85%", "latency, 2",
    ]  # fmt: skip
    assert reproduce.select_rows(rows, []) == rows
    assert reproduce.select_rows(rows, ["dense"]) == rows[:1]
    with pytest.raises(InputError, match="only=slum: expected a word of one of these rows: dense;"):
        reproduce.select_rows(rows, ["slum"])


def test_values_that_no_run_could_take_are_refused() -> None:
    for flag, value in (("--name", "a/b"), ("--speedups", "inf")):
        with pytest.raises(InputError, match=f"{flag[2:]}=.*: expected"):
            reproduce.main([flag, value])


def test_files_that_are_missing_are_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config("yolov3-lite").write(Path("net.cfg"))
    Path("a.names").write_text("a\n")
    Path("d.data").write_text("names = a.names\ntrain = nowhere\n")

    def run_steps(*_: object) -> None:
        raise AssertionError("run")

    monkeypatch.setattr(reproduce, "run_steps", run_steps)
    flags = ["--cfg", "net.cfg", "--data", "d.data", "--weights", "w.weights"]
    with pytest.raises(InputError, match=r"w\.weights: cannot be read"):
        reproduce.main(flags)
    Path("w.weights").touch()
    with pytest.raises(InputError, match="nowhere"):
        reproduce.main(flags)


@pytest.mark.slow
def test_the_whole_experiment(project: Path) -> None:  # noqa: F811
    netdef = config("yolov3-lite", thinner=8)
    Path("net.cfg").write_text(netdef.text())
    write_weights("net.weights", Darknet(netdef))
    reproduce.main([
        *("--data", "demo.data", "--cfg", "net.cfg", "--weights", "net.weights"),
        *("--name", "x", "--img_size", "64", "--sparse_epochs", "1", "--tune_epochs", "1"),
        *("--seed", "0", "--jobs", "2", "--speedups", "1"),
    ])  # fmt: skip
    table = Path("runs/x/table.md").read_text()
    assert table.count("\n| ") == 12 and "took turns" in table
    assert Path("runs/x/sizes.png").stat().st_size > 10_000
