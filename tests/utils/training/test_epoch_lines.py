"""Does an epoch's line fit, and does it say what there is to say?"""

from dataclasses import replace

import pytest

from import_param import Distillation, Sparsity, Training, TrainSettings
from utils.training.epoch_lines import HEADER_EVERY, EpochLines
from utils.training.progress import Progress

SETTINGS = TrainSettings(training=Training(epochs=1000))
FIGURES = {
    "loss/box": 123456789.0,
    "loss/objectness": 9876.54321,
    "loss/classes": 1e-9,
    "metrics/precision": 1.0,
    "metrics/recall": 0.98765,
    "mAP/mAP@.5": 0.98765,
    "mAP/mAP@.5:.95": 0.12345,
    "AP/a class with a very long name " * 9: 0.5,
    "scales/10 %": 0.001,
}
SPARSE = {"sparsity/below 0.001": 0.999, "sparsity/below 0.1": 1.0}


def lines_of(settings: TrainSettings, figures: dict[str, float]) -> list[str]:
    lines = EpochLines(settings)
    return lines.of(Progress(epoch=1000, best=0.98765), figures, better=True).splitlines()


@pytest.mark.parametrize("teacher", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_line_fits_100_columns_below_its_header(teacher: bool, sparse: bool) -> None:
    figures = FIGURES | ({"loss/teacher": 3e30} if teacher else {}) | (SPARSE if sparse else {})
    settings = replace(
        SETTINGS,
        distillation=Distillation(teacher="best.pt" if teacher else ""),
        sparsity=Sparsity(is_pruned=sparse),
    )
    header, line = lines_of(settings, figures)
    assert len(header) == len(line) <= 100
    assert len(header.split()) == len(line.split()) == 11 + teacher + sparse
    assert "1.2e8" in line and "9876.5" in line and "0.9877*" in line
    assert ("3.0e30" in line, "100%" in line) == (teacher, sparse)


def test_what_was_not_measured_is_a_dash() -> None:
    _, line = lines_of(SETTINGS, {"loss/box": 0.1, "mAP/mAP@.5": float("nan")})
    assert line.split()[1:8] == ["0.1000", *"------"]


def test_the_header_comes_again() -> None:
    lines = EpochLines(SETTINGS)
    texts = [lines.of(Progress(epoch), FIGURES, False) for epoch in range(2 * HEADER_EVERY + 1)]
    assert ["epoch" in text for text in texts].count(True) == 3


def test_the_time_left_is_that_of_the_epochs_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 60.0, 180.0])
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    lines = EpochLines(replace(SETTINGS, training=Training(epochs=4)))
    assert lines.of(Progress(1), FIGURES, False).split()[-2:] == ["1:00", "3:00"]
    assert lines.of(Progress(2), FIGURES, False).split()[-2:] == ["2:00", "3:00"]
