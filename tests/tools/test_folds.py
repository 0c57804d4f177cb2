"""Is every photo validated on once, and trained on in all other folds?"""

from pathlib import Path

import numpy as np
import pytest

from pruning.report import Size
from tests.pruning.nets import config
from tests.tools.test_experiment import settings
from tests.utils.data import exports
from tools.experiment import in_order, plan_folds
from tools.folds import fold_files, write_folds
from tools.reproduce import Result, comma_separated, markdown
from utils.data.recognition import recognise
from utils.data.splits import load_split
from utils.errors import InputError
from utils.visualization.draw import write_image


def photos(folder: Path, count: int, mirror: str = "no", classes: str = "dog") -> Path:
    """A data set of so many photos to train on."""
    folder.mkdir()
    for number in range(count):
        write_image(folder / f"{number}.png", np.zeros((32, 32, 3), np.uint8))
        (folder / f"{number}.txt").write_text("0 .5 .5 .5 .5\n1 .5 .5 .5 .5\n")
    (folder / "a.names").write_text("cat\ndog\n")
    data = folder / "a.data"
    data.write_text(f"names=a.names\ntrain=.\nclasses={classes}\nmirror={mirror}\n")
    return data


def test_folds_part_the_photos_and_keep_what_the_definition_says(tmp_path: Path) -> None:
    definition = recognise(photos(tmp_path / "photos", 12))
    files = fold_files(tmp_path / "folds", 3)
    write_folds(definition, files)
    validated: list[Path] = []
    for file in files:
        read = recognise(file)
        train, valid = (load_split(read, split, progress=False) for split in ("train", "valid"))
        paths = [{photo.path for photo in split.photos} for split in (train, valid)]
        assert len(paths[0] | paths[1]) == 12 and not paths[0] & paths[1]
        assert (train.names, train.mirror) == (("dog",), False)
        assert train.report.objects == (len(train),)
        validated += paths[1]
    assert len(validated) == len(set(validated)) == 12


def test_photos_behind_a_link_keep_their_labels(tmp_path: Path) -> None:
    """They are found by the path that is given, beside the link."""
    (tmp_path / "set" / "labels").mkdir(parents=True)
    (tmp_path / "far").mkdir()
    for number in range(6):
        write_image(tmp_path / "far" / f"{number}.png", np.zeros((32, 32, 3), np.uint8))
        (tmp_path / "set" / "labels" / f"{number}.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "set" / "images").symlink_to(tmp_path / "far")
    (tmp_path / "set" / "a.names").write_text("cat\n")
    (tmp_path / "set" / "a.data").write_text("names=a.names\ntrain=images\n")
    files = fold_files(tmp_path / "folds", 2)
    write_folds(recognise(tmp_path / "set" / "a.data"), files)
    for file in files:
        assert sum(load_split(recognise(file), "train", progress=False).report.objects) > 0


def test_photos_of_other_tools_are_folded_too(tmp_path: Path) -> None:
    definition = recognise(exports.coco_file(tmp_path / "coco"))
    write_folds(definition, fold_files(tmp_path / "folds", 2))
    read = recognise(tmp_path / "folds/2-of-2.data")
    assert (read.names, read.valid_part) == (definition.names, (0.5, 1.0))
    assert load_split(read, "train", progress=False).names == definition.names


@pytest.mark.parametrize("part", ["0/5", "6/5", "1/1"])
def test_a_part_that_there_is_not_is_refused(tmp_path: Path, part: str) -> None:
    data = photos(tmp_path / "photos", 1)
    data.write_text(data.read_text() + f"valid = {part}\n")
    with pytest.raises(InputError, match=rf"a\.data:5: valid={part}: expected a part of two"):
        recognise(data)


def test_a_path_that_no_data_file_can_hold_is_refused(tmp_path: Path) -> None:
    definition = recognise(photos(tmp_path / "many #1", 2))
    with pytest.raises(InputError, match=r"folds=2: train of .* cannot be written"):
        write_folds(definition, fold_files(tmp_path / "folds", 2))


def test_each_row_is_trained_for_each_fold() -> None:
    files = fold_files(Path("folds"), 3)
    rows = plan_folds(settings(seeds=2), config("yolov3-tiny"), files)
    steps = in_order(rows)
    assert len({step.name for step in steps}) == len(steps)
    for step in steps:
        (number,) = (n for n in (1, 2, 3) if step.name.startswith(f"x-fold{n}-"))
        assert step.flags[step.flags.index("--data") + 1] == str(files[number - 1])
        assert all(earlier.name.startswith(f"x-fold{number}-") for earlier in step.after)
    assert len(rows[0].trained) == 6


def test_the_table_has_the_mean_and_spread_of_folds() -> None:
    size = Size(1_500_000, 8 * 10**9, 6_000_000, 10.0)
    results = [Result("dense", size, {}, (0.5, 0.7, 0.4, 0.6), (0.5, 0.6))]
    assert "| 0.550 ± 0.071 (0.600, 0.500) | 0.550 ± 0.071 (0.500, 0.600) |" in markdown(results, 2)
    lines = comma_separated(results, (3, 4), folds=2).splitlines()
    assert lines[0].endswith("teacher,fold,seed,mAP@.5")
    assert [line.partition(",10.000,")[2] for line in lines[1:]] == [
        "no,1,3,0.5000",
        "no,1,4,0.7000",
        "no,2,3,0.4000",
        "no,2,4,0.6000",
        "yes,1,3,0.5000",
        "yes,2,3,0.6000",
    ]
