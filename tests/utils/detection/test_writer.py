"""What is written about detections."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from import_param import Detection
from utils.boxes import cxcywh_to_xyxy
from utils.detection.writer import (
    DetectedPicture,
    Picture,
    Results,
    class_indices,
    label_lines,
    only_classes,
    output_keys,
    output_names,
)
from utils.errors import InputError
from utils.images import read_image
from utils.structures import Detections

NAMES = ("dog", "a/b", "..", "0")


def detected(key: str = "photo", frame: int | None = None) -> DetectedPicture:
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    detections = Detections(
        torch.tensor([[10.0, 20, 50, 40], [0, 0, 80, 60], [79.5, 59.5, 79.9, 59.9]]),
        torch.tensor([0.9, 0.8, 0.7]),
        torch.tensor([0, 1, 2]),
    )
    picture = Picture(image, torch.zeros(3, 8, 8), key, f"{key}.png", frame)
    return DetectedPicture(picture, detections)


def test_a_label_file_says_what_was_detected() -> None:
    detections = detected().detections
    rows = torch.tensor(
        [[float(part) for part in line.split()] for line in label_lines(detections, (80, 60))]
    )
    assert rows[:, 0].tolist() == detections.labels.tolist()
    boxes = cxcywh_to_xyxy(rows[:, 1:5]) * torch.tensor([80, 60, 80, 60])
    assert torch.allclose(boxes, detections.boxes, atol=1e-4)
    assert torch.allclose(rows[:, 5], detections.scores, atol=1e-6)


def test_json_says_what_was_detected_also_where_that_is_nothing(tmp_path: Path) -> None:
    item = detected("clip_000007", frame=7)
    nothing = DetectedPicture(
        detected("empty").picture, only_classes(item.detections, frozenset({3}))
    )
    with Results(tmp_path, NAMES, Detection(save_json=True)) as results:
        results.add(nothing)
        results.add(item)
    content = json.loads((tmp_path / "detections.json").read_text())
    assert [category["name"] for category in content["categories"]] == list(NAMES)
    assert [image["file_name"] for image in content["images"]] == ["empty.png", "clip_000007.png"]
    assert content["images"][1] == {
        "id": 1, "file_name": "clip_000007.png", "width": 80, "height": 60, "frame": 7,
    }  # fmt: skip
    first = content["annotations"][0]
    assert first["image_id"] == 1
    assert first["category"] == "dog"
    assert first["xyxy"] == [10, 20, 50, 40]
    assert first["bbox"] == [10, 20, 40, 20]
    assert first["score"] == pytest.approx(0.9, abs=1e-6)
    assert [each["id"] for each in content["annotations"]] == [0, 1, 2]


def test_an_error_leaves_what_was_done(tmp_path: Path) -> None:
    results = Results(tmp_path, NAMES, Detection(save_json=True))
    with pytest.raises(KeyboardInterrupt), results:
        results.add(detected())
        raise KeyboardInterrupt
    assert len(json.loads((tmp_path / "detections.json").read_text())["annotations"]) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["detections.json"]


def test_crops_hold_the_boxes_in_folders_that_are_safe(tmp_path: Path) -> None:
    with Results(tmp_path, NAMES, Detection(save_crops=True)) as results:
        results.add(detected("holiday/photo"))
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg"))
    assert files == [
        "crops/_/holiday/photo_2.jpg",
        "crops/a_b/holiday/photo_1.jpg",
        "crops/dog/holiday/photo_0.jpg",
    ]
    assert [read_image(tmp_path / file).shape[:2] for file in files] == [(1, 1), (60, 80), (20, 40)]


def test_nothing_is_written_unless_asked_for_and_objects_are_counted(tmp_path: Path) -> None:
    with Results(tmp_path, NAMES, Detection()) as results:
        assert results.summary() == "no objects"
        results.add(detected())
        results.add(detected())
    assert not list(tmp_path.iterdir())
    assert results.pictures == 2
    assert results.summary() == "6 objects: dog 2, a/b 2, .. 2"


def test_classes_are_chosen_by_name_or_number() -> None:
    names = ("dog", "cat", "dog", "0")
    assert class_indices([], names) is None
    assert class_indices(["cat", "3"], names) == frozenset({1, 3})
    assert class_indices(["dog"], names) == frozenset({0, 2})
    assert class_indices(["0"], names) == frozenset({3})  # a name comes before a number
    for wrong in ("4", "-1", "Dog", ""):
        with pytest.raises(InputError, match=r"classes=.*0 to 3.*dog, cat") as error:
            class_indices([wrong], names)
        assert repr(wrong) in str(error.value)


def test_only_the_wanted_classes_stay_in_their_order() -> None:
    detections = detected().detections
    assert only_classes(detections, frozenset({2, 0})).labels.tolist() == [0, 2]
    assert only_classes(
        detections, frozenset({2, 0}), max_detections=1
    ).scores.tolist() == pytest.approx([0.9])
    assert len(only_classes(detections, None)) == 3


def test_photos_of_the_same_name_get_different_results() -> None:
    paths = [Path("x/a/1.jpg"), Path("x/b/1.jpg"), Path("x/b/1.png"), Path("x/b/2.png")]
    names = output_names(paths)
    assert [name.as_posix() for name in names] == ["a/1.jpg", "b/1.jpg", "b/1.png", "b/2.png"]
    assert output_keys(names) == ["a/1", "b/1.jpg", "b/1.png", "b/2"]
    assert output_names([Path("x/a/1.jpg")]) == [Path("1.jpg")]
    awkward = [Path("1.jpg"), Path("1.png"), Path("1.jpg.png")]
    assert len(set(output_keys(awkward))) == 3
