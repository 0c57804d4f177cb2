"""`.data` files: what they say, and what is said of wrong ones."""

from pathlib import Path

import pytest

from utils.data.definition import read_data, read_names
from utils.errors import InputError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.names").write_text("cat\ndog\n\n")
    (tmp_path / "train.txt").touch()
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "a.data"
    path.write_text(text)
    return path


def test_paths_are_found_beside_the_file(folder: Path) -> None:
    text = "classes= 2\n# comment\ntrain  = train.txt, other.json\r\nnames = a.names\nbackup = x\n"
    data = read_data(write(folder, text))
    assert data.names == ("cat", "dog")
    assert data.train == (folder / "train.txt", folder / "other.json")
    assert data.format == "auto"


def test_paths_are_found_in_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "valid.txt").touch()
    monkeypatch.chdir(elsewhere)
    data = read_data(write(folder, "names=a.names\ntrain=train.txt\nvalid=valid.txt"))
    assert data.sources("train") == (folder / "train.txt",)
    assert data.sources("valid") == (Path("valid.txt"),)


def test_photos_are_wanted_only_when_asked_for(folder: Path) -> None:
    data = read_data(write(folder, "names=a.names\n\ntrain=no.txt"))
    with pytest.raises(InputError, match=r"a\.data:3: train=.*no\.txt: no such file"):
        data.sources("train")
    with pytest.raises(InputError, match="no 'valid =' line"):
        data.sources("valid")


def test_comments_end_lines_but_not_words(folder: Path) -> None:
    text = "names=a.names # note = 1\ntrain=a#1.txt, b;2.txt ; old\n  ; rest\n#\n"
    data = read_data(write(folder, text))
    assert data.names == ("cat", "dog")
    assert data.train == (folder / "a#1.txt", folder / "b;2.txt")


def test_a_path_with_a_comma_stands_alone(folder: Path) -> None:
    (folder / "cats, dogs").mkdir()
    data = read_data(write(folder, "names=a.names\ntrain=cats, dogs\nvalid=cats, train.txt"))
    assert data.train == (folder / "cats, dogs",)
    assert data.valid == (folder / "cats", folder / "train.txt")


def test_mirror_is_yes_unless_said(folder: Path) -> None:
    assert read_data(write(folder, "names=a.names")).mirror is True
    assert read_data(write(folder, "names=a.names\nmirror = yes")).mirror is True
    assert read_data(write(folder, "names=a.names\nmirror = no # digits")).mirror is False


def test_names_that_are_too_long_name_no_file(folder: Path) -> None:
    long = "a" * 5000
    with pytest.raises(InputError, match=r":1: names=aaa.*: no such file"):
        read_data(write(folder, f"names={long}"))
    data = read_data(write(folder, f"names=a.names\ntrain={long}"))
    with pytest.raises(InputError, match=r":2: train=.*: no such file"):
        data.sources("train")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("names=a.names\nclasses=3", r":2: classes=3: expected 2"),
        ("names=a.names\nclasses=two", r":2: classes: 'two': expected one of cat, dog"),
        ("train=train.txt", r"no 'names =' line"),
        ("names=b.names", r":1: names=b.names: no such file"),
        ("names=a.names\nvalidd=x", r":2: unknown key 'validd': perhaps 'valid'"),
        ("names=a.names\nnames=a.names", r":2: 'names' stands already on line 1"),
        ("names=a.names\ntrain", r":2: 'train': expected 'key = value'"),
        ("names=a.names\ntrain= # none yet", r":2: 'train=': expected 'key = value'"),
        ("names=a.names\nmirror=maybe", r":2: mirror='maybe': expected one of yes, no"),
        ("names=a.names\nformat=xml", r":2: format='xml': expected one of auto, yolo, voc"),
    ],
)
def test_mistakes_are_told_with_their_line(folder: Path, text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        read_data(write(folder, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no class names"),
        ("a\n\nb", ":2: an empty line"),
        ("a\nb\na", ":3: 'a' stands already"),
    ],
)
def test_names_are_checked(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "a.names").write_text(text)
    with pytest.raises(InputError, match=reason):
        read_names(tmp_path / "a.names")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.data").write_bytes(b"\xff\x00\x00\x01")
    with pytest.raises(InputError, match="not a text file"):
        read_data(tmp_path / "a.data")
    with pytest.raises(InputError, match=r"b\.data: cannot be read: No such file"):
        read_data(tmp_path / "b.data")


@pytest.mark.parametrize("name", ["demo", "voc", "coco", "custom"])
def test_the_shipped_definitions_are_sound(name: str) -> None:
    data = read_data(ROOT / "data" / f"{name}.data")
    assert data.train
    assert data.valid
    assert data.mirror == (name != "demo")
    assert len(data.names) == {"demo": 10, "voc": 20, "coco": 80, "custom": 2}[name]


def test_coco_names_are_in_the_order_of_the_known_weights(shared: Path) -> None:
    theirs = read_names(shared / "weights" / "yolov3-tiny" / "coco.names")
    assert read_names(ROOT / "data" / "coco.names") == theirs


@pytest.mark.parametrize("count", ["9" * 5000, "2_0", "٢", "-2", "2.0"])
def test_class_counts_that_are_no_plain_numbers_are_refused_shortly(
    tmp_path: Path, count: str
) -> None:
    (tmp_path / "a.names").write_text("cat\ndog\n")
    (tmp_path / "a.data").write_text(f"names=a.names\nclasses={count}\n")
    with pytest.raises(InputError, match=r"a\.data:2: classes=.*: expected 2, the num") as caught:
        read_data(tmp_path / "a.data")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["x" * 10**6, "x" * 10**6 + "=1"])
def test_huge_lines_are_told_shortly(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.data").write_text(text)
    with pytest.raises(InputError) as caught:
        read_data(tmp_path / "a.data")
    assert len(str(caught.value)) < 300


def test_several_paths_are_not_taken_for_the_last_one(tmp_path: Path) -> None:
    """Though that is what the end of their line is called."""
    (tmp_path / "photos" / "more").mkdir(parents=True)
    (tmp_path / "a.names").write_text("cat\n")
    both = (tmp_path / "photos", tmp_path / "photos" / "more")
    data = tmp_path / "a.data"
    data.write_text(f"names = a.names\ntrain = {both[0]}, {both[1]}\n")
    assert read_data(data).train == both
