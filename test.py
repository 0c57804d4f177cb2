"""Measure how good a network's detections are: its mAP on a data set.

    python test.py --weights weights/NAME/best.pt --data my_photos
    python test.py --weights yolov3-tiny.weights --cfg config/yolov3-tiny.cfg --data data/coco.data
    python test.py --engine openvino --precision bf16      # what another engine loses, if anything

Prints a row a class and writes into the output folder: metrics.json and table.txt,
precision_recall.png, confusion.png, and in COCO's format detections.json with the ground_truth.json
that it belongs to. `--rule darknet --conf_thres 0.005 --nms_thres 0.45 --max_detections 0` is what
Darknet's own `detector map` measures.
"""

import sys

from import_param import TestSettings
from utils.console.progress import say
from utils.errors import run
from utils.settings.loader import given, load, save

FIRST_FLAGS = (  # of --help; --help_all has the others
    *("weights", "cfg", "data", "img_size"),
    *("rule", "split", "engine", "precision", "output"),
)


def main(argv: list[str] | None = None) -> None:
    """Read the flags, open the network and the photos, detect, measure, and write."""
    settings = load(TestSettings, argv, about=__doc__, first=FIRST_FLAGS)
    # Imported after the flags are read, so that --help and a mistyped flag need no torch.
    from utils.backends.exported import thresholds
    from utils.backends.runtime import load_any_network, open_runtime
    from utils.console.next_steps import after_test
    from utils.data.datasets import ValidationDataset, validation_loader
    from utils.data.splits import open_split
    from utils.data.views import InputView
    from utils.evaluation.evaluate import evaluate
    from utils.evaluation.metrics import format_metrics
    from utils.evaluation.report import write_report
    from utils.files.paths import output_folder
    from utils.visualization.metrics_plots import plot_confusion, plot_precision_recall

    data = settings.data
    asked = given(argv)
    network = load_any_network(settings.network, settings.runtime, asked, data)
    say(network.origin)
    nms = thresholds(network.model, settings.nms, asked)
    classes = {"the network": network.names}
    view = InputView(network.size, network.letterbox)
    photos = open_split(data, settings.test.split, classes, expect_objects=True, view=view)

    folder = output_folder(settings.test.output)
    validation = ValidationDataset(photos, network.size, network.letterbox)
    metrics, detections = evaluate(
        network.model,
        validation_loader(validation, data),
        validation.targets,
        settings.evaluation,
        nms,
        letterbox=network.letterbox,
        run=open_runtime(network, data.photos_at_once, settings.runtime, data),
    )
    table = format_metrics(metrics, photos.names)
    say(table)
    save(settings, folder / "settings.json")
    write_report(folder, photos, metrics, detections, table)
    plot_precision_recall(metrics, photos.names, folder / "precision_recall.png")
    plot_confusion(metrics, photos.names, folder / "confusion.png")
    say(f"curves, confusions and detections are in {folder}")
    after_test(settings, network.path, photos.photos[0].path.parent)


if __name__ == "__main__":
    sys.exit(run(main))
