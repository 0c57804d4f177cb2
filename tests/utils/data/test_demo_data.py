"""The demo set is the same each time, tight, without overlaps, and whole or absent."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from utils.boxes import clip
from utils.data import demo_data
from utils.data.demo_data import DemoSettings, make_demo
from utils.data.sources import read_source
from utils.data.validation import check
from utils.errors import InputError

NAMES = tuple("0123456789")
SMALL = DemoSettings(train=12, valid=6, side=128)


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_set_is_sound(tmp_path: Path) -> None:
    folder = make_demo(tmp_path / "demo", SMALL)
    for split, count in (("train", 12), ("valid", 6)):
        records = read_source(folder / f"{split}.txt", NAMES, progress=False)
        photos = check(records, NAMES, progress=False)
        assert not photos.report.problems
        assert len(photos) == count
        for photo in photos.photos:
            assert photo.size == (128, 128)
            assert 1 <= len(photo.labels) <= SMALL.most
            heights = (photo.boxes[:, 3] - photo.boxes[:, 1]) / 128
            assert heights.min() > 0.6 * SMALL.smallest
            assert heights.max() < 1.5 * SMALL.largest
            for index, box in enumerate(photo.boxes):
                low = np.maximum(box[:2], photo.boxes[index + 1 :, :2])
                high = np.minimum(box[2:], photo.boxes[index + 1 :, 2:])
                assert not (high - low > 1e-3).all(axis=1).any()
            assert clip(photo.targets().boxes, photo.size).equal(photo.targets().boxes)


def test_the_same_settings_make_the_same_files(tmp_path: Path) -> None:
    first = digest(make_demo(tmp_path / "a", SMALL))
    assert first == digest(make_demo(tmp_path / "b", SMALL))
    other = digest(make_demo(tmp_path / "c", replace(SMALL, seed=1)))
    assert first.keys() == other.keys()
    assert first["images/train/0000.jpg"] != other["images/train/0000.jpg"]


def test_a_finished_set_is_left_and_another_is_replaced(tmp_path: Path) -> None:
    folder = make_demo(tmp_path / "demo", SMALL)
    (folder / "mine.txt").touch()
    make_demo(folder, SMALL)
    assert (folder / "mine.txt").exists()
    make_demo(folder, replace(SMALL, valid=2))
    assert not (folder / "mine.txt").exists()
    assert len(list((folder / "images/valid").iterdir())) == 2


def test_what_is_no_demo_set_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="something else than a demo set"):
        make_demo(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_making_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, background = [], demo_data._background

    def stop(*arguments: Any) -> Any:
        drawn.append(arguments)
        if len(drawn) > 3:
            raise KeyboardInterrupt
        return background(*arguments)

    monkeypatch.setattr(demo_data, "_background", stop)
    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path / "demo", SMALL)
    assert not list(tmp_path.iterdir())


def test_ink_touches_every_side_of_its_box() -> None:
    glyphs, labels = demo_data._glyphs()
    rng = np.random.default_rng(0)
    assert set(labels.tolist()) == set(range(10))
    for index in range(0, len(glyphs), 50):
        ink = demo_data._inked(glyphs[index], 30, 15, rng)
        assert min(ink[0].max(), ink[-1].max(), ink[:, 0].max(), ink[:, -1].max()) > 0.5
        assert 20 < ink.shape[0] < 45


def test_digits_stand_out_and_leave_the_photo_as_it_is() -> None:
    glyphs, labels = demo_data._glyphs()
    plain = [np.full((300, 300, 3), 120, np.uint8)]
    for seed in range(5):
        rng = np.random.default_rng(seed)
        image, lines = demo_data._photo(glyphs, labels, np.arange(100), plain, SMALL, rng)
        luma = image @ np.array([0.299, 0.587, 0.114])
        outside = np.ones(luma.shape, bool)
        for line in lines:
            x, y, w, h = (float(value) * 128 for value in line.split()[1:])
            inside = (
                slice(round(y - h / 2), round(y + h / 2)),
                slice(round(x - w / 2), round(x + w / 2)),
            )
            outside[inside] = False
            far = abs(luma[inside] - 120)
            assert (far >= SMALL.contrast - 1).mean() > 0.1
            assert (far < 1).mean() > 0.05
        assert (image[outside] == 120).all()


def test_the_demo_set_is_that_of_the_file_in_the_repository() -> None:
    assert demo_data.DEMO == ROOT / "data" / "demo.data"
    assert demo_data.DEMO.is_file()
