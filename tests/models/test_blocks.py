"""Does each section compute what OpenCV, an independent reader of Darknet's files, computes?"""

from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pytest
import torch

from models.blocks import ACTIVATIONS, Convolution, Pool, Shortcut, build
from models.darknet import Darknet, shapes
from models.netdef import Section, parse
from models.weights import write_weights
from utils.errors import InputError

NET = "[net]\nwidth=32\nheight=24\nchannels=3\n"
CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize={}\nstride={}\npad=1\nactivation={}\n"


def conv(filters: int, size: int = 3, stride: int = 1, activation: str = "leaky") -> str:
    return CONV.format(filters, size, stride, activation)


LAYERS = {
    "strided convolution": conv(8, 3, 2),
    "depthwise": conv(8) + conv(8).replace("pad=1", "pad=1\ngroups=8"),
    "padding given": conv(8, 5).replace("pad=1", "padding=1"),
    "no batch normalisation": conv(8).replace("batch_normalize=1\n", ""),
    "maxpool 2/2": conv(8) + "[maxpool]\nsize=2\nstride=2\n",
    "maxpool 2/1": conv(8) + "[maxpool]\nsize=2\nstride=1\n",
    "maxpool 3/2": conv(8) + "[maxpool]\nsize=3\nstride=2\n",
    "spatial pyramid": conv(8)
    + "[maxpool]\nsize=5\nstride=1\n[route]\nlayers=-2\n"
    + "[maxpool]\nsize=9\nstride=1\n[route]\nlayers=-4\n"
    + "[maxpool]\nsize=13\nstride=1\n[route]\nlayers=-1,-3,-5,-6\n",
    "upsample and route": conv(8) + conv(6, 3, 2) + "[upsample]\nstride=2\n[route]\nlayers=-1,0\n",
    "grouped route": conv(8) + "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n" + conv(4),
    "shortcut": conv(8) + conv(4) + conv(8) + "[shortcut]\nfrom=-3\nactivation=linear\n",
    "shortcut with leaky": conv(8) + conv(8) + "[shortcut]\nfrom=-2\nactivation=leaky\n",
    "reorg": conv(8) + "[reorg]\nstride=2\n",
    "squeeze and excite": conv(8)
    + "[avgpool]\n"
    + conv(8, 1, 1, "logistic")
    + "[scale_channels]\nfrom=-3\nactivation=linear\n",
    "dropout": conv(8) + "[dropout]\nprobability=.5\n" + conv(8),
    **{f"activation {name}": conv(8, 3, 1, name) for name in ("relu", "mish", "swish", "logistic")},
}


