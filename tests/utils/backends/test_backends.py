"""Do all engines compute what the network computes?"""

import math
from pathlib import Path

import pytest
import torch

from models.darknet import Darknet
from models.netdef import parse
from tests.conftest import ROOT
from utils.backends import (
    ENGINES,
    EngineEntry,
    EngineOptions,
    install_command,
    open_engine,
    registry,
)
from utils.backends.base import maps_agree
from utils.backends.torch_engine import TorchEngine
from utils.errors import InputError

OPTIONS = EngineOptions((64, 64))
# Two heads, and what the shipped networks are made of.
CFG = """
[net]
width=64
height=64
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=8
size=3
groups=8
pad=1
activation=relu
[convolutional]
batch_normalize=1
filters=8
size=1
activation=linear
[shortcut]
from=-3
activation=linear
[maxpool]
size=2
stride=2
[convolutional]
batch_normalize=1
filters=12
size=3
stride=2
pad=1
activation=mish
[maxpool]
size=2
stride=1
[convolutional]
filters=16
size=1
activation=linear
[yolo]
mask=1,0
anchors=10,10, 30,30
classes=3
num=2
[route]
layers=-3
[upsample]
stride=2
[route]
layers=-1,4
[convolutional]
filters=8
size=1
activation=linear
[yolo]
mask=0
anchors=10,10, 30,30
classes=3
num=2
"""


def trained(text: str = CFG, seed: int = 0) -> Darknet:
    """A network whose batch normalisation does something."""
    torch.manual_seed(seed)
    model = Darknet(parse(text)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    return model


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if command := install_command(name):
        pytest.skip(f"{name} is not installed: {command}")
    return name


def test_an_engine_gives_the_networks_maps(engine_name: str) -> None:
    model = trained()
    engine = open_engine(engine_name, model, EngineOptions((96, 64), batch=2))
    assert (engine.name, engine.precision, engine.size) == (engine_name, "fp32", (96, 64))
    for count in (1, 2, 3):  # of any number, whatever it runs at once
        images = torch.rand(count, 3, 64, 96)
        with torch.inference_mode():
            reference = model(images)
        maps = engine(images)
        assert [raw.dtype for raw in maps] == [torch.float32] * 2
        torch.testing.assert_close(maps, reference, rtol=1e-3, atol=1e-3)


def test_a_network_that_computes_no_number_is_refused(engine_name: str) -> None:
    model = trained()
    with torch.no_grad():
        model.layers[7].conv.bias[3] = math.inf
    with pytest.raises(InputError, match="computes"):
        open_engine(engine_name, model, EngineOptions((96, 64), batch=2))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_agrees_with_nothing(value: float) -> None:
    finite, wrong = [torch.ones(1, 2, 1, 1)], [torch.tensor([1.0, value]).view(1, 2, 1, 1)]
    assert maps_agree(finite, finite, 0.1)
    for maps, reference in ((finite, wrong), (wrong, finite), (wrong, wrong)):
        assert not maps_agree(maps, reference, 0.1)


def test_the_network_itself_stays_as_it_was() -> None:
    model = trained()
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        before = model(images)
        open_engine("torch", model, OPTIONS)(images)
        after = model(images)
    for a, b in zip(before, after, strict=True):
        assert a.equal(b)


@pytest.mark.parametrize("name", ["yolov3-tiny", "yolov3-mobilenetv2-trimmed", "yolov3-lite"])
def test_torch_runs_shipped_networks(name: str) -> None:
    model = trained((ROOT / "config" / f"{name}.cfg").read_text())
    images = torch.rand(1, 3, 96, 96)
    with torch.inference_mode():
        reference = model(images)
    maps = open_engine("torch", model, EngineOptions((96, 96)))(images)
    torch.testing.assert_close(maps, reference, rtol=1e-3, atol=1e-4)


def test_activations_that_onednn_lacks_or_has() -> None:
    for activation in ("linear", "relu", "swish", "logistic", "tanh", "elu", "gelu", "mish"):
        model = trained(
            "[net]\nwidth=32\nheight=32\n[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\n"
            f"pad=1\nstride=8\nactivation={activation}\n"
            "[yolo]\nmask=0\nanchors=9,9\nclasses=3\n"
        )
        images = torch.rand(1, 3, 32, 32)
        with torch.inference_mode():
            reference = model(images)
        maps = open_engine("torch", model, EngineOptions((32, 32)))(images)
        torch.testing.assert_close(maps, reference, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_near() -> None:
    if not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("this CPU does not compute in bfloat16")
    model = trained()
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        reference = model(images)
    maps = open_engine("torch", model, EngineOptions((64, 64), "bf16"))(images)
    assert [raw.dtype for raw in maps] == [torch.float32] * 2
    torch.testing.assert_close(maps, reference, rtol=0.05, atol=0.05)


def test_an_engine_gets_the_threads_that_are_asked_for_or_torchs_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[int] = []
    monkeypatch.setattr(
        registry, "_open", lambda name, model, options: opened.append(options.threads)
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    open_engine("torch", trained(), OPTIONS)
    open_engine("torch", trained(), EngineOptions((64, 64), threads=3))
    assert opened == [7, 3]


def test_images_of_another_size_are_refused() -> None:
    engine = open_engine("torch", trained(), OPTIONS)
    with pytest.raises(InputError, match="64"):
        engine(torch.rand(1, 3, 32, 64))


@pytest.mark.parametrize(
    ("name", "precision", "message"),
    [
        ("caffe", "fp32", "engine='caffe': expected auto or one of torch"),
        ("torch", "fp7", "precision='fp7'"),
        ("torch", "int8", "precision='int8': expected one of fp32"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(name: str, precision: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        open_engine(name, trained(), EngineOptions((64, 64), precision))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried"), MemoryError()]
)
def test_an_engine_that_memory_does_not_suffice_for_is_refused(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """So `auto` and benchmark.py go on with the others."""

    def fail(self: TorchEngine, images: torch.Tensor) -> list[torch.Tensor]:
        raise error

    monkeypatch.setattr(TorchEngine, "run", fail)
    with pytest.raises(InputError, match=r"torch.* out of memory on cpu with 1 images of 64x64"):
        open_engine("torch", Darknet(parse(CFG)), OPTIONS)


def test_what_is_not_installed_is_told_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = EngineEntry("torch_engine", "TorchEngine", ("torch", "no_such_package"))
    monkeypatch.setitem(ENGINES, "torch", missing)
    with pytest.raises(InputError, match="pip install no_such_package"):
        open_engine("torch", trained(), OPTIONS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("groups=8\npad=1", "dilation=2\npad=1", "computes something else"),
        ("from=-3", "from=-3,-2", "computes something else"),
        ("[route]\nlayers=-1,4", "[route]\nlayers=-1,4\ngroups=2", r"no head of \[yolo\]"),
    ],
)
def test_what_opencv_takes_for_something_else_is_refused(
    old: str, new: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It overlooks what it does not know, so a network may run, and find nothing."""
    model = trained(CFG.replace(old, new))
    with pytest.raises(InputError, match=f"engine='opencv': .*{message}"):
        open_engine("opencv", model, OPTIONS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said: list[str] = []
    assert open_engine("auto", model, OPTIONS, said.append).name != "opencv"
    (line,) = said
    assert "cannot run it: opencv" in line or "only one" in line
