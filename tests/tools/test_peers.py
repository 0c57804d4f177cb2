"""Do other projects get the photos, boxes and networks that ours are?"""

from pathlib import Path

import numpy as np
import pytest
import torch

from models import netdef as cfg_files
from models.costs import count_operations, count_parameters
from models.darknet import Darknet
from models.head import decode
from tests.conftest import ROOT
from tools.peers import PEERS, STEPS, Task, endless, open_peer, peer_step, write_yolo
from utils.benchmark.networks import PeerNetwork
from utils.data.definition import read_data
from utils.data.demo_data import DemoSettings, make_demo
from utils.data.splits import load_split
from utils.errors import InputError

SIZE = (64, 64)


def lite() -> Darknet:
    return Darknet(cfg_files.load(ROOT / "config" / "yolov3-lite.cfg")).eval()


def opened(name: str, model: Darknet, network: str) -> PeerNetwork:
    return PeerNetwork(PEERS[name].open(model, network), SIZE)


def test_pytorchyolo_has_the_same_network_and_weights() -> None:
    pytest.importorskip("pytorchyolo.models", exc_type=ImportError)
    model = lite()
    peer = opened("pytorchyolo", model, "yolov3-lite")
    assert peer.parameters == count_parameters(model)
    assert peer.operations == count_operations(model.netdef, SIZE)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        ours = decode(model(images), model.heads, SIZE).objectness
    theirs = peer(images)
    assert isinstance(theirs, torch.Tensor)
    torch.testing.assert_close(theirs[..., 4], ours, rtol=0, atol=1e-5)


def test_pytorchyolo_refuses_what_it_reads_as_another_network() -> None:
    pytest.importorskip("pytorchyolo.models", exc_type=ImportError)
    model = Darknet(cfg_files.load(ROOT / "config" / "yolov3-tiny-mobilenet.cfg"))
    with pytest.raises(InputError, match="parameters of it, expected"):
        opened("pytorchyolo", model, "yolov3-tiny-mobilenet")


def test_ultralytics_has_networks_by_name_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))  # where it keeps settings of its own
    pytest.importorskip("ultralytics.nn.tasks", exc_type=ImportError)
    peer = opened("ultralytics", lite(), "yolov3-tiny")
    assert peer.parameters > 8e6
    with pytest.raises(InputError, match="yolov3-lite"):
        opened("ultralytics", lite(), "yolov3-lite")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_demo(tmp_path / "demo", DemoSettings(train=4, valid=2, side=64))
    (tmp_path / "demo.names").write_text("".join(f"{digit}\n" for digit in range(10)))
    path = tmp_path / "demo.data"
    path.write_text("names = demo.names\ntrain = demo/train.txt\nvalid = demo/valid.txt\n")
    return path


def test_what_is_written_is_read_as_the_same_photos(data: Path, tmp_path: Path) -> None:
    photos = load_split(read_data(data), "train", progress=False)
    photo_list = write_yolo(photos, tmp_path / "peers")
    copy = tmp_path / "copy.data"
    copy.write_text(f"names = demo.names\ntrain = {photo_list}\nvalid = {photo_list}\n")
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
    photo_list = write_yolo(
        load_split(read_data(data), "train", progress=False), tmp_path / "peers"
    )
    step = peer_step(name, Task(netdef, "yolov3-tiny", 10, photo_list, batch=2))
    step()
    step()


def test_one_that_is_not_installed_is_one_line(tmp_path: Path) -> None:
    netdef = cfg_files.load(ROOT / "config" / "yolov3-lite.cfg")
    with pytest.raises(InputError, match="nobody is not installed"):
        open_peer("nobody", lite(), "yolov3-lite")
    with pytest.raises(InputError, match="nobody is not installed"):
        peer_step("nobody", Task(netdef, "yolov3-lite", 80, tmp_path / "train.txt", 1))


def test_batches_never_end() -> None:
    batches = endless([1, 2])
    assert [next(batches) for _ in range(5)] == [1, 2, 1, 2, 1]
