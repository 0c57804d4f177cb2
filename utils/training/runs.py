"""Where a training's files go: runs/<name> for what is read, weights/<name> for the network."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path

from import_param import TrainSettings
from utils.checkpoint import Checkpoint
from utils.errors import InputError
from utils.settings import save as save_settings


@dataclass(frozen=True)
class Run:
    """The folders of one training."""

    name: str

    @property
    def folder(self) -> Path:
        """Settings, metrics.csv, curves and pictures."""
        return Path("runs") / self.name

    @property
    def weights(self) -> Path:
        """last.pt, best.pt, best.cfg, best.weights."""
        return Path("weights") / self.name

    @property
    def exists(self) -> bool:
        """Whether one of its folders is there."""
        return self.folder.exists() or self.weights.exists()


def open_run(settings: TrainSettings, checkpoint: Checkpoint | None) -> Run:
    """The folders of a training: new ones, or those of the run that goes on.

    Raises:
        InputError: see `new_run`.
    """
    if checkpoint:
        assert checkpoint.training
        return Run(checkpoint.training.run)
    stems = (Path(path).stem for path in (settings.model.cfg, settings.data.data))
    run = new_run(settings.training.name, "-".join(stems))
    save_settings(settings, run.folder / "settings.json")
    return run


def new_run(name: str, otherwise: str) -> Run:
    """A run that overwrites nothing, its folders made.

    Args:
        name: as the user asked; empty for the first free one of `otherwise`, `otherwise`-2, -3, ...
        otherwise: the name where the user asked for none.

    Raises:
        InputError: the run that was asked for is there already, or its folders cannot be made.
    """
    try:
        run = _free_run(name, otherwise)
        run.folder.mkdir(parents=True)
        run.weights.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{error.filename}: cannot make this folder ({error.strerror})") from error
    return run


def _free_run(name: str, otherwise: str) -> Run:
    if name:
        run = Run(name)
        if run.exists:
            last = run.weights / "last.pt"
            more = f", or resume={last}" if last.is_file() else ""
            raise InputError(
                f"name={name!r}: {run.folder} or {run.weights} is there already; give another "
                f"name{more}"
            )
    else:
        names = (otherwise if n == 1 else f"{otherwise}-{n}" for n in count(1))
        run = next(run for run in map(Run, names) if not run.exists)
    return run
