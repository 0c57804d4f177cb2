"""Precision, recall and confusions as pictures: PNG files of `Metrics`.

Figures are made without pyplot, so nothing global is touched and no display is looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.evaluation.matching import Floats, Ints
from utils.evaluation.metrics import Curve, Metrics, check_names, envelope
from utils.fonts import class_label
from utils.visualization.colours import GRID, INK, PALE, as_hex, colour
from utils.visualization.figures import plain, short_count, write_figure

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.axes import Axes

FEW = 10  # classes whose curves do not hide one another
COLUMN = 27  # names below one another that are as high as the curves
LETTER = 0.085  # inches that a letter beside an axis takes
RECALLS = np.linspace(0, 1, 1001)


def plot_precision_recall(metrics: Metrics, names: Sequence[str], path: str | Path) -> None:
    """Precision over recall for each class, and the AP of each, best first, as a PNG file.

    Drawn is the envelope, the highest precision at each recall or beyond, whose area is AP.
    """
    from matplotlib.figure import Figure

    check_names(metrics, names)
    present = np.flatnonzero(metrics.objects > 0)
    shown = present[np.argsort(-metrics.ap[present], kind="stable")]
    columns = max(1, -(-len(shown) // COLUMN))
    figure = Figure(figsize=(6.8 + 4.2 * columns, 5.5), dpi=120, layout="constrained")
    axes = figure.subplots(1, 1 + columns, width_ratios=(1.6, *[1] * columns))
    colours = [as_hex(colour(int(label))) for label in shown]
    _draw_curves(axes[0], [metrics.curves[label] for label in shown], colours)
    for column in range(columns):
        part = slice(column * COLUMN, (column + 1) * COLUMN)
        labels = [plain(class_label(int(label), names)) for label in shown[part]]
        _draw_bars(axes[1 + column], metrics.ap[shown[part]], labels, colours[part])
        axes[1 + column].set_xlabel(f"AP at IoU {metrics.iou_thres:g}")
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
    mean = "-" if np.isnan(metrics.mean_ap) else f"{metrics.mean_ap:.3f}"
    figure.suptitle(f"mAP {mean} at IoU {metrics.iou_thres:g} ({metrics.rule})")
    write_figure(figure, path)


def _draw_curves(axes: Axes, curves: list[Curve], colours: list[str]) -> None:
    few = len(curves) <= FEW
    for curve, shade in zip(curves, colours, strict=True):
        recall, precision = _steps(curve, to_zero=few)
        axes.step(*(recall, precision), where="pre", color=shade, linewidth=1.6 if few else 0.7)
    if len(curves) > 1:
        mean = np.mean([_at(curve, RECALLS) for curve in curves], axis=0)
        axes.plot(RECALLS, mean, color=INK, linewidth=2.4, label="mean of the classes")
        axes.legend(loc="best", frameon=False)
    if not curves:
        axes.text(0.5, 0.5, "no ground truth", ha="center", color=PALE)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision (envelope)")
    axes.grid(color=GRID, linewidth=0.6)


def _steps(curve: Curve, to_zero: bool) -> tuple[Floats, Floats]:
    """Recall and envelope at the corners of the curve, and down to zero where its recall ends."""
    if not len(curve.recall):
        return np.zeros(0), np.zeros(0)
    high = envelope(curve.precision)
    ends = np.append(np.flatnonzero(np.diff(high)), len(high) - 1)  # of each level
    recall, precision = np.append(0, curve.recall[ends]), np.append(high[0], high[ends])
    if to_zero:
        return np.append(recall, recall[-1]), np.append(precision, 0)
    return recall, precision


def _at(curve: Curve, recalls: Floats) -> Floats:
    """The envelope [R] at some recalls."""
    place = np.searchsorted(curve.recall, recalls)
    return np.append(envelope(curve.precision), 0.0)[place]


def _draw_bars(axes: Axes, ap: Floats, names: list[str], colours: list[str]) -> None:
    places = range(len(ap))
    axes.barh(places, ap, color=colours, height=0.75)
    for place, value in enumerate(ap.tolist()):
        axes.text(value + 0.01, place, f"{value:.3f}", va="center", fontsize=8, color=INK)
    axes.set_yticks(places, names, fontsize=8)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set(xlim=(0, 1.14), ylim=(max(len(ap), 5) - 0.4, -0.6))


def plot_confusion(metrics: Metrics, names: Sequence[str], path: str | Path) -> None:
    """The confusion matrix as a PNG file: counts, shaded by their share of the ground truth.

    Detections of the background have no total to be a share of, so that row is not shaded.
    """
    from matplotlib.figure import Figure

    check_names(metrics, names)
    labels = [*(plain(class_label(i, names)) for i in range(len(names))), "background"]
    few = len(labels) <= FEW + 1
    size = max(4.0, (0.6 if few else 0.25) * len(labels))  # inches
    figure = Figure(figsize=(size + 2.4, size + 1.8), dpi=110, layout="constrained")
    axes = figure.subplots()
    matrix = metrics.confusion
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    shares[-1] = 0
    shades = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    _write_counts(axes, matrix, shares, 9 if few else 6)
    places = range(len(labels))
    fit = max(map(len, labels)) * LETTER <= size / len(labels)
    axes.set_xticks(places, labels, rotation=0 if fit else 90, fontsize=9 if few else 8)
    axes.set_yticks(places, labels, fontsize=9 if few else 8)
    axes.set_xticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=GRID, linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    words = 10 if few else size + 4  # points: a large figure is looked at from afar
    axes.set_xlabel("predicted", fontsize=words)
    axes.set_ylabel("ground truth", fontsize=words)
    title = f"confidence above {metrics.conf:.3f}, IoU {metrics.iou_thres:g}"
    axes.set_title(title, fontsize=words)
    scale = axes.inset_axes((1 + 0.15 / size, 0, 0.18 / size, 1))
    bar = figure.colorbar(shades, cax=scale)
    bar.set_label("share of the ground truth", fontsize=words)
    bar.ax.tick_params(labelsize=words)
    bar.outline.set_visible(False)
    write_figure(figure, path)


def _write_counts(axes: Axes, matrix: Ints, shares: Floats, size: int) -> None:
    for row, column in np.argwhere(matrix > 0).tolist():
        axes.text(
            *(column, row, short_count(int(matrix[row, column]))),
            ha="center",
            va="center",
            fontsize=size,
            color="white" if shares[row, column] > 0.55 else INK,
        )
