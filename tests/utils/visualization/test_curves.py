"""The curves as pictures: what is logged can be seen."""

import math
from pathlib import Path

import cv2
import numpy as np

from utils.visualization.curves import History, curves_by_plot, plot_curves

BLUE = (180, 119, 31)  # matplotlib's first colour, as BGR


def count(file: Path, colour: tuple[int, int, int]) -> int:
    pixels = cv2.imread(str(file))
    assert pixels is not None
    return int((np.abs(pixels.astype(int) - colour).max(axis=-1) < 30).sum())


def test_the_name_up_to_the_first_slash_is_the_plot() -> None:
    history: History = {2: {"AP/a/b": 0.2, "lr": 3}, 1: {"AP/a/b": 0.1, "AP/c": 1}}
    assert curves_by_plot(history) == {
        "AP": {"a/b": ([1, 2], [0.1, 0.2]), "c": ([1], [1])},
        "lr": {"lr": ([2], [3])},
    }


def test_one_epoch_alone_can_be_seen(tmp_path: Path) -> None:
    (file,) = plot_curves({1: {"loss/box": 2.0}}, tmp_path)
    (empty,) = plot_curves({1: {"loss/box": math.nan}}, tmp_path / "empty")
    assert count(file, BLUE) > count(empty, BLUE) > 0  # the legend's own line is blue too


def test_nan_and_infinity_leave_gaps(tmp_path: Path) -> None:
    values = [1.0, math.nan, 2.0, math.inf, 3.0, -math.inf]
    (gaps,) = plot_curves({e: {"loss/box": v} for e, v in enumerate(values)}, tmp_path)
    finite: History = {e: {"loss/box": v} for e, v in enumerate(values) if math.isfinite(v)}
    (whole,) = plot_curves(finite, tmp_path / "whole")
    points = count(gaps, BLUE)
    (none,) = plot_curves({1: {"loss/box": math.nan}}, tmp_path / "none")
    assert count(none, BLUE) < points < count(whole, BLUE)  # three points, and no line


def test_a_legend_of_eighty_classes_fits(tmp_path: Path) -> None:
    history: History = {e: {f"AP/class number {c}": c / 80 for c in range(80)} for e in (1, 2)}
    (file,) = plot_curves(history, tmp_path)
    pixels = cv2.imread(str(file))
    assert pixels is not None
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (border == 255).all()  # nothing is cut off at the edge


def test_an_empty_history_draws_nothing(tmp_path: Path) -> None:
    assert plot_curves({}, tmp_path) == []
