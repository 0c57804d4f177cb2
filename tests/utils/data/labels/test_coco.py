"""COCO's annotations are read, and wrong entries are told with their place."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.utils.data.label_files import NAMES, SIZE, coco_text, coco_with, photo, put
from utils.data.labels.coco import read_coco
from utils.errors import InputError


def test_annotations_know_their_places_and_the_photos_size(tmp_path: Path) -> None:
    file = put(tmp_path / "a.json", coco_text())
    record = read_coco(file, NAMES)[0]
    assert record.where(1) == f"{file}: annotations[1]"
    assert record.stated_size == SIZE


def test_coco_crowds_are_ignored_and_areas_are_cocos(tmp_path: Path) -> None:
    content = json.loads(coco_text())
    content["annotations"][1]["iscrowd"] = 1
    record = read_coco(put(tmp_path / "a.json", json.dumps(content)), NAMES)[0]
    assert record.ignore.tolist() == [False, True]
    assert record.area.tolist() == [5.5, 5.5]


def test_unknown_classes_are_told_with_the_list(tmp_path: Path) -> None:
    path = put(tmp_path / "a.json", coco_text(("cat", "wolf", "motorcycle")))
    records = read_coco(path, NAMES)
    assert [len(record.labels) for record in records] == [2, 0, 0]
    (problem,) = records[1].problems
    assert (problem.kind, problem.where) == ("class out of range", f"{path}: annotations[2]")
    assert problem.detail == "category_id=4 ('wolf'): expected one of cat, dog, motorbike"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1]", "no list 'images'"),
        ("{", "no readable JSON"),
        ("[" * 10**5, "no readable JSON"),
        ('{"images": [], "annotations": [], "categories": []}', "no photos in it"),
    ],
)
def test_what_is_no_coco_file_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_coco(put(tmp_path / "a.json", text), NAMES)


@pytest.mark.parametrize(
    ("part", "key", "value", "reason"),
    [
        ("images", "", 5, r"images\[1\]: 5: expected an object"),
        ("images", "", {}, r"images\[1\]: id=None: expected an integer of 64 bits"),
        ("images", "id", [8], r"images\[1\]: id=\[8\]: expected an integer of 64 bits"),
        ("images", "id", 2**63, r"images\[1\]: id=\d+: expected an integer of 64 bits"),
        ("images", "id", True, r"images\[1\]: id=True: expected an integer of 64 bits"),
        ("images", "id", 7, r"images\[1\]: id=7: an earlier entry has it already"),
        ("images", "file_name", 12, r"images\[1\]: file_name=12: expected a text"),
        ("categories", "", 5, r"categories\[1\]: 5: expected an object"),
        ("categories", "id", {}, r"categories\[1\]: id=\{\}: expected an integer of 64 bits"),
        ("categories", "id", 1, r"categories\[1\]: id=1: an earlier entry has it already"),
        ("categories", "name", None, r"categories\[1\]: name=None: expected a text"),
    ],
)
def test_wrong_entries_of_coco_are_refused(
    tmp_path: Path, part: str, key: str, value: object, reason: str
) -> None:
    with pytest.raises(InputError, match=r"a\.json: " + reason) as caught:
        read_coco(coco_with(tmp_path, part, 1, key, value), NAMES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "kind", "reason"),
    [
        ("", "x", "malformed label", "'x': expected an object"),
        ("image_id", [7], "malformed label", "image_id=[7]: no such image"),
        ("image_id", 99, "malformed label", "image_id=99: no such image"),
        ("image_id", None, "malformed label", "image_id=None: no such image"),
        ("category_id", [1], "class out of range", "category_id=[1]: no such category"),
        ("category_id", 99, "class out of range", "category_id=99: no such category"),
    ],
)
def test_annotations_of_nothing_that_is_there_are_told_and_the_others_read(
    tmp_path: Path, key: str, value: object, kind: str, reason: str
) -> None:
    path = coco_with(tmp_path, "annotations", 1, key, value)
    records = read_coco(path, NAMES)
    assert [len(record.labels) for record in records if record.is_photo] == [1, 1, 0]
    (problem,) = [problem for record in records for problem in record.problems]
    assert (problem.kind, problem.where, problem.detail) == (
        kind,
        f"{path}: annotations[1]",
        reason,
    )


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("bbox", None, "no bbox, and no polygons in segmentation"),
        ("bbox", [1, 2, 3], "bbox=[1, 2, 3]: expected four numbers"),
        ("bbox", [1, 2, 3, None], "bbox=[1, 2, 3, None]: expected four numbers"),
        ("bbox", "1234", "bbox='1234': expected four numbers"),
        ("area", "big", "area='big': expected a number of pixels"),
        ("area", -1, "area=-1: expected a number of pixels"),
        ("area", 1e300, "area=1e+300: expected a number of pixels"),
        ("iscrowd", "0", "iscrowd='0': expected 0 or 1"),
        ("ignore", [], "ignore=[]: expected 0 or 1"),
    ],
)
def test_malformed_annotations_are_told_with_the_true_reason(
    tmp_path: Path, key: str, value: object, reason: str
) -> None:
    path = coco_with(tmp_path, "annotations", 1, key, value)
    record = read_coco(path, NAMES)[0]
    assert len(record.labels) == 1
    assert [(p.kind, p.where, p.detail) for p in record.problems] == [
        ("malformed label", f"{path}: annotations[1]", reason)
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [("id", "x"), ("id", None), ("id", 10**30), ("area", None), ("area", float("nan"))],
)
def test_good_annotations_need_neither_id_nor_area(tmp_path: Path, key: str, value: object) -> None:
    record = read_coco(coco_with(tmp_path, "annotations", 1, key, value), NAMES)[0]
    assert not record.problems
    assert record.boxes.tolist() == [[8, 4, 40, 20], [0, 0, 80, 40]]
    assert np.isnan(record.area).tolist() == [False, key == "area"]


def test_coco_photos_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """By path in any folder before by bare name, with either slash; ids go with them."""
    names = [r"images\a.png", "x/a.png", "a.png"]
    content = {
        "images": [{"id": 7 + i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [],
        "categories": [],
    }
    for folder in ("images", "x", "."):
        photo(tmp_path / "photos" / folder / "a.png")
    photo(tmp_path / "elsewhere" / "a.png")
    file = put(tmp_path / "photos" / "a.json", json.dumps(content))
    records = read_coco(file, NAMES, [tmp_path / "elsewhere"])
    photos = {r.image.relative_to(tmp_path).as_posix(): r.image_id for r in records}
    assert photos == {"photos/images/a.png": 7, "photos/x/a.png": 8, "elsewhere/a.png": 9}


@pytest.mark.parametrize(("number", "kept"), [("seven", None), ("7", None), (7.0, 7)])
def test_coco_ids_may_be_texts_or_whole_floats(
    tmp_path: Path, number: object, kept: int | None
) -> None:
    content = json.loads(coco_text())
    content["images"][0]["id"] = number
    for annotation in content["annotations"][:2]:
        annotation["image_id"] = number
    records = read_coco(put(tmp_path / "a.json", json.dumps(content)), NAMES)
    assert [record.image_id for record in records] == [kept, 8, 9]
    assert [len(record.labels) for record in records] == [2, 1, 0]


def test_category_ids_are_one_for_each_class_or_none(tmp_path: Path) -> None:
    path = put(tmp_path / "a.json", coco_text())
    assert read_coco(path, NAMES)[0].category_ids == (1, 4, 7)
    assert read_coco(path, NAMES[::-1])[0].category_ids == (7, 4, 1)
    assert read_coco(path, (*NAMES, "cow"))[0].category_ids is None
    twice = coco_text(("cat", "dog", "motorcycle", "motorbike"))
    assert read_coco(put(path, twice), NAMES)[0].category_ids is None
