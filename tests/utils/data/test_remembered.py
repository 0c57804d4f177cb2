"""A second start opens what the first one opened, and decodes only what changed."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from tests.conftest import full_disk
from utils.data import remembered, splits, validation
from utils.data.definition import DataDefinition, read_data
from utils.data.photos import PhotoSet
from utils.data.remembered import PhotoFacts, RememberedPhotos
from utils.data.splits import load_split
from utils.data.views import InputView, View
from utils.files.paths import cache_folder
from utils.images import ORIENTATION, read_photo

MODES = ("RGB", "L", "P", "RGBA", "I;16")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataDefinition:
    """A data set of photos of all kinds, of which even so few are remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(splits, "LEAST_REMEMBERED", 1)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, mode in enumerate(MODES):
        Pillow.new(mode, (40 + number, 30)).save(folder / f"{number}.png")
    turned = Pillow.Exif()
    turned[ORIENTATION] = 6
    Pillow.new("RGB", (60, 20)).save(folder / "turned.jpg", exif=turned)
    for path in list(folder.iterdir()):
        path.with_suffix(".txt").write_text("0 .5 .5 .2 .2\n0 .9 .5 .4 .1\n")
    (folder / "broken.jpg").write_text("no photo")
    (tmp_path / "x.names").write_text("cat\n")
    (tmp_path / "x.data").write_text("names = x.names\ntrain = photos\nvalid = photos\n")
    return read_data(tmp_path / "x.data")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The names of the photos that were decoded since it was asked last."""
    names: list[str] = []

    def read(path: Path, max_megapixels: float) -> object:
        names.append(path.name)
        return read_photo(path, max_megapixels)

    def those() -> list[str]:
        seen = sorted(names)
        names.clear()
        return seen

    monkeypatch.setattr(validation, "read_photo", read)
    return those


def opened(definition: DataDefinition, cache_mb: float = 0, view: View | None = None) -> PhotoSet:
    return load_split(definition, "train", cache_mb, progress=False, view=view)


def expect_equal(first: PhotoSet, second: PhotoSet) -> None:
    assert first.report == second.report
    for one, other in zip(first.photos, second.photos, strict=True):
        assert (one.path, one.size, one.file_bytes) == (other.path, other.size, other.file_bytes)
        np.testing.assert_array_equal(one.boxes, other.boxes)
    for pixels, others in ((first.cache, second.cache), (first.views, second.views)):
        assert pixels.keys() == others.keys()
        assert all((pixels[index] == others[index]).all() for index in pixels)


def test_a_second_start_decodes_only_what_could_not_be_read(
    photos: DataDefinition, decoded: Callable[[], list[str]]
) -> None:
    first = opened(photos)
    assert len(decoded()) == len(MODES) + 2
    expect_equal(first, opened(photos))
    assert decoded() == ["broken.jpg"]
    assert len(first.report.counts) >= 5  # what the photos hold is told again


@pytest.mark.parametrize("view", [None, InputView((8, 8), True), InputView((320, 320), True)])
@pytest.mark.parametrize("cache_mb", [0.0001, 0.008, 1])
def test_memory_is_filled_the_second_time_as_the_first(
    photos: DataDefinition, view: View | None, cache_mb: float
) -> None:
    first = opened(photos, cache_mb, view)
    assert cache_mb < 0.001 or first.cache or first.views
    expect_equal(first, opened(photos, cache_mb, view))


@pytest.mark.parametrize("same_time", [True, False])
def test_a_photo_that_changed_is_decoded_again(
    photos: DataDefinition, decoded: Callable[[], list[str]], same_time: bool
) -> None:
    opened(photos)
    path = photos.train[0] / "0.png"
    before = path.stat()
    data = path.read_bytes()
    path.write_bytes(data[:40] if same_time else data)  # another size, or only another time
    if same_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    decoded()
    second = opened(photos)
    assert decoded() == ["0.png", "broken.jpg"]
    assert len(second) == len(MODES) + (not same_time)


def test_a_photo_that_is_gone_is_forgotten(photos: DataDefinition) -> None:
    opened(photos)
    (path,) = (cache_folder() / remembered.FOLDER).iterdir()
    before = path.stat().st_size
    (photos.train[0] / "0.png").unlink()
    assert len(opened(photos)) == len(MODES)
    assert path.stat().st_size == before - remembered.ROW.itemsize


def test_a_photo_above_a_smaller_limit_is_left_out(photos: DataDefinition) -> None:
    assert len(opened(photos)) == len(MODES) + 1
    small = load_split(photos, "train", progress=False, max_megapixels=42 * 30 / 1e6)
    assert [photo.size[0] for photo in small.photos] == [40, 41, 42, 20]


def test_what_an_interrupted_check_has_seen_is_kept(
    photos: DataDefinition, decoded: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = validation._warnings

    def interrupt(record: object, facts: PhotoFacts) -> object:
        if facts.orientation == 6:
            raise KeyboardInterrupt
        return judged(record, facts)  # type: ignore[arg-type]

    monkeypatch.setattr(validation, "_warnings", interrupt)
    with pytest.raises(KeyboardInterrupt):
        opened(photos)
    monkeypatch.setattr(validation, "_warnings", judged)
    decoded()
    opened(photos)
    assert decoded() == ["broken.jpg", "turned.jpg"]


def test_a_damaged_file_is_told_and_made_anew(
    photos: DataDefinition,
    decoded: Callable[[], list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = opened(photos)
    (path,) = (cache_folder() / remembered.FOLDER).iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    decoded()
    expect_equal(first, opened(photos))
    assert "damaged" in capsys.readouterr().err and len(decoded()) == len(MODES) + 2
    expect_equal(first, opened(photos))
    assert not capsys.readouterr().err and decoded() == ["broken.jpg"]


def test_on_a_full_disk_it_goes_on_with_a_note(
    photos: DataDefinition, capsys: pytest.CaptureFixture[str]
) -> None:
    with full_disk(10):
        first = opened(photos)
    assert capsys.readouterr().err.startswith("note: not kept for the next time")
    expect_equal(first, opened(photos))


def test_facts_come_back_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    notes = ("", "odd", "\udce9 is odd")
    facts = [
        PhotoFacts((1 + n, 2**31), 2**40 + n, MODES[n % 5], 1 + n % 8, notes[n % 3])
        for n in range(50)
    ]
    files = np.random.default_rng(0).integers(0, 2**64, len(facts), np.uint64).tolist()
    first = RememberedPhotos.open("x")
    for file, each in zip(files, facts, strict=True):
        first.add(file, each)
    first.keep(complete=True)
    assert list(map(RememberedPhotos.open("x").find, files)) == facts
    assert RememberedPhotos.open("y").find(files[0]) is None


def test_whoever_decodes_all_finds_a_photo_that_was_damaged_in_secret(
    photos: DataDefinition, decoded: Callable[[], list[str]]
) -> None:
    """Its size and time are as they were, as after a restore or a fault of the disk."""
    first, path = opened(photos), photos.path.parent / "photos" / "0.png"
    state = path.stat()
    path.write_bytes(b"?" * state.st_size)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    decoded()
    assert len(opened(photos)) == len(first)
    whole = load_split(photos, "train", progress=False, decode_all=True)
    assert len(whole) == len(first) - 1 and "0.png" in decoded()
    assert len(opened(photos)) == len(first) - 1  # and it is not believed any more
