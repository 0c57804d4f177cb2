"""Writing files whole or not at all."""

import contextlib
import errno
import os
import os.path
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import IO, cast

from utils.errors import InputError
from utils.files.temporary import cannot_be_written, remove, remove_abandoned_in, temporary_path

PROBE = 2**16  # bytes that are written to see whether any can be


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block succeeds.

    The temporary name keeps the suffix, since image and plot writers choose their format by it.

    Raises:
        InputError: the folder cannot be made or written to, the disk is full, or whatever else the
            system says against it.
    """
    with together(path) as (temporary,):
        yield temporary


@contextmanager
def together(*paths: str | Path, durable: bool = False) -> Iterator[tuple[Path, ...]]:
    """Write files that belong together; whenever the work is killed, those there are of one time.

    Yields a temporary path beside each of `paths`. When the block succeeds, the second and later
    files of before are removed, last one first; the first is replaced in one step; the others
    follow. So the first is never missing once it was there, and the last is there only when all
    are.

    Args:
        paths: the files, in an order in which the last is what others open (an .xml that reads a
            .bin).
        durable: wait until the disk has them, so that they survive a power failure.

    Raises:
        InputError: one of them cannot be written; those of before are then as they were.
    """
    targets = [Path(path) for path in paths]
    temporaries: list[Path] = []
    try:
        with ExitStack() as stack:
            temporaries.extend(stack.enter_context(temporary_path(target)) for target in targets)
            yield tuple(temporaries)
            _put(temporaries, targets, durable)
    except OSError as error:
        if error.filename is not None and Path(os.fsdecode(error.filename)) not in temporaries:
            raise  # of another file, such as one that the block reads
        raise cannot_be_written(targets[0], error) from error


def _put(files: Sequence[Path], targets: Sequence[Path], durable: bool) -> None:
    """Put files in the place of others, as `together` tells."""
    for file in files:
        file.chmod(0o644)  # mkstemp makes files that only their owner can read
        if durable:
            _wait_for_disk(file)
    for target in reversed(targets[1:]):
        target.unlink(missing_ok=True)
    for file, target in zip(files, targets, strict=True):
        file.replace(target)


@contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`, which takes its place when the block succeeds.

    Raises:
        InputError: it cannot be made or filled, or another process has made `folder` meanwhile.
    """
    target = Path(folder)
    with _folder_beside(target, target) as made:
        yield made
        made.chmod(0o755)  # mkdtemp makes folders that only their owner can open
        if target.exists():
            shutil.rmtree(target)
        made.replace(target)


@contextmanager
def folder_within(folder: str | Path) -> Iterator[Path]:
    """A temporary folder in `folder`, for files that `put` then moves there, with their names.

    Raises:
        InputError: it cannot be made or written to.
    """
    with _folder_beside(Path(folder) / "files", Path(folder)) as made:
        yield made


def put(files: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Move files that belong together to a folder, in the order and manner of `together`."""
    targets = tuple(folder / file.name for file in files)
    _put(files, targets, durable=False)
    return targets


@contextmanager
def _folder_beside(target: Path, told: Path) -> Iterator[Path]:
    """A temporary folder beside `target`; what goes wrong in it is told of the path `told`."""
    made = Path()
    try:
        with temporary_path(target, is_folder=True) as made:
            yield made
    except OSError as error:
        if error.filename is not None and not _is_below(error, made):
            raise
        raise cannot_be_written(told, error) from error
    except InputError as error:
        raise InputError(str(error).replace(str(made), str(told))) from error


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder among the system's temporary files, gone in the end with what is in it.

    Raises:
        InputError: it cannot be made or written to.
    """
    folder = Path("temporary files")
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            folder = Path(name)
            yield folder
    except OSError as error:
        if error.filename is not None and not _is_below(error, folder):
            raise
        raise cannot_be_written(folder, error) from error


def _is_below(error: OSError, folder: Path) -> bool:
    """Whether an error is of a file in a folder."""
    return Path(os.fsdecode(error.filename)).is_relative_to(folder)


def fill(temporary: Path, content: str | bytes) -> None:
    """Write one of the files that `together` or `scratch_folder` yields; it tells what goes wrong.

    Elsewhere `write_text` and `write_bytes` are to be used.
    """
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def guarded(path: Path) -> Iterator[IO[bytes]]:
    """A new file, for libraries in C++ that end the process where `write` raises.

    What the system or Ctrl-C raises there is raised at the end of the block; what is written after
    it is thrown away.
    """
    with path.open("wb") as file:
        guard = _Guard(file)
        try:
            yield cast("IO[bytes]", guard)
        finally:
            if guard.error is not None:
                raise guard.error


class _Guard:
    """The file of `guarded`."""

    def __init__(self, file: IO[bytes]) -> None:
        self.error: BaseException | None = None
        self._file = file

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                self._file.write(data)
            except BaseException as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """The file is flushed once it is closed."""


@contextmanager
def alone(path: str | Path, wait: Callable[[], None]) -> Iterator[None]:
    """Be the only process that works on `path`, of those that ask; others wait.

    The system ends that with the process, however it ends. What stays is an empty file beside. What
    a kill left half-written there is removed.

    Args:
        path: the file that is worked on.
        wait: called once where another process is at it, to say so.

    Raises:
        InputError: nothing can be written beside the file.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            wait()
            lock.acquire()
    except OSError as error:
        raise cannot_be_written(path, error) from error
    try:
        remove_abandoned_in(path.parent)
        yield
    finally:
        lock.release()


@contextmanager
def growing(path: Path, keep: bool) -> Iterator[IO[bytes]]:
    """A file that comes bit by bit, from a network: it is at `path` once the block succeeds.

    Until then it is beside, see `part_of`; with `keep` it stays there when the block fails, and the
    next one goes on at its end.

    Raises:
        InputError: it cannot be written.
    """
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise cannot_be_written(path, error) from error
    finally:
        if not keep or (part.exists() and not part.stat().st_size):
            remove(part)


def part_of(path: Path) -> Path:
    """The file in which `growing` keeps what has come so far."""
    return path.with_name(f"{path.name}.part")


def expect_room(path: str | Path) -> None:
    """Write something beside `path` and remove it.

    Raises:
        InputError: it cannot be written; the disk is full, or gone.
    """
    with temporary_path(Path(path)) as temporary:
        try:
            fill(temporary, bytes(PROBE))
        except OSError as error:
            raise cannot_be_written(path, error) from error


def _wait_for_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")  # on Windows, too


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


class LineFile:
    """A file whose lines others read while it grows: each is there at once, and whole.

    It is opened, and made, with its first line. Use it in a `with`.

    Args:
        path: the file.
        append: go on behind the lines that it has; otherwise they go.
    """

    def __init__(self, path: Path, append: bool) -> None:
        self._path, self._append = path, append
        self._file: FileIO | None = None
        self._end = 0  # bytes

    def __enter__(self) -> "LineFile":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, line: str) -> None:
        """Add a line, given without its end.

        Raises:
            InputError: the file cannot be made, or not take it, since the disk is full.
        """
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        try:
            file = self._file = self._file or self._open()
            if file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if self._file is not None:
                with contextlib.suppress(OSError):
                    self._file.truncate(self._end)  # no part of a line stays
            raise cannot_be_written(self._path, error) from error
        self._end += len(data)

    def _open(self) -> FileIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = FileIO(self._path, "r+" if self._append and self._path.exists() else "w")
        self._end = file.seek(0, os.SEEK_END)
        if self._end:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # half a line, which a kill has left
                self._end += file.write(b"\n")
        return file
