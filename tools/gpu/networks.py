"""Networks and images that steps compute with."""

from __future__ import annotations

import torch
from torch import Tensor

from models import netdef as cfg_files
from models.darknet import Darknet
from models.netdef import NetDef
from pruning.batch_norm import reestimate_bn_
from tools.gpu.task import ROOT, Task
from utils.structures import Batch

CONFIGS = tuple(sorted(path.stem for path in (ROOT / "config").glob("*.cfg")))
SMALL_CONFIGS = ("yolov3-lite", "yolov3-tiny-mobilenet")


def networks(task: Task) -> tuple[str, ...]:
    """The names of the networks in config/."""
    return task.of(CONFIGS, SMALL_CONFIGS)


def config(name: str, side: int) -> NetDef:
    """A network of config/, for inputs of so many pixels."""
    netdef = cfg_files.load(ROOT / "config" / f"{name}.cfg")
    return netdef.with_net_options(width=side, height=side)


def settled(netdef: NetDef, seed: int = 0) -> Darknet:
    """The network with random weights, on the CPU, whose maps are of an ordinary size throughout.

    Batch normalisation sees to that, once it has seen images.
    """
    torch.manual_seed(seed)
    model, size, none = Darknet(netdef).eval(), netdef.size, torch.zeros(0)
    images = noise(2, size)
    batch = Batch(images, none.view(0, 4), none.long(), none.long(), ("", ""), (size, size))
    reestimate_bn_(model, [batch], 1)
    return model


def noise(count: int, size: tuple[int, int], seed: int = 1) -> Tensor:
    """Images of (width, height), the same each time: [count, 3, height, width]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, size[1], size[0], generator=generator)
