"""Networks to cut: the ones in config/, thinner, and random ones of every legal section."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from import_param import Pruning
from models import netdef as cfg_files
from models.blocks import Convolution, Shortcut
from models.darknet import Darknet, propagate
from models.netdef import NetDef, parse
from pruning.batch_norm import reestimate_bn_
from pruning.channels import Bools, channel_groups
from pruning.importance import Importance
from pruning.residual_blocks import residual_blocks
from pruning.surgeon import Plan
from tests.conftest import ROOT
from utils.structures import Batch

CONFIGS = sorted(path.stem for path in (ROOT / "config").glob("*.cfg"))


def config(name: str, size: int = 64, thinner: int = 1) -> NetDef:
    """One of config/, for a small input, with so many times fewer channels."""
    netdef = cfg_files.load(ROOT / f"config/{name}.cfg")
    layers = list(netdef.layers)
    for index, section in enumerate(layers):
        if section.kind == "convolutional" and section.flag("batch_normalize"):
            filters = max(4, section.integer("filters") // thinner)
            options = {"filters": filters}
            if section.integer("groups", 1) > 1:
                options["groups"] = filters
            layers[index] = section.with_options(**options)
    small = replace(netdef, layers=tuple(layers))
    return small.with_net_options(width=size, height=size).with_classes(2)


def trained(netdef: NetDef, seed: int) -> Darknet:
    """Any weights, with scales and shifts of every sign, and statistics that fit them.

    No variance is tiny, as that of a channel that is nearly constant would be: it would blow the
    rounding of float32 up in every layer after it.
    """
    torch.manual_seed(seed)
    model = Darknet(netdef)
    with torch.no_grad():
        for layer in model.layers:
            if isinstance(layer, Shortcut) and layer.weights is not None:
                layer.weights.uniform_(0.2, 1.5)
            if isinstance(layer, Convolution):
                for tensor in (layer.conv.bias, *(layer.bn.parameters() if layer.bn else ())):
                    if tensor is not None:
                        tensor.uniform_(-1.5, 1.5)
    reestimate_bn_(model, [as_batch(photos(netdef, 4, seed))], 1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.clamp_(min=0.1)
    return model.eval()


def pruning_target(percent: float, percent_of: Any = "channels", **more: Any) -> Pruning:
    """What to cut; layers keep any number of channels unless `round_to` says otherwise."""
    return Pruning(**{"percent": percent, "percent_of": percent_of, "round_to": 1, **more})


def random_importance(netdef: NetDef, seed: int = 0) -> Importance:
    """Any importance of every channel whose layer has batch normalisation."""
    rng = np.random.default_rng(seed)
    return {
        index: rng.random(section.integer("filters"))
        for index, section in enumerate(netdef.layers)
        if section.kind == "convolutional" and section.flag("batch_normalize")
    }


def photos(netdef: NetDef, count: int = 2, seed: int = 0) -> Tensor:
    """Soft patches of colour with a little noise."""
    width, height = netdef.size
    generator = torch.Generator().manual_seed(seed)
    patches = torch.rand(count, netdef.channels, 5, 5, generator=generator)
    noise = torch.rand(count, netdef.channels, height, width, generator=generator)
    return 0.8 * F.interpolate(patches, (height, width), mode="bilinear") + 0.2 * noise


def as_batch(images: Tensor) -> Batch:
    nothing = torch.zeros(0, dtype=torch.int64)
    return Batch(images, torch.zeros(0, 4), nothing, nothing, (), ())


def random_plan(netdef: NetDef, rng: random.Random, with_blocks: bool = True) -> Plan:
    """Any plan that is legal: at least one unit of each group stays."""
    channels = channel_groups(netdef)
    keep = np.ones(channels.count, bool)
    for group in channels.groups:
        if not group.frozen:
            kept = rng.sample(range(len(group)), rng.randint(1, len(group)))
            keep[group.units] = False
            keep[group.units[kept]] = True
    blocks = [b.shortcut for b in residual_blocks(netdef) if with_blocks and rng.random() < 0.4]
    return Plan(netdef, keep, tuple(blocks))


def hush_(model: Darknet, keep: Bools) -> None:
    """Shifts of zero for the dead channels: what sparse training drives them to."""
    kept = channel_groups(model.netdef).layer_masks(keep)
    with torch.no_grad():
        for index, layer in enumerate(model.layers):
            if isinstance(layer, Convolution) and layer.bn is not None:
                layer.bn.bias[torch.from_numpy(~kept[index])] = 0


@torch.no_grad()
def forward_padding_constants(model: Darknet, images: Tensor, keep: Bools) -> list[Tensor]:
    """A forward pass in which dead channels, which are constant, are padded with their constant.

    Each is padded with its own pixels at the border, so nothing here knows which constant it is.
    """
    netdef = model.netdef
    kept = channel_groups(netdef).layer_masks(keep)

    def conv(index: int, x: Tensor) -> Tensor:
        layer = model.layers[index]
        assert isinstance(layer, Convolution)
        pad = layer.conv.padding[0]
        assert isinstance(pad, int)
        zeros = F.pad(x, (pad,) * 4)
        while pad:  # a map may be smaller than what is added to it
            x = F.pad(x, (1,) * 4, mode="replicate")
            pad -= 1
        live = torch.from_numpy(kept[netdef.sources(index)[0]])[:, None, None]
        plain = nn.functional.conv2d(
            torch.where(live, zeros, x), layer.conv.weight, layer.conv.bias,
            layer.conv.stride, 0, layer.conv.dilation, layer.conv.groups,
        )  # fmt: skip
        activated: Tensor = layer.activation(layer.bn(plain) if layer.bn else plain)
        return activated

    walk = propagate(
        netdef,
        images,
        conv=conv,
        add=lambda i, xs: model.layers[i](*xs),
        cat=lambda i, xs: torch.cat(xs, 1),
        part=lambda i, x, n, k: x.chunk(n, 1)[k],
        other=lambda i, x: model.layers[i](x),
    )
    return [value for index, value in enumerate(walk) if index in netdef.heads]


def error(got: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference, as a share of the largest value."""
    pairs = list(zip(got, wanted, strict=True))
    for a, b in pairs:
        assert a.shape == b.shape
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in pairs)


