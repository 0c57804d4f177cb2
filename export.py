"""Write a trained network in the formats of other programs.

    python export.py --weights weights/NAME/best.pt --format onnx openvino ncnn torchscript darknet
    python export.py --format onnx --dynamic --nms
    python export.py --format onnx openvino --precision int8 --data data/custom.data

Each file is opened again by the library that it is for and compared with torch on real photos
before it is kept. `int8` is calibrated on training photos; mAP before and after, on the validation
photos and through the reloaded files, is printed and left in export.json.
"""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from import_param import EVALUATION_NMS, Data, DataSet, Evaluation, ExportSettings
from utils.backends.export import Exported, Options, check, export
from utils.checkpoint import Network, load_network, newest_weights
from utils.data.calibration import sample_images
from utils.data.datasets import ValidationDataset, validation_loader
from utils.data.photos import PhotoSet
from utils.data.splits import open_split
from utils.errors import InputError, run
from utils.evaluation.evaluate import evaluate
from utils.files import output_folder, write_text
from utils.settings import load, save


def main(argv: list[str] | None = None) -> None:
    p = load(ExportSettings, argv)
    network = load_network(dataclasses.replace(p.network, device="cpu"))
    options = options_of(p, None)
    if p.export.precision == "int8":
        if not p.data.data:
            raise InputError("data='': expected a data set to calibrate int8 on, and to measure it")
        options = options_of(p, calibration(p, network))
    for kind in p.export.format:
        check(kind, options)
    measured = None
    if p.export.precision == "int8":
        measured = open_split(p.data, "valid", [len(network.names)], expect_objects=True)
    source = dataclasses.replace(p.data, data=p.export.source or p.data.data or DataSet().data)
    photos = sample_images(source, network.size, network.letterbox, p.export.photos, "valid")
    stem = stem_of(p)
    report: dict[str, Any] = {}
    for kind in p.export.format:
        done = export(network, kind, stem, photos, options)
        files = ", ".join(map(str, done.files))
        print(f"{files}: {said(done, options, len(photos))}")
        report[kind] = {
            "files": [file.name for file in done.files],
            "difference": done.difference,
            "largest": done.largest,
        }
        if done.run is not None and measured:
            report[kind] |= quality(network, measured, done.run)
    save(p, stem.parent / "export_settings.json")
    write_text(stem.parent / "export.json", json.dumps(report, indent=2) + "\n")


def calibration(p: ExportSettings, network: Network) -> Tensor:
    count = p.export.calibration_photos
    return sample_images(p.data, network.size, network.letterbox, count)


def options_of(p: ExportSettings, photos: Tensor | None) -> Options:
    return Options(
        precision=p.export.precision,
        calibration=photos,
        dynamic=p.export.dynamic,
        nms=p.export.nms,
        conf_thres=p.nms.conf_thres,
        nms_thres=p.nms.nms_thres,
        max_detections=p.nms.max_detections,
    )


def stem_of(p: ExportSettings) -> Path:
    """The files' folder, made where it is missing, and name without suffix, which says what they
    are."""
    source = Path(p.network.weights) if p.network.weights else newest_weights()
    folder = Path(p.export.output) if p.export.output else source.parent / "export"
    marks = [("dynamic", p.export.dynamic), ("nms", p.export.nms)]
    marks += [("int8", p.export.precision == "int8")]
    return output_folder(str(folder)) / "-".join(
        [source.stem, *(mark for mark, asked in marks if asked)]
    )


def said(done: Exported, options: Options, photos: int) -> str:
    if options.nms:
        return (
            f"same detections as torch on {photos} photos, boxes and scores within "
            f"{done.difference:.2g}"
        )
    return (
        f"raw maps within {done.difference:.2g} of torch on {photos} photos "
        f"(their largest value: {done.largest:.3g})"
    )


def quality(
    network: Network, measured: PhotoSet, reloaded: Callable[[Tensor], list[Tensor]]
) -> dict[str, float]:
    """mAP@.5 by COCO's rule before and after, on the validation photos."""
    photos = ValidationDataset(measured, network.size, network.letterbox)
    found = {}
    for when, compute in (("mAP in float32", network.model), ("mAP in int8", reloaded)):
        metrics, _ = evaluate(
            network.model,
            validation_loader(photos, Data(batch_size=1, workers=0)),
            photos.targets,
            Evaluation(),
            EVALUATION_NMS,
            letterbox=network.letterbox,
            run=compute,
        )
        found[when] = float(metrics.mean_ap)
    before, after = found.values()
    print(f"mAP@.5 on {len(photos)} photos: {before:.4f} in float32, {after:.4f} in int8")
    return found


if __name__ == "__main__":
    sys.exit(run(main))
