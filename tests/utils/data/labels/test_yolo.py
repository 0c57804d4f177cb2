"""YOLO's lines are read, and wrong ones are told with file and line."""

from pathlib import Path

import pytest

from tests.utils.data.label_files import put
from utils.data.labels.record import Record
from utils.data.labels.yolo import LARGEST_CLASS, read_yolo


def read(folder: Path, text: str) -> Record:
    return read_yolo(folder / "a.png", put(folder / "a.txt", text))


def test_labels_know_their_lines(tmp_path: Path) -> None:
    record = read(tmp_path, "\n0 .5 .4 .1 .2\n  \n1 .5 .5 .2 .2\n")
    assert [record.where(i) for i in (0, 1)] == [f"{tmp_path}/a.txt:2", f"{tmp_path}/a.txt:4"]
    assert record.labels.tolist() == [0, 1]
    assert record.boxes[0].tolist() == [0.5, 0.4, 0.1, 0.2]
    assert record.normalized
    assert not record.problems
    assert not record.ignore.any()


def test_the_largest_class_is_still_a_number(tmp_path: Path) -> None:
    record = read(tmp_path, f"{LARGEST_CLASS} .5 .5 .1 .1\n{LARGEST_CLASS + 1} .5 .5 .1 .1\n")
    assert record.labels.tolist() == [LARGEST_CLASS]
    assert len(record.problems) == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 .5 .5 .1", "4 values: expected 5"),
        ("0 .5 .5 .1 .1 .9 7 8", "8 values: expected 5"),
        ("0 .5 .5 .1 .1 high", "expected five numbers"),
        ("0 .5 .5 1_0 .1", "expected five numbers"),
        ("٠ .5 .5 .1 .1", "expected five numbers"),
        ("0 0x1 .5 .1 .1", "expected five numbers"),
        ("cat .5 .5 .1 .1", "expected five numbers"),
        ("0.5 .5 .5 .1 .1", "class 0.5: expected an integer"),
        ("nan .5 .5 .1 .1", "class nan: expected an integer"),
        ("1e30 .5 .5 .1 .1", "class 1e30: expected an integer below"),
        ("-1e30 .5 .5 .1 .1", "class -1e30: expected an integer below"),
    ],
)
def test_malformed_lines_are_problems_and_the_others_are_read(
    tmp_path: Path, line: str, reason: str
) -> None:
    record = read(tmp_path, f"1 .5 .5 .1 .1\n{line}\n")
    assert len(record.labels) == 1
    assert [(p.kind, p.where) for p in record.problems] == [
        ("malformed label", f"{tmp_path}/a.txt:2")
    ]
    assert reason in record.problems[0].detail


def test_a_label_file_that_is_no_text_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff\xfd")
    (problem,) = read_yolo(tmp_path / "a.png", path).problems
    assert problem.where == str(path)
    assert problem.detail.startswith("not a text file")
