"""detect_img.py, from its flags to its files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import detect_img
from tests.conftest import next_commands
from utils.boxes import xyxy_to_cxcywh
from utils.errors import InputError, run
from utils.images import read_image
from utils.visualization.draw import write_image

RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)


def photo(path: Path, rgb: tuple[int, int, int], size: tuple[int, int] = (128, 96)) -> Path:
    write_image(path, np.full((size[1], size[0], 3), rgb, np.uint8))
    return path


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_everything_that_is_asked_for_says_the_same(
    tmp_path: Path, colour_weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "in" / "1.png", RED)
    photo(tmp_path / "in" / "2.jpg", BLACK, (64, 64))
    output = tmp_path / "out"
    flags = ["--weights", colour_weights, "--source", str(tmp_path / "in"), "--output", str(output)]
    detect_img.main([*flags, "--save-txt", "--save-json", "--save-crops", "--batch-size", "3"])
    assert files(output) == [
        "1.png", "2.jpg",
        *(f"crops/red/1_{number}.jpg" for number in range(4)),
        "detections.json", "labels/1.txt", "labels/2.txt",
    ]  # fmt: skip
    content = json.loads((output / "detections.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [
        str(tmp_path / "in" / name) for name in ("1.png", "2.jpg")
    ]
    boxes = [each["xyxy"] for each in content["annotations"]]
    # Cells of 64×48 pixels of the photo, and boxes of 20×20 of the input's 64×64 pixels.
    expected = [[x - 20, y - 15, x + 20, y + 15] for x in (32, 96) for y in (24, 72)]
    assert sorted(boxes) == pytest.approx(np.array(expected), abs=0.01)
    assert {each["category"] for each in content["annotations"]} == {"red"}
    assert {each["image_id"] for each in content["annotations"]} == {0}
    rows = [
        [float(part) for part in line.split()]
        for line in (output / "labels" / "1.txt").read_text().splitlines()
    ]
    shares = xyxy_to_cxcywh(torch.tensor(boxes)) / torch.tensor([128.0, 96, 128, 96])
    assert np.array(rows)[:, 1:5] == pytest.approx(shares.numpy(), abs=1e-4)
    assert [row[0] for row in rows] == [0.0] * 4
    assert [row[5] for row in rows] == pytest.approx([a["score"] for a in content["annotations"]])
    assert (output / "labels" / "2.txt").read_text() == ""
    assert read_image(output / "crops" / "red" / "1_0.jpg").shape == (30, 40, 3)
    assert (read_image(output / "1.png") != RED).any()
    assert (read_image(output / "2.jpg") == BLACK).all()
    text = capsys.readouterr().out
    assert "2 of 2 photos, 4 objects: red 4" in text
    assert text.startswith(f"network: {colour_weights}: Darknet's weights with ")
    assert [script for script, _ in next_commands(text)] == ["export"]
    for stage in ("read", "network", "NMS", "draw"):
        assert f"{stage} " in text


def test_only_pictures_are_written_by_default_and_classes_are_kept_by_name_or_number(
    tmp_path: Path, colour_weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "in" / "red.png", RED)
    photo(tmp_path / "in" / "blue.png", BLUE)
    flags = ["--weights", colour_weights, "--source", str(tmp_path / "in" / "*.png")]
    flags += ["--output", str(tmp_path / "out")]
    detect_img.main([*flags, "--classes", "green", "2"])
    assert files(tmp_path / "out") == ["blue.png", "red.png"]
    assert (read_image(tmp_path / "out" / "red.png") == RED).all()
    assert (read_image(tmp_path / "out" / "blue.png") != BLUE).any()
    assert "4 objects: blue 4" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"'purple'.*red, green, blue"):
        detect_img.main([*flags, "--classes", "purple"])


def test_one_unreadable_photo_costs_a_line_and_the_exit_code(
    tmp_path: Path, colour_weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = photo(tmp_path / "in" / "b.jpg", RED)
    (tmp_path / "in" / "a.jpg").write_bytes(whole.read_bytes()[:-300])
    (tmp_path / "in" / "c.png").write_text("no picture")
    flags = ["--weights", colour_weights, "--source", str(tmp_path / "in")]
    code = run(lambda: detect_img.main([*flags, "--output", str(tmp_path / "out")]))
    assert code == 2
    assert files(tmp_path / "out") == ["b.jpg"]
    errors = capsys.readouterr().err
    assert errors.count("a.jpg") == errors.count("c.png") == 1
    assert "error: 2 of 3 photos could not be read" in errors


def test_equal_names_in_two_folders_do_not_meet(tmp_path: Path, colour_weights: str) -> None:
    photo(tmp_path / "in" / "a" / "1.png", RED)
    photo(tmp_path / "in" / "b" / "1.png", BLUE)
    photo(tmp_path / "in" / "b" / "1.bmp", BLUE)
    flags = ["--weights", colour_weights, "--source", str(tmp_path / "in"), "--save-txt"]
    detect_img.main([*flags, "--output", str(tmp_path / "out")])
    assert files(tmp_path / "out") == [
        "a/1.png", "b/1.bmp", "b/1.png",
        "labels/a/1.txt", "labels/b/1.bmp.txt", "labels/b/1.png.txt",
    ]  # fmt: skip
    assert (tmp_path / "out" / "labels" / "a" / "1.txt").read_text().startswith("0 ")
    assert (tmp_path / "out" / "labels" / "b" / "1.png.txt").read_text().startswith("2 ")


def test_sources_are_not_overwritten_and_results_are_no_sources(
    tmp_path: Path, colour_weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = photo(tmp_path / "in" / "1.png", RED)
    before = source.read_bytes()
    flags = ["--weights", colour_weights, "--source", str(tmp_path / "in")]
    with pytest.raises(InputError, match=r"overwrite .*1\.png"):
        detect_img.main([*flags, "--output", str(tmp_path / "in")])
    assert source.read_bytes() == before
    for _ in range(2):
        detect_img.main([*flags, "--output", str(tmp_path / "in" / "found")])
    assert files(tmp_path / "in") == ["1.png", "found/1.png"]
    assert "leaving out 1 photos" in capsys.readouterr().out


def test_a_format_that_does_not_suit_becomes_png(tmp_path: Path, colour_weights: str) -> None:
    photo(tmp_path / "1.gif", RED)
    flags = ["--weights", colour_weights, "--source", str(tmp_path / "1.gif")]
    detect_img.main([*flags, "--output", str(tmp_path / "out")])
    assert files(tmp_path / "out") == ["1.png"]


@pytest.mark.parametrize("source", ["missing.jpg", "missing/*.jpg", "."])
def test_without_photos_there_is_one_line(
    tmp_path: Path,
    colour_weights: str,
    source: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code = run(lambda: detect_img.main(["--weights", colour_weights, "--source", source]))
    assert code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_a_real_network_finds_what_is_on_the_photos(
    tmp_path: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = shared / "weights" / "yolov3-tiny" / "yolov3-tiny.weights"
    flags = ["--weights", str(network), "--source", str(shared / "photos"), "--save-json"]
    detect_img.main([*flags, "--output", str(tmp_path)])
    categories: dict[str, set[str]] = {}
    for each in json.loads((tmp_path / "detections.json").read_text())["annotations"]:
        categories.setdefault(Path(each["file_name"]).stem, set()).add(each["category"])
    assert {"dog", "bicycle", "car"} <= categories["dog"]
    assert {"person", "dog"} <= categories["person"]
    assert {"giraffe", "zebra"} <= categories["giraffe"]
    assert "horse" in categories["horses"]
    assert categories["eagle"] == {"bird"}


def test_a_missing_source_is_told_before_an_engine_is_opened(
    colour_weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("an engine is opened")

    monkeypatch.setattr("utils.detection.detector.open_runtime", never)
    flags = ["--weights", colour_weights, "--output", str(tmp_path / "out")]
    with pytest.raises(InputError, match="nowhere"):
        detect_img.main([*flags, "--source", str(tmp_path / "nowhere")])


def test_lines_of_json_without_pictures(
    tmp_path: Path, colour_weights: str, capfd: pytest.CaptureFixture[str]
) -> None:
    sources = [str(photo(tmp_path / name, rgb)) for name, rgb in (("a.png", RED), ("b.png", BLUE))]
    flags = ["--weights", colour_weights, "--source", *sources, str(tmp_path / "a.png")]
    flags += ["--output", str(tmp_path / "out"), "--no-save-images", "--jsonl", "-"]
    detect_img.main(flags)
    captured = capfd.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert [(line["source"], line["counts"]) for line in lines] == [
        (sources[0], {"red": 4}),
        (sources[1], {"blue": 4}),
    ]
    assert "frame" not in lines[0]
    assert "2 of 2 photos" in captured.err
    assert not files(tmp_path / "out")
