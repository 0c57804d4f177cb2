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
from utils.visualization.draw import draw_boxes, draw_caption, grid, within
from utils.visualization.figures import write_figure

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.axes import Axes

CELL = 320  # pixels, the longer side of a photo on a sheet
COLUMNS = 4  # photos beside each other
MOST_CLASSES = 40  # bars of a histogram; of more classes the rarest are shown
MARGIN = 1.5  # what is shown around a suspicious box, in its own sides
LEAST_VIEW = 96  # pixels of the photo that are shown around a small box
TRAIN, VALID = "#3b6fb6", "#e08a2e"


def plot_labels(splits: Sequence[tuple[str, PhotoSet]], path: Path) -> None:
    """Draw objects by class, their sizes, and where their centres lie, as a PNG file.

    splits: photos with what they are for, such as ("train", photos).
    """
    from matplotlib.figure import Figure

    names = splits[0][1].names
    rows = min(len(names), MOST_CLASSES)
    figure = Figure(figsize=(13, max(3.6, 0.24 * rows + 1.2)), layout="constrained")
    classes, sizes, centres = figure.subplots(1, 3)
    _plot_classes(classes, splits)
    _plot_sizes(sizes, splits)
    _plot_centres(centres, splits)
    write_figure(figure, path)


def _plot_classes(axes: Axes, splits: Sequence[tuple[str, PhotoSet]]) -> None:
    names = splits[0][1].names
    totals = np.sum([photos.report.objects for _, photos in splits], axis=0)
    shown = np.argsort(totals, kind="stable")[:MOST_CLASSES]
    left = np.zeros(len(shown))
    for (title, photos), colour in zip(splits, (TRAIN, VALID), strict=False):
        counts = np.array(photos.report.objects)[shown]
        axes.barh(np.arange(len(shown)), counts, left=left, color=colour, label=title)
        left = left + counts
    for place, index in enumerate(shown):
        axes.text(left[place], place, f" {totals[index]:,}", va="center", fontsize=8)
    labels = [class_label(int(index), names).replace("$", r"\$")[:24] for index in shown]
    axes.set_yticks(np.arange(len(shown)), labels, fontsize=8)
    axes.margins(x=0.15)
    rarest = f", the rarest {len(shown)} of {len(names)}" if len(shown) < len(names) else ""
    axes.set(xlabel="objects", title=f"classes{rarest}")
    axes.legend(fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)


def _plot_sizes(axes: Axes, splits: Sequence[tuple[str, PhotoSet]]) -> None:
    """Widths and heights as shares of the photos, on logarithmic axes."""
    for (title, photos), colour in zip(splits, (TRAIN, VALID), strict=False):
        shares = _shares(photos)
        sides = (shares[:, 2:] - shares[:, :2]).clip(1e-4)
        axes.scatter(sides[:, 0], sides[:, 1], s=6, alpha=0.35, color=colour, label=title, lw=0)
    ticks = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
    axes.set(xscale="log", yscale="log", xlabel="width", ylabel="height", title="sizes of boxes")
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
