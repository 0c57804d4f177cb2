"""How are frames shown on a display without the work depending on it?

OpenCV's window library ends the process that opens a window where there is no display, where it
may not be used, or when it goes away, without leaving Python a chance to complete the video. Where
the display hangs, so does the process. So the window lives in a process of its own, this file run
as a script, which gets the frames through a pipe and shows the newest. Measured with Xvfb and
frames of 1280x720: a frame costs 5 ms, against 11 to 15 with a window in the same process; killing
or stopping the X server costs nothing but the picture.
"""

import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from numpy.typing import NDArray

HEADER = struct.Struct("<II")  # height, width; then height · width · 3 bytes, RGB
LARGEST_SIZE = 1280, 720  # pixels; larger frames are shown smaller
OPEN_TIMEOUT = 20  # seconds that a display may take to answer
READY = b"r"  # the process writes it once its window is open
CLOSED_BY_USER = 3  # its exit code then
CLOSING_KEYS = (ord("q"), 27)  # q, Esc


class Display:
    """A window on the screen that shows frames until q or Esc is pressed in it, or it is closed.

    Make one with `open_display`.

    Args:
        process: the window's.
        say: prints one line if the window is lost.
    """

    def __init__(self, process: subprocess.Popen[bytes], say: Callable[[str], None]) -> None:
        self._process, self._say = process, say
        self._lost = False

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def show(self, image: NDArray[np.uint8]) -> bool:
        """Show a frame, uint8 [H, W, 3] RGB; False once the user wants no more."""
        if self._lost:
            return True
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(HEADER.pack(*image.shape[:2]) + image.tobytes())
            self._process.stdin.flush()
        except OSError:  # the other side of the pipe is closed
            return self._ended()
        return True

    def close(self) -> None:
        """Close the window, and end its process."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            try:
                self._process.stdin.close()  # its end ends the window's process
            except OSError:
                self._lost = True  # a frame was still on its way to a window that is gone
        _end(self._process)

    def _ended(self) -> bool:
        code = _end(self._process)
        if code == CLOSED_BY_USER:
            return False
        self._lost = True
        self._say(f"the window was lost (code {code}); the work goes on without it")
        return True


def open_display(title: str, say: Callable[[str], None]) -> Display | None:
    """A window on the display, or None where there is none that works."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return None
    process = subprocess.Popen(
        # -P: this folder, whose types.py would stand before Python's own, stays off the path.
        [sys.executable, "-P", str(Path(__file__).resolve()), title],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    limit = threading.Timer(OPEN_TIMEOUT, process.kill)
    limit.start()
    ready = process.stdout.read(1) == READY  # nothing, if the process ends instead
    limit.cancel()
    display = Display(process, say)
    if ready:
        return display
    display.close()
    return None


def _end(process: subprocess.Popen[bytes]) -> int:
    """The exit code of a process that is about to end, or is made to."""
    try:
        return process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


# What follows runs in the window's own process.


class Frames(threading.Thread):
    """Reads frames from a pipe and keeps the newest: a slow display must not delay the work."""

    def __init__(self, pipe: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self.newest: NDArray[np.uint8] | None = None
        self.ended = False
        self._pipe = pipe

    def run(self) -> None:
        """Read until the pipe ends."""
        while len(header := self._pipe.read(HEADER.size)) == HEADER.size:
            height, width = HEADER.unpack(header)
            pixels = self._pipe.read(height * width * 3)
            if len(pixels) == height * width * 3:
                self.newest = np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
        self.ended = True


def main(title: str) -> int:
    """Show the frames that come through the pipe; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that does the work
    cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
    cv2.waitKey(1)
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    frames = Frames(sys.stdin.buffer)
    frames.start()
    shown: NDArray[np.uint8] | None = None
    while not frames.ended:
        frame = frames.newest
        if frame is not None and frame is not shown:
            if shown is None:
                cv2.resizeWindow(title, *_window_size(frame.shape[1], frame.shape[0]))
            cv2.imshow(title, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            shown = frame
        if cv2.waitKey(10) & 0xFF in CLOSING_KEYS or _closed(title):
            return CLOSED_BY_USER
    return 0


def _closed(title: str) -> bool:
    try:
        return cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1
    except cv2.error:  # some of its window libraries forget a window that was closed
        return True


def _window_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, LARGEST_SIZE[0] / width, LARGEST_SIZE[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


if __name__ == "__main__":
    # Not sys.exit: Python would wait for the thread that still reads the pipe.
    os._exit(main(sys.argv[1]))
