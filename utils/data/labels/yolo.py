"""YOLO's `.txt`: lines of `class centre_x centre_y width height`, four shares of the photo.

A sixth value, the score that `detect_img.py --save_txt` writes, is not used. `class x y x y x y …`,
with three corners or more, is a polygon (of segmentation, or a turned box), taken as its bounding
box.
"""

import reprlib
from collections.abc import Sequence
from pathlib import Path

from utils.data.labels.record import (
    LARGEST_LABEL_FILE,
    MOST_PROBLEMS,
    Label,
    MalformedLabel,
    Problem,
    Record,
)
from utils.data.labels.shapes import bounding_box, polygon_problem
from utils.errors import InputError
from utils.files.numbers import to_float
from utils.files.reading import read_lines

LARGEST_CLASS = 10**9  # what is larger is a mistake, and might not fit into an int64


def read_yolo(image: Path, label_file: Path, names: Sequence[str] = ()) -> Record:
    """Read the labels of one photo; classes are numbers, so `names` are not needed."""
    try:
        lines = read_lines(label_file, LARGEST_LABEL_FILE)
    except InputError as error:
        reason = str(error).removeprefix(f"{label_file}: ")
        return Record.unreadable(image, label_file, reason)
    labels: list[Label] = []
    problems: list[Problem] = []
    scores = False
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            labels.append(_label(words, number))
            scores = scores or len(words) == 6
            if len(words) > 6:
                where = f"{label_file}:{number}"
                problems.append(polygon_problem(where, f"{len(words) // 2} corners"))
        except MalformedLabel as error:
            problems.append(Problem(error.kind, f"{label_file}:{number}", str(error)))
        if len(problems) > MOST_PROBLEMS:
            reason = f"more than {MOST_PROBLEMS} lines that are no labels; {problems[0].detail}"
            return Record.unreadable(image, label_file, reason)
    if scores:
        problems.append(Problem("scores", str(label_file), "a sixth value on each line"))
    return Record.of(image, label_file, labels, problems, normalized=True)


def class_numbers(label_file: Path) -> set[int]:
    """The classes in one file."""
    record = read_yolo(label_file, label_file)
    return {int(label) for label in record.labels if label >= 0}


def looks_like_labels(path: Path) -> bool:
    """Whether a `.txt` holds labels: none, or one on its first line."""
    try:
        lines = (line.split() for line in read_lines(path, LARGEST_LABEL_FILE))
        first = next(filter(None, lines), None)
        return first is None or bool(_label(first, 1))
    except (InputError, MalformedLabel):
        return False


def _label(words: Sequence[str], number: int) -> Label:
    if len(words) < 5 or (len(words) > 6 and len(words) % 2 == 0):
        raise MalformedLabel(
            f"{len(words)} values: expected 5, class centre_x centre_y width height"
        )
    try:
        class_index, *values = (to_float(word) for word in words)
    except ValueError:
        line = reprlib.repr(" ".join(words))
        raise MalformedLabel(f"{line}: expected five numbers") from None
    box = values[:4]
    if len(values) > 5:
        left, top, right, bottom = bounding_box(list(zip(values[::2], values[1::2], strict=True)))
        box = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    if not class_index.is_integer() or abs(class_index) > LARGEST_CLASS:
        given = words[0] if len(words[0]) < 30 else reprlib.repr(words[0])
        raise MalformedLabel(f"class {given}: expected an integer below {LARGEST_CLASS}")
    return Label(tuple(box), int(class_index), number)
