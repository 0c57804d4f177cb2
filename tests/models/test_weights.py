"""Do Darknet's files come in and go out unchanged, and are damaged ones refused?"""

from pathlib import Path

import numpy as np
import pytest
import torch

from models import netdef
from models.darknet import Darknet
from models.netdef import parse
from models.weights import Header, fill_, read_weights, to_bytes, torchvision_trunk, write_weights
from tests.conftest import ROOT
from tests.models.test_darknet import RESIDUAL
from utils.errors import InputError

FIRST, SECOND, LAST = (
    8 * 3 * 9 + 4 * 8,
    8 * 8 * 9 + 4 * 8,
    12 * 7 + 7,
)  # floats of RESIDUAL's layers


def small(seed: int = 0) -> Darknet:
    torch.manual_seed(seed)
    return Darknet(parse(RESIDUAL))


@pytest.mark.parametrize("version", [(0, 1, 0), (0, 2, 0), (0, 2, 5)])
def test_a_round_trip_is_equal_to_the_byte(version: tuple[int, int, int], tmp_path: Path) -> None:
    first, second = tmp_path / "a.weights", tmp_path / "b.weights"
    model, other = small(0), small(1)
    write_weights(first, model, Header(version, 12345))
    state, header = read_weights(first, model.netdef)
    assert header == Header(version, 12345)
    assert not fill_(other, state, first).missing
    write_weights(second, other, header)
    assert first.read_bytes() == second.read_bytes()
    length = 20 if version[1] == 2 else 16
    assert first.stat().st_size == length + 4 * (FIRST + SECOND + LAST)
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.eval()(x)[0], other.eval()(x)[0])


def test_the_order_is_darknets(tmp_path: Path) -> None:
    """Shifts, scales, means, variances, kernel; or bias, kernel."""
    model = small()
    bn = model.layers[0].bn
    for value, tensor in enumerate([bn.bias, bn.weight, bn.running_mean, bn.running_var], 1):
        tensor.data.fill_(value)
    write_weights(tmp_path / "a.weights", model)
    floats = np.fromfile(tmp_path / "a.weights", "<f4", offset=20)
    assert floats[:32].tolist() == [1] * 8 + [2] * 8 + [3] * 8 + [4] * 8
    kernel = model.layers[0].conv.weight.detach().numpy().ravel()
    assert np.array_equal(floats[32:FIRST], kernel)
    assert np.array_equal(floats[FIRST + SECOND :][:7], model.layers[5].conv.bias.detach().numpy())


def test_a_cut_off_file_fills_the_layers_that_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "small.conv.1"
    write_weights(path, small(0), layers=1)
    model = small(1)
    filled = fill_(model, read_weights(path, model.netdef)[0], path)
    assert filled.layers == (0,)
    assert str(filled) == "filled 1 of 3 layers that hold weights; not layer 1, 5: not in the file"


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (-4, f"{FIRST + SECOND + LAST - 1} floats: layer 5 ends at {FIRST + SECOND + LAST}"),
        (4, f"{FIRST + SECOND + LAST + 1} floats found, expected {FIRST + SECOND + LAST}"),
        (-2, "expected whole 4-byte floats"),
    ],
)
def test_a_wrong_length_says_what_was_expected(size: int, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.weights"
    write_weights(path, small())
    data = path.read_bytes()
    path.write_bytes(data[:size] if size < 0 else data + bytes(size))
    with pytest.raises(InputError) as error:
        read_weights(path, small().netdef)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("tensor", "value", "message"),
    [
        ("conv.weight", float("nan"), "conv.weight holds nan"),
        ("conv.weight", 1e300, "conv.weight holds inf"),  # of float64, in a .pt
        ("bn.bias", -float("inf"), "bn.bias holds -inf"),
        ("bn.running_mean", float("nan"), "bn.running_mean holds nan"),
        ("bn.running_var", -1.0, "a variance of -1: expected more than -1e-06"),
        ("bn.running_var", -1e-6, "a variance of -1e-06: expected more than -1e-06"),
    ],
)
def test_values_that_no_network_computes_with_are_refused(
    tensor: str, value: float, message: str
) -> None:
    state = {name: values.double() for name, values in small(0).state_dict().items()}
    state[f"layers.1.{tensor}"][0] = value
    with pytest.raises(InputError, match=rf"^a\.pt: layer 1: {message}"):
        fill_(small(1), state, "a.pt")


def test_a_tiny_negative_variance_is_computed_with(tmp_path: Path) -> None:
    """MobileNetV2-YOLO-Fastest holds one of -7e-44."""
    model, other = small(0), small(1)
    model.layers[1].bn.running_var[0] = -7e-44
    write_weights(tmp_path / "a.weights", model)
    fill_(other, read_weights(tmp_path / "a.weights", other.netdef)[0], "a.weights")
    assert other.layers[1].bn.running_var[0] == model.layers[1].bn.running_var[0] < 0
    assert all(raw.isfinite().all() for raw in other.eval()(torch.rand(1, 3, 32, 32)))


