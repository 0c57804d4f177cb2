"""Which module does a section of a .cfg become? Each computes what Darknet does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.head import Head
from models.netdef import BN_EPSILON, Section


class Logistic(nn.Module):
    """The sigmoid, in float32.

    bfloat16 has no number between 0.996 and 1, and a [yolo] with `new_coords` must get back the
    logit.
    """

    def forward(self, x: Tensor) -> Tensor:
        """A map of any shape."""
        return (x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).sigmoid()


# In place where the gradient needs only the result: the map that an activation is applied to was
# made by the layer itself, so no other layer reads it.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "leaky": lambda: nn.LeakyReLU(0.1, inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "mish": nn.Mish,
    "swish": nn.SiLU,
    "silu": nn.SiLU,
    "logistic": Logistic,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": lambda: nn.GELU(approximate="tanh"),
}


def activation(section: Section, default: str = "logistic") -> nn.Module:
    """The section's activation.

    Raises:
        InputError: it is unknown, where Darknet would take relu.
    """
    return ACTIVATIONS[section.choice("activation", default, ACTIVATIONS)]()


def strides(section: Section, default: int = 1) -> tuple[int, int]:
    """The section's (vertical, horizontal) strides."""
    stride = section.integer("stride", default, at_least=1)
    return (
        section.integer("stride_y", stride, at_least=1),
        section.integer("stride_x", stride, at_least=1),
    )


@dataclass(frozen=True)
class Window:
    """The window of a convolution or a pooling, in pixels of the map that it slides over.

    Attributes:
        size: of its sides, without dilation.
        padding: of both borders of an axis together.
        dilation: distance between neighbouring values.
        strides: (vertical, horizontal) steps.
    """

    size: int
    padding: int
    dilation: int
    strides: tuple[int, int]

    @property
    def extent(self) -> int:
        """Its sides with dilation."""
        return (self.size - 1) * self.dilation + 1

    @staticmethod
    def of(section: Section) -> Window:
        """The window of a [convolutional] or of a pooling over windows."""
        steps = strides(section)
        if section.kind != "convolutional":
            size = section.integer("size", max(steps), at_least=1)
            return Window(size, section.integer("padding", size - 1, at_least=0), 1, steps)
        size = section.integer("size", 1, at_least=1)
        half = size // 2 if section.flag("pad") else section.integer("padding", 0, at_least=0)
        dilation = section.integer("dilation", 1, at_least=1)
        return Window(size, 2 * half * dilation, dilation, steps)  # Darknet widens padding, too


class Convolution(nn.Module):
    """Convolution, then batch normalisation or a bias, then an activation."""

    def __init__(self, section: Section, channels: int) -> None:
        """Build a [convolutional] that reads a map with `channels` channels."""
        super().__init__()
        window = Window.of(section)
        filters = section.integer("filters", 1, at_least=1)
        groups = section.integer("groups", 1, at_least=1)
        if channels % groups or filters % groups:
            raise section.error(
                f"expected a divisor of the {channels} input channels and the {filters} filters",
                "groups",
            )
        normalize = section.flag("batch_normalize")
        self.conv = nn.Conv2d(
            channels,
            filters,
            window.size,
            window.strides,
            window.padding // 2,
            window.dilation,
            groups,
            bias=not normalize,
        )
        self.bn = nn.BatchNorm2d(filters, eps=BN_EPSILON) if normalize else None
        self.activation = activation(section)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, H, W] → [B, filters, h, w]."""
        x = _StridedDepthwise.run(self.conv, x) if _slow_backward(self.conv, x) else self.conv(x)
        if self.bn is not None:
            # A batch of one value a channel (one photo, a 1x1 map) has no variance to learn from.
            alone = self.training and x.numel() == x.shape[1] and type(self.bn) is nn.BatchNorm2d
            x = _with_running_statistics(self.bn, x) if alone else self.bn(x)
        activated: Tensor = self.activation(x)
        return activated


def _slow_backward(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether a convolution is trained in bfloat16 on a CPU and `_StridedDepthwise` is faster."""
    depthwise = conv.groups == conv.in_channels > 1 and max(conv.stride) > 1 and conv.bias is None
    if not depthwise or x.device.type != "cpu" or not torch.is_grad_enabled():
        return False
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


class _StridedDepthwise(torch.autograd.Function):
    """A strided depthwise convolution in bfloat16, with the gradient of its map in float32.

    oneDNN has no quick way to that gradient in bfloat16: on one core it took 133 ms for a map of
    [8, 96, 160, 160], where float32 took 45. Training MobileNets became 1.1 to 1.3 times faster.
    """

    @staticmethod
    def run(conv: nn.Conv2d, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            y: Tensor = _StridedDepthwise.apply(x.bfloat16(), conv.weight.bfloat16(), conv)
        return y

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, conv: nn.Conv2d) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.conv = conv
        return F.conv2d(x, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient,), (x, weight), conv = gradients, ctx.saved_tensors, ctx.conv
        geometry = (conv.stride, conv.padding, conv.dilation, False, (0, 0), conv.groups)
        backward = torch.ops.aten.convolution_backward
        of_map, of_weight = None, None
        if ctx.needs_input_grad[0]:
            shape = torch.empty_like(x, dtype=torch.float32)  # its values do not matter
            tensors = (gradient.float(), shape, weight.float(), None)
            of_map = backward(*tensors, *geometry, (True, False, False))[0].to(x.dtype)
        if ctx.needs_input_grad[1]:
            of_weight = backward(gradient, x, weight, None, *geometry, (False, True, False))[1]
        return of_map, of_weight, None


