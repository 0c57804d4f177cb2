"""Reading text files, and writing files whole or not at all."""

import codecs
import contextlib
import errno
import functools
import os
import os.path
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import IO, cast

from utils.errors import InputError

if sys.platform != "win32":
    import fcntl

PARTIAL = ".partial-"  # begins the names of files and folders that are not whole yet
PROBE = 2**16  # bytes that are written to see whether any can be
LONGEST_STEM = 32  # characters of a name that a temporary one repeats; names end at 255 bytes


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
            temporaries.extend(stack.enter_context(_temporary(target)) for target in targets)
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
        with _temporary(target, is_folder=True) as made:
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
        _remove_abandoned_in(path.parent)
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
            _remove(part)


def part_of(path: Path) -> Path:
    """The file in which `growing` keeps what has come so far."""
    return path.with_name(f"{path.name}.part")


def expect_room(path: str | Path) -> None:
    """Write something beside `path` and remove it.

    Raises:
        InputError: it cannot be written; the disk is full, or gone.
    """
    with _temporary(Path(path)) as temporary:
        try:
            fill(temporary, bytes(PROBE))
        except OSError as error:
            raise cannot_be_written(path, error) from error


def cannot_be_written(path: str | Path, error: OSError) -> InputError:
    """What to raise where the system refuses a file or folder."""
    return InputError(f"{path}: cannot be written: {error.strerror or error}")


def remove_partial_files(folder: Path) -> None:
    """Remove what a kill left half-written below `folder`; what is being written stays."""
    for path in folder.rglob(f"{PARTIAL}*"):
        _remove_abandoned(path)


@contextmanager
def _temporary(target: Path, is_folder: bool = False) -> Iterator[Path]:
    """A new empty file or folder beside `target`, removed in the end unless it was renamed.

    It is locked, which ends with this process however that ends: so whoever next writes to the
    folder knows what a kill has left, and removes it.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned_in(target.parent)
        path, lock = _make_locked(_make_folder if is_folder else _make_file, target)
    except OSError as error:
        raise cannot_be_written(target, error) from error
    try:
        yield path
    finally:
        _remove(path)
        _unlock(lock)


def _make_locked(make: Callable[[Path], Path], target: Path) -> tuple[Path, int | None]:
    while True:
        path = make(target)
        lock = _lock(path)
        if path.exists():
            return path, lock
        _unlock(lock)  # another process removed it before it was locked


def _make_file(target: Path) -> Path:
    prefix = f"{PARTIAL}{target.stem[:LONGEST_STEM]}-"
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=prefix, suffix=target.suffix)
    os.close(handle)
    return Path(name)


def _make_folder(target: Path) -> Path:
    prefix = f"{PARTIAL}{target.name[:LONGEST_STEM]}-"
    return Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix))


def _lock(path: Path, wait: bool = True) -> int | None:
    """Lock a file or folder; None where another process has it, or the system has no such locks."""
    if sys.platform == "win32":
        return None  # it would not let a file be renamed that is open
    try:
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


@functools.cache  # the first time that this process writes to the folder
def _remove_abandoned_in(folder: Path) -> None:
    with os.scandir(folder) as entries:
        paths = [folder / entry.name for entry in entries if entry.name.startswith(PARTIAL)]
    for path in paths:
        _remove_abandoned(path)


def _remove_abandoned(path: Path) -> None:
    lock = _lock(path, wait=False)
    if lock is not None:
        _remove(path)
        _unlock(lock)


def _remove(path: Path) -> None:
    """Remove a file or folder where it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


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


def read_bytes(path: str | Path, most: int = 2**40) -> bytes:
    """What a file holds. A pipe that nobody writes is not waited for, nor a device read for ever.

    Args:
        path: the file.
        most: the largest number of bytes that is read.

    Raises:
        InputError: it is no ordinary file, has more bytes, or cannot be read.
    """
    try:
        size = require_file(path)
        if size > most:
            raise InputError(f"{path}: {size} bytes: expected at most {most}")
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def require_file(path: str | Path) -> int:
    """The size in bytes of an ordinary file, which can be opened without waiting for anything.

    Raises:
        InputError: it is a folder, a pipe, a device or nothing.
    """
    try:
        state = Path(path).stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a name with a zero byte
        raise InputError(f"{str(path)!r}: not the name of a file ({error})") from error
    if not stat.S_ISREG(state.st_mode):
        raise InputError(f"{path}: is {_kind(state.st_mode)}: expected a file")
    return state.st_size


BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(data: bytes) -> str:
    """The encoding that a text begins by naming, with a byte order mark; else UTF-8."""
    marked = (encoding for mark, encoding in BYTE_ORDER_MARKS if data.startswith(mark))
    return next(marked, "utf-8")


