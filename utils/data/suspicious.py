"""Which labels, of those that can be right, look wrong? Worst first, for a person to look at.

What cannot be right at all is in the report of `utils.data.validation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.data.photos import Photo

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SuspicionOptions:
    """What counts as odd. None of it is wrong by itself."""

    least_side: float = 3.0  # pixels; a narrower box is hard to see, and often a slip of the mouse
    largest_share: float = 0.98  # of the photo; boxes beyond are often a click on the whole picture
    same_box: float = 0.85  # IoU; two boxes that overlap more are often one object labelled twice
    outlier: float = 3.5  # robust standard deviations of a class's sizes and aspects
    edge: float = 0.005  # of the photo; what is nearer to its edge may be cut by it
    least_boxes: int = 12  # of a class, to tell what is usual in it


OPTIONS = SuspicionOptions()


@dataclass(frozen=True)
class Suspicion:
    """A label that looks wrong.

    Attributes:
        photo: its index.
        label: its index on the photo.
        score: how odd it is; above 1 for all, comparable between kinds only roughly.
        reason: in words.
    """

    photo: int
    label: int
    score: float
    reason: str


def suspicious_labels(photos: Sequence[Photo], names: Sequence[str]) -> list[Suspicion]:
    """The labels that look wrong, the oddest first; of each label the worst reason.

    Args:
        photos: with their sound labels.
        names: of the classes.
    """
    suspicions = [
        suspicion
        for index, photo in enumerate(photos)
        for suspicion in (*_of_size(index, photo), *_of_overlap(index, photo, names))
    ]
    suspicions += _outliers(photos, names)
    worst: dict[tuple[int, int], Suspicion] = {}
    for suspicion in suspicions:
        place = suspicion.photo, suspicion.label
        if place not in worst or worst[place].score < suspicion.score:
            worst[place] = suspicion
    return sorted(worst.values(), key=lambda each: (-each.score, each.photo, each.label))


def _of_size(index: int, photo: Photo) -> list[Suspicion]:
    """Boxes that hardly anybody can see, and those around the whole photo."""
    sizes = (photo.boxes[:, 2:] - photo.boxes[:, :2]).astype(np.float64)
    shares = sizes.prod(axis=1) / (photo.size[0] * photo.size[1])
    found = []
    for label, (width, height) in enumerate(sizes):
        side = max(min(width, height), 1e-6)
        if side < OPTIONS.least_side:
            reason = f"{width:.3g}×{height:.3g} pixels"
            found.append(Suspicion(index, label, OPTIONS.least_side / side, reason))
        elif shares[label] > OPTIONS.largest_share:
            found.append(Suspicion(index, label, 2.0, f"{shares[label]:.0%} of the photo"))
    return found


def _of_overlap(index: int, photo: Photo, names: Sequence[str]) -> list[Suspicion]:
    """Boxes that lie on one another: labelled twice, or as two classes."""
    if len(photo.boxes) < 2:
        return []
    ious = np.triu(_ious(photo.boxes.astype(np.float64)), 1)
    found = []
    for first, second in np.argwhere(ious > OPTIONS.same_box).tolist():
        ours, theirs = (names[photo.labels[label]] for label in (first, second))
        as_what = "twice" if ours == theirs else f"as {ours!r} and as {theirs!r}"
        reason = f"labelled {as_what}, IoU {ious[first, second]:.2f}"
        found.append(Suspicion(index, second, 2 + 2 * ious[first, second], reason))
    return found


def _ious(boxes: Floats) -> Floats:
    """The IoU of each box with each, [N, N]."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.asarray(shared / (areas[:, None] + areas[None] - shared))


def _outliers(photos: Sequence[Photo], names: Sequence[str]) -> list[Suspicion]:
    """Boxes that are much larger, smaller, wider or higher than others of their class.

    An object that the photo's edge cuts may well be smaller, and of any shape.
    """
    places = [(i, j) for i, photo in enumerate(photos) for j in range(len(photo.boxes))]
    if not places:
        return []
    boxes = np.concatenate([photo.boxes / np.tile(photo.size, 2) for photo in photos])
    labels = np.concatenate([photo.labels for photo in photos])
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64).clip(1e-9)
    cut = (boxes[:, :2].min(axis=1) < OPTIONS.edge) | (boxes[:, 2:].max(axis=1) > 1 - OPTIONS.edge)
    measures = {
        "size": np.log(sides.prod(axis=1)) / 2,
        "width to height": np.log(sides[:, 0] / sides[:, 1]),
    }
    found = []
    for label in np.unique(labels).tolist():
        own = np.flatnonzero(labels == label)
        if len(own) < OPTIONS.least_boxes:
            continue
        for measure, values in measures.items():
            middle = np.median(values[own])
            spread = max(1.4826 * np.median(np.abs(values[own] - middle)), 0.1)
            for number in own.tolist():
                deviations = (values[number] - middle) / spread
                may_be_cut = cut[number] and (measure != "size" or deviations < 0)
                if abs(deviations) > OPTIONS.outlier and not may_be_cut:
                    times = np.exp(deviations * spread)
                    reason = f"{measure} {times:.2g} times what is usual of {names[label]!r}"
                    score = abs(deviations) / OPTIONS.outlier
                    found.append(Suspicion(*places[number], score, reason))
    return found
