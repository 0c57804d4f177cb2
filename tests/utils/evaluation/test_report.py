"""The files that test.py leaves: figures for programs, and detections with their ground truth."""

import json
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from import_param import Evaluation
from utils.data.photos import Photo, PhotoSet
from utils.evaluation.metrics import compute_metrics
from utils.evaluation.report import metric_figures, write_report
from utils.structures import Detections

NAMES = ("cat", "dog")


def photo_set() -> PhotoSet:
    """A photo with a cat."""
    box = np.array([[1, 2, 11, 22]], np.float32)
    cat = Photo(
        Path("a.jpg"),
        (40, 30),
        box,
        np.zeros(1, np.int64),
        np.zeros(1, np.bool_),
        np.full(1, 200, np.float32),
    )
    return PhotoSet(NAMES, (cat,), {}, cast(Any, None), mirror=True)


def test_figures_are_those_of_the_metrics_and_null_where_there_is_none(tmp_path: Path) -> None:
    photos = photo_set()
    detections = [
        Detections(
            torch.tensor([[1.0, 2, 11, 22], [20, 20, 30, 30]]),
            torch.tensor([0.9, 0.8]),
            torch.tensor([0, 0]),
        )
    ]
    targets = [photo.targets() for photo in photos.photos]
    metrics = compute_metrics(targets, detections, 2, Evaluation(), conf=0.5)
    write_report(tmp_path, photos, metrics, detections, "the table")
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert figures == metric_figures(metrics, NAMES)
    assert (figures["rule"], figures["iou_thres"], figures["conf"]) == ("coco", 0.5, 0.5)
    assert [figures["mAP"], figures["mAP@.5:.95"], figures["recall"]] == pytest.approx([1, 1, 1])
    assert figures["precision"] == 0.5
    assert figures["classes"]["cat"] == pytest.approx(
        {
            "objects": 1,
            "true_positives": 1,
            "false_positives": 1,
            "precision": 0.5,
            "recall": 1,
            "f1": 2 / 3,
            "ap": 1,
            "ap_50_95": 1,
        }
    )
    assert figures["classes"]["dog"]["objects"] == 0
    assert figures["classes"]["dog"]["ap"] is None
    assert math.isnan(metrics.ap[1])
    assert figures["coco"]["AP50"] == pytest.approx(1) and figures["coco"]["APlarge"] is None
    assert (tmp_path / "table.txt").read_text() == "the table\n"
    results = json.loads((tmp_path / "detections.json").read_text())
    assert [(entry["image_id"], entry["category_id"]) for entry in results] == [(1, 1), (1, 1)]
    assert results[0]["bbox"] == [1, 2, 10, 20]
    truth = json.loads((tmp_path / "ground_truth.json").read_text())
    assert truth["annotations"][0]["bbox"] == [1, 2, 10, 20]
    assert truth["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
