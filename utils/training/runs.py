"""Where a training's files go: runs/<name> for what is read, weights/<name> for the network."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path

from utils.errors import InputError


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
        return self.folder.exists() or self.weights.exists()


def new_run(name: str, otherwise: str) -> Run:
    """A run that overwrites nothing, its folders made.

    name: as the user asked; InputError where that run is there already. Empty for the first free
    one of `otherwise`, `otherwise`-2, -3, ... InputError where its folders cannot be made.
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
