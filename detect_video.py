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

import contextlib
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from import_param import DetectSettings
from utils.detection.background import Background, Stopwatch
from utils.detection.detector import Detector, open_detector
from utils.detection.display import Window, open_window
from utils.detection.video import RealTime, Source, VideoFile
from utils.detection.writer import Found, Picture, Results, output_folder
from utils.errors import InputError, run
from utils.settings import load
from utils.visualization.draw import draw_caption, draw_detections

STAGES = ("read", "resize", "network", "NMS", "draw", "write", "show")
RECENT = 30  # frames over which the shown speed is taken


def main(argv: list[str] | None = None) -> None:
    p = load(DetectSettings, argv)
    watch = Stopwatch()
    folder = output_folder(p.detection.output)
    source = Source(p.detection.source)
    # A camera's frames go through one by one: waiting for the next would make them old.
    batch_size = 1 if source.live else p.detection.batch_size
    detector = open_detector(watch, batch_size, p)
    stem = output_stem(source, folder)
    sink = Sink(
        detector.names,
        watch,
        Results(folder, detector.names, p.detection),
        VideoFile(stem, source.rate, tqdm.write, protect=Path(p.detection.source)),
        RealTime(source.rate) if source.live else None,
        window_where_possible(p.detection.show),
    )
    watch.restart()
    frames = Background(read(source, stem.name, detector, watch), newest=source.live)
    ending = process(source, frames, Background(detector.stream(frames, batch_size)), sink)
    report(source, frames.dropped, sink, ending)
    if ending == CTRL_C:
        raise KeyboardInterrupt
    if not sink.results.pictures and not source.read:
        raise InputError(f"{source.name}: no frame could be read")


CTRL_C = "stopped by Ctrl-C"


@dataclass
class Sink:
    """Where frames go once they are done."""

    names: Sequence[str]
    watch: Stopwatch
    results: Results
    video: VideoFile
    pace: RealTime | None
    window: Window | None
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))

    def add(self, found: Found) -> bool:
        """Draw, write and show a frame; False once the user wants no more."""
        with self.watch.stage("draw"):
            drawn = draw_detections(found.picture.image, found.detections, self.names)
            drawn = draw_caption(drawn, f"{self.speed():.1f} FPS")
        with self.watch.stage("write"):
            copies = 1 if self.pace is None else self.pace.copies(found.picture.seconds)
            self.video.write(drawn, copies)
            self.results.add(found)
        if self.window is None:
            return True
        with self.watch.stage("show"):
            return self.window.show(drawn)

    def speed(self) -> float:
        """Frames per second, over the last few."""
        self.recent.append(self.watch.elapsed)
        since = self.recent[0] if len(self.recent) > 1 else 0.0
        return max(1, len(self.recent) - 1) / max(1e-6, self.recent[-1] - since)


def process(
    source: Source, frames: Background[Picture], found: Background[Found], sink: Sink
) -> str:
    """Work until the source or the user ends it; returns a word on that where it needs one.

    However it ends, the files are complete afterwards, and the threads have stopped.
    """
    ending = CTRL_C
    with (
        contextlib.suppress(KeyboardInterrupt),
        found,
        frames,  # closed before `found`, which may be waiting for it
        sink.results,
        sink.video,
        sink.window or contextlib.nullcontext(),
        tqdm(found, "detect", source.frames or None, unit="frame", dynamic_ncols=True) as items,
    ):
        wanted = all(sink.add(item) for item in items)
        ending = source.ending() if wanted else "stopped by a key or by closing the window"
    return ending


def report(source: Source, dropped: int, sink: Sink, ending: str) -> None:
    """Say what was done, how it ended and where the time went."""
    done, seconds = sink.results.pictures, sink.watch.elapsed
    if ending:
        print(ending)
    lost = f" ({dropped} dropped while the network was busy)" if source.live else ""
    print(
        f"{done} frames{lost} in {seconds:.1f} s, {done / seconds:.1f} FPS, "
        f"{sink.results.summary()}; written to {sink.video.path}"
    )
    print(sink.watch.report(done, STAGES))


def read(source: Source, stem: str, detector: Detector, watch: Stopwatch) -> Iterator[Picture]:
    """Frame after frame of a source, which is closed in the end."""
    with contextlib.closing(source):
        images = iter(source)
        while True:
            with watch.stage("read"):
                image = next(images, None)
            if image is None:
                return
            number = source.read - 1
            yield detector.picture(image, f"{stem}_{number:06d}", source.name, number)


def output_stem(source: Source, folder: Path) -> Path:
    """What the written video is called, without a suffix; a camera's never replaces another."""
    return folder / (
        f"{source.stem}-{time.strftime('%Y%m%d-%H%M%S')}" if source.live else source.stem
    )


def window_where_possible(wanted: bool) -> Window | None:
    window = open_window("detect_video", tqdm.write) if wanted else None
    if wanted and window is None:
        print("no display to open a window on: the video is only written")
    return window


if __name__ == "__main__":
    sys.exit(run(main))
