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
from utils.checkpoint.checkpoint import Checkpoint
from utils.console.progress import say
from utils.errors import InputError
from utils.files.temporary import PARTIAL, remove_partial_files
from utils.monitoring.history import CSV_NAME, read_history
from utils.processes import distributed
from utils.settings.loader import save as save_settings

NETWORKS = ("last.pt", "pruned.pt")  # what is written last of an epoch, and of a cut
RUN = "run"  # what torchrun remembers a run's name by
SAVED = "saved"  # and the epoch of its last checkpoint
LOCK = ".lock"  # in the run's folder; it stays, and tells that a run began there


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
    def holds_files(self) -> bool:
        """Whether one of its folders holds anything."""
        return bool(_files(self.folder) or _files(self.weights))

    @property
    def holds_work(self) -> bool:
        """Whether a network, figures of a training or files of somebody else's are there.

        Else at most a start was interrupted, and its name may be used again.
        """
        if any((self.weights / name).exists() for name in NETWORKS):
            return True
        if self.holds_files and not (self.folder / LOCK).exists():
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
        if kind is not None and self._locks:
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

    They are the main process's; others, which write nothing, have a run without a name.

    Raises:
        InputError: see `new_run`.
    """
    own = distributed.on_main(lambda: _claim_run(settings, checkpoint))
    return own or Run("")


def _claim_run(settings: TrainSettings, checkpoint: Checkpoint | None) -> Run:
    if checkpoint:
        assert checkpoint.training
        run = Run(checkpoint.training.run).claim()
    else:
        stems = (Path(path).stem for path in (settings.model.cfg, settings.data.data))
        run = new_run(settings.training.name, "-".join(stems))
    save_settings(settings, run.folder / "settings.json")
    distributed.remember(RUN, run.name)
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
            say(f"note: {run.folder} holds no network: it was interrupted, and starts again")
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
    """Refuse the name of a run that is there, or begins elsewhere; to be asked before any work.

    Raises:
        InputError: it holds a network, figures of a training, or other files; or another process
            writes to it.
    """
    if not name:
        return
    run = Run(name)
    if run.holds_work:
        last = run.weights / "last.pt"
        more = f", or resume={last}" if last.is_file() else ""
        raise InputError(
            f"name={name!r}: {run.folder} or {run.weights} is there already; give another "
            f"name{more}"
        )
    expect_unused(run)


def expect_unused(run: Run) -> None:
    """Refuse a run to which another process writes; to be asked before any work.

    Raises:
        RunInUseError: one does.
    """
    if (run.folder / LOCK).exists():
        run.claim().release()


def _files(folder: Path) -> list[Path]:
    """What is in a folder but for what a kill left half-written."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if not path.name.startswith(PARTIAL)]
