"""What does a network see on validation photos, and where is it wrong? Pairs of pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from import_param import Evaluation
from utils.data.datasets import ValidationDataset
from utils.evaluation.metrics import Metrics
from utils.evaluation.misses import PhotoErrors, photo_errors
from utils.files.writing import atomic_folder, fill
from utils.images import encode_image
from utils.structures import Detections, Image
from utils.visualization.draw import draw_boxes, within

PHOTOS = "photos"  # a folder of the run's folder
LIST = "photos.json"  # in it: what is on the pictures
EXAMPLES = 8  # photos, spread over all
WORST = 8  # those with the most errors
SIDE = 400  # pixels, the longer side of a picture
QUALITY = 85  # of JPEG files


def write_photos(
    folder: Path,
    validation: ValidationDataset,
    detections: Sequence[Detections],
    metrics: Metrics,
    evaluation: Evaluation,
    epoch: float | None,
) -> None:
    """Write pairs of pictures, and a list of them, in place of those of before.

    Some photos show the ground truth beside what was predicted; the worst ones what was missed
    beside what is not there.

    Args:
        folder: of the run.
        validation: the photos.
        detections: of each photo.
        metrics: of these detections; predictions are those above its confidence.
        evaluation: how detections are matched.
        epoch: whose network this is; None for the best one.

    Raises:
        InputError: a photo cannot be read any more, or a picture cannot be written.
    """
    classes, names = len(metrics.objects), validation.photos.names
    errors = photo_errors(validation.targets, detections, classes, evaluation, metrics.conf)
    spread = np.linspace(0, len(errors) - 1, min(EXAMPLES, len(errors))).round().astype(int)
    worst = sorted(range(len(errors)), key=lambda index: -errors[index].count)[:WORST]
    chosen = {
        "examples": spread.tolist(),
        "worst": [index for index in worst if errors[index].count],
    }
    with atomic_folder(folder / PHOTOS) as made:
        listed: dict[str, Any] = {
            "epoch": epoch,
            "confidence": metrics.conf,
            "iou": metrics.iou_thres,
            "photos": len(errors),
        }
        for kind, indices in chosen.items():
            listed[kind] = []
            for number, index in enumerate(indices, 1):
                file, wrong = f"{kind}-{number}", errors[index]
                shown = _confident(detections[index], wrong)
                pair = _pair(validation, index, shown, wrong, names, only_wrong=kind == "worst")
                for side, picture in zip(("left", "right"), pair, strict=True):
                    fill(made / f"{file}-{side}.jpg", encode_image(picture, ".jpg", QUALITY))
                listed[kind].append(_caption(validation, index, file, wrong))
        fill(made / LIST, json.dumps(listed, indent=2) + "\n")


def _confident(detections: Detections, errors: PhotoErrors) -> Detections:
    keep = errors.shown
    return Detections(detections.boxes[keep], detections.scores[keep], detections.labels[keep])


def _pair(
    validation: ValidationDataset,
    index: int,
    shown: Detections,
    errors: PhotoErrors,
    names: Sequence[str],
    only_wrong: bool,
) -> tuple[Image, Image]:
    """The photo with its objects, and with its predictions; of the wrong ones alone if asked."""
    photo, whole = validation.photos.photos[index], validation.photos.image(index)
    image = within(whole, SIDE)
    scale = image.shape[1] / whole.shape[1]
    objects = errors.missed if only_wrong else ~photo.ignore
    predictions = errors.false if only_wrong else np.ones(len(shown), np.bool_)
    boxes, scores, labels = shown.boxes.numpy(), shown.scores.numpy(), shown.labels.numpy()
    return (
        draw_boxes(image, photo.boxes[objects] * scale, photo.labels[objects], names),
        draw_boxes(
            image,
            boxes[predictions] * scale,
            labels[predictions],
            names,
            scores[predictions],
        ),
    )


def _caption(
    validation: ValidationDataset, index: int, file: str, errors: PhotoErrors
) -> dict[str, Any]:
    photo = validation.photos.photos[index]
    return {
        "file": file,
        "photo": str(photo.path),
        "objects": int((~photo.ignore).sum()),
        "predictions": int(errors.shown.sum()),
        "missed": int(errors.missed.sum()),
        "false": int(errors.false.sum()),
    }
