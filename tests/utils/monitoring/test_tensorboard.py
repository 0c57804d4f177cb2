"""The same curves as TensorBoard's files; tests that need the package skip without it."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import full_disk
from utils.errors import InputError
from utils.monitoring import tensorboard
from utils.monitoring.monitor import Monitor

HISTORY = {1: {"mAP/mAP@.5:.95": 0.25, "AP/猫, schwarz": 0.5}, 2: {"loss/box": float("nan")}}


def figures(folder: Path) -> dict[tuple[int, str], float]:
    """What TensorBoard itself reads."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    assert events.Tags()["images"] in ([], ["validation"])
    return {
        (event.step, tag): event.value
        for tag in events.Tags()["scalars"]
        for event in events.Scalars(tag)
    }


def expected(history: dict[int, dict[str, float]]) -> dict[tuple[int, str], float]:
    return {(step, name): value for step, row in history.items() for name, value in row.items()}


def test_without_the_package_one_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"^monitor='tensorboard': .*; pip install tensorboard$"):
        Monitor(tmp_path, tensorboard=True)


def test_the_files_hold_the_same_figures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    lines: list[str] = []
    with Monitor(tmp_path / "run", tensorboard=True, say=lines.append) as monitor:
        for step, row in HISTORY.items():
            monitor.log(step, row)
        monitor.images(2, "validation", [np.full((20, 30, 3), 99, np.uint8)])
        found = figures(tmp_path / "run")  # while it runs
    assert found == pytest.approx(expected(HISTORY), nan_ok=True)
    assert lines == [f"TensorBoard: `tensorboard --logdir {tmp_path}` shows the curves"]


def test_a_run_that_goes_on_has_each_epoch_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with Monitor(tmp_path, tensorboard=True) as monitor:
        for epoch in (1, 2, 3):
            monitor.log(epoch, {"loss/box": epoch})
    with Monitor(tmp_path, tensorboard=True, resume_before=3) as monitor:
        monitor.log(3, {"loss/box": 9})
        monitor.log(3, {"lr": 1})
    assert figures(tmp_path) == {
        (1, "loss/box"): 1,
        (2, "loss/box"): 2,
        (3, "loss/box"): 9,
        (3, "lr"): 1,
    }
    assert len(list(tmp_path.glob(f"{tensorboard.EVENTS}*"))) == 1


def test_a_full_disk_ends_tensorboard_and_not_the_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    lines: list[str] = []
    with Monitor(tmp_path, tensorboard=True, say=lines.append) as monitor:
        with full_disk(2000):
            for epoch in range(200):
                monitor.log(epoch, {"loss/box": 1})
        monitor.log(200, {"loss/box": 1})
    assert sum("TensorBoard: " in line and "going on without" in line for line in lines) == 1
