"""The right published file for a network, and what is said where it cannot be had."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from import_param import Model, TrainSettings
from models import netdef as cfg_files
from models.darknet import Darknet
from models.weights import file_sizes, fill_, write_weights
from tests.conftest import ROOT
from utils.checkpoint import published
from utils.checkpoint.downloads import sha256_of
from utils.checkpoint.pretrained import read_pretrained
from utils.checkpoint.published import (
    DETECTORS,
    TORCHVISION,
    TRUNKS,
    Published,
    obtain,
    published_for,
)
from utils.errors import InputError

ALL = (*DETECTORS, *TRUNKS, TORCHVISION)
FITTING = {
    "yolov3": "yolov3.weights",
    "yolov3-spp": "yolov3-spp.weights",
    "yolov3-tiny": "yolov3-tiny.weights",
    "yolov3-mobilenetv2": "mobilenet_v2-b0353104.pth",
    "yolov3-mobilenetv2-trimmed": "mobilenet_v2-b0353104.pth",
    "yolov3-mobilenet": "",
    "yolov3-tiny-mobilenet": "",
    "yolov3-lite": "",
}


@pytest.mark.parametrize("cfg", sorted(path.stem for path in (ROOT / "config").glob("*.cfg")))
@pytest.mark.parametrize("classes", [80, 3])
def test_each_network_that_is_shipped_gets_its_file(cfg: str, classes: int) -> None:
    netdef = cfg_files.load(ROOT / "config" / f"{cfg}.cfg").with_classes(classes)
    if FITTING[cfg]:
        assert published_for(netdef, cfg).name == FITTING[cfg]
    else:
        with pytest.raises(InputError, match=f"known for {cfg}: expected a network of"):
            published_for(netdef, cfg)


def test_a_network_that_only_begins_as_yolov3_gets_its_trunk() -> None:
    netdef = cfg_files.load(ROOT / "config/yolov3.cfg")
    wider = netdef.layers[75].with_options(filters=640)
    other = replace(netdef, layers=(*netdef.layers[:75], wider, *netdef.layers[76:]))
    assert published_for(other, "other.cfg").name == "darknet53.conv.74"
    assert file_sizes(other)[51] == TRUNKS[0].size  # after its 52 convolutions


def test_a_cut_network_gets_none() -> None:
    netdef = cfg_files.load(ROOT / "config/yolov3-mobilenetv2.cfg")
    first = next(i for i, layer in enumerate(netdef.layers) if layer.kind == "convolutional")
    layers = list(netdef.layers)
    for index in (first, first + 1):
        layers[index] = layers[index].with_options(filters=24, groups=1)
    with pytest.raises(InputError, match="no published weights are known"):
        published_for(replace(netdef, layers=tuple(layers)), "cut.cfg")


@pytest.mark.parametrize("file", ALL, ids=lambda file: file.name)
def test_the_registry_is_well_formed(file: Published) -> None:
    assert all(a.startswith("https://") and a.endswith(f"/{file.name}") for a in file.addresses)
    assert (len(file.sha256) == 64 and file.checked) if file.sha256 else not file.checked


def test_torchvision_says_the_same_of_its_file() -> None:
    from torchvision.models import MobileNet_V2_Weights

    assert TORCHVISION.addresses == (MobileNet_V2_Weights.IMAGENET1K_V1.url,)
    assert TORCHVISION.sha256[:8] in TORCHVISION.name


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("yolov3-tiny.weights", "weights/yolov3-tiny/yolov3-tiny.weights"),
        ("mobilenet_v2-b0353104.pth", "weights/mobilenet_v2-b0353104.pth"),
    ],
)
def test_the_sums_are_those_of_the_files_that_we_have(name: str, place: str, shared: Path) -> None:
    path = shared / place
    file = next(file for file in ALL if file.name == name)
    assert (path.stat().st_size, sha256_of(path)) == (file.size, file.sha256)


def test_a_published_file_fills_all_but_the_heads_for_other_classes(tmp_path: Path) -> None:
    netdef = cfg_files.load(ROOT / "config/yolov3-tiny.cfg")
    write_weights(tmp_path / "coco.weights", Darknet(netdef))
    three = netdef.with_classes(3)
    start = read_pretrained(tmp_path / "coco.weights", three)
    assert start.netdef == three
    filled = fill_(Darknet(three), start.state, "coco.weights")
    assert len(filled.layers) == 11 and len(filled.missing) == 2


CONTENT = b"weights of a network"
FILE = Published(
    "a.weights",
    "a network",
    len(CONTENT),
    ("https://one.example/a.weights", "https://two.example/a.weights"),
    hashlib.sha256(CONTENT).hexdigest(),
)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.usefixtures("offline")
def test_offline_one_line_says_what_to_put_where() -> None:
    with pytest.raises(InputError) as told:
        obtain(FILE)
    assert str(told.value) == (
        "weights/a.weights: cannot be fetched (one.example: Network is unreachable; two.example: "
        "Network is unreachable); put it there by hand and run this again: "
        "https://one.example/a.weights or https://two.example/a.weights, 20 bytes, SHA-256 "
        f"{FILE.sha256}"
    )


@pytest.mark.usefixtures("offline")
def test_a_file_that_is_there_needs_no_network(capsys: pytest.CaptureFixture[str]) -> None:
    Path("weights").mkdir()
    FILE.path.write_bytes(CONTENT)
    assert obtain(FILE) == Path("weights/a.weights")
    assert capsys.readouterr().out == "pretrained: weights/a.weights, fetched before\n"
    obtain(replace(FILE, sha256=""))
    assert f"SHA-256 {FILE.sha256}; no published one" in capsys.readouterr().out


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (CONTENT[:-1], "19 bytes: expected 20; remove it"),
        (CONTENT.upper(), "expected [0-9a-f]{64}"),
    ],
)
def test_another_file_of_the_name_is_refused(content: bytes, told: str) -> None:
    Path("weights").mkdir()
    FILE.path.write_bytes(content)
    with pytest.raises(InputError, match=told):
        obtain(FILE)


@pytest.mark.usefixtures("offline")
def test_settings_name_the_file_that_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "obtain", lambda file: Path("weights") / file.name)
    asked = TrainSettings(model=Model(cfg=str(ROOT / "config/yolov3-tiny.cfg"), pretrained=True))
    taken = published.with_pretrained(asked)
    assert taken.model.weights == str(Path("weights/yolov3-tiny.weights"))
    own = replace(asked, model=replace(asked.model, weights="mine.pt"))
    assert published.with_pretrained(own) == own
    unasked = replace(asked, model=replace(asked.model, pretrained=False))
    assert published.with_pretrained(unasked) == unasked


def test_the_page_on_training_has_these_addresses_and_sums() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    for file in ALL:
        row = next(row for row in page.splitlines() if f"[`{file.name}`]" in row)
        assert file.addresses[0] in row and file.sha256 in row
