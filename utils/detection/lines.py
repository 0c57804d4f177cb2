"""How do other programs get detections while they are made? As lines of JSON, one a picture.

    {"time": "2026-03-01T12:00:00.040+00:00", "source": "clip.mp4", "frame": 1, "seconds": 0.04,
     "width": 1280, "height": 720,
     "boxes": [{"class": "dog", "label": 16, "score": 0.91, "xyxy": [10.5, 20.0, 300.0, 400.0]}],
     "counts": {"dog": 1}}

`time` is when the picture was read; `frame` (from 0) and `seconds` (from the beginning) are places
in a video, `seconds` in that of a file. Boxes are in pixels of the picture, best first.
"""

import errno
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

from utils.detection.writer import DetectedPicture, name_of
from utils.errors import InputError
from utils.files.writing import LineFile

STANDARD_OUTPUT = "-"


class ReaderGone(Exception):
    """Nobody reads the lines any more, such as behind `| head`."""


class Lines(Protocol):
    """What takes lines."""

    def write(self, line: str) -> None:
        """Add a line, given without its end."""


@contextmanager
def open_lines(target: str, append: bool = False) -> Iterator[Lines | None]:
    """Where lines of JSON go.

    Args:
        target: a file, `-` for standard output, on which nothing else is printed then, or empty
            for none.
        append: go on behind the lines that a file has, and do not replace them.
    """
    if not target:
        yield None
    elif target == STANDARD_OUTPUT:
        with _only_lines() as output:
            yield output
    else:
        with LineFile(Path(target).expanduser(), append) as file:
            yield file


def line_writer(
    lines: Lines | None, names: Sequence[str]
) -> Callable[[DetectedPicture], None] | None:
    """What writes a picture's line, for `Results`; None where no lines are wanted."""
    return None if lines is None else lambda item: lines.write(json_line(item, names))


def json_line(item: DetectedPicture, names: Sequence[str]) -> str:
    """A picture and what was detected on it, without the end of the line."""
    picture, detections = item.picture, item.detections
    width, height = picture.size
    labels = detections.labels.tolist()
    line: dict[str, Any] = {
        "time": datetime.fromtimestamp(picture.time, UTC).isoformat(timespec="milliseconds"),
        "source": picture.file,
    }
    if picture.frame is not None:
        line["frame"] = picture.frame
    if picture.position is not None:
        line["seconds"] = round(picture.position, 3)
    line |= {"width": width, "height": height}
    line["boxes"] = [
        {
            "class": name_of(label, names),
            "label": label,
            "score": round(score, 6),
            "xyxy": [round(value, 3) for value in box],
        }
        for label, score, box in zip(
            labels, detections.scores.tolist(), detections.boxes.tolist(), strict=True
        )
    ]
    line["counts"] = dict(Counter(name_of(label, names) for label in labels).most_common())
    return json.dumps(line, ensure_ascii=False)


class _StandardOutput:
    """Lines for who reads standard output."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def write(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace") + b"\n"  # JSON's own way, too
        try:
            while data:
                data = data[os.write(self._handle, data) :]
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EINVAL):  # the latter on Windows
                raise ReaderGone from error
            raise InputError(f"standard output: cannot be written: {error.strerror}") from error


class _PythonOutput:
    """Lines where `sys.stdout` is no file of the system, as in a notebook."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


@contextmanager
def _only_lines() -> Iterator[Lines]:
    """Standard output for lines alone: what else is printed goes to standard error.

    Also what libraries in C++ print, which know nothing of Python's `sys.stdout`.
    """
    output = sys.stdout
    with ExitStack() as stack:
        try:
            number, errors = output.fileno(), sys.stderr.fileno()
        except (AttributeError, OSError, ValueError):  # a notebook's, or a test's
            stack.enter_context(redirect_stdout(sys.stderr))
            yield _PythonOutput(output)
            return
        output.flush()
        handle = os.dup(number)
        stack.callback(os.close, handle)
        os.dup2(errors, number)
        stack.callback(os.dup2, handle, number)
        stack.callback(output.flush)
        yield _StandardOutput(handle)
