"""The same photos and labels are found in every format and layout."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.utils.data.label_files import (
    LAYOUTS,
    NAMES,
    SIZE,
    TRUTH,
    coco_with,
    photo,
    put,
    voc_beside,
    voc_split,
    yolo_list,
)
from utils.data.definition import read_data
from utils.data.labels import FORMATS, LabelFormat
from utils.data.labels.record import Label, Record
from utils.data.sources import label_file_of, read_source
from utils.data.validation import check
from utils.errors import InputError


@pytest.mark.parametrize("form", LAYOUTS, ids=lambda form: form.__name__)
def test_every_format_says_the_same(tmp_path: Path, form: Callable[[Path], Path]) -> None:
    records = read_source(form(tmp_path), NAMES, [tmp_path / "photos"], progress=False)
    photos = check(records, NAMES, progress=False)
    assert not photos.report.problems
    assert {p.path.stem for p in photos.photos} == set(TRUTH)
    for one in photos.photos:
        objects = TRUTH[one.path.stem]
        assert one.size == SIZE
        np.testing.assert_array_equal(one.labels, [c for c, _ in objects])
        expected = np.array([box for _, box in objects], np.float32).reshape(-1, 4)
        np.testing.assert_allclose(one.boxes, expected, atol=1e-4)


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
    photos = check(read_source(tmp_path, NAMES, progress=False), NAMES, progress=False)
    assert [p.kind for p in photos.report.problems] == ["missing photo"]
    assert "c.xml" in photos.report.problems[0].detail


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    for name, reason in [("a.csv", "expected a .txt list"), ("a.txt", "no photos"), (".", "no ph")]:
        put(tmp_path / "a.txt", "\n")
        with pytest.raises(InputError, match=reason):
            read_source(tmp_path / name, NAMES, progress=False)
    with pytest.raises(InputError, match=r"none\.txt: cannot be read: No such file"):
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
        photos = check(records, NAMES, progress=False)
        assert [p.kind for p in photos.report.problems] == ["missing photo"]


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


def read_corners(image: Path, label_file: Path, names: Sequence[str]) -> Record:
    """A format of one line `class,left,top,right,bottom`."""
    name, *edges = label_file.read_text().strip().split(",")
    return Record.of(image, label_file, [Label(tuple(map(float, edges)), names.index(name), 1)])


def test_a_format_is_added_by_its_reader_and_one_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "corners", LabelFormat(".csv", "corners", read_corners))
    photo(tmp_path / "images" / "a.png")
    put(tmp_path / "corners" / "a.csv", "dog,1,2,3,4\n")
    put(tmp_path / "a.names", "\n".join(NAMES))
    put(tmp_path / "a.data", "names=a.names\ntrain=images\nformat=corners\n")
    definition = read_data(tmp_path / "a.data")
    assert definition.format == "corners"
    for format in ("corners", "auto"):
        (record,) = read_source(definition.train[0], NAMES, format=format, progress=False)
        assert (record.labels.tolist(), record.boxes.tolist()) == ([1], [[1, 2, 3, 4]])
