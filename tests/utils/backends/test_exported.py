"""Does an exported file do as a network, and does it say what it is not?"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import detect_img
import test as test_script
import yolov3
from import_param import Export, Nms, TrainedNetwork
from tests.conftest import COLOURS
from utils.backends import export, install_command
from utils.backends.exported import open_file
from utils.checkpoint.network import load_network
from utils.errors import InputError, run
from utils.visualization.draw import write_image

MAIN_FILES = {"onnx": "net.onnx", "openvino": "net.xml", "ncnn": "net.ncnn.param"}
ENGINES = {"onnx": "onnxruntime", "openvino": "openvino", "ncnn": "ncnn"}
RED = np.full((96, 128, 3), (255, 0, 0), np.uint8)

Exporter = Callable[..., Path]


@pytest.fixture
def exported(colour_weights: str, tmp_path: Path) -> Exporter:
    """Writes the network of `colour_weights`, and gives the file that others open."""

    def write(kind: str, **settings: bool) -> Path:
        if command := install_command(ENGINES[kind]):
            pytest.skip(command)
        network = load_network(TrainedNetwork(weights=colour_weights, device="cpu"))
        images = torch.rand(1, 3, 64, 64)
        options = Export(format=(kind,), **settings)  # type: ignore[arg-type]
        export.export(network, kind, tmp_path / "out" / "net", images, options, Nms())
        return tmp_path / "out" / MAIN_FILES[kind]

    return write


KINDS = [
    ("onnx", {}),
    ("onnx", {"nms": True}),
    ("onnx", {"dynamic": True}),
    ("onnx", {"dynamic": True, "nms": True}),
    ("openvino", {}),
    ("openvino", {"nms": True}),
    ("ncnn", {}),
]


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_a_file_detects_what_its_network_detects(
    kind: str, settings: dict[str, bool], exported: Exporter, colour_weights: str
) -> None:
    wanted, detector = yolov3.load(colour_weights)(RED), yolov3.load(exported(kind, **settings))
    assert detector.names == COLOURS
    for result in (detector(RED), *detector([RED, RED])):
        assert result.labels.tolist() == wanted.labels.tolist() == [0] * 4
        assert sorted(result.boxes.tolist()) == pytest.approx(
            np.array(sorted(wanted.boxes.tolist())), abs=1e-3
        )
        assert result.scores == pytest.approx(wanted.scores, abs=1e-5)


def data_set(folder: Path) -> str:
    """Photos of one colour each, of which one is labelled as another, and boxes that are off."""
    colours = {"red": 0, "green": 1, "blue": 2, "blue_too": 1}
    for name, label in colours.items():
        pixels = np.zeros((96, 128, 3), np.uint8)
        pixels[..., COLOURS.index(name.partition("_")[0])] = 255
        write_image(folder / "images" / f"{name}.png", pixels)
        (folder / "images" / f"{name}.txt").write_text(f"{label} 0.25 0.25 0.3 0.3\n")
    (folder / "set.names").write_text("\n".join(COLOURS))
    (folder / "set.data").write_text("names = set.names\nvalid = images\n")
    return str(folder / "set.data")


@pytest.mark.parametrize("kind", MAIN_FILES)
def test_a_file_has_the_map_of_its_network(
    kind: str, exported: Exporter, colour_weights: str, tmp_path: Path
) -> None:
    data = data_set(tmp_path / "set")
    measured = {}
    for name, weights in {"network": colour_weights, "file": str(exported(kind))}.items():
        output = tmp_path / name
        test_script.main(["--weights", weights, "--data", data, "--output", str(output)])
        measured[name] = json.loads((output / "metrics.json").read_text())
    for figure in ("mAP", "mAP@.5:.95", "precision", "recall"):
        assert measured["file"][figure] == pytest.approx(measured["network"][figure], abs=1e-6)
    assert 0 < measured["file"]["mAP"] < 1


def test_a_dynamic_file_takes_another_size(exported: Exporter, colour_weights: str) -> None:
    wanted = yolov3.load(colour_weights, img_size=96)(RED)
    result = yolov3.load(exported("onnx", dynamic=True), img_size=96)(RED)
    assert sorted(result.boxes.tolist()) == pytest.approx(
        np.array(sorted(wanted.boxes.tolist())), abs=1e-3
    )
    assert len(result) == 9


def test_an_onnx_file_runs_on_openvino_too(exported: Exporter) -> None:
    if command := install_command("openvino"):
        pytest.skip(command)
    assert len(yolov3.load(exported("onnx"), engine="openvino")(RED)) == 4


def test_stricter_thresholds_do_where_nms_is_in_the_file(exported: Exporter) -> None:
    path = exported("onnx", nms=True)
    assert len(yolov3.load(path, max_detections=3)(RED)) == 3
    assert len(yolov3.load(path, conf_thres=0.999)(RED)) == 0


@pytest.mark.parametrize(
    ("settings", "flags", "told"),
    [
        ({}, ["--img_size", "96"], "reads 64x64 px only"),
        ({}, ["--engine", "torch"], "runs on onnxruntime or openvino"),
        ({}, ["--precision", "bf16"], "computes in fp32"),
        ({}, ["--device", "cuda"], "runs on the cpu"),
        ({}, ["--cfg", "net.cfg"], "needs no .cfg"),
        ({"dynamic": True}, ["--img_size", "80"], "expected a multiple of 32"),
        ({"nms": True}, ["--conf_thres", "0.1"], "expected at least that"),
        ({"nms": True}, ["--nms_thres", "0.6"], "expected that"),
    ],
)
def test_what_a_file_is_not_is_told_in_a_line(
    settings: dict[str, bool],
    flags: list[str],
    told: str,
    exported: Exporter,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_image(tmp_path / "red.png", RED)
    paths = ["--weights", str(exported("onnx", **settings)), "--source", str(tmp_path / "red.png")]
    output = ["--output", str(tmp_path / "detected")]
    assert run(lambda: detect_img.main([*paths, *output, *flags])) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_classes_are_compared_by_the_rule_of_all(
    exported: Exporter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_set(tmp_path / "set")
    (tmp_path / "set" / "set.names").write_text("green\nred\nblue")
    flags = ["--weights", str(exported("onnx")), "--data", data, "--output", str(tmp_path / "o")]
    assert run(lambda: test_script.main(flags)) == 2
    assert "expected its order" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x00" * 100])
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_what_is_no_network_is_told(content: bytes, suffix: str, tmp_path: Path) -> None:
    if suffix == ".xml":
        pytest.importorskip("openvino")  # without it, its line says how to install it
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.(onnx|xml)"):
        open_file(path)


def test_a_foreign_file_is_told(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from tests.utils.backends.test_backends import trained
    from utils.backends.onnx_graph import to_onnx

    onnx.save(onnx.load_from_string(to_onnx(trained(), (64, 64))), tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r"other\.onnx: does not say .* export\.py"):
        yolov3.load(tmp_path / "other.onnx")
    (tmp_path / "other.param").write_text("7767517\n")
    with pytest.raises(InputError, match=r"expected other\.json beside it"):
        yolov3.load(tmp_path / "other.param")
    with pytest.raises(InputError, match="no such file"):
        yolov3.load(tmp_path / "missing.onnx")


def test_a_file_that_computes_something_else_than_it_tells_is_refused(exported: Exporter) -> None:
    onnx = pytest.importorskip("onnx")
    path = exported("onnx")
    model = onnx.load(path)
    description = json.loads(model.metadata_props[0].value)
    description["names"].append("a fourth")
    model.metadata_props[0].value = json.dumps(description)
    onnx.save(model, path)
    with pytest.raises(InputError, match="expected what it describes"):
        yolov3.load(path)
