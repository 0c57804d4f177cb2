"""benchmark_data.py: the set that it makes, and that a large set needs little memory."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from import_param import DataSet
from tools.benchmark_data import DataSize, DataSizeSettings, make_set, measure, table
from utils.data.splits import open_splits
from utils.errors import InputError

FORMS = ("list", "folder", "coco", "voc")


def few_photos(folder: Path, size: tuple[int, int]) -> DataSizeSettings:
    """Settings with a data set of three photos to link to."""
    (folder / "few").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        noise = rng.integers(0, 255, (*size[::-1], 3), np.uint8)
        Pillow.fromarray(noise).save(folder / f"few/{number}.jpg")
        (folder / f"few/{number}.txt").write_text("0 .5 .5 .25 .25\n1 .25 .25 .125 .125\n")
    (folder / "x.names").write_text("cat\ndog\n")
    (folder / "x.data").write_text("names = x.names\ntrain = few\nvalid = few\n")
    return DataSizeSettings(
        size=DataSize(folder=str(folder / "set"), entries=45, form=("list",), epochs=2),
        data=DataSet(data=str(folder / "x.data"), cache_mb=0),
    )


def test_the_set_is_the_same_in_each_form(tmp_path: Path) -> None:
    make_set(few_photos(tmp_path, (64, 48)), tmp_path / "set")
    opened = [open_splits(DataSet(data=str(tmp_path / f"set/{form}.data"))) for form in FORMS]
    assert [len(photos) for photos in opened[0]] == [42, 3]
    for splits in opened:
        assert not any(photos.report.counts.keys() - {"other files"} for photos in splits)
        for photos, first in zip(splits, opened[0], strict=True):
            assert photos.report.objects == (len(photos),) * 2
            assert [p.path.name for p in photos.photos] == [p.path.name for p in first.photos]
            for one, other in zip(photos.photos, first.photos, strict=True):
                np.testing.assert_allclose(one.boxes, other.boxes)


@pytest.mark.slow
def test_a_second_start_is_quick_and_memory_stays_small(tmp_path: Path) -> None:
    settings = few_photos(tmp_path, (640, 480))
    settings = DataSizeSettings(
        size=DataSize(folder=settings.size.folder, entries=5000, form=("list",), epochs=3),
        data=settings.data,
    )
    make_set(settings, tmp_path / "set")
    parts = measure(settings, tmp_path / "set", "list")
    said = table("5000 photos", parts)
    by_name = {part.name: part for part in parts}
    first, second = by_name["first start"], by_name["second start"]
    assert second.processor_seconds < first.processor_seconds / 2, said
    assert first.highest - by_name["imports"].left < 60e6, said
    workers = [part.left for part in parts if "worker" in part.name]
    assert workers[-1] - workers[0] < 5e6, said


def test_a_folder_that_it_has_not_made_stays_as_it_is(tmp_path: Path) -> None:
    settings = few_photos(tmp_path, (64, 48))
    with pytest.raises(InputError, match=r"few'?: holds something else than a set"):
        make_set(settings, tmp_path / "few")
    assert len(list((tmp_path / "few").iterdir())) == 6
    for _ in range(2):  # its own is made anew
        make_set(settings, tmp_path / "set")
