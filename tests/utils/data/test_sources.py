"""The same photos and labels are found in every format and layout."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from tests.utils.data.label_files import (
    LAYOUTS,
    NAMES,
    SIZE,
    TRUTH,
    coco_with,
    photo,
    put,
    voc_annotations,
    voc_beside,
    voc_root,
    voc_split,
    voc_text,
    yolo_beside,
    yolo_list,
)
from utils.data.definition import read_data
from utils.data.labels import FORMATS, LabelFormat
from utils.data.labels.record import Label, Record
from utils.data.photos import PhotoSet
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
    for source in (file,) if "\0" in name else (listed, split, file):  # a text has no zero bytes
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


def told(source: Path, names: Sequence[str] = NAMES) -> PhotoSet:
    return check(read_source(source, names, progress=False), names, progress=False)


def summary(photos: PhotoSet) -> dict[str, int]:
    return dict(Counter(problem.kind for problem in photos.report.problems))


@pytest.mark.parametrize("form", LAYOUTS[:1] + LAYOUTS[2:5], ids=lambda form: form.__name__)
def test_photos_behind_links_are_read(tmp_path: Path, form: Callable[[Path], Path]) -> None:
    """Whether the folder, one below it, or each file is a link; links in a circle end."""
    real = form(tmp_path / "real")
    (tmp_path / "whole").symlink_to(real)
    below = tmp_path / "below"
    below.mkdir()
    for entry in real.iterdir():
        (below / entry.name).symlink_to(entry)
    real_paths = {record.image.resolve() for record in read_source(real, NAMES, progress=False)}
    for source in (tmp_path / "whole", below):
        records = [r for r in read_source(source, NAMES, progress=False) if r.is_photo]
        assert len(records) == len(TRUTH)
        if form is not voc_annotations:  # whose links no longer lie beside JPEGImages
            assert {record.image.resolve() for record in records} == real_paths
    (real / "again").symlink_to(real)
    (real / "self").symlink_to(real)
    (real / "loop").symlink_to(real / "loop")
    assert len([r for r in read_source(real, NAMES, progress=False) if r.labels.size]) == 2


def test_a_link_to_a_photo_that_is_there_is_told(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    for name in "ab":
        put(tmp_path / f"{name}.txt", "0 .5 .5 .1 .1")
    assert summary(told(tmp_path)) == {"listed again": 1}


def test_half_a_set_behind_a_link_is_read(tmp_path: Path) -> None:
    put(tmp_path / "disk" / "far.txt", "0 .5 .5 .1 .1")
    photo(tmp_path / "disk" / "far.png")
    put(tmp_path / "set" / "near.txt", "1 .5 .5 .1 .1")
    photo(tmp_path / "set" / "near.png")
    (tmp_path / "set" / "more").symlink_to(tmp_path / "disk")
    (tmp_path / "set" / "more2").symlink_to(tmp_path / "disk")  # the same photos count once
    photos = told(tmp_path / "set")
    assert [p.path.relative_to(tmp_path).as_posix() for p in photos.photos] == [
        "set/more/far.png",
        "set/near.png",
    ]
    assert photos.report.objects == (1, 1, 0)
    assert not photos.report.problems


SEVERAL = [".jfif", ".JPE", ".avif", ".jp2", ".mpo", ".tga", ".heic", ".pbm", ".webp", ".gif"]


def test_photos_of_every_suffix_are_read_or_told(tmp_path: Path) -> None:
    for index, suffix in enumerate(SEVERAL):
        path = tmp_path / f"{index}{suffix}"
        if suffix == ".heic":
            path.write_bytes(b"\0\0\0\x18ftypheic")
        else:
            form = {".mpo": "MPO", ".jpe": "JPEG"}.get(suffix.lower())
            Pillow.new("RGB", SIZE, (9, 90, 200)).save(path, format=form)
        put(path.with_suffix(".txt"), "0 .5 .5 .1 .1")
    photos = told(tmp_path)
    assert len(photos) == len(SEVERAL) - 1
    errors = photos.report.errors
    assert [(each.kind, Path(each.where).suffix) for each in errors] == [
        ("unreadable photo", ".heic")
    ]


def test_what_a_folder_holds_beside_its_photos_is_counted_by_suffix(tmp_path: Path) -> None:
    yolo_beside(tmp_path)
    for name in ("a.mp4", "b.MP4", "classes.txt", "notes.md", ".DS_Store", "._c.png", "raw"):
        put(tmp_path / name, "cat and dog")
    put(tmp_path / "gone.txt", "0 .5 .5 .1 .1")
    photos = told(tmp_path)
    assert len(photos) == len(TRUTH)
    assert summary(photos) == {"missing photo": 1, "other files": 5}
    details = {each.detail for each in photos.report.problems if each.kind == "other files"}
    assert details == {
        "one of 2, .mp4",
        "one of 1, .txt",
        "one of 1, .md",
        "one of 1, hidden",
        "one of 1, without suffix",
    }


def test_labels_in_a_folder_of_their_own_whose_photo_is_gone_are_told(tmp_path: Path) -> None:
    yolo_list(tmp_path)
    (tmp_path / "images/train/c.png").unlink()
    photos = told(tmp_path / "images/train")
    assert [(each.kind, each.where) for each in photos.report.errors] == [
        ("missing photo", f"{tmp_path}/labels/train/c.txt")
    ]


@pytest.mark.parametrize("layout", [yolo_beside, yolo_list])
def test_an_xml_left_beside_a_txt_counts_nothing_twice(
    tmp_path: Path, layout: Callable[[Path], Path]
) -> None:
    source = layout(tmp_path)
    voc_beside(source if source.is_dir() else source.parent / "images/train")
    photos = told(source)
    assert len(photos) == len(TRUTH)
    assert summary(photos) == {"second label file": len(TRUTH)}
    photos.report.accept("refuse")


def test_voc_photos_without_xml_are_told_and_those_with_txt_read(tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    photo(root / "JPEGImages" / "new.png")
    assert summary(told(root)) == {"photo without .xml": 1}
    put(root / "labels" / "new.txt", "1 .5 .5 .1 .1")
    split = put(root / "ImageSets" / "Main" / "train.txt", "new\nc\n")
    photos = told(split)
    assert [p.labels.tolist() for p in photos.photos] == [[1], [1]]


def test_voc_ids_may_hold_blanks_and_marks(tmp_path: Path) -> None:
    names = ("my cat", "my cat 1", "dog", "sub/bird 2")
    for name in names:
        photo(tmp_path / "JPEGImages" / f"{name}.png")
        put(tmp_path / "Annotations" / f"{name}.xml", voc_text(TRUTH["c"]))
    listed = ["my cat  1", "my cat 1", "dog -1", "dog  1", "my cat", "sub\\bird 2", "sub/bird 2 1"]
    split = put(tmp_path / "ImageSets" / "Main" / "cat_train.txt", "\r\n".join(listed))
    records = read_source(split, NAMES, progress=False)
    stems = [r.image.relative_to(tmp_path / "JPEGImages").with_suffix("") for r in records]
    found = [stem.as_posix() for stem in stems]
    assert found == ["my cat", "my cat 1", "dog", "dog", "my cat", "sub/bird 2", "sub/bird 2"]
    assert all(len(record.labels) == 1 for record in records)
    assert len(read_source(tmp_path, NAMES, progress=False)) == len(names)


@pytest.mark.parametrize(
    "line",
    [
        r"images\train\c.png",
        r".\images\train\c.png",
        r"C:\Users\me\set\images\train\c.png",
        "D:/set/images/train/c.png",
        r"\\server\share\set\images\train\c.png",
        r"c:\elsewhere\train\c.png",
    ],
)
def test_lists_of_windows_are_read_where_the_photos_are(tmp_path: Path, line: str) -> None:
    yolo_list(tmp_path)
    if "elsewhere" in line:
        (tmp_path / "train").symlink_to(tmp_path / "images/train")
        put(tmp_path / "train/c.txt", "1 .5 .5 .1 .1")
    source = put(tmp_path / "lists" / "train.txt", f"{line}\r\n")
    photos = told(source)
    assert [p.labels.tolist() for p in photos.photos] == [[1]]
    assert summary(photos) == {"path of Windows": 1}


def test_paths_of_windows_in_data_files_and_missing_ones(tmp_path: Path) -> None:
    yolo_list(tmp_path)
    put(tmp_path / "a.names", "\n".join(NAMES))
    put(tmp_path / "a.data", "names = C:\\x\\a.names\r\ntrain = C:\\x\\list.txt\r\n")
    definition = read_data(tmp_path / "a.data")
    assert len(read_source(definition.sources("train")[0], NAMES, progress=False)) == len(TRUTH)
    source = put(tmp_path / "gone.txt", "C:\\x\\gone.png\n/\n..\n")
    assert summary(told(source)) == {"missing photo": 1, "unreadable photo": 2}


def test_no_label_file_says_where_it_looked(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.png")
    (problem,) = told(tmp_path / "images").report.problems
    assert problem.kind == "no label file"
    for place in ("labels/a.txt", "images/a.txt", "Annotations/a.xml", "images/a.xml"):
        assert f"{tmp_path}/{place}" in problem.detail
