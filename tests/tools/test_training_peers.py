"""Do other projects get the photos and boxes that ours are?"""

from pathlib import Path

import numpy as np
import pytest

from models import netdef as cfg_files
from tests.conftest import ROOT
from tools.training_peers import STEPS, Task, endless, peer_step, write_yolo
from utils.data.definition import read_data
from utils.data.demo_data import DemoSettings, make_demo
from utils.data.splits import load_split
from utils.errors import InputError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_demo(tmp_path / "demo", DemoSettings(train=4, valid=2, side=64))
    (tmp_path / "demo.names").write_text("".join(f"{digit}\n" for digit in range(10)))
    path = tmp_path / "demo.data"
    path.write_text("names = demo.names\ntrain = demo/train.txt\nvalid = demo/valid.txt\n")
    return path


def test_what_is_written_is_read_as_the_same_photos(data: Path, tmp_path: Path) -> None:
    photos = load_split(read_data(data), "train", progress=False)
    listed = write_yolo(photos, tmp_path / "peers")
    copy = tmp_path / "copy.data"
    copy.write_text(f"names = demo.names\ntrain = {listed}\nvalid = {listed}\n")
    again = load_split(read_data(copy), "train", progress=False)
    assert len(again) == len(photos)
    for one, other in zip(photos.photos, again.photos, strict=True):
        assert one.path.resolve() == other.path.resolve()
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(STEPS))
def test_a_peer_trains(name: str, data: Path, tmp_path: Path) -> None:
    pytest.importorskip(name, exc_type=ImportError)
    netdef = cfg_files.load(ROOT / "config" / "yolov3-tiny.cfg").with_classes(10)
    netdef = netdef.with_net_options(width=64, height=64)
    listed = write_yolo(load_split(read_data(data), "train", progress=False), tmp_path / "peers")
    step = peer_step(name, Task(netdef, "yolov3-tiny", 10, listed, batch=2))
    step()
    step()


def test_one_that_is_not_installed_is_one_line(tmp_path: Path) -> None:
    netdef = cfg_files.load(ROOT / "config" / "yolov3-lite.cfg")
    with pytest.raises(InputError, match="nobody is not installed"):
        peer_step("nobody", Task(netdef, "yolov3-lite", 80, tmp_path / "train.txt", 1))


def test_batches_never_end() -> None:
    batches = endless([1, 2])
    assert [next(batches) for _ in range(5)] == [1, 2, 1, 2, 1]
