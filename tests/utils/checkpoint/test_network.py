"""Does a trained network open as its files and the settings say, or not at all?"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from import_param import NetworkLimits, TrainedNetwork
from models.darknet import Darknet
from models.netdef import parse
from models.weights import write_weights
from tests.models.test_darknet import RESIDUAL
from tests.utils.checkpoint.test_checkpoint import model, save
from utils.checkpoint.darknet_files import write_pair
from utils.checkpoint.network import load_network, newest_weights, reopen
from utils.errors import InputError


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_network_that_cannot_be_computed_with_does_not_open(value: float, tmp_path: Path) -> None:
    broken = model()
    broken.layers[0].bn.running_var[3] = value
    paths = [
        save(tmp_path / "a.pt", broken),
        write_pair(tmp_path / "b", broken, broken.netdef, "xy")[1],
    ]
    for path in paths:
        with pytest.raises(InputError, match=rf"{path.name}: layer 0: .*(nan|inf|-1)"):
            load_network(TrainedNetwork(weights=str(path), device="cpu"))


def test_size_letterbox_and_names_can_be_chosen(tmp_path: Path) -> None:
    path = str(save(tmp_path / "best.pt", model()))
    (tmp_path / "other.names").write_text("cat\ndog\n")
    opened = load_network(
        TrainedNetwork(
            weights=path,
            names=str(tmp_path / "other.names"),
            img_size=64,
            letterbox="yes",
            device="cpu",
        )
    )
    assert opened.names == ("cat", "dog") and opened.size == (64, 64) and opened.letterbox


def test_a_pair_takes_the_names_beside_it(tmp_path: Path) -> None:
    write_weights(tmp_path / "x.weights", model())
    model().netdef.write(tmp_path / "x.cfg")
    assert load_network(
        TrainedNetwork(weights=str(tmp_path / "x.weights"), device="cpu")
    ).names == ("0", "1")
    (tmp_path / "coco.names").write_text("cat\ndog\n")
    assert load_network(
        TrainedNetwork(weights=str(tmp_path / "x.weights"), device="cpu")
    ).names == ("cat", "dog")
    write_pair(tmp_path / "x", model(), model().netdef, ("own", "names"))
    assert load_network(
        TrainedNetwork(weights=str(tmp_path / "x.weights"), device="cpu")
    ).names == ("own", "names")


def test_of_several_names_beside_a_pair_those_that_fit_are_taken(tmp_path: Path) -> None:
    write_weights(tmp_path / "x.weights", model())
    model().netdef.write(tmp_path / "x.cfg")
    (tmp_path / "coco.names").write_text("a\nb\nc\n")
    (tmp_path / "two.names").write_text("cat\ndog\n")
    settings = TrainedNetwork(weights=str(tmp_path / "x.weights"), device="cpu")
    assert load_network(settings).names == ("cat", "dog")
    (tmp_path / "other.names").write_text("cow\npig\n")
    assert load_network(settings).names == ("0", "1")


def test_the_newest_weights_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age, name in enumerate(("new", "old")):
        path = save(tmp_path / "weights" / name / "best.pt", model())
        os.utime(path, (1e9 - age, 1e9 - age))
    assert newest_weights(tmp_path / "weights").parent.name == "new"
    monkeypatch.chdir(tmp_path)
    assert newest_weights() == Path("weights/new/best.pt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cfg": "x.cfg"}, "cfg='x.cfg': expected none"),
        ({"img_size": 33}, "img_size=33x33: expected multiples of"),
        ({"names": "three.names"}, "3 class names for a network of 2 classes"),
        ({"names": "no.names"}, "no.names"),
        ({"weights": "three.names"}, "weights='three.names': expected a .pt of this project, or"),
        ({"weights": "no.onnx", "cfg": "x.cfg"}, "weights='no.onnx': expected a .pt"),
    ],
)
def test_arguments_that_do_not_fit(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("three.names").write_text("a\nb\nc\n")
    strided = RESIDUAL.replace("size=3\npad=1", "size=3\nstride=2\npad=1", 1)
    save(Path("best.pt"), Darknet(parse(strided)))
    with pytest.raises(InputError) as error:
        load_network(replace(TrainedNetwork(weights="best.pt"), **arguments))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (NetworkLimits(max_network_gb=1e-5), "takes .* GB .* larger max_network_gb"),
        (NetworkLimits(max_network_gflops=1e-5), "takes .* operations .*larger max_network_gflops"),
    ],
)
def test_a_network_beyond_the_limits_does_not_open(
    limit: NetworkLimits, message: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "a.pt", model())
    settings = TrainedNetwork(weights=str(path), device="cpu", **vars(limit))
    with pytest.raises(InputError, match=message):
        load_network(settings)
    assert reopen(path, "cpu").names == ("a", "b")


def test_a_part_of_a_network_is_not_used(tmp_path: Path) -> None:
    write_weights(tmp_path / "x.weights", model(), layers=1)
    model().netdef.write(tmp_path / "x.cfg")
    with pytest.raises(InputError, match="holds only a part of the network: filled 1 of 3"):
        load_network(TrainedNetwork(weights=str(tmp_path / "x.weights")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[net]\n[convolutional]\nfilters=8\n", "at least one .yolo. section"),
        (RESIDUAL.replace("channels=3", "channels=1"), "channels='1': expected 3"),
    ],
)
def test_a_network_that_finds_nothing_on_photos_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    network = Darknet(parse(text))
    with pytest.raises(InputError, match=message):
        load_network(TrainedNetwork(weights=str(save(tmp_path / "x.pt", network))))