def _with_running_statistics(bn: nn.BatchNorm2d, x: Tensor) -> Tensor:
    return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)


class Pool(nn.Module):
    """Maximum or mean over windows.

    Darknet pads by size - 1 in all: half of it on each side, an odd pixel right and below.
    """

    def __init__(self, section: Section) -> None:
        """Build a [maxpool] or [local_avgpool]."""
        super().__init__()
        window = Window.of(section)
        self.size, self.padding, self.stride = window.size, window.padding, window.strides
        self.mean = section.kind == "local_avgpool"

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C, h, w]."""
        before = self.padding // 2
        after = self.padding - before
        if self.mean:
            # Darknet counts only the pixels inside the image: sum and count are padded alike.
            ones = F.pad(torch.ones_like(x[:1, :1]), (before, after, before, after))
            padded = F.pad(x, (before, after, before, after))
            window = (self.size, self.size)
            count = F.avg_pool2d(ones, window, self.stride)
            return F.avg_pool2d(padded, window, self.stride) / count
        if self.size == 2 and self.padding == 1 and self.stride == (2, 2):
            # Windows may reach beyond the right and lower border: the same as padding there, but
            # without a padded copy of the map.
            return F.max_pool2d(x, 2, 2, ceil_mode=True)
        if before == after and before <= self.size // 2:
            return F.max_pool2d(x, self.size, self.stride, before)
        if self.stride == (1, 1) and after <= self.size // 2:
            # max_pool2d pads both sides alike: one pixel too many left and above, whose row and
            # column of the result are dropped.
            return F.max_pool2d(x, self.size, 1, after)[..., after - before :, after - before :]
        # Zeros would win over negative values after leaky; -inf never does.
        padded = F.pad(x, (before, after, before, after), value=-torch.inf)
        return F.max_pool2d(padded, self.size, self.stride)


class Shortcut(nn.Module):
    """A sum of maps, plain or weighted (Darknet's `weights_type`), then an activation."""

    WEIGHTS = ("none", "per_feature", "per_layer", "per_channel")
    NORMALIZATIONS = ("none", "relu", "avg_relu", "softmax")

    def __init__(self, section: Section, inputs: int, channels: int) -> None:
        """Build a [shortcut] of `inputs` maps, the first of which has `channels` channels."""
        super().__init__()
        kind = section.choice("weights_type", "none", self.WEIGHTS)
        self.normalization = section.choice("weights_normalization", "none", self.NORMALIZATIONS)
        self.weights: nn.Parameter | None = None
        if kind != "none":
            count = channels if kind == "per_channel" else 1
            self.weights = nn.Parameter(torch.ones(inputs, count))
        self.activation = activation(section, "linear")

    def forward(self, *inputs: Tensor) -> Tensor:
        """Maps [B, C, H, W] → their sum, of the first map's shape.

        As in Darknet and OpenCV, of two maps with c and d channels the first min(c, d) are added.
        """
        weights = self.normalized()
        others = [_with_channels(other, inputs[0].shape[1]) for other in inputs[1:]]
        if weights is None:
            total = inputs[0]
            for other in others:
                total = total + other
        else:
            total = inputs[0] * weights[0]
            for other, weight in zip(others, weights[1:], strict=True):
                total = total + other * weight
        activated: Tensor = self.activation(total)
        return activated

    def normalized(self) -> Tensor | None:
        """The factor of each input, [inputs, 1 or C, 1, 1]; None in a plain sum."""
        weights: Tensor | None = self.weights
        if weights is None:
            return None
        if self.normalization == "softmax":
            weights = weights.softmax(0)
        elif self.normalization in ("relu", "avg_relu"):
            positive = weights.relu()
            weights = positive / (positive.sum(0, keepdim=True) + 1e-4)
        return weights[:, :, None, None]


def _with_channels(x: Tensor, channels: int) -> Tensor:
    """A map's first `channels` channels, or with zeros after its own."""
    missing = channels - x.shape[1]
    if missing > 0:
        return F.pad(x, (0, 0, 0, 0, 0, missing))
    return x if missing == 0 else x[:, :channels]


class Scale(nn.Module):
    """A product of maps: [sam] point by point, [scale_channels] a [B, C, 1, 1] vector by a map."""

    def __init__(self, section: Section) -> None:
        """Build a [sam] or [scale_channels]."""
        super().__init__()
        self.activation = activation(section, "linear")

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """[B, C, H, W] or [B, C, 1, 1] by [B, C, H, W] → [B, C, H, W]."""
        activated: Tensor = self.activation(x * other)
        return activated


class Upsample(nn.Module):
    """Nearest neighbour, times `scale`."""

    def __init__(self, section: Section) -> None:
        """Build an [upsample]."""
        super().__init__()
        self.stride = section.integer("stride", 2, at_least=1)
        self.scale = section.number("scale", 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C, stride·H, stride·W]."""
        x = F.interpolate(x, scale_factor=float(self.stride), mode="nearest")
        return x if self.scale == 1 else x * self.scale


class Reorg(nn.Module):
    """Space to depth, in the order in which Darknet's reorg_cpu fills its output."""

    def __init__(self, section: Section) -> None:
        """Build a [reorg]."""
        super().__init__()
        self.stride = section.integer("stride", 1, at_least=1)
        if section.flag("reverse"):
            raise section.error("not supported here", "reverse")

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C·stride², H/stride, W/stride]."""
        b, c, h, w = x.shape
        s = self.stride
        # The map is read as one of c/s² channels at s times the size, whatever its true shape.
        x = x.reshape(b, c // (s * s), h, s, w, s)
        return x.permute(0, 3, 5, 1, 2, 4).reshape(b, c * s * s, h // s, w // s)


def dropout_probability(section: Section) -> float:
    """The share of values that a [dropout] sets to zero in training."""
    probability = section.number("probability", 0.5)
    if not 0 <= probability <= 1:
        raise section.error("expected a number from 0 to 1", "probability")
    return probability


Shape = tuple[int, int, int]  # channels, height, width


def shape_text(shape: Shape) -> str:
    """A shape as messages name it, such as 16x20x20."""
    return "x".join(map(str, shape))


def slide(section: Section, shape: Shape, channels: int) -> Shape:
    """The shape after the window of a convolution or a pooling has slid over a map.

    Raises:
        InputError: the window is larger than the padded map.
    """
    window = Window.of(section)
    _, height, width = shape
    down, right = window.strides
    free = (height + window.padding - window.extent, width + window.padding - window.extent)
    if min(free) < 0:
        size = f"{window.extent}x{window.extent}"
        raise section.error(f"window {size} does not fit into {shape_text(shape)}", "size")
    return channels, free[0] // down + 1, free[1] // right + 1


def _pooled(section: Section, shape: Shape) -> Shape:
    return slide(section, shape, shape[0])


def _upsampled(section: Section, shape: Shape) -> Shape:
    stride = section.integer("stride", 2, at_least=1)
    return shape[0], shape[1] * stride, shape[2] * stride


def _rearranged(section: Section, shape: Shape) -> Shape:
    channels, height, width = shape
    stride = section.integer("stride", 1, at_least=1)
    if channels % stride**2 or height % stride or width % stride:
        raise section.error(f"cannot rearrange {shape_text(shape)}", "stride")
    return channels * stride**2, height // stride, width // stride


def _head_map(section: Section, shape: Shape) -> Shape:
    head = Head.of(section)
    if head.channels != shape[0]:
        raise section.error(
            f"{shape[0]} channels before it, expected {len(head.anchors)}·(5+{head.classes})"
            f" = {head.channels}",
            "classes",
        )
    return shape


@dataclass(frozen=True)
class OneInput:
    """A kind of section that reads one map.

    Attributes:
        build: its module.
        shape: of its output, from the section and the shape of the map that it reads.
    """

    build: Callable[[Section], nn.Module]
    shape: Callable[[Section, Shape], Shape] = lambda section, shape: shape


# To add a section, write its entry here and its keys in models/netdef.py: KEYS.
ONE_INPUT = {
    "maxpool": OneInput(Pool, _pooled),
    "local_avgpool": OneInput(Pool, _pooled),
    "avgpool": OneInput(
        lambda section: nn.AdaptiveAvgPool2d(1), lambda section, shape: (shape[0], 1, 1)
    ),
    "upsample": OneInput(Upsample, _upsampled),
    "reorg": OneInput(Reorg, _rearranged),
    "dropout": OneInput(lambda section: nn.Dropout(dropout_probability(section))),
    "yolo": OneInput(lambda section: nn.Identity(), _head_map),  # models.head decodes
}


def build(section: Section, inputs: int, channels: int) -> nn.Module:
    """The module of a section.

    Args:
        section: of a layer, not [net].
        inputs: how many layers it reads.
        channels: of the first of them.
    """
    if section.kind == "convolutional":
        return Convolution(section, channels)
    if section.kind == "shortcut":
        return Shortcut(section, inputs, channels)
    if section.kind in ("sam", "scale_channels"):
        return Scale(section)
    if section.kind == "route":
        return nn.Identity()  # `propagate` concatenates
    return ONE_INPUT[section.kind].build(section)
