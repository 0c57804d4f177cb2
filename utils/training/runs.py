"""Where a training's files go: runs/<name> for what is read, weights/<name> for the network."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from import_param import TrainSettings
from utils.checkpoint import Checkpoint, read_checkpoint
from utils.errors import InputError
from utils.files import remove_partial_files
from utils.monitoring.history import CSV_NAME, read_history
from utils.settings import save as save_settings

LOCK = ".lock"  # a file in a run's folder
NETWORKS = ("last.pt", "pruned.weights")  # what is written last of an epoch, and of a cut


class RunInUseError(InputError):
    """Another process writes to the run."""


@dataclass(frozen=True)
class Run:
    """The folders of one training, or of one cut.

    In a `with` it is this process's alone; the system ends that with the process, however it ends.
    """

    name: str
    _locks: list[FileLock] = field(default_factory=list, init=False, repr=False, compare=False)

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

    @property
    def holds_work(self) -> bool:
        """Whether a network or figures of a training are there; else its start was interrupted."""
        if any((self.weights / name).exists() for name in NETWORKS):
            return True
        try:
            return bool(read_history(self.folder / CSV_NAME))
        except InputError:  # damaged figures are somebody's, too
            return True

    def claim(self) -> Self:
        """Make its folders this process's, and remove what a kill left half-written in them.

        Raises:
            RunInUseError: another process has them.
            InputError: they cannot be made.
        """
        try:
            for folder in (self.folder, self.weights):
                folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCK)
            lock.acquire(timeout=0)
        except Timeout:
            raise RunInUseError(
                f"name={self.name!r}: another process is writing to {self.folder}"
            ) from None
        except OSError as error:
            place = error.filename or self.folder
            raise InputError(f"{place}: cannot make this folder ({error.strerror})") from error
        self._locks.append(lock)
        for folder in (self.folder, self.weights):
            remove_partial_files(folder)
        return self

    def release(self) -> None:
        """Let other processes write to it."""
        while self._locks:
            self._locks.pop().release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._remove_if_empty()
        self.release()

    def _remove_if_empty(self) -> None:
        """Leave no folders of work that came to nothing."""
        with contextlib.suppress(OSError):  # it is not empty
            self.weights.rmdir()
        if self.folder.exists() and [path.name for path in self.folder.iterdir()] == [LOCK]:
            with contextlib.suppress(OSError):
                (self.folder / LOCK).unlink()
                self.folder.rmdir()


def open_run(settings: TrainSettings, checkpoint: Checkpoint | None) -> Run:
    """The folders of a training: new ones, or those of the run that goes on.

    Raises:
        InputError: see `new_run`; or a run that goes on would write over another one.
    """
    if checkpoint:
        assert checkpoint.training
        run = Run(checkpoint.training.run)
        _expect_own(run, checkpoint)
        run.claim()
    else:
        stems = (Path(path).stem for path in (settings.model.cfg, settings.data.data))
        run = new_run(settings.training.name, "-".join(stems))
    save_settings(settings, run.folder / "settings.json")
    return run


def new_run(name: str, otherwise: str) -> Run:
    """A run that overwrites nothing, its folders made and this process's.

    Args:
        name: as the user asked; empty for the first free one of `otherwise`, `otherwise`-2, -3, ...
        otherwise: the name where the user asked for none.

    Raises:
        InputError: see `expect_free`; or the folders cannot be made, or are another process's.
    """
    if name:
        expect_free(name)
        run = Run(name)
        begun = run.exists
        run.claim()
        if begun:
            print(f"note: {run.folder} holds no network: it was interrupted, and starts again")
        return run
    for candidate in (otherwise if n == 1 else f"{otherwise}-{n}" for n in count(1)):
        run = Run(candidate)
        if run.holds_work:
            continue
        try:
            run.claim()
        except RunInUseError:
            continue
        if not run.holds_work:  # what another process finished meanwhile
            return run
        run.release()
    raise AssertionError("numbers do not end")


def expect_free(name: str) -> None:
    """Refuse the name of a run that is there; to be asked before any work.

    Raises:
        InputError: it holds a network, or figures of a training.
    """
    run = Run(name)
    if name and run.holds_work:
        last = run.weights / "last.pt"
        more = f", or resume={last}" if last.is_file() else ""
        raise InputError(
            f"name={name!r}: {run.folder} or {run.weights} is there already; give another "
            f"name{more}"
        )


def _expect_own(run: Run, checkpoint: Checkpoint) -> None:
    """Refuse to go on in the folders of another run of the same name."""
    last, given = run.weights / "last.pt", Path(checkpoint.path)
    if not last.exists() or last.samefile(given):
        return
    other = read_checkpoint(last)
    assert checkpoint.training
    if not other.training or _identity(other) != _identity(checkpoint):
        raise InputError(
            f"resume={str(given)!r}: {run.weights} holds another run of the name {run.name!r}; "
            "move it away, or train from this file's weights, with pretrained"
        )
    if other.training.epoch > checkpoint.training.epoch:
        print(
            f"note: {last} has {other.training.epoch} epochs, {given} has "
            f"{checkpoint.training.epoch}: those after it are trained again"
        )


def _identity(checkpoint: Checkpoint) -> object:
    """What is equal in all checkpoints of one run; before 0.3.0 they had no identity."""
    assert checkpoint.training
    return checkpoint.training.identity or dict(checkpoint.settings)
