"""What happens to the frames of a video: read, then drawn, written and shown, however it ends."""

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.detection.background import Background, StageTimer
from utils.detection.detector import Detector
from utils.detection.display import Display
from utils.detection.video import RealTime, Source, VideoFile
from utils.detection.writer import DetectedPicture, Picture, Results
from utils.progress import say, track
from utils.visualization.draw import draw_caption, draw_detections

STAGES = ("read", "resize", "network", "NMS", "draw", "write", "show")
RECENT_FRAMES = 30  # over which the shown speed is taken
CTRL_C = "stopped by Ctrl-C"


@dataclass
class FrameOutput:
    """Where frames go once they are done."""

    names: Sequence[str]
    timer: StageTimer
    results: Results
    video: VideoFile
    pace: RealTime | None
    display: Display | None
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_FRAMES))

    def add(self, item: DetectedPicture) -> bool:
        """Draw, write and show a frame; False once the user wants no more."""
        with self.timer.stage("draw"):
            drawn = draw_detections(item.picture.image, item.detections, self.names)
            drawn = draw_caption(drawn, f"{self.speed():.1f} FPS")
        with self.timer.stage("write"):
            copies = 1 if self.pace is None else self.pace.copies(item.picture.seconds)
            self.video.write(drawn, copies)
            self.results.add(item)
        if self.display is None:
            return True
        with self.timer.stage("show"):
            return self.display.show(drawn)

    def speed(self) -> float:
        """Frames per second, over the last few."""
        self.recent.append(self.timer.elapsed)
        since = self.recent[0] if len(self.recent) > 1 else 0.0
        return max(1, len(self.recent) - 1) / max(1e-6, self.recent[-1] - since)


def process_frames(
    source: Source,
    frames: Background[Picture],
    detected: Background[DetectedPicture],
    output: FrameOutput,
) -> str:
    """Work until the source or the user ends it.

    However it ends, the files are complete afterwards, and the worker threads have stopped.

    Returns:
        How it ended, where that needs to be said; else an empty text.
    """
    ending = CTRL_C
    with (
        contextlib.suppress(KeyboardInterrupt),
        detected,
        frames,  # closed before `detected`, which may be waiting for it
        output.results,
        output.video,
        output.display or contextlib.nullcontext(),
        contextlib.closing(
            track(detected, "detecting", source.frames or None, unit="frames")
        ) as items,
    ):
        goes_on = all(output.add(item) for item in items)
        ending = source.ending() if goes_on else "stopped by a key or by closing the window"
    return ending


def report(source: Source, dropped: int, output: FrameOutput, ending: str) -> None:
    """Say what was done, how it ended and where the time went."""
    done, seconds = output.results.pictures, output.timer.elapsed
    if ending:
        say(ending)
    lost = f" ({dropped} dropped while the network was busy)" if source.live else ""
    say(
        f"{done} frames{lost} in {seconds:.1f} s, {done / seconds:.1f} FPS, "
        f"{output.results.summary()}; written to {output.video.path}"
    )
    say(output.timer.report(done, STAGES))


def read_frames(
    source: Source, stem: str, detector: Detector, timer: StageTimer
) -> Iterator[Picture]:
    """Frame after frame of a source, which is closed in the end."""
    with contextlib.closing(source):
        images = iter(source)
        while True:
            with timer.stage("read"):
                image = next(images, None)
            if image is None:
                return
            number = source.read - 1
            yield detector.picture(image, f"{stem}_{number:06d}", source.name, number)


def output_stem(source: Source, folder: Path) -> Path:
    """The path of the written video, without a suffix; a camera's never replaces another."""
    return folder / (
        f"{source.stem}-{time.strftime('%Y%m%d-%H%M%S')}" if source.live else source.stem
    )
