"""The files that test.py leaves: its figures and table, and detections with their ground truth."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.data.photos import PhotoSet
from utils.evaluation import coco_files
from utils.evaluation.metrics import Metrics, coco_json
from utils.files.writing import write_text
from utils.structures import Detections


def write_report(
    folder: Path,
    photos: PhotoSet,
    metrics: Metrics,
    detections: Sequence[Detections],
    table: str,
) -> None:
    """Write table.txt, metrics.json, detections.json and ground_truth.json into a folder.

    Files of an earlier test are replaced.
    """
    ids = coco_files.ids_of(photos.photos, len(photos.names))
    results = coco_json(detections, ids.images, ids.categories)
    truth = coco_files.ground_truth(photos.photos, photos.names, ids)
    figures = metric_figures(metrics, photos.names)
    write_text(folder / "table.txt", table + "\n")
    write_text(folder / "metrics.json", json.dumps(figures, indent=2) + "\n")
    write_text(folder / "detections.json", coco_files.dumps(results))
    write_text(folder / "ground_truth.json", coco_files.dumps(truth))


def metric_figures(metrics: Metrics, names: Sequence[str]) -> dict[str, Any]:
    """The figures for programs; null where one is not defined."""

    def plain(value: float) -> float | None:
        return None if value != value else float(value)  # NaN is no JSON

    columns = ("objects", "true_positives", "false_positives")
    rates = ("precision", "recall", "f1", "ap", "ap_50_95")
    return {
        "rule": metrics.rule,
        "iou_thres": metrics.iou_thres,
        "conf": metrics.conf,
        "mAP": plain(metrics.mean_ap),
        "mAP@.5:.95": plain(metrics.mean_ap_50_95),
        "precision": plain(metrics.mean_precision),
        "recall": plain(metrics.mean_recall),
        "coco": {name: plain(value) for name, value in metrics.coco.items()},
        "classes": {
            name: {column: int(getattr(metrics, column)[label]) for column in columns}
            | {rate: plain(getattr(metrics, rate)[label]) for rate in rates}
            for label, name in enumerate(names)
        },
    }
