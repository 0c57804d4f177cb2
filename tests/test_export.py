"""export.py and utils/backends/export.py: what is written opens, says the same, and is whole."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

import export as script
from import_param import Export, Nms, TrainedNetwork
from tests.conftest import next_commands
from tests.utils.backends.test_backends import CFG, trained
from utils.backends import export, install_command
from utils.backends.export import FORMATS, Format
from utils.checkpoint.network import Network, load_network
from utils.errors import InputError, run
from utils.visualization.draw import write_image


def need(kind: str, precision: str = "fp32") -> None:
    if command := install_command(FORMATS[kind].engine, precision):
        pytest.skip(f"{kind}: {command}")


@pytest.fixture
def network() -> Network:
    return Network(trained(), ("a", "b", "c"), (64, 64), False)


@pytest.fixture
def photos(tmp_path: Path) -> str:
    random = np.random.default_rng(0)
    for number in range(2):
        pixels = random.integers(0, 255, (48, 80, 3), np.uint8)
        write_image(tmp_path / "photos" / f"{number}.png", pixels)
    return str(tmp_path / "photos")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_format_is_written_whole(kind: str, network: Network, tmp_path: Path) -> None:
    need(kind)
    images = torch.rand(2, 3, 64, 64)
    exported = export.export(network, kind, tmp_path / "out" / "net", images, Export(), Nms())
    assert sorted(exported.files) == sorted((tmp_path / "out").iterdir())
    assert exported.difference <= 1e-3 * exported.largest
    assert exported.run is not None
    with torch.inference_mode():
        wanted = network.model(images[:1])
    for ours, theirs in zip(exported.run(images[:1]), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_a_darknet_pair_has_the_name_size_and_shape_that_it_is_used_with(
    network: Network, tmp_path: Path
) -> None:
    used = replace(network, size=(96, 64), letterbox=True)
    images = torch.rand(1, 3, 64, 96)
    exported = export.export(used, "darknet", tmp_path / "net-1.1", images, Export(), Nms())
    assert [file.name for file in exported.files] == [
        "net-1.1.weights", "net-1.1.cfg", "net-1.1.names",
    ]  # fmt: skip
    opened = load_network(TrainedNetwork(weights=str(exported.files[0]), device="cpu"))
    assert (opened.size, opened.letterbox) == (used.size, used.letterbox)


def test_what_computes_something_else_is_not_kept(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(source: object, stem: Path) -> export.Written:
        stem.with_suffix(".cfg").write_text("half")
        files = [stem.with_suffix(".cfg")]
        return export.Written(files, lambda batch: [m + 1 for m in network.model(batch)])

    monkeypatch.setitem(FORMATS, "darknet", Format(wrong, "torch"))
    with pytest.raises(InputError, match="differs by 1"):
        export.export(
            network, "darknet", tmp_path / "net", torch.rand(1, 3, 64, 64), Export(), Nms()
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_computes_no_number_is_not_kept(
    network: Network,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: float,
    precision: Literal["fp32", "int8"],
) -> None:
    """NaN is neither further from torch than anything, nor nearer."""
    need("onnx", precision)

    def wrong(source: object, stem: Path) -> export.Written:
        stem.with_suffix(".onnx").write_text("half")
        files = [stem.with_suffix(".onnx")]
        return export.Written(
            files, lambda batch: [torch.full_like(raw, value) for raw in network.model(batch)]
        )

    monkeypatch.setitem(FORMATS, "onnx", Format(wrong, "onnxruntime"))
    images, settings = torch.rand(1, 3, 64, 64), Export(precision=precision)
    with pytest.raises(InputError, match=f"what was written: computes {value}"):
        export.export(network, "onnx", tmp_path / "net", images, settings, Nms(), images)
    assert not list(tmp_path.iterdir())


def test_detections_that_are_no_number_are_not_kept(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(source: object, stem: Path) -> export.Written:
        boxes, labels = torch.full((3, 4), math.nan), torch.zeros(3)
        return export.Written([], lambda batch: [labels, labels, boxes, labels])

    monkeypatch.setitem(FORMATS, "onnx", Format(wrong, "torch"))
    with pytest.raises(InputError, match="what was written: computes nan"):
        images = torch.rand(1, 3, 64, 64)
        export.export(network, "onnx", tmp_path / "net", images, Export(nms=True), Nms())


@pytest.mark.slow
def test_a_dynamic_graph_takes_other_sizes(network: Network, tmp_path: Path) -> None:
    need("onnx")
    images = torch.rand(1, 3, 64, 64)
    exported = export.export(network, "onnx", tmp_path / "net", images, Export(dynamic=True), Nms())
    assert exported.run is not None
    other = torch.rand(3, 3, 96, 128)
    with torch.inference_mode():
        wanted = network.model(other)
    for ours, theirs in zip(exported.run(other), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("max_detections", [300, 0])
def test_nms_in_an_onnx_graph_finds_what_ours_finds(
    network: Network, max_detections: int, tmp_path: Path
) -> None:
    """`export` itself compares the detections, and refuses others."""
    need("onnx")
    photos, thresholds = torch.rand(2, 3, 64, 64), Nms(0.05, max_detections=max_detections)
    exported = export.export(
        network, "onnx", tmp_path / "net", photos, Export(nms=True), thresholds
    )
    assert exported.difference < 0.01
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    images = {"images": torch.rand(1, 3, 64, 64).numpy()}
    index, labels, boxes, scores = session.run(None, images)
    assert len(index) == len(labels) == len(boxes) == len(scores) > 0
    assert boxes.shape[1] == 4 and (scores > 0.05).all()


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        ("openvino", "fp32"),
        pytest.param("onnx", "int8", marks=pytest.mark.slow),
        pytest.param("openvino", "int8", marks=pytest.mark.slow),
    ],
)
def test_nms_in_a_file_finds_what_ours_finds_in_its_maps(
    network: Network, kind: str, precision: Literal["fp32", "int8"], tmp_path: Path
) -> None:
    need(kind, precision)
    photos, thresholds = torch.rand(8, 3, 64, 64), Nms(0.05)
    settings = Export(nms=True, precision=precision, int8_loss=1.0)
    exported = export.export(
        network, kind, tmp_path / "net", photos[:2], settings, thresholds, photos
    )
    assert exported.nms_inside and exported.difference < 0.01
    # The maps that int8's own NMS read are not float's.
    maps, float_maps = exported.run(photos[:1])[0], network.model(photos[:1])[0]
    assert ((maps - float_maps).abs().max() > 1e-3) == (precision == "int8")


def test_overlap_by_distance_is_refused(tmp_path: Path) -> None:
    need("onnx")
    model = trained(CFG.replace("num=2", "num=2\nnms_kind=diounms"))
    network = Network(model, ("a", "b", "c"), (64, 64), False)
    with pytest.raises(InputError, match="nms_kind"):
        images = torch.rand(1, 3, 64, 64)
        export.export(network, "onnx", tmp_path / "net", images, Export(nms=True), Nms())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_int8_is_near(kind: str, network: Network, tmp_path: Path) -> None:
    need(kind, "int8")
    photos = torch.rand(8, 3, 64, 64)
    settings = Export(precision="int8", int8_loss=1.0)
    exported = export.export(network, kind, tmp_path / "net", photos[:2], settings, Nms(), photos)
    assert 0 < exported.difference < 0.1 * exported.largest
    assert exported.int8_loss is not None and 0 <= exported.int8_loss < 0.3


def test_the_script_reports_what_it_wrote(
    colour_weights: str, photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--weights", colour_weights, "--source", photos, "--output", str(tmp_path / "out")]
    script.main([*flags, "--format", "darknet", "torchscript"])
    said = capsys.readouterr().out
    assert "on 2 photos" in said and f"network: {colour_weights}: " in said
    assert [name for name, _ in next_commands(said)] == ["detect_img"]
    report = json.loads((tmp_path / "out" / "export.json").read_text())
    assert set(report) == {"darknet", "torchscript"}
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {
        "colours.cfg", "colours.weights", "colours.names", "colours.torchscript",
        "colours.torchscript.README.md", "export.json", "export_settings.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    "flags",
    [
        ["--format", "tensorrt"],
        ["--format", "darknet", "--nms"],
        ["--format", "darknet", "--dynamic"],
        ["--format", "onnx", "--precision", "int8"],
        ["--format", "ncnn", "--nms"],
        ["--format", "onnx", "torchscript", "--nms"],
        ["--format", "onnx", "openvino", "--precision", "int8", "--dynamic"],
        ["--format", "onnx", "ncnn", "--precision", "int8"],
        ["--format", "darknet", "--source", "photos", "--output", "/dev/null/x"],
    ],
)
def test_what_cannot_be_is_one_line(
    flags: list[str],
    colour_weights: str,
    photos: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(Path(photos).parent)
    assert run(lambda: script.main(["--weights", colour_weights, *flags])) == 2
    assert capsys.readouterr().err.count("\n") == 1
