"""Does detect_img.py find on the card what it finds on the CPU?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import detect_img
from tools.gpu.findings import Findings
from tools.gpu.parity import exact_float32
from tools.gpu.task import ROOT, Task
from tools.gpu.training import demo_data, trained
from utils.files.reading import read_text

LEAST_SCORE, SMALL_LEAST_SCORE = 0.1, 0.0002  # of objects that are looked at
PIXELS, SCORE = 1.0, 0.02  # by which a box and its score may differ
ODD_SHARE = 0.01  # of the objects: rounding decides between boxes that are as good


@dataclass(frozen=True)
class Box:
    """A detection.

    Attributes:
        category: its class's name.
        score: 0 to 1.
        xyxy: in pixels of the photo.
    """

    category: str
    score: float
    xyxy: tuple[float, ...]


Boxes = dict[str, list[Box]]  # by photo


def detection(task: Task, findings: Findings) -> None:
    """The demo set's validation photos, by the same trained network."""
    weights = trained(task)
    exact_float32()
    demo_data(task)
    photos = Path("demo" if task.small else ROOT / "data" / "demo") / "images" / "valid"
    least = task.of(LEAST_SCORE, SMALL_LEAST_SCORE)
    expected = detect(weights, photos, "cpu", 1, least)
    detected = detect(weights, photos, task.check.device, task.of(1, 4), least)
    count = sum(map(len, expected.values()))
    odd = [
        place
        for name in expected | detected
        for place in unmatched(name, detected, expected, least)
    ]
    findings.figure("photos", len(expected | detected))
    findings.figure("objects on the CPU", count)
    findings.figure("without its like", len(odd))
    findings.expect(count > 0, "nothing was detected at all")
    findings.expect(
        len(odd) <= ODD_SHARE * count,
        f"{len(odd)} of {count} objects differ, such as {next(iter(odd), '')}",
    )


def detect(weights: Path, photos: Path, device: str, batch: int, least: float) -> Boxes:
    """What detect_img.py finds."""
    output = Path(f"detected-{device.replace(':', '-')}-{batch}")
    detect_img.main(
        [
            *("--weights", str(weights), "--source", str(photos), "--output", str(output)),
            *("--device", device, "--engine", "torch", "--batch_size", str(batch)),
            *("--conf_thres", str(least), "--save_json", "--no_save_images"),
        ]
    )
    boxes: Boxes = {}
    for row in json.loads(read_text(output / "detections.json"))["annotations"]:
        box = Box(row["category"], row["score"], tuple(row["xyxy"]))
        boxes.setdefault(row["file_name"], []).append(box)
    return boxes


def unmatched(photo: str, detected: Boxes, expected: Boxes, least: float) -> list[str]:
    """The objects of a photo that only one of the two has, those near the least score aside."""
    one, other = detected.get(photo, []), expected.get(photo, [])
    return [
        f"{photo}: {box.category} {box.score:.3f}"
        for boxes, others in ((one, other), (other, one))
        for box in boxes
        if box.score > least + SCORE and not any(alike(box, each) for each in others)
    ]


def alike(one: Box, other: Box) -> bool:
    """Whether two detections are of one object, but for rounding."""
    far = max(abs(a - b) for a, b in zip(one.xyxy, other.xyxy, strict=True))
    near = far <= PIXELS and abs(one.score - other.score) <= SCORE
    return one.category == other.category and near
