"""VOC's objects are read, and wrong ones are told with file and line."""

from pathlib import Path

import pytest

from tests.utils.data.label_files import NAMES, SIZE, TRUTH, put, voc_text
from utils.data.labels.record import Record
from utils.data.labels.voc import read_voc


def read(folder: Path, text: str) -> Record:
    return read_voc(folder / "a.png", put(folder / "a.xml", text), NAMES)


def test_objects_know_their_lines_and_the_photos_size(tmp_path: Path) -> None:
    record = read(tmp_path, voc_text(TRUTH["a.b"]))
    assert [record.where(i) for i in (0, 1)] == [f"{tmp_path}/a.xml:2", f"{tmp_path}/a.xml:3"]
    assert record.stated_size == SIZE
    assert not record.normalized


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        ("9", "8.0", (9, 8)),
        ("0", "8", None),
        ("9", "-1", None),
        ("wide", "8", None),
        ("1", "1", (1, 1)),
    ],
)
def test_sizes_that_labels_state_wrongly_do_not_count(
    tmp_path: Path, width: str, height: str, size: tuple[int, int] | None
) -> None:
    text = f"<annotation><size><width>{width}</width><height>{height}</height></size></annotation>"
    assert read(tmp_path, text).stated_size == size


@pytest.mark.parametrize(("written", "ignored"), [("1", True), ("0", False), (" True ", True)])
def test_difficult_objects_are_ignored(tmp_path: Path, written: str, ignored: bool) -> None:
    text = voc_text(TRUTH["c"], f"<difficult>{written}</difficult>")
    assert read(tmp_path, text).ignore.tolist() == [ignored]


def test_malformed_objects_of_voc(tmp_path: Path) -> None:
    text = "<annotation>\n<object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object>"
    record = read(tmp_path, text + "</annotation>")
    assert record.problems[0].where == f"{tmp_path}/a.xml:2"
    assert read(tmp_path, "<annotation>").broken
    assert read(tmp_path, "").broken
    unknown = read(tmp_path, '<?xml version="1.0" encoding="klingon"?><annotation/>')
    assert unknown.broken
    assert "klingon" in unknown.problems[0].detail


def test_parts_are_no_objects(tmp_path: Path) -> None:
    extra = "<difficult>1</difficult><part><name>head</name><bndbox/></part>"
    record = read(tmp_path, voc_text(TRUTH["c"], extra))
    assert record.ignore.tolist() == [True]
    assert record.boxes.tolist() == [[70, 30, 75, 36]]


def test_unknown_classes_are_told_with_the_list(tmp_path: Path) -> None:
    record = read(tmp_path, voc_text([*TRUTH["c"], *TRUTH["a.b"]]).replace("dog", "dgo"))
    assert record.labels.tolist() == [0, 2]
    assert [(each.kind, each.where, each.detail) for each in record.problems] == [
        (
            "class out of range",
            f"{tmp_path}/a.xml:2",
            "class 'dgo': expected one of cat, dog, motorbike",
        )
    ]


def test_entities_that_stand_for_gigabytes_are_refused(tmp_path: Path) -> None:
    lines = ['<!ENTITY a0 "ha">', *(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))]
    text = f"<!DOCTYPE annotation [{''.join(lines)}]><annotation>&a11;</annotation>"
    record = read(tmp_path, text)
    assert record.broken
    assert record.problems[0].detail == "no readable XML (entity 'a0': expected no entities)"


def test_a_file_of_nothing_but_mistakes_costs_one_line(tmp_path: Path) -> None:
    record = read(tmp_path, f"<annotation>{'<object/>' * 10_000}</annotation>")
    assert record.broken
    assert len(record.problems) == 1
    assert "more than 1000 wrong objects" in record.problems[0].detail
    deep = read(tmp_path, "<a>" * 100_000 + "</a>" * 100_000)
    assert not deep.problems
