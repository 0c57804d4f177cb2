"""check_data.py, from a labelling tool's export to pictures and a .data file."""

from pathlib import Path

import pytest

import check_data
from import_param import DataSet
from tests.conftest import next_commands
from tests.utils.data.exports import NAMES, cvat_folder, photos, write
from utils.data.splits import open_splits
from utils.errors import run
from utils.images import read_image


def test_a_look_leaves_pictures_lists_and_a_data_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = cvat_folder(tmp_path / "set")
    check_data.main(["--data", str(folder), "--output", "out", "--write", "mine.data"])
    said = capsys.readouterr().out
    assert "polygon" in said
    ((script, training),) = next_commands(said)
    assert script == "train" and training.data.data == "mine.data"
    for name in ("labels.png", "contact_sheet.jpg"):
        assert read_image(tmp_path / "out" / name).std() > 0
    assert "train: " in (tmp_path / "out/report.txt").read_text()
    before = open_splits(DataSet(str(folder)))
    (tmp_path / "set/annotations.xml").unlink()
    for split, photo_set in zip(("train", "valid"), before, strict=True):
        listed = Path(f"mine-{split}.txt").read_text().splitlines()
        assert listed == [str(photo.path) for photo in photo_set.photos]
    assert Path("mine.names").read_text().split() == list(NAMES)


def test_labels_that_look_wrong_are_listed_and_drawn(tmp_path: Path) -> None:
    photos(tmp_path / "set")
    for number in range(10):
        write(tmp_path / f"set/p{number}.txt", "0 .5 .5 .5 .5\n1 .5 .5 .49 .5\n")
    check_data.main(["--data", str(tmp_path / "set"), "--output", str(tmp_path / "out")])
    text = (tmp_path / "out/suspicious.txt").read_text()
    assert text.startswith("1. ") and "labelled as '0' and as '1', IoU 0.98" in text
    assert read_image(tmp_path / "out/suspicious.jpg").std() > 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--data", "nowhere"],
            "data='nowhere': no such file or folder: expected a folder, a data.yaml",
        ),
        (["--write", "x.txt"], "write='x.txt': expected a name that ends in .data"),
        (["--write", "there.data"], "write='there.data': expected a new file"),
    ],
)
def test_bad_input_is_one_line_before_any_work(
    flags: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.data").touch()
    assert run(lambda: check_data.main(flags)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
