"""YOLO's `.txt`: lines of `class centre_x centre_y width height`, four shares of the photo."""

import reprlib
from collections.abc import Sequence
from pathlib import Path

from utils.data.labels.record import Label, MalformedLabel, Problem, Record
from utils.errors import InputError
from utils.files import read_lines

LARGEST_CLASS = 10**9  # what is larger is a mistake, and might not fit into an int64


def read_yolo(image: Path, label_file: Path, names: Sequence[str] = ()) -> Record:
    """Read the labels of one photo; classes are numbers, so `names` are not needed."""
    try:
        lines = read_lines(label_file)
    except InputError as error:
        reason = str(error).removeprefix(f"{label_file}: ")
        return Record.unreadable(image, label_file, reason)
    labels, problems = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            labels.append(_label(line, number))
        except MalformedLabel as error:
            problems.append(Problem("malformed label", f"{label_file}:{number}", str(error)))
    return Record.of(image, label_file, labels, problems, normalized=True)


def _label(line: str, number: int) -> Label:
    words = line.split()
    if len(words) != 5:
        raise MalformedLabel(
            f"{len(words)} values: expected 5, class centre_x centre_y width height"
        )
    try:
        class_index, *box = (float(word) for word in words)
    except ValueError:
        raise MalformedLabel(f"{reprlib.repr(line.strip())}: expected five numbers") from None
    if not class_index.is_integer() or abs(class_index) > LARGEST_CLASS:
        raise MalformedLabel(f"class {words[0]}: expected an integer below {LARGEST_CLASS}")
    return Label(tuple(box), int(class_index), number)
