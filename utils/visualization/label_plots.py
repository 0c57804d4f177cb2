"""What is labelled in a data set? Classes and box sizes as a picture; photos with their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.data.photos import PhotoSet
from utils.data.suspicious import Suspicion
from utils.fonts import class_label
from utils.structures import Image
from utils.visualization.colours import as_hex, colour
from utils.visualization.draw import draw_boxes, draw_caption, grid, within
from utils.visualization.figures import count_ticks_, plain, write_figure

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.axes import Axes

CELL = 320  # pixels, the longer side of a photo on a sheet
COLUMNS = 4  # photos beside each other
MOST_CLASSES = 40  # bars of a histogram; of more classes the rarest are shown
MARGIN = 1.5  # what is shown around a suspicious box, in its own sides
LEAST_VIEW = 96  # pixels of the photo that are shown around a small box
MOST_BOXES = 50_000  # dots that are drawn; of more boxes, so many are drawn at random
FEW_CLASSES = 14  # of more, the bars stand beside both other panels
LEAST_ROWS = 5  # so that the bar of one class is no wall
STRENGTHS = (1.0, 0.4)  # of the colours of the photos to train on, and to validate on


def plot_labels(splits: Sequence[tuple[str, PhotoSet]], path: Path) -> None:
    """Draw objects by class, their sizes, and where their centres lie, as a PNG file.

    splits: photos with what they are for, such as ("train", photos).
    """
    from matplotlib.figure import Figure

    rows = min(len(splits[0][1].names), MOST_CLASSES)
    few = rows <= FEW_CLASSES
    height = max(3.8 if few else 7.5, 0.22 * rows + 1.2)
    figure = Figure(figsize=(13 if few else 10, height), dpi=110, layout="constrained")
    axes = figure.subplot_mosaic("csp" if few else "cs;cp")
    _plot_classes(axes["c"], splits)
    _plot_sizes(axes["s"], splits)
    _plot_centres(axes["p"], splits)
    write_figure(figure, path)


def _plot_classes(axes: Axes, splits: Sequence[tuple[str, PhotoSet]]) -> None:
    """Objects by class, most frequent on top, each in its colour: those of a second split paler."""
    from matplotlib.patches import Patch

    names = splits[0][1].names
    totals = np.sum([photos.report.objects for _, photos in splits], axis=0)
    shown = np.argsort(totals, kind="stable")[:MOST_CLASSES]
    colours = [as_hex(colour(int(index))) for index in shown]
    left = np.zeros(len(shown))
    for (_, photos), strength in zip(splits, STRENGTHS, strict=False):
        counts = np.array(photos.report.objects)[shown]
        axes.barh(np.arange(len(shown)), counts, left=left, color=colours, alpha=strength)
        left = left + counts
    for place, index in enumerate(shown):
        axes.text(left[place], place, f" {totals[index]:,}", va="center", fontsize=8)
    labels = [plain(class_label(int(index), names)) for index in shown]
    axes.set_yticks(np.arange(len(shown)), labels, fontsize=8)
    axes.set(xlim=(0, 1.18 * max(1, totals[shown].max())))
    axes.set(ylim=(len(shown) - max(len(shown), LEAST_ROWS) - 0.6, len(shown) - 0.4))
    count_ticks_(axes.xaxis)
    rarest = f", the rarest {len(shown)} of {len(names)}" if len(shown) < len(names) else ""
    axes.set(xlabel="objects", title=f"classes{rarest}")
    legend = [
        Patch(color="#555555", alpha=strength, label=title)
        for (title, _), strength in zip(splits, STRENGTHS, strict=False)
    ]
    axes.legend(handles=legend, fontsize=8, loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _plot_sizes(axes: Axes, splits: Sequence[tuple[str, PhotoSet]]) -> None:
    """Widths and heights as shares of the photos, on logarithmic axes; rare classes on top."""
    shares = np.concatenate([_shares(photos) for _, photos in splits])
    parts = [photo.labels for _, split in splits for photo in split.photos]
    labels = np.concatenate([np.zeros(0, int), *parts]).astype(int)
    some = ""
    if len(labels) > MOST_BOXES:
        some = f" ({MOST_BOXES:,} of them)"
        drawn = np.random.default_rng(0).choice(len(labels), MOST_BOXES, replace=False)
        shares, labels = shares[drawn], labels[drawn]
    order = np.argsort(-np.bincount(labels)[labels], kind="stable") if len(labels) else labels
    sides = (shares[:, 2:] - shares[:, :2]).clip(1e-4)[order]
    colours = [as_hex(colour(int(label))) for label in labels[order]]
    axes.scatter(sides[:, 0], sides[:, 1], s=7, alpha=0.5, c=colours, lw=0)
    ticks = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
    axes.set(xscale="log", yscale="log", title=f"sizes of boxes{some}, as shares of the photo")
    axes.set(xlabel="width", ylabel="height")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{tick:.0%}" for tick in ticks], fontsize=8)
        axis.set_ticks([], minor=True)
    axes.set_aspect("equal")
    axes.grid(alpha=0.3)


def _plot_centres(axes: Axes, splits: Sequence[tuple[str, PhotoSet]]) -> None:
    shares = np.concatenate([_shares(photos) for _, photos in splits])
    centres = (shares[:, :2] + shares[:, 2:]) / 2
    axes.hist2d(centres[:, 0], centres[:, 1], bins=24, range=[[0, 1], [0, 1]], cmap="Blues")
    axes.set(title="where their centres lie", xlabel="from left to right", ylabel="from top down")
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


def _shares(photos: PhotoSet) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """All boxes as xyxy in shares of their photos, [N, 4]."""
    boxes = [photo.boxes / np.tile(photo.size, 2) for photo in photos.photos]
    return np.concatenate([np.zeros((0, 4)), *boxes])


def contact_sheet(photos: PhotoSet, count: int) -> Image:
    """Some photos, spread over all, with their boxes, uint8 [H, W, 3], RGB."""
    indices = np.linspace(0, len(photos) - 1, min(count, len(photos))).round().astype(int).tolist()
    pictures = [
        draw_boxes(
            within(image, CELL),
            photo.boxes * (within(image, CELL).shape[1] / image.shape[1]),
            photo.labels,
            photos.names,
        )
        for photo, image in ((photos.photos[i], photos.image(i)) for i in indices)
    ]
    return grid(pictures, COLUMNS)


def suspicious_sheet(photos: PhotoSet, suspicions: Sequence[Suspicion]) -> Image:
    """What lies around suspicious labels, each with its number, uint8 [H, W, 3], RGB."""
    pictures = []
    for number, suspicion in enumerate(suspicions, 1):
        photo, image = photos.photos[suspicion.photo], photos.image(suspicion.photo)
        left, top, right, bottom = photo.boxes[suspicion.label].tolist()
        side = max(LEAST_VIEW, MARGIN * max(right - left, bottom - top))
        x, y = (left + right) / 2, (top + bottom) / 2
        x0, y0 = (max(0, round(place - side)) for place in (x, y))
        view = image[y0 : max(y0 + 1, round(y + side)), x0 : max(x0 + 1, round(x + side))]
        scale = CELL / max(view.shape[:2])
        view = _enlarged(view, scale)
        box = (photo.boxes[[suspicion.label]] - np.tile([x0, y0], 2)) * scale
        drawn = draw_boxes(view, box, photo.labels[[suspicion.label]], photos.names)
        pictures.append(draw_caption(drawn, str(number)))
    return grid(pictures, COLUMNS)


def _enlarged(image: Image, scale: float) -> Image:
    import cv2

    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    mode = cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, size, interpolation=mode), np.uint8)