def randomize_(model: Darknet, seed: int) -> None:
    """Weights, BN scales, shifts and statistics unlike those of a fresh network."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.4, generator=generator)


def opencv_output(tmp_path: Path, text: str, model: Darknet, image: torch.Tensor) -> np.ndarray:
    (tmp_path / "net.cfg").write_text(text)
    write_weights(tmp_path / "net.weights", model)
    net = cv2.dnn.readNetFromDarknet(str(tmp_path / "net.cfg"), str(tmp_path / "net.weights"))
    net.setInput(image.numpy())
    return np.asarray(net.forward())


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_layers_compute_what_opencv_computes(layers: str, tmp_path: Path) -> None:
    # A last plain convolution, since OpenCV gives the last layer's output, and ours the heads'.
    text = NET + layers + "[convolutional]\nfilters=18\nsize=1\nactivation=linear\n"
    head = "[yolo]\nmask=0,1,2\nanchors=1,2,3,4,5,6\nclasses=1\nnum=3\n"
    model = Darknet(parse(text + head)).eval()
    randomize_(model, 0)
    image = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = model(image)[0].numpy()
    theirs = opencv_output(tmp_path, text, model, image)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_activations_at_known_points() -> None:
    x = torch.tensor([-2.0, 0.0, 2.0])
    expected = {
        "linear": [-2, 0, 2],
        "leaky": [-0.2, 0, 2],
        "relu": [0, 0, 2],
        "logistic": [0.1192, 0.5, 0.8808],
        "swish": [-0.2384, 0, 1.7616],
        "mish": [-0.2525, 0, 1.9440],
    }
    for name, values in expected.items():
        torch.testing.assert_close(
            ACTIVATIONS[name]()(x.clone()),
            torch.tensor(values, dtype=torch.float32),
            rtol=0,
            atol=1e-4,
        )
    assert ACTIVATIONS["relu6"]()(torch.tensor(9.0)) == 6


def test_maxpool_never_prefers_its_padding() -> None:
    pool = Pool(Section("maxpool", {"size": "2", "stride": "1"}))
    assert torch.equal(pool(torch.full((1, 1, 3, 3), -5.0)), torch.full((1, 1, 3, 3), -5.0))


def test_local_mean_counts_only_what_is_there() -> None:
    pool = Pool(Section("local_avgpool", {"size": "2", "stride": "1"}))
    assert torch.equal(pool(torch.full((2, 3, 3, 3), 7.0)), torch.full((2, 3, 3, 3), 7.0))


@pytest.mark.parametrize("normalization", ["relu", "softmax"])
def test_weighted_shortcuts_are_weighted_means(normalization: str) -> None:
    section = Section(
        "shortcut", {"weights_type": "per_channel", "weights_normalization": normalization}
    )
    shortcut = Shortcut(section, inputs=2, channels=3)
    total = shortcut(torch.full((1, 3, 2, 2), 1.0), torch.full((1, 3, 2, 2), 3.0))
    torch.testing.assert_close(total, torch.full((1, 3, 2, 2), 2.0), rtol=1e-3, atol=1e-3)


def test_dilation_widens_the_padding_as_in_darknet() -> None:
    section = {"filters": "4", "size": "3", "pad": "1", "dilation": "2", "activation": "linear"}
    layer = Convolution(Section("convolutional", section), 3)
    assert layer(torch.rand(1, 3, 48, 48)).shape == (1, 4, 48, 48)
    text = NET + "[convolutional]\n" + "".join(f"{k}={v}\n" for k, v in section.items())
    assert shapes(parse(text))[0] == (4, 24, 32)


def test_one_value_a_channel_does_not_stop_a_training() -> None:
    layer = Convolution(Section("convolutional", {"filters": "4", "batch_normalize": "1"}), 3)
    assert layer.train()(torch.rand(1, 3, 1, 1)).isfinite().all()


@pytest.mark.parametrize(
    "options",
    [
        {"stride": "2"},
        {"stride": "2", "filters": "12"},
        {"stride_x": "2", "size": "5"},
        {"stride": "3", "dilation": "2"},
        {"stride": "2", "batch_normalize": "0"},
    ],
)
def test_strided_depthwise_layers_train_in_bfloat16(options: dict[str, str]) -> None:
    base = {"filters": "6", "groups": "6", "size": "3", "pad": "1", "batch_normalize": "1"}
    section = {**base, **options, "activation": "linear"}
    layer = Convolution(Section("convolutional", section), 6).train()
    x = torch.randn(2, 6, 12, 14).contiguous(memory_format=torch.channels_last).requires_grad_()
    wanted = layer(x)
    slope = torch.randn_like(wanted)
    gradients = torch.autograd.grad(wanted, (x, layer.conv.weight), slope)
    usual = ExitStack() if layer.bn is None else patch.object(layer.conv, "forward", None)
    with torch.autocast("cpu", torch.bfloat16), usual:
        found = layer(x)
    assert found.dtype == torch.bfloat16
    again = torch.autograd.grad(found, (x, layer.conv.weight), slope.bfloat16())
    for ours, theirs in zip((found, *again), (wanted, *gradients), strict=True):
        assert ours.shape == theirs.shape and bool((ours != 0).any())
        assert (ours.float() - theirs).norm() < 0.02 * theirs.norm()
    layer.conv.weight.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        (alone,) = torch.autograd.grad(layer(x), x, slope.bfloat16())
    torch.testing.assert_close(alone, again[0])


def test_a_sigmoid_of_bfloat16_can_be_undone() -> None:
    logits = torch.tensor([7.0, -7.0], dtype=torch.bfloat16)
    again = torch.logit(ACTIVATIONS["logistic"]()(logits), eps=1e-7)
    torch.testing.assert_close(again, logits.float(), rtol=1e-2, atol=0)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 8), (8, 5)])
def test_quick_ways_to_pool_equal_padding_with_infinity(stride: int, size: tuple[int, int]) -> None:
    section = parse(
        f"[net]\nchannels=2\nwidth=8\nheight=8\n[maxpool]\nsize=2\nstride={stride}\n"
    ).layers[0]
    x = torch.randn(2, 2, *size) - 5
    padded = torch.nn.functional.pad(x, (0, 1, 0, 1), value=-torch.inf)
    assert Pool(section)(x).equal(torch.nn.functional.max_pool2d(padded, 2, stride))


def section(text: str) -> Section:
    return parse(f"[net]\n{text}").layers[0]


def test_an_upsampled_map_is_scaled() -> None:
    x = torch.rand(1, 2, 3, 4)
    y = build(section("[upsample]\nstride=2\nscale=0.5\n"), 1, 2)(x)
    assert torch.equal(y[..., ::2, ::2], x / 2) and torch.equal(y[..., 1::2, 1::2], x / 2)


@pytest.mark.parametrize("probability", [0, 0.3, 1])
def test_a_dropout_has_its_probability(probability: float) -> None:
    assert build(section(f"[dropout]\nprobability={probability}\n"), 1, 2).p == probability


def test_a_local_mean_counts_the_pixels_inside_only() -> None:
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    y = build(section("[local_avgpool]\nsize=3\nstride=1\n"), 1, 1)(x)
    assert y[0, 0, 1, 1] == 4 and y[0, 0, 0, 0] == (0 + 1 + 3 + 4) / 4


@pytest.mark.parametrize(("size", "padding"), [(2, 4), (3, 3), (5, 4), (5, 3), (2, 2), (3, 5)])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_maximum_is_over_a_padded_map_whatever_the_padding(
    size: int, padding: int, stride: int
) -> None:
    """Half of it on each side, an odd one right and below; nothing outside is the maximum."""
    x = -torch.rand(1, 2, 7, 6)
    text = f"[maxpool]\nsize={size}\nstride={stride}\npadding={padding}\n"
    before = padding // 2
    padded = torch.full((1, 2, 7 + padding, 6 + padding), -torch.inf)
    padded[..., before : before + 7, before : before + 6] = x
    windows = padded.unfold(2, size, stride).unfold(3, size, stride)
    assert torch.equal(build(section(text), 1, 2)(x), windows.amax((-1, -2)))


@pytest.mark.parametrize(("channels", "filters"), [(4, 6), (6, 4)])
def test_groups_divide_inputs_and_filters(channels: int, filters: int) -> None:
    text = f"[convolutional]\ngroups=4\nfilters={filters}\n"
    with pytest.raises(InputError, match="expected a divisor of the"):
        build(section(text), 1, channels)
