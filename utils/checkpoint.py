"""A network on disk: saved with everything that opening it or going on with its training needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Interval, MaxLen, MinLen, Predicate
from torch import Tensor

from import_param import (
    STRATEGIES,
    NetworkLimits,
    PruneSettings,
    RunName,
    TrainedNetwork,
    TrainSettings,
)
from models import netdef as cfg_files
from models.costs import check_demand
from models.darknet import Darknet, stride
from models.netdef import NetDef
from models.weights import (
    COCO_CLASSES,
    file_sizes,
    fill_,
    read_weights,
    to_bytes,
    torchvision_trunk,
)
from utils.data.definition import read_names
from utils.devices import choose_device
from utils.errors import InputError
from utils.files import fill, guarded, read_lines, require_file, together
from utils.progress import say_error
from utils.schema import structured
from utils.tensor_files import PlainTensor, read_tensors
from utils.version import VERSION

FORMAT = 1
CHECKPOINT_SUFFIXES = (".pt", ".pth")  # of what torch.save wrote
DARKNET_SUFFIXES = ("names", "cfg", "weights")  # in the order in which they are put in place

Step = Annotated[int, Interval(ge=0, le=2**53)]  # of a training: a count


def _is_class_name(name: str) -> bool:
    """Whether it may stand in a .names file."""
    lone_halves = any("\ud800" <= character <= "\udfff" for character in name)
    return name.splitlines() == [name.strip()] and not lone_halves


ClassName = Annotated[str, Predicate(_is_class_name), "a line of text"]


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


@dataclass(frozen=True)
class Origin:
    """Which training a network is of, and how far it had come.

    Attributes:
        run: its name; empty where nothing says so.
        identity: of the run, other than that of any other run; empty before 0.3.0.
        epoch: epochs done; 0 for a network that was cut and not trained since.
        best: the mAP@.5 on its validation photos, the highest so far; -1 where none was measured.
    """

    run: RunName = ""
    identity: str = ""
    epoch: Step = 0
    best: Annotated[float, Ge(-1)] = -1.0

    def values(self) -> dict[str, Any]:
        """What a checkpoint holds of it, where that holds no training."""
        return asdict(self)

    @staticmethod
    def read(values: Mapping[str, Any], path: str) -> Origin:
        """Of what a checkpoint holds; what it does not say keeps its default.

        Raises:
            InputError: an entry is not of its kind or out of range.
        """
        known = {f.name: values[f.name] for f in fields(Origin) if f.name in values}
        return structured(Origin, _without_nan(known), f"{path}: training")


def _without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same; an mAP that had nothing to be measured on counts as not measured."""
    best = values.get("best")
    return {**values, "best": -1.0} if isinstance(best, float) and math.isnan(best) else {**values}


