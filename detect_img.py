"""Find objects on photos: files, folders with their subfolders, or globs.

    python detect_img.py --weights weights/NAME/best.pt --source photos
    python detect_img.py --weights yolov3.weights --cfg config/yolov3.cfg --names data/coco.names
    python detect_img.py --source a.jpg b.jpg --no_save_images --jsonl - | consumer

Annotated photos go into the output folder under their own names; of photos from several folders,
the folders below the one that all share are kept, so that equal names do not meet. No source is
ever overwritten. What `--save_txt`, `--save_json` and `--save_crops` add, utils/detection/writer.py
tells. `--jsonl` writes a line of JSON a photo (utils/detection/lines.py), with `-` to standard
output, where nothing else is printed then.

A photo that cannot be read costs one line on the terminal; the others are done, and the exit code
is 2 at the end.
"""

import contextlib
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from import_param import DetectSettings
from utils.errors import InputError, run
from utils.settings.loader import given, load

if TYPE_CHECKING:
    from utils.detection.lines import Lines

STAGES = ("read", "resize", "network", "NMS", "draw", "write")


FIRST_FLAGS = (  # of --help; --help_all has the others
    *("weights", "cfg", "source", "output"),
    *("conf_thres", "classes", "save_txt", "save_json", "engine"),
)


def main(argv: list[str] | None = None) -> None:
    """Read the flags, open the network, and detect on photo after photo."""
    settings = load(DetectSettings, argv, about=__doc__, first=FIRST_FLAGS)
    # Imported after the flags are read, so that --help and a mistyped flag need no torch.
    from utils.detection.lines import open_lines

    with open_lines(settings.detection.jsonl) as lines:
        detect(settings, lines, given(argv))


def detect(settings: DetectSettings, lines: "Lines | None", asked: Collection[str]) -> None:
    """Detect on all photos.

    Args:
        settings: what is wanted.
        lines: takes a line of JSON a photo; None where none is wanted.
        asked: the names of settings that flags gave.
    """
    from utils.console.next_steps import after_detection
    from utils.console.progress import say, track
    from utils.detection.background import Background, StageTimer
    from utils.detection.detector import open_detector
    from utils.detection.lines import ReaderGone, line_writer
    from utils.detection.photos import plan_photos, read_photos
    from utils.detection.writer import Results
    from utils.files.paths import output_folder, within
    from utils.visualization.draw import draw_detections, write_image

    batch_size = settings.detection.batch_size
    timer = StageTimer()
    folder = output_folder(settings.detection.output)
    photos = plan_photos(settings.detection.source, folder)
    detector = open_detector(timer, batch_size, settings, asked)
    unreadable: list[Path] = []
    pictures = Background(
        read_photos(photos, detector, timer, unreadable, settings.detection.max_megapixels),
        depth=2 * batch_size,
    )
    detected = Background(detector.stream(pictures, batch_size))
    annotated = {photo.key: photo.annotated for photo in photos}
    write_line = line_writer(lines, detector.names)
    results = Results(folder, detector.names, settings.detection, write_line)
    timer.restart()
    progress = contextlib.closing(track(detected, "detecting", len(photos)))
    with contextlib.suppress(ReaderGone), detected, pictures, results, progress as items:
        for item in items:
            if settings.detection.save_images:
                with timer.stage("draw"):
                    drawn = draw_detections(item.picture.image, item.detections, detector.names)
                with timer.stage("write"):
                    path = annotated[item.picture.key]
                    write_image(within(folder, path.relative_to(folder).as_posix()), drawn)
            with timer.stage("write"):
                results.add(item)
    files = settings.detection
    writes = files.save_images or files.save_txt or files.save_json or files.save_crops
    written = f"; written to {folder}" if writes else ""
    say(f"{results.pictures} of {len(photos)} photos, {results.summary()}{written}")
    say(timer.report(results.pictures, STAGES))
    after_detection(settings, detector.path)
    if unreadable:
        raise InputError(f"{len(unreadable)} of {len(photos)} photos could not be read, see above")


if __name__ == "__main__":
    sys.exit(run(main))
