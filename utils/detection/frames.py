"""What happens to the frames of videos: read, then drawn, written and shown, however it ends."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from import_param import Detection
from utils.console.progress import say, say_error, track
from utils.detection.background import Background, StageTimer, in_turn
from utils.detection.detector import Detector
from utils.detection.display import Display
from utils.detection.lines import ReaderGone
from utils.detection.video import RealTime, Source, VideoFile
from utils.detection.writer import DetectedPicture, Picture, Results
from utils.errors import InputError
from utils.structures import Image
from utils.visualization.draw import draw_counts, draw_detections, grid, within

STAGES = ("read", "resize", "network", "NMS", "draw", "write", "show")
RECENT_FRAMES = 30  # over which the shown speed is taken
CELL = 640  # pixels, the longer side of a source among several in the window
CTRL_C = "stopped by Ctrl-C"
NO_READER = "stopped: nobody reads the lines any more"


@dataclass
class Stream:
    """A source of frames, and what becomes of them beside the results of all.

    Attributes:
        source: where they come from.
        stem: the path of the written video, without a suffix.
        video: the written video; None for none.
        pace: how often a live source's frame is written.
        done: frames that went through.
        recent: when the last of them were, on the timer's clock.
    """

    source: Source
    stem: Path
    video: VideoFile | None
    pace: RealTime | None
    done: int = 0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_FRAMES))

    def write(self, drawn: Image, seconds: float) -> None:
        """Add a frame that was taken at `seconds` to the video."""
        if self.video is not None:
            self.video.write(drawn, 1 if self.pace is None else self.pace.copies(seconds))

    def speed(self, elapsed: float) -> float:
        """Frames per second, over the last few."""
        self.recent.append(elapsed)
        since = self.recent[0] if len(self.recent) > 1 else 0.0
        return max(1, len(self.recent) - 1) / max(1e-6, self.recent[-1] - since)


def open_streams(settings: Detection, folder: Path) -> list[Stream]:
    """Open the sources; of several, one that cannot be opened costs a line.

    Raises:
        InputError: none can be opened.
    """
    streams: list[Stream] = []
    stems: set[str] = set()
    for address in settings.source:
        try:
            source = Source(address, settings.reconnect, say)
        except InputError as error:
            if len(settings.source) == 1:
                raise
            say_error(f"left out: {error}")
            continue
        stem = _new_stem(source, stems)
        protect = [Path(each) for each in settings.source]
        video = VideoFile(folder / stem, source.rate, say, protect) if settings.save_video else None
        pace = RealTime(source.rate) if source.live else None
        streams.append(Stream(source, folder / stem, video, pace))
    if not streams:
        raise InputError(f"none of {len(settings.source)} sources can be opened, see above")
    return streams


def _new_stem(source: Source, taken: set[str]) -> str:
    """What a source's files are called; a camera's never replace others, nor those of another."""
    first = source.stem + (time.strftime("-%Y%m%d-%H%M%S") if source.live else "")
    stem, number = first, 1
    while stem.casefold() in taken:
        number += 1
        stem = f"{first}-{number}"
    taken.add(stem.casefold())
    return stem


def start_reading(
    streams: Sequence[Stream], detector: Detector, timer: StageTimer
) -> tuple[list[Background[Picture]], Iterator[Picture]]:
    """A worker for each source, and the frames of all, one of each in turn."""
    changed = threading.Condition()
    workers = [
        Background(
            _read_frames(number, stream, detector, timer),
            newest=stream.source.live,
            changed=changed,
        )
        for number, stream in enumerate(streams)
    ]
    if len(workers) == 1:
        return workers, workers[0]  # whose error is that of the script
    return workers, in_turn(workers, changed, lambda error: say_error(f"left: {error}"))


def _read_frames(
    number: int, stream: Stream, detector: Detector, timer: StageTimer
) -> Iterator[Picture]:
    """Frame after frame of a source, which is closed in the end."""
    source = stream.source
    with contextlib.closing(source):
        images = iter(source)
        while True:
            try:
                with timer.stage("read"):
                    image = next(images, None)
            except cv2.error as error:
                raise InputError(f"{source.name}: frame {source.read}: {error.err}") from error
            if image is None:
                return
            frame = source.read - 1
            yield detector.picture(
                image,
                f"{stream.stem.name}_{frame:06d}",
                source.name,
                frame,
                None if source.live else frame / source.rate,
                number,
            )


@dataclass
class FrameOutput:
    """Where frames go once they are done."""

    names: Sequence[str]
    timer: StageTimer
    streams: Sequence[Stream]
    results: Results
    display: Display | None
    newest: dict[int, Image] = field(default_factory=dict)  # by the number of the source

    def add(self, item: DetectedPicture) -> bool:
        """Draw, write and show a frame; False once the user wants no more."""
        picture, stream = item.picture, self.streams[item.picture.source]
        stream.done += 1
        if stream.video is not None or self.display is not None:
            with self.timer.stage("draw"):
                drawn = draw_detections(picture.image, item.detections, self.names)
                speed = f"{stream.speed(self.timer.elapsed):.1f} FPS"
                drawn = draw_counts(drawn, speed, item.detections.labels.tolist(), self.names)
        with self.timer.stage("write"):
            if stream.video is not None:
                stream.write(drawn, picture.seconds)
            self.results.add(item)
        if self.display is None:
            return True
        with self.timer.stage("show"):
            return self.display.show(self._window(picture.source, drawn))

    def _window(self, number: int, drawn: Image) -> Image:
        """What the window shows: the frame, or the newest of each source."""
        if len(self.streams) == 1:
            return drawn
        self.newest[number] = within(drawn, CELL)
        shown = [self.newest[key] for key in sorted(self.newest)]
        return grid(shown, math.ceil(math.sqrt(len(shown))))


def process_frames(
    workers: Sequence[Background[Picture]],
    detected: Background[DetectedPicture],
    output: FrameOutput,
) -> str:
    """Work until the sources or the user end it.

    However it ends, the files are complete afterwards, and the worker threads have stopped.

    Returns:
        How it ended, where that needs to be said; else an empty text.
    """
    ending = CTRL_C
    promised = [stream.source.frames for stream in output.streams]
    total = sum(promised) if all(promised) else None
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        stack.enter_context(detected)
        for worker in workers:  # closed before `detected`, which may be waiting for one
            stack.enter_context(worker)
        for stream in output.streams:  # a worker may be waiting for its camera to come back
            stack.callback(stream.source.stop)
        stack.enter_context(output.results)
        for stream in output.streams:
            stack.enter_context(stream.video or contextlib.nullcontext())
        stack.enter_context(output.display or contextlib.nullcontext())
        progress = track(detected, "detecting", total, unit="frames")
        items = stack.enter_context(contextlib.closing(progress))
        try:
            goes_on = all(output.add(item) for item in items)
        except ReaderGone:
            ending = NO_READER
        else:
            ending = "" if goes_on else "stopped by a key or by closing the window"
    if ending:
        return ending
    endings = [stream.source.ending() for stream in output.streams]
    return "\n".join(filter(None, endings))


def report(
    workers: Sequence[Background[Picture]], output: FrameOutput, lines: str, ending: str
) -> None:
    """Say what was done, how it ended and where the time went."""
    if ending:
        say(ending)
    several = len(output.streams) > 1
    for stream, worker in zip(output.streams, workers, strict=True):
        if several:
            say(f"{stream.source.name}: {stream.done} frames{_dropped(stream, worker)}")
    done, seconds = output.results.pictures, output.timer.elapsed
    lost = "" if several else _dropped(output.streams[0], workers[0])
    videos = [stream.video.path for stream in output.streams if stream.video is not None]
    files = ", ".join(str(path) for path in (*videos, lines) if path and path != "-")
    say(
        f"{done} frames{lost} in {seconds:.1f} s, {done / seconds:.1f} FPS, "
        f"{output.results.summary()}" + (f"; written to {files}" if files else "")
    )
    say(output.timer.report(done, STAGES))


def _dropped(stream: Stream, worker: Background[Picture]) -> str:
    if not stream.source.live:
        return ""
    return f" ({worker.dropped} dropped while the network was busy)"
