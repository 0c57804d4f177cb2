"""Does the killing of scripts notice what is lost or half-written?"""

import subprocess
import sys
from pathlib import Path

import pytest

from models.darknet import Darknet
from models.netdef import parse
from tests.conftest import ROOT
from tools import check_kills
from utils.checkpoint.darknet_files import write_pair
from utils.errors import InputError


def pair(folder: Path, names: int = 10) -> Path:
    netdef = parse(check_kills.CFG)
    write_pair(folder / "best", Darknet(netdef), netdef, tuple(map(str, range(names))))
    return folder / "best.weights"


def test_whole_files_pass_and_others_do_not_count(tmp_path: Path) -> None:
    pair(tmp_path / "weights/run")
    (tmp_path / "weights/run/.partial-last-1.pt").write_text("half")
    (tmp_path / "demo.json").write_text("{")  # not what the work left
    assert check_kills.faults_in(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("weights/run/last.pt", b"PK\3\4"),
        ("runs/run/report.json", b'{"a": 1'),
        ("runs/run/metrics.csv", b"epoch,loss\n1,0.5\n2"),
        ("runs/run/curves.png", b"\x89PNG\r\n"),
        ("out/clip.avi", b"RIFF"),
        ("out/best.onnx", b"\x08\x07half"),
    ],
)
def test_a_half_written_file_is_noticed(name: str, content: bytes, tmp_path: Path) -> None:
    if name.endswith(".onnx"):
        pytest.importorskip("onnx")
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(content)
    (fault,) = check_kills.faults_in(tmp_path)
    assert fault.startswith(name)


@pytest.mark.parametrize("lost", ["best.cfg", "best.names"])
def test_weights_without_what_belongs_to_them_are_noticed(lost: str, tmp_path: Path) -> None:
    pair(tmp_path / "weights/run")
    (tmp_path / "weights/run" / lost).unlink()
    (fault,) = check_kills.faults_in(tmp_path)
    assert lost in fault


def test_an_unknown_scenario_is_one_line() -> None:
    with pytest.raises(InputError, match="scenarios='x': expected some of 'dense'"):
        check_kills.main(["--scenarios", "x"])


@pytest.mark.slow
def test_a_training_and_a_detection_survive_some_kills() -> None:
    """In a process of its own: it forks, and here other tests have left threads, which do not."""
    options = ["--scenarios", "dense", "detect_img", "--kills", "2", "--every", "12"]
    done = subprocess.run(
        [sys.executable, "-m", "tools.check_kills", *options],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    assert "| dense " in done.stdout
