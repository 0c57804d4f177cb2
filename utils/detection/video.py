"""Where do frames come from, and where do they go: files, cameras and streams in, a file out.

OpenCV fails quietly here: a frame of another size is not written, and a codec that is missing or
a full disk leaves a file that does not play. This module makes each of these an error or a line
of text.
"""

import math
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import cv2
import numpy as np

from utils.console.progress import say
from utils.errors import InputError
from utils.files.paths import exists, expand, same_file
from utils.files.writing import atomic, expect_room, scratch_folder
from utils.structures import Image

# Read once by OpenCV, at its first use of FFmpeg: what goes wrong is told by our own one line.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")

CODECS = ((".mp4", "mp4v"), (".avi", "XVID"), (".avi", "MJPG"), (".webm", "VP80"))
USUAL_RATE = 25.0  # frames per second, where a source does not say or cannot be believed
RATES = (1.0, 240.0)  # frames per second that are believed
STREAM_TIMEOUT = 10_000  # milliseconds to wait for a stream to open, or for its next frame
FIRST_RETRY = 0.5  # seconds before a lost source is tried again; each time twice as long,
LAST_RETRY = 8.0  # up to this
STALL = 30  # seconds; a longer gap between a camera's frames is not filled in the written video


class Source:
    """The frames of a video file, a camera (its number or device file) or a stream (its address).

    Iterate over it for the frames, uint8 [H, W, 3], RGB.

    Args:
        address: the file, number or address.
        reconnect: seconds to try to reach a camera or stream again that gives no more frames.
        say: prints a line when it is lost, and when it is back.

    Attributes:
        live: frames come in their own time and are lost if not taken.
        rate: frames per second.
        frames: how many the file's header promises, 0 where it does not say.
        read: how many have been read.
        name: for text, without the password of an address.
        stem: for file names.

    Raises:
        InputError: it cannot be opened.
    """

    def __init__(
        self, address: str, reconnect: float = 0.0, say: Callable[[str], None] = print
    ) -> None:
        self.read = 0
        self.name, self.stem = _names(address)
        self._address, self._path = address, expand(address)
        self._reconnect, self._say = reconnect, say
        self._stopped = threading.Event()
        self._capture = self._open()
        if not self._capture.isOpened():
            raise InputError(_why_not(address, self.name, self._path))
        self.frames = _count(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        camera = _camera_number(address) is not None or _mode(self._path, stat.S_ISCHR)
        self.live = camera or ("://" in address and not self.frames)
        self.rate = believable_rate(self._capture.get(cv2.CAP_PROP_FPS))

    def __iter__(self) -> Iterator[Image]:
        while (frame := self._next_frame()) is not None:
            self.read += 1
            yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), dtype=np.uint8)

    def stop(self) -> None:
        """Give up reaching the camera or stream again; may be called from any thread."""
        self._stopped.set()

    def close(self) -> None:
        """Let go of the camera, file or connection."""
        self._capture.release()

    def _open(self) -> cv2.VideoCapture:
        with quiet():
            return _open(self._address, self._path)

    def _next_frame(self) -> cv2.typing.MatLike | None:
        good, frame = self._capture.read()
        if good and frame is not None:
            return frame
        return self._frame_after_reconnecting() if self.live and self._reconnect else None

    def _frame_after_reconnecting(self) -> cv2.typing.MatLike | None:
        """The next frame of a camera or stream that was lost, or None where it stays so."""
        start, pause = time.monotonic(), FIRST_RETRY
        self._say(
            f"{self.name}: lost after {self.read} frames; trying for {self._reconnect:g} s to "
            "reach it again"
        )
        while (left := start + self._reconnect - time.monotonic()) > 0:
            self._capture.release()
            if self._stopped.wait(min(pause, left)):
                return None
            self._capture = self._open()
            good, frame = self._capture.read() if self._capture.isOpened() else (False, None)
            if good and frame is not None:
                self._say(f"{self.name}: back after {time.monotonic() - start:.1f} s")
                return frame
            pause = min(2 * pause, LAST_RETRY)
        return None

    def ending(self) -> str:
        """Why no more frames came, where that needs a word."""
        if self.live:
            return f"{self.name}: no more frames after {self.read}; it was closed or lost"
        if self.read < self.frames:
            return (
                f"{self.name}: ended after {self.read} of the {self.frames} frames that it "
                "promises; it may be damaged or cut off"
            )
        return ""