ACTIVATIONS = ("leaky", "leaky", "linear", "relu", "mish", "swish", "logistic", "relu6", "tanh")


def random_net(rng: random.Random, most: int = 16) -> NetDef:
    """A network of random legal sections that ends in one or two heads."""
    return _Drawing(rng).net(rng.randint(3, most))


class _Drawing:
    """Sections drawn one by one, with the shape (channels, side) that each puts out."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.side = rng.choice([16, 24, 32])
        self.sections: list[str] = []
        self.shapes: list[tuple[int, int]] = []

    def net(self, count: int) -> NetDef:
        self.convolution()
        steps = [
            self.convolution, self.convolution, self.depthwise, self.grouped, self.pool,
            self.pyramid, self.upsample, self.route, self.route, self.split, self.shortcut,
            self.residual, self.residual, self.csp, self.squeeze, self.sam, self.dropout,
            self.reorg, self.local_average,
        ]  # fmt: skip
        while len(self.sections) < count:
            self.rng.choice(steps)()
            if self.rng.random() < 0.05:
                self.head()
                self.put("route", self.shapes[0], layers=0)  # nothing reads a [yolo]
        self.head()
        text = f"[net]\nwidth={self.side}\nheight={self.side}\nchannels=3\n"
        return parse(text + "".join(self.sections))

    def put(self, kind: str, shape: tuple[int, int], **options: object) -> None:
        lines = "".join(f"{key.rstrip('_')}={value}\n" for key, value in options.items())
        self.sections.append(f"[{kind}]\n{lines}")
        self.shapes.append(shape)

    @property
    def shape(self) -> tuple[int, int]:
        return self.shapes[-1] if self.shapes else (3, self.side)

    def convolution(self, filters: int = 0, activation: str = "", stride: int = 0) -> None:
        filters = filters or self.rng.randint(1, 12)
        stride = stride or (self.rng.choice([1, 1, 2]) if self.shape[1] >= 8 else 1)
        size = self.rng.choice([1, 3, 3, 5])
        self.put(
            "convolutional", (filters, -(-self.shape[1] // stride)),
            batch_normalize=int(self.rng.random() < 0.85), filters=filters, size=size,
            stride=stride, pad=1, activation=activation or self.rng.choice(ACTIVATIONS),
        )  # fmt: skip

    def depthwise(self, stride: int = 1) -> None:
        channels, side = self.shape
        filters = channels * self.rng.choice([1, 1, 1, 2])
        self.put(
            "convolutional", (filters, side), batch_normalize=1, filters=filters, groups=channels,
            size=3, stride=1, pad=1, activation=self.rng.choice(ACTIVATIONS),
        )  # fmt: skip

    def grouped(self) -> None:
        channels, side = self.shape
        groups = self.rng.choice([n for n in range(1, channels + 1) if channels % n == 0])
        filters = groups * self.rng.randint(1, 3)
        self.put(
            "convolutional", (filters, side), batch_normalize=1, filters=filters, groups=groups,
            size=3, stride=1, pad=1, activation=self.rng.choice(ACTIVATIONS),
        )  # fmt: skip

    def pool(self) -> None:
        channels, side = self.shape
        size, stride = self.rng.choice([(2, 2), (2, 1), (3, 1), (5, 1)])
        if side >= 8 or stride == 1:
            self.put("maxpool", (channels, -(-side // stride)), size=size, stride=stride)

    def local_average(self) -> None:
        self.put("local_avgpool", self.shape, size=3, stride=1)

    def pyramid(self) -> None:
        """SPP: pooled by several sizes, and all of them concatenated."""
        channels, side = self.shape
        self.put("maxpool", (channels, side), size=3, stride=1)
        self.put("route", (channels, side), layers=-2)
        self.put("maxpool", (channels, side), size=5, stride=1)
        self.put("route", (3 * channels, side), layers="-1,-3,-4")

    def upsample(self) -> None:
        channels, side = self.shape
        if side <= self.side // 2:
            self.put("upsample", (channels, side * 2), stride=2, scale=self.rng.choice([1, 0.5]))

    def _alike(self, shape: tuple[int, int]) -> list[int]:
        ends = [i for i, section in enumerate(self.sections) if not section.startswith("[yolo]")]
        return [i for i in ends if self.shapes[i] == shape]

    def _of_side(self, side: int) -> list[int]:
        ends = [i for i, section in enumerate(self.sections) if not section.startswith("[yolo]")]
        return [i for i in ends if self.shapes[i][1] == side]

    def _number(self, layer: int) -> int:
        return layer if self.rng.random() < 0.5 else layer - len(self.sections)

    def route(self) -> None:
        """Some layers of one size, perhaps one twice."""
        ends = [i for i, section in enumerate(self.sections) if not section.startswith("[yolo]")]
        alike = self._of_side(self.shapes[self.rng.choice(ends)][1])
        chosen = [self.rng.choice(alike) for _ in range(self.rng.randint(1, 3))]
        channels = sum(self.shapes[i][0] for i in chosen)
        if channels <= 48:
            side = self.shapes[alike[0]][1]
            self.put(
                "route", (channels, side), layers=",".join(str(self._number(i)) for i in chosen)
            )

    def split(self) -> None:
        channels, side = self.shape
        groups = self.rng.choice([n for n in range(1, channels + 1) if channels % n == 0])
        where = self.rng.randrange(groups)
        self.put("route", (channels // groups, side), layers=-1, groups=groups, group_id=where)

    def shortcut(self) -> None:
        """To any layer of this shape, or of this size, or to two, plain or weighted."""
        alike = self._alike(self.shape)
        if self.rng.random() < 0.5:
            alike = self._of_side(self.shape[1])
        chosen = [self.rng.choice(alike) for _ in range(self.rng.choice([1, 1, 1, 2]))]
        weighted = {"weights_type": self.rng.choice(["per_feature", "per_channel"])}
        self.put(
            "shortcut", self.shape, from_=",".join(str(self._number(i)) for i in chosen),
            activation=self.rng.choice(["linear", "linear", "leaky", "mish"]),
            **(weighted if self.rng.random() < 0.2 else {}),
        )  # fmt: skip

    def residual(self) -> None:
        """A block of one to three layers, perhaps depthwise in the middle."""
        channels, start = self.shape[0], len(self.sections) - 1
        if self.rng.random() < 0.5:
            self.convolution(stride=1)
        if self.rng.random() < 0.4:
            self.depthwise()
        other = self.rng.randint(1, 12) if self.rng.random() < 0.3 else channels
        self.convolution(other, "linear", stride=1)
        self.put("shortcut", self.shape, from_=self._number(start), activation="linear")

    def csp(self) -> None:
        """Half of the channels take a longer way (yolov4-tiny)."""
        channels, side = self.shape
        if channels % 2:
            return
        self.put("route", (channels // 2, side), layers=-1, groups=2, group_id=1)
        self.convolution(stride=1)
        self.convolution(stride=1)
        self.put("route", (self.shapes[-1][0] + self.shapes[-2][0], side), layers="-1,-2")

    def squeeze(self) -> None:
        """Squeeze and excitation: each channel is scaled by what all of them say."""
        channels, side = self.shape
        start = len(self.sections) - 1
        if side < 2:
            return
        self.put("avgpool", (channels, 1))
        for filters, activation in ((max(1, channels // 2), "relu"), (channels, "logistic")):
            self.put("convolutional", (filters, 1), filters=filters, size=1, activation=activation)
        self.put("scale_channels", (channels, side), from_=self._number(start))

    def sam(self) -> None:
        other = self.rng.choice(self._alike(self.shape))
        self.put("sam", self.shape, from_=self._number(other))

    def dropout(self) -> None:
        self.put("dropout", self.shape, probability=0.5)

    def reorg(self) -> None:
        channels, side = self.shape
        if channels % 4 == 0 and channels <= 12 and side % 2 == 0 and side >= 4:
            self.put("reorg", (channels * 4, side // 2), stride=2)

    def head(self) -> None:
        self.put("convolutional", (7, self.shape[1]), filters=7, size=1, activation="linear")
        self.put("yolo", self.shape, anchors="8,8", classes=2)
