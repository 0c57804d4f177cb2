"""Find objects in video files, cameras (their numbers) and streams (their addresses).

    python detect_video.py --weights weights/NAME/best.pt --source clip.mp4
    python detect_video.py --weights weights/NAME/best.pt --source 0
    python detect_video.py --source 0 rtsp://10.0.0.7/live --no_save_video --jsonl - | consumer

An annotated video of each source goes into the output folder; where there is a display, a window
shows them (`--no_show`: none), and q or Esc ends the work. Reading, the network, and drawing with
writing go on at the same time. Every frame of a file is done, however long it takes; a camera's or
stream's frames are dropped while the network is busy, and the written video still runs as time did.
Several sources take turns, frame by frame; one that ends does not end the others. A camera or
stream that is lost is tried again for `--reconnect` seconds.

`--jsonl` writes a line of JSON a frame, at once (utils/detection/lines.py says what is in it): to a
file, in which those of a camera or stream are added to earlier ones, or with `-` to standard
output, where nothing else is printed then. Whoever reads it may close it, which ends the work.

However the work ends (the last frame, a camera that vanishes, a damaged file, q, Ctrl-C), the
videos and the results until then are complete. Exit code 2: a source could not be opened, or held
no frame; 130: Ctrl-C.
"""

import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from import_param import DetectSettings
from utils.errors import InputError, run
from utils.settings.loader import given, load

if TYPE_CHECKING:
    from utils.detection.frames import Stream
    from utils.detection.lines import Lines


FIRST_FLAGS = (  # of --help; --help_all has the others
    *("weights", "cfg", "source", "output"),
    *("conf_thres", "classes", "show", "jsonl", "engine"),
)


def main(argv: list[str] | None = None) -> None:
    """Read the flags, open the sources and the network, and detect on frame after frame."""
    settings = load(DetectSettings, argv, about=__doc__, first=FIRST_FLAGS)
    # Imported after the flags are read, so that --help and a mistyped flag need no torch.
    from utils.detection.lines import open_lines
    from utils.detection.video import may_be_live
    from utils.files.paths import output_folder

    folder = output_folder(settings.detection.output)
    target = settings.detection.jsonl
    if settings.detection.save_json and not target:  # which is whole only at the end
        target = str(folder / "detections.jsonl")
    with open_lines(target, append=any(map(may_be_live, settings.detection.source))) as lines:
        detect(settings, folder, target, lines, given(argv))


def detect(
    settings: DetectSettings,
    folder: Path,
    target: str,
    lines: "Lines | None",
    asked: Collection[str],
) -> None:
    """Detect on the frames of all sources, until they or the user end it.

    Args:
        settings: what was asked for.
        folder: for the files.
        target: where lines of JSON go, for the report.
        lines: takes them; None where they are not wanted.
        asked: the names of settings that flags gave.
    """
    from utils.console.next_steps import after_detection
    from utils.console.progress import say
    from utils.detection.background import Background, StageTimer
    from utils.detection.detector import open_detector
    from utils.detection.display import open_display
    from utils.detection.frames import (
        CTRL_C,
        FrameOutput,
        open_streams,
        process_frames,
        report,
        start_reading,
    )
    from utils.detection.lines import line_writer
    from utils.detection.writer import Results

    timer = StageTimer()
    streams = open_streams(settings.detection, folder)
    # A camera's frames go through one by one: waiting for the next would make them old.
    live = any(stream.source.live for stream in streams)
    batch_size = 1 if live else settings.detection.batch_size
    detector = open_detector(timer, batch_size, settings, asked)
    display = open_display("detect_video", say) if settings.detection.show else None
    if settings.detection.show and display is None:
        say("no display to open a window on: frames are not shown")
    write_line = line_writer(lines, detector.names)
    results = Results(folder, detector.names, settings.detection, write_line)
    output = FrameOutput(detector.names, timer, streams, results, display)
    timer.restart()
    workers, frames = start_reading(streams, detector, timer)
    detected = Background(detector.stream(frames, batch_size))
    ending = process_frames(workers, detected, output)
    report(workers, output, target, ending)
    if ending == CTRL_C:
        raise KeyboardInterrupt
    after_detection(settings, detector.path)
    expect_all(settings.detection.source, streams)


def expect_all(sources: Sequence[str], streams: Sequence["Stream"]) -> None:
    """Refuse, once all is done, sources that could not be opened or held no frame."""
    if empty := [stream.source.name for stream in streams if not stream.source.read]:
        raise InputError(f"{', '.join(empty)}: no frame could be read")
    if missing := len(sources) - len(streams):
        raise InputError(f"{missing} of {len(sources)} sources could not be opened, see above")


if __name__ == "__main__":
    sys.exit(run(main))