class VideoFile:
    """A video that is written frame by frame, and appears under its name once it is complete.

    Leaving the `with`, for whatever reason, completes the file with the frames until then.

    Args:
        stem: the path without a suffix; the suffix follows from the codec (`path`, after the first
            frame).
        rate: frames per second.
        say: prints a line, where another codec than usual is used.
        protect: files that must not be overwritten: the sources.
    """

    def __init__(
        self, stem: Path, rate: float, say: Callable[[str], None], protect: Sequence[Path] = ()
    ) -> None:
        self.frames = 0
        self.path: Path | None = None
        self._stem, self._rate, self._say, self._protect = stem, rate, say, protect
        self._stack = ExitStack()
        self._size = (0, 0)
        self._writer: cv2.VideoWriter | None = None
        self._temporary = Path()
        self._next_check = 0  # frames
        self._bytes = -1  # at the last check

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writer is None:
            return
        with quiet():
            self._writer.release()
        self._writer = None
        written = self._temporary
        if self.frames and _playable(written) and _frames_in(written) >= self.frames:
            self._stack.close()  # without the error, so that what is done stays
            return
        problem = InputError(f"{self.path}: could not be written whole; is the disk full?")
        self._stack.__exit__(InputError, problem, None)
        if not isinstance(error, InputError):  # which says more
            raise problem from error

    def write(self, image: Image, copies: int = 1) -> None:
        """Add a frame, uint8 [H, W, 3] RGB, or several that look the same.

        The first frame gives the video's size; others are stretched to it.
        """
        if self._writer is None:
            self._open((image.shape[1], image.shape[0]))
        assert self._writer is not None
        frame = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if (image.shape[1], image.shape[0]) != self._size:
            frame = cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)
        with quiet():
            for _ in range(copies):
                self._writer.write(frame)
        self.frames += copies
        if self.frames >= self._next_check:
            self._next_check = self.frames + math.ceil(self._rate)
            self._expect_to_grow()

    def _expect_to_grow(self) -> None:
        """See to it that a full disk ends the work now and not in hours, of which nothing stays.

        Raises:
            InputError: nothing can be written beside a file that does not grow.
        """
        assert self.path is not None
        size = self._temporary.stat().st_size if self._temporary.exists() else -1
        if size == self._bytes:
            expect_room(self.path)
        self._bytes = size

    def _open(self, size: tuple[int, int]) -> None:
        suffix, codec = choose_codec(size)
        if (suffix, codec) != CODECS[0]:
            self._say(f"OpenCV has no {CODECS[0][1]} codec here: writing {codec} in {suffix}")
        self.path = self._stem.with_name(self._stem.name + suffix)
        if any(same_file(self.path, path) for path in self._protect):
            raise InputError(f"{self.path}: is the source; choose another output folder")
        self._temporary = self._stack.enter_context(atomic(self.path))
        fourcc = cv2.VideoWriter.fourcc(*codec)
        with quiet():
            self._writer = cv2.VideoWriter(str(self._temporary), fourcc, self._rate, size)
        self._size = size


class RealTime:
    """How often a live source's frame must be written, for a video that runs as time did.

    A camera's frames come irregularly, or are dropped while the network works; a video's have a
    fixed rate. So each is written as often as frames are due by the time it was taken.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._start: float | None = None
        self._last = 0.0
        self._written = 0

    def copies(self, seconds: float) -> int:
        """For a frame taken at `seconds`, on any clock that only goes forward."""
        if self._start is None:
            self._start = seconds
        elif seconds - self._last > STALL:
            self._start += seconds - self._last - 1 / self._rate
        self._last = seconds
        due = int((seconds - self._start) * self._rate + 1e-6) + 1
        copies = max(0, due - self._written)
        self._written += copies
        return copies


def may_be_live(address: str) -> bool:
    """Whether a source is a camera or has an address, told without opening it."""
    camera = _camera_number(address) is not None or _mode(expand(address), stat.S_ISCHR)
    return camera or "://" in address


def believable_rate(rate: float) -> float:
    """Frames per second as a header says, or a usual value where that is 0, NaN or 1000."""
    return rate if RATES[0] <= rate <= RATES[1] else USUAL_RATE


def choose_codec(size: tuple[int, int]) -> tuple[str, str]:
    """The first (suffix, codec) of the table that OpenCV can write here.

    Raises:
        InputError: it can write none.
    """
    for suffix, codec in CODECS:
        with scratch_folder() as folder, quiet():
            path = folder / f"probe{suffix}"
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25.0, size)
            opened = writer.isOpened()
            writer.release()
        if opened:
            return suffix, codec
    tried = ", ".join(f"{codec} in {suffix}" for suffix, codec in CODECS)
    raise InputError(f"cannot write a video of {size[0]}x{size[1]} pixels; tried {tried}")


@contextmanager
def quiet() -> Iterator[None]:
    """Without OpenCV's own lines on the terminal, as long as any thread is in here."""
    with _QUIET.lock:
        if not _QUIET.inside:
            _QUIET.level = cv2.utils.logging.getLogLevel()
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        _QUIET.inside += 1
    try:
        yield
    finally:
        with _QUIET.lock:
            _QUIET.inside -= 1
            if not _QUIET.inside:
                cv2.utils.logging.setLogLevel(_QUIET.level)