@dataclass(frozen=True, eq=False)
class TrainingState:
    """What going on with a training needs beside the network to use.

    Attributes:
        epoch: epochs done.
        best: the highest mAP@.5 so far; -1 before the first evaluation.
        stale: evaluations since then.
        run: its name.
        model: the weights as they train; those to use are their running mean.
        optimizer: its state dict.
        schedule: of the learning rate, its state dict.
        averaged: steps that the running mean has followed.
        pruning: the state of pruning while training.
        history: the figures of all epochs, as metrics.csv has them.
        identity: of the run, other than that of any other run.
        photos: to train on, a number.
        validation_photos: to validate on, a number.
        epoch_steps: steps of the optimizer in an epoch.
        threads: of torch, on whose number the last bits of sums depend.
        processes: that trained together; 0 for before 0.4.0, when there was one.
        scaler: of the loss in fp16, its state dict; None where it does nothing.
    """

    epoch: Step
    best: Annotated[float, Ge(-1)]
    stale: Step
    run: Annotated[RunName, MinLen(1)]
    model: dict[str, PlainTensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    averaged: Step
    pruning: dict[str, Any] | None = None
    history: str = ""
    identity: str = ""
    photos: Step = 0  # 0 for all of these: of before 0.3.0, which did not say
    validation_photos: Step = 0
    epoch_steps: Step = 0
    threads: Step = 0
    processes: Step = 0
    scaler: dict[str, Any] | None = None

    def values(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @staticmethod
    def read(values: Mapping[str, Any], path: str) -> TrainingState | None:
        """Of what a checkpoint holds; None where that is not of a training.

        Raises:
            InputError: an entry is missing, not of its kind or out of range.
        """
        if "optimizer" not in values:
            return None
        values = _without_nan(values)
        if "gradual" in values:  # before 0.2.0
            values["pruning"] = values.pop("gradual")
        return structured(TrainingState, values, f"{path}: training")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What `save_checkpoint` wrote, on the CPU.

    Attributes:
        netdef: the network's definition.
        names: of its classes.
        model: the weights to use, a state dict.
        settings: what the run was started with, by group; `utils.settings.restore` makes settings
            of them, also of those that older versions wrote.
        origin: the training that it is of.
        training: what going on with that training needs; None where only its network is there.
        version: of the project that wrote it; empty before 0.2.0.
        path: the file, for messages.
    """

    netdef: NetDef
    names: tuple[str, ...]
    model: Mapping[str, Tensor]
    settings: Mapping[str, Any]
    origin: Origin
    training: TrainingState | None
    version: str
    path: str = ""


@dataclass(frozen=True, eq=False)
class _Content:
    """What the file of a checkpoint is to hold."""

    format: Annotated[int, Interval(ge=FORMAT, le=FORMAT)]
    cfg: str
    names: Annotated[tuple[ClassName, ...], MaxLen(100_000)]
    model: dict[str, PlainTensor]
    settings: Annotated[dict[str, Any], MaxLen(100)]
    training: dict[str, Any]
    version: str = ""


@dataclass(frozen=True, eq=False)
class _StateDict:
    """What the file of a state dict is to hold."""

    tensors: dict[str, PlainTensor]


def save_checkpoint(
    path: Path,
    netdef: NetDef,
    names: Sequence[str],
    model: Mapping[str, Tensor],
    settings: TrainSettings | PruneSettings,
    training: TrainingState | Origin,
) -> None:
    """Write a checkpoint that opens alone; `Checkpoint` tells its parts.

    training: what going on needs, or where only the network is to be kept, what it is of.

    Raises:
        InputError: it cannot be written.
    """
    content = _content(netdef, names, model, settings, training)
    with together(path, durable=True) as (temporary,):
        _write_tensors(temporary, content)


def save_with_pair(
    path: Path,
    netdef: NetDef,
    names: Sequence[str],
    model: Darknet,
    settings: TrainSettings | PruneSettings,
    training: TrainingState | Origin,
    checkpoint_last: bool = False,
) -> None:
    """Write `path`.pt as `save_checkpoint` does, and what `write_pair` writes, as one.

    Whenever the work is killed, those of the four files that are there are of one network.

    Args:
        path: without a suffix.
        netdef: of the network.
        names: of its classes.
        model: the network.
        settings: of the run.
        training: see `save_checkpoint`.
        checkpoint_last: `path`.pt is there only when the other three are; else it is replaced in
            one step, so that it is never missing once it was there.

    Raises:
        InputError: one of them cannot be written.
    """
    content = _content(netdef, names, model.state_dict(), settings, training)
    suffixes = (*DARKNET_SUFFIXES, "pt") if checkpoint_last else ("pt", *DARKNET_SUFFIXES)
    paths = _beside(path, *suffixes)
    with together(*paths, durable=True) as temporaries:
        files = dict(zip(suffixes, temporaries, strict=True))
        _write_tensors(files["pt"], content)
        _write_pair([files[suffix] for suffix in DARKNET_SUFFIXES], model, netdef, names)


def _content(
    netdef: NetDef,
    names: Sequence[str],
    model: Mapping[str, Tensor],
    settings: TrainSettings | PruneSettings,
    training: TrainingState | Origin,
) -> dict[str, Any]:
    """What `_Content` is to hold."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "cfg": netdef.text(),
        "names": list(names),
        "model": dict(model),
        "settings": asdict(settings),
        "training": training.values(),
    }


def _write_tensors(temporary: Path, content: Mapping[str, Any]) -> None:
    with guarded(temporary) as file:
        torch.save(content, file)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of ours, onto the CPU.

    Raises:
        InputError: the file cannot be read, or is any other file.
    """
    return _checkpoint(read_tensors(path), str(path))


def _checkpoint(content: Any, path: str) -> Checkpoint:
    """What a file holds, checked."""
    number = content.get("format") if isinstance(content, dict) else None
    if not isinstance(number, int) or number != FORMAT:
        raise InputError(f"{path}: expected a checkpoint of this project (format {FORMAT})")
    checked = structured(_Content, content, path)
    netdef = cfg_files.parse(checked.cfg, f"{path} (its cfg)")
    return Checkpoint(
        netdef,
        checked.names,
        checked.model,
        checked.settings,
        Origin.read(checked.training, path),
        TrainingState.read(checked.training, path),
        checked.version,
        path,
    )


@dataclass(frozen=True, eq=False)
class Pretrained:
    """Weights to start from.

    Attributes:
        state: a state dict.
        netdef: the network to start; where a checkpoint's heads belong to the weights, with the
            anchors and rules of those heads.
        names: the classes of those heads; empty where the file does not say.
    """

    state: dict[str, Tensor]
    netdef: NetDef
    names: tuple[str, ...] = ()


def read_pretrained(path: str | Path, netdef: NetDef) -> Pretrained:
    """Weights to start `netdef` from.

    Args:
        path: a checkpoint of ours, Darknet's file (whole or cut off), or torchvision's state dict,
            told apart by the suffix.
        netdef: the network to start.

    Raises:
        InputError: the file cannot be read, or nothing in it is of use to the network.
    """
    if Path(path).suffix not in CHECKPOINT_SUFFIXES:
        beside = _names_beside(Path(path), _classes(netdef))
        names = read_names(beside) if beside else ()
        return Pretrained(read_weights(path, _written_for(path, netdef))[0], netdef, names)
    content = read_tensors(path)
    if isinstance(content, dict) and "format" in content:
        checkpoint = _checkpoint(content, str(path))
        return Pretrained(
            dict(checkpoint.model), _with_heads_of(netdef, checkpoint.netdef), checkpoint.names
        )
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"{path}: expected a checkpoint, or a state dict of names with tensors")
    structured(_StateDict, {"tensors": dict(content)}, str(path))
    with torch.device("meta"):
        skeleton = Darknet(netdef)
    return Pretrained(torchvision_trunk(content, skeleton, path), netdef)


def _written_for(path: str | Path, netdef: NetDef) -> NetDef:
    """The network of a .weights file: with COCO's classes, where the file is as long as that one.

    Most published files are, and fill all but the heads of a network for other classes.
    """
    published = netdef.with_classes(COCO_CLASSES)
    size = require_file(path)
    return published if size == file_sizes(published)[-1] else netdef


def _with_heads_of(netdef: NetDef, other: NetDef) -> NetDef:
    if netdef.heads != other.heads:
        return netdef
    layers = list(netdef.layers)
    for index in netdef.heads:
        layers[index] = other.layers[index]
    return replace(netdef, layers=tuple(layers))


def untrained_heads(netdef: NetDef, state: Mapping[str, Tensor]) -> list[int]:
    """The [yolo] layers whose convolution `state` does not fill."""
    with torch.device("meta"):
        skeleton = Darknet(netdef)
    own = skeleton.state_dict()
    names = [(index, f"layers.{index - 1}.conv.weight") for index in netdef.heads]
    return [i for i, name in names if name not in state or state[name].shape != own[name].shape]


def write_pair(
    path: Path, model: Darknet, netdef: NetDef, names: Sequence[str]
) -> tuple[Path, Path]:
    """Write `path`.cfg and `path`.weights, which Darknet and OpenCV read, and `path`.names."""
    paths = _beside(path, *DARKNET_SUFFIXES)
    with together(*paths) as temporaries:
        _write_pair(temporaries, model, netdef, names)
    return paths[1], paths[2]


def _write_pair(
    files: Sequence[Path], model: Darknet, netdef: NetDef, names: Sequence[str]
) -> None:
    listed, cfg, weights = files
    fill(listed, "".join(f"{name}\n" for name in names))
    fill(cfg, netdef.with_plain_heads().text())
    fill(weights, to_bytes(model, epsilon=netdef.bn_epsilon))


def _beside(path: Path, *suffixes: str) -> list[Path]:
    # A dot in the name, as in yolo-fastest-1.1, begins no suffix.
    return [Path(f"{path}.{suffix}") for suffix in suffixes]


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
        names_file = _names_beside(path, _classes(netdef))
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


def _classes(netdef: NetDef) -> int:
    return netdef.layers[netdef.heads[0]].integer("classes", 20) if netdef.heads else 0


def _names_beside(path: Path, classes: int) -> str:
    """`best.names` of best.weights, or the only .names file in the folder, or nothing.

    Of several, it is the one that names as many classes as the network has.
    """
    own = path.with_suffix(".names")
    if own.is_file():
        return str(own)
    others = sorted(path.parent.glob("*.names"))
    if len(others) > 1:
        others = [other for other in others if len(read_lines(other)) == classes]
    return str(others[0]) if len(others) == 1 else ""


def _class_names(model: Darknet, names: tuple[str, ...] | None, source: str) -> tuple[str, ...]:
    classes = model.heads[0].classes
    if names is None:
        return tuple(str(number) for number in range(classes))
    if len(names) != classes:
        raise InputError(f"{source}: {len(names)} class names for a network of {classes} classes")
    return names
