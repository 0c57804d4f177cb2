"""The Python API: what goes in, what comes out, and does it install beside a user's own modules?"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import setup
import yolov3
from tests.conftest import COLOURS, ROOT
from utils.images import read_image

RED = np.full((96, 128, 3), (255, 0, 0), np.uint8)


@pytest.fixture
def detector(colour_weights: str) -> yolov3.Detector:
    return yolov3.load(colour_weights)


def test_a_result_is_numpy_in_pixels_of_the_picture(detector: yolov3.Detector) -> None:
    result = detector(RED)
    assert detector.names == result.names == COLOURS
    assert [result.names[label] for label in result.labels] == ["red"] * len(result) == ["red"] * 4
    # Cells of 64×48 pixels of the picture, and boxes of 20×20 of the input's 64×64 pixels.
    expected = [[x - 20, y - 15, x + 20, y + 15] for x in (32, 96) for y in (24, 72)]
    assert sorted(result.boxes.tolist()) == pytest.approx(np.array(expected), abs=0.01)
    dtypes = [str(values.dtype) for values in (result.boxes, result.scores, result.labels)]
    assert dtypes == ["float32", "float32", "int64"]
    assert (result.image == RED).all()


def test_any_kind_of_picture_gives_the_same_boxes(
    detector: yolov3.Detector, tmp_path: Path
) -> None:
    path = tmp_path / "red.png"
    Image.fromarray(RED).save(path)
    results = detector([RED, path, str(path), Image.fromarray(RED)])
    results.append(detector(RED[..., ::-1], bgr=True))
    for result in results:
        assert (result.boxes == results[0].boxes).all() and len(result) == 4
        assert (result.image == RED).all()
    assert len(detector(np.zeros((64, 64), np.uint8))) == 0  # grey, and black
    assert detector([]) == []


def test_a_drawing_is_a_copy_and_is_written(detector: yolov3.Detector, tmp_path: Path) -> None:
    result = detector(RED)
    assert result.draw().shape == RED.shape and (result.draw() != RED).any()
    assert (result.image == RED).all()
    result.save(tmp_path / "drawn.png")
    assert (read_image(tmp_path / "drawn.png") == result.draw()).all()


@pytest.mark.parametrize(
    "picture",
    [RED.astype(np.float32), RED[None], RED[..., :2], RED[:0], "missing.jpg"],
    ids=["floats", "a batch", "two channels", "no pixels", "no file"],
)
def test_what_is_no_picture_is_told(detector: yolov3.Detector, picture: object) -> None:
    with pytest.raises(yolov3.InputError):
        detector(picture)  # type: ignore[call-overload]


def test_values_out_of_range_are_told_before_any_file_is_read() -> None:
    with pytest.raises(yolov3.InputError, match="conf_thres=2"):
        yolov3.load("missing.weights", conf_thres=2)


def test_classes_and_thresholds_are_as_in_detect_img(colour_weights: str) -> None:
    assert len(yolov3.load(colour_weights, classes=["green"])(RED)) == 0
    assert len(yolov3.load(colour_weights, max_detections=2)(RED)) == 2
    assert len(yolov3.load(colour_weights, conf_thres=0.999)(RED)) == 0


def test_supervision_gets_the_same_boxes(detector: yolov3.Detector) -> None:
    pytest.importorskip("supervision")
    result = detector(RED)
    converted = result.to_supervision()
    assert (converted.xyxy == result.boxes).all()
    assert list(converted.data["class_name"]) == ["red"] * 4


def test_the_installed_package_is_one_name_beside_a_users_own_modules(
    tmp_path: Path, colour_weights: str
) -> None:
    setup.build(tmp_path / "installed")
    own = tmp_path / "own"
    own.mkdir()
    for name in (*setup.BELOW_IT, "pruning"):
        (own / f"{name}.py").write_text(f"raise SystemExit('the user's own {name}')")
    script = (
        "import sys, yolov3, numpy as np\n"
        f"result = yolov3.load({colour_weights!r})(np.full((96, 128, 3), (255, 0, 0), np.uint8))\n"
        "assert len(result) == 4 and result.draw().shape == (96, 128, 3)\n"
        "project = {'import_param', 'models', 'utils', 'pruning'} & set(sys.modules)\n"
        "assert not project, project\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(own), str(tmp_path / "installed")]),
    }
    subprocess.run([sys.executable, "-c", script], cwd=own, env=environment, check=True)
    assert [path.name for path in (tmp_path / "installed").iterdir()] == ["yolov3"]


def test_every_module_compiles_and_imports_below_the_name_once_installed(tmp_path: Path) -> None:
    for path in setup.build(tmp_path):
        if path.suffix == ".py":
            source = path.read_text(encoding="utf-8")
            assert not re.search(r"^\s*(from|import) (utils|models|import_param)\b", source, re.M)
            compile(source, path, "exec")


def test_a_module_of_an_earlier_build_is_not_installed_again(tmp_path: Path) -> None:
    setup.build(tmp_path)
    stale = tmp_path / "yolov3/utils/removed_since.py"
    stale.touch()
    setup.build(tmp_path)
    assert not stale.exists()


def test_what_a_build_and_a_run_leave_in_the_folder_is_not_checked_as_the_projects_code() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    excluded = settings["tool"]["mypy"]["exclude"]
    for left in ("build/lib/yolov3/utils/boxes.py", "runs/mine/own.py", "weights/mine/own.py"):
        assert any(re.search(pattern, left) for pattern in excluded), left
