"""Photos are read as a person sees them, or refused in one line."""

import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from utils import images
from utils.errors import InputError
from utils.images import (
    FORMATS,
    ORIENTATION,
    SIDEWAYS,
    UNREADABLE_SUFFIXES,
    find_images,
    read_image,
    read_photo,
)

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
    photo = read_photo(tmp_path / "a.png")
    assert (photo.image.shape, photo.mode, photo.orientation) == ((3, 2, 3), "L", 6)
    assert photo.orientation in SIDEWAYS
    assert photo.file_bytes == (tmp_path / "a.png").stat().st_size
    Pillow.fromarray(PIXELS).save(tmp_path / "b.png")
    plain = read_photo(tmp_path / "b.png")
    assert (plain.mode, plain.orientation, plain.notes) == ("RGB", 1, ())


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
        ("none.jpg", "No such file"),
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


def test_photos_behind_links_are_found_once(tmp_path: Path) -> None:
    for name in ("disk/a.png", "set/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Pillow.fromarray(PIXELS).save(tmp_path / name)
    (tmp_path / "set" / "more").symlink_to(tmp_path / "disk")
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "c.png").symlink_to(tmp_path / "disk" / "a.png")
    for pattern in ("set", "set/**/*.png"):
        found = [p.relative_to(tmp_path).as_posix() for p in find_images(tmp_path / pattern)]
        assert found == ["set/b.png", "set/c.png", "set/more/a.png"]


def test_what_is_left_out_is_counted_by_suffix(tmp_path: Path) -> None:
    for name in ("a.png", "b.mp4", "c.MP4", "d.txt", ".e.jpg", "._f.jpg", "g"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    for pattern, counts in [("", "2 hidden, 2 .mp4"), ("*", "2 .mp4")]:
        lines: list[str] = []
        assert [p.name for p in find_images(tmp_path / pattern, lines.append)] == ["a.png"]
        (line,) = lines
        assert f"left out, since no pictures: {counts}" in line
        assert "1 .txt" in line and "1 without suffix" in line
        assert ("1 folders" in line) == (pattern == "*")


def test_pictures_without_a_reader_are_found_and_told(tmp_path: Path) -> None:
    for suffix in UNREADABLE_SUFFIXES:
        (tmp_path / f"a{suffix}").write_bytes(b"\0\0\0\x18ftypheic")
    for path in find_images(tmp_path):
        with pytest.raises(InputError, match=rf"cannot decode {path.suffix}: expected a \.jpg"):
            read_image(path)
    Pillow.fromarray(PIXELS).save(tmp_path / "a.heic", format="PNG")
    np.testing.assert_array_equal(read_image(tmp_path / "a.heic"), PIXELS)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_of_the_table_is_read(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"a{(*FORMATS[format], '.bmp')[0]}"
    Pillow.new("RGB", (16, 9), (9, 90, 200)).save(path, format=format)
    np.testing.assert_allclose(read_image(path)[4, 4], (9, 90, 200), atol=6)
    assert read_image(path).shape == (9, 16, 3)


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_orientations_that_there_are_not_turn_nothing(tmp_path: Path, orientation: int) -> None:
    exif = Pillow.Exif()
    exif[ORIENTATION] = orientation
    Pillow.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    photo = read_photo(tmp_path / "a.png")
    assert photo.orientation == 1
    np.testing.assert_array_equal(photo.image, PIXELS)


@pytest.mark.filterwarnings("error")
def test_damaged_exif_costs_a_note_and_not_the_photo(tmp_path: Path) -> None:
    Pillow.fromarray(PIXELS).save(tmp_path / "good.jpg", quality=95)
    good = (tmp_path / "good.jpg").read_bytes()
    tag = struct.pack("<2sHIH", b"II", 42, 8, 1) + struct.pack("<HHII", 0x010F, 2, 9999, 4000)
    for index, exif in enumerate([tag, b"II*\0", b"no TIFF at all", b"", tag[:-3]]):
        body = b"Exif\0\0" + exif
        segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
        path = tmp_path / f"{index}.jpg"
        path.write_bytes(good[:2] + segment + good[2:])
        photo = read_photo(path)
        np.testing.assert_array_equal(photo.image, read_image(tmp_path / "good.jpg"))
        assert all("\n" not in note for note in photo.notes)
        assert photo.notes or index in (1, 2, 3)


@pytest.mark.filterwarnings("error")
def test_photos_above_the_limit_are_refused_by_their_header(tmp_path: Path) -> None:
    """A file of some kilobytes may ask for gigabytes; it must not get a megabyte of them."""
    path = tmp_path / "a.png"
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 50_000, 1, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"60000×50000 pixels, 3000 million: .*max_megapixels"):
        read_image(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # KiB


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_a_setting_allows_larger_photos(tmp_path: Path) -> None:
    Pillow.new("L", (20_000, 10_000), 7).save(tmp_path / "a.png")  # Pillow itself refuses these
    with pytest.raises(InputError, match="200 million: expected at most 120 million"):
        read_image(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", max_megapixels=200)
    assert image.shape == (10_000, 20_000, 3)
    assert (image[:, ::999] == 7).all()


def test_large_photos_are_converted_in_strips_to_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (97, 31, 4), dtype=np.uint8)
    pictures = {
        "rgb": Pillow.fromarray(noise[..., :3]),
        "rgba": Pillow.fromarray(noise, "RGBA"),
        "grey": Pillow.fromarray(noise[..., 0]),
        "deep": Pillow.fromarray(noise[..., 0].astype(np.uint16) * 257),
        "palette": Pillow.fromarray(noise[..., :3]).quantize(16),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
        whole = read_image(tmp_path / f"{name}.png")
        monkeypatch.setattr(images, "STRIP", 200)
        np.testing.assert_array_equal(read_image(tmp_path / f"{name}.png"), whole)
        monkeypatch.undo()


def test_a_jpeg_of_thousands_of_passes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Pillow.new("L", (4000, 4000)).save(path, progressive=True)
    data = path.read_bytes()
    last = data.rindex(b"\xff\xda")
    path.write_bytes(data[:last] + data[last:-2] * 2000 + data[-2:])
    with pytest.raises(InputError, match=r"20\d\d passes over 16 million pixels"):
        read_image(path)


def test_other_formats_are_not_opened_whatever_they_are_called(tmp_path: Path) -> None:
    """EPS runs a program; others are seldom read and seldom mended."""
    for form in ("EPS", "ICO", "PCX", "SGI"):
        path = tmp_path / f"{form}.jpg"
        Pillow.new("RGB", (16, 16)).save(path, format=form)
        with pytest.raises(InputError, match="not a picture that Pillow can read"):
            read_image(path)


def test_nothing_found_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for pattern, reason in [("", "no pictures in"), ("*.txt", "none a picture"), ("x", "no such")]:
        with pytest.raises(InputError, match=reason):
            find_images(tmp_path / pattern)
    for impossible in ("a" * 5000, "~nobody.jpg"):
        with pytest.raises(InputError, match="no such file, folder or pattern"):
            find_images(impossible)


@pytest.mark.filterwarnings("error")
def test_damaged_tags_of_a_tiff_are_notes_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Pillow.fromarray(PIXELS).save(path, compression="tiff_lzw", description="x" * 40)
    data = path.read_bytes()
    entry = struct.pack("<HH", 270, 2)
    assert entry in data
    start = data.index(entry) + 4
    path.write_bytes(data[:start] + struct.pack("<I", 10**6) + data[start + 4 :])
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.image, PIXELS)
    assert any("tag 270" in note for note in photo.notes)
