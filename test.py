"""Measure a network: `python test.py`, or with other weights and another data set

    python test.py --weights weights/demo/best.pt --data data/demo.data
    python test.py --weights yolov3-tiny.weights --cfg config/yolov3-tiny.cfg --data data/coco.data
    python test.py --backend openvino --precision bf16      # what another engine loses, if anything

Prints a row a class and writes into the output folder: metrics.json and table.txt,
precision_recall.png, confusion.png, and in COCO's format detections.json with the ground_truth.json
that it belongs to. `--rule darknet --conf_thres 0.005 --nms_thres 0.45 --max_detections 0` is what
Darknet's own `detector map` measures.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from import_param import TestSettings
from utils.backends.runtime import open_runtime
from utils.checkpoint import Network, load_network
from utils.data.datasets import ValidationDataset, validation_loader
from utils.data.photos import PhotoSet
from utils.data.splits import open_split
from utils.detection.writer import output_folder
from utils.errors import run
from utils.evaluation import coco_files
from utils.evaluation.evaluate import evaluate
from utils.evaluation.metrics import Metrics, coco_json, format_metrics
from utils.files import write_text
from utils.settings import load, save
from utils.structures import Detections
from utils.visualization.metrics_plots import plot_confusion, plot_precision_recall


def main(argv: list[str] | None = None) -> None:
    p = load(TestSettings, argv)
    network = load_network(p.network)
    photos = open_split(p.data, p.test.split, [len(network.names)], expect_objects=True)
    tell_names(network, photos)

    folder = output_folder(p.test.output)
    validation = ValidationDataset(photos, network.size, network.letterbox)
    loader = validation_loader(validation, p.data)
    metrics, found = evaluate(
        network.model,
        loader,
        validation.targets,
        p.evaluation,
        p.nms,
        letterbox=network.letterbox,
        run=open_runtime(network, p.data.batch_size, **dataclasses.asdict(p.runtime)),
    )
    table = format_metrics(metrics, photos.names)
    print(table)
    write(folder, p, photos, metrics, found, table)


def tell_names(network: Network, photos: PhotoSet) -> None:
    """Say so where the network calls its classes otherwise than the data set."""
    named = network.names != tuple(str(number) for number in range(len(network.names)))
    if named and network.names != photos.names:
        pairs = zip(network.names, photos.names, strict=True)
        ours, theirs = next(pair for pair in pairs if pair[0] != pair[1])
        print(f"note: the network's {ours!r} is the data set's {theirs!r}; its names are used")


def write(
    folder: Path,
    p: TestSettings,
    photos: PhotoSet,
    metrics: Metrics,
    found: list[Detections],
    table: str,
) -> None:
    """Everything that was measured, into `folder`; files of an earlier test are replaced."""
    names = photos.names
    ids = coco_files.ids_of(photos.photos, len(names))
    detections = coco_json(found, ids.images, ids.categories)
    truth = coco_files.ground_truth(photos.photos, names, ids)
    save(p, folder / "settings.json")
    write_text(folder / "table.txt", table + "\n")
    write_text(folder / "metrics.json", json.dumps(figures(metrics, names), indent=2) + "\n")
    write_text(folder / "detections.json", coco_files.dumps(detections))
    write_text(folder / "ground_truth.json", coco_files.dumps(truth))
    plot_precision_recall(metrics, names, folder / "precision_recall.png")
    plot_confusion(metrics, names, folder / "confusion.png")
    print(f"curves, confusions and detections are in {folder}")


def figures(metrics: Metrics, names: tuple[str, ...]) -> dict[str, Any]:
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


if __name__ == "__main__":
    sys.exit(run(main))