def read_text(path: str | Path, most: int = 2**30) -> str:
    r"""The text of a file in UTF-8, or UTF-16 with a byte order mark; line ends become `\n`.

    Raises:
        InputError: the file cannot be read, is too large, or is no text in these; others, such as
            GBK, cannot be told apart with certainty, and names are not guessed.
    """
    text = decode_text(path, read_bytes(path, most))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def decode_text(path: str | Path, data: bytes) -> str:
    """The text that the bytes of a file are, as `read_text` has it; `path` names it in errors."""
    try:
        text = data.decode(encoding_of(data))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(_not_text(path, data, f"{error.reason} in line {line}")) from error
    if "\0" in text:  # nearly all of UTF-16 reads as UTF-8 with these between the letters
        raise InputError(_not_text(path, data, "zero bytes"))
    return text


def read_start(path: Path, most: int = 65_536) -> str:
    """How a text begins, to tell what it is; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(most)
    except OSError:
        return ""
    return start.decode(encoding_of(start), errors="replace")


def _not_text(path: str | Path, data: bytes, reason: str) -> str:
    encoding = "UTF-16LE" if b"\0" in data else "GBK"
    return (
        f"{path}: not a text file in UTF-8 ({reason}); save it as UTF-8 in an editor, or with "
        f"`iconv -f {encoding} -t UTF-8 {Path(path).name} > new.txt` if it is in {encoding}"
    )


def read_lines(path: str | Path, most: int = 2**30) -> list[str]:
    """The lines of a text file, whatever its line ends; see `read_text`.

    Raises:
        InputError: the file cannot be read, is too large, or is no text in UTF-8 or UTF-16.
    """
    return read_text(path, most).splitlines()


def walk(folder: Path) -> tuple[list[Path], list[str]]:
    """The files below a folder, sorted, with those behind links, and what cannot be looked into.

    A folder to which several ways lead counts once, so links in a circle end; the way without links
    is taken first. A link that leads nowhere counts as a file.
    """
    files: list[Path] = []
    closed: list[str] = []
    seen: set[tuple[int, int]] = set()
    folders, links = [folder], list[Path]()
    while folders or links:
        current = folders.pop() if folders else links.pop(0)
        try:
            state = current.stat()
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError as error:
            closed.append(f"{current}: cannot be read: {error.strerror}")
            continue
        for entry in entries:
            if not os.path.isdir(entry) if entry.is_symlink() else not entry.is_dir():  # noqa: PTH112
                files.append(current / entry.name)
            else:
                (links if entry.is_symlink() else folders).append(current / entry.name)
    return sorted(files), closed


def _kind(mode: int) -> str:
    """What a path leads to that is not an ordinary file."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def cache_folder() -> Path:
    """The folder of what the project keeps for its user; all of it may be deleted at any time.

    It is `$XDG_CACHE_HOME/yolov3`, by default below `~/.cache`, or where a user has no home, as in
    some containers, below the folder of temporary files.
    """
    folder = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(folder) if folder else Path.home() / ".cache") / "yolov3"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "yolov3"


def expand(text: str | Path) -> Path:
    """A path with `~` as the home folder. A file may as well be named `~a.jpg`."""
    return Path(os.path.expanduser(text))  # noqa: PTH111  pathlib's raises where no user is `a.jpg`


def exists(path: str | Path) -> bool:
    """Whether there is such a file or folder; a name that is too long for any is that of none."""
    return os.path.exists(path)  # noqa: PTH110  pathlib's raises for such a name


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; see `exists`."""
    return os.path.isfile(path)  # noqa: PTH113


def within(folder: Path, name: str) -> Path:
    """A path in `folder`, which may be a link itself; but none below it may lead out of it.

    Raises:
        InputError: a link does.
    """
    path = folder / name
    real, allowed = path.parent.resolve(), folder.resolve()
    if real != allowed and allowed not in real.parents:
        raise InputError(f"{path.parent}: a link leads to {real}: expected a place in {folder}")
    return path


def same_file(first: Path, second: Path) -> bool:
    """Whether both paths lead to one file that exists, by whatever links."""
    return first.exists() and second.exists() and first.samefile(second)


def output_folder(path: str) -> Path:
    """The folder, made where it is missing.

    Raises:
        InputError: it cannot be made, or nothing can be written to it.
    """
    try:
        path.encode()
    except UnicodeEncodeError as error:  # engines' libraries take no other paths
        raise InputError(f"output={path!r}: expected a name in UTF-8") from error
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output={path!r}: cannot make this folder ({error.strerror})") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"output={path!r}: nothing can be written to this folder")
    return folder
