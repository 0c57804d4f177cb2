"""Shapes that cannot be read are told one by one; the others are used."""

import json
from pathlib import Path
from typing import Any

import pytest

from utils.data.labels import read_labels
from utils.data.labels.json_files import read_json

NAMES = ("cat", "dog")
STRANGE = [None, 7, [1, 2], {"a": 1}, "spline"]


@pytest.mark.parametrize("kind", STRANGE)
def test_a_shape_of_no_kind_is_a_malformed_label(tmp_path: Path, kind: Any) -> None:
    good = {"label": "dog", "points": [[1, 2], [5, 4]], "shape_type": "rectangle"}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"shapes": [{**good, "shape_type": kind}, good]}))
    record = read_labels(tmp_path / "a.png", path, NAMES)
    assert record.labels.tolist() == [1] and record.boxes.tolist() == [[1, 2, 5, 4]]
    assert len(record.problems) == 1 and "shape_type=" in record.problems[0].detail


@pytest.mark.parametrize("result", STRANGE)
def test_annotations_without_shapes_are_empty(tmp_path: Path, result: Any) -> None:
    path = tmp_path / "a.json"
    photo = {"image": "/data/upload/1/1a2b3c4d-a.png"}
    path.write_text(json.dumps([{"id": 1, "data": photo, "annotations": [{"result": result}]}]))
    (record,) = read_json(path, NAMES, [tmp_path])
    assert not len(record.labels) and record.image.name.endswith("a.png")


@pytest.mark.parametrize("rotation", [float("inf"), 10**400, float("nan")])
def test_a_box_that_is_turned_by_no_angle_is_a_malformed_label(
    tmp_path: Path, rotation: Any
) -> None:
    box = {"x": 10, "y": 20, "width": 50, "height": 30, "rectanglelabels": ["cat"]}
    shapes = [{**box, "rotation": rotation}, {**box, "rotation": None}]
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"id": 1, "image": "/data/a.png", "label": shapes}]))
    (record,) = read_json(path, NAMES, [tmp_path])
    assert record.labels.tolist() == [0] and len(record.problems) == 1
