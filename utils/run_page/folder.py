"""What do the folders of a run say of it, whichever script made them and however it ended?"""

from __future__ import annotations

import json
import math
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from import_param import Count, PruneSettings, TrainSettings, Whole
from models import netdef as cfg_files
from models.costs import count_operations, layer_parameters
from models.netdef import NetDef
from utils.checkpoint.checkpoint import read_checkpoint
from utils.errors import InputError
from utils.files.reading import read_text
from utils.files.writing import write_text
from utils.monitoring.history import CSV_NAME, History, read_history
from utils.settings.loader import restore
from utils.settings.schema import structured
from utils.timing import machine, version
from utils.version import VERSION

STARTS = "run.json"  # how the run was started, and on what
SETTINGS = "settings.json"
REPORT = "report.json"  # of a cut
NETWORKS = ("best.cfg", "pruned.cfg")  # what a training and a cut leave
MOST_BYTES = 2**26  # of a JSON file of ours
Settings = TrainSettings | PruneSettings


@dataclass(frozen=True)
class Costs:
    """What a network costs: parameters, and operations for one image of (width, height)."""

    parameters: int
    operations: int
    size: tuple[int, int]

    @staticmethod
    def of(netdef: NetDef) -> Costs:
        """Those of a definition, at its own size."""
        parameters = sum(layer_parameters(netdef).values())
        return Costs(parameters, count_operations(netdef), netdef.size)


@dataclass(frozen=True)
class Start:
    """How a run was started, or gone on with.

    Attributes:
        command: as it was given.
        time: in ISO 8601.
        version: of the project.
        machine: in words, what it computes with.
        system: in words.
        packages: versions by name.
        folder: in which it was started.
        photos: what the data set has, by words such as "photos for training".
    """

    command: str = ""
    time: str = ""
    version: str = ""
    machine: str = ""
    system: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    folder: str = ""
    photos: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SizeFigures:
    """What a report says a network costs."""

    parameters: float
    operations: float
    weights_bytes: float
    latency: float


@dataclass(frozen=True)
class LayerFigures:
    """What a report says of a convolution: its channels before and now, 0 where it is gone."""

    layer: Whole
    kernel: str
    channels: Count
    channels_now: Whole


@dataclass(frozen=True)
class CutFigures:
    """What a report says of a cut.

    Attributes:
        before, after: what the network costs.
        mean_ap: by stage.
        layers: its convolutions.
        reached: the share that was cut.
        notes: how it was measured.
    """

    before: SizeFigures
    after: SizeFigures
    mean_ap: Mapping[str, tuple[float, float]]
    layers: tuple[LayerFigures, ...]
    reached: float
    notes: tuple[str, ...]

    @staticmethod
    def read(path: Path) -> CutFigures:
        """Read what `pruning.report.Report.write` wrote.

        Raises:
            InputError: the file is damaged.
        """
        content, place = structured(_Report, read_json(path), str(path)), str(path)
        stages = {
            stage: structured(_Quality, values, f"{place}: found.{stage}")
            for stage, values in content.found.items()
        }
        if not stages:
            raise InputError(f"{place}: found: expected what was measured")
        return CutFigures(
            structured(SizeFigures, content.before, f"{place}: before"),
            structured(SizeFigures, content.after, f"{place}: after"),
            {stage: quality.pair for stage, quality in stages.items()},
            layer_figures(content.layers, place),
            content.reached,
            tuple(filter(None, (content.batch_norm, content.method))),
        )


@dataclass(frozen=True)
class _Quality:
    mean_ap: float | None
    mean_ap_50_95: float | None

    @property
    def pair(self) -> tuple[float, float]:
        """Both, NaN where there is none."""
        one, other = self.mean_ap, self.mean_ap_50_95
        return math.nan if one is None else one, math.nan if other is None else other


@dataclass(frozen=True)
class _Report:
    before: dict[str, Any]
    after: dict[str, Any]
    found: dict[str, dict[str, Any]]
    layers: tuple[dict[str, Any], ...]
    reached: float
    method: str = ""
    batch_norm: str = ""


@dataclass(frozen=True)
class _Starts:
    starts: tuple[dict[str, Any], ...]


def layer_figures(layers: Iterable[dict[str, Any]], place: str) -> tuple[LayerFigures, ...]:
    """The layers of a report.

    Raises:
        InputError: one is damaged; place: of the report, for the message.
    """
    return tuple(
        structured(LayerFigures, layer, f"{place}: layers[{number}]")
        for number, layer in enumerate(layers)
    )


