"""Which photos does detect_img.py read, and what are their annotated copies called?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.console.progress import say, say_error
from utils.detection.background import StageTimer
from utils.detection.detector import Detector
from utils.detection.writer import Picture, output_keys, output_names
from utils.errors import InputError
from utils.files.paths import same_file
from utils.images import find_images, read_photo

WRITABLE = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")  # others become .png


@dataclass(frozen=True)
class PlannedPhoto:
    """A photo, the key of its results, and where its annotated copy goes."""

    source: Path
    key: str
    annotated: Path


def plan_photos(sources: Sequence[str], folder: Path) -> list[PlannedPhoto]:
    """The photos of `sources`, each once, and the file that each becomes in `folder`.

    Earlier results that lie in a folder below the source are left out.

    Raises:
        InputError: there are no photos, or one would be overwritten.
    """
    paths = list(dict.fromkeys(path for source in sources for path in find_images(source)))
    results = folder.resolve()
    if not any(results in Path(s).expanduser().resolve().parents for s in sources):
        outside = [path for path in paths if results not in path.resolve().parents]
        if outside and len(outside) < len(paths):
            say(f"leaving out {len(paths) - len(outside)} photos in the output folder {folder}")
            paths = outside
    names = output_names(paths)
    photos = [
        PlannedPhoto(
            path, key, folder / (name if name.suffix.lower() in WRITABLE else f"{key}.png")
        )
        for path, name, key in zip(paths, names, output_keys(names), strict=True)
    ]
    for photo in photos:
        if same_file(photo.annotated, photo.source):
            raise InputError(f"output='{folder}': would overwrite {photo.source}; choose another")
    return photos


def read_photos(
    photos: list[PlannedPhoto],
    detector: Detector,
    timer: StageTimer,
    unreadable: list[Path],
    max_megapixels: float,
) -> Iterator[Picture]:
    """Read photo after photo; one that cannot be read costs a line and is added to `unreadable`."""
    for photo in photos:
        try:
            with timer.stage("read"):
                decoded = read_photo(photo.source, max_megapixels)
        except InputError as error:
            say_error(f"left out: {error}")
            unreadable.append(photo.source)
            continue
        for note in decoded.notes[:1]:
            say_error(f"note: {photo.source}: {note}")
        yield detector.picture(decoded.image, photo.key, str(photo.source))
