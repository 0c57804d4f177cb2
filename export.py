"""Write a trained network in the formats of other programs.

    python export.py --weights weights/NAME/best.pt --format onnx openvino ncnn torchscript darknet
    python export.py --weights weights/NAME/best.pt --format onnx --nms
    python export.py --weights weights/NAME/best.pt --precision int8 --data my_photos
    python export.py --weights weights/NAME/best.pt --standalone

Each file is opened again by the library that it is for and compared with torch on real photos
before it is kept. `int8` is calibrated on training photos; mAP before and after, on the validation
photos and through the reloaded files, is printed and left in export.json. `--standalone` puts each
format into a folder of its own that runs without this project and torch: the file, detector.py,
requirements.txt and README.md.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from import_param import EVALUATION_NMS, Data, DataSet, Evaluation, ExportSettings
from utils.console.progress import say
from utils.errors import InputError, run
from utils.settings.loader import load, save

if TYPE_CHECKING:
    from torch import Tensor

    from utils.backends.export import Exported
    from utils.checkpoint.network import Network
    from utils.data.calibration import SampleImages
    from utils.data.photos import PhotoSet
    from utils.evaluation.evaluate import Run


FIRST_FLAGS = (  # of --help; --help_all has the others
    *("weights", "format", "precision"),
    *("data", "nms", "img_size", "output"),
)


def main(argv: list[str] | None = None) -> None:
    """Read the flags, open the network and photos, write and compare each format, and report."""
    settings = load(ExportSettings, argv, about=__doc__, first=FIRST_FLAGS)
    # Imported after the flags are read, so that --help and a mistyped flag need no torch.
    from utils.backends.export import check_format, export
    from utils.checkpoint.network import load_network
    from utils.console.next_steps import after_export
    from utils.files.writing import write_text

    for file_format in settings.export.format:
        check_format(file_format, settings.export)
    network = load_network(dataclasses.replace(settings.network, device="cpu"))
    say(network.origin)
    calibration, validation = int8_photos(settings, network)
    photos, photo_folder = comparison_photos(settings, network, validation)
    stem = file_stem(settings)
    report: dict[str, Any] = {}
    files = []
    for file_format in settings.export.format:
        exported = export(
            network,
            file_format,
            own_stem(stem, file_format, settings),
            photos,
            settings.export,
            settings.nms,
            calibration,
        )
        say(f"{', '.join(map(str, exported.files))}: {difference_line(exported, len(photos))}")
        files.append(exported.files[0])
        report[file_format] = {
            "files": [file.name for file in exported.files],
            "difference": exported.difference,
            "largest": exported.largest,
        }
        if exported.int8_loss is not None:
            report[file_format]["int8_loss"] = exported.int8_loss
        if validation:
            report[file_format] |= mean_ap_before_and_after(network, validation, exported.run)
        if settings.export.standalone:
            folder = exported.files[0].parent
            say(f"{folder} runs alone: pip install -r requirements.txt there, then")
            say("  python detector.py photo.jpg")
    save(settings, stem.parent / "export_settings.json")
    write_text(stem.parent / "export.json", json.dumps(report, indent=2) + "\n")
    after_export(settings, files, network.path, photo_folder)


def int8_photos(
    settings: ExportSettings, network: Network
) -> tuple[Tensor | None, PhotoSet | None]:
    """The photos to calibrate int8 on, and those to measure it on; neither for float32."""
    if settings.export.precision != "int8":
        return None, None
    from utils.data.calibration import sample_images
    from utils.data.splits import open_split

    if not settings.data.data:
        raise InputError("data='': expected a data set to calibrate int8 on, and to measure it")
    validation = open_split(
        settings.data, "valid", {"the network": network.names}, expect_objects=True
    )
    count = settings.export.calibration_photos
    photos = sample_images(settings.data, network.size, network.letterbox, count, is_data_set=True)
    return photos.images, validation


def comparison_photos(
    settings: ExportSettings, network: Network, validation: PhotoSet | None
) -> SampleImages:
    """The photos on which the files are compared with torch, and their folder.

    validation: the data set's photos, where they are open already.
    """
    from utils.data.calibration import images_of, sample_images

    path = settings.export.source or settings.data.data or DataSet().data
    source = dataclasses.replace(settings.data, data=path)
    count = settings.export.photos
    if validation and not settings.export.source:
        return images_of(validation, network.size, network.letterbox, count)
    return sample_images(
        source,
        network.size,
        network.letterbox,
        count,
        "valid",
        is_data_set=not settings.export.source,
    )


def file_stem(settings: ExportSettings) -> Path:
    """Where the files go, without suffix; the folder is made where it is missing."""
    from utils.checkpoint.network import newest_weights
    from utils.files.paths import output_folder

    export = settings.export
    weights = Path(settings.network.weights) if settings.network.weights else newest_weights()
    folder = Path(export.output) if export.output else weights.parent / "export"
    options = {"dynamic": export.dynamic, "nms": export.nms, "int8": export.precision == "int8"}
    marks = [mark for mark, is_on in options.items() if is_on]
    return output_folder(str(folder)) / "-".join([weights.stem, *marks])


def own_stem(stem: Path, file_format: str, settings: ExportSettings) -> Path:
    """Where a format's files go: with `standalone` into a folder of its own."""
    from utils.files.paths import output_folder

    if not settings.export.standalone:
        return stem
    return output_folder(str(stem.with_name(f"{stem.name}-{file_format}"))) / stem.name


def difference_line(exported: Exported, photos: int) -> str:
    """How far the reloaded network is from torch, in words."""
    loss = "" if exported.int8_loss is None else f"; AP lost in int8: {exported.int8_loss:.3f}"
    if exported.nms_inside:
        source = "torch" if exported.int8_loss is None else "the same maps"
        return (
            f"same detections as {source} with our own NMS on {photos} photos, boxes and scores "
            f"within {exported.difference:.2g}{loss}"
        )
    return (
        f"raw maps within {exported.difference:.2g} of torch on {photos} photos "
        f"(their largest value: {exported.largest:.3g}){loss}"
    )


def mean_ap_before_and_after(
    network: Network, validation: PhotoSet, reloaded: Run
) -> dict[str, float]:
    """mAP@.5 by COCO's rule in float32 and through the int8 file, on the validation photos."""
    from utils.data.datasets import ValidationDataset, validation_loader
    from utils.evaluation.evaluate import evaluate

    photos = ValidationDataset(validation, network.size, network.letterbox)

    def mean_ap(run: Run) -> float:
        metrics, _ = evaluate(
            network.model,
            validation_loader(photos, Data(batch_size=1, workers=0)),
            photos.targets,
            Evaluation(),
            EVALUATION_NMS,
            letterbox=network.letterbox,
            run=run,
        )
        return float(metrics.mean_ap)

    before, after = mean_ap(network.model), mean_ap(reloaded)
    say(f"mAP@.5 on {len(photos)} photos: {before:.4f} in float32, {after:.4f} in int8")
    return {"mAP in float32": before, "mAP in int8": after}


if __name__ == "__main__":
    sys.exit(run(main))
