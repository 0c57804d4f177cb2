"""Whose ids stand in what test.py writes, and that it is the data that was read."""

import json
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from utils.data.labels import read_labels
from utils.data.labels.coco import read_coco
from utils.data.photos import Photo
from utils.data.validation import check
from utils.evaluation.coco_files import CocoIds, dumps, ground_truth, ids_of

NAMES = ("cat", "dog")


def photos(*sources: Path) -> tuple[Photo, ...]:
    records = [record for source in sources for record in read_coco(source, NAMES)]
    return tuple(check(records, NAMES, progress=False).photos)


def write(
    path: Path,
    images: list[tuple[object, str]],
    categories: tuple[tuple[object, str], ...] = ((30, "dog"), (4, "cat")),
) -> Path:
    """A COCO file with a dog of 10×20 pixels on each photo."""
    for _, name in images:
        file = path.parent / name.replace("\\", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        Pillow.new("RGB", (80, 40)).save(file)
    dog = categories[0][0]
    content = {
        "images": [{"id": number, "file_name": name} for number, name in images],
        "annotations": [
            {"image_id": number, "category_id": dog, "bbox": [5, 6, 10, 20]} for number, _ in images
        ],
        "categories": [{"id": number, "name": name} for number, name in categories],
    }
    path.write_text(json.dumps(content))
    return path


def test_photos_of_one_name_keep_their_own_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [(7, r"images\a.jpg"), (8, "x/a.jpg"), (2, "b.jpg")])
    assert ids_of(photos(path), len(NAMES)) == CocoIds((7, 8, 2), (4, 30))


def test_photos_that_were_left_out_take_no_id(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [(7, "a.jpg"), (8, "b.jpg"), (9, "c.jpg")])
    (tmp_path / "b.jpg").write_text("no picture")
    assert ids_of(photos(path), len(NAMES)).images == (7, 9)


def test_other_ids_are_replaced_by_numbers(tmp_path: Path) -> None:
    numbered = CocoIds((1, 2), (1, 2))
    (tmp_path / "one").mkdir()
    one = write(tmp_path / "one" / "a.json", [(7, "a.jpg")])
    (tmp_path / "two").mkdir()
    two = tmp_path / "two" / "b.json"
    assert ids_of(photos(one, write(two, [(8, "b.jpg")])), 2) == CocoIds((7, 8), (4, 30))
    assert ids_of(photos(one, write(two, [(7, "b.jpg")])), 2) == numbered  # the same id
    assert ids_of(photos(one, write(two, [("8", "b.jpg")])), 2) == numbered  # a text
    swapped = ((4, "dog"), (30, "cat"))
    assert ids_of(photos(one, write(two, [(8, "b.jpg")], swapped)), 2) == numbered
    plain = read_labels(tmp_path / "one" / "a.jpg", None, NAMES)
    mixed = (*photos(one), *check([plain], NAMES, progress=False).photos)
    assert ids_of(mixed, 2) == numbered  # not every photo is of a COCO file
    assert ids_of((), 2) == CocoIds((), (1, 2))


def test_the_ground_truth_reads_back_as_it_was(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [(7, "a.jpg"), (8, "b.jpg")])
    before = photos(path)
    ids = ids_of(before, len(NAMES))
    written = tmp_path / "written.json"
    written.write_text(dumps(ground_truth(before, NAMES, ids)))
    after = photos(written)
    assert ids_of(after, len(NAMES)) == ids
    for a, b in zip(before, after, strict=True):
        assert (a.path, a.size) == (b.path, b.size)
        for name in ("boxes", "labels", "ignore", "area"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_lists_are_written_a_line_a_record() -> None:
    assert dumps([{"a": 1}, {"b": [2, 3]}]) == '[\n{"a": 1},\n{"b": [2, 3]}\n]\n'
    assert json.loads(dumps([])) == []
