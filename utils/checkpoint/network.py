"""A trained network, opened to be used: which file, whose, of which size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from import_param import STRATEGIES, NetworkLimits, TrainedNetwork
from models import netdef as cfg_files
from models.costs import check_demand
from models.darknet import Darknet, stride
from models.netdef import NetDef
from models.weights import fill_, read_weights
from utils.checkpoint.checkpoint import CHECKPOINT_SUFFIXES, Checkpoint, read_checkpoint
from utils.checkpoint.darknet_files import class_count, names_beside
from utils.console.progress import say_error
from utils.data.definition import read_names
from utils.devices import choose_device
from utils.errors import InputError


@dataclass(frozen=True)
class Network:
    """A network ready to use: in eval mode, on its device.

    Attributes:
        model: in channels-last memory format.
        names: of its classes.
        size: (width, height) of its input in pixels.
        letterbox: whether photos keep their aspect.
        path: its file; empty where it is of none.
        origin: a line that says which file that is, of which run, trained how far.
    """

    model: Darknet
    names: tuple[str, ...]
    size: tuple[int, int]
    letterbox: bool
    path: str = ""
    origin: str = ""


def newest_weights(folder: Path = Path("weights")) -> Path:
    """The best.pt in the run folders of `folder` that was written last.

    Raises:
        InputError: there is none.
    """
    paths = sorted(folder.glob("*/best.pt"), key=lambda path: path.stat().st_mtime)
    if not paths:
        raise InputError(f"weights='': found no {folder}/*/best.pt; run train.py or name a file")
    return paths[-1]


def load_network(settings: TrainedNetwork) -> Network:
    """Open a trained network: a checkpoint of ours, or Darknet's .weights with its .cfg.

    Without `settings.names`, its classes are called as the checkpoint says, or the one .names file
    beside the .weights, of several the one with as many names as classes; else by their numbers.

    Raises:
        InputError: a file is missing or does not fit.
    """
    path = Path(settings.weights) if settings.weights else newest_weights()
    netdef, state, own_names, origin = _read_trained(path, settings.cfg)
    for note in netdef.notes:
        say_error(f"note: {note}")
    check_for_photos(netdef)
    size = (settings.img_size, settings.img_size) if settings.img_size else netdef.size
    check_size(netdef, size, settings)
    model = Darknet(netdef)
    filled = fill_(model, state, path)
    if filled.missing:
        raise InputError(f"{path}: holds only a part of the network: {filled}")
    names_file = settings.names or ""
    if not names_file and path.suffix == ".weights":
        names_file = names_beside(path, class_count(netdef))
    names = read_names(names_file) if names_file else own_names
    letterbox = settings.letterbox
    return Network(
        model.to(choose_device(settings.device)).to(memory_format=torch.channels_last).eval(),
        _class_names(model, names, names_file or str(path)),
        size,
        netdef.letterbox if letterbox == "auto" else letterbox == "yes",
        str(path),
        f"network: {path}{'' if settings.weights else ', the newest'}: {origin}",
    )


def reopen(path: Path, device: str) -> Network:
    """Open what this program has written itself: it is as large as its user allowed."""
    return load_network(
        TrainedNetwork(
            max_network_gb=math.inf,
            max_network_gflops=math.inf,
            weights=str(path),
            device=device,
        )
    )


def _read_trained(
    path: Path, cfg: str
) -> tuple[NetDef, Mapping[str, Tensor], tuple[str, ...] | None, str]:
    """The definition, the state dict, the class names that the file holds, and `origin_line`."""
    if path.suffix in CHECKPOINT_SUFFIXES:
        if cfg:
            raise InputError(f"cfg={cfg!r}: expected none: {path} holds its own")
        checkpoint = read_checkpoint(path)
        return checkpoint.netdef, checkpoint.model, checkpoint.names, origin_line(checkpoint)
    if path.suffix != ".weights":
        raise InputError(
            f"weights={str(path)!r}: expected a .pt of this project, or a .weights file"
        )
    cfg_file = Path(cfg) if cfg else path.with_suffix(".cfg")
    netdef = cfg_files.load(cfg_file)
    state, header = read_weights(path, netdef)
    seen = f", trained on {header.seen:,} photos" if header.seen else ""
    return netdef, state, None, f"Darknet's weights with {cfg_file}{seen}"


def origin_line(checkpoint: Checkpoint) -> str:
    """Of which run a checkpoint's network is, and how far it was trained."""
    origin, asked = checkpoint.origin, checkpoint.settings
    run = f"run {origin.run}" if origin.run else "a run without a name"
    if not origin.epoch:
        strategy = _setting(asked, "pruning", "pruned_id")
        source = _setting(asked, "network", "weights")
        cut = f", cut by {STRATEGIES.get(strategy, strategy)}" if strategy else ""
        return f"{run}{cut}{f' from {source}' if source else ''}, not trained since"
    epochs = _setting(asked, "training", "epochs")
    of_epochs = f" of {epochs}" if isinstance(epochs, int) else ""
    quality = f", best mAP@.5 {origin.best:.4f}" if origin.best >= 0 else ""
    data = _setting(asked, "data", "data")
    return f"{run}, epoch {origin.epoch}{of_epochs}{quality}{f', of {data}' if data else ''}"


def _setting(settings: Mapping[str, Any], group: str, name: str) -> Any:
    """A setting that a file holds, which may be of any version; empty where it does not."""
    values = settings.get(group)
    value = values.get(name) if isinstance(values, Mapping) else None
    return value if isinstance(value, (str, int)) else ""


def check_for_photos(netdef: NetDef) -> None:
    """Refuse a network that finds no objects, or not on colour photos."""
    if not netdef.heads:
        raise netdef.net.error("expected at least one [yolo] section after it")
    if netdef.channels != 3:
        raise netdef.net.error("expected 3: photos are read as RGB", "channels")


def check_size(netdef: NetDef, size: tuple[int, int], limits: NetworkLimits) -> None:
    """Refuse an input size whose maps would not line up, or be too large."""
    step = stride(netdef)
    if size[0] % step or size[1] % step:
        raise InputError(
            f"img_size={size[0]}x{size[1]}: expected multiples of {step}, the network's stride"
        )
    check_demand(netdef, size, limits.max_network_gb, limits.max_network_gflops)


def _class_names(model: Darknet, names: tuple[str, ...] | None, source: str) -> tuple[str, ...]:
    classes = model.heads[0].classes
    if names is None:
        return tuple(str(number) for number in range(classes))
    if len(names) != classes:
        raise InputError(f"{source}: {len(names)} class names for a network of {classes} classes")
    return names
