"""The same labels are read from every format, and wrong ones are told with file and line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from utils.data.sources import Record, label_file_of, read_coco, read_source, read_voc, read_yolo
from utils.data.validation import check
from utils.errors import InputError

NAMES = ("cat", "dog", "motorbike")
SIZE = (80, 40)
# per photo: (class, xyxy)
TRUTH = {
    "a.b": [(0, (8, 4, 40, 20)), (2, (0, 0, 80, 40))],
    "c": [(1, (70, 30, 75, 36))],
    "empty": [],
}


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.new("RGB", SIZE, (9, 90, 200)).save(path)


def yolo_text(objects: list) -> str:
    width, height = SIZE
    return "".join(
        f"{c} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height}"
        f" {(x2 - x1) / width} {(y2 - y1) / height}\n"
        for c, (x1, y1, x2, y2) in objects
    )


def voc_text(objects: list, extra: str = "") -> str:
    inside = "".join(
        f"\n<object><name> {NAMES[c]} </name>{extra}<bndbox>"
        f"<xmin>{b[0]}.0</xmin><ymin>{b[1]}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}</ymax>"
        "</bndbox></object>"
        for c, b in objects
    )
    return f"<annotation><size><width>80</width><height>40</height></size>{inside}</annotation>"


def coco_text(names: tuple[str, ...] = ("cat", "dog", "motorcycle")) -> str:
    images: list[dict] = []
    annotations: list[dict] = []
    for number, (stem, objects) in enumerate(TRUTH.items()):
        images.append({"id": number + 7, "file_name": f"{stem}.png", "width": 80, "height": 40})
        for c, (x1, y1, x2, y2) in objects:
            annotations.append(
                {
                    "id": len(annotations) + 100,
                    "image_id": number + 7,
                    "category_id": 3 * c + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": 5.5,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 3 * c + 1, "name": name} for c, name in enumerate(names)]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def yolo_beside(root: Path) -> Path:
    for stem, objects in TRUTH.items():
        photo(root / f"{stem}.png")
        put(root / f"{stem}.txt", yolo_text(objects))
    return root


def yolo_list(root: Path) -> Path:
    for stem, objects in TRUTH.items():
        photo(root / "images/train" / f"{stem}.png")
        put(root / "labels/train" / f"{stem}.txt", yolo_text(objects))
    return put(root / "list.txt", "".join(f"images/train/{stem}.png\r\n" for stem in TRUTH))


def voc_beside(root: Path) -> Path:
    for stem, objects in TRUTH.items():
        photo(root / f"{stem}.png")
        put(root / f"{stem}.xml", voc_text(objects, "<difficult>0</difficult>"))
    return root


def voc_root(root: Path) -> Path:
    for stem, objects in TRUTH.items():
        photo(root / "JPEGImages" / f"{stem}.png")
        put(root / "Annotations" / f"{stem}.xml", voc_text(objects))
    return root


def voc_annotations(root: Path) -> Path:
    return voc_root(root) / "Annotations"


def voc_split(root: Path) -> Path:
    return put(voc_root(root) / "ImageSets/Main/train.txt", "".join(f"{s}  1\n" for s in TRUTH))


def coco(root: Path) -> Path:
    for stem in TRUTH:
        photo(root / "photos" / f"{stem}.png")
    return put(root / "annotations" / "train.json", coco_text())


FORMATS = [
    yolo_beside,
    yolo_list,
    voc_beside,
    voc_root,
    voc_annotations,
    voc_split,
    coco,
]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.__name__)
def test_every_format_says_the_same(tmp_path: Path, form: Callable[[Path], Path]) -> None:
    records = read_source(form(tmp_path), NAMES, [tmp_path / "photos"], progress=False)
    found = check(records, NAMES, progress=False)
    assert not found.report.problems
    assert {p.path.stem for p in found.photos} == set(TRUTH)
    for one in found.photos:
        objects = TRUTH[one.path.stem]
        assert one.size == SIZE
        np.testing.assert_array_equal(one.labels, [c for c, _ in objects])
        expected = np.array([box for _, box in objects], np.float32).reshape(-1, 4)
        np.testing.assert_allclose(one.boxes, expected, atol=1e-4)


def one(tmp_path: Path, text: str, suffix: str) -> Record:
    label_file = put(tmp_path / f"a{suffix}", text)
    reader = read_yolo if suffix == ".txt" else lambda i, f: read_voc(i, f, NAMES)
    return reader(tmp_path / "a.png", label_file)


def test_labels_know_their_lines(tmp_path: Path) -> None:
    record = one(tmp_path, "\n0 .5 .5 .1 .1\n\n1 .5 .5 .2 .2\n", ".txt")
    assert [record.where(i) for i in (0, 1)] == [f"{tmp_path}/a.txt:2", f"{tmp_path}/a.txt:4"]
    record = one(tmp_path, voc_text(TRUTH["a.b"]), ".xml")
    assert [record.where(i) for i in (0, 1)] == [f"{tmp_path}/a.xml:2", f"{tmp_path}/a.xml:3"]
    assert record.stated == SIZE
    file = put(tmp_path / "a.json", coco_text())
    assert read_coco(file, NAMES)[0].where(1) == f"{file}: annotations[1]"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 .5 .5 .1", "4 values: expected 5"),
        ("0 .5 .5 .1 .1 .9", "6 values: expected 5"),
        ("cat .5 .5 .1 .1", "expected five numbers"),
        ("0.5 .5 .5 .1 .1", "class 0.5: expected an integer"),
        ("nan .5 .5 .1 .1", "class nan: expected an integer"),
        ("1e30 .5 .5 .1 .1", "class 1e30: expected an integer below"),
        ("-1e30 .5 .5 .1 .1", "class -1e30: expected an integer below"),
    ],
)
def test_malformed_lines_are_problems_and_the_others_are_read(
    tmp_path: Path, line: str, reason: str
) -> None:
    record = one(tmp_path, f"1 .5 .5 .1 .1\n{line}\n", ".txt")
    assert len(record.labels) == 1
    assert [(p.kind, p.where) for p in record.problems] == [
        ("malformed label", f"{tmp_path}/a.txt:2")
    ]
    assert reason in record.problems[0].what


def test_malformed_objects_of_voc(tmp_path: Path) -> None:
    text = "<annotation>\n<object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object>"
    record = one(tmp_path, text + "</annotation>", ".xml")
    assert record.problems[0].where == f"{tmp_path}/a.xml:2"
    assert one(tmp_path, "<annotation>", ".xml").broken
    assert one(tmp_path, "", ".xml").broken
    unknown = one(tmp_path, '<?xml version="1.0" encoding="klingon"?><annotation/>', ".xml")
    assert unknown.broken
    assert "klingon" in unknown.problems[0].what


def test_difficult_is_ignored_and_parts_are_no_objects(tmp_path: Path) -> None:
    extra = "<difficult>1</difficult><part><name>head</name><bndbox/></part>"
    record = one(tmp_path, voc_text(TRUTH["c"], extra), ".xml")
    assert record.ignore.tolist() == [True]
    assert record.boxes.tolist() == [[70, 30, 75, 36]]


def test_coco_crowds_are_ignored_and_areas_are_cocos(tmp_path: Path) -> None:
    content = json.loads(coco_text())
    content["annotations"][1]["iscrowd"] = 1
    record = read_coco(put(tmp_path / "a.json", json.dumps(content)), NAMES)[0]
    assert record.ignore.tolist() == [False, True]
    assert record.area.tolist() == [5.5, 5.5]


def test_unknown_classes_are_refused_with_the_list(tmp_path: Path) -> None:
    path = put(tmp_path / "a.xml", voc_text(TRUTH["c"]).replace("dog", "dgo"))
    with pytest.raises(InputError, match=r"a\.xml:2: class 'dgo': expected one of cat, dog, motor"):
        read_voc(tmp_path / "a.png", path, NAMES)
    path = put(tmp_path / "a.json", coco_text(("cat", "wolf", "motorcycle")))
    with pytest.raises(InputError, match=r"a\.json: annotations\[2\]: category_id=4 \('wolf'\)"):
        read_coco(path, NAMES)


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


def coco_with(folder: Path, part: str, index: int, key: str, value: object) -> Path:
    """COCO's file with one entry changed: the whole of it, or its `key`, to `value`."""
    content = json.loads(coco_text())
    if key:
        content[part][index][key] = value
    else:
        content[part][index] = value
    return put(folder / "a.json", json.dumps(content))


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
        ("annotations", "", "x", r"annotations\[1\]: 'x': expected an object"),
        ("annotations", "image_id", [7], r"annotations\[1\]: image_id=\[7\]: no such image"),
        ("annotations", "image_id", 99, r"annotations\[1\]: image_id=99: no such image"),
        ("annotations", "image_id", None, r"annotations\[1\]: image_id=None: no such image"),
        ("annotations", "category_id", [1], r"annotations\[1\]: category_id=\[1\]: no such cat"),
        ("annotations", "category_id", 99, r"annotations\[1\]: category_id=99: no such cat"),
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
    ("key", "value", "reason"),
    [
        ("bbox", None, "bbox=None: expected four numbers"),
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
    assert [(p.kind, p.where, p.what) for p in record.problems] == [
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
    found = {r.image.relative_to(tmp_path).as_posix(): r.image_id for r in records}
    assert found == {"photos/images/a.png": 7, "photos/x/a.png": 8, "elsewhere/a.png": 9}


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


def test_which_label_file_is_taken(tmp_path: Path) -> None:
    image = tmp_path / "images" / "images" / "a.png"
    assert label_file_of(image) is None
    xml = put(image.with_suffix(".xml"), "")
    beside = put(image.with_suffix(".txt"), "")
    assert label_file_of(image) == beside
    assert label_file_of(image, "voc") == xml
    in_labels = put(tmp_path / "images" / "labels" / "a.txt", "")  # the last `images` counts
    assert label_file_of(image) == in_labels


def test_an_xml_without_a_photo_is_not_lost(tmp_path: Path) -> None:
    voc_beside(tmp_path)
    (tmp_path / "c.png").unlink()
    found = check(read_source(tmp_path, NAMES, progress=False), NAMES, progress=False)
    assert [p.kind for p in found.report.problems] == ["missing photo"]
    assert "c.xml" in found.report.problems[0].what


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    for name, reason in [("a.csv", "expected a .txt list"), ("a.txt", "no photos"), (".", "no ph")]:
        put(tmp_path / "a.txt", "\n")
        with pytest.raises(InputError, match=reason):
            read_source(tmp_path / name, NAMES, progress=False)
    with pytest.raises(InputError, match=r"none\.txt: No such file"):
        read_source(tmp_path / "none.txt", NAMES, progress=False)


def test_comments_in_lists_are_no_photos(tmp_path: Path) -> None:
    for form in (yolo_list, voc_split):
        source = form(tmp_path / form.__name__)
        source.write_text(f"# my photos\n{source.read_text()}\n  # the end\n")
        assert len(read_source(source, NAMES, progress=False)) == len(TRUTH)
    put(tmp_path / "odd.txt", "./#1.jpg\n")
    assert [r.image.name for r in read_source(tmp_path / "odd.txt", NAMES, progress=False)] == [
        "#1.jpg"
    ]


@pytest.mark.parametrize("name", ["a" * 5000, "~nobody.jpg", "b\0c.jpg"])
def test_impossible_names_are_missing_photos(tmp_path: Path, name: str) -> None:
    listed = put(tmp_path / "list.txt", f"{name}\n")
    split = put(tmp_path / "ImageSets" / "train.txt", f"{name}\n")
    file = coco_with(tmp_path, "images", 0, "file_name", name)
    for source in (listed, split, file):
        records = read_source(source, NAMES, progress=False)[:1]
        found = check(records, NAMES, progress=False)
        assert [p.kind for p in found.report.problems] == ["missing photo"]


def test_a_label_file_that_is_no_text_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff\xfe")
    (problem,) = read_yolo(tmp_path / "a.png", path).problems
    assert problem.where == str(path)
    assert problem.what.startswith("not a text file")


def test_mcu_by_a_list_of_every_fifth(shared: Path, tmp_path: Path) -> None:
    photos = sorted((shared / "data/mcu").rglob("*.jpg"), key=lambda path: path.name)
    assert len(photos) == 149
    listed = put(tmp_path / "valid.txt", "\n".join(str(path) for path in photos[::5]))
    names = ("Arduino_Nano", "ESP8266", "Raspberry_Pi_3", "Heltec_ESP32_Lora")
    records = read_source(listed, names, progress=False)
    assert len(records) == 30
    assert all(len(record.labels) and not record.problems for record in records)


def test_bccd_has_its_known_boxes(shared: Path) -> None:
    split = shared / "data/bccd/ImageSets/Main"
    names = ("RBC", "WBC", "Platelets")
    records = [
        record
        for part, count in (("train", 205), ("val", 87), ("test", 72))
        for record in check_count(read_source(split / f"{part}.txt", names, progress=False), count)
    ]
    assert sum(len(record.labels) for record in records) == 4888
    flat = [r.where(i) for r in records for i, b in enumerate(r.boxes) if (b[2:] <= b[:2]).any()]
    assert sorted(Path(place).name for place in flat) == [
        "BloodImage_00338.xml:158",
        "BloodImage_00343.xml:50",
    ]


def check_count(records: list[Record], count: int) -> list[Record]:
    assert len(records) == count
    return records
