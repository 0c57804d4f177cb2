"""Folders of runs as scripts leave them, made in a moment."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from import_param import (
    Evaluation,
    Model,
    PruneSettings,
    Pruning,
    Sparsity,
    Training,
    TrainSettings,
)
from models.darknet import Darknet
from models.netdef import parse
from tests.conftest import COLOUR_CFG, COLOURS
from utils.checkpoint.checkpoint import Origin, save_with_pair
from utils.data.datasets import ValidationDataset
from utils.data.photos import Photo, PhotoSet
from utils.data.report import Report
from utils.evaluation.metrics import compute_metrics
from utils.files.writing import write_text
from utils.monitoring.history import CSV_NAME, History, write_history
from utils.run_page.live import LivePage
from utils.settings.loader import save
from utils.structures import Detections
from utils.visualization.draw import write_image

HOSTILE = ('<script>alert("1")</script>', "人 & 车", "a' onerror='x")  # names of classes
TRAINING = Training(name="first", epochs=4, seed=3)
DENSE = TrainSettings(training=TRAINING)


def photo_set(count: int = 5) -> PhotoSet:
    """Photos with an object of each class on them."""
    boxes = np.array([[5.0, 5, 25, 25], [30, 5, 60, 40], [10, 45, 50, 75]], np.float32)
    labels, ignore, area = np.arange(3), np.zeros(3, bool), np.full(3, 400, np.float32)
    photos = tuple(
        Photo(Path(f"photos/<b>{n}#?%&.jpg"), (96, 80), boxes, labels, ignore, area)
        for n in range(count)
    )
    rng = np.random.default_rng(0)
    cache = {n: rng.integers(0, 255, (80, 96, 3), np.uint8) for n in range(count)}
    report = Report("valid", HOSTILE, count, 0, (count,) * 3, 0, count, 0, ())
    return PhotoSet(HOSTILE, photos, cache, report)


def detections(photos: PhotoSet) -> list[Detections]:
    """On the first photo all objects, on each further one of them one less, and something false."""
    found = []
    for number, photo in enumerate(photos.photos):
        kept = max(0, len(photo.boxes) - number)
        boxes = torch.tensor(np.vstack([photo.boxes[:kept], [[60, 50, 90, 70]] if number else []])
                             if number else photo.boxes)  # fmt: skip
        labels = torch.arange(len(boxes)) % 3
        found.append(Detections(boxes.float(), torch.linspace(0.9, 0.5, len(boxes)), labels))
    return found


def live_page(folder: Path, goes_on: bool = False) -> LivePage:
    """The page of the run `folder`/runs/first."""
    photos = photo_set()
    validation = ValidationDataset(photos, (64, 64), letterbox=False)
    return LivePage(
        folder / "runs/first",
        folder / "weights/first",
        photos,
        validation,
        Evaluation(),
        goes_on,
        torch.device("cpu"),
    )


def history(epochs: int = 4, best: float = 0.8) -> History:
    """Figures as a training has them; the last epoch but one is the best."""
    return {
        float(epoch): {
            "loss/box": 1 / epoch,
            "loss/objectness": math.nan if epoch == 2 else 0.5,
            "lr/lr": 1e-3 * epoch,
            "metrics/precision": 0.5,
            "metrics/recall": 0.4,
            "mAP/mAP@.5": best - 0.1 * abs(epochs - 1 - epoch),
            "mAP/mAP@.5:.95": 0.3,
            "speed/images_per_second": 99.0,
            **{f"AP/{name}": 0.1 * n for n, name in enumerate(HOSTILE)},
        }
        for epoch in range(1, epochs + 1)
    }


def trained_run(
    folder: Path,
    name: str = "first",
    settings: TrainSettings = DENSE,
    best: float = 0.8,
    done: int = 4,
    best_epoch: int = 3,
) -> Path:
    """A training's folders below `folder`; its own is returned."""
    run, weights = folder / "runs" / name, folder / "weights" / name
    settings = replace(settings, training=replace(settings.training, name=name))
    save(settings, run / "settings.json")
    write_history(run / CSV_NAME, history(done, best))
    netdef = parse(COLOUR_CFG)
    origin = Origin(name, epoch=min(done, best_epoch), best=best)
    save_with_pair(weights / "best", netdef, COLOURS, Darknet(netdef), settings, origin)
    for picture in ("labels.png", "augmented_batch.jpg"):
        write_image(run / picture, np.full((60, 90, 3), 200, np.uint8))
    return run


def sparse_run(folder: Path, name: str = "sparse") -> Path:
    """A sparse training, with its sweep."""
    sparse = TrainSettings(training=TRAINING, sparsity=Sparsity(is_pruned=True), model=Model())
    run = trained_run(folder, name, sparse, best_epoch=4)
    rows = {
        epoch: row
        | {f"scales/{n}0 %": n / 10 / epoch for n in range(1, 10)}
        | {"sparsity/below 0.01": 0.1, "left/parameters": 1 / epoch, "left/operations": 0.5}
        for epoch, row in history().items()
    }
    write_history(run / CSV_NAME, rows)
    lines = ["percent,as_cut,reestimated,parameters,operations,ms"]
    lines += [
        f"{n / 10},{0.8 - n / 20},{0.8 - n / 30},{100 - n},{50 - n},{9 - n}" for n in range(8)
    ]
    write_text(run / "percent.csv", "\n".join(lines) + "\n")
    return run


def cut_run(folder: Path, source: str = "sparse", name: str = "cut") -> Path:
    """A cut of the training `source`, with its report."""
    run, weights = folder / "runs" / name, folder / "weights" / name
    network = replace(PruneSettings().network, weights=f"weights/{source}/best.pt")
    save(PruneSettings(network=network, pruning=Pruning(percent=0.5)), run / "settings.json")
    layer = {"layer": 0, "new": 0, "kernel": "3x3", "channels": 8, "channels_now": 0}
    size = {"parameters": 1000, "operations": 5e9, "weights_bytes": 4e6, "latency": 4.5}
    report = {
        "strategy": "slim",
        "before": size,
        "after": {name: value / 2 for name, value in size.items()},
        "found": {
            "before": {"mean_ap": 0.8, "mean_ap_50_95": 0.4},
            "after the cut": {"mean_ap": 0.7, "mean_ap_50_95": math.nan},
        },
        "method": "latency: <measured>",
        "layers": [layer, layer | {"channels_now": 5}],
        "reached": 0.5,
    }
    write_text(run / "report.json", json.dumps(report))
    write_text(weights / "pruned.cfg", parse(COLOUR_CFG).text())
    return run


def measured(page: LivePage) -> None:
    """Show an epoch that was evaluated."""
    photos = page.validation.photos
    found = detections(photos)
    metrics = compute_metrics(page.validation.targets, found, len(photos.names), Evaluation())
    page.update(3, metrics, found)