@dataclass
class _Quiet:
    """OpenCV has one level for all threads."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    inside: int = 0
    level: int = 0


_QUIET = _Quiet()


def _open(address: str, path: Path) -> cv2.VideoCapture:
    camera = _camera_number(address)
    if camera is not None:
        return _interruptible(lambda: cv2.VideoCapture(camera))
    if "://" in address:
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, STREAM_TIMEOUT]
        limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, STREAM_TIMEOUT]
        return _interruptible(lambda: cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits))
    if not exists(path) or _mode(path, stat.S_ISDIR) or _mode(path, stat.S_ISSOCK):
        return cv2.VideoCapture()
    if _mode(path, stat.S_ISFIFO):
        say(f"{address}: a named pipe; waiting for what is written to it (Ctrl-C ends it)")
    return _interruptible(lambda: cv2.VideoCapture(str(path)))


def _interruptible(work: Callable[[], cv2.VideoCapture]) -> cv2.VideoCapture:
    """Do work that may wait for ever inside a library, so that Ctrl-C ends the wait.

    The main thread alone takes signals, and only between two steps of Python.
    """
    done: Future[cv2.VideoCapture] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done.result()


def _mode(path: Path, of_kind: Callable[[int], bool]) -> bool:
    """Whether there is a file of a kind, such as `stat.S_ISFIFO`."""
    try:
        return of_kind(path.stat().st_mode)
    except (OSError, ValueError):  # there is none, or its name is none
        return False


def _camera_number(address: str) -> int | None:
    known = re.fullmatch("[0-9]{1,9}", address) and not exists(address)  # OpenCV's have 32 bits
    return int(address) if known else None


def _names(address: str) -> tuple[str, str]:
    """A source's name in text, and in file names."""
    camera = _camera_number(address)
    if camera is not None:
        return f"camera {camera}", f"camera{camera}"
    if "://" not in address:
        return address, Path(address).stem
    try:
        parts = urlsplit(address)
    except ValueError as error:
        name = address.rpartition("@")[2]  # without user and password
        raise InputError(f"{name}: not the address of a stream ({error})") from error
    host = parts.netloc.rpartition("@")[2]  # without user and password
    stem = re.sub(r"[^\w.-]+", "_", host + parts.path).strip("_.") or "stream"
    return f"{parts.scheme}://{host}{parts.path}", stem


def _why_not(address: str, name: str, path: Path) -> str:
    if _camera_number(address) is not None:
        return f"{name}: no such camera, or it is in use"
    if "://" in address:
        return f"{name}: cannot be opened as a stream"
    if not exists(path):
        return f"{name}: no such file, camera number or stream address"
    if _mode(path, stat.S_ISDIR):
        return f"{name}: is a folder: expected a video (detect_img.py takes folders of photos)"
    return f"{name}: not a video that OpenCV can read, or it is cut off"


def _count(value: float) -> int:
    """A header's number of frames; what cannot be one is 0."""
    return int(value) if 0 < value < 2**40 else 0


def _frames_in(path: Path) -> int:
    """How many frames a written video has, as its header says and as they are there.

    They are not decoded: reading takes as long as the disk does.
    """
    with quiet():
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        promised = _count(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.set(cv2.CAP_PROP_FORMAT, -1)  # frames as they are in the file
        found = sum(iter(capture.grab, False))
        capture.release()
    return min(promised, found)


def _playable(path: Path) -> bool:
    """Whether the parts that a written video is made of end where the file does.

    On a full disk OpenCV leaves out what finds no room, such as the index at the end, and still
    writes what belongs to the beginning.
    """
    part_length = PART_LENGTHS[path.suffix]
    if not path.exists():  # OpenCV removes what it cannot begin
        return False
    size, position = path.stat().st_size, 0
    with path.open("rb") as file:
        while position < size:
            file.seek(position)
            length = part_length(file.read(16).ljust(16, b"\0"))
            if length < 5:
                return False
            position += length
    return position == size


def _avi_length(head: bytes) -> int:
    return 8 + int.from_bytes(head[4:8], "little")


def _mp4_length(head: bytes) -> int:
    length = int.from_bytes(head[:4], "big")
    return int.from_bytes(head[8:16], "big") if length == 1 else length


def _webm_length(head: bytes) -> int:
    """Of one of its two parts, whose names have four bytes, behind which their lengths are."""
    digits = 9 - head[4].bit_length()  # the number of zeros that a length begins with tells it
    length = int.from_bytes(head[4 : 4 + digits], "big") & ((1 << 7 * digits) - 1)
    return 4 + digits + length


# From the first bytes of a part to the bytes that it has.
PART_LENGTHS = {".avi": _avi_length, ".mp4": _mp4_length, ".webm": _webm_length}
