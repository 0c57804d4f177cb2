"""Photos are read as a person sees them, or refused in one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from utils.errors import InputError
from utils.images import ORIENTATION, SIDEWAYS, find_images, read_image, read_photo

# a 3 × 2 picture whose six pixels can be told apart
PIXELS = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14


def test_rgb_is_read_to_the_value(tmp_path: Path) -> None:
    Pillow.fromarray(PIXELS).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    assert image.flags.writeable
    np.testing.assert_array_equal(image, PIXELS)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int) -> None:
    # what a viewer has to do to the stored picture, from the EXIF standard's table
    upright = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.transpose(1, 0, 2),
        6: np.rot90(PIXELS, -1),
        7: PIXELS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(PIXELS, 1),
    }

    exif = Pillow.Exif()
    exif[ORIENTATION] = orientation
    Pillow.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), upright[orientation])
    assert (upright[orientation].shape[:2] == (3, 2)) == (orientation in SIDEWAYS)


def test_what_the_file_held_is_told(tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[ORIENTATION] = 6
    Pillow.fromarray(PIXELS[..., 0]).save(tmp_path / "a.png", exif=exif)
    image, mode, orientation = read_photo(tmp_path / "a.png")
    assert (image.shape, mode, orientation) == ((3, 2, 3), "L", 6)
    assert orientation in SIDEWAYS
    Pillow.fromarray(PIXELS).save(tmp_path / "b.png")
    assert read_photo(tmp_path / "b.png")[1:] == ("RGB", 1)


@pytest.mark.filterwarnings("error")
def test_grey_palette_and_alpha_become_rgb(tmp_path: Path) -> None:
    grey = PIXELS[..., 0]
    Pillow.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.stack([grey] * 3, -1))
    alpha = np.dstack([PIXELS, np.array([[0, 100, 255]] * 2, np.uint8)])
    Pillow.fromarray(alpha).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), PIXELS)
    palette = Pillow.fromarray(PIXELS).quantize(6)
    palette.info["transparency"] = b"\x00\x80"
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), PIXELS)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 32896], [65535, 256, 65280]], np.uint16)
    Pillow.fromarray(deep).save(tmp_path / "deep.png")
    expected = np.array([[0, 1, 128], [255, 0, 254]])
    image = read_image(tmp_path / "deep.png")
    np.testing.assert_array_equal(image, np.stack([expected] * 3, -1))


def test_cmyk_is_read(tmp_path: Path) -> None:
    Pillow.new("CMYK", (4, 4), (255, 255, 0, 0)).save(tmp_path / "a.jpg")
    red, green, blue = read_image(tmp_path / "a.jpg")[2, 2]
    assert blue > 200 > 60 > max(red, green)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_picture_that_is_cut_off_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    Pillow.fromarray(noise).save(whole)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(InputError, match=r"cut\.\w+: cut off") as caught:
        read_image(cut)
    assert "\n" not in str(caught.value)


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.jpg").touch()
    for name, reason in [
        ("text.jpg", "not a picture"),
        ("empty.jpg", "an empty file"),
        ("none.jpg", "no such file"),
        ("", "is a folder"),
    ]:
        with pytest.raises(InputError, match=reason):
            read_image(tmp_path / name)


def test_photos_are_found_by_file_folder_and_glob(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "sub/c.jpeg", "notes.txt", ".hidden.jpg", "odd[1].jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(pattern: str) -> list[str]:
        return [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path / pattern)]

    assert names("") == ["a.png", "b.JPG", "odd[1].jpg", "sub/c.jpeg"]
    assert names("odd[1].jpg") == ["odd[1].jpg"]
    assert names("*.JPG") == ["b.JPG"]
    assert names("**/*") == ["a.png", "b.JPG", "odd[1].jpg", "sub/c.jpeg"]
    assert names("notes.txt") == ["notes.txt"]  # a file that is named is taken at its word


def test_nothing_found_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for pattern, reason in [("", "no pictures in"), ("*.txt", "none a picture"), ("x", "no such")]:
        with pytest.raises(InputError, match=reason):
            find_images(tmp_path / pattern)
    for impossible in ("a" * 5000, "~nobody.jpg"):
        with pytest.raises(InputError, match="no such file, folder or pattern"):
            find_images(impossible)
