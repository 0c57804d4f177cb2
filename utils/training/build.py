"""Which network is trained, what does it start from, and who teaches it?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from import_param import Model, TrainedNetwork, TrainSettings
from models import netdef as cfg_files
from models.costs import count_operations, count_parameters
from models.darknet import Darknet
from models.distillation import check_teacher
from models.netdef import NetDef
from models.weights import fill_
from utils.checkpoint.checkpoint import Checkpoint
from utils.checkpoint.network import check_for_photos, check_size, load_network
from utils.checkpoint.pretrained import Pretrained, read_pretrained, untrained_heads
from utils.console.progress import say
from utils.data.anchors import fit_anchors, mean_best_iou, reachable_recall
from utils.data.classes import match_classes, relation
from utils.data.photos import PhotoSet
from utils.errors import InputError


def read_netdef(settings: TrainSettings, checkpoint: Checkpoint | None) -> NetDef:
    """The network to train, before the photos' classes and objects have shaped its heads.

    Raises:
        InputError: a file cannot be read, or a setting does not fit the network.
    """
    files = settings.model
    if checkpoint:
        netdef = checkpoint.netdef
    else:
        netdef = _as_asked(cfg_files.load(files.cfg), files)
        if settings.sparsity.is_pruned:
            netdef = netdef.with_protected(settings.pruning.protected)
        for note in netdef.notes:
            say(f"note: {note}")
        check_for_photos(netdef)
    check_size(netdef, netdef.size, files)
    return netdef


def _as_asked(netdef: NetDef, files: Model) -> NetDef:
    if files.letterbox != "auto":
        netdef = netdef.with_net_options(letter_box=int(files.letterbox == "yes"))
    if files.img_size:
        netdef = netdef.with_net_options(width=files.img_size, height=files.img_size)
    return netdef.with_bn_epsilon_of(files.bn_epsilon)


def build_network(
    settings: TrainSettings, netdef: NetDef, photos: PhotoSet, checkpoint: Checkpoint | None
) -> Darknet:
    """The network to train, on the CPU; its first layers frozen where `freeze` asks for it.

    Args:
        settings: the network's files, and how its heads are made where they are trained anew.
        netdef: what `read_netdef` gave.
        photos: to train on; their classes and the sizes of their objects shape the heads.
        checkpoint: of the run that goes on; its weights are loaded by `utils.training.resume`.

    Raises:
        InputError: a file cannot be read or does not fit, or a setting does not fit the network.
    """
    model = Darknet(netdef) if checkpoint else _new_network(settings, netdef, photos)
    freeze_(model, settings.training.freeze)
    return model


def _new_network(settings: TrainSettings, netdef: NetDef, photos: PhotoSet) -> Darknet:
    """From the .cfg and the pretrained weights, or at random."""
    files = settings.model
    start = Pretrained({}, netdef)
    if files.pretrained:
        start = read_pretrained(files.weights, netdef)
    elif files.weights:
        say(f"note: {files.weights} is not read, since pretrained=False")
    netdef = start.netdef.with_classes(len(photos.names))
    check_size(netdef, netdef.size, files)
    untrained = untrained_heads(netdef, start.state)
    if untrained:
        netdef = _with_new_heads(settings, netdef, photos)
    elif note := _other_classes(start.names, photos.names):
        say(f"note: {files.weights}: {note}")
    model = Darknet(netdef)
    model.init_heads_(untrained)
    if files.pretrained:
        filled = fill_(model, start.state, files.weights)
        if not filled.layers:
            raise InputError(f"{files.weights}: expected weights of {files.cfg}: {filled}")
        say(f"{files.weights}: {filled}")
    return model


def _other_classes(pretrained: Sequence[str], names: Sequence[str]) -> str:
    """What to say of heads that were trained on other classes, or on these in another order."""
    if not pretrained or relation(pretrained, names) in ("equal", "unnamed"):
        return ""
    if len(pretrained) != len(names):  # those of a .names file that is beside it by chance
        return f"{len(pretrained)} names beside it for heads of {len(names)} classes: not compared"
    pairs = [(old, new) for old, new in zip(pretrained, names, strict=True) if old != new]
    old, new = pairs[0]
    return (
        f"its heads know {len(pairs)} of the {len(names)} classes by other names, {old!r} for "
        f"{new!r}: they are kept, and learn the new ones from there"
    )


def _with_new_heads(settings: TrainSettings, netdef: NetDef, photos: PhotoSet) -> NetDef:
    """Heads whose anchors and reach are chosen anew, since no weights depend on the old ones."""
    if settings.model.scale_x_y:
        netdef = netdef.with_head_options(scale_x_y=f"{settings.model.scale_x_y:g}")
    sizes = photos.object_sizes(netdef.size, netdef.letterbox)
    ratio = settings.loss.anchor_ratio
    before = np.array(
        [pair for index in netdef.heads for pair in cfg_files.head_anchors(netdef.layers[index])]
    )
    report = (
        f"anchors: {reachable_recall(sizes, before, ratio):.4f} of the objects within "
        f"{ratio:g} times an anchor, mean best IoU {mean_best_iou(sizes, before):.3f}"
    )
    if settings.model.fit_anchors:
        anchors = fit_anchors(sizes, len(netdef.anchors_used), settings.training.seed)
        rounded = anchors.round(1).clip(min=0.1).tolist()
        netdef = netdef.with_anchors([(w, h) for w, h in rounded])
        report += (
            f"; after fitting {reachable_recall(sizes, anchors, ratio):.4f}, "
            f"{mean_best_iou(sizes, anchors):.3f}"
        )
    say(report)
    return netdef


def freeze_(model: Darknet, layers: int) -> None:
    """Keep the weights and BN statistics of the first `layers` layers as they are.

    Raises:
        InputError: the network has fewer layers.
    """
    if layers > len(model.layers):
        raise InputError(
            f"freeze={layers}: expected at most {len(model.layers)}, the .cfg's layers"
        )
    for layer in model.layers[:layers]:
        layer.requires_grad_(False)


def load_teacher(settings: TrainSettings, netdef: NetDef, names: Sequence[str]) -> Darknet | None:
    """The network that `netdef`'s learns from, on the CPU; None without one.

    Args:
        settings: the teacher's files.
        netdef: of the network that learns.
        names: of its classes.

    Raises:
        InputError: a file cannot be read, or the teacher's heads or classes are others.
    """
    files = settings.distillation
    if not files.teacher:
        return None
    network = load_network(
        TrainedNetwork(
            max_network_gb=settings.model.max_network_gb,
            max_network_gflops=settings.model.max_network_gflops,
            cfg=files.teacher_cfg,
            weights=files.teacher,
            device="cpu",
        )
    )
    check_teacher(network.model.netdef, netdef, files.teacher)
    place = f"teacher={files.teacher!r}"
    if note := match_classes(network.names, names, settings.data.data, place):
        say(f"note: {note}")
    say(f"teacher {files.teacher}: {describe(network.model)}")
    if (network.size, network.letterbox) != (netdef.size, netdef.letterbox):
        say(
            "note: the teacher sees photos as the network does, not as it was trained: of "
            f"{netdef.size[0]}x{netdef.size[1]}, letterbox={netdef.letterbox}"
        )
    return network.model


def describe(model: Darknet) -> str:
    """A network's size and cost in words."""
    width, height = model.netdef.size
    return (
        f"{count_parameters(model) / 1e6:.3f} M parameters, "
        f"{count_operations(model.netdef) / 1e9:.3f} G operations at {width}x{height}"
    )
