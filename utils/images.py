"""Which photos are meant, and how is one read so that it looks the way a person sees it?"""

import glob
import os
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from utils.errors import InputError
from utils.files import expand, is_file
from utils.structures import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
ORIENTATION = 0x0112  # the EXIF tag that says how the camera was held
SIDEWAYS = (5, 6, 7, 8)  # its values that swap width and height


def read_image(path: str | Path) -> Image:
    """A photo as uint8 [H, W, 3], RGB, upright.

    EXIF rotation is applied; grey, palette, CMYK and 16-bit pictures become 8-bit RGB; an alpha
    channel is dropped, as Darknet and OpenCV do.

    Raises:
        InputError: the file is missing, cut off or no picture.
    """
    return read_photo(path)[0]


def read_photo(path: str | Path) -> tuple[Image, str, int]:
    """A photo as `read_image` gives it, with what the file held: Pillow's mode and orientation."""
    # Pillow's readers raise nearly anything on damaged files (OSError, SyntaxError, struct.error,
    # IndexError, …), so whatever they raise means: this is not a picture we can read.
    try:
        with Pillow.open(path) as file:
            file.load()
            mode, orientation = file.mode, file.getexif().get(ORIENTATION, 1)
            ImageOps.exif_transpose(file, in_place=True)  # else it copies upright photos, too
            return as_rgb(file), mode, orientation
    except Exception as error:
        raise InputError(f"{path}: {_reason(path, error)}") from error


def is_image(path: Path) -> bool:
    """Whether a file's name is that of a picture; names that begin with a dot are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def find_images(pattern: str | Path) -> list[Path]:
    """The photos that a file, a folder (with its subfolders) or a glob such as `a/**/*.jpg` names.

    Sorted by path. A single file is taken whatever its suffix, of the rest only pictures are.

    Raises:
        InputError: there is no such picture.
    """
    path = expand(pattern)
    if is_file(path):
        return [path]
    if os.path.isdir(path):  # noqa: PTH112  Path.is_dir raises for a name that is too long
        pictures = sorted(p for p in path.rglob("*") if is_image(p) and p.is_file())
        if not pictures:
            raise InputError(f"{pattern}: no pictures in this folder ({_suffixes()})")
        return pictures
    # Path.glob takes no absolute pattern
    matches = sorted(Path(name) for name in glob.glob(os.fspath(path), recursive=True))  # noqa: PTH207
    pictures = [p for p in matches if is_image(p) and p.is_file()]
    if matches and not pictures:
        raise InputError(f"{pattern}: matches {len(matches)} paths, none a picture ({_suffixes()})")
    if not pictures:
        raise InputError(f"{pattern}: no such file, folder or pattern of pictures")
    return pictures


def as_rgb(picture: Pillow.Image) -> Image:
    """A picture of any mode as uint8 [H, W, 3], RGB; an alpha channel is dropped.

    Raises:
        InputError: its pixels are floating-point numbers.
    """
    if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips at 255
        deep = np.asarray(picture).astype(np.int64).clip(0, 65535)
        return np.repeat((deep // 257).astype(np.uint8)[..., None], 3, axis=2)
    if picture.mode == "F":
        raise InputError("floating-point pixels: expected 8 or 16 bits a channel")
    if "transparency" in picture.info:  # by way of RGBA, or Pillow warns
        picture = picture.convert("RGBA")
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _reason(path: str | Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "is a folder: expected a picture"
    if isinstance(error, UnidentifiedImageError):
        empty = Path(path).stat().st_size == 0
        return "an empty file" if empty else "not a picture that Pillow can read"
    if "truncated" in str(error) or isinstance(error, EOFError):
        return f"cut off ({error})"
    return f"cannot be read ({error})"


def _suffixes() -> str:
    return "looked for " + ", ".join(SUFFIXES)
