"""Opening a data set: the ritual that every script goes through is told and honoured."""

from pathlib import Path

import numpy as np
import pytest

from import_param import DataSet
from utils.data.recognition import recognise
from utils.data.splits import load_split, open_split, open_splits
from utils.errors import InputError
from utils.visualization.draw import write_image


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    """Two photos to train on, of which the second is validated on, and has a bad label."""
    for name in "ab":
        write_image(tmp_path / f"{name}.png", np.zeros((64, 64, 3), np.uint8))
        (tmp_path / f"{name}.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "b.txt").write_text("0 .5 .5 .5 .5\n9 .5 .5 .5 .5\n")
    (tmp_path / "a.names").write_text("cat\ndog\n")
    (tmp_path / "train.txt").write_text("a.png\nb.png\n")
    (tmp_path / "valid.txt").write_text("b.png\n")
    (tmp_path / "a.data").write_text("names=a.names\ntrain=train.txt\nvalid=valid.txt\nmirror=no\n")
    return DataSet(str(tmp_path / "a.data"))


def test_a_split_is_reported_and_keeps_what_the_definition_says(
    data: DataSet, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = open_split(
        data, "train", networks={"the network": ("cat", "dog")}, expect_objects=True
    )
    told = capsys.readouterr().out
    assert "train: 2 photos, 2 objects" in told
    assert "b.txt:2: class 9" in told
    assert (photos.names, photos.mirror, len(photos)) == (("cat", "dog"), False, 2)


def test_bad_labels_are_refused_where_that_is_asked(data: DataSet) -> None:
    with pytest.raises(InputError, match=r"b\.txt:2: class out of range"):
        open_split(DataSet(data.data, bad_labels="refuse"), "train")


def test_networks_of_other_classes_are_refused(data: DataSet) -> None:
    with pytest.raises(InputError, match="2 classes: expected 3, as the network has"):
        open_split(data, "valid", {"one": ("0", "1"), "the network": ("cat", "dog", "bird")})


def test_photos_to_measure_must_show_an_object(data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("")
    assert len(open_split(data, "valid")) == 1
    with pytest.raises(InputError, match="there is no mAP"):
        open_split(data, "valid", expect_objects=True)
    with pytest.raises(InputError, match="there is no mAP"):
        open_splits(data)


def test_both_splits_share_the_memory_and_photos_of_both_are_told(
    data: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":  # of 0.75 MiB each
        write_image(tmp_path / f"{name}.png", np.zeros((512, 512, 3), np.uint8))
    cached = {}
    for megabytes in (0, 1, 2, 3):
        train, valid = open_splits(DataSet(data.data, cache_mb=megabytes))
        cached[megabytes] = (len(train.cache), len(valid.cache))
    assert cached == {0: (0, 0), 1: (1, 0), 2: (2, 0), 3: (2, 1)}
    assert "note: 1 photos to validate on are trained on too" in capsys.readouterr().out


def test_the_demo_set_is_made_where_it_is_asked_for(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    monkeypatch.setattr("utils.data.demo_data.DEMO", tmp_path / "a.data")
    monkeypatch.setattr("utils.data.demo_data.make_demo", made.append)
    open_split(data, "valid")
    assert made == [tmp_path / "a"]


def test_a_split_that_the_names_leave_no_photo_is_one_line(tmp_path: Path) -> None:
    write_image(tmp_path / "0.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "0.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "a.names").write_text("cat\n")
    parts = []
    for part in ("1/2", "2/2"):
        (tmp_path / "a.data").write_text(f"names=a.names\ntrain=.\nvalid={part}\n")
        for split in ("train", "valid"):
            try:
                load_split(recognise(tmp_path / "a.data"), split, progress=False)
            except InputError as error:
                parts.append(str(error))
    assert len(parts) == 2 and all("no photo is left for it" in told for told in parts)
