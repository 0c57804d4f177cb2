"""Every kind of bad photo and label is found, told with its place, and left out."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from import_param import DataSet
from tests.utils.data.label_files import SIZE, put, voc_text, yolo_text
from utils.data.definition import read_data
from utils.data.labels import read_labels
from utils.data.labels.record import Label, Record
from utils.data.photos import PhotoSet
from utils.data.report import ERRORS
from utils.data.sources import read_source
from utils.data.splits import load_split, open_split
from utils.data.validation import check, shared_photos
from utils.detection.writer import label_lines
from utils.errors import InputError
from utils.images import ORIENTATION
from utils.structures import Detections

NAMES = ("cat", "dog")


def photo(path: Path, mode: str = "RGB", size: tuple[int, int] = (100, 50)) -> Path:
    Pillow.new(mode, size).save(path)
    return path


def checked(folder: Path, cache_mb: float = 0) -> PhotoSet:
    return check(read_source(folder, NAMES, progress=False), NAMES, "x", cache_mb, progress=False)


def kinds(photos: PhotoSet) -> list[str]:
    return [problem.kind for problem in photos.report.problems]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("0 .5 .5 0 .1", "zero area"),
        ("0 .5 .5 -.1 .1", "zero area"),
        ("2 .5 .5 .1 .1", "class out of range"),
        ("-1 .5 .5 .1 .1", "class out of range"),
        ("0 nan .5 .1 .1", "not a finite number"),
        ("0 .5 .5 inf .1", "not a finite number"),
        ("0 1.5 .5 .1 .1", "outside the photo"),
        ("0 1e300 .5 .1 .1", "outside the photo"),
        ("0 1e308 1e308 1e308 1e308", "outside the photo"),
        ("0 -1e308 .5 1e308 1e308", "outside the photo"),
        ("0 320 240 50 60", "outside the photo"),  # pixels where shares are wanted
        ("1 .5 .5 .1 .1", "duplicate"),
        ("1 .5 .5 .1", "malformed label"),
    ],
)
def test_bad_labels_are_found_and_only_they_are_left_out(
    tmp_path: Path, line: str, kind: str
) -> None:
    photo(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text(f"1 .5 .5 .1 .1\n{line}\n0 .2 .2 .1 .1\n")
    photos = checked(tmp_path)
    assert kinds(photos) == [kind]
    assert photos.report.problems[0].where == f"{tmp_path}/a.txt:2"
    assert photos.photos[0].labels.tolist() == [1, 0]
    np.testing.assert_allclose(photos.photos[0].boxes, [[45, 22.5, 55, 27.5], [15, 7.5, 25, 12.5]])
    photos.report.accept("drop")
    with pytest.raises(InputError, match=rf"a\.txt:2: {kind}: ") as caught:
        photos.report.accept("refuse")
    assert "\n" not in str(caught.value)


def test_huge_corners_are_outside_without_a_warning(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    corners = "<xmin>-1e308</xmin><ymin>1e308</ymin><xmax>1e308</xmax><ymax>1.1e308</ymax>"
    (tmp_path / "a.xml").write_text(
        "<annotation><size><width>1e400</width><height>9</height></size>"
        f"<object><name>cat</name><bndbox>{corners}</bndbox></object></annotation>"
    )
    assert kinds(checked(tmp_path)) == ["outside the photo", "no sound label"]


def test_boxes_partly_outside_are_cut_and_told(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text("0 0 .5 .2 .2\n0 .5 .5 1.000001 1\n")
    photos = checked(tmp_path)
    assert kinds(photos) == ["partly outside"]  # the second's excess is rounding
    np.testing.assert_allclose(photos.photos[0].boxes, [[0, 20, 10, 30], [0, 0, 100, 50]])
    np.testing.assert_allclose(photos.photos[0].area, [100, 5000])
    photos.report.accept("refuse")  # it is told, but nothing bad


@pytest.mark.parametrize("edge", range(4))
@pytest.mark.parametrize(
    ("beyond", "told"), [(0.0, False), (0.5, False), (0.51, True), (1.0, True), (8.0, True)]
)
def test_a_box_that_reaches_over_the_edge_is_told_beyond_half_a_pixel(
    tmp_path: Path, edge: int, beyond: float, told: bool
) -> None:
    box = [0.0, 0.0, 100.0, 50.0]
    box[edge] += beyond if edge >= 2 else -beyond
    record = Record.of(photo(tmp_path / "a.jpg"), tmp_path / "a.xml", [Label(tuple(box), 0, 1)])
    photos = check([record], NAMES, progress=False)
    assert kinds(photos) == (["partly outside"] if told else [])
    np.testing.assert_array_equal(photos.photos[0].boxes, [[0, 0, 100, 50]])


@pytest.mark.parametrize(("shift", "told"), [(0.004, True), (0.02, False)])
def test_boxes_are_the_same_to_a_hundredth_of_a_pixel(
    tmp_path: Path, shift: float, told: bool
) -> None:
    labels = [Label((10 + x, 10, 30, 30), label, 1) for x, label in ((0, 0), (shift, 0), (0, 1))]
    record = Record.of(photo(tmp_path / "a.jpg"), tmp_path / "a.xml", labels)
    photos = check([record], NAMES, progress=False)
    assert kinds(photos) == (["duplicate"] if told else [])
    assert photos.photos[0].labels.tolist() == ([0, 1] if told else [0, 0, 1])


def test_bad_photos_are_left_out(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Pillow.fromarray(noise).save(tmp_path / "good.jpg")
    data = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.jpg").write_text("x")
    photo(tmp_path / "broken.jpg")
    (tmp_path / "broken.xml").write_text("<annotation>")
    names = ("good", "cut", "text", "broken", "none")
    (tmp_path / "list.txt").write_text("\n".join(f"{name}.jpg" for name in names))
    photos = checked(tmp_path / "list.txt")
    assert [p.path.stem for p in photos.photos] == ["good"]
    told = {Path(problem.where).stem: problem.kind for problem in photos.report.errors}
    assert told == {
        "cut": "unreadable photo",
        "text": "unreadable photo",
        "broken": "unreadable label file",
        "none": "missing photo",
    }


def test_odd_photos_are_used_and_told(tmp_path: Path) -> None:
    for name, mode in [("grey", "L"), ("clear", "RGBA"), ("deep", "I;16"), ("rgb", "RGB")]:
        photo(tmp_path / f"{name}.png", mode)
        (tmp_path / f"{name}.txt").write_text("0 .5 .5 .1 .1")
    photos = checked(tmp_path)
    assert {Path(p.where).stem: p.kind for p in photos.report.problems} == {
        "grey": "grey or palette",
        "clear": "transparent",
        "deep": "deeper than 8 bits",
    }
    assert len(photos) == 4
    assert all(photos.image(i).shape == (50, 100, 3) for i in range(4))


def test_photos_without_objects_are_legal(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    (tmp_path / "a.txt").touch()
    photo(tmp_path / "b.jpg")
    photos = checked(tmp_path)
    assert kinds(photos) == ["no label file"]
    assert photos.report.empty == len(photos) == 2
    assert photos.photos[0].boxes.shape == (0, 4)
    assert photos.photos[0].targets().boxes.shape == (0, 4)
    photos.report.accept("refuse")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_drawn_on_the_stored_photo_turn_with_it(tmp_path: Path, orientation: int) -> None:
    """A white rectangle must lie in its box after the photo is set upright."""
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[5:15, 10:40] = 255
    exif = Pillow.Exif()
    exif[ORIENTATION] = orientation
    Pillow.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    sideways = orientation >= 5
    if sideways:  # the size that the labels state is the stored photo's
        box = (10, 5, 40, 15)
    else:  # then nothing tells the stored photo from the upright one, which is assumed
        upright = {1: (10, 5, 40, 15), 2: (40, 5, 70, 15), 3: (40, 25, 70, 35), 4: (10, 25, 40, 35)}
        box = upright[orientation]
    edges = ("xmin", "ymin", "xmax", "ymax")
    values = "".join(f"<{edge}>{v}</{edge}>" for edge, v in zip(edges, box, strict=True))
    (tmp_path / "a.xml").write_text(
        "<annotation><size><width>80</width><height>40</height></size>"
        f"<object><name>cat</name><bndbox>{values}</bndbox></object></annotation>"
    )
    photos = checked(tmp_path)
    assert kinds(photos) == (["turned by EXIF"] if orientation > 1 else [])
    rows, columns = np.nonzero(photos.image(0)[..., 0] == 255)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_array_equal(photos.photos[0].boxes[0], seen)


def test_another_size_than_stated_is_told(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    (tmp_path / "a.xml").write_text(
        "<annotation><size><width>50</width><height>25</height></size></annotation>"
    )
    assert kinds(checked(tmp_path)) == ["other size than stated"]


def test_the_cache_keeps_to_its_budget(tmp_path: Path) -> None:
    for index in range(5):
        photo(tmp_path / f"{index}.png", size=(256, 128))
    of_one = 256 * 128 * 3 / 2**20
    photos = checked(tmp_path, cache_mb=2.5 * of_one)
    assert sorted(photos.cache) == [0, 1]
    assert photos.report.cached_bytes <= 2.5 * of_one * 2**20
    assert photos.image(0) is photos.image(0)
    np.testing.assert_array_equal(photos.image(0), photos.image(4))


def test_the_report_shows_the_first_few_places(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text("0 .5 .5 .1 .1\n" + "7 .5 .5 .1 .1\n" * 5)
    text = checked(tmp_path).report.text()
    assert "x: 1 photos, 1 objects" in text
    assert "cat 1, dog 0" in text
    assert "5 × class out of range: labels left out" in text
    assert f"{tmp_path}/a.txt:4" in text
    assert f"{tmp_path}/a.txt:5" not in text
    assert "… and 2 more" in text


def test_a_refusal_names_the_first_error_and_counts_the_others(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    for bad, others in ((1, ""), (2, " (and 1 more)"), (4, " (and 3 more)")):
        lines = [f"7 .{k} .5 .1 .1\n" for k in range(1, bad + 1)]
        (tmp_path / "a.txt").write_text("".join(lines))
        with pytest.raises(InputError) as refused:
            checked(tmp_path).report.accept("refuse")
        told = f"a.txt:1: class out of range: class 7, box 0.1 0.5 0.1 0.1, photo 100×50{others};"
        assert told in str(refused.value)


def test_the_report_can_be_printed_whatever_files_are_called(tmp_path: Path) -> None:
    photo(tmp_path / os.fsdecode(b"caf\xe9.jpg"))
    text = checked(tmp_path).report.text()
    assert r"caf\udce9.jpg" in text
    text.encode("utf-8")


def test_a_photo_listed_twice_is_told_and_counts_twice(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text("0 .5 .5 .1 .1")
    (tmp_path / "list.txt").write_text("a.jpg\na.jpg\n")
    photos = checked(tmp_path / "list.txt")
    assert kinds(photos) == ["listed again"]
    assert len(photos) == 2


def test_photos_of_both_splits_are_found(tmp_path: Path) -> None:
    for name in "abc":
        photo(tmp_path / f"{name}.jpg")
    records = [read_labels(tmp_path / f"{name}.jpg", None, NAMES) for name in "abc"]
    train, valid = (check(part, NAMES, progress=False) for part in (records[:2], records[1:]))
    assert [path.name for path in shared_photos(train, valid)] == ["b.jpg"]


def test_training_without_a_label_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    photo(tmp_path / "photos" / "a.jpg")
    (tmp_path / "a.names").write_text("cat\ndog\n")
    (tmp_path / "a.data").write_text("names=a.names\ntrain=photos\nvalid=photos")
    data = read_data(tmp_path / "a.data")
    with pytest.raises(InputError, match=r"no sound label in the 1 photos .*1 × no label file"):
        load_split(data, "train", progress=False)
    assert len(load_split(data, "valid", progress=False)) == 1


def test_photos_that_are_all_missing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.names").write_text("cat\n")
    (tmp_path / "valid.txt").write_text("a.jpg\nb.jpg\n")
    (tmp_path / "a.data").write_text("names=a.names\nvalid=valid.txt")
    with pytest.raises(InputError, match=r"none of 2 photos can be used; 2 × missing photo"):
        load_split(read_data(tmp_path / "a.data"), "valid", progress=False)


def test_object_sizes_are_in_pixels_of_the_input(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text("0 .5 .5 .5 .5")
    photos = checked(tmp_path)
    np.testing.assert_allclose(photos.object_sizes((64, 64), letterbox=False), [[32, 32]])
    np.testing.assert_allclose(photos.object_sizes((64, 64), letterbox=True), [[32, 16]])


def test_bccd_is_sound_but_for_two_boxes(shared: Path, tmp_path: Path) -> None:
    root = os.path.relpath(shared / "data/bccd/ImageSets/Main", tmp_path)
    (tmp_path / "a.names").write_text("RBC\nWBC\nPlatelets\n")
    (tmp_path / "a.data").write_text(f"names=a.names\ntrain={root}/train.txt,{root}/val.txt\n")
    photos = load_split(read_data(tmp_path / "a.data"), "train", progress=False)
    assert kinds(photos) == ["zero area"] * 2
    assert set(kinds(photos)) <= set(ERRORS)
    assert len(photos) == 292
    assert sum(photos.report.objects) == 3941


@pytest.mark.parametrize("form", ["txt", "xml", "json"])
def test_an_unknown_class_is_left_out_or_refused_in_every_format(tmp_path: Path, form: str) -> None:
    """One label of two is of a third class; a photo where all are is no photo without objects."""
    for name, classes in [("a", (0, 2)), ("b", (2, 2))]:
        photo(tmp_path / f"{name}.png", size=SIZE)
        objects = [(number, (8, 4 + 9 * n, 40, 12 + 9 * n)) for n, number in enumerate(classes)]
        if form != "json":
            text = yolo_text(objects) if form == "txt" else voc_text(objects)
            (tmp_path / f"{name}.{form}").write_text(text)
    source = tmp_path
    if form == "json":
        source = tmp_path / "a.json"
        annotations = [
            {"image_id": i, "category_id": c, "bbox": [8, 4 + 9 * n, 32, 8]}
            for i, classes in enumerate([(0, 2), (2, 2)])
            for n, c in enumerate(classes)
        ]
        categories = [{"id": i, "name": name} for i, name in enumerate((*NAMES, "motorbike"))]
        images = [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate("ab")]
        content = {"images": images, "annotations": annotations, "categories": categories}
        source.write_text(json.dumps(content))
    photos = checked(source)
    assert kinds(photos) == ["class out of range"] * 3 + ["no sound label"]
    assert [(each.path.name, each.labels.tolist()) for each in photos.photos] == [("a.png", [0])]
    assert photos.report.empty == 0
    photos.report.accept("drop")
    with pytest.raises(InputError, match="class out of range"):
        photos.report.accept("refuse")


def test_our_own_detections_can_be_trained_on(tmp_path: Path) -> None:
    boxes = torch.tensor([[8.0, 4, 40, 20], [10, 10, 30, 30]])
    detections = Detections(boxes, torch.tensor([0.9, 0.5]), torch.tensor([1, 0]))
    for name in "ab":
        photo(tmp_path / f"{name}.png", size=SIZE)
        lines = "".join(label_lines(detections, SIZE))
        (tmp_path / f"{name}.txt").write_text(lines)
    photos = checked(tmp_path)
    assert kinds(photos) == ["scores"] * 2
    assert "2 × scores: label files read without them" in photos.report.text()
    np.testing.assert_allclose(photos.photos[0].boxes, boxes.numpy(), atol=1e-3)
    photos.report.accept("refuse")


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_there_is_not_turns_nothing(tmp_path: Path, orientation: int) -> None:
    exif = Pillow.Exif()
    exif[ORIENTATION] = orientation
    Pillow.new("RGB", SIZE).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.txt").write_text("0 .5 .5 .1 .1")
    assert not kinds(checked(tmp_path))


def test_a_photo_that_changes_after_the_check_is_told(tmp_path: Path) -> None:
    for name in "abc":
        photo(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text("0 .5 .5 .1 .1")
    photos = checked(tmp_path)
    photo(tmp_path / "a.png", size=(100, 51))
    Pillow.new("RGB", (100, 50), (1, 2, 3)).save(tmp_path / "b.png", compress_level=0)
    (tmp_path / "c.png").unlink()
    for index, reason in enumerate(["a.png: changed since", "b.png: changed since", "c.png: cann"]):
        with pytest.raises(InputError, match=reason) as caught:
            photos.image(index)
        assert "\n" not in str(caught.value)


def test_photos_above_the_limit_are_left_out_until_a_setting_raises_it(tmp_path: Path) -> None:
    for width in (1000, 1001):
        Pillow.new("L", (width, 1000)).save(tmp_path / f"{width}.png")
        (tmp_path / f"{width}.txt").write_text("0 .5 .5 .1 .1")
    put(tmp_path / "a.names", "cat\ndog\n")
    put(tmp_path / "a.data", "names=a.names\ntrain=.\n")
    settings = DataSet(str(tmp_path / "a.data"), max_megapixels=1)
    photos = open_split(settings, "train")
    assert [each.path.name for each in photos.photos] == ["1000.png"]
    assert "expected at most 1 million (max_megapixels)" in photos.report.errors[0].detail
    assert photos.image(0).shape == (1000, 1000, 3)
    assert len(open_split(replace(settings, max_megapixels=1.1), "train")) == 2


def test_a_pipe_among_the_photos_or_labels_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    photo(tmp_path / "b.jpg")
    os.mkfifo(tmp_path / "b.txt")
    photo(tmp_path / "c.jpg")
    os.mkfifo(tmp_path / "c.xml")
    photos = checked(tmp_path)
    assert not len(photos)
    told = {Path(each.where).name: each.kind for each in photos.report.errors}
    assert told == {
        "a.jpg": "unreadable photo",
        "b.txt": "unreadable label file",
        "c.xml": "unreadable label file",
    }
    assert all("is a named pipe" in each.detail for each in photos.report.errors)


def test_a_label_file_that_is_a_link_to_nothing_is_not_none(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    (tmp_path / "a.txt").symlink_to(tmp_path / "gone.txt")
    photos = checked(tmp_path)
    assert (len(photos), kinds(photos)) == (0, ["unreadable label file"])