@dataclass(frozen=True)
class RunFiles:
    """A run as its folders tell of it.

    Attributes:
        name: of the run.
        folder: runs/<name>.
        weights: weights/<name>.
        settings: what it was started with; what an older version did not know has its default.
        version: of the project that it was started with.
        history: its figures by epoch; none for a cut.
        starts: how it was started, and gone on with; none where an older version did that.
        costs: of the network that it has left; None where there is none.
        report: of a cut; else None.
        best_epoch: the one whose network best.pt holds; None where there is no such file.
    """

    name: str
    folder: Path
    weights: Path
    settings: Settings
    version: str = ""
    history: History = field(default_factory=dict)
    starts: Sequence[Start] = ()
    costs: Costs | None = None
    report: CutFigures | None = None
    best_epoch: float | None = None

    @staticmethod
    def read(folder: Path, weights: Path) -> RunFiles:
        """Read the folders of a training or a cut.

        Raises:
            InputError: there is no such run, or one of its files is damaged.
        """
        values = read_json(folder / SETTINGS)
        report = folder / REPORT
        return RunFiles(
            folder.resolve().name,
            folder,
            weights,
            settings_of(values, str(folder / SETTINGS)),
            str(values.get("version", "")),
            read_history(folder / CSV_NAME),
            read_starts(folder / STARTS),
            _costs(weights),
            CutFigures.read(report) if report.is_file() else None,
            best_epoch_in(weights),
        )

    @property
    def epochs(self) -> int:
        """Epochs done."""
        return int(max(self.history, default=0))

    @property
    def last(self) -> Mapping[str, float]:
        """The newest value of each figure."""
        return {name: value for step in sorted(self.history) for name, value in
                self.history[step].items()}  # fmt: skip

    def curve(self, name: str) -> tuple[list[float], list[float]]:
        """The epochs and values of a figure, such as `mAP/mAP@.5`."""
        steps = [step for step in sorted(self.history) if name in self.history[step]]
        return steps, [self.history[step][name] for step in steps]

    def changed(self) -> dict[str, tuple[Any, Any]]:
        """The settings that are not the defaults: "group.name" → (value, default)."""
        own, default = flat(self.settings), flat(type(self.settings)())
        return {name: (own[name], default[name]) for name in own if own[name] != default[name]}


def settings_of(values: Mapping[str, Any], place: str) -> Settings:
    """The settings that a file or checkpoint of a training or a cut holds.

    Raises:
        InputError: they are of neither, or damaged.
    """
    kind: type[Settings] = TrainSettings if "training" in values else PruneSettings
    if "training" not in values and "pruning" not in values:
        raise InputError(f"{place}: expected the settings of train.py or of a pruning script")
    try:
        return restore(kind, values)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def flat(settings: Settings) -> dict[str, Any]:
    """Settings by "group.name"."""
    return {
        f"{group}.{name}": value
        for group, values in asdict(settings).items()
        for name, value in values.items()
    }


def record_start(
    folder: Path, goes_on: bool, photos: Mapping[str, str], device: torch.device
) -> None:
    """Write how the run is started, beside how it was started before if it goes on.

    Args:
        folder: runs/<name>.
        goes_on: whether the starts until now are of the same run.
        photos: what the data set has, by words such as "photos to train on".
        device: that computes.

    Raises:
        InputError: it cannot be written, or what is there is damaged.
    """
    path = folder / STARTS
    before = read_starts(path) if goes_on else ()
    packages = {name: version(name) for name in ("torch", "numpy")}
    start = Start(
        _command(),
        datetime.now().astimezone().isoformat(timespec="seconds"),
        VERSION,
        machine(device),
        platform.platform(),
        {"python": platform.python_version()} | packages,
        str(Path.cwd()),
        dict(photos),
    )
    starts = [asdict(each) for each in (*before, start)]
    write_text(path, json.dumps({"starts": starts}, indent=2) + "\n")


def read_starts(path: Path) -> tuple[Start, ...]:
    """What `record_start` wrote; nothing where an older version started the run.

    Raises:
        InputError: the file is damaged.
    """
    if not path.is_file():
        return ()
    starts = structured(_Starts, read_json(path), str(path)).starts
    return tuple(
        structured(Start, start, f"{path}: starts[{number}]") for number, start in enumerate(starts)
    )


def _command() -> str:
    """The command as it was given to the shell."""
    words = ["python", *sys.orig_argv[1:]]
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file of ours holds; None for NaN.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(read_text(path, MOST_BYTES), parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object")
    return content


def best_epoch_in(weights: Path) -> float | None:
    """The epoch whose network best.pt in a folder holds; None where there is no such file.

    Raises:
        InputError: the file is damaged.
    """
    path = weights / "best.pt"
    return float(read_checkpoint(path).origin.epoch) if path.is_file() else None


def _costs(weights: Path) -> Costs | None:
    for name in NETWORKS:
        if (weights / name).is_file():
            return Costs.of(cfg_files.load(weights / name))
    return None
