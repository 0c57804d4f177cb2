"""Does an exported folder run without torch and this project, and find what its network finds?"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import export as script
import yolov3
from tests.conftest import ROOT, next_commands
from utils.backends import install_command
from utils.errors import run
from utils.images import read_image
from utils.visualization.draw import write_image

# What it may not have is not there for it: neither torch nor the project's own modules.
ALONE = """
import json, runpy, sys
FORBIDDEN = ("torch", "torchvision", "PIL", "models", "utils", "import_param", "yolov3", "onnx")

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ImportError(f"{name} is not for a folder that runs alone")

sys.meta_path.insert(0, Forbid())
"""
USE = """
import cv2
from detector import Detector
print(json.dumps(Detector()(cv2.imread(sys.argv[1]))))
"""
ENGINES = {"onnx": "onnxruntime", "openvino": "openvino", "ncnn": "ncnn"}


def alone(folder: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder that was exported, with nothing of the project in its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", ALONE + code, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Three colours, in a picture of an odd size, so that a letterbox begins between pixels."""
    pixels = np.zeros((75, 131, 3), np.uint8)
    pixels[:, :40, 0] = pixels[:, 40:90, 1] = pixels[:, 90:, 2] = 255
    write_image(tmp_path / "in" / "photo.png", pixels)
    return tmp_path / "in" / "photo.png"


def exported(kind: str, weights: str, photo: Path, *flags: str) -> Path:
    if command := install_command(ENGINES[kind]):
        pytest.skip(command)
    output = photo.parent.parent / "out"
    paths = ["--weights", weights, "--source", str(photo), "--output", str(output)]
    script.main([*paths, "--format", kind, "--standalone", *flags])
    (folder,) = (path for path in output.iterdir() if path.is_dir())
    return folder


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("onnx", []),
        ("onnx", ["--nms", "--letterbox", "yes"]),
        ("openvino", ["--letterbox", "yes"]),
        ("ncnn", ["--letterbox", "yes", "--img_size", "96"]),
    ],
)
def test_a_folder_that_runs_alone_finds_what_its_network_finds(
    kind: str, flags: list[str], colour_weights: str, photo: Path
) -> None:
    folder = exported(kind, colour_weights, photo, *flags)
    done = alone(folder, USE, str(photo))
    assert not done.stderr and done.returncode == 0, done.stderr
    detector = yolov3.load(
        colour_weights,
        letterbox="yes" if "--letterbox" in flags else "auto",
        img_size=96 if "--img_size" in flags else 0,
    )
    result = detector(read_image(photo))
    wanted = sorted(
        (result.names[label], box.tolist(), float(score))
        for label, box, score in zip(result.labels, result.boxes, result.scores, strict=True)
    )
    found = sorted((name, box, score) for name, score, box in json.loads(done.stdout))
    assert [name for name, _, _ in found] == [name for name, _, _ in wanted] != []
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours[1] == pytest.approx(theirs[1], abs=0.01)
        assert ours[2] == pytest.approx(theirs[2], abs=1e-4)


def test_its_script_takes_photos_folders_and_videos(
    colour_weights: str, photo: Path, tmp_path: Path
) -> None:
    cv2 = pytest.importorskip("cv2")
    folder = exported("onnx", colour_weights, photo)
    names = {path.name for path in folder.iterdir()}
    assert names == {"colours.onnx", "detector.py", "requirements.txt", "README.md"}
    (photo.parent / "broken.jpg").write_bytes(b"no picture")
    clip = tmp_path / "clip.avi"
    video = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10, (128, 96))
    for _ in range(3):
        video.write(np.full((96, 128, 3), (0, 0, 255), np.uint8))
    video.release()
    code = "sys.argv[0] = 'detector.py'; runpy.run_path('detector.py', run_name='__main__')"
    done = alone(folder, code, str(photo.parent), str(clip))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "broken.jpg: cannot be read" in lines
    assert sum(line.startswith("clip.mp4: red") for line in lines) == 3
    drawn = read_image(folder / "detected" / "photo.png")
    assert drawn.shape == (75, 131, 3) and (drawn != read_image(photo)).any()
    assert (folder / "detected" / "clip.mp4").stat().st_size > 100
    assert alone(folder, code, "missing.mp4").returncode == 1


def test_the_command_that_follows_has_photos_to_detect_on(
    colour_weights: str, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not the folder that runs alone, which holds none."""
    folder = exported("onnx", colour_weights, photo)
    ((_, detect),) = next_commands(capsys.readouterr().out)
    assert detect.detection.source == (str(photo.parent),)
    assert Path(detect.network.weights).parent == folder


def test_formats_that_do_not_run_alone_are_refused(
    colour_weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--weights", colour_weights, "--format", "darknet", "--standalone"]
    assert run(lambda: script.main(flags)) == 2
    assert "standalone=True: expected format" in capsys.readouterr().err


def test_the_detector_needs_numpy_and_opencv_alone() -> None:
    source = (ROOT / "utils" / "backends" / "standalone_detector.py").read_text(encoding="utf-8")
    imported = {line.split()[1].split(".")[0] for line in source.splitlines()
                if line.strip().startswith(("import ", "from "))}  # fmt: skip
    engines = {"onnxruntime", "openvino", "ncnn"}
    assert imported - engines - set(sys.stdlib_module_names) == {"cv2", "numpy"}
