"""Does an exported file carry all that using it takes, and say it to people as well?"""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from import_param import Export, Nms
from tests.utils.backends.test_backends import CFG, trained
from utils.backends import export, install_command
from utils.backends.description import KEY, Description, describe, parse
from utils.backends.export import FORMATS
from utils.backends.file_readme import readme
from utils.checkpoint.network import Network
from utils.errors import InputError

NAMES = ("红", 'a "quoted" <name>', "c & d")
NMS = Nms(0.3, 0.5, 100)


def network(text: str = CFG, letterbox: bool = True) -> Network:
    return Network(trained(text), NAMES, (96, 64), letterbox)


def written(kind: str, folder: Path) -> str:
    """The description in a file, read by its library alone."""
    images = torch.rand(1, 3, 64, 96)
    files = export.export(network(), kind, folder / "net-1.1", images, Export(), NMS).files
    if kind == "onnx":
        import onnxruntime

        metadata = onnxruntime.InferenceSession(files[0]).get_modelmeta().custom_metadata_map
        return str(metadata[KEY])
    if kind == "openvino":
        import openvino

        return str(openvino.Core().read_model(files[0]).get_rt_info([KEY]).value)
    if kind == "torchscript":
        extra = {KEY: ""}
        torch.jit.load(str(files[0]), _extra_files=extra)
        return extra[KEY]
    return (folder / "net-1.1.ncnn.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "darknet"])
def test_a_file_carries_its_description_and_has_a_readme_beside_it(
    kind: str, tmp_path: Path
) -> None:
    if command := install_command(FORMATS[kind].engine):
        pytest.skip(command)
    description = parse(written(kind, tmp_path), "net")
    assert description.names == NAMES and description.network == "net-1.1"
    assert (description.size, description.letterbox) == ((96, 64), True)
    assert (description.nms.conf_thres, description.nms.nms_thres) == (0.3, 0.5)
    assert description.models_heads() == network().model.heads
    assert [head.stride for head in description.heads] == [8, 4]
    (page,) = tmp_path.glob("net-1.1*.README.md")
    text = page.read_text(encoding="utf-8")
    for said in ("letterbox", "96×64", "0 红", "30×30, 10×10", "sigmoid(objectness)", "above 0.5"):
        assert said in text


def test_a_description_is_read_as_it_was_written() -> None:
    for nms_inside in (False, True):
        description = describe(
            network(CFG.replace("num=2", "num=2\nscale_x_y=1.05")),
            "net",
            NMS,
            input_name="images",
            nms_inside=nms_inside,
        )
        assert parse(description.text(), "net.onnx") == description
        page = readme(description, "onnx", "net.onnx")
        assert ("image_index" in page) == nms_inside
        assert ("1.05" in page) == (not nms_inside)


def changed(**values: object) -> str:
    description = describe(network(), "net", NMS, input_name="images")
    return json.dumps({**dataclasses.asdict(description), **values})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "expected JSON"),
        ("[]", "expected values by name"),
        ("{}", "format=None: expected 1"),
        (changed(format=2), "format=2: expected 1"),
        (changed(names=[]), "names"),
        (changed(names=[1]), "names"),
        (changed(precision="fp8"), "precision"),
        (changed(heads=3), "heads=3"),
        (changed(heads=[]), "heads"),
        (changed(heads=[{"output": "map0"}]), "'anchors' is missing"),
        (changed(input={"name": "x", "width": 0, "height": 1, "varies": False, "stride": 1,
                        "fit": "stretch"}), "width=0"),
        (changed(nms=None), "nms"),
    ],
)  # fmt: skip
def test_what_is_no_description_is_told_in_a_line(text: str, told: str) -> None:
    with pytest.raises(InputError, match=r"net\.onnx: its description") as error:
        parse(text, "net.onnx")
    assert told in str(error.value)


def test_every_field_is_told_in_the_docs_of_its_class() -> None:
    for field in dataclasses.fields(Description):
        assert f"{field.name}: " in (Description.__doc__ or "")
