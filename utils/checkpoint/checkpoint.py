"""A network on disk: saved with everything that opening it or going on with its training needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Interval, MaxLen, MinLen, Predicate
from torch import Tensor

from import_param import PruneSettings, RunName, TrainSettings
from models import netdef as cfg_files
from models.darknet import Darknet
from models.netdef import NetDef
from utils.checkpoint.darknet_files import DARKNET_SUFFIXES, beside, fill_pair
from utils.checkpoint.tensor_files import PlainTensor, read_tensors
from utils.errors import InputError
from utils.files.writing import guarded, together
from utils.settings.schema import structured
from utils.version import VERSION

FORMAT = 1
CHECKPOINT_SUFFIXES = (".pt", ".pth")  # of what torch.save wrote

Step = Annotated[int, Interval(ge=0, le=2**53)]  # of a training: a count


def _is_class_name(name: str) -> bool:
    """Whether it may stand in a .names file."""
    lone_halves = any("\ud800" <= character <= "\udfff" for character in name)
    return name.splitlines() == [name.strip()] and not lone_halves


ClassName = Annotated[str, Predicate(_is_class_name), "a line of text"]


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
        settings: what the run was started with, by group; `utils.settings.loader.restore` makes
            settings of them, also of those that older versions wrote.
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
    paths = beside(path, *suffixes)
    with together(*paths, durable=True) as temporaries:
        files = dict(zip(suffixes, temporaries, strict=True))
        _write_tensors(files["pt"], content)
        fill_pair([files[suffix] for suffix in DARKNET_SUFFIXES], model, netdef, names)


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
        torch.save(_on_cpu(content), file)


def _on_cpu(content: Any) -> Any:
    """The same, its tensors on the CPU: so any program opens it where there is no card."""
    if isinstance(content, Tensor):
        return content.cpu()
    if isinstance(content, Mapping):
        return {name: _on_cpu(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_on_cpu(value) for value in content]
    return content


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of ours, onto the CPU.

    Raises:
        InputError: the file cannot be read, or is any other file.
    """
    return checked_checkpoint(read_tensors(path), str(path))


def checked_checkpoint(content: Any, path: str) -> Checkpoint:
    """A checkpoint of what its file holds.

    Raises:
        InputError: it is of something else, or an entry of it is wrong.
    """
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
