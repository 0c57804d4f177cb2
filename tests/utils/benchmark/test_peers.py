"""Are other projects' networks the ones that ours are compared with?"""

from pathlib import Path

import pytest
import torch

from models import netdef as cfg_files
from models.costs import count_operations, count_parameters
from models.darknet import Darknet
from models.head import decode
from tests.conftest import ROOT
from utils.benchmark import peers
from utils.benchmark.peers import open_peer
from utils.errors import InputError

SIZE = (64, 64)


def lite() -> Darknet:
    return Darknet(cfg_files.load(ROOT / "config" / "yolov3-lite.cfg")).eval()


def test_pytorchyolo_has_the_same_network_and_weights() -> None:
    pytest.importorskip("pytorchyolo.models", exc_type=ImportError)
    model = lite()
    peer = open_peer("pytorchyolo", model, "yolov3-lite", SIZE)
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
        open_peer("pytorchyolo", model, "yolov3-tiny-mobilenet", SIZE)


def test_ultralytics_has_networks_by_name_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))  # where it keeps settings of its own
    pytest.importorskip("ultralytics.nn.tasks", exc_type=ImportError)
    peer = open_peer("ultralytics", lite(), "yolov3-tiny", SIZE)
    assert peer.parameters > 8e6
    with pytest.raises(InputError, match="yolov3-lite"):
        open_peer("ultralytics", lite(), "yolov3-lite", SIZE)


def test_one_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers.PEERS, "nobody", peers.Peer("nobody", lambda model, name: model))
    with pytest.raises(InputError, match="nobody is not installed"):
        open_peer("nobody", lite(), "yolov3-lite", SIZE)