@pytest.mark.parametrize("length", [0, 11, 14, 20])
def test_a_file_without_layers_is_refused(length: int, tmp_path: Path) -> None:
    path = tmp_path / "a.weights"
    path.write_bytes(Header().to_bytes()[:length])
    with pytest.raises(InputError, match=r"a\.weights: "):
        read_weights(path, small().netdef)


def test_a_file_far_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.weights"
    with path.open("wb") as file:
        file.truncate(2**40)  # on the disk it takes nothing
    with pytest.raises(InputError, match=r"a\.weights: 1099511627776 bytes: expected at most"):
        read_weights(path, small().netdef)


def test_a_layer_of_another_shape_is_named() -> None:
    model = small()
    other = Darknet(
        parse(RESIDUAL.replace("filters=7", "filters=8").replace("classes=2", "classes=3"))
    )
    filled = fill_(model, other.state_dict(), "a.pt")
    assert filled.layers == (0, 1)
    assert filled.missing == ((5, "conv.bias is 8 in the file and 7 here"),)


def test_shared_files_round_trip(shared: Path, tmp_path: Path) -> None:
    for path in sorted(shared.glob("weights/*/*.weights")):
        model = Darknet(netdef.load(path.with_suffix(".cfg")))
        state, header = read_weights(path, model.netdef)
        assert not fill_(model, state, "a").missing
        write_weights(tmp_path / "again.weights", model, header)
        assert (tmp_path / "again.weights").read_bytes() == path.read_bytes()


def test_the_shared_cut_off_file_fills_layers_0_to_56(shared: Path, tmp_path: Path) -> None:
    folder = shared / "weights/mobilenetv2-nano"
    model = Darknet(netdef.load(folder / "MobileNetV2-YOLOv3-Nano-coco.cfg"))
    state, header = read_weights(folder / "MobileNetV2-Nano.57", model.netdef)
    filled = fill_(model, state, "a")
    assert max(filled.layers) < 57 <= min(index for index, _ in filled.missing)
    write_weights(tmp_path / "again.57", model, header, layers=57)
    original = (folder / "MobileNetV2-Nano.57").read_bytes()
    assert (tmp_path / "again.57").read_bytes() == original


def test_torchvisions_trunk_computes_what_torchvision_computes() -> None:
    """But for activations, which are made equal here, and a border of one pixel."""
    import torchvision

    torch.manual_seed(0)
    theirs = torchvision.models.mobilenet_v2(weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.eps = 1e-6
    model = Darknet(netdef.load(ROOT / "config/yolov3-mobilenetv2.cfg")).eval()
    state = torchvision_trunk(theirs.state_dict(), model, "x.pth")
    filled = fill_(model, state, "a")
    assert len(filled.layers) == 52 and filled.layers[0] == 0
    for module in model.layers:
        if isinstance(getattr(module, "activation", None), torch.nn.LeakyReLU):
            module.activation = torch.nn.ReLU6()
    image = torch.rand(1, 3, 256, 256)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    stem = theirs.features[0]
    with torch.no_grad():
        ours = model.layers[0](image)
        expected = stem((image - mean) / std)
    torch.testing.assert_close(ours[..., 1:, 1:], expected[..., 1:, 1:], rtol=1e-4, atol=1e-4)


def test_a_foreign_trunk_is_refused() -> None:
    with pytest.raises(InputError, match=r"x\.pth: its first convolution"):
        torchvision_trunk({"a.weight": torch.zeros(5, 3, 7, 7)}, small(), "x.pth")


@pytest.mark.parametrize("own", [1e-6, 1e-5])
@pytest.mark.parametrize("readers", [1e-6, 1e-5])
def test_variances_are_stored_for_what_a_reader_adds(
    own: float, readers: float, tmp_path: Path
) -> None:
    """Also where they are tiny: what is stored may be below 0, and the reader's sum never is."""
    torch.manual_seed(0)
    model = Darknet(parse(RESIDUAL).with_net_options(bn_epsilon=own))
    model.layers[0].bn.running_var.copy_(torch.logspace(-9, 0, 8))
    (tmp_path / "a.weights").write_bytes(to_bytes(model, epsilon=readers))
    reader = Darknet(model.netdef.with_net_options(bn_epsilon=readers))
    assert reader.layers[0].bn.eps == readers
    fill_(reader, read_weights(tmp_path / "a.weights", reader.netdef)[0], "a.weights")
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected, found = model.eval()(images)[0], reader.eval()(images)[0]
    assert (expected - found).abs().max() < 1e-4 * expected.abs().max()


def test_a_bn_epsilon_that_is_none_is_refused() -> None:
    for value in ("0", "-1", "nan", "1"):
        with pytest.raises(InputError, match=r"bn_epsilon='.*': expected a number"):
            parse(RESIDUAL.replace("[net]", f"[net]\nbn_epsilon={value}"))
