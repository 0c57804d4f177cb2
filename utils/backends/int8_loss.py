"""How much of what a network detects is lost in int8? Seen on photos without labels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from import_param import EVALUATION_NMS, Evaluation, Nms
from models.darknet import Darknet
from utils.console.progress import track
from utils.evaluation.evaluate import Run, predict
from utils.evaluation.metrics import compute_metrics
from utils.structures import Targets

TRUTH_NMS = Nms(max_detections=EVALUATION_NMS.max_detections)


def int8_loss(model: Darknet, run: Run, batches: Iterable[NDArray[np.float32]]) -> float:
    """By how much mAP@.5 falls where the network's own detections in float are the ground truth.

    These are its detections of a score of at least .25 after NMS. What computes the same has a loss
    of 0, since it finds them all, before any others.

    Args:
        model: the network.
        run: what computes its maps in int8.
        batches: photos [B, 3, H, W] as the network gets them.

    Returns:
        From 0 to 1; NaN where the network detects nothing on these photos.
    """
    device = model.device
    truth, detections = [], []
    for batch in track(batches, "int8 beside float"):
        images = torch.from_numpy(batch).to(device)
        sizes = [(batch.shape[3], batch.shape[2])] * len(batch)
        for own in predict(model, images, sizes, TRUTH_NMS, letterbox=False):
            area = (own.boxes[:, 2:] - own.boxes[:, :2]).prod(1)
            ignore = torch.zeros(len(own.boxes), dtype=torch.bool)
            truth.append(Targets(own.boxes, own.labels, ignore, area))
        detections += predict(model, images, sizes, EVALUATION_NMS, letterbox=False, run=run)
    metrics = compute_metrics(truth, detections, model.heads[0].classes, Evaluation())
    return max(0.0, 1 - float(metrics.mean_ap)) if sum(metrics.objects) else float("nan")
