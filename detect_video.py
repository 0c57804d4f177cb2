"""Find objects in a video file, a camera (its number) or a stream (its address).

    python detect_video.py --weights weights/demo/best.pt --source clip.mp4
    python detect_video.py --weights weights/demo/best.pt --source 0

The annotated video goes into the output folder; where there is a display, a window shows it
(`--no-show`: none), and q or Esc ends the work. Reading, the network, and drawing with writing go
on at the same time. Every frame of a file is done, however long it takes; a camera's or stream's
frames are dropped while the network is busy, and the written video still runs as time did.

However the work ends (the last frame, a camera that vanishes, a damaged file, q, Ctrl-C), the
video and the results until then are complete. Exit code 2: the source could not be opened, or held
no frame; 130: Ctrl-C.
"""

import sys
from pathlib import Path

from import_param import DetectSettings
from utils.errors import InputError, run
from utils.settings import load


def main(argv: list[str] | None = None) -> None:
    """Read the flags, open the source and the network, and detect on frame after frame."""
    settings = load(DetectSettings, argv)
    # Imported after the flags are read, so that --help and a mistyped flag need no torch.
    from utils.detection.background import Background, StageTimer
    from utils.detection.detector import open_detector
    from utils.detection.display import open_display
    from utils.detection.frames import (
        CTRL_C,
        FrameOutput,
        output_stem,
        process_frames,
        read_frames,
        report,
    )
    from utils.detection.video import RealTime, Source, VideoFile
    from utils.detection.writer import Results
    from utils.files import output_folder
    from utils.progress import say

    timer = StageTimer()
    folder = output_folder(settings.detection.output)
    source = Source(settings.detection.source)
    # A camera's frames go through one by one: waiting for the next would make them old.
    batch_size = 1 if source.live else settings.detection.batch_size
    detector = open_detector(timer, batch_size, settings)
    stem = output_stem(source, folder)
    display = open_display("detect_video", say) if settings.detection.show else None
    if settings.detection.show and display is None:
        say("no display to open a window on: the video is only written")
    output = FrameOutput(
        detector.names,
        timer,
        Results(folder, detector.names, settings.detection),
        VideoFile(stem, source.rate, say, protect=Path(settings.detection.source)),
        RealTime(source.rate) if source.live else None,
        display,
    )
    timer.restart()
    frames = Background(read_frames(source, stem.name, detector, timer), newest=source.live)
    detected = Background(detector.stream(frames, batch_size))
    ending = process_frames(source, frames, detected, output)
    report(source, frames.dropped, output, ending)
    if ending == CTRL_C:
        raise KeyboardInterrupt
    if not output.results.pictures and not source.read:
        raise InputError(f"{source.name}: no frame could be read")


if __name__ == "__main__":
    sys.exit(run(main))
