"""Which runs are meant, and what has each of them come to?"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from import_param import PruneSettings, TrainSettings
from utils.console.progress import say
from utils.errors import InputError
from utils.files.paths import exists, is_file
from utils.monitoring.history import parse_history
from utils.run_page.folder import (
    REPORT,
    SETTINGS,
    Costs,
    CutFigures,
    RunFiles,
    best_epoch_in,
    settings_of,
)

CHECKPOINTS = ("last.pt", "best.pt", "pruned.pt")
FILES = (SETTINGS, *CHECKPOINTS)  # by which a folder is known as a run's
MOST_LISTED = 20  # names in a message


@dataclass(frozen=True)
class Result:
    """What a run has come to. What is not known is NaN.

    Attributes:
        run: its files.
        epochs: how many are done; 0 of a cut.
        asked: how many were asked for; 0 of a cut.
        finished: whether it came to its end.
        best, best_50_95: mAP@.5 and mAP@.5:.95 of the network that is kept as the best.
        last, last_50_95: of the last epoch that was evaluated.
        ms: milliseconds an image.
        timed_by: how they were measured.
    """

    run: RunFiles
    epochs: int
    asked: int
    finished: bool
    best: float
    best_50_95: float
    last: float
    last_50_95: float
    ms: float = math.nan
    timed_by: str = ""

    @property
    def parameters(self) -> float:
        """Of the network that the run has left."""
        return self.run.costs.parameters if self.run.costs else math.nan

    @property
    def operations(self) -> float:
        """Of that network for one image, of its own size."""
        return self.run.costs.operations if self.run.costs else math.nan


def find_runs(patterns: Sequence[str]) -> list[RunFiles]:
    """The runs that names, folders or globs mean, each once, in the order in which they are given.

    A run without a folder in runs/ is read from its checkpoint in weights/.

    Raises:
        InputError: there is no such run, or one is damaged.
    """
    folders: dict[Path, Path] = {}  # by runs/<name>: weights/<name>
    for pattern in patterns:
        pairs = _matches(pattern)
        folders |= {runs: weights for runs, weights in pairs if runs not in folders}
    return [_read(runs, weights) for runs, weights in folders.items()]


def _matches(pattern: str) -> list[tuple[Path, Path]]:
    """The folders of the runs that a name, a folder or a glob means."""
    place = Path(pattern).expanduser()
    if set(pattern) & set("*?["):
        places = [p for base in _bases(place) for p in sorted(base.glob(place.name)) if p.is_dir()]
        pairs = dict.fromkeys(map(_folders, places))
        runs = [pair for pair in pairs if _is_run(pair)]
        if others := [pair[0].name for pair in pairs if pair not in runs]:
            say(f"note: {pattern}: left out, since no run of train.py or prune.py: "
                f"{', '.join(others[:MOST_LISTED])}")  # fmt: skip
        if runs:
            return runs
        raise InputError(f"{pattern!r}: no run has such a name{_known('')}")
    if is_file(place):
        place = place.parent
    if len(place.parts) > 1 and place.is_dir():
        pair = _folders(place)
    else:
        pair = Path("runs") / place, Path("weights") / place
    if _is_run(pair):
        return [pair]
    problem = "no run of train.py or prune.py" if exists(pair[0]) else "no such run"
    raise InputError(f"{pattern!r}: {problem}{_known(place.name)}")


def _bases(place: Path) -> list[Path]:
    """Where a glob is looked for."""
    return [place.parent] if len(place.parts) > 1 else [Path("runs"), Path("weights")]


def _folders(place: Path) -> tuple[Path, Path]:
    """runs/<name> and weights/<name>, of one of both, or of a folder that stands elsewhere."""
    base = place.parent.parent
    if place.parent.name == "weights":
        return base / "runs" / place.name, place
    return place, base / "weights" / place.name


def _is_run(pair: tuple[Path, Path]) -> bool:
    runs, weights = pair
    if is_file(runs / SETTINGS):
        return any(is_file(runs / name) for name in ("metrics.csv", REPORT)) or _has(weights)
    return _has(weights)


def _has(weights: Path) -> bool:
    return any(is_file(weights / name) for name in CHECKPOINTS)


def _known(name: str) -> str:
    """The names that could have been meant, as the end of a message."""
    folders = [
        p for base in ("runs", "weights") if Path(base).is_dir() for p in Path(base).iterdir()
    ]
    names = sorted({p.name for p in folders if p.is_dir() and _is_run(_folders(p))})
    near = difflib.get_close_matches(name, names, n=3) or names[:MOST_LISTED]
    more = ", …" if len(near) < len(names) else ""
    return (
        f": expected {', '.join(near)}{more}" if near else ": there are none in runs/ or weights/"
    )


def _read(runs: Path, weights: Path) -> RunFiles:
    if is_file(runs / SETTINGS):
        return RunFiles.read(runs, weights)
    from utils.checkpoint.checkpoint import read_checkpoint

    path = next(weights / name for name in CHECKPOINTS if (weights / name).is_file())
    checkpoint = read_checkpoint(path)
    text = checkpoint.training.history if checkpoint.training else ""
    history = parse_history(text, f"{path}: training.history") if text else {}
    if not history and checkpoint.origin.best >= 0:
        history = {float(checkpoint.origin.epoch): {"mAP/mAP@.5": checkpoint.origin.best}}
    return RunFiles(
        weights.resolve().name,
        runs,
        weights,
        settings_of(checkpoint.settings, str(path)),
        checkpoint.version,
        history,
        costs=Costs.of(checkpoint.netdef),
        best_epoch=best_epoch_in(weights),
    )


def result_of(run: RunFiles) -> Result:
    """What a run has come to, in its own figures."""
    if not isinstance(run.settings, TrainSettings):
        return _cut_result(run)
    last = run.last
    kept = run.history.get(run.best_epoch, {}) if run.best_epoch is not None else {}
    name, wide_name = "mAP/mAP@.5", "mAP/mAP@.5:.95"
    ms, timed_by = _time_of_cut(run)
    return Result(
        run,
        run.epochs,
        run.settings.training.epochs,
        _finished(run),
        kept.get(name, math.nan),
        kept.get(wide_name, math.nan),
        last.get(name, math.nan),
        last.get(wide_name, math.nan),
        ms,
        timed_by,
    )


def _cut_result(run: RunFiles) -> Result:
    if not run.report:
        return Result(run, 0, 0, True, math.nan, math.nan, math.nan, math.nan)
    best, wide = list(run.report.mean_ap.values())[-1]
    ms = run.report.after.latency
    return Result(run, 0, 0, True, best, wide, best, wide, ms, _method(run.report))


def _finished(run: RunFiles) -> bool:
    """Whether all epochs are done, or as many evaluations without a better mAP as `patience`."""
    assert isinstance(run.settings, TrainSettings)
    settings = run.settings.training
    steps, _ = run.curve("mAP/mAP@.5")
    best = run.best_epoch
    stale = sum(step > best for step in steps) if best is not None else 0
    out_of_patience = bool(settings.patience) and stale >= settings.patience
    return run.epochs >= settings.epochs or out_of_patience


def _time_of_cut(run: RunFiles) -> tuple[float, str]:
    """The time of a network that was cut and then trained on: that in the report of its cut."""
    assert isinstance(run.settings, TrainSettings)
    source = parent_of(run.settings.model.cfg)
    if source is None or not (source / REPORT).is_file():
        return math.nan, ""
    report = CutFigures.read(source / REPORT)
    same = run.costs is not None and run.costs.parameters == report.after.parameters
    return (report.after.latency, _method(report)) if same else (math.nan, "")


def _method(report: CutFigures) -> str:
    return next((note for note in report.notes if note.startswith("latency")), "")


def parent_of(path: str) -> Path | None:
    """The folder in runs/ of the run that left a network; None for any other file."""
    parts = Path(path).parts
    if len(parts) < 3 or parts[-3] != "weights":
        return None
    return Path(*parts[:-3], "runs", parts[-2])


def network_of(run: RunFiles) -> Path:
    """The checkpoint of the network that a run has left.

    Raises:
        InputError: it has left none.
    """
    paths = [run.weights / name for name in ("best.pt", "pruned.pt", "last.pt")]
    for path in paths:
        if path.is_file():
            return path
    raise InputError(f"{paths[0]}: no such file, so the network of {run.name} cannot be timed")


def kind_of(run: RunFiles) -> str:
    """What a run is, in a word."""
    if isinstance(run.settings, PruneSettings):
        return f"cut, {run.settings.pruning.strategy}"
    sparsity = run.settings.sparsity
    if sparsity.prune_while_training:
        return "trained and cut"
    return "sparse" if sparsity.is_pruned else "trained"
