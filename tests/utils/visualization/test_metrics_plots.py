"""The pictures of metrics: made for any number of classes and any names, whole or not at all."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from import_param import Evaluation
from utils.errors import InputError
from utils.evaluation.metrics import Curve, Metrics, compute_metrics
from utils.structures import Detections, Targets
from utils.visualization.metrics_plots import _steps, plot_confusion, plot_precision_recall

Plot = Callable[[Metrics, Sequence[str], str | Path], None]
PLOTS = pytest.mark.parametrize("plot", [plot_precision_recall, plot_confusion])


def measured(classes: int, objects: int = 60, detected: int = 60) -> Metrics:
    """One photo full of random boxes, most of them detected."""
    random = np.random.default_rng(classes)
    corners = random.uniform(0, 500, (objects, 2))
    boxes = torch.tensor(np.hstack([corners, corners + 40]))
    labels = torch.tensor(random.integers(0, classes, objects))
    ignore = torch.zeros(objects, dtype=torch.bool)
    targets = Targets(boxes, labels, ignore, torch.full((objects,), 1600.0))
    scores = torch.tensor(random.random(detected))
    detections = Detections(boxes[:detected] + 3, scores, labels[:detected].roll(detected // 4))
    return compute_metrics([targets], [detections], classes, Evaluation())


@PLOTS
@pytest.mark.parametrize("classes", [1, 3, 30])
@pytest.mark.filterwarnings("error")
def test_a_picture_for_any_number_of_classes(plot: Plot, classes: int, tmp_path: Path) -> None:
    plot(measured(classes), [f"class {i}" for i in range(classes)], tmp_path / "new" / "a.png")
    picture = cv2.imread(str(tmp_path / "new" / "a.png"))
    assert picture is not None
    assert min(picture.shape[:2]) >= 500


def texts(plot: Plot, metrics: Metrics, names: Sequence[str], path: Path) -> list[str]:
    """What is written in a figure, by whoever draws it."""
    figures: list[Figure] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "utils.visualization.metrics_plots.write_figure", lambda f, _: figures.append(f)
        )
        plot(metrics, names, path)
    (figure,) = figures
    written = [text.get_text() for text in figure.findobj(Text) if text.get_visible()]
    return [text for text in written if text]


def test_the_confusion_matrix_says_which_axis_is_which(tmp_path: Path) -> None:
    metrics = measured(2)
    written = texts(plot_confusion, metrics, ["cat", "dog"], tmp_path / "a.png")
    assert {"ground truth", "predicted"} <= set(written)
    assert written.count("cat") == written.count("dog") == written.count("background") == 2
    counts = [str(count) for count in metrics.confusion[metrics.confusion > 0]]
    assert sorted(text for text in written if text in counts) >= sorted(counts)


def test_classes_are_listed_from_the_highest_ap_down(tmp_path: Path) -> None:
    metrics = measured(3)
    written = texts(plot_precision_recall, metrics, ["a", "b", "c"], tmp_path / "a.png")
    order = np.argsort(-metrics.ap, kind="stable")
    assert [text for text in written if text in ("a", "b", "c")] == ["abc"[i] for i in order]
    assert [text for text in written if text in {f"{ap:.3f}" for ap in metrics.ap}] == [
        f"{metrics.ap[i]:.3f}" for i in order
    ]
    assert f"mAP {metrics.mean_ap:.3f} at IoU 0.5 (coco)" in written


@PLOTS
@pytest.mark.filterwarnings("error")
def test_names_are_not_formulas(plot: Plot, tmp_path: Path) -> None:
    plot(measured(3), ["$a_{", "_hidden", "x" * 200], tmp_path / "a.png")


@PLOTS
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("objects", "detected"), [(0, 0), (5, 0)])
def test_nothing_to_draw(plot: Plot, objects: int, detected: int, tmp_path: Path) -> None:
    metrics = measured(2, objects, detected)
    written = texts(plot, metrics, ["a", "b"], tmp_path / "a.png")
    if plot is plot_precision_recall:
        assert ("no ground truth" in written) == (objects == 0)
    else:
        missed = [str(count) for count in metrics.confusion[:, -1] if count]
        assert [text for text in written if text in missed and text != "0"] == missed


@PLOTS
def test_nothing_is_left_behind_by_a_failure(plot: Plot, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 class names: expected 3"):
        plot(measured(3), ["a", "b"], tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.txt: expected a name that ends in \.png"):
        plot(measured(2), ["a", "b"], tmp_path / "a.txt")
    assert not list(tmp_path.iterdir())


def test_the_drawn_curve_has_the_area_of_ap() -> None:
    random = np.random.default_rng(0)
    hits = np.cumsum(random.random(200) < 0.5)
    curve = Curve(hits / 150, hits / np.arange(1, 201), np.linspace(1, 0, 200))
    recall, precision = _steps(curve, to_zero=True)
    drawn = np.diff(recall) @ precision[1:]  # where="pre": a step has the height of its end
    envelope = np.maximum.accumulate(curve.precision[::-1])[::-1]
    assert drawn == pytest.approx(np.diff(curve.recall, prepend=0) @ envelope)
    assert precision[-1] == 0
