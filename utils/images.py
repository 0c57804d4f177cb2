"""Which photos are meant, how is one read so that it looks as a person sees it, or written?"""

import contextlib
import functools
import glob
import io
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from import_param import DataSet
from utils.console.progress import say
from utils.errors import InputError
from utils.files.paths import exists, expand, walk
from utils.files.reading import read_bytes
from utils.structures import Image

# Formats whose readers are well kept, and their suffixes. Others, such as EPS, which runs programs,
# are not opened; a name is believed of `.tga` alone, whose contents tell it from nothing.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jfif", ".jpe", ".mpo"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "DIB": (),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "TGA": (".tga",),
}
UNREADABLE_SUFFIXES = (".heic", ".heif", ".hif", ".jxl")  # photos that Pillow has no reader for
SUFFIXES = (*(suffix for suffixes in FORMATS.values() for suffix in suffixes), *UNREADABLE_SUFFIXES)
LOSSY = (".jpg", ".jpeg", ".webp")
MAX_MEGAPIXELS = DataSet().max_megapixels
ORIENTATION = 0x0112  # the EXIF tag that says how the camera was held
SIDEWAYS = (5, 6, 7, 8)  # its values that swap width and height
UPRIGHT = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
PASSES = 12  # over all pixels; a JPEG of thousands of empty ones would take minutes
STRIP = 2**22  # pixels that are converted at once, so that a large photo is not held three times
BYTES_A_PIXEL = 16  # that a file takes at most

# Sizes are checked here before anything is decoded, and what Pillow warns of is told with the name
# of the file; Pillow's own lines have none.
Pillow.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module=r"PIL\.(\w+ImagePlugin|Image)$")
_WARNINGS = threading.Lock()  # `warnings` has one list for all threads


@dataclass(frozen=True)
class DecodedPhoto:
    """A photo as it was read.

    Attributes:
        image: uint8 [H, W, 3], RGB, upright.
        mode: Pillow's mode of what the file holds.
        orientation: how it was turned to be upright, EXIF's 1 to 8.
        file_bytes: the length of the file.
        notes: what is odd about the file, which could be read all the same.
    """

    image: Image
    mode: str
    orientation: int
    file_bytes: int
    notes: tuple[str, ...] = ()


def read_image(path: str | Path, max_megapixels: float = MAX_MEGAPIXELS) -> Image:
    """A photo as uint8 [H, W, 3], RGB, upright.

    EXIF rotation is applied; grey, palette, CMYK and 16-bit pictures become 8-bit RGB; an alpha
    channel is dropped, as Darknet and OpenCV do.

    Raises:
        InputError: the file is missing, cut off, too large or no picture.
    """
    return read_photo(path, max_megapixels).image


def read_photo(path: str | Path, max_megapixels: float = MAX_MEGAPIXELS) -> DecodedPhoto:
    """A photo as `read_image` gives it, and what is to be known of its file."""
    data = read_bytes(path, most=int(max_megapixels * 1e6 * BYTES_A_PIXEL) + 2**20)
    notes: list[str] = []
    # Pillow's readers raise nearly anything on damaged files (OSError, SyntaxError, struct.error,
    # IndexError, …), so whatever they raise means: this is not a picture we can read.
    try:
        with _open(path, data, notes) as file:
            _check_size(file.size, data, max_megapixels)
            # Where TIFF's tags are read once more, and are warned of; others only decode.
            with _noted(notes) if file.format == "TIFF" else contextlib.nullcontext():
                file.load()
            mode, orientation = file.mode, _orientation(file, notes)
            upright = file.transpose(UPRIGHT[orientation]) if orientation != 1 else file
            return DecodedPhoto(as_rgb(upright), mode, orientation, len(data), tuple(notes))
    except Exception as error:
        raise InputError(f"{path}: {_reason(path, data, error)}") from error


def encode_image(image: Image, suffix: str, quality: int = 95) -> bytes:
    """A picture, uint8 [H, W, 3] RGB, as a file of the format that the suffix names.

    Pillow does not notice what a full disk leaves out of a file, so it is not let near one.

    Args:
        image: the picture.
        suffix: such as `.jpg`.
        quality: 1 to 100, of formats that lose some of it.

    Raises:
        InputError: the suffix names no format that can be written, or one for smaller pictures.
    """
    file_format = Pillow.registered_extensions().get(suffix.lower())
    if file_format not in Pillow.SAVE:
        raise InputError(f"{suffix!r}: expected a suffix of a picture, such as .jpg or .png")
    data = io.BytesIO()
    try:
        Pillow.fromarray(image).save(
            data, file_format, **({"quality": quality} if suffix.lower() in LOSSY else {})
        )
    except (OSError, ValueError) as error:
        size = f"{image.shape[1]}×{image.shape[0]} pixels"
        raise InputError(f"{suffix} cannot hold {size}: {error}") from error
    return data.getvalue()


