"""Does a labelling tool's export open as it is, whichever tool wrote it?"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from import_param import DataSet
from tests.utils.data import exports
from tests.utils.data.exports import EXPORTS, NAMES, OBJECTS, photos, write, yolo_labels
from utils.data.photos import Photo
from utils.data.splits import open_splits
from utils.errors import InputError

Export = Callable[[Path], Path]


def opened(path: Path) -> tuple[dict[str, Photo], dict[str, Photo]]:
    """The photos of both splits by name, without what a tool put before it."""
    train, valid = open_splits(DataSet(str(path)))
    assert train.names == valid.names == NAMES
    both = [
        {photo.path.stem.split("-")[-1]: photo for photo in each.photos} for each in (train, valid)
    ]
    return both[0], both[1]


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.__name__)
@pytest.mark.parametrize("whole", [True, False], ids=["as named", "its folder"])
def test_an_export_has_the_same_boxes_whichever_tool_wrote_it(
    export: Export, whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = export(tmp_path / "set")
    monkeypatch.chdir("/")  # nothing may depend on where it is opened from
    train, valid = opened(path if whole or path.is_dir() else path.parent)
    assert train and valid and not set(train) & set(valid)
    assert set(train) | set(valid) == set(OBJECTS)
    for name, photo in (train | valid).items():
        expected = np.array(OBJECTS[name], float)
        order = np.lexsort(photo.boxes.T[::-1])
        assert photo.boxes[order] == pytest.approx(expected[:, 1:], abs=0.01), name
        assert photo.labels[order].tolist() == expected[:, 0].tolist()


@pytest.mark.parametrize("export", [exports.yolo_folder, exports.coco_file, exports.labelme_folder])
def test_a_photo_stays_in_its_split_when_others_come(export: Export, tmp_path: Path) -> None:
    path = export(tmp_path / "set")
    _, before = opened(path)
    assert 1 <= len(before) <= 4
    for name in list(OBJECTS)[:3]:  # and the others' places do not change when some go
        for file in (tmp_path / "set").rglob(f"{name}.*"):
            file.unlink()
    _, after = opened(path)
    assert set(after) == set(before) - set(list(OBJECTS)[:3])


def test_copies_that_a_tool_made_of_a_photo_stay_together(tmp_path: Path) -> None:
    names = [f"{name}_jpg.rf.{copy}" for name in OBJECTS for copy in ("aaa", "bbb", "ccc")]
    photos(tmp_path, names)
    for name in names:
        write(tmp_path / f"{name}.txt", "0 .5 .5 .2 .2\n1 .5 .5 .1 .1\n")
    train, valid = open_splits(DataSet(str(tmp_path)))
    groups = [{photo.path.name.split("_")[0] for photo in each.photos} for each in (train, valid)]
    assert groups[0] and groups[1] and not groups[0] & groups[1]


def test_classes_without_a_list_are_called_by_their_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(tmp_path)
    yolo_labels(tmp_path)
    train, _ = open_splits(DataSet(str(tmp_path)))
    assert train.names == ("0", "1")
    said = capsys.readouterr().out
    assert "2 classes, called by their numbers, since no classes.txt lists them" in said
    assert "no photos to validate on: 20% of these are taken, by their names" in said


def test_categories_without_labels_are_left_out_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_splits(DataSet(str(exports.coco_file(tmp_path))))
    said = capsys.readouterr().out
    assert "2 classes, from the labels (animals left out, which no label is of)" in said
    assert "polygon: shapes taken as their bounding boxes" in said


def test_some_classes_are_chosen_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exports.darknet(tmp_path)
    data = tmp_path / "data/obj.data"
    data.write_text(data.read_text().replace("classes = 2", "classes = dog"))
    train, valid = open_splits(DataSet(str(data)))
    assert train.names == ("dog",)
    objects = sum(c == 1 for items in OBJECTS.values() for c, *_ in items)
    assert sum(train.report.objects) + sum(valid.report.objects) == objects
    said = capsys.readouterr().out
    assert "class left out: labels left out, since `classes` does not name their class" in said


@pytest.mark.parametrize("export", [exports.voc_root, exports.coco_roboflow, exports.cvat_folder])
def test_chosen_classes_work_in_every_format(export: Export, tmp_path: Path) -> None:
    folder = export(tmp_path / "set")
    sources = {
        exports.voc_root: ("ImageSets/Main/train.txt", "ImageSets/Main/val.txt"),
        exports.coco_roboflow: ("train/_annotations.coco.json", "valid/_annotations.coco.json"),
        exports.cvat_folder: ("annotations.xml", "30%"),
    }[export]
    write(folder / "all.names", "cat\ndog\n")
    train, valid = sources
    write(folder / "my.data", f"names=all.names\nclasses=dog\ntrain={train}\nvalid={valid}\n")
    for photo_set in open_splits(DataSet(str(folder / "my.data"))):
        for photo in photo_set.photos:
            expected = [item[1:] for item in OBJECTS[photo.path.stem] if item[0] == 1]
            assert photo.labels.tolist() == [0] * len(expected)
            assert photo.boxes == pytest.approx(np.array(expected), abs=0.01)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no labels found: expected photos with YOLO"),
        ({"data.yaml": "train: images\n"}, "no 'names': expected the classes"),
        ({"data.yaml": "names: [a, a]\ntrain: images\n"}, "'a' stands there twice"),
        ({"data.yaml": "names: {0: a, 2: b}\ntrain: .\n"}, "expected each number from 0 to 1"),
        ({"data.yaml": "names: [a]\ntrain: images\n"}, "train=images: no such file or folder"),
        ({"data.yaml": "names: [a\ntrain"}, r"data\.yaml:2: no readable YAML"),
        ({"data.yaml": "just text"}, "expected 'names:' and 'train:'"),
        ({"x.json": "[1, 2]"}, "no labels found"),
        (
            {"a.txt": "700000 .5 .5 .1 .1\n"},
            "class 700000 in the labels: expected a list",
        ),
    ],
)
def test_what_is_no_data_set_is_one_short_line(
    files: dict[str, str], message: str, tmp_path: Path
) -> None:
    photos(tmp_path, ["a"])
    for name, text in files.items():
        write(tmp_path / name, text)
    with pytest.raises(InputError, match=message) as caught:
        open_splits(DataSet(str(tmp_path)))
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("text", ["{}", "[]", '{"a": 1}', '{"shapes": []}', "not json"])
def test_a_json_that_is_no_data_set_is_one_short_line(text: str, tmp_path: Path) -> None:
    write(tmp_path / "x.json", text)
    with pytest.raises(InputError, match=r"x\.json: no") as caught:
        open_splits(DataSet(str(tmp_path / "x.json")))
    assert len(str(caught.value)) < 200 + len(str(tmp_path))
