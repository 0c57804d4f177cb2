"""Does detect_img.py find on the card what it finds on the CPU?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import detect_img
from tools.gpu.findings import Findings
from tools.gpu.parity import exact_float32
from tools.gpu.task import ROOT, Task
from tools.gpu.training import demo_data, trained
from utils.files import read_text

LEAST_SCORE, SMALL_LEAST_SCORE = 0.1, 0.0002  # of objects that are looked at
PIXELS, SCORE = 1.0, 0.02  # by which a box and its score may differ
ODD_SHARE = 0.01  # of the objects: rounding decides between boxes that are as good
Boxes = dict[str, list[dict[str, Any]]]  # by photo


def detection(task: Task, found: Findings) -> None:
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
    found.figure("photos", len(expected | detected))
    found.figure("objects on the CPU", count)
    found.figure("without its like", len(odd))
    found.expect(count > 0, "nothing was detected at all")
    found.expect(
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
        boxes.setdefault(row["file_name"], []).append(row)
    return boxes


def unmatched(photo: str, detected: Boxes, expected: Boxes, least: float) -> list[str]:
    """The objects of a photo that only one of the two has, those near the least score aside."""
    one, other = detected.get(photo, []), expected.get(photo, [])
    return [
        f"{photo}: {row['category']} {row['score']:.3f}"
        for rows, others in ((one, other), (other, one))
        for row in rows
        if row["score"] > least + SCORE and not any(alike(row, each) for each in others)
    ]


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two detections are of one object, but for rounding."""
    far = max(abs(a - b) for a, b in zip(one["xyxy"], other["xyxy"], strict=True))
    score = abs(one["score"] - other["score"])
    return bool(one["category"] == other["category"] and far <= PIXELS and score <= SCORE)