def is_image(path: Path) -> bool:
    """Whether a file's name is that of a picture; names that begin with a dot are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def find_images(pattern: str | Path, tell: Callable[[str], object] = say) -> list[Path]:
    """The photos that a file, a folder (with its subfolders) or a glob such as `a/**/*.jpg` names.

    Sorted by path. A single file is taken whatever its suffix, of the rest only pictures are; what
    lies behind links belongs to a folder.

    Args:
        pattern: the file, folder or glob.
        tell: takes a line about the files that are left out, where there are any.

    Raises:
        InputError: there is no such picture.
    """
    path = expand(pattern)
    if os.path.isdir(path):  # noqa: PTH112  Path.is_dir raises for a name that is too long
        paths, closed = walk(path)
    elif exists(path):
        return [path]
    else:
        paths, closed = _matches(path), []
    pictures = [p for p in paths if is_image(p)]
    if not pictures:
        raise InputError(_none(pattern, path, len(paths)))
    if note := left_out(set(paths) - set(pictures), closed):
        tell(f"{pattern}: {note}")
    return pictures


def left_out(paths: Iterable[Path], closed: Sequence[str] = ()) -> str:
    """A line about files that were not taken, and folders that cannot be read."""
    lines = list(closed)
    if kinds := by_suffix(paths):
        counts = ", ".join(f"{len(files)} {suffix}" for suffix, files in kinds.items())
        example = next(iter(kinds.values()))[0]
        lines.insert(0, f"left out, since no pictures: {counts} (such as {example})")
    return "; ".join(lines)


def by_suffix(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Files by their suffix, those of the most frequent one first.

    Hidden files are one kind, of which only pictures are listed.
    """
    kinds: dict[str, list[Path]] = {}
    for path in sorted(paths):
        suffix = path.suffix.lower()
        if not path.name.startswith("."):
            suffix = suffix or ("folders" if path.is_dir() else "without suffix")
            kinds.setdefault(suffix, []).append(path)
        elif suffix in SUFFIXES:
            kinds.setdefault("hidden", []).append(path)
    return dict(sorted(kinds.items(), key=lambda item: -len(item[1])))


def _matches(pattern: Path) -> list[Path]:
    """What a glob names, sorted; what links in a circle lead to, once."""
    # Path.glob takes no absolute pattern
    names = glob.glob(os.fspath(pattern), recursive=True)  # noqa: PTH207
    paths = sorted(map(Path, names), key=lambda path: (len(path.parts), path))
    folders = {path.parent: path.parent.resolve() for path in paths}
    return sorted({(folders[path.parent], path.name): path for path in reversed(paths)}.values())


def _none(pattern: str | Path, path: Path, count: int) -> str:
    if os.path.isdir(path):  # noqa: PTH112
        return f"{pattern}: no pictures in this folder ({_suffixes()})"
    if count:
        return f"{pattern}: matches {count} paths, none a picture ({_suffixes()})"
    return f"{pattern}: no such file, folder or pattern of pictures"


def _open(path: str | Path, data: bytes, notes: list[str]) -> Pillow.Image:
    formats = [name for name in _formats() if name != "TGA" or str(path).lower().endswith(".tga")]
    with _noted(notes):
        return Pillow.open(io.BytesIO(data), formats=formats)


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that this Pillow was built to read."""
    Pillow.init()
    return tuple(name for name in FORMATS if name in Pillow.OPEN)


@contextmanager
def _noted(notes: list[str]) -> Iterator[None]:
    """Add what Pillow warns of to `notes`."""
    with _WARNINGS, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    notes += [" ".join(str(each.message).split()) for each in caught]


def _check_size(size: tuple[int, int], data: bytes, max_megapixels: float) -> None:
    """Refuse a photo by what its header says, before memory or time is spent on it."""
    megapixels = size[0] * size[1] / 1e6
    if megapixels > max_megapixels:
        raise InputError(
            f"{size[0]}×{size[1]} pixels, {megapixels:.0f} million: expected at most"
            f" {max_megapixels:g} million (max_megapixels)"
        )
    passes = data.count(b"\xff\xda") if data.startswith(b"\xff\xd8") else 1
    if passes * megapixels > PASSES * max_megapixels:
        raise InputError(
            f"{passes} passes over {megapixels:.0f} million pixels: expected at most"
            f" {PASSES * max_megapixels:g} million in all ({PASSES} × max_megapixels)"
        )


def _orientation(file: Pillow.Image, notes: list[str]) -> int:
    """How the camera was held, 1 to 8; upright where the file does not say, or says nonsense."""
    try:
        with _noted(notes):
            value = file.getexif().get(ORIENTATION, 1)
    except Exception as error:  # of any kind, as above; the pixels are sound
        notes.append(f"damaged EXIF ({error})")
        return 1
    return value if isinstance(value, int) and value in UPRIGHT else 1


def as_rgb(picture: Pillow.Image) -> Image:
    """A picture of any mode as uint8 [H, W, 3], RGB; an alpha channel is dropped.

    Raises:
        InputError: its pixels are floating-point numbers.
    """
    width, height = picture.size
    if picture.mode == "F":
        raise InputError("floating-point pixels: expected 8 or 16 bits a channel")
    if width * height <= STRIP:
        return _strip_in_rgb(picture)
    image = np.empty((height, width, 3), np.uint8)
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        strip = picture.crop((0, top, width, min(height, top + rows)))
        image[top : top + rows] = _strip_in_rgb(strip)
    return image


def _strip_in_rgb(picture: Pillow.Image) -> Image:
    if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips at 255
        deep = np.asarray(picture).astype(np.int64).clip(0, 65535)
        return np.repeat((deep // 257).astype(np.uint8)[..., None], 3, axis=2)
    if "transparency" in picture.info:  # by way of RGBA, or Pillow warns
        picture = picture.convert("RGBA")
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _reason(path: str | Path, data: bytes, error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    suffix = Path(path).suffix.lower()
    if isinstance(error, UnidentifiedImageError) and suffix in UNREADABLE_SUFFIXES:
        return f"Pillow cannot decode {suffix}: expected a .jpg or .png"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that Pillow can read" if data else "an empty file"
    if "truncated" in str(error) or isinstance(error, EOFError):
        return f"cut off ({error})"
    return f"cannot be read ({error})"


def _suffixes() -> str:
    return "looked for " + ", ".join(SUFFIXES)
