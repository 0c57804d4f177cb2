"""Find objects on photos: a file, a folder with its subfolders, or a glob.

    python detect_img.py --weights weights/demo/best.pt --source photos --save_txt

Annotated photos go into the output folder under their own names; of photos from several folders,
the folders below the one that all share are kept, so that equal names do not meet. No source is
ever overwritten. What `--save_txt`, `--save_json` and `--save_crops` add, utils/detection/writer.py
tells.

A photo that cannot be read costs one line on the terminal; the others are done, and the exit code
is 2 at the end.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from import_param import DetectSettings
from utils.detection.background import Background, Stopwatch
from utils.detection.detector import Detector, open_detector
from utils.detection.writer import (
    Picture,
    Results,
    output_folder,
    output_keys,
    output_names,
    same_file,
)
from utils.errors import InputError, run
from utils.images import find_images, read_image
from utils.settings import load
from utils.visualization.draw import draw_detections, write_image

STAGES = ("read", "resize", "network", "NMS", "draw", "write")
WRITTEN = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")  # others become .png


@dataclass(frozen=True)
class Photo:
    """A source, the key of its results, and where its annotated copy goes."""

    source: Path
    key: str
    annotated: Path


def main(argv: list[str] | None = None) -> None:
    p = load(DetectSettings, argv)
    watch = Stopwatch()
    detector = open_detector(watch, p.detection.batch_size, p)
    folder = output_folder(p.detection.output)
    photos = plan(p.detection.source, folder)
    failed: list[Path] = []
    pictures = Background(read(photos, detector, watch, failed), depth=2 * p.detection.batch_size)
    found = Background(detector.stream(pictures, p.detection.batch_size))
    annotated = {photo.key: photo.annotated for photo in photos}
    results = Results(folder, detector.names, p.detection)
    watch.restart()
    with found, pictures, results, tqdm(found, "detect", len(photos), dynamic_ncols=True) as items:
        for item in items:
            with watch.stage("draw"):
                drawn = draw_detections(item.picture.image, item.detections, detector.names)
            with watch.stage("write"):
                write_image(annotated[item.picture.key], drawn)
                results.add(item)
    print(f"{results.pictures} of {len(photos)} photos, {results.summary()}; written to {folder}")
    print(watch.report(results.pictures, STAGES))
    if failed:
        raise InputError(f"{len(failed)} of {len(photos)} photos could not be read, see above")


def plan(source: str, folder: Path) -> list[Photo]:
    """The photos of `source` and what each becomes in `folder`.

    Earlier results that lie in a folder below the source are left out. Raises InputError where
    there are no photos, or one would be overwritten.
    """
    paths = find_images(source)
    results = folder.resolve()
    if results not in Path(source).expanduser().resolve().parents:
        outside = [path for path in paths if results not in path.resolve().parents]
        if outside and len(outside) < len(paths):
            print(f"leaving out {len(paths) - len(outside)} photos in the output folder {folder}")
            paths = outside
    names = output_names(paths)
    photos = [
        Photo(path, key, folder / (name if name.suffix.lower() in WRITTEN else f"{key}.png"))
        for path, name, key in zip(paths, names, output_keys(names), strict=True)
    ]
    for photo in photos:
        if same_file(photo.annotated, photo.source):
            raise InputError(f"output='{folder}': would overwrite {photo.source}; choose another")
    return photos


def read(
    photos: list[Photo], detector: Detector, watch: Stopwatch, failed: list[Path]
) -> Iterator[Picture]:
    """Read photo after photo; one that cannot be read is told and added to `failed`."""
    for photo in photos:
        try:
            with watch.stage("read"):
                image = read_image(photo.source)
        except InputError as error:
            tqdm.write(f"left out: {error}", file=sys.stderr)
            failed.append(photo.source)
            continue
        yield detector.picture(image, photo.key, str(photo.source))


if __name__ == "__main__":
    sys.exit(run(main))
