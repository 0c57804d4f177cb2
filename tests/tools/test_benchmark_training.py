"""benchmark_training.py, from its flags to its table."""

from pathlib import Path

import pytest

from tests.test_train import project  # noqa: F401  a fixture
from tools import benchmark_training
from utils.errors import run

FLAGS = ["--cfg", "tiny.cfg", "--data", "demo.data", "--img_size", "64", "--batch_size", "4"]


def test_training_and_its_loader_take_turns(
    project: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark_training.main([*FLAGS, "--rounds", "2", "--turn", "2", "--no-evaluation"])
    said = capsys.readouterr().out
    for name in ("train.py", "its loader ", "its loader, from files", "2 rounds of 2 batches"):
        assert name in said
    assert not (project / "runs").exists()


def test_workers_load_alone_and_the_bytes_of_their_batches_are_told(
    project: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    fast = ("--rounds", "1", "--turn", "2", "--no-evaluation", "--workers", "1")
    benchmark_training.main([*FLAGS, "--img_size", "320", *fast])
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("1 worker processes alone: ")
    assert line.endswith(f"; {4 * 3 * 320 * 320 / 1e6:.1f} MB of shared memory for a batch of 4")


def test_rates_are_what_the_times_say() -> None:
    drawn = benchmark_training.table({"train.py": [400.0, 500.0, 600.0], "its loader": [50.0]}, 24)
    ours, loader = (line.split() for line in drawn.splitlines()[3:5])
    assert ours[3:] == ["48.0", "|", "43.6-53.3", "|", "1.00", "|"]
    assert loader[4:] == ["480.0", "|", "480.0-480.0", "|", "10.00", "|"]


@pytest.mark.parametrize("flags", [["--rounds", "0"], ["--data", "none.data"], ["--cfg", "no.cfg"]])
def test_bad_input_is_one_line(
    flags: list[str],
    project: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(lambda: benchmark_training.main([*FLAGS, *flags])) == 2
    assert capsys.readouterr().err.count("\n") == 1
